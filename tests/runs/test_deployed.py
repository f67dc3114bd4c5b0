"""A network as a file of its own: the logits that the run's network gives, from plain torch."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from madbal_ray import api
from madbal_ray.cli import main
from madbal_ray.errors import ConfigError
from madbal_ray.runs.deployed import Deployed, deployed
from madbal_ray.runs.predictor import Predictor

DOCUMENT = Path(__file__).parents[2] / "docs/your-own-images.md"
ALONE = """
assert not [name for name in sys.modules if name.startswith("madbal_ray")]
"""


def pictures(run, count):
    height, width = run.table("images")["input_height"][0], run.table("images")["input_width"][0]
    height, width = height.as_py(), width.as_py()
    generator = np.random.default_rng(count)
    return generator.integers(0, 256, (count, height, width, 3), np.uint8)


def logits_of(run, batch):
    predictor = Predictor(run)
    with torch.no_grad():
        return Deployed(predictor.network)(torch.from_numpy(batch)).numpy()


@pytest.mark.parametrize("count", [1, 3])
def test_the_program_gives_the_networks_logits(tiny_run, tmp_path, count):
    run, batch = tiny_run, pictures(tiny_run, count)
    file = tmp_path / "model.pt2"
    done = CliRunner().invoke(main, ["export", run.run_dir.folder.uri, str(file)])
    assert done.exit_code == 0, done.output
    assert "torch.export.load(FILE).module()" in done.output
    found = torch.export.load(file).module()(torch.from_numpy(batch)).detach().numpy()
    assert found.shape == (count, len(run.class_names), *batch.shape[1:3])
    np.testing.assert_allclose(found, logits_of(run, batch), rtol=1e-4, atol=1e-4)


def test_the_example_in_the_document_runs_without_this_package(tiny_run, tmp_path):
    (batch,) = pictures(tiny_run, 1)
    api.export(tiny_run.run_dir.folder.uri, tmp_path / "model.pt2")
    Image.fromarray(batch).save(tmp_path / "picture.png")
    (example,) = re.findall(r"plain_torch.py -->\n```python\n(.*?)```", DOCUMENT.read_text(), re.S)
    assert "(480, 360)" in example
    (tmp_path / "plain.py").write_text(
        example.replace("(480, 360)", f"({batch.shape[1]}, {batch.shape[0]})") + ALONE
    )
    told = subprocess.run(
        [sys.executable, "plain.py", "model.pt2", "picture.png"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    shares = Counter(logits_of(tiny_run, batch[None])[0].argmax(0).ravel().tolist())
    assert ast.literal_eval(told.stdout) == pytest.approx(
        {
            name: shares[index] / batch[..., 0].size
            for index, name in enumerate(tiny_run.class_names)
        },
        abs=0.01,
    )


@pytest.mark.parametrize(("kind", "count"), [("tiny_run", 1), ("frozen_run", 3)])
def test_onnxruntime_gives_the_networks_logits(kind, count, tmp_path, request):
    run = request.getfixturevalue(kind)
    batch = pictures(run, count)
    file = tmp_path / "model.onnx"
    api.export(run.run_dir.folder.uri, file)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"pictures": batch})
    np.testing.assert_allclose(found, logits_of(run, batch), rtol=1e-3, atol=1e-3)
    told = session.get_modelmeta().custom_metadata_map["classes"]
    assert json.loads(told) == list(run.class_names)


def test_the_classes_are_those_that_the_run_predicts(tiny_run):
    (batch,) = (pictures(tiny_run, 1),)
    expected = Predictor(tiny_run)(batch[0])
    assert np.array_equal(logits_of(tiny_run, batch)[0].argmax(0), expected)


def test_a_size_is_given_where_the_grid_has_none(tiny_run, tmp_path, monkeypatch):
    file = tmp_path / "model.pt2"
    api.export(tiny_run.run_dir.folder.uri, file, size=(32, 48))
    program = torch.export.load(file).module()
    assert program(torch.zeros(2, 32, 48, 3, dtype=torch.uint8)).shape[2:] == (32, 48)
    with pytest.raises(ConfigError, match=r"--size is for .pt2 and .onnx; what model.safetensors"):
        api.export(tiny_run.run_dir.folder.uri, tmp_path / "model.safetensors", size=(32, 48))


def test_what_onnx_needs_is_said(tiny_run, monkeypatch):
    monkeypatch.setattr("madbal_ray.runs.deployed.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"onnx and onnxscript, which are not installed: pip"):
        deployed(tiny_run, ".onnx")
