"""Every data set: an index and a class map that fit the images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from madbal_ray.arrays import IGNORE_INDEX
from madbal_ray.config.data import DataConfig
from madbal_ray.data.dataset import mask_lookup
from madbal_ray.data.registry import data_root, open_dataset
from madbal_ray.errors import DataError, PoolError
from madbal_ray.seams import DATASETS
from madbal_ray.state.storage import Folder
from madbal_ray.vision.decode import decode_image, decode_mask

SIZES = {
    "camvid": {"train": 367, "val": 101, "test": 233},
    "voc2012": {"train": 20, "val": 20},
    "cityscapes": {"train": 1, "val": 1},
    "synthetic": {"train": 5, "val": 3},
    "folder": {"train": 2, "val": 1},
    "images": {"train": 3},
}
WITHOUT_MASKS = {"images"}
CLASSES = {"camvid": 11, "voc2012": 21, "cityscapes": 19, "synthetic": 9, "folder": 3, "images": 3}


def make_folder(root, *, splits=True, masks=True, classes="road\nsky\ncar\n"):
    for split, count in (("train", 2), ("val", 1)):
        for index in range(count):
            name = f"{split}/{index}" if splits else f"{split}{index}"
            for kind, suffix, channels in (("images", ".jpg", 3), ("masks", ".png", 1)):
                if kind == "masks" and not masks:
                    continue
                path = root / kind / f"{name}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                array = np.full((20, 30, channels), index, np.uint8).squeeze()
                Image.fromarray(array).save(path)
    (root / "classes.txt").write_text(classes)


def config_of(name, root):
    if name == "synthetic":
        return DataConfig.model_validate(
            {"name": name, "synthetic": {"num_train": 5, "num_val": 3, "height": 32, "width": 40}}
        )
    options = {"folder": {"classes": ["road", "sky", "car"]}} if name == "images" else {}
    return DataConfig.model_validate({"name": name, "root": str(root)} | options)


@pytest.mark.parametrize("name", list(DATASETS))
def test_contract(name, request, tmp_path):
    root = tmp_path
    if name == "folder":
        make_folder(root)
    elif name == "images":
        make_folder(root, splits=False, masks=False)
    elif name != "synthetic":
        root = request.getfixturevalue("data_folder") / name
    config, pool = config_of(name, root), Folder(tmp_path / "pool")
    dataset = open_dataset(config, pool)
    assert {split: len(dataset.of_split(split)) for split in dataset.splits} == SIZES[name]
    assert dataset.num_classes == CLASSES[name] == len(dataset.colors)
    lookup = mask_lookup(dataset.mask_values)
    where = data_root(config, pool)
    for split in dataset.splits:
        records = dataset.of_split(split)
        assert [r.image_id for r in records] == sorted(r.image_id for r in records)
        record = records[0]
        assert not Path(record.image_uri).is_absolute()
        image = decode_image(where.read(record.image_uri), max_pixels=10**8)
        if name in WITHOUT_MASKS:
            assert record.mask_uri is None
            continue
        assert record.mask_uri is not None
        mask = decode_mask(where.read(record.mask_uri), lookup, max_pixels=10**8)
        assert mask.shape == image.shape[:2]
        valid = mask[mask != IGNORE_INDEX]
        assert len(valid)
        assert valid.max() < dataset.num_classes
    assert open_dataset(config, pool) == dataset


def test_pool_can_be_thinned_evenly(data_folder, tmp_path):
    config = config_of("camvid", data_folder / "camvid")
    few = config.model_copy(update={"pool_images": 10})
    dataset = open_dataset(few, Folder(tmp_path))
    chosen = [record.image_id for record in dataset.of_split("train")]
    everything = [r.image_id for r in open_dataset(config, Folder(tmp_path)).of_split("train")]
    assert chosen == [everything[i * 367 // 10] for i in range(10)]
    assert len(dataset.of_split("val")) == 101


def test_folder_without_splits_is_all_pool(tmp_path):
    make_folder(tmp_path, splits=False, masks=False)
    dataset = open_dataset(config_of("folder", tmp_path), Folder(tmp_path))
    assert dataset.splits == ("train",)
    assert all(record.mask_uri is None for record in dataset.records)


@pytest.mark.parametrize("name", ["camvid", "voc2012", "cityscapes", "folder"])
def test_a_wrong_root_says_what_is_missing(name, tmp_path):
    with pytest.raises(DataError, match=r"data\.root"):
        open_dataset(config_of(name, tmp_path), Folder(tmp_path))


def test_a_wrong_split_lists_those_that_exist(tmp_path):
    make_folder(tmp_path)
    config = config_of("folder", tmp_path).model_copy(update={"pool_split": "extra"})
    with pytest.raises(PoolError, match="splits found: train, val"):
        open_dataset(config, Folder(tmp_path))


def test_missing_or_single_class_list_is_refused(tmp_path):
    make_folder(tmp_path, classes="road\n")
    with pytest.raises(DataError, match="1 classes"):
        open_dataset(config_of("folder", tmp_path), Folder(tmp_path))
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(DataError, match="found: neither"):
        open_dataset(config_of("folder", tmp_path), Folder(tmp_path))


def test_synthetic_scenes_are_imbalanced_and_depend_on_their_seed_alone(tmp_path):
    from madbal_ray.data.synthetic import CLASSES as NAMES
    from madbal_ray.data.synthetic import draw_scene

    first = draw_scene(0, "train/0", height=96, width=128)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(first, draw_scene(0, "train/0", height=96, width=128), strict=True)
    )
    assert not np.array_equal(first[0], draw_scene(1, "train/0", height=96, width=128)[0])
    counts = np.zeros(256, np.int64)
    for index in range(40):
        counts += np.bincount(
            draw_scene(0, f"{index}", height=96, width=128)[1].ravel(), minlength=256
        )
    share = counts / counts.sum()
    assert (share[: len(NAMES)] > 0).all()
    assert share[: len(NAMES)].max() > 50 * share[: len(NAMES)].min()
    assert share[IGNORE_INDEX] > 0
