"""Training state at the end of an epoch: one file, written whole, in the phase's folder."""

from __future__ import annotations

import hashlib
import io
import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from madbal_ray.engine.workers import TrainContext
from madbal_ray.state.stage_dir import StageDir

CHECKPOINT_NAME = "_checkpoint.pt"
DIGEST_BYTES = 32
"""Of the sha256 in front of the state."""

_log = logging.getLogger(__name__)


@dataclass
class BestEpoch:
    """The best epoch so far, for `train.keep_epoch: best`.

    Attributes:
        state: weights on the CPU; empty before the first epoch was measured.
    """

    epoch: int = 0
    miou: float = -1.0
    state: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, epoch: int, miou: float, network: nn.Module) -> None:
        """Keep this epoch where it is better than all before it."""
        if miou > self.miou:
            self.epoch, self.miou = epoch, miou
            self.state = {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}


class Checkpoint:
    """Network, optimizer and best epoch of one phase."""

    def __init__(
        self,
        stage: StageDir,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        best: BestEpoch,
    ) -> None:
        self.stage, self.network, self.optimizer, self.best = stage, network, optimizer, best

    def save(self, epoch: int) -> None:
        """Write the state after `epoch` epochs."""
        sink = io.BytesIO()
        torch.save(
            {
                "epoch": epoch,
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "best": vars(self.best),
            },
            sink,
        )
        data = sink.getvalue()
        self.stage.write_file(CHECKPOINT_NAME, hashlib.sha256(data).digest() + data)

    def restore(self, context: TrainContext) -> int:
        """Load the last state that rank 0 finds; return the number of finished epochs.

        A damaged file costs the epochs since the phase began, which give the same result again.
        """
        state = context.decide(self._read)
        if state is None:
            return 0
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["best"].items():
            setattr(self.best, name, value)
        return state["epoch"]

    def _read(self) -> dict[str, Any] | None:
        try:  # and not asked for first: another writer may remove it in between
            stored = self.stage.folder.read(CHECKPOINT_NAME)
        except FileNotFoundError:
            return None
        promised, data = stored[:DIGEST_BYTES], stored[DIGEST_BYTES:]
        if hashlib.sha256(data).digest() != promised:
            _log.warning(
                "%s/%s is damaged or of an earlier version: the phase begins again",
                self.stage.folder,
                CHECKPOINT_NAME,
            )
            return None
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)

    @staticmethod
    def delete(stage: StageDir) -> None:
        """Remove the checkpoint of a committed phase."""
        stage.folder.delete(CHECKPOINT_NAME)
