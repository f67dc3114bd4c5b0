"""Running one stage: skip when done, time it, point the run to it, stop where asked."""

from __future__ import annotations

import copy
import difflib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from madbal_ray.engine.contract import CallJob, Engine, ShardJob, TrainingJob
from madbal_ray.engine.progress import Progress
from madbal_ray.engine.shards import complete_stage, peak_memory
from madbal_ray.errors import ConfigError
from madbal_ray.state import notices
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.stages import STAGES, stages_of
from madbal_ray.state.storage import Folder
from madbal_ray.tracking.trackers import Trackers

EPOCH_EVENT_SECONDS = 5.0


@runtime_checkable
class JobRunner(Protocol):
    """Completes the stages of a round."""

    progress: Progress

    def plan(
        self, parent: Folder, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str], /
    ) -> StageDir:
        """Name the folder of a stage (`StageDir.plan`)."""
        ...

    def map(self, job: ShardJob, shard_ids: Sequence[int], *, total: int | None) -> None:
        """Complete a shard-wise stage."""
        ...

    def call(self, job: CallJob) -> None:
        """Complete a whole-pool stage."""
        ...

    def train(self, job: TrainingJob, outputs: Sequence[StageDir]) -> None:
        """Complete the training of a round, which commits several stages."""
        ...

    def point(self, stage: StageDir) -> None:
        """Take up a stage that was completed elsewhere."""
        ...


class StopRequested(Exception):  # noqa: N818  (not an error: --stop-after was reached)
    """The stage after which the user wanted to stop is done."""


def check_stop(stop_after: tuple[str, int | None] | None, num_rounds: int) -> None:
    """Refuse a place to stop that no run of so many rounds comes by.

    Raises:
        ConfigError: there is no such stage or round, or it is the other's: pool stages have none.
    """
    if stop_after is None:
        return
    name, round_index = stop_after
    of_pool, of_round = stages_of("pool"), [*stages_of("round"), "train"]
    if name not in (*of_pool, *of_round):
        near = difflib.get_close_matches(name, (*of_pool, *of_round), n=1)
        meant = f"; did you mean {near[0]}?" if near else "."
        raise ConfigError(
            f"--stop-after {name}: there is no such stage{meant} Of the pool: "
            f"{', '.join(of_pool)}. Of a round, as in train:0: {', '.join(of_round)}"
        )
    if name in of_pool and round_index is not None:
        raise ConfigError(f"--stop-after {name}:{round_index}: a stage of the pool; say {name}")
    if name in of_round and (round_index is None or round_index >= num_rounds):
        given = name if round_index is None else f"{name}:{round_index}"
        raise ConfigError(
            f"--stop-after {given}: a stage of a round; say which, from {name}:0 to "
            f"{name}:{num_rounds - 1}"
        )


class StageRunner:
    """Runs stages of one run on one engine.

    Attributes:
        round_index: the round that stages belong to; None: pool preparation.
    """

    plan = staticmethod(StageDir.plan)

    def __init__(
        self,
        run_dir: RunDir,
        engine: Engine,
        progress: Progress,
        trackers: Trackers,
        stop_after: tuple[str, int | None] | None = None,
    ) -> None:
        self.run_dir = run_dir
        self.engine = engine
        self.progress = progress
        self.trackers = trackers
        self.stop_after = stop_after
        self.round_index: int | None = None
        self._last_epoch_event = 0.0

    def of_round(self, round_index: int) -> StageRunner:
        """Return a runner of the same run whose stages belong to a round."""
        runner = copy.copy(self)
        runner.round_index = round_index
        return runner

    def map(
        self,
        job: ShardJob,
        shard_ids: Sequence[int],
        *,
        total: int | None,
        on_row: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Complete a shard-wise stage.

        Args:
            total: images ahead, for the progress view; None: not counted in images.
            on_row: hears each finished shard's manifest row; may raise to stop the stage.
        """
        if not job.output.is_done:
            with self._timed(job.output, total) as seen:

                def hear(row: dict[str, Any]) -> None:
                    for kind, (count, text) in row.get("notices", {}).items():
                        notices.add(seen["notices"], kind, count, text)
                    seen["images"] += row["counts"]["images"]
                    seen["peak_memory"] = max(seen["peak_memory"], row["peak_memory"])
                    self.progress.advance(row["counts"]["images"])
                    if on_row is not None:
                        on_row(row)

                complete_stage(self.engine, job, shard_ids, on_row=hear)
        self.point(job.output)

    def call(self, job: CallJob) -> None:
        """Complete a whole-pool stage."""
        if not job.output.is_done:
            with self._timed(job.output, None):
                self.engine.call(job)
        self.point(job.output)

    def train(self, job: TrainingJob, outputs: Sequence[StageDir]) -> None:
        """Complete the training of a round, which commits several stages."""
        if not all(output.is_done for output in outputs):
            with self._timed(outputs[0], None, name="train"):
                self.engine.train(job, self)
        for output in outputs:
            self.point(output)

    def point(self, stage: StageDir) -> None:
        """Point the run to a finished stage, and stop here when the user asked for it."""
        if not STAGES[stage.stage].is_interim:
            self.run_dir.point(stage, self.round_index)
        self.stop_where_asked(stage.stage)

    def stop_where_asked(self, name: str) -> None:
        """Stop when this stage, of this round, is the one after which the user wanted to.

        Raises:
            StopRequested: it is.
        """
        if self.stop_after == (name, self.round_index):
            raise StopRequested(f"stopped after {self._title(name)}, as asked")

    def on_training(self, progress: dict[str, Any]) -> None:
        """Pass an epoch on to the view and the trackers, and now and then to the events."""
        self.progress.on_training(progress)
        self.trackers.on_epoch(progress)
        now = time.monotonic()
        if now - self._last_epoch_event >= EPOCH_EVENT_SECONDS:
            self._last_epoch_event = now
            self.run_dir.append_event("epoch", **progress)

    def _title(self, name: str) -> str:
        return name if self.round_index is None else f"round {self.round_index} {name}"

    @contextmanager
    def _timed(
        self, output: StageDir, total: int | None, name: str | None = None
    ) -> Iterator[dict[str, Any]]:
        self.run_dir.check(output, self.round_index)  # before hours of work, not after
        name = name or output.stage
        seen: dict[str, Any] = {"images": 0, "peak_memory": 0, "notices": {}}
        self.progress.start_stage(self._title(name), total)
        self.run_dir.append_event("stage_started", round=self.round_index, stage=name, total=total)
        started = time.perf_counter()
        yield seen
        seconds = round(time.perf_counter() - started, 3)
        peak = max(seen["peak_memory"], peak_memory())
        self.run_dir.append_event(
            "stage_finished",
            round=self.round_index,
            stage=name,
            seconds=seconds,
            images=seen["images"],
            peak_memory=peak,
            **({"notices": seen["notices"]} if seen["notices"] else {}),
        )
        self.progress.end_stage(seconds)
        for kind, (count, text) in seen["notices"].items():
            self.progress.say(f"{self._title(name)}: {kind}, {count} in all, the last: {text}")
