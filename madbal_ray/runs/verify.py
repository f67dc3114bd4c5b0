"""Recomputing what a run promises: hashes, ledger, selection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from madbal_ray.config.schema import Config
from madbal_ray.engine.contract import ShardJob, TableJob
from madbal_ray.errors import IntegrityError
from madbal_ray.labels.ledger import Cost, check_answers, check_disjoint, cost_of, of_round
from madbal_ray.pool.prepared import Pool
from madbal_ray.runs.run import Run
from madbal_ray.scoring.job import shard_statistics
from madbal_ray.selection.asking import Asking
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.stages import STAGES, stages_of
from madbal_ray.strategies.chance import INITIAL_POOL
from madbal_ray.strategies.strategy import Strategy, resolve


def verify_run(run_dir: RunDir) -> Iterator[str]:
    """Check a run part by part; yield one line for each part that holds.

    Raises:
        IntegrityError: names the first mismatch.
        LabelError: labels and queries disagree.
    """
    config = run_dir.config()
    yield f"files: {_verify_files(run_dir, config)} match their markers"
    _stage(run_dir, "index", None)
    pool = Run(run_dir.folder.uri).pool(reads_images=False)
    labels: list[StageDir] = []
    spent = Cost()
    for round_index in range(config.num_rounds):
        answered = run_dir.find("labels", round_index)
        if answered is None:
            break
        queries = _stage(run_dir, "select", round_index)
        answers = _verify_labels(queries, answered, labels, pool)
        spent += answers
        _verify_metrics(run_dir, round_index, spent)
        yield (
            f"round {round_index}: {answers.regions} labels answer the queries; {spent.pixels} "
            f"pixels and {spent.clicks} clicks in all"
        )
        yield _verify_selection(run_dir, config, pool, round_index, tuple(labels))
        labels.append(answered)


def _stage(run_dir: RunDir, name: str, round_index: int | None) -> StageDir:
    stage = run_dir.find(name, round_index)
    if stage is None:
        where = "the pool" if round_index is None else f"round {round_index}"
        raise IntegrityError(f"{run_dir}: stage {name} of {where} is not finished")
    return stage


def _verify_files(run_dir: RunDir, config: Config) -> int:
    stages = [run_dir.find(name) for name in stages_of("pool")]
    for round_index in range(config.num_rounds):
        stages += [run_dir.find(name, round_index) for name in stages_of("round")]
    count = 0
    for stage in stages:
        if stage is None:
            continue
        problem = stage.verify_files()
        if problem is not None:
            raise IntegrityError(problem)
        count += len(stage.marker().files)
    return count


def _verify_labels(
    queries: StageDir, labels: StageDir, earlier: list[StageDir], pool: Pool
) -> Cost:
    total = Cost()
    for shard_id in pool.shard_ids:
        answers = labels.read_table("labels", [shard_id])
        own = of_round(answers, len(earlier))
        check_answers(queries.read_table("queries", [shard_id]), own)
        for stage in earlier:
            check_disjoint(own, stage.read_table("labels", [shard_id]))
        total += cost_of(answers)
    return total


def _verify_metrics(run_dir: RunDir, round_index: int, spent: Cost) -> None:
    stage = run_dir.find("metrics", round_index)
    if stage is None:
        return
    for row in stage.read_table("metrics").to_pylist():
        noted = Cost(*(row[f"num_{name}"] for name in ("labels", "regions", "clicks", "void")))
        if noted != spent:
            raise IntegrityError(
                f"{stage.folder}: metrics of round {round_index}, split {row['split']} note "
                f"{noted}, the label store holds {spent}"
            )


def _verify_selection(
    run_dir: RunDir, config: Config, pool: Pool, round_index: int, labels: tuple[StageDir, ...]
) -> str:
    """Replay the selection from the stored tables; return what was done, for people."""
    strategy = resolve(config.strategy) if round_index else INITIAL_POOL
    score = None
    if round_index and strategy.scores_pool:
        score = _stage(run_dir, "score", round_index)
        _verify_statistics(config, strategy, pool, round_index, score)
    held = run_dir.find("evaluation_points")
    if held is not None and held.marker().summary["split"] == config.data.pool_split:
        labels = (*labels, held)
    asking = Asking(
        config=config,
        pool=pool,
        round_index=round_index,
        labels=labels,
        score=score,
        stages=_Replay(run_dir, pool, round_index),
    )
    why_not = strategy.replay(asking)
    if why_not is not None:
        return f"round {round_index}: selection not replayed: {why_not}"
    source = "seed" if score is None else "stored scores"
    return f"round {round_index}: selection replayed from the {source}"


def _verify_statistics(
    config: Config, strategy: Strategy, pool: Pool, round_index: int, score: StageDir
) -> None:
    if strategy.rows != "superpixels":
        return
    for shard_id in pool.shard_ids:
        compare(
            score.read_table("cluster_statistics", [shard_id]),
            shard_statistics(
                shard_id,
                score.read_table("superpixel_scores", [shard_id]),
                strategy.num_clusters(config),
                pool.num_classes,
            ),
            f"round {round_index}, shard {shard_id}: cluster_statistics",
        )


@dataclass(frozen=True)
class _Replay:
    """Computes a strategy's stages again and compares them with what is stored."""

    run_dir: RunDir
    pool: Pool
    round_index: int

    def plan(self, name: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> StageDir:
        stage = _stage(self.run_dir, name, self.round_index)
        planned = StageDir.plan(stage.folder, name, settings, inputs)
        if stage.marker().revision == STAGES[name].revision and planned.key != stage.key:
            raise IntegrityError(
                f"{stage.folder}: stage {name} of round {self.round_index} has key {stage.key}, "
                f"its settings and inputs give {planned.key}: it was made from something else"
            )
        return stage

    def map(self, job: ShardJob, shard_ids: Sequence[int] | None = None) -> None:
        job.setup()
        for shard_id in self.pool.shard_ids if shard_ids is None else shard_ids:
            for name, table in job.run(shard_id).items():
                compare(
                    job.output.read_table(name, [shard_id]),
                    table,
                    f"round {self.round_index}, shard {shard_id}: {name}",
                )

    def call(self, job: TableJob) -> None:
        computed = job.compute()
        for (name, shard_id), table in computed.tables.items():
            compare(
                job.output.read_table(name, [shard_id]),
                table,
                f"round {self.round_index}, {job.output.stage}: {name}",
            )
        stored = job.output.marker().summary
        if dict(computed.summary) != dict(stored):
            raise IntegrityError(
                f"round {self.round_index}, {job.output.stage}: the marker says {dict(stored)}, "
                f"the replay gives {dict(computed.summary)}"
            )

    def say(self, text: str) -> None:
        """Nothing new is told."""


def compare(stored: pa.Table, replayed: pa.Table, what: str) -> None:
    """See that two tables hold the same rows.

    Raises:
        IntegrityError: names the first column and row that differ.
    """
    if stored.num_rows != replayed.num_rows:
        raise IntegrityError(
            f"{what}: {stored.num_rows} rows are stored, the replay gives {replayed.num_rows}"
        )
    for name in stored.column_names:
        if stored[name].equals(replayed[name]):
            continue
        pairs = zip(stored[name].to_pylist(), replayed[name].to_pylist(), strict=True)
        differing = (index for index, (old, new) in enumerate(pairs) if old != new)
        row = next(differing, None)
        if row is not None:
            raise IntegrityError(
                f"{what}: column {name} differs from the replay, first in row {row}"
            )
