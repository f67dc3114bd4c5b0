"""A network as a file of its own: the logits that the run's network gives, from plain torch."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

from madbal_ray import api
from madbal_ray.cli import main
from madbal_ray.errors import ConfigError
from madbal_ray.runs.deployed import Deployed, deployed
from madbal_ray.runs.predictor import Predictor

PLAIN = """
import json, sys
import numpy as np
import torch
extra = {"classes.json": ""}
program = torch.export.load(sys.argv[1], extra_files=extra).module()
pictures = torch.from_numpy(np.load(sys.argv[2]))
np.save(sys.argv[3], program(pictures).detach().numpy())
print(json.loads(extra["classes.json"]))
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
def test_plain_torch_gives_the_networks_logits(tiny_run, tmp_path, count):
    run, batch = tiny_run, pictures(tiny_run, count)
    file = tmp_path / "model.pt2"
    done = CliRunner().invoke(main, ["export", run.run_dir.folder.uri, str(file)])
    assert done.exit_code == 0, done.output
    assert "torch.export.load(FILE).module()" in done.output
    np.save(tmp_path / "in.npy", batch)
    (tmp_path / "plain.py").write_text(PLAIN)
    told = subprocess.run(
        [sys.executable, "plain.py", str(file), "in.npy", "out.npy"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.strip() == str(list(run.class_names))
    found = np.load(tmp_path / "out.npy")
    assert found.shape == (count, len(run.class_names), *batch.shape[1:3])
    np.testing.assert_allclose(found, logits_of(run, batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 3])
def test_onnxruntime_gives_the_networks_logits(tiny_run, tmp_path, count):
    run, batch = tiny_run, pictures(tiny_run, count)
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
