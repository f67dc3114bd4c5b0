"""Tables of the page that several runs or networks make up together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from madbal_ray.report.pictures import RunInsight
from madbal_ray.report.ranks import Ranks
from madbal_ray.report.results import Results
from madbal_ray.state.tables import HALF_WIDTH


def flat_metrics(table: pd.DataFrame) -> pd.DataFrame:
    """Return `RunResult.metrics` with a column for every class."""
    classes = pd.DataFrame(table["class_iou"].tolist(), index=table.index)
    classes.columns = [f"iou_class_{index}" for index in classes.columns]
    return pd.concat([table.drop(columns="class_iou"), classes], axis=1)


def estimates(results: Results) -> pd.DataFrame:
    """Return what the last round of every run measured on points, with intervals."""
    rows = []
    for run in results.runs:
        for row in _last_round(run.point_metrics):
            name = row["measure"].replace("_", " ")
            if row["measure"] == "class_iou":
                name = f"IoU {run.class_names[int(row['class_id'])]}"
            rows.append(
                {
                    "member": run.member,
                    "seed": run.seed,
                    "split": row["split"],
                    "measure": {"miou": "mIoU"}.get(name, name),
                    **{column: row[column] for column in ("value", "low", "high", "num_points")},
                    f"points_for_{HALF_WIDTH}": row["points_needed"],
                }
            )
    return pd.DataFrame(rows)


def _last_round(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return rows[rows["round"] == rows["round"].max()].to_dict("records") if len(rows) else []


def comparisons(results: Results, split: str) -> pd.DataFrame:
    """Return the differences from the baseline in mIoU points, with intervals."""
    return pd.DataFrame(
        [
            {
                "member": comparison.first,
                "against": comparison.second,
                "difference_points": 100 * comparison.difference.mean,
                "low": 100 * comparison.difference.low,
                "high": 100 * comparison.difference.high,
                "ahead_in_seeds": f"{comparison.wins} of {comparison.difference.count}",
                "smallest_visible": 100 * comparison.smallest_visible,
                "p_holm": math.nan if comparison.p_value is None else comparison.p_value,
            }
            for comparison in results.comparisons(split)
        ]
    )


def ranked(ranks: Ranks) -> pd.DataFrame:
    """Return one row per member, the best first, and up to which one it cannot be told from."""
    return pd.DataFrame(
        [
            {"member": name, "mean_rank": rank, "alike_up_to": _last_of_others(ranks, name)}
            for name, rank in ranks.mean.items()
        ]
    )


def _last_of_others(ranks: Ranks, name: str) -> str:
    last = ranks.alike(name)[-1]
    return "" if last == name else last


def detections(insights: Mapping[str, RunInsight]) -> pd.DataFrame:
    """Return one row per member: average precision of every signal, chance beside it."""
    rows = []
    for member, insight in insights.items():
        if insight.error_rate is None:
            continue
        row: dict[str, Any] = {
            "member": member,
            "images": insight.num_images,
            "chance": insight.error_rate,
        }
        signals = insight.detection
        row |= dict(zip(signals["signal"], signals["average_precision"], strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def heads(insights: Mapping[str, RunInsight]) -> pd.DataFrame:
    """Return one row per member: pixel accuracy of every head."""
    rows = []
    for member, insight in insights.items():
        heads = insight.head_accuracy
        if len(heads) > 1:
            values = zip(heads["output"], heads["pixel_accuracy"], strict=True)
            rows.append({"member": member} | dict(values))
    return pd.DataFrame(rows)


def protocols(results: Results) -> list[tuple[str, tuple[str, ...]]]:
    """Return the protocols in words: what all share, then what else is each member's own.

    Members with the same words stand together.
    """
    names: dict[tuple[str, ...], list[str]] = {}
    for run in results.runs:
        members = names.setdefault(run.protocol, [])
        if run.member not in members:
            members.append(run.member)
    if len(names) == 1:
        return [(", ".join(members), lines) for lines, members in names.items()]
    shared = tuple(line for line in next(iter(names)) if all(line in lines for lines in names))
    own = [
        (", ".join(members), tuple(line for line in lines if line not in shared))
        for lines, members in names.items()
    ]
    return [("of all", shared), *own] if shared else own


def spent(ledger: pd.DataFrame) -> pd.DataFrame:
    """Return `Results.ledger` as the page shows it: where members have seeds, their means."""
    if not ledger["member"].duplicated().any():
        return ledger
    seeds = ledger.groupby("member", sort=False)["seed"].nunique()
    means = ledger.groupby("member", sort=False).mean().drop(columns="seed")
    counts = [name for name in means.columns if name == "rounds" or name.startswith("num_")]
    means[counts] = means[counts].round().astype(int)
    means.insert(0, "seeds", seeds)
    return means.reset_index()


def cell(value: Any) -> str:
    """Return a value as the page shows it."""
    if isinstance(value, float):
        if math.isnan(value):
            return "–"
        if math.isinf(value):
            return "more" if value > 0 else "fewer"
        return f"{value:.0f}" if value.is_integer() and abs(value) >= 10 else f"{value:.4g}"
    return str(value)
