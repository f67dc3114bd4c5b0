"""A map of a pool's superpixels: alike ones lie together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from sklearn.decomposition import PCA

from madbal_ray import rng
from madbal_ray.arrays import LabelMap
from madbal_ray.pool.clusters.feature_rows import read_features
from madbal_ray.runs.run import Run

NUM_POINTS = 2000
MAX_SHARDS = 8
"""Shards whose features are read; a large pool has many, of 512 images each."""


def superpixel_map(
    run: Run,
    images: Mapping[str, int],
    errors: Mapping[str, tuple[LabelMap, np.ndarray, np.ndarray]],
) -> pd.DataFrame:
    """Return where superpixels lie in the plane of their features' first two components.

    The plane and the points are those of a seeded sample, the same for every run of one pool.

    Args:
        images: image_id -> shard_id of the images that superpixels are drawn from.
        errors: image_id -> label map, which pixels count [H, W], which of them are wrong [H, W].

    Returns:
        x, y, image_id, superpixel_id, cluster_id, asked_in_round (of the first query; NaN: never),
        error (share of wrong pixels, NaN: not known).
    """
    shards = sorted(set(images.values()))[:: max(1, -(-len(set(images.values())) // MAX_SHARDS))]
    drawn = _sample(run, images, shards)
    features = np.concatenate([part.pop("feature") for part in drawn])
    rows = pd.concat([pd.DataFrame(part) for part in drawn], ignore_index=True)
    chosen = np.arange(len(rows))
    if len(rows) > NUM_POINTS:
        generator = rng.stream(run.config.clustering.seed, "superpixel_map")
        chosen = np.sort(generator.choice(len(rows), NUM_POINTS, replace=False))
    rows, features = rows.iloc[chosen].reset_index(drop=True), features[chosen].astype(np.float32)
    plane = PCA(n_components=min(2, *features.shape), svd_solver="full").fit(features)
    places = np.zeros((len(rows), 2))
    places[:, : plane.n_components_] = plane.transform(features)
    rows["x"], rows["y"] = places.T
    rows["asked_in_round"] = _asked(run, rows, shards)
    rows["error"] = _errors(rows, errors)
    return rows


def _sample(
    run: Run, images: Mapping[str, int], shards: Sequence[int]
) -> list[dict[str, np.ndarray]]:
    parts = []
    for shard_id in shards:
        clusters = run.stage("superpixel_clusters").read_table("superpixel_clusters", [shard_id])
        is_of = np.isin(clusters["image_id"].to_numpy(zero_copy_only=False), list(images))
        part = {
            name: clusters[name].to_numpy(zero_copy_only=False)[is_of]
            for name in ("image_id", "superpixel_id", "cluster_id")
        }
        # Both tables have a row per superpixel, in the same order.
        part["feature"] = read_features(run.stage("superpixel_features"), shard_id)[is_of]
        parts.append(part)
    return parts


def _asked(run: Run, rows: pd.DataFrame, shards: Sequence[int]) -> np.ndarray:
    keys = ["image_id", "superpixel_id"]
    parts = []
    for round_index in range(run.num_rounds):
        table = run.stage("select", round_index).read_table("queries", list(shards))
        table = table.filter(pc.field("superpixel_id").is_valid()).select(keys)
        parts.append(table.to_pandas().assign(asked_in_round=float(round_index)))
    first = pd.concat(parts).drop_duplicates(keys)  # the earliest: rounds are in order
    return rows[keys].merge(first, on=keys, how="left")["asked_in_round"].to_numpy(float)


def _errors(
    rows: pd.DataFrame, errors: Mapping[str, tuple[LabelMap, np.ndarray, np.ndarray]]
) -> np.ndarray:
    shares = np.full(len(rows), np.nan)
    for image_id, part in rows.groupby("image_id"):
        if image_id not in errors:
            continue
        label_map, counts, wrong = errors[str(image_id)]
        size = int(label_map.max()) + 1
        seen = np.bincount(label_map[counts], minlength=size)
        bad = np.bincount(label_map[counts & wrong], minlength=size)
        superpixel = part["superpixel_id"].to_numpy()
        with np.errstate(invalid="ignore"):  # no pixel counts: not known
            shares[part.index] = bad[superpixel] / seen[superpixel]
    return shares
