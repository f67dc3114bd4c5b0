"""Curves for dashboards: one small interface, TensorBoard behind it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from madbal_ray.config import TrackingConfig
from madbal_ray.run_dir import RunDir


@runtime_checkable
class Tracker(Protocol):
    """Takes numbers as they come; never read by a computation."""

    def scalar(self, name: str, value: float, step: int) -> None:
        """Note one number."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class TensorBoard:
    """Event files under ``<run>/tensorboard``."""

    def __init__(self, run_dir: RunDir) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(run_dir.folder.local_path / "tensorboard"))

    def scalar(self, name: str, value: float, step: int) -> None:
        """Note one number."""
        self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()


class Trackers:
    """All trackers of a run.

    Args:
        run_dir: where file-based trackers write.
    """

    def __init__(self, config: TrackingConfig, run_dir: RunDir) -> None:
        self.trackers: list[Tracker] = []
        if config.tensorboard and run_dir.folder.is_local:
            self.trackers.append(TensorBoard(run_dir))

    def on_epoch(self, progress: dict[str, Any]) -> None:
        """Note loss and learning rate of a finished epoch."""
        prefix = f"round_{progress['round']:03d}/{progress['phase']}"
        for name in ("loss", "learning_rate"):
            self._scalar(f"{prefix}/{name}", progress[name], progress["epoch"])

    def on_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Note the metrics of a finished round, over its number."""
        for row in rows:
            for name in ("miou", "pixel_accuracy", "labels_per_image"):
                if row[name] is not None:
                    self._scalar(f"{row['split']}/{name}", row[name], row["round"])

    def close(self) -> None:
        """Close all."""
        for tracker in self.trackers:
            tracker.close()

    def _scalar(self, name: str, value: float, step: int) -> None:
        for tracker in self.trackers:
            tracker.scalar(name, value, step)
