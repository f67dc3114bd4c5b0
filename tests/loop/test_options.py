"""Options and accidents of a whole run: full disk, bf16, warm start."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load

import madbal_ray
from madbal_ray.engine.stages import StopRequested
from madbal_ray.models.network import build_network
from madbal_ray.rng import derive_seed
from tests.conftest import tiny_config

LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))  # smaller than the weights
from madbal_ray.cli import main
main(sys.argv[1:], prog_name="madbal")
"""


def test_no_space_for_the_weights(tmp_path, tiny_run):
    config_path = tmp_path / "config.json"
    config_path.write_text(json.dumps(tiny_config()))
    command = ["run", config_path, "--run-dir", tmp_path / "pool" / "run", "--engine", "local"]
    process = subprocess.run(
        [sys.executable, "-c", LIMITED, *command], capture_output=True, text=True, check=False
    )
    assert process.returncode == 1, process.stderr[-2000:]
    assert "phase1.safetensors cannot be written (File too large); free space" in process.stderr
    assert not list((tmp_path / "pool").rglob("*safetensors"))  # no half-written file, no temporary
    run = madbal_ray.run(tiny_config(), run_dir=tmp_path / "pool" / "run", engine="local")
    assert run.table("queries").equals(tiny_run.table("queries"))


def test_bf16_runs_and_gives_finite_scores(tmp_path):
    config = tiny_config(train__precision="bf16", score__precision="bf16")
    run = madbal_ray.run(config, run_dir=tmp_path / "run", engine="local")
    scores = run.table("superpixel_scores", 1)["mean_score"].to_numpy()
    assert (scores >= 0).all()
    assert len(run.metrics()) == 2


def test_training_can_start_from_the_previous_round(tmp_path, tiny_run):
    config = tiny_config(train__init="previous")
    run = madbal_ray.run(config, run_dir=tmp_path / "run", engine="local")
    assert run.table("queries").equals(tiny_run.table("queries"))  # the same round 0 asks
    mine, fresh = (
        one.run_dir.find("phase1", 1).folder.read("phase1.safetensors") for one in (run, tiny_run)
    )
    assert mine != fresh


def test_phase_one_can_start_from_a_head_trained_on_the_frozen_backbone(tmp_path):
    config = tiny_config(num_rounds=1, train__init="frozen_head", strategy__name="random")
    config["train"]["phase1"] = {"epochs": 0, "batch_size": 2}  # what it starts from is its result
    config["train"]["frozen_head"] = {"epochs": 2, "batch_size": 3}
    run = madbal_ray.run(config, run_dir=tmp_path / "run", engine="local")
    head, network = (
        load(run.run_dir.find(name, 0).folder.read(f"{name}.safetensors"))
        for name in ("frozen_head", "phase1")
    )
    fresh = build_network(
        run.config.model,
        len(run.class_names),
        weights=None,
        seed=derive_seed(0, "network", 0),
        supports="none",
    ).state_dict()
    assert head.keys() == {key for key in network if key.startswith("main_head.")}
    for key, value in network.items():
        if key in head:  # learned, and taken over
            assert torch.equal(value, head[key])
            assert not torch.equal(value, fresh[key])
        else:  # running statistics of batch norm among them
            assert torch.equal(value, fresh[key])
    # one of 30 answers was void
    assert run.run_dir.find("frozen_head", 0).marker().summary["labelled_pixels"] == 29


def test_the_head_of_a_run_that_was_stopped_is_not_trained_again(tmp_path):
    config = tiny_config(num_rounds=1, train__init="frozen_head", train__frozen_head={"epochs": 1})
    whole = madbal_ray.run(config, run_dir=tmp_path / "whole" / "run", engine="local")
    stopped = {"run_dir": tmp_path / "stopped" / "run", "engine": "local"}
    with pytest.raises(StopRequested):
        madbal_ray.run(config, **stopped, stop_after=("frozen_head", 0))
    head = madbal_ray.open_run(stopped["run_dir"]).run_dir.find("frozen_head", 0).folder.local_path
    shutil.rmtree(head.parents[1] / "phase1")  # as if it had ended before
    weights = head / "frozen_head.safetensors"
    written = weights.stat().st_mtime_ns
    run = madbal_ray.run(config, **stopped)
    assert weights.stat().st_mtime_ns == written
    mine, other = (
        one.run_dir.find("phase2", 0).folder.read("phase2.safetensors") for one in (run, whole)
    )
    assert mine == other


@pytest.mark.parametrize("part", ["score", pytest.param("train", marks=pytest.mark.slow)])
def test_a_compiled_network_gives_the_same_scores(part, tmp_path, tiny_run):
    """In a process of its own: the shape checks of the tests are nothing to compile."""
    config_path = tmp_path / "config.json"
    config_path.write_text(json.dumps(tiny_config(**{f"{part}__compile": True})))
    command = ["run", config_path, "--run-dir", tmp_path / "run", "--engine", "local"]
    process = subprocess.run(
        [sys.executable, "-m", "madbal_ray", *command], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr[-2000:]
    compiled = madbal_ray.open_run(tmp_path / "run")
    mine, plain = (
        run.table("superpixel_scores", 1)["mean_score"].to_numpy() for run in (compiled, tiny_run)
    )
    np.testing.assert_allclose(mine, plain, rtol=1e-3 if part == "score" else 0.02)
    assert (mine != plain).any()  # sums are rounded elsewhere: it did compile
