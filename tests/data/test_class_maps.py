"""Class maps value by value, the layout of each data set, splits and thinning."""

import numpy as np
import pytest

from madbal_ray.config.data import DataConfig
from madbal_ray.data.dataset import (
    Dataset,
    ImageRecord,
    identity_values,
    mask_lookup,
    spread_colors,
)
from madbal_ray.errors import DataError
from madbal_ray.seams import DATASETS
from madbal_ray.state.storage import Folder

VOID, UNKNOWN = 255, -1


def opened(name, root, files):
    for path, text in files.items():
        Folder(root).write(path, text.encode())
    config = DataConfig.model_validate({"name": name, "root": str(root)})
    return DATASETS[name](config, Folder(root))


def test_cityscapes_label_ids_become_the_19_train_ids(tmp_path):
    dataset = opened("cityscapes", tmp_path, {"leftImg8bit/train/ulm/ulm_7_leftImg8bit.png": "x"})
    names = {
        **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole"},
        **{19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky"},
        **{24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train"},
        **{32: "motorcycle", 33: "bicycle"},
    }
    assert dataset.class_names == tuple(names.values())
    lookup = mask_lookup(dataset.mask_values)
    train_ids = {label_id: train_id for train_id, label_id in enumerate(names)}
    for label_id in range(34):
        assert lookup[label_id] == train_ids.get(label_id, VOID), label_id
    assert lookup[255] == VOID  # -1 in 8 bits
    assert lookup[65_535] == VOID  # -1 in 16 bits
    assert (lookup[34:255] == UNKNOWN).all()
    assert (lookup[256:65_535] == UNKNOWN).all()
    assert dict(zip(dataset.class_names, dataset.colors, strict=True))["car"] == (0, 0, 142)


def test_cityscapes_masks_are_found_by_name(tmp_path):
    dataset = opened(
        "cityscapes",
        tmp_path,
        {
            "leftImg8bit/train/ulm/ulm_000007_000019_leftImg8bit.png": "x",
            "leftImg8bit/train/ulm/notes.txt": "x",
            "leftImg8bit/val/bonn/bonn_1_leftImg8bit.png": "x",
        },
    )
    image = "leftImg8bit/train/ulm/ulm_000007_000019_leftImg8bit.png"
    mask = "gtFine/train/ulm/ulm_000007_000019_gtFine_labelIds.png"
    assert dataset.of_split("train") == [ImageRecord(image, image, mask, "train")]
    assert [record.mask_uri for record in dataset.of_split("val")] == [
        "gtFine/val/bonn/bonn_1_gtFine_labelIds.png"
    ]


def test_voc_holds_21_classes_and_void_255(tmp_path):
    below = "VOCdevkit/VOC2012"
    lists = f"{below}/ImageSets/Segmentation"
    dataset = opened(
        "voc2012", tmp_path, {f"{lists}/train.txt": "b\na\n", f"{lists}/val.txt": "c\n"}
    )
    lookup = mask_lookup(dataset.mask_values)
    assert lookup[:21].tolist() == list(range(21))
    assert lookup[255] == VOID
    assert (lookup[21:255] == UNKNOWN).all()
    named = [dataset.class_names[i] for i in (0, 1, 7, 12, 15, 20)]
    assert named == ["background", "aeroplane", "car", "dog", "person", "tvmonitor"]
    assert [record.image_uri for record in dataset.of_split("train")] == [
        f"{below}/JPEGImages/a.jpg",
        f"{below}/JPEGImages/b.jpg",
    ]
    assert dataset.of_split("val")[0].mask_uri == f"{below}/SegmentationClass/c.png"


def test_camvid_holds_11_classes_and_void_11(tmp_path):
    dataset = opened(
        "camvid",
        tmp_path,
        {
            "train.txt": "/SegNet/CamVid/train/2.png /SegNet/CamVid/trainannot/2.png\n\n"
            "train/1.png trainannot/1.png\n",
            "val.txt": "",
            "test.txt": "test/3.png testannot/3.png\n",
        },
    )
    lookup = mask_lookup(dataset.mask_values)
    assert lookup[:12].tolist() == [*range(11), VOID]
    assert (lookup[12:] == UNKNOWN).all()
    assert dataset.class_names == (
        *("sky", "building", "pole", "road", "pavement", "tree"),
        *("sign", "fence", "car", "pedestrian", "bicyclist"),
    )
    assert dataset.of_split("train") == [
        ImageRecord("train/1.png", "train/1.png", "trainannot/1.png", "train"),
        ImageRecord("train/2.png", "train/2.png", "trainannot/2.png", "train"),
    ]
    assert dataset.splits == ("train", "test")
    with pytest.raises(DataError, match="line 1: expected `image mask`"):
        opened("camvid", tmp_path, {"val.txt": "a b c\n"})


def test_a_map_of_positions_may_call_any_value_void():
    assert identity_values(3) == {0: 0, 1: 1, 2: 2, 255: 255}
    assert identity_values(2, 7) == {0: 0, 1: 1, 7: 255}


def test_colours_are_those_of_pascal_voc():
    assert spread_colors(10) == (
        *((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)),
        *((128, 0, 128), (0, 128, 128), (128, 128, 128), (64, 0, 0), (192, 0, 0)),
    )


def dataset(*names, split="train"):
    records = [ImageRecord(name, name, None, split) for name in names]
    records.insert(1, ImageRecord("v", "v", None, "val"))
    return Dataset("x", records, ("a", "b"), {0: 0}, ((0, 0, 0), (1, 1, 1)))


def test_a_split_is_read_in_order_of_ids():
    found = dataset("c", "a", "b")
    assert [record.image_id for record in found.of_split("train")] == ["a", "b", "c"]
    assert [record.image_id for record in found.of_split("val")] == ["v"]
    assert found.splits == ("train", "val")
    assert found.num_classes == 2


@pytest.mark.parametrize(
    ("count", "kept"), [(1, "a"), (2, "ad"), (3, "ace"), (5, "abcef"), (7, "abcdefg")]
)
def test_a_thinned_split_is_evenly_spaced(count, kept):
    found = dataset("g", "f", "e", "d", "c", "b", "a").thinned("train", count)
    assert [record.image_id for record in found.of_split("train")] == list(kept)
    assert len(found.of_split("val")) == 1


def test_an_id_names_one_image():
    with pytest.raises(DataError, match="1 image ids occur more than once, the first is 'b'"):
        dataset("c", "b", "b")


def test_values_that_are_not_listed_are_unknown():
    lookup = mask_lookup({3: 1, 65_535: VOID})
    assert lookup.dtype == np.int16
    assert [int(lookup[value]) for value in (0, 3, 255, 65_535)] == [-1, 1, -1, 255]
