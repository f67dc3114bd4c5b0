"""Recomputing what a run promises: hashes, ledger, selection."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from madbal_ray.config.schema import Config
from madbal_ray.errors import IntegrityError
from madbal_ray.labels.ledger import Cost, check_answers, check_disjoint, cost_of
from madbal_ray.selection.whole_pool.offers import OfferPixels
from madbal_ray.selection.whole_pool.jobs import CountDigits, CutClusters, QueryPool
from madbal_ray.scoring.job import shard_statistics
from madbal_ray.selection.breakdown_jobs import (
    AllocateBudgets,
    QueryShard,
    merge_statistics,
    total_budget,
)
from madbal_ray.selection.candidates_job import QueryCandidates
from madbal_ray.selection.whole_pool.cut import SHIFTS
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.strategies.strategy import Strategy
from madbal_ray.strategies.registry import resolve

POOL_STAGES = (
    "index",
    "images",
    "superpixels",
    "superpixel_features",
    "centroids",
    "superpixel_clusters",
)
ROUND_STAGES = (
    "random_clusters",
    "score",
    "allocate",
    *(f"{stage}_{level}" for level in range(len(SHIFTS)) for stage in ("digits", "cuts")),
    "select",
    "labels",
    "phase1",
    "metrics",
    "phase2",
)


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
    spent = Cost()
    for round_index in range(config.num_rounds):
        found = run_dir.find("labels", round_index)
        if found is None:
            break
        queries = _stage(run_dir, "select", round_index)
        answers = _verify_labels(queries, found, labels, shard_ids)
        spent += answers
        labels.append(found)
        _verify_metrics(run_dir, round_index, spent)
        yield (
            f"round {round_index}: {answers.regions} labels answer the queries; {spent.pixels} "
            f"pixels and {spent.clicks} clicks in all"
        )
        if round_index:
            yield _verify_selection(run_dir, config, round_index, queries, shard_ids)


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
) -> Cost:
    total = Cost()
    for shard_id in shard_ids:
        answers = labels.read_table("labels", [shard_id])
        check_answers(queries.read_table("queries", [shard_id]), answers)
        for one in earlier:
            check_disjoint(answers, one.read_table("labels", [shard_id]))
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
    run_dir: RunDir, config: Config, round_index: int, queries: StageDir, shard_ids: list[int]
) -> str:
    """Replay the selection from the stored tables; return what was done, for people."""
    strategy = resolve(config.strategy)
    if strategy.selector not in ("breakdown", "candidates"):
        return f"round {round_index}: strategy {strategy.name} has nothing to replay"
    score = _stage(run_dir, "score", round_index)
    replay: QueryShard | QueryCandidates | QueryPool = QueryCandidates(queries, score, round_index)
    if strategy.selector == "breakdown":
        budgets = _verify_budgets(run_dir, config, strategy, round_index, score, shard_ids)
        replay = QueryShard(queries, score, budgets, round_index, strategy.unit, config.strategy)
        if config.budget.scope == "pool":
            offers = OfferPixels(score, budgets, config.budget, config.strategy)
            cuts = _verify_cuts(run_dir, offers, round_index, shard_ids)
            replay = QueryPool(queries, offers, cuts, round_index, strategy.unit)
    replay.setup()
    for shard_id in shard_ids:
        _compare(
            queries.read_table("queries", [shard_id]),
            replay.run(shard_id)["queries"],
            f"round {round_index}, shard {shard_id}: queries",
        )
    return f"round {round_index}: selection replayed from the stored scores"


def _verify_budgets(
    run_dir: RunDir,
    config: Config,
    strategy: Strategy,
    round_index: int,
    score: StageDir,
    shard_ids: list[int],
) -> StageDir:
    budgets = _stage(run_dir, "allocate", round_index)
    num_clusters = 1 if strategy.clusters == "one" else config.clustering.num_clusters
    images = _stage(run_dir, "images", None)
    num_classes = len(_stage(run_dir, "index", None).marker().summary["class_names"])
    num_images = 0
    for shard_id in shard_ids:
        num_images += images.marker().summary["shards"][str(shard_id)]["images"]
        stored = score.read_table("cluster_statistics", [shard_id])
        scores = score.read_table("superpixel_scores", [shard_id])
        _compare(
            stored,
            shard_statistics(shard_id, scores, num_clusters, num_classes),
            f"round {round_index}, shard {shard_id}: cluster_statistics",
        )
    allocate = AllocateBudgets(
        budgets,
        score,
        round_index,
        num_clusters,
        num_classes,
        total_budget(config.budget, num_images),
        config.budget,
        config.strategy,
    )
    statistics = merge_statistics(score, num_clusters, num_classes)
    _compare(
        budgets.read_table("cluster_budgets"),
        allocate.allocate(statistics),
        f"round {round_index}: cluster_budgets",
    )
    return budgets


def _verify_cuts(
    run_dir: RunDir, offers: OfferPixels, round_index: int, shard_ids: list[int]
) -> StageDir:
    """Count and cut again, pass by pass; return the last cuts."""
    cuts: StageDir | None = None
    for level in range(len(SHIFTS)):
        digits = _stage(run_dir, f"digits_{level}", round_index)
        count = CountDigits(digits, offers, cuts, level)
        count.setup()
        for shard_id in shard_ids:
            _compare(
                digits.read_table("score_digits", [shard_id]),
                count.run(shard_id)["score_digits"],
                f"round {round_index}, shard {shard_id}: score_digits of pass {level}",
            )
        after = _stage(run_dir, f"cuts_{level}", round_index)
        _compare(
            after.read_table("pool_cuts"),
            CutClusters(after, digits, offers, cuts, shard_ids, round_index, level).cut(),
            f"round {round_index}: pool_cuts of pass {level}",
        )
        cuts = after
        if not cuts.marker().summary["open"]:
            break
    assert cuts is not None
    return cuts


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
