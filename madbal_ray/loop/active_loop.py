"""The rounds: the one place where the end of the loop is joined to its start.

round 0      random queries -> labels -> train
round r >= 1 score with the weights of round r - 1 -> allocate -> select -> labels -> train
"""

from __future__ import annotations

import time

from madbal_ray.config import Config
from madbal_ray.labels import Ledger
from madbal_ray.loop.engine import Engine
from madbal_ray.loop.evaluation import EvaluateSplits
from madbal_ray.loop.pool import Pool, prepare_pool
from madbal_ray.loop.progress import Progress
from madbal_ray.loop.score_job import ScorePool
from madbal_ray.loop.select_jobs import (
    AllocateBudgets,
    DrawInitialPool,
    QueryShard,
    SimulateAnswers,
)
from madbal_ray.loop.stage_runner import StageRunner
from madbal_ray.loop.trackers import Trackers
from madbal_ray.loop.train_job import FEW_LABELS, TrainRound
from madbal_ray.models.weights import publish_weights
from madbal_ray.run_dir import RunDir
from madbal_ray.stage_dir import StageDir, digests


class ActiveLoop:
    """One run, from pool preparation to the last round's metrics."""

    def __init__(
        self,
        config: Config,
        run_dir: RunDir,
        engine: Engine,
        progress: Progress,
        *,
        device: str,
        stop_after: tuple[str, int | None] | None = None,
    ) -> None:
        self.config = config
        self.run_dir = run_dir
        self.progress = progress
        self.device = device
        self.trackers = Trackers(config.tracking, run_dir)
        self.runner = StageRunner(run_dir, engine, progress, self.trackers, stop_after)
        self.labels: list[StageDir] = []
        self.phases: list[tuple[StageDir, StageDir]] = []

    def run(self) -> None:
        """Do everything that is not done yet."""
        try:
            self._run()
        finally:
            self.trackers.close()

    def _run(self) -> None:
        started = time.perf_counter()
        self.run_dir.append_event("run_started", num_rounds=self.config.num_rounds)
        config, folder = self.config, self.run_dir.pool_folder(self.config)
        self.weights = publish_weights(
            config.model.weights, config.model.backbone, folder, option="model.weights"
        )
        pool = prepare_pool(config, folder, self.runner, self.device)
        ledger = Ledger(num_images=pool.num_images, num_pixels=pool.num_pixels)
        for round_index in range(self.config.num_rounds):
            self.runner.round_index = round_index
            queries = self._initial(pool) if round_index == 0 else self._select(pool, round_index)
            ledger = self._label(pool, queries, ledger, round_index)
            self._train(pool, ledger, round_index)
            self.run_dir.append_event("round_finished", round=round_index)
        seconds = round(time.perf_counter() - started, 3)
        self.run_dir.append_event("run_finished", seconds=seconds)

    def _initial(self, pool: Pool) -> StageDir:
        config = self.config
        output = StageDir.plan(
            self.run_dir.round_folder(0),
            "select",
            {
                "seed": config.seed,
                "count": config.budget.initial_pixels_per_image,
                "skip_void": config.oracle.skip_void,
            },
            digests(pool.images, pool.superpixels, pool.clusters),
        )
        job = DrawInitialPool(
            output,
            pool.reader,
            config.resources.decode_threads,
            pool.images,
            pool.superpixels,
            pool.clusters,
            count_per_image=config.budget.initial_pixels_per_image,
            skip_void=config.oracle.skip_void,
            seed=config.seed,
        )
        self.runner.map(job, pool.shard_ids, total=pool.num_images)
        self._report_missing(pool, output, config.budget.initial_pixels_per_image)
        return output

    def _select(self, pool: Pool, round_index: int) -> StageDir:
        """Score the pool, share the budget over the clusters, choose pixels."""
        config, folder = self.config, self.run_dir.round_folder(round_index)
        phase1, phase2 = self.phases[-1]
        score = StageDir.plan(
            folder,
            "score",
            {
                "model": config.model.result_settings(),
                "score": config.score.result_settings(),
                "budget": config.budget.pixels_per_image,
                "num_clusters": config.clustering.num_clusters,
                "skip_void": config.oracle.skip_void,
                "strategy": config.strategy,
            },
            digests(pool.images, pool.superpixels, pool.clusters, phase1, phase2)
            | self._label_digests(),
        )
        self.runner.map(
            ScorePool(
                score,
                pool.reader,
                config.resources.decode_threads,
                pool.images,
                pool.superpixels,
                pool.clusters,
                phase1,
                phase2,
                tuple(self.labels),
                config.model,
                config.score,
                num_classes=pool.num_classes,
                num_clusters=config.clustering.num_clusters,
                budget=config.budget.pixels_per_image,
                skip_void=config.oracle.skip_void,
                device=self.device,
            ),
            pool.shard_ids,
            total=pool.num_images,
        )
        budgets = StageDir.plan(folder, "allocate", config.budget.result_settings(), digests(score))
        self.runner.call(
            AllocateBudgets(
                budgets,
                score,
                round_index,
                config.clustering.num_clusters,
                pool.num_classes,
                config.budget,
            )
        )
        excess = budgets.marker().summary["ceil_excess"]
        if excess:
            self.progress.say(f"round {round_index}: Eq. 8's ceilings gave {excess} pixels back")
        queries = StageDir.plan(folder, "select", {}, digests(score, budgets))
        self.runner.map(
            QueryShard(queries, score, budgets, round_index),
            pool.shard_ids,
            total=pool.num_images,
        )
        self._report_missing(pool, queries, config.budget.pixels_per_image)
        return queries

    def _label(self, pool: Pool, queries: StageDir, ledger: Ledger, round_index: int) -> Ledger:
        """Ask the oracle; return the ledger after it, asserted against queries and labels."""
        output = StageDir.plan(
            self.run_dir.round_folder(round_index),
            "labels",
            self.config.oracle.result_settings(),
            digests(pool.images, queries) | self._label_digests(),
        )
        self.runner.map(
            SimulateAnswers(
                output,
                pool.reader,
                self.config.resources.decode_threads,
                pool.images,
                queries,
                tuple(self.labels),
            ),
            pool.shard_ids,
            total=pool.num_images,
        )
        self.labels.append(output)
        return ledger.add_round(
            num_queries=_total(queries, "asked"),
            num_labels=_total(output, "answers"),
            num_void=_total(output, "void"),
        )

    def _train(self, pool: Pool, ledger: Ledger, round_index: int) -> None:
        """Train both phases on all labels so far and measure the result."""
        config = self.config
        folder = self.run_dir.round_folder(round_index) / "train"
        previous = self.phases[-1] if config.train.init == "previous" and self.phases else None
        settings = {
            "seed": config.seed,
            "round": round_index,
            "model": config.model.result_settings(),
            "weights": self.weights.identity,
            "classes": list(pool.class_names),
            "train": config.train.result_settings(),
        }
        phase2_settings = settings["train"].pop("phase2")
        inputs = digests(pool.images) | self._label_digests()
        if previous is not None:
            inputs |= {f"previous_{name}": value for name, value in digests(*previous).items()}
        phase1 = StageDir.plan(folder, "phase1", settings, inputs)
        phase1_key = {"phase1": phase1.key}
        phase2 = StageDir.plan(folder, "phase2", phase2_settings, inputs | phase1_key)
        metrics = StageDir.plan(
            self.run_dir.round_folder(round_index),
            "metrics",
            config.evaluation.result_settings() | {"splits": sorted(pool.evaluation_shards)},
            inputs | phase1_key,
        )
        evaluation = EvaluateSplits(
            metrics,
            pool.images,
            pool.evaluation_shards,
            pool.reader,
            config.evaluation,
            num_classes=pool.num_classes,
            round_index=round_index,
            ledger=ledger,
            use_bf16=config.train.precision == "bf16",
            threads=config.resources.decode_threads,
        )
        job = TrainRound(
            config,
            round_index,
            self.weights,
            pool.num_classes,
            pool.reader,
            pool.images,
            pool.shard_ids,
            tuple(self.labels),
            previous,
            phase1,
            phase2,
            evaluation,
        )
        self.runner.train(job, [phase1, metrics, phase2])
        self.phases.append((phase1, phase2))
        few = phase2.marker().summary["classes_with_few_labels"]
        if few:
            names = ", ".join(pool.class_names[class_id] for class_id in few)
            self.progress.say(f"round {round_index}: fewer than {FEW_LABELS} labels of: {names}")
        rows = metrics.read_table("metrics").to_pylist()
        self.trackers.on_metrics(rows)
        for row in rows:
            miou = "undefined" if row["miou"] is None else f"{row['miou']:.4f}"
            self.progress.say(
                f"round {round_index}: {row['labels_per_image']:g} labels per image, "
                f"mIoU on {row['split']} {miou}"
            )

    def _label_digests(self) -> dict[str, str]:
        return {
            f"labels_{round_index:03d}": stage.marker().digest
            for round_index, stage in enumerate(self.labels)
        }

    def _report_missing(self, pool: Pool, queries: StageDir, wanted: int) -> None:
        missing = wanted * pool.num_images - _total(queries, "asked")
        if missing:
            self.progress.say(
                f"round {self.runner.round_index}: {missing} pixels fewer than the budget, since "
                "some images have none left to ask for"
            )


def _total(stage: StageDir, name: str) -> int:
    """Add up what the shards of a finished stage counted."""
    return sum(counts[name] for counts in stage.marker().summary["shards"].values())
