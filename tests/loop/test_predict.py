"""`madbal predict`: what the files hold, against the run's own metrics and a literal network."""

import csv
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch.nn import functional as F

import madbal_ray
from madbal_ray import api
from madbal_ray.cli import main
from madbal_ray.errors import ConfigError, PoolError, ShapeError
from madbal_ray.models.trained import load_network
from madbal_ray.runs import predictor
from madbal_ray.scoring.predicted_files import file_name, mask_png, same_stems
from madbal_ray.strategies.strategy import resolve
from madbal_ray.vision.normalize import normalize_images

KINDS = ("masks", "overlays", "confidence", "scores")


def opened(path):
    return np.array(Image.open(path))


def files_of(run, split):
    (folder,) = Path(str(run.run_dir)).parent.glob("pool/synthetic/*")
    return sorted((folder / split).glob("*.png")), folder / f"{split}_masks"


@pytest.fixture(scope="module")
def pictures(tiny_run, tmp_path_factory):
    """The run's three images of split val, one of another size, and one that is none."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "a").mkdir()
    for path in files_of(tiny_run, "val")[0]:
        (root / "a" / path.name).write_bytes(path.read_bytes())
    first = Image.open(next(iter((root / "a").iterdir())))
    first.resize((80, 40)).save(root / "wide.jpg", quality=95)
    (root / "broken.png").write_bytes(b"not an image")
    return root


@pytest.fixture(scope="module")
def predicted(tiny_run, pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("predicted") / "out"
    place = tiny_run.run_dir.folder.uri
    return api.predict(place, pictures, out=out, kinds=KINDS, engine="local")


def out_of(run):
    return Path(run.run_dir.folder.uri)


def miou(run, folder, split="val"):
    """Return the mIoU of mask files against the truth, computed from sets of pixels."""
    classes = range(len(run.class_names))
    both, either = np.zeros(len(classes)), np.zeros(len(classes))
    paths, masks = files_of(run, split)
    for path in paths:
        truth, found = opened(masks / path.name), opened(folder / path.name)
        assert found.shape == truth.shape
        for k in classes:
            is_true, is_found = truth == k, (found == k) & (truth != 255)
            both[k] += (is_true & is_found).sum()
            either[k] += (is_true | is_found).sum()
    return np.mean(both[either > 0] / either[either > 0])


def test_masks_of_a_measured_split_have_the_miou_that_the_run_reports(tiny_run, predicted):
    metrics = tiny_run.table("metrics").to_pylist()
    (reported,) = [row["miou"] for row in metrics if row["round"] == 1]
    assert miou(tiny_run, out_of(predicted) / "masks/a") == pytest.approx(reported, abs=1e-9)


def test_so_have_those_of_a_frozen_backbone(frozen_run, tmp_path):
    folder = files_of(frozen_run, "val")[0][0].parent
    api.predict(frozen_run.run_dir.folder.uri, folder, out=tmp_path / "out", engine="local")
    (reported,) = [
        row["miou"] for row in frozen_run.table("metrics").to_pylist() if row["round"] == 1
    ]
    # Kept features are rounded to 16 bits: a pixel between two classes may fall the other way.
    assert miou(frozen_run, tmp_path / "out" / "masks") == pytest.approx(reported, abs=2e-3)


def test_every_file_against_a_literal_network(tiny_run, predicted, pictures):
    config = tiny_run.config
    network = load_network(
        config.model,
        len(tiny_run.class_names),
        tiny_run.network(1),
        resolve(config.strategy).supports,
    )
    network.set_phase("eval")
    picture = opened(pictures / "wide.jpg")
    assert picture.shape == (40, 80, 3)
    with torch.inference_mode():
        logits = network(normalize_images(torch.from_numpy(picture[None])), supports=False).logits
        full = F.interpolate(logits, (40, 80), mode="bilinear", align_corners=False)[0]
    classes, probability = full.argmax(0).numpy(), full.softmax(0).max(0).values.numpy()
    folder = out_of(predicted)
    mask = Image.open(folder / "masks/wide.png")
    assert mask.mode == "P"
    assert np.array(mask).tolist() == classes.tolist()
    colors = np.array(tiny_run.colors)
    assert np.array(mask.convert("RGB")).tolist() == colors[classes].tolist()
    confidence = opened(folder / "confidence/wide.png")
    assert np.abs(confidence - 255 * probability).max() <= 0.51
    overlay = opened(folder / "overlays/wide.jpg").astype(int)
    assert np.abs(overlay - (picture / 2 + colors[classes] / 2)).mean() < 4  # JPEG
    score = opened(folder / "scores/wide.tif")
    assert score.dtype == np.float32
    assert score.shape == (40, 80)
    assert score.std() > 0
    assert np.isfinite(score).all()
    (row,) = [r for r in predicted.table("predictions", 0).to_pylist() if "wide" in r["image_id"]]
    assert (row["height"], row["width"]) == (40, 80)
    assert row["mean_confidence"] == pytest.approx(probability.mean(), abs=1e-6)
    assert row["class_pixels"] == np.bincount(classes.ravel(), minlength=len(colors)).tolist()


def test_predictions_are_verified_by_their_files(predicted):
    *_, result = api.verify(out_of(predicted))
    assert result == (
        "verified: 1 of 1 rounds; taken as stored: index, images, phase1, phase2, predictions"
    )


def test_the_table_for_people_and_what_could_not_be_read(tiny_run, predicted):
    rows = list(csv.DictReader(io.StringIO((out_of(predicted) / "predictions.csv").read_text())))
    assert [row["image_id"] for row in rows][-1] == "wide.jpg"
    assert len(rows) == 4
    for row in rows:
        classes = opened(out_of(predicted) / row["mask"])
        for class_id, name in enumerate(tiny_run.class_names):
            share = float(row[f"share of {name}"])
            assert share == pytest.approx((classes == class_id).mean(), abs=1e-6)
    (bad,) = predicted.table("quarantine").to_pylist()
    assert bad["image_id"] == "broken.png"


def test_the_same_command_does_nothing_again_and_other_files_are_refused(
    tiny_run, pictures, predicted
):
    out, place = out_of(predicted), tiny_run.run_dir.folder.uri
    before = {path: path.stat().st_mtime_ns for path in out.glob("masks/**/*.png")}
    assert len(before) == 4
    api.predict(place, pictures, out=out, kinds=KINDS, engine="local")
    assert {path: path.stat().st_mtime_ns for path in out.glob("masks/**/*.png")} == before
    with pytest.raises(ConfigError, match="masks are asked for: choose another --out"):
        api.predict(place, pictures, out=out, kinds=["masks"], engine="local")


def test_a_notebook_gets_the_same(tiny_run, predicted, pictures):
    picture = opened(pictures / "wide.jpg")
    (classes,) = tiny_run.predict([picture])
    assert classes.tolist() == opened(out_of(predicted) / "masks/wide.png").tolist()
    (earlier,) = tiny_run.predict([picture], round_index=0)
    assert earlier.shape == (40, 80)
    with pytest.raises(ShapeError, match=r"float64 \(4, 4, 3\); expected uint8"):
        tiny_run.predict([np.zeros((4, 4, 3))])


def test_a_notebooks_picture_keeps_its_shape_on_the_grid(tiny_run, pictures, monkeypatch):
    shapes, predict = [], predictor.predict

    def seen(network, inputs, size, **options):
        shapes.append((tuple(inputs.shape), size))
        return predict(network, inputs, size, **options)

    monkeypatch.setattr(predictor, "predict", seen)
    tiny_run.predict([opened(pictures / "wide.jpg")])
    assert shapes == [((1, 3, 40, 80), (40, 80))]


def test_from_the_command_line_by_a_model_file(tiny_run, predicted, pictures, tmp_path):
    def madbal(*words):
        return CliRunner().invoke(main, [str(word) for word in words])

    model = tmp_path / "model.safetensors"
    assert madbal("export", tiny_run.run_dir, model).exit_code == 0
    result = madbal(
        "predict",
        model,
        pictures,
        "--out",
        tmp_path / "out",
        "--engine",
        "local",
        "--write",
        "masks",
    )
    assert result.exit_code == 0, result.output
    expected = f"wrote masks and predictions.csv of 4 images to {tmp_path / 'out'}"
    assert result.output.splitlines()[-1] == expected
    assert not (tmp_path / "out" / "overlays").exists()
    for path in (out_of(predicted) / "masks").rglob("*.png"):
        other = tmp_path / "out" / path.relative_to(out_of(predicted))
        assert opened(other).tolist() == opened(path).tolist()


def test_names_from_a_table_stay_in_the_folder(tiny_run, pictures, tmp_path):
    data = (pictures / "wide.jpg").read_bytes()
    names = ["../up.jpg", "/abs.jpg", "a/../../b.jpg", "x" * 400 + ".jpg", "=1+1.jpg"]
    names += ["東京/駅 2.jpg"]
    table = pa.table({"image_id": names, "image": [data] * len(names)})
    (tmp_path / "pool").mkdir()
    pq.write_table(table, tmp_path / "pool" / "a.parquet")
    out = tmp_path / "out"
    run = api.predict(
        tiny_run.run_dir.folder.uri, tmp_path / "pool", out=out, kinds=["masks"], engine="local"
    )
    assert run.table("predictions", 0).num_rows == len(names)
    assert len(list((out / "masks").rglob("*.png"))) == len(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "pool"]
    assert opened(out / "masks" / "東京" / "駅 2.png").tolist()
    assert "\n東京/駅 2.jpg,masks/東京/駅 2.png," in (out / "predictions.csv").read_text()
    assert "\n'=1+1.jpg," in (out / "predictions.csv").read_text()


def test_names_of_files_differ_where_images_do():
    ids = ["a.png", "a.jpg", "a", "a/b.png", "a%2Fb.png", "..", "../a.png", "%2E%2E/a.png"]
    ids += ["é.jpg", "a\\b.png", "con\n.png", "x" * 300 + ".png", "x" * 301 + ".png"]
    ids += ["a.jpg.gif", "a.jpg~.jpg", "e\u0301.jpg", "ü" * 150 + ".png", "ü" * 151 + ".png"]
    whole = same_stems(pa.chunked_array([ids[:5], ids[5:]]))
    assert whole == {"a.png", "a.jpg", "a"}
    names = [file_name(name, ".png", whole) for name in ids]
    assert len(set(names)) == len(ids)
    for name in names:
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        assert max(len(part.encode()) for part in name.split("/")) < 255
    assert names[:4] == ["a.png~.png", "a.jpg~.png", "a~.png", "a/b.png"]
    assert file_name("a.JPEG", ".png") == "a.png"


def test_names_of_files_are_those_of_images_in_any_script():
    for name in ("straße/tür_1", "東京/駅 2", "हिन्दी", "a.b-c (1)"):
        assert file_name(name + ".jpg", ".png") == name + ".png"
    assert file_name("a:b*?|~%\n.jpg", ".png") == "a%3Ab%2A%3F%7C%7E%25%0A.png"
    assert file_name("e\u0301.jpg", ".png") == "e%CC%81.png"  # é of two signs, beside é of one
    assert file_name("ü" * 150 + ".jpg", ".png").startswith("ü" * 91 + "-")


def test_more_classes_than_a_palette_has():
    classes = np.array([[0, 299]])
    found = Image.open(io.BytesIO(mask_png(classes, [(0, 0, 0)] * 300)))
    assert np.array(found).tolist() == [[0, 299]]


def test_what_cannot_be_predicted_is_a_sentence(tiny_run, tmp_path):
    place = tiny_run.run_dir.folder.uri
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"nothing")
    with pytest.raises(PoolError, match="no image can be used: all 1 are quarantined"):
        api.predict(place, tmp_path / "bad", out=tmp_path / "out", engine="local")
    with pytest.raises(ConfigError, match="random asks without a network, so there is no score"):
        api.predict(
            place, tmp_path / "bad", out=tmp_path / "o2", kinds=["scores"], engine="local",
            overrides=["strategy.name=random"],
        )  # fmt: skip
    with pytest.raises(ConfigError, match=r"model\.\* belongs to the checkpoint"):
        api.predict(
            place, tmp_path / "bad", out=tmp_path / "o3", engine="local",
            overrides=["model.head=deeplabv3plus"],
        )  # fmt: skip


def test_a_kill_in_the_middle_costs_nothing(tiny_run, predicted, pictures, tmp_path):
    out = tmp_path / "out"
    words = ["predict", tiny_run.run_dir.folder.uri, pictures, "--out", out, "--engine", "local"]
    words += ["--write", "masks"]
    command = [sys.executable, "-m", "madbal_ray", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(out.glob("masks/**/*.png")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert list(out.glob("masks/**/*.png"))
    api.predict(tiny_run.run_dir.folder.uri, pictures, out=out, kinds=["masks"], engine="local")
    for path in (out_of(predicted) / "masks").rglob("*.png"):
        assert opened(out / path.relative_to(out_of(predicted))).tolist() == opened(path).tolist()
    assert not [path for path in out.glob("masks/**/*") if path.is_file() and path.suffix != ".png"]


@pytest.mark.ray
def test_on_ray_the_same_files(tiny_run, predicted, pictures, ray_session, tmp_path):
    place = tiny_run.run_dir.folder.uri
    other = madbal_ray.predict(place, pictures, out=tmp_path / "out", kinds=KINDS, engine="ray")
    assert other.table("predictions", 0).equals(predicted.table("predictions", 0))
    for path in (out_of(predicted) / "masks").rglob("*.png"):
        other = tmp_path / "out" / path.relative_to(out_of(predicted))
        assert other.read_bytes() == path.read_bytes()
