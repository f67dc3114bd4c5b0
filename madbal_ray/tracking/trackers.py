"""Curves for dashboards: one small interface, TensorBoard, MLflow and W&B behind it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from madbal_ray.config.running import TrackingConfig
from madbal_ray.config.schema import Config
from madbal_ray.errors import ConfigError, ResourceError
from madbal_ray.seams import TRACKERS
from madbal_ray.state.run_dir import RunDir

WANDB_KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
WANDB_AT_HOME = ("offline", "dryrun", "disabled")
"""Values of $WANDB_MODE that talk to no server."""


@runtime_checkable
class Tracker(Protocol):
    """Takes numbers as they come; never read by a computation. Any call may raise."""

    name: str

    def scalar(self, name: str, value: float, step: int) -> None:
        """Note one number."""
        ...

    def close(self, *, is_finished: bool) -> None:
        """Write what is left, and whether the run is complete."""
        ...


def check_tracking(config: TrackingConfig) -> None:
    """See that what is asked for is installed, and that nobody will be asked for a key.

    Raises:
        ConfigError: it says what to install or to set.
    """
    for name in ("mlflow", "wandb"):
        if getattr(config, name) is not None and importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"tracking.{name} is set, but {name} is not installed: "
                f"pip install 'madbal_ray[{name}]', or set tracking.{name}=null"
            )
    needs_key = config.wandb is not None and os.environ.get("WANDB_MODE") not in WANDB_AT_HOME
    if needs_key and not any(os.environ.get(key) for key in WANDB_KEYS):
        raise ConfigError(
            "tracking.wandb is set, but the environment holds no key: set WANDB_API_KEY, or "
            "WANDB_MODE=offline (and `wandb sync` later)"
        )


class Trackers:
    """All trackers of a run. One that fails later is told once and does not end the run.

    Args:
        run_dir: where file-based trackers write, and whose run the others carry on.
        say: takes a line for people.

    Raises:
        ResourceError: a tracker does not take the run at its start.
    """

    def __init__(self, config: Config, run_dir: RunDir, say: Callable[[str], None]) -> None:
        self.say = say
        self.trackers: list[Tracker] = []
        self._troubled: set[str] = set()
        settings = dict(flattened(config.result_settings()))
        for option, name, target in _wanted(config.tracking, run_dir):
            try:
                self.trackers.append(TRACKERS[name](target, run_dir, settings))
            except Exception as error:  # each library has errors of its own
                self.close(is_finished=False)
                raise ResourceError(
                    f"{option} does not take this run: {error}; see that the server answers and "
                    "that the environment holds its credentials, or set the option to null"
                ) from error

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

    def close(self, *, is_finished: bool) -> None:
        """Close all."""
        for tracker in self.trackers:
            try:
                tracker.close(is_finished=is_finished)
            except Exception as error:
                self.say(
                    f"{tracker.name} could not be closed, its last numbers may be missing there: "
                    f"{error}"
                )

    def _scalar(self, name: str, value: float, step: int) -> None:
        for tracker in self.trackers:
            try:
                tracker.scalar(name, value, step)
            except Exception as error:
                if tracker.name not in self._troubled:
                    self._troubled.add(tracker.name)
                    self.say(
                        f"{tracker.name} does not take numbers; the run goes on and its own "
                        f"tables hold everything (said once): {error}"
                    )


def _wanted(tracking: TrackingConfig, run_dir: RunDir) -> Iterator[tuple[str, str, str]]:
    """Yield the trackers that are asked for: option, name, what it is given."""
    if tracking.tensorboard and run_dir.folder.is_local:
        yield "tracking.tensorboard", "tensorboard", ""
    for name in ("mlflow", "wandb"):
        target = getattr(tracking, name)
        if target is not None:
            yield f"tracking.{name} = {target}", name, target
    for name, target in tracking.others.items():
        yield f"tracking.others.{name} = {target}", name, target


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings as pairs ``section.key``, value."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
