"""Real images end to end, small: CamVid, VOC (sizes differ), Cityscapes (three grids)."""

import math
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

import madbal_ray
from tests.conftest import tiny_config

CASES = {
    "camvid": {
        "data__pool_images": 4,
        "grids": {"input": [48, 64], "working": [48, 64]},
        "evaluation": {"splits": []},
    },
    "voc2012": {
        "data__pool_images": 5,
        "grids": {"input": {"long_side": 96}, "working": {"long_side": 80}},
        "train__crop": [64, 64],
        "evaluation": {"splits": []},
    },
    "cityscapes": {
        "grids": {"input": [128, 256], "working": [64, 128]},
        "train__crop": [96, 96],
        "features": {"extractor": "mobilenet_v2"},
    },
}


@pytest.mark.parametrize("name", list(CASES))
def test_two_rounds_on_real_images(name, data_folder, tmp_path):
    config = tiny_config(
        data={"name": name, "root": str(data_folder / name)}, superpixels__pixels=128
    )
    for key, value in CASES[name].items():
        *parents, last = key.split("__")
        node = config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    run = madbal_ray.run(config, run_dir=tmp_path / "run", engine="local")
    labels = run.table("labels").to_pandas()
    images = run.table("images").to_pandas().set_index("image_id")
    pool = images[images["split"] == "train"]
    assert len(labels) == 10 * len(pool)
    assert not labels.duplicated(["image_id", "y", "x"]).any()
    sizes = pool.loc[labels["image_id"]]
    assert (labels["y"].to_numpy() < sizes["work_height"].to_numpy()).all()
    assert (labels["x"].to_numpy() < sizes["work_width"].to_numpy()).all()
    assert (labels["image_y"].to_numpy() < sizes["height"].to_numpy()).all()
    if name == "voc2012":
        assert len(pool[["height", "width"]].drop_duplicates()) > 1
        assert set(np.maximum(pool["work_height"], pool["work_width"])) == {80}
    if name == "cityscapes":
        metrics = run.metrics()
        assert metrics["split"].tolist() == ["val", "val"]
        assert run.table("confusion", 1)["counts"].to_pandas().explode().sum() > 10**6


def test_labels_are_what_the_original_mask_says(data_folder, tmp_path):
    """Working pixel -> original pixel -> mask value, recomputed from the files alone."""
    config = tiny_config(
        data={"name": "camvid", "root": str(data_folder / "camvid"), "pool_images": 4},
        grids={"input": [48, 64], "working": [45, 60]},
        evaluation={"splits": []},
        num_rounds=1,
        budget__initial_pixels_per_image=300,
    )
    run = madbal_ray.run(config, run_dir=tmp_path / "run", engine="local")
    rows = run.table("labels").to_pylist()
    seen = set()
    for row in rows:
        mask_path = row["image_id"].replace("train/", "trainannot/").replace(".jpg", ".png")
        mask = np.asarray(Image.open(data_folder / "camvid" / mask_path))
        y = math.floor(Fraction(2 * row["y"] + 1, 2) / 45 * 360)
        x = math.floor(Fraction(2 * row["x"] + 1, 2) / 60 * 480)
        assert (row["image_y"], row["image_x"]) == (y, x)
        assert row["status"] == ("void" if mask[y, x] == 11 else "labelled")
        if row["status"] == "labelled":
            assert row["class_id"] == mask[y, x]
        seen.add(row["status"])
    assert seen == {"void", "labelled"}


def test_skip_void_never_asks_void_pixels(data_folder, tmp_path):
    config = tiny_config(
        data={"name": "camvid", "root": str(data_folder / "camvid"), "pool_images": 4},
        grids={"input": [48, 64], "working": [48, 64]},
        evaluation={"splits": []},
        budget={"initial_pixels_per_image": 200, "pixels_per_image": 50},
        oracle={"skip_void": True},
    )
    run = madbal_ray.run(config, run_dir=tmp_path / "run", engine="local")
    labels = run.table("labels").to_pandas()
    assert (labels["status"] == "labelled").all()
    assert len(labels) == 4 * 250


def test_a_frozen_backbone_with_its_weights_learns_camvid_from_points(data_folder, tmp_path):
    """Random features give 0.2; a head that did not learn would give less than 0.1."""
    weights = data_folder / "weights" / "mobilenet_v2-imagenet.safetensors"
    if not weights.exists():
        pytest.skip("no ImageNet weights in the data folder")
    source, root = data_folder / "camvid", tmp_path / "camvid"
    root.mkdir()
    for name in ("train", "val", "test"):
        kept = (source / f"{name}.txt").read_text().splitlines()[:: 12 if name == "train" else 25]
        (root / f"{name}.txt").write_text("\n".join(kept) + "\n")
        (root / name).symlink_to(source / name)
        (root / f"{name}annot").symlink_to(source / f"{name}annot")
    run = madbal_ray.run(
        {
            "num_rounds": 1,
            "data": {"name": "camvid", "root": str(root)},
            "grids": {"input": [180, 240], "working": [180, 240]},
            "model": {
                "train_backbone": False,
                "head": "hypercolumn",
                "dropout": 0.3,
                "weights": str(weights),
            },
            "train": {
                name: {
                    "steps": 150,
                    "batch_points": 256,
                    "optimizer": "adamw",
                    "learning_rate": 0.004,
                    "schedule": "one_cycle",
                }
                for name in ("phase1", "phase2")
            },
            "budget": {"initial_pixels_per_image": 20, "pixels_per_image": 10},
        },
        run_dir=tmp_path / "run",
        engine="local",
    )
    assert run.metrics().query("split == 'test'")["miou"].iloc[0] > 0.25
