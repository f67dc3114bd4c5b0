"""A trained network on disk: its phases, the names of their weights, and loading them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from madbal_ray.config.training import ModelConfig, PhaseConfig, Supports, TrainConfig
from madbal_ray.errors import IntegrityError
from madbal_ray.models.network import SegmentationNetwork, build_network
from madbal_ray.state.stage_dir import StageDir


@dataclass(frozen=True)
class PhaseSpec:
    """A phase of training.

    Attributes:
        name: of its stage, its section below `train`, and its part of the network.
        weights: file of its weights in the stage's folder.
    """

    name: Literal["frozen_head", "phase1", "phase2"]
    weights: str

    def settings(self, config: TrainConfig) -> PhaseConfig:
        """Return the section of the configuration."""
        return {
            "frozen_head": config.frozen_head,
            "phase1": config.phase1,
            "phase2": config.phase2,
        }[self.name]


FROZEN_HEAD = PhaseSpec("frozen_head", "frozen_head.safetensors")
"""The main head alone, before phase I of `train.init: frozen_head`."""

PHASE1 = PhaseSpec("phase1", "phase1.safetensors")
"""Backbone and main head."""

PHASE2 = PhaseSpec("phase2", "phase2.safetensors")
"""Maturity heads, weight block, loss prediction; the rest is frozen."""

PHASES = (PHASE1, PHASE2)


@dataclass(frozen=True)
class TrainedPhases:
    """The stages that hold a round's network.

    Attributes:
        phase2: None for a strategy whose network has no supports.
    """

    phase1: StageDir
    phase2: StageDir | None

    def __iter__(self) -> Iterator[tuple[PhaseSpec, StageDir]]:
        """Yield the phases that there are."""
        yield PHASE1, self.phase1
        if self.phase2 is not None:
            yield PHASE2, self.phase2

    @property
    def stages(self) -> list[StageDir]:
        """Return the stages that there are."""
        return [stage for _, stage in self]


def load_network(
    model: ModelConfig,
    num_classes: int,
    phases: TrainedPhases,
    supports: Supports,
    *,
    into: SegmentationNetwork | None = None,
) -> SegmentationNetwork:
    """Return the network of a finished round.

    Args:
        into: the network of another round of the same run, which is filled and returned, since
            building one takes longer; None: a new one. After an error it is no round's.

    Raises:
        IntegrityError: the weights are damaged, or of another network.
    """
    network = into
    if network is None:
        network = build_network(model, num_classes, weights=None, seed=0, supports=supports)
    state = {}
    for phase, stage in phases:
        try:
            state |= load_safetensors(stage.read_file(phase.weights))
        except SafetensorError as error:
            raise IntegrityError(
                f"{stage.folder}/{phase.weights} is damaged ({error}); restore it"
            ) from None
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise IntegrityError(
            f"the weights in {phases.phase1.folder} are of another network than {model.backbone} "
            f"with head {model.head} and {num_classes} classes ({reason})"
        ) from None
    return network
