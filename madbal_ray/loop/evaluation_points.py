"""Points that a run is measured on where there are no masks: drawn once, answered once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from madbal_ray import rng
from madbal_ray.config.schema import Config
from madbal_ray.engine.contract import Computed, TableJob
from madbal_ray.engine.stages import JobRunner
from madbal_ray.errors import PoolError
from madbal_ray.evaluation.point_estimates import points_needed
from madbal_ray.labels.answer_job import AnswerQueries
from madbal_ray.labels.oracle import Enquiry, Oracle
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import PoolImage
from madbal_ray.seams import ORACLES
from madbal_ray.state import tables
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stage_dir import digests
from madbal_ray.state.storage import Folder
from madbal_ray.state.tables import HALF_WIDTH

ROUND = -1
"""Stands for no round in the columns `round` of queries and answers."""


@dataclass(frozen=True, kw_only=True)
class EvaluationPoints:
    """The points of a run.

    Attributes:
        folder: of their stages.
        runner: of the run, outside its rounds.
    """

    config: Config
    run_dir: RunDir
    folder: Folder
    runner: JobRunner

    def hold(self, pool: Pool) -> Pool:
        """Draw the points and ask for them; return the pool, which keeps off them.

        Raises:
            PoolError: the split has fewer pixels.
        """
        self._oracle(pool).post(self._enquiry(pool))
        return self.drawn(pool)

    def drawn(self, pool: Pool) -> Pool:
        """Draw the points; return the pool, which keeps off them."""
        enquiry = self._enquiry(pool)
        assert pool.points_split is not None
        is_pool = pool.points_split[0] == self.config.data.pool_split
        return replace(pool, held_points=enquiry.queries if is_pool else None)

    def answered(self, pool: Pool) -> Pool:
        """Return the pool with the answers to its points.

        Raises:
            AnswersPending: somebody has not answered yet.
        """
        config, enquiry = self.config, self._enquiry(pool)
        oracle = self._oracle(pool)
        oracle.prepare(enquiry)
        output = self.runner.plan(
            self.folder,
            "evaluation_labels",
            config.oracle.result_settings() | {"seed": config.seed},
            digests(pool.images, enquiry.queries, *oracle.reads),
        )
        job = AnswerQueries(
            output=output,
            pool=pool,
            queries=enquiry.queries,
            earlier_labels=(),
            oracle=oracle,
            oracle_name=config.oracle.kind,
            round_index=ROUND,
        )
        self.runner.map(job, enquiry.shard_ids, total=None)
        return replace(pool, evaluation_points=output)

    def _oracle(self, pool: Pool) -> Oracle:
        return ORACLES[self.config.oracle.kind](self.config, pool.num_classes)

    def _enquiry(self, pool: Pool) -> Enquiry:
        assert pool.points_split is not None
        split, shard_ids = pool.points_split
        count = self.config.evaluation.points
        assert count is not None
        queries = self.runner.plan(
            self.folder,
            "evaluation_points",
            {"seed": self.config.seed, "points": count, "split": split},
            digests(pool.images),
        )
        if not queries.is_done:
            self.runner.progress.say(
                f"measuring on {count} points of {split}: {points_needed(HALF_WIDTH)} put the "
                f"pixel accuracy within +- {HALF_WIDTH:.0%} whatever it is, "
                f"{points_needed(HALF_WIDTH, share=0.9)} where it is 90 %; what the mIoU needs is "
                "told after the first round"
            )
        self.runner.call(
            DrawPoints(
                output=queries, pool=pool, split=split, shard_ids=tuple(shard_ids), count=count,
                seed=self.config.seed,
            )
        )  # fmt: skip
        return Enquiry(
            run_dir=self.run_dir,
            folder=self.folder,
            purpose="evaluation",
            round_index=ROUND,
            pool=pool,
            shard_ids=queries.shards_with("queries"),
            queries=queries,
            earlier=(),
            runner=self.runner,
        )


@dataclass(kw_only=True)
class DrawPoints(TableJob):
    """Different pixels of a split's working grids, all equally likely."""

    pool: Pool
    split: str
    shard_ids: tuple[int, ...]
    count: int
    seed: int

    def compute(self) -> Computed:
        """Return the points as queries, by shard.

        Raises:
            PoolError: the split has fewer pixels.
        """
        images = [image for shard_id in self.shard_ids for image in self.pool.images_of(shard_id)]
        # By id: the same points however the split is sharded.
        images.sort(key=lambda image: image.image_id)
        ends = np.cumsum([image.work_height * image.work_width for image in images])
        total = int(ends[-1]) if len(ends) else 0
        if self.count > total:
            raise PoolError(
                f"evaluation.points = {self.count}, but split {self.split!r} has {total} pixels"
            )
        generator = rng.stream(self.seed, "evaluation_points", 0, self.split)
        places = np.sort(generator.choice(total, self.count, replace=False, shuffle=False))
        index = np.searchsorted(ends, places, side="right")
        rows: dict[int, list] = {shard_id: [] for shard_id in self.shard_ids}
        ranks: dict[int, int] = {}
        for which, place in zip(index.tolist(), places.tolist(), strict=True):
            image: PoolImage = images[which]
            first = int(ends[which]) - image.work_height * image.work_width
            y, x = divmod(place - first, image.work_width)
            ranks[which] = ranks.get(which, -1) + 1
            rows[image.shard_id].append(
                {
                    "round": ROUND,
                    "image_id": image.image_id,
                    "y": y,
                    "x": x,
                    "unit": "pixel",
                    "rank": ranks[which],
                }
            )
        return Computed(
            {
                ("queries", shard_id): tables.from_rows("queries", part)
                for shard_id, part in rows.items()
            },
            {"split": self.split, "asked": self.count},
        )
