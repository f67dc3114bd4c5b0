"""What was paid for: asked pixels by round, asserted against the label store."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa

from madbal_ray.errors import LabelError

PIXEL = ["image_id", "y", "x"]
WAITING = "waiting"
"""Status of a query that a round went on without; it has cost nothing yet."""


@dataclass(frozen=True)
class Cost:
    """What answers cost, on every axis.

    Attributes:
        pixels: working-grid pixels that were asked for, void ones included.
        regions: answers, whatever they cover.
        clicks: one for a pixel or a superpixel, as many as pixels for a whole image.
        void: clicks that were answered void.
    """

    pixels: int = 0
    regions: int = 0
    clicks: int = 0
    void: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Add two costs."""
        return Cost(
            self.pixels + other.pixels,
            self.regions + other.regions,
            self.clicks + other.clicks,
            self.void + other.void,
        )


def cost_of(labels: pa.Table) -> Cost:
    """Return what the answers of a label table cost."""
    labels = labels.filter(pa.array(labels["status"].to_numpy() != WAITING))
    pixels = labels["num_pixels"].to_numpy().astype(np.int64)
    clicks = np.where(labels["unit"].to_numpy() == "image", pixels, 1)
    void = labels["status"].to_numpy() == "void"
    return Cost(int(pixels.sum()), labels.num_rows, int(clicks.sum()), int(clicks[void].sum()))


def minutes_of_people(labels: pa.Table) -> float | None:
    """Return the minutes that people spent on the answers of a label table; None: none is known.

    A query's latest row has the time of all that was said to it, so that earlier ones do not count.
    """
    seconds = latest_revisions(labels)["seconds"].drop_null().to_numpy()
    return float(seconds.sum()) / 60 if len(seconds) else None


@dataclass(frozen=True)
class Ledger:
    """Totals up to and including one round.

    Attributes:
        num_images: images of the pool, quarantined ones not counted (N).
        num_pixels: pixels of all working grids of the pool.
        spent: what all answers cost.
    """

    num_images: int
    num_pixels: int
    spent: Cost = Cost()

    @property
    def pixels_per_image(self) -> float:
        """Return asked pixels per pool image."""
        return self.spent.pixels / self.num_images

    @property
    def clicks_per_image(self) -> float:
        """Return clicks per pool image."""
        return self.spent.clicks / self.num_images

    @property
    def percent(self) -> float:
        """Return asked pixels in percent of all working-grid pixels."""
        return 100.0 * self.spent.pixels / self.num_pixels

    def add_round(
        self, *, num_queries: int, answers: Cost, waiting: int = 0, late: int = 0
    ) -> Ledger:
        """Return the ledger after one round.

        Args:
            waiting: queries that the round went on without.
            late: of the answers, those to queries of earlier rounds.

        Raises:
            LabelError: there is not exactly one label for each query, or more pixels were
                asked for than there are.
        """
        answered = answers.regions - late + waiting
        if num_queries != answered:
            raise LabelError(
                f"{num_queries} queries were asked and {answered} answered; the label "
                "store is damaged: run `madbal verify`"
            )
        spent = self.spent + answers
        if spent.pixels > self.num_pixels:
            raise LabelError(
                f"{spent.pixels} pixels were asked for in all, the pool has {self.num_pixels}; "
                "something was asked twice: run `madbal verify`"
            )
        return replace(self, spent=spent)


def of_round(labels: pa.Table, round_index: int) -> pa.Table:
    """Return the answers to a round's own queries: not those that came late to earlier ones."""
    return labels.filter(pa.array(labels["round"].to_numpy() == round_index))


def check_answers(queries: pa.Table, labels: pa.Table) -> None:
    """Assert that labels answer the queries: the same pixels, each once.

    Raises:
        LabelError: naming the first image that differs.
    """
    if not queries.num_rows and not labels.num_rows:
        return
    asked, answered = _pixels(queries), _pixels(labels)
    for name, pixels in (("queries", asked), ("labels", answered)):
        twice = pixels[pixels.duplicated()]
        if len(twice):
            raise LabelError(f"{name} hold a pixel twice: {_first(twice)}")
    both = asked.merge(answered, how="outer", indicator=True)
    odd = both[both["_merge"] != "both"]
    if len(odd):
        raise LabelError(
            f"{len(odd)} pixels are in only one of queries ({len(asked)}) and labels "
            f"({len(answered)}), the first is {_first(odd)}"
        )


def check_disjoint(new: pa.Table, known: pa.Table) -> None:
    """Assert that nothing in `new` was asked before in the same unit.

    That regions do not overlap follows from the asked map they are cut from.

    Raises:
        LabelError: naming the first pixel asked again.
    """
    if not new.num_rows or not known.num_rows:
        return
    keys = [*PIXEL, "unit"]
    again = new.select(keys).to_pandas().merge(known.select(keys).to_pandas())
    if len(again):
        raise LabelError(f"{len(again)} pixels would be asked twice, the first is {_first(again)}")


def latest_revisions(labels: pa.Table) -> pa.Table:
    """Keep, for each query (a pixel and its unit), the row with the highest revision."""
    if not labels["revision"].to_numpy().any():
        return labels
    query = [*PIXEL, "unit"]
    frame = labels.select([*query, "revision"]).to_pandas()
    last = frame.sort_values("revision", kind="stable").drop_duplicates(query, keep="last").index
    return labels.take(pa.array(np.sort(last.to_numpy())))


def _pixels(table: pa.Table) -> pd.DataFrame:
    return table.select(PIXEL).to_pandas()


def _first(pixels: pd.DataFrame) -> str:
    row = pixels.sort_values(PIXEL).iloc[0]
    return f"{row['image_id']} y={row['y']} x={row['x']}"
