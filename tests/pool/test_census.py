"""What masks hold is counted, and masks that teach nothing are refused before any training."""

import json

import numpy as np
import pytest
from PIL import Image

import madbal_ray
from madbal_ray.config.schema import Config
from madbal_ray.engine.stages import StopRequested
from madbal_ray.errors import ConfigError, DataError
from madbal_ray.pool.census import (
    check_census,
    check_classes,
    count_pixels,
    note_census,
    read_census,
)
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from tests.conftest import tiny_config

NAMES = ("road", "car", "tree")


def pixels(**counts):
    total = np.zeros(256, np.int64)
    for name, count in counts.items():
        total[255 if name == "void" else NAMES.index(name)] = count
    return total


def said(counts, *, is_asked=True):
    lines = []
    check_census(counts, NAMES, where="split 'train'", is_asked=is_asked, say=lines.append)
    return lines


def test_counts_of_shards_are_added(tmp_path):
    stage = StageDir.plan(Folder(tmp_path), "images", {}, {})
    note_census(stage, 0, count_pixels(np.array([[0, 0, 255]], np.uint8)))
    note_census(stage, 2, count_pixels(np.array([[2, 0, 1]], np.uint8)))
    assert np.array_equal(read_census(stage, [0, 2]), pixels(road=3, car=1, tree=1, void=1))
    assert read_census(stage, [1]).sum() == 0  # inspected before there were counts
    assert not list((tmp_path / "images" / stage.key).glob("*.json"))  # no file of the stage's own


def test_an_epoch_is_not_chosen_by_void_alone(tmp_path):
    stage = StageDir.plan(Folder(tmp_path), "images", {}, {})
    note_census(stage, 0, count_pixels(np.array([[0, 1, 2]], np.uint8)))
    note_census(stage, 1, count_pixels(np.array([[255, 255]], np.uint8)))

    def check(shards, **train):
        config = Config.model_validate({"train": train})
        check_classes(config, stage, shards, NAMES, lambda line: None)

    shards = {"train": [0], "val": [1], "test": [0], "new": [2]}
    with pytest.raises(DataError, match=r"split 'val': all of its masks' pixels are void, and"):
        check(shards, keep_epoch="best", select_split="val")
    check(shards, keep_epoch="best", select_split="test")
    check(shards, keep_epoch="best", select_split="new")  # inspected before there were counts
    check(shards, select_split="val")


def test_good_masks_are_not_spoken_of():
    assert said(pixels(road=4, car=3, tree=1, void=8)) == []  # half void is not most
    assert said(pixels()) == []


def test_void_majority_and_absent_classes_are_said():
    (void,) = said(pixels(road=4, car=3, tree=1, void=9))
    assert void.startswith("warning: split 'train': void is 52.9% of the masks' pixels")
    (never,) = said(pixels(road=4, tree=1))
    assert never == (
        "warning: split 'train': 1 of 3 declared classes never occur in the masks: car"
    )


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (pixels(road=6, void=2), r"void is 25\.0% .*, all else is 'road'; of 3 declared classes 1"),
        (pixels(void=2), r"void is 100\.0% of the masks' pixels; of 3 declared classes 0 occur"),
    ],
)
def test_masks_of_one_class_are_refused_where_they_answer(counts, text):
    with pytest.raises(DataError, match=text):
        said(counts)
    (line,) = said(counts, is_asked=False)
    assert line.startswith("warning: split 'train'")


# ---- a whole start ----


def data_of(root, masks, splits=("train", "val")):
    """Write four images a split; `masks` draws the mask of image i."""
    rng = np.random.default_rng(0)
    for split in splits:
        for index in range(4):
            for kind, array in (
                ("images", rng.integers(0, 256, (32, 40, 3), np.uint8)),
                ("masks", masks(index)),
            ):
                path = root / kind / split / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    (root / "classes.txt").write_text("\n".join(NAMES))
    return tiny_config(
        data={"name": "folder", "root": str(root)},
        grids={"input": [32, 40], "working": [32, 40]},
        superpixels__pixels=64,
    )


def striped(first, second):
    mask = np.full((32, 40), first, np.uint8)
    mask[:, 20:] = second
    return lambda index: mask


class View:
    def __init__(self):
        self.told = []

    def start_stage(self, title, total):
        self.told.append(title)

    def advance(self, images): ...
    def on_training(self, progress): ...
    def end_stage(self, seconds): ...

    def say(self, text):
        self.told.append(text)


def start(config, tmp_path, stop="superpixels"):
    view = View()
    with pytest.raises(StopRequested):
        madbal_ray.run(
            config,
            run_dir=tmp_path / "runs/run",
            engine="local",
            stop_after=(stop, None),
            progress=view,
        )
    return view.told


def test_masks_of_0_and_255_do_not_become_a_perfect_score(tmp_path):
    config = data_of(tmp_path / "data", striped(0, 255))
    with pytest.raises(DataError, match=r"void is 50\.0% .* all else is 'road'.*value: 255"):
        madbal_ray.run(config, run_dir=tmp_path / "runs/run", engine="local")
    assert not (tmp_path / "runs/run/rounds").exists()
    counts = [json.loads(path.read_text()) for path in tmp_path.rglob("_census/*.json")]
    assert {sum(of["0"] for of in counts), sum(of["255"] for of in counts)} == {8 * 32 * 20}


def test_a_class_that_never_occurs_is_said_at_every_start(tmp_path):
    config = data_of(tmp_path / "data", striped(0, 2))
    for _ in range(2):  # the second one finds the pool inspected
        told = [line for line in start(config, tmp_path) if "never occur" in line]
        assert len(told) == 2  # of the pool, of val
        assert told[0].endswith("never occur in the masks: car")


def test_a_value_outside_the_map_is_named_with_the_map(tmp_path):
    config = data_of(tmp_path / "data", striped(1, 7))
    text = r"outside the class map: 7; the map knows 0 to 2 and 255 \(void\), the mask holds 1, 7"
    with pytest.raises(DataError, match=text):
        start(config, tmp_path)


def test_nothing_to_measure_is_said_before_anything_is_done(tmp_path):
    config = data_of(tmp_path / "data", striped(0, 1), splits=["site_a", "site_b"])
    text = r"nothing to measure on.*splits found: train .*expected 'train' and another.*val or test"
    with pytest.raises(DataError, match=text):
        start(config, tmp_path)
    assert not (tmp_path / "runs/pool").exists()
    told = start(config | {"evaluation": {"splits": []}}, tmp_path)
    assert [line for line in told if "nothing will be measured" in line]


def test_an_evaluation_split_that_is_not_there_is_said_before_anything_is_done(tmp_path):
    config = data_of(tmp_path / "data", striped(0, 1)) | {"evaluation": {"splits": ["test"]}}
    with pytest.raises(DataError, match="has no split 'test'; splits found: train, val"):
        start(config, tmp_path)
    assert not (tmp_path / "runs/pool").exists()


def test_validation_is_val_and_its_masks_may_lie_in_either(tmp_path):
    root = tmp_path / "data"
    data_of(root, striped(0, 1), splits=["Training", "validation"])
    (root / "masks/validation").rename(root / "masks/val")
    config = data_of(tmp_path / "other", striped(0, 1))
    config["data"]["root"] = str(root)
    start(config, tmp_path, stop="images")
    run = madbal_ray.open_run(tmp_path / "runs/run")
    rows = run.table("images").to_pylist()
    assert sorted({(row["split"], row["image_uri"].split("/")[1]) for row in rows}) == [
        ("train", "Training"),
        ("val", "validation"),
    ]
    assert {row["mask_uri"].split("/")[1] for row in rows} == {"Training", "val"}


def test_an_edited_class_map_is_another_data_set(tmp_path):
    """Else what was answered under the old map would be carried on under the new one."""
    config = data_of(tmp_path / "data", striped(0, 7))
    (tmp_path / "data/classes.txt").unlink()
    classes = "classes: [{name: road, value: %d}, {name: car, value: %d}]"
    (tmp_path / "data/classes.yaml").write_text(classes % (0, 7))
    start(config, tmp_path)
    (tmp_path / "data/classes.yaml").write_text(classes % (7, 0))
    with pytest.raises(ConfigError, match="stage index was run with key"):
        start(config, tmp_path)
