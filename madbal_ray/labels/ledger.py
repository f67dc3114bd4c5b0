"""What was paid for: asked pixels by round, asserted against the label store."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa

from madbal_ray.errors import LabelError

PIXEL = ["image_id", "y", "x"]


@dataclass(frozen=True)
class Ledger:
    """Totals up to and including one round.

    Attributes:
        num_images: images of the pool, quarantined ones not counted (N).
        num_pixels: pixels of all working grids of the pool.
        num_asked: asked pixels, void ones included; each is one click.
        num_void: those that were void.
    """

    num_images: int
    num_pixels: int
    num_asked: int = 0
    num_void: int = 0

    @property
    def per_image(self) -> float:
        """Return asked pixels per pool image."""
        return self.num_asked / self.num_images

    @property
    def percent(self) -> float:
        """Return asked pixels in percent of all working-grid pixels."""
        return 100.0 * self.num_asked / self.num_pixels

    def add_round(self, *, num_queries: int, num_labels: int, num_void: int) -> Ledger:
        """Return the ledger after one round.

        Raises:
            LabelError: there is not exactly one label for each query.
        """
        if num_queries != num_labels:
            raise LabelError(
                f"{num_queries} pixels were asked for and {num_labels} were answered; the label "
                "store is damaged: run `madbal verify`"
            )
        return replace(
            self, num_asked=self.num_asked + num_labels, num_void=self.num_void + num_void
        )


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
    """Assert that no pixel of `new` was asked before.

    Raises:
        LabelError: naming the first pixel asked again.
    """
    if not new.num_rows or not known.num_rows:
        return
    again = _pixels(new).merge(_pixels(known))
    if len(again):
        raise LabelError(f"{len(again)} pixels would be asked twice, the first is {_first(again)}")


def latest_revisions(labels: pa.Table) -> pa.Table:
    """Keep, for each pixel, the row with the highest revision."""
    if not labels["revision"].to_numpy().any():
        return labels
    frame = labels.select([*PIXEL, "revision"]).to_pandas()
    last = frame.sort_values("revision", kind="stable").drop_duplicates(PIXEL, keep="last").index
    return labels.take(pa.array(np.sort(last.to_numpy())))


def _pixels(table: pa.Table) -> pd.DataFrame:
    return table.select(PIXEL).to_pandas()


def _first(pixels: pd.DataFrame) -> str:
    row = pixels.sort_values(PIXEL).iloc[0]
    return f"{row['image_id']} y={row['y']} x={row['x']}"
