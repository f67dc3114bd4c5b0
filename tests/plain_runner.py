"""A runner that completes stages on the local engine, without a run; for tests and benchmarks."""

from typing import Any

from madbal_ray.engine.local import LocalEngine
from madbal_ray.engine.progress import LogProgress, Progress
from madbal_ray.engine.shards import complete_stage
from madbal_ray.state.stage_dir import StageDir


class PlainRunner:
    """Completes stages with one worker.

    Args:
        order: -1: the last shard first.
    """

    plan = staticmethod(StageDir.plan)

    def __init__(self, order: int = 1) -> None:
        self.order = order
        self.progress: Progress = LogProgress()

    def map(self, job: Any, shard_ids: Any, *, total: int | None) -> None:
        """Complete a shard-wise stage."""
        ids = shard_ids[:: self.order]
        complete_stage(LocalEngine("cpu"), job, ids, on_row=lambda row: None)

    def call(self, job: Any) -> None:
        """Complete a whole-pool stage."""
        job.run()

    def train(self, job: Any, outputs: Any) -> None:
        """Train nothing."""
        raise NotImplementedError

    def point(self, stage: StageDir) -> None:
        """Take no note."""
