"""Weights of a finished round: file names, and the network that they make."""

from __future__ import annotations

from safetensors.torch import load as load_safetensors

from madbal_ray.config.schema import ModelConfig, Supports
from madbal_ray.models.network import SegmentationNetwork, build_network
from madbal_ray.state.stage_dir import StageDir

PHASE1_WEIGHTS = "phase1.safetensors"


PHASE2_WEIGHTS = "phase2.safetensors"


Phases = tuple[StageDir, StageDir | None]


def load_network(
    model: ModelConfig,
    num_classes: int,
    phase1: StageDir,
    phase2: StageDir | None,
    supports: Supports,
) -> SegmentationNetwork:
    """Return the network of a finished round."""
    network = build_network(model, num_classes, weights=None, seed=0, supports=supports)
    state = load_safetensors(phase1.folder.read(PHASE1_WEIGHTS))
    if phase2 is not None:
        state |= load_safetensors(phase2.folder.read(PHASE2_WEIGHTS))
    network.load_state_dict(state, strict=True)
    return network
