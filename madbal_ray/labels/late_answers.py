"""What became of earlier rounds' queries: rows of table `labels` with a higher revision."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa

from madbal_ray.labels.answer_rows import IDENTITY
from madbal_ray.labels.ledger import WAITING, latest_revisions
from madbal_ray.state import tables

QUERY = list(IDENTITY)


def late_rows(earlier: Sequence[pa.Table], late: pa.Table, *, oracle_name: str) -> pa.Table:
    """Return rows of table `labels` for answers to queries of earlier rounds.

    They keep the round that asked. A pixel that an earlier row has paid for is not counted again
    (`num_pixels` 0), the click is; `seconds` are those that came on top.

    Args:
        earlier: tables `labels` of the rounds before.
        late: table `answers`.
    """
    if not late.num_rows:
        return tables.empty("labels")
    rows = pa.concat_tables(earlier)
    before = latest_revisions(rows).to_pandas().set_index(QUERY)
    everything = rows.to_pandas()
    paid = set(everything.loc[everything["status"] != WAITING, QUERY].itertuples(index=False))
    spent = everything.groupby(QUERY)["seconds"].sum()
    found = []
    for answer in late.to_pylist():
        query = tuple(answer[name] for name in QUERY)
        row = dict(zip(QUERY, query, strict=True)) | before.loc[query].to_dict()
        seconds = answer["seconds"]
        found.append(
            row
            | {name: answer[name] for name in ("class_id", "status", "annotator", "revision")}
            | {
                "num_pixels": 0 if query in paid else row["num_pixels"],
                "superpixel_id": _whole(row["superpixel_id"]),
                "class_map": None,
                "oracle": oracle_name,
                "seconds": None if seconds is None else seconds - float(spent[query]),
            }
        )
    return tables.from_rows("labels", found)


def _whole(value: float | None) -> int | None:
    return None if pd.isna(value) else int(value)
