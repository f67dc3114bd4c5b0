"""W&B behind the interface of `madbal_ray.tracking.trackers`; needs the extra ``wandb``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from madbal_ray.state.run_dir import RunDir

FINISH_SECONDS = 120.0
"""How long the end of a run waits for a server; the rest stays on disk for `wandb sync`."""


class WeightsAndBiases:
    """One W&B run, the same when the run is resumed.

    W&B's own process does the sending and keeps what a server does not take, so `scalar`
    does not wait. Code, git state and console are not uploaded.

    Args:
        project: its name; entity, key and mode come from the environment.
        settings: become the run's config.
    """

    name = "Weights & Biases"

    def __init__(self, project: str, run_dir: RunDir, settings: Mapping[str, Any]) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        folder = run_dir.folder
        self.axes: set[str] = set()
        self.run: Any = wandb.init(
            project=project,
            id=run_dir.identity(),
            name=run_dir.name,
            resume="allow",
            reinit="create_new",  # a notebook's own run goes on beside ours
            dir=folder.uri if folder.is_local and "WANDB_DIR" not in os.environ else None,
            config=dict(settings),
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                save_code=False,
                finish_timeout=FINISH_SECONDS,
                finish_timeout_raises=True,
            ),
        )

    def scalar(self, name: str, value: float, step: int) -> None:
        """Note one number over its own axis: W&B's steps may not go back, our epochs do."""
        axis = f"{name.rpartition('/')[0]}/step"
        if name not in self.axes:
            self.run.define_metric(name, step_metric=axis)
            self.axes.add(name)
        self.run.log({name: value, axis: step})

    def close(self, *, is_finished: bool) -> None:
        """Upload what is left; a run that is not complete is marked as failed."""
        self.run.finish(exit_code=0 if is_finished else 1)
