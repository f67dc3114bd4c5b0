"""How a round's queries come about: one path for each kind of selector."""

from __future__ import annotations

from dataclasses import dataclass

from madbal_ray.config.schema import Config
from madbal_ray.engine.stages import JobRunner
from madbal_ray.models.trained import Phases
from madbal_ray.pool.clusters.assign_job import AssignRandomClusters
from madbal_ray.pool.prepare import Pool
from madbal_ray.scoring.job import ScorePool
from madbal_ray.scoring.score_images import Rows, ScoringPlan
from madbal_ray.selection.breakdown_jobs import AllocateBudgets, QueryShard, total_budget
from madbal_ray.selection.candidates_job import QueryCandidates
from madbal_ray.selection.random_jobs import AskWholeImages, DrawRandomPixels
from madbal_ray.selection.whole_images import SelectImages
from madbal_ray.selection.whole_pool.jobs import QueryPool, query_pool
from madbal_ray.selection.whole_pool.offers import OfferPixels
from madbal_ray.state.stage_dir import StageDir, digests, total_of
from madbal_ray.state.storage import Folder
from madbal_ray.strategies.strategy import Strategy

ROWS: dict[str, Rows] = {
    "breakdown": "superpixels",
    "candidates": "candidates",
    "core_set": "images",
    "top_images": "images",
}


@dataclass
class Acquisition:
    """Asks for pixels, superpixels or images, as the strategy says."""

    config: Config
    strategy: Strategy
    pool: Pool
    runner: JobRunner
    device: str

    def initial(self, folder: Folder) -> StageDir:
        """Return the queries of round 0: random pixels, or every image as a whole."""
        count = self.config.budget.initial_pixels_per_image
        if count == "all":
            output = StageDir.plan(folder, "select", {"all": True}, digests(self.pool.images))
            job = AskWholeImages(output, self.pool.images)
            self.runner.map(job, self.pool.shard_ids, total=self.pool.num_images)
            return output
        return self._random_pixels(folder, 0, count, ())

    def ask(
        self, folder: Folder, round_index: int, labels: tuple[StageDir, ...], phases: Phases
    ) -> StageDir:
        """Return the queries of a later round."""
        strategy, budget = self.strategy, self.config.budget
        if strategy.selector == "random_pixels":
            return self._random_pixels(folder, round_index, budget.pixels_per_image, labels)
        score = self.score(folder, round_index, labels, phases)
        if strategy.selector == "breakdown":
            return self._breakdown(folder, round_index, score)
        if strategy.selector == "candidates":
            output = StageDir.plan(folder, "select", {}, digests(score))
            job = QueryCandidates(output, score, round_index)
            self.runner.map(job, self.pool.shard_ids, total=self.pool.num_images)
            self._report_missing(output, budget.pixels_per_image)
            return output
        output = StageDir.plan(
            folder,
            "select",
            {"selector": strategy.selector, "count": budget.images_per_round},
            digests(score) | label_digests(labels),
        )
        self.runner.call(
            SelectImages(
                output,
                score,
                labels,
                self.pool.shard_ids,
                round_index,
                strategy.selector,
                budget.images_per_round,
            )
        )
        return output

    def _random_pixels(
        self, folder: Folder, round_index: int, count: int, labels: tuple[StageDir, ...]
    ) -> StageDir:
        config, pool = self.config, self.pool
        settings = {
            "seed": config.seed,
            "round": round_index,
            "count": count,
            "skip_void": config.oracle.skip_void,
        }
        inputs = digests(pool.images, pool.superpixels, pool.clusters) | label_digests(labels)
        output = StageDir.plan(folder, "select", settings, inputs)
        job = DrawRandomPixels(
            output,
            pool.reader,
            config.resources.decode_threads,
            pool.images,
            pool.superpixels,
            pool.clusters,
            labels,
            round_index,
            count,
            config.oracle.skip_void,
            config.seed,
        )
        self.runner.map(job, pool.shard_ids, total=pool.num_images)
        self._report_missing(output, count)
        return output

    @property
    def _num_clusters(self) -> int:
        return 1 if self.strategy.clusters == "one" else self.config.clustering.num_clusters

    def score(
        self, folder: Folder, round_index: int, labels: tuple[StageDir, ...], phases: Phases
    ) -> StageDir:
        """Run the network over the pool once."""
        config, pool, strategy = self.config, self.pool, self.strategy
        assert strategy.pixel_score is not None
        plan = ScoringPlan(
            pixel_score=strategy.pixel_score,
            rows=ROWS[strategy.selector],
            candidate_rule=strategy.candidate_rule,
            num_classes=pool.num_classes,
            budget=config.budget.most_per_image,
            asks_regions=strategy.unit == "superpixel",
            options=config.strategy,
            seed=config.seed,
            round_index=round_index,
        )
        clusters = self._clusters(folder)
        phase1, phase2 = phases
        used = [pool.images, pool.superpixels, clusters, phase1]
        if phase2 is not None:
            used.append(phase2)
        output = StageDir.plan(
            folder,
            "score",
            {
                "model": config.model.result_settings(),
                "score": config.score.result_settings(),
                "strategy": config.strategy.result_settings(),
                "budget": config.budget.most_per_image,
                "num_clusters": self._num_clusters,
                "skip_void": config.oracle.skip_void,
                "seed": config.seed,
            },
            digests(*used) | label_digests(labels),
        )
        job = ScorePool(
            output,
            pool.reader,
            config.resources.decode_threads,
            pool.images,
            pool.superpixels,
            clusters,
            phase1,
            phase2,
            labels,
            config.model,
            config.score,
            plan,
            strategy.supports,
            self._num_clusters,
            config.oracle.skip_void,
            self.device,
        )
        self.runner.map(job, pool.shard_ids, total=pool.num_images)
        return output

    def _clusters(self, folder: Folder) -> StageDir:
        """Return what superpixels are grouped by; the random ablation draws groups of its own."""
        if self.strategy.clusters != "random":
            return self.pool.clusters
        count = self.config.clustering.num_clusters
        output = StageDir.plan(
            folder,
            "random_clusters",
            {"seed": self.config.seed, "num_clusters": count},
            digests(self.pool.clusters),
        )
        job = AssignRandomClusters(output, self.pool.clusters, count, self.config.seed)
        self.runner.map(job, self.pool.shard_ids, total=self.pool.num_images)
        return output

    def _breakdown(self, folder: Folder, round_index: int, score: StageDir) -> StageDir:
        """Share the budget over clusters, then query image by image (Eq. 5-8)."""
        config, pool = self.config, self.pool
        settings = {
            "budget": config.budget.result_settings(),
            "strategy": config.strategy.result_settings(),
        }
        budgets = StageDir.plan(folder, "allocate", settings, digests(score))
        self.runner.call(
            AllocateBudgets(
                budgets,
                score,
                round_index,
                self._num_clusters,
                pool.num_classes,
                total_budget(config.budget, pool.num_images),
                config.budget,
                config.strategy,
            )
        )
        excess = budgets.marker().summary["ceil_excess"]
        if excess:
            self.runner.progress.say(
                f"round {round_index}: Eq. 8's ceilings gave {excess} pixels back"
            )
        if config.budget.scope == "pool":
            return self._query_pool(folder, round_index, score, budgets)
        output = StageDir.plan(folder, "select", {}, digests(score, budgets))
        job = QueryShard(output, score, budgets, round_index, self.strategy.unit, config.strategy)
        self.runner.map(job, pool.shard_ids, total=pool.num_images)
        self._report_missing(output, config.budget.pixels_per_image)
        return output

    def _query_pool(
        self, folder: Folder, round_index: int, score: StageDir, budgets: StageDir
    ) -> StageDir:
        """Cut every cluster at its budget over the pool, then query shard by shard."""
        config, pool = self.config, self.pool
        queries = query_pool(
            OfferPixels(score, budgets, config.budget, config.strategy),
            folder,
            pool.shard_ids,
            round_index,
            self.strategy.unit,
            map_shards=lambda job: self.runner.map(
                job, pool.shard_ids, total=pool.num_images if isinstance(job, QueryPool) else None
            ),
            call=self.runner.call,
        )
        self._report_missing(queries, config.budget.pixels_per_image)
        return queries

    def _report_missing(self, queries: StageDir, wanted: int) -> None:
        missing = wanted * self.pool.num_images - total_of(queries, "asked")
        if missing:
            why = (
                "the pool offers no more; raise budget.max_per_image"
                if self.config.budget.max_per_image
                else "some images have none left to ask for"
            )
            self.runner.progress.say(
                f"round {self.runner.round_index}: {missing} {self.strategy.unit}s fewer than the "
                f"budget, since {why}"
            )


def label_digests(labels: tuple[StageDir, ...]) -> dict[str, str]:
    """Return what a stage that reads the labels of several rounds puts into its key."""
    return {
        f"labels_{round_index:03d}": stage.marker().digest
        for round_index, stage in enumerate(labels)
    }
