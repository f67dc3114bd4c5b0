"""Whole loops on a CUDA device, with the local engine: ``make test-gpu``."""

from pathlib import Path

import pytest
import torch

from madbal_ray import api

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "quickstart.yaml"
SMALL = [
    "data.synthetic={num_train: 8, num_val: 4, height: 48, width: 64}",
    "superpixels={method: slic, pixels: 64}",
    "resources.device=cuda",
]
FROZEN = ["train.phase1.steps=50", "train.phase2.steps=20"]
TUNED = [
    "model={train_backbone: true, backbone: mobilenet_v2, head: deeplabv3plus}",
    "train.phase1={epochs: 4, batch_size: 4}",
    "train.phase2={epochs: 2, batch_size: 4}",
]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("settings", [FROZEN, TUNED], ids=["frozen", "tuned"])
def test_a_run_on_cuda_ends_and_verifies(tmp_path, settings, precision):
    torch.cuda.reset_peak_memory_stats()
    precisions = [f"{part}.precision={precision}" for part in ("train", "score")]
    overrides = [*SMALL, *settings, *precisions]
    api.run(EXPERIMENT, run_dir=tmp_path / "run", overrides=overrides, engine="local")
    assert torch.cuda.max_memory_allocated() > 0
    lines = list(api.verify(str(tmp_path / "run"), deep=True))
    assert lines[-1].startswith("verified"), lines
