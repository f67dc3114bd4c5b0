"""Recomputing what a run promises: hashes, ledger, selection."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from madbal_ray.config import Config
from madbal_ray.errors import IntegrityError
from madbal_ray.labels.ledger import check_answers, check_disjoint
from madbal_ray.loop.score_job import shard_statistics
from madbal_ray.loop.select_jobs import AllocateBudgets, QueryShard, merge_statistics
from madbal_ray.run_dir import RunDir
from madbal_ray.stage_dir import StageDir

POOL_STAGES = (
    "index",
    "images",
    "superpixels",
    "superpixel_features",
    "centroids",
    "superpixel_clusters",
)
ROUND_STAGES = ("score", "allocate", "select", "labels", "phase1", "metrics", "phase2")


def verify_run(run_dir: RunDir) -> Iterator[str]:
    """Check a run part by part; yield one line for each part that holds.

    Raises:
        IntegrityError: names the first mismatch.
        LabelError: labels and queries disagree.
    """
    config = run_dir.config()
    yield f"files: {_verify_files(run_dir, config)} match their markers"
    shards = _stage(run_dir, "index", None).marker().summary["shards_of_split"]
    shard_ids = shards[config.data.pool_split]
    labels: list[StageDir] = []
    num_asked = 0
    for round_index in range(config.num_rounds):
        found = run_dir.find("labels", round_index)
        if found is None:
            break
        queries = _stage(run_dir, "select", round_index)
        asked = _verify_labels(queries, found, labels, shard_ids)
        num_asked += asked
        labels.append(found)
        _verify_metrics(run_dir, round_index, num_asked)
        yield f"round {round_index}: {asked} labels answer the queries, {num_asked} in all"
        if round_index:
            _verify_selection(run_dir, config, round_index, queries, shard_ids)
            yield f"round {round_index}: selection replayed from the stored scores"


def _stage(run_dir: RunDir, name: str, round_index: int | None) -> StageDir:
    found = run_dir.find(name, round_index)
    if found is None:
        where = "the pool" if round_index is None else f"round {round_index}"
        raise IntegrityError(f"{run_dir}: stage {name} of {where} is not finished")
    return found


def _verify_files(run_dir: RunDir, config: Config) -> int:
    stages = [run_dir.find(name) for name in POOL_STAGES]
    for round_index in range(config.num_rounds):
        stages += [run_dir.find(name, round_index) for name in ROUND_STAGES]
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
    queries: StageDir, labels: StageDir, earlier: list[StageDir], shard_ids: list[int]
) -> int:
    count = 0
    for shard_id in shard_ids:
        answers = labels.read_table("labels", [shard_id])
        check_answers(queries.read_table("queries", [shard_id]), answers)
        for one in earlier:
            check_disjoint(answers, one.read_table("labels", [shard_id]))
        count += answers.num_rows
    return count


def _verify_metrics(run_dir: RunDir, round_index: int, num_asked: int) -> None:
    stage = run_dir.find("metrics", round_index)
    if stage is None:
        return
    for row in stage.read_table("metrics").to_pylist():
        if row["num_labels"] != num_asked:
            raise IntegrityError(
                f"{stage.folder}: metrics of round {round_index}, split {row['split']} say "
                f"{row['num_labels']} labels, the label store holds {num_asked}"
            )


def _verify_selection(
    run_dir: RunDir, config: Config, round_index: int, queries: StageDir, shard_ids: list[int]
) -> None:
    score = _stage(run_dir, "score", round_index)
    budgets = _stage(run_dir, "allocate", round_index)
    num_clusters = config.clustering.num_clusters
    num_classes = len(_stage(run_dir, "index", None).marker().summary["class_names"])
    for shard_id in shard_ids:
        stored = score.read_table("cluster_statistics", [shard_id])
        scores = score.read_table("superpixel_scores", [shard_id])
        _compare(
            stored,
            shard_statistics(shard_id, scores, num_clusters, num_classes),
            f"round {round_index}, shard {shard_id}: cluster_statistics",
        )
    allocate = AllocateBudgets(
        budgets, score, round_index, num_clusters, num_classes, config.budget
    )
    statistics = merge_statistics(score, num_clusters, num_classes)
    _compare(
        budgets.read_table("cluster_budgets"),
        allocate.allocate(statistics),
        f"round {round_index}: cluster_budgets",
    )
    replay = QueryShard(queries, score, budgets, round_index)
    replay.setup()
    for shard_id in shard_ids:
        _compare(
            queries.read_table("queries", [shard_id]),
            replay.run(shard_id)["queries"],
            f"round {round_index}, shard {shard_id}: queries",
        )


def _compare(stored: pa.Table, replayed: pa.Table, what: str) -> None:
    if stored.num_rows != replayed.num_rows:
        raise IntegrityError(
            f"{what}: {stored.num_rows} rows are stored, the replay gives {replayed.num_rows}"
        )
    for name in stored.column_names:
        if stored[name].equals(replayed[name]):
            continue
        pairs = zip(stored[name].to_pylist(), replayed[name].to_pylist(), strict=True)
        row = next(index for index, (old, new) in enumerate(pairs) if old != new)
        raise IntegrityError(f"{what}: column {name} differs from the replay, first in row {row}")
