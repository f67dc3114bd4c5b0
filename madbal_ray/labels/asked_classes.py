"""What was asked, by true class."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from madbal_ray.arrays import IGNORE_INDEX
from madbal_ray.labels.class_map import unpack_class_map

VOID = -1


def asked_classes(labels: pa.Table) -> pd.DataFrame:
    """Count answers by round and class; of a whole image its pixels.

    Args:
        labels: table `labels`, the last revision of each answer; those that say nothing (waiting,
            skipped, unsure) are left out.

    Returns:
        Columns round, class_id (`VOID` for void) and count, ascending.
    """
    columns = ["round", "unit", "status", "class_id", "class_map"]
    answers = labels.select(columns).to_pandas()
    answers = answers[answers["status"].isin(["labelled", "void"])]
    is_image = answers["unit"] == "image"
    points = answers.loc[~is_image, ["round", "class_id"]]
    parts = [points.fillna(VOID).astype(np.int64).assign(count=1)]
    images = answers[is_image]
    for round_index, data in zip(images["round"], images["class_map"], strict=True):
        classes, counts = np.unique(unpack_class_map(data, 1, -1), return_counts=True)
        classes = np.where(classes == IGNORE_INDEX, VOID, classes.astype(np.int64))
        parts.append(pd.DataFrame({"round": round_index, "class_id": classes, "count": counts}))
    return pd.concat(parts).groupby(["round", "class_id"], as_index=False)["count"].sum()
