"""TensorBoard behind the interface of `madbal_ray.tracking.trackers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from madbal_ray.state.run_dir import RunDir


class TensorBoard:
    """Event files under ``<run>/tensorboard``."""

    name = "TensorBoard"

    def __init__(self, target: str, run_dir: RunDir, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(run_dir.folder.local_path / "tensorboard"))

    def scalar(self, name: str, value: float, step: int) -> None:
        """Note one number."""
        self.writer.add_scalar(name, value, step)

    def close(self, *, is_finished: bool) -> None:
        """Write what is left."""
        self.writer.close()
