"""Bad input end to end: a clear sentence, nothing lost, nothing half-written counted as done."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import madbal_ray
from madbal_ray.errors import ConfigError, DataError, LabelError, NumericalError, PoolError
from madbal_ray.pool.reader import ImageReader, PoolImage
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from tests.conftest import tiny_config

COLORED = np.full((40, 56, 3), (128, 0, 0), np.uint8)


def folder_config(root, **changes):
    """Nine good training images and two for validation, 40 x 56, three classes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 9), ("val", 2)):
        for index in range(count):
            for kind, array in (
                ("images", rng.integers(0, 256, (40, 56, 3), np.uint8)),
                ("masks", rng.integers(0, 3, (40, 56), np.uint8)),
            ):
                path = root / kind / split / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    (root / "classes.txt").write_text("a\nb\nc\n")
    config = tiny_config(
        data={"name": "folder", "root": str(root), "max_bad_fraction": 0.5},
        grids={"input": [40, 56], "working": [40, 56]},
        superpixels__pixels=32,
        num_rounds=1,
    )
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return config


def run(config, tmp_path, name="run"):
    return madbal_ray.run(config, run_dir=tmp_path / "runs" / name, engine="local")


def test_bad_images_are_quarantined_by_id_and_reason_and_the_run_goes_on(tmp_path):
    config = folder_config(tmp_path / "data")
    folder = tmp_path / "data" / "images" / "train"
    whole = (folder / "0.png").read_bytes()
    (folder / "0.png").write_bytes(whole[: len(whole) // 2])
    (folder / "1.png").write_bytes(b"")
    sink = io.BytesIO()
    Image.new("CMYK", (56, 40)).save(sink, "JPEG")
    (folder / "2.png").write_bytes(sink.getvalue())
    Image.fromarray(np.full((40, 56), 9, np.uint8)).save(folder / "3.png")  # grey: fine
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 56)).save(folder / "4.png", exif=exif)  # upright after EXIF: fine
    done = run(config, tmp_path)
    quarantine = {row["image_id"]: row["reason"] for row in done.table("quarantine").to_pylist()}
    assert set(quarantine) == {f"images/train/{i}.png" for i in (0, 1, 2)}
    assert "truncated" in quarantine["images/train/0.png"].lower()
    assert "empty" in quarantine["images/train/1.png"]
    assert "CMYK" in quarantine["images/train/2.png"]
    metrics = done.metrics()
    assert metrics["labels_per_image"].tolist() == [5.0]  # of the six good ones
    assert metrics["num_labels"].tolist() == [30]
    assert not set(done.table("labels")["image_id"].to_pylist()) & set(quarantine)


def test_too_many_bad_images_stop_the_run_and_mending_them_is_enough(tmp_path):
    config = folder_config(tmp_path / "data", data__max_bad_fraction=0.2)
    folder = tmp_path / "data" / "images" / "train"
    for index in range(3):
        (folder / f"{index}.png").write_bytes(b"junk")
    with pytest.raises(PoolError, match=r"of 9 images of split 'train'.*max_bad_fraction"):
        run(config, tmp_path)
    folder_config(tmp_path / "data")  # draws them again
    assert run(config, tmp_path, "second").num_rounds == 1


def test_a_pool_of_only_bad_images_is_a_sentence(tmp_path):
    config = folder_config(tmp_path / "data", data__max_bad_fraction=1.0)
    for path in (tmp_path / "data" / "images" / "train").iterdir():
        path.write_bytes(b"junk")
    with pytest.raises(PoolError, match="all 9 are quarantined"):
        run(config, tmp_path)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((40, 55), np.uint8), r"train/0\.png: 40 x 55, its image .* is 40 x 56"),
        (np.full((40, 56), 7, np.uint8), r"train/0\.png: mask values outside the class map: 7"),
        (COLORED, r"train/0\.png: a mask needs one value a pixel"),
    ],
)
def test_masks_that_do_not_fit_are_named_before_training(tmp_path, mask, message):
    config = folder_config(tmp_path / "data")
    path = tmp_path / "data" / "masks" / "train" / "0.png"
    good = path.read_bytes()
    Image.fromarray(mask).save(path)
    with pytest.raises(DataError, match=message):
        run(config, tmp_path)
    path.write_bytes(good)
    assert run(config, tmp_path).num_rounds == 1  # the same run folder carries on


def test_a_simulated_oracle_needs_masks(tmp_path):
    config = folder_config(tmp_path / "data")
    (tmp_path / "data" / "masks" / "train" / "3.png").unlink()
    with pytest.raises(DataError, match="1 of 9 pool images have no mask"):
        run(config, tmp_path)


def test_evaluation_needs_masks_and_a_known_split(tmp_path):
    config = folder_config(tmp_path / "data")
    config["evaluation"] = {"splits": ["test"]}
    with pytest.raises(DataError, match="no split 'test'; splits found: train, val"):
        run(config, tmp_path)
    (tmp_path / "data" / "masks" / "val" / "0.png").unlink()
    config["evaluation"] = {"splits": ["val"]}
    with pytest.raises(DataError, match="nothing can be measured"):
        run(config, tmp_path, "second")


def test_a_file_that_vanishes_between_two_starts_is_refused(tmp_path):
    config = folder_config(tmp_path / "data")
    with pytest.raises(Exception, match="stopped after superpixels"):
        madbal_ray.run(
            config,
            run_dir=tmp_path / "runs" / "run",
            engine="local",
            stop_after=("superpixels", None),
        )
    mask = tmp_path / "data" / "masks" / "train" / "5.png"
    mask.rename(tmp_path / "aside.png")
    with pytest.raises(ConfigError, match="have changed since the run was started; restore them"):
        run(config, tmp_path)
    (tmp_path / "aside.png").rename(mask)
    assert run(config, tmp_path).num_rounds == 1


def test_an_image_that_vanishes_while_the_run_works_is_named(tmp_path):
    image = PoolImage("a/b.png", "a/b.png", None, 4, 4, 4, 4, 4, 4)
    reader = ImageReader(Folder(tmp_path), {0: 0}, max_pixels=100, max_bytes=100)
    with pytest.raises(DataError, match=r"a/b\.png: .* was fine when the pool was prepared"):
        reader.original(image)


def test_fewer_superpixels_than_clusters(tmp_path):
    config = folder_config(tmp_path / "data", clustering__num_clusters=5000)
    with pytest.raises(PoolError, match="clusters; lower it"):
        run(config, tmp_path)


def test_a_budget_beyond_the_pixels_left_asks_all_and_says_so(tmp_path):
    config = tiny_config(
        data__synthetic={"num_train": 2, "num_val": 1, "height": 32, "width": 32},
        budget={"initial_pixels_per_image": 700, "pixels_per_image": 700},
        num_rounds=3,
    )
    lines = []
    with pytest.raises(PoolError, match="every pixel of the pool was asked that may be"):
        madbal_ray.run(config, run_dir=tmp_path / "run", engine="local", progress=Recorder(lines))
    partial = madbal_ray.open_run(tmp_path / "run")
    assert partial.table("labels").num_rows == 2 * 32 * 32
    assert partial.table("queries", 1).num_rows == 2 * (32 * 32 - 700)
    assert any("pixels fewer than the budget" in line for line in lines)


def test_a_class_without_labels_is_reported_and_the_run_goes_on(tmp_path):
    lines = []
    config = tiny_config(num_rounds=1, budget__initial_pixels_per_image=1)
    done = madbal_ray.run(
        config, run_dir=tmp_path / "run", engine="local", progress=Recorder(lines)
    )
    thresholds = done.table("class_loss_thresholds").to_pylist()
    empty = [row for row in thresholds if not row["num_labels"]]
    assert empty
    assert all(row["threshold"] is None for row in empty)
    assert any("fewer than 5 labels of:" in line for line in lines)


def test_only_void_answers_are_an_error_with_a_reason(tmp_path):
    config = folder_config(tmp_path / "data")
    mask = np.full((40, 56), 255, np.uint8)
    mask[0, :2] = 0, 1  # two pixels an image that nobody asks for: the masks are not all void
    for path in (tmp_path / "data" / "masks" / "train").iterdir():
        Image.fromarray(mask).save(path)
    with pytest.raises(LabelError, match="every answer was void"):
        run(config, tmp_path)


def test_nan_in_the_network_stops_the_run_and_says_where(tmp_path):
    config = tiny_config(num_rounds=1, train__phase1__learning_rate=1e12, train__phase1__epochs=3)
    with pytest.raises(NumericalError, match=r"round 0, phase1, epoch \d: the loss is (nan|inf)"):
        run(config, tmp_path)


def test_nan_in_scoring_names_the_image(tmp_path, monkeypatch):
    from safetensors.torch import load, save

    config = tiny_config()
    with pytest.raises(Exception, match="stopped after round 0 phase2"):
        madbal_ray.run(
            config, run_dir=tmp_path / "runs" / "run", engine="local", stop_after=("phase2", 0)
        )
    stage = madbal_ray.open_run(tmp_path / "runs" / "run").run_dir.find("phase2", 0)
    state = load(stage.folder.read("phase2.safetensors"))
    key = "loss_module.out.bias"
    state[key] = torch.full_like(state[key], float("nan"))
    stage.folder.write("phase2.safetensors", save(state))
    monkeypatch.setattr(StageDir, "_check", lambda *_: None)  # as if training had written it
    with pytest.raises(NumericalError, match=r"stage score, shard 0.*train/00000\.png is NaN"):
        run(config, tmp_path)


def test_damaged_files_are_never_counted_as_done(tmp_path):
    config = tiny_config()
    folder = tmp_path / "runs" / "run"
    with pytest.raises(Exception, match="stopped"):
        madbal_ray.run(config, run_dir=folder, engine="local", stop_after=("score", 1))
    calm = madbal_ray.run(config, run_dir=tmp_path / "calm" / "run", engine="local")
    stage = madbal_ray.open_run(folder).run_dir.find("score", 1)
    stage.folder.delete("_DONE.json")
    (folder / "rounds/001/score/_CURRENT.json").unlink()
    shard = stage.folder.local_path / "superpixel_scores" / "00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-10])
    stage.folder.delete("_manifest.jsonl")
    again = run(config, tmp_path)
    assert again.table("queries").equals(calm.table("queries"))


class Recorder:
    """A progress view that keeps what it is told."""

    def __init__(self, lines):
        self.lines = lines

    def start_stage(self, title, total):
        pass

    def advance(self, images):
        pass

    def on_training(self, progress):
        pass

    def end_stage(self, seconds):
        pass

    def say(self, text):
        self.lines.append(text)
