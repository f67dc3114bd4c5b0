"""Where the stages of a strategy go while a round is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from madbal_ray.engine.contract import ShardJob, TableJob
from madbal_ray.engine.stages import JobRunner
from madbal_ray.pool.prepared import Pool
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder


@dataclass(frozen=True)
class RoundStages:
    """Completes a strategy's stages in the folder of a round (`madbal_ray.selection.asking`)."""

    runner: JobRunner
    folder: Folder
    pool: Pool

    def plan(self, name: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> StageDir:
        """Return the folder of a stage."""
        return self.runner.plan(self.folder, name, settings, inputs)

    def map(self, job: ShardJob, shard_ids: Sequence[int] | None = None) -> None:
        """Complete a stage over all shards of the pool, or those given."""
        total = self.pool.num_images if job.counts_images and shard_ids is None else None
        self.runner.map(job, self.pool.shard_ids if shard_ids is None else shard_ids, total=total)

    def call(self, job: TableJob) -> None:
        """Complete a stage that one process does as a whole."""
        self.runner.call(job)

    def say(self, text: str) -> None:
        """Tell people one line."""
        self.runner.progress.say(text)
