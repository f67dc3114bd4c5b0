"""Completing stages without completing anything: a runner that checks what is stored.

`madbal verify` walks through a run as the loop does, on this runner. Each stage is planned again
from the configuration and from the stages before it and must have the key that is stored; what
follows from stored tables is computed again and must give the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from madbal_ray.engine.contract import CallJob, LightShardJob, ShardJob, TableJob, TrainingJob
from madbal_ray.engine.progress import LogProgress, Progress
from madbal_ray.errors import DataError, IntegrityError
from madbal_ray.evaluation.evaluate import EvaluateSplits
from madbal_ray.loop.compare import compare
from madbal_ray.loop.recompute import measure_again, sample_again
from madbal_ray.scoring.job import ScoreShards, shard_statistics
from madbal_ray.state import tables
from madbal_ray.state.marker import canonical_json
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stage_dir import StageDir, revision_of, table_path
from madbal_ray.state.storage import Folder
from madbal_ray.training.job import TrainRound

TRAINED = ("frozen_head", "phase1", "metrics", "phase2")
"""Stages that one training commits one after another."""


class NotFinished(Exception):  # noqa: N818  (not an error: the run goes no further)
    """The run has not come to a stage yet."""

    def __init__(self, stage: str, round_index: int | None) -> None:
        super().__init__(f"stage {stage} of {place(round_index)} is not finished")


class Quiet(LogProgress):
    """Says nothing: the run has told it."""

    def say(self, text: str) -> None:
        """Say nothing."""


@dataclass(kw_only=True)
class Replay:
    """Checks the stages of one run instead of completing them.

    Attributes:
        device: that networks run on.
        deep: also run the networks, over some shards and the evaluation splits.
        has_images: the data set is here.
        round_index: the round that stages belong to; None: the pool.
        visited: (stage, round) of what was planned.
        kept: stages whose tables were not all computed again, in order.
        told: stage -> how its tables were checked, of this round, where that needs saying.
    """

    run_dir: RunDir
    device: str
    deep: bool
    has_images: bool
    round_index: int | None = None
    visited: set[tuple[str, int | None]] = field(default_factory=set)
    kept: dict[str, None] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    progress: Progress = field(default_factory=Quiet)

    def of_round(self, round_index: int) -> Replay:
        """Return a runner of the same run whose stages belong to a round."""
        return replace(self, round_index=round_index, told={})

    def plan(
        self, parent: Folder, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str], /
    ) -> StageDir:
        """Return the stored stage, once it is what these settings and inputs give.

        Raises:
            NotFinished: the run has not come to it.
            IntegrityError: it was made from something else.
        """
        planned = StageDir.plan(parent, stage, settings, inputs)
        stored = self.run_dir.find(stage, self.round_index)
        if stored is None:
            if stage in TRAINED:  # what comes before it may be there
                return planned
            raise NotFinished(stage, self.round_index)
        self.visited.add((stage, self.round_index))
        marker = stored.marker()
        if marker.revision != revision_of(stage):
            return stored  # its key is of an earlier version of the code
        known, expected = (
            canonical_json([dict(one.settings), dict(one.inputs)]) for one in (marker, planned)
        )
        if planned.key != stored.key or marker.stage != stage or known != expected:
            raise IntegrityError(
                f"{stored.folder}: stage {stage} of {place(self.round_index)} has key "
                f"{stored.key}, its settings and inputs give {planned.key}: it was made from "
                f"something else{_difference(marker, planned)}"
            )
        return stored

    def point(self, stage: StageDir) -> None:
        """Take note of a stage that was completed elsewhere: it is taken as stored."""
        self.kept[stage.stage] = None

    def map(self, job: ShardJob, shard_ids: Sequence[int], *, total: int | None) -> None:
        """Check a shard-wise stage: all of it, a sample, or its files' names alone."""
        self._check_shards(job, shard_ids)
        if isinstance(job, LightShardJob):
            if job.reads_images and not self.has_images:
                self._keep(job.output, "the images are not here")
                return
            try:
                job.setup()
                for shard_id in shard_ids:
                    self._same_shard(job, shard_id)
            except DataError as error:
                if not job.reads_images:
                    raise
                self._keep(job.output, str(error))
            return
        if isinstance(job, ScoreShards):
            self._check_statistics(job, shard_ids)
        self.kept[job.output.stage] = None
        if self.deep and self.has_images:
            self.told[job.output.stage] = sample_again(job, shard_ids, place(self.round_index))

    def call(self, job: CallJob) -> None:
        """Compute a whole-pool stage again, where one process gives the same each time."""
        stage = job.output
        if not isinstance(job, TableJob):
            self.kept[stage.stage] = None
            return
        computed = job.compute()
        where = self._where(stage)
        paths = {table_path(name, shard_id) for name, shard_id in computed.tables}
        self._check_paths(stage, paths)
        for (name, shard_id), table in computed.tables.items():
            stored = stage.read_table(name, [shard_id])
            compare(stored, tables.in_order(name, table), f"{where}: {name}")
        noted = dict(stage.marker().summary)
        if dict(computed.summary) != noted:
            raise IntegrityError(
                f"{where}: the marker says {noted}, the replay gives {dict(computed.summary)}"
            )

    def train(self, job: TrainingJob, outputs: Sequence[StageDir]) -> None:
        """Check the metrics of a training against its confusion matrices, and as deep as asked.

        Raises:
            NotFinished: it has not come to its end.
        """
        assert isinstance(job, TrainRound)
        for output in outputs:
            if (output.stage, self.round_index) not in self.visited:
                self.visited.difference_update(
                    (later.stage, self.round_index)
                    for later in outputs[outputs.index(output) + 1 :]
                )
                raise NotFinished(output.stage, self.round_index)
            if output.stage == "metrics":
                self._check_metrics(job)
            else:
                self.kept[output.stage] = None

    def _keep(self, stage: StageDir, why: str) -> None:
        self.told[stage.stage] = why
        self.kept[stage.stage] = None

    def _where(self, stage: StageDir) -> str:
        return f"{place(self.round_index)}, {stage.stage}"

    def _check_shards(self, job: ShardJob, shard_ids: Sequence[int]) -> None:
        """See that a stage has exactly its shards, and has counted them."""
        stage = job.output
        paths = {table_path(name, shard_id) for name in job.table_names for shard_id in shard_ids}
        self._check_paths(stage, paths)
        counted = stage.marker().summary.get("shards", {})
        if set(counted) != set(map(str, shard_ids)):
            raise IntegrityError(
                f"{self._where(stage)}: its marker counts shards {', '.join(counted) or 'none'}, "
                f"expected {', '.join(map(str, shard_ids)) or 'none'}"
            )

    def _check_paths(self, stage: StageDir, expected: set[str]) -> None:
        odd = sorted(expected ^ set(stage.marker().paths))
        if odd:
            how = "not expected" if odd[0] not in expected else "missing"
            raise IntegrityError(
                f"{self._where(stage)}: its marker names other files than the stage writes: "
                f"{odd[0]} is {how}"
            )

    def _same_shard(self, job: ShardJob, shard_id: int) -> None:
        computed = job.run(shard_id)
        where = f"{place(self.round_index)}, shard {shard_id}"
        for name, table in computed.items():
            stored = job.output.read_table(name, [shard_id])
            compare(stored, tables.in_order(name, table), f"{where}: {name}")
        self._check_counts(job, shard_id, computed)

    def _check_counts(
        self, job: ShardJob, shard_id: int, shard_tables: Mapping[str, pa.Table]
    ) -> None:
        marker = job.output.marker()
        noted, counted = marker.summary["shards"][str(shard_id)], job.count(shard_tables)
        if noted != counted and marker.revision == revision_of(job.output.stage):
            raise IntegrityError(
                f"{self._where(job.output)}: the marker counts {noted} in shard {shard_id}, the "
                f"replay {counted}"
            )

    def _check_statistics(self, job: ScoreShards, shard_ids: Sequence[int]) -> None:
        """See that what was added up of scores follows from them."""
        for shard_id in shard_ids:
            stored = {name: job.output.read_table(name, [shard_id]) for name in job.table_names}
            self._check_counts(job, shard_id, stored)
            if job.plan.rows == "superpixels":
                compare(
                    stored["cluster_statistics"],
                    shard_statistics(
                        shard_id,
                        stored["superpixel_scores"],
                        job.num_clusters,
                        job.plan.num_classes,
                    ),
                    f"{place(self.round_index)}, shard {shard_id}: cluster_statistics",
                )

    def _check_metrics(self, job: TrainRound) -> None:
        evaluation = job.evaluation
        stage = evaluation.output
        confusion, stored = (stage.read_table(name) for name in ("confusion", "metrics"))
        compare(
            stored,
            tables.in_order("metrics", evaluation.summed_up(confusion)),
            f"{self._where(stage)}: metrics",
        )
        if stage.marker().summary:
            raise IntegrityError(f"{self._where(stage)}: its marker says more than the stage does")
        classes = list(range(job.pool.num_classes))
        ids = confusion["class_id"].to_pylist()
        if ids != classes * (len(ids) // len(classes)):
            raise IntegrityError(
                f"{self._where(stage)}: confusion matrices have rows of classes {ids}, expected "
                f"{classes} in each"
            )
        selections = ["last"]
        if job.phases.phase1.marker().summary["best_epoch"]:
            selections.append("best")
        splits = dict(self._measured(evaluation))
        expected = {
            (split, which): count for split, count in splits.items() for which in selections
        }
        found = {(row["split"], row["selection"]): row["num_images"] for row in stored.to_pylist()}
        if found != expected:
            raise IntegrityError(
                f"{self._where(stage)}: measured were {found} (split, epoch: images), expected "
                f"{expected}"
            )
        how = "mIoU follows from the confusion matrices"
        if self.deep and self.has_images:
            how += f"; {measure_again(job, confusion, self.device, self._where(stage))}"
        self.told[stage.stage] = how

    def _measured(self, evaluation: EvaluateSplits) -> Iterator[tuple[str, int]]:
        """Yield the splits that a round is measured on, and their images."""
        pool = evaluation.pool
        counts = pool.images.marker().summary["shards"]
        for split, shard_ids in pool.evaluation_shards.items():
            yield split, sum(counts[str(shard_id)]["images"] for shard_id in shard_ids)
        if pool.evaluation_points is not None:
            assert pool.points_split is not None
            labels = pool.evaluation_points.read_table("labels")
            labels = labels.filter(pc.field("status") == "labelled")
            yield f"{pool.points_split[0]}_points", len(labels["image_id"].unique())


def place(round_index: int | None) -> str:
    """Return the words for where a stage belongs."""
    return "the pool" if round_index is None else f"round {round_index}"


def _difference(marker: Any, planned: StageDir) -> str:
    """Return which setting or input is another, in brackets."""
    for kind in ("settings", "inputs"):
        old, new = dict(getattr(marker, kind)), dict(getattr(planned, kind))
        names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
        if names:
            return f" ({kind}: {', '.join(names)})"
    return ""
