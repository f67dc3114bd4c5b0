"""`budget.scope: pool`: the best superpixels of each cluster over all images.

digits 0 -> cuts 0 -> ... -> digits 3 -> cuts 3 -> queries. Shards count their scores, the
counts say where each cluster is cut (`madbal_ray.selection.whole_pool.cut`), and when no cut is
open any more every shard knows its queries without looking at another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa

from madbal_ray.engine.contract import Computed, LightShardJob, TableJob
from madbal_ray.selection.apportionment import exact_weights
from madbal_ray.selection.asking import Asking
from madbal_ray.selection.laps import share_laps
from madbal_ray.selection.query_rows import QueryJob, Unit, check_pool_exact, query_rows
from madbal_ray.selection.scored_shard import ClusterBudgets
from madbal_ray.selection.whole_pool.cut import SHIFTS, Cuts, Digits, count_digits
from madbal_ray.selection.whole_pool.offers import Offered, OfferPixels
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir, digests, total_of

CHUNK = 64
"""Shards whose counts are added up at once."""


@dataclass(kw_only=True)
class CountDigits(LightShardJob):
    """Counts of one pass: the offers of a shard by lap, cluster and digit of u(s).

    Attributes:
        cuts: of the pass before; None: the first pass.
    """

    offers: OfferPixels
    cuts: StageDir | None
    level: int
    table_names = ("score_digits",)
    counts_images = False

    def setup(self) -> None:
        """Load budgets and cuts."""
        self.offers.setup()
        self._cuts = None if self.cuts is None else read_cuts(self.cuts)

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the counts of one shard."""
        offered = self.offers.of_shard(shard_id)
        num_clusters = len(self.offers.clusters.budget)
        digits = count_digits(
            offered.group(num_clusters), offered.bits, self._cuts, SHIFTS[self.level]
        )
        columns = {
            "shard_id": np.full(len(digits.group), shard_id),
            "lap": digits.group // num_clusters,
            "cluster_id": digits.group % num_clusters,
            "digit": digits.digit,
            "count": digits.count,
        }
        return {"score_digits": tables.from_columns("score_digits", columns)}

    def count(self, shard_tables: object) -> dict[str, int]:
        """Count nothing: no image is done."""
        return {"images": 0}


@dataclass(kw_only=True)
class CutClusters(TableJob):
    """Adds up the counts of one pass and narrows every cluster's cut.

    Attributes:
        before: cuts of the pass before; None: the first pass.
    """

    digits: StageDir
    offers: OfferPixels
    before: StageDir | None
    shard_ids: Sequence[int]
    round_index: int
    level: int

    def compute(self) -> Computed:
        """Return table `pool_cuts`; the marker says what is asked for and open."""
        table = self.cut()
        cuts = _cuts_of(table)
        summary = {"asked": int(cuts.take.sum()), "open": int(cuts.is_open.sum())}
        return Computed({("pool_cuts", 0): table}, summary)

    def cut(self) -> pa.Table:
        """Return table `pool_cuts`."""
        clusters = ClusterBudgets.read(self.offers.budgets, self.offers.options)
        num_clusters = len(clusters.budget)
        digits = self._add_up(num_clusters)
        if self.before is None:
            laps = int(digits.group.max(initial=0)) // num_clusters + 1
            available = np.zeros(laps * num_clusters, np.int64)
            np.add.at(available, digits.group, digits.count)
            take = share_laps(
                available.reshape(laps, num_clusters),
                clusters.budget,
                exact_weights(clusters.weights.tolist()),
            )
            cuts = Cuts.start(take.ravel(), available)
        else:
            cuts = read_cuts(self.before)
        cuts = cuts.narrow(digits, SHIFTS[self.level])
        group = np.arange(len(cuts.take))
        tie_shard, ties = self._share_ties(cuts, num_clusters)
        columns = {
            "round": np.full(len(group), self.round_index),
            "lap": group // num_clusters,
            "cluster_id": group % num_clusters,
            **vars(cuts),
            "tie_shard": tie_shard,
            "ties": ties,
        }
        return tables.from_columns("pool_cuts", columns)

    def _add_up(self, num_clusters: int) -> Digits:
        total = Digits.join([])
        every = self._every_shard(num_clusters)
        while parts := list(islice(every, CHUNK)):
            total = Digits.join([total, *parts])
        return total

    def _every_shard(self, num_clusters: int) -> Iterator[Digits]:
        for table in self.digits.each_table("score_digits", self.shard_ids):
            yield self._digits(table, num_clusters)

    def _digits(self, table: pa.Table, num_clusters: int) -> Digits:
        lap, cluster, digit, count = (
            table[name].to_numpy().astype(np.int64)
            for name in ("lap", "cluster_id", "digit", "count")
        )
        return Digits(lap * num_clusters + cluster, digit, count)

    def _share_ties(self, cuts: Cuts, num_clusters: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the shard in which a group's ties run out, and how many of its are taken.

        Equal to the last bit, ties go to the lower image_id, which is to the lower shard.
        """
        tie_shard = np.full(len(cuts.take), -1)
        ties = np.zeros(len(cuts.take), np.int64)
        if SHIFTS[self.level] or not cuts.is_open.any():
            return tie_shard, ties
        left, every = np.where(cuts.is_open, cuts.left, 0), self._every_shard(num_clusters)
        for shard_id, digits in zip(self.shard_ids, every, strict=True):
            tied = (digits.digit == (cuts.lowest & 0xFFFF)[digits.group]) & (left[digits.group] > 0)
            group, count = digits.group[tied], digits.count[tied]
            tie_shard[group] = shard_id
            ties[group] = np.minimum(count, left[group])
            left[group] -= ties[group]
            if not left.any():
                break
        return tie_shard, ties


@dataclass(kw_only=True)
class QueryFromCuts(QueryJob):
    """Queries of one shard from the pool's cuts.

    Attributes:
        is_scored: the network scored the pixels; False: they were drawn, and have no u(x).
    """

    offers: OfferPixels
    cuts: StageDir
    round_index: int
    unit: Unit
    is_scored: bool

    def setup(self) -> None:
        """Load budgets and cuts."""
        self.offers.setup()
        self._cuts = read_cuts(self.cuts)
        ties = self.cuts.read_table("pool_cuts")
        self._tie_shard, self._ties = ties["tie_shard"].to_numpy(), ties["ties"].to_numpy()

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the queries of one shard, ranked within each image by lap and u(s)."""
        offered = self.offers.of_shard(shard_id)
        shard = offered.shard
        taken = np.flatnonzero(self._is_taken(offered, shard_id))
        pixel = offered.pixel()
        place, lap, bits = offered.row[taken], offered.lap[taken], offered.bits[taken]
        parts = []
        for image_id, rows in shard.rows_of.items():
            span = slice(*np.searchsorted(place, [rows.start, rows.stop]))
            order = np.lexsort((shard.superpixel[place[span]], -bits[span], lap[span]))
            chosen = taken[span][order]
            if not len(chosen):
                continue
            superpixels = offered.row[chosen]
            score = pa.array(pixel["top_score"][chosen])
            parts.append(
                query_rows(
                    self.round_index,
                    image_id,
                    self.unit,
                    y=pixel["top_y"][chosen],
                    x=pixel["top_x"][chosen],
                    superpixel_id=shard.superpixel[superpixels],
                    cluster_id=shard.cluster[superpixels],
                    score=score if self.is_scored else pa.nulls(len(chosen), pa.float32()),
                )
            )
        return {"queries": tables.concat("queries", parts)}

    def _is_taken(self, offered: Offered, shard_id: int) -> np.ndarray:
        group = offered.group(len(self.offers.clusters.budget))
        lowest = self._cuts.lowest[group]
        taken = offered.bits > lowest
        tied = offered.bits == lowest
        taken |= tied & (~self._cuts.is_open[group] | (shard_id < self._tie_shard[group]))
        for cut in np.flatnonzero(self._cuts.is_open & (self._tie_shard == shard_id)):
            taken[np.flatnonzero(tied & (group == cut))[: self._ties[cut]]] = True
        return taken


def query_whole_pool(asking: Asking, budgets: StageDir, unit: Unit) -> StageDir:
    """Cut every cluster at its budget over the pool, then query shard by shard: stage `select`."""
    config = asking.config
    offers = OfferPixels(asking.scored, budgets, config.budget, config.strategy)
    return take_offers(asking, offers, unit)


def take_offers(
    asking: Asking,
    offers: OfferPixels,
    unit: Unit,
    *,
    output: str = "select",
    prefix: str = "",
    shard_ids: Sequence[int] | None = None,
    is_scored: bool = True,
) -> StageDir:
    """Take of each cluster as many of the pool's offers as its budget says, the best first.

    Args:
        output: the stage that gets the queries.
        prefix: of the stages before it, `digits_<n>` and `cuts_<n>`.
        shard_ids: shards that offer; None: all of the pool.
        is_scored: offers have a u(x).

    Raises:
        LabelError: the shards did not ask for what the cuts say.
    """
    stages, round_index = asking.stages, asking.round_index
    inputs = digests(offers.score, offers.budgets)
    cuts: StageDir | None = None
    for level in range(len(SHIFTS)):
        before = inputs if cuts is None else inputs | digests(cuts)
        digits = stages.plan(f"{prefix}digits_{level}", {}, before)
        count = CountDigits(output=digits, offers=offers, cuts=cuts, level=level)
        stages.map(count, shard_ids)
        after = stages.plan(f"{prefix}cuts_{level}", {}, before | digests(digits))
        stages.call(
            CutClusters(
                output=after,
                digits=digits,
                offers=offers,
                before=cuts,
                shard_ids=asking.pool.shard_ids if shard_ids is None else shard_ids,
                round_index=round_index,
                level=level,
            )
        )
        cuts = after
        if not cuts.marker().summary["open"]:
            break
    assert cuts is not None
    if is_scored:
        asking.report_further_pixels(cuts.read_table("pool_cuts"))
    queries = stages.plan(output, {}, inputs | digests(cuts))
    job = QueryFromCuts(
        output=queries,
        offers=offers,
        cuts=cuts,
        round_index=round_index,
        unit=unit,
        is_scored=is_scored,
    )
    stages.map(job, shard_ids)
    check_pool_exact(total_of(queries, "asked"), cuts.marker().summary["asked"])
    return queries


def read_cuts(stage: StageDir) -> Cuts:
    """Load table `pool_cuts`."""
    return _cuts_of(stage.read_table("pool_cuts"))


def _cuts_of(table: pa.Table) -> Cuts:
    return Cuts(*(table[name].to_numpy() for name in ("take", "lowest", "inside", "left")))
