"""Which pixels of a shard were asked, whatever the unit of the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from madbal_ray.arrays import BoolMap, LabelMap
from madbal_ray.pool.reader import PoolImage, split_by_image
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import IN_FLIGHT

COLUMNS = ["image_id", "y", "x", "unit", "superpixel_id"]


class AskedPixels:
    """Answers of a shard, expanded to pixels.

    Args:
        labels: label stages of all rounds so far, and queries that are never trained on.
        label_maps: of the shard's images.
    """

    def __init__(
        self, labels: Sequence[StageDir], shard_id: int, label_maps: Mapping[str, LabelMap]
    ) -> None:
        self.label_maps = label_maps

        def read(stage: StageDir) -> pa.Table:
            return stage.read_table(_table(stage), [shard_id], columns=COLUMNS)

        far = [stage for stage in labels if not stage.folder.is_local]
        threads = IN_FLIGHT if far else 1  # a run of many rounds has many of them
        parts = list(map_ahead(read, labels, threads=threads, ahead=threads))
        self.rows: dict[str, slice] = {}
        if parts:
            table = pa.concat_tables(parts).sort_by([("image_id", "ascending")])
            self.rows = split_by_image(table)
            self.y, self.x = table["y"].to_numpy(), table["x"].to_numpy()
            self.unit = table["unit"].to_numpy()
            self.superpixel = table["superpixel_id"].to_numpy()

    def superpixels_of(self, image_id: str) -> np.ndarray:
        """Return the superpixel of each pixel that was asked in an image, ascending.

        An answer that came late, or was changed, is another row of the same pixel.
        """
        rows = self.rows.get(image_id)
        if rows is None:
            return np.zeros(0, np.int64)
        pixels = np.stack([self.y[rows], self.x[rows]])
        _, first = np.unique(pixels, axis=1, return_index=True)
        return np.sort(self.superpixel[rows][first])

    def map_of(self, image: PoolImage) -> BoolMap:
        """Return which working-grid pixels of an image were asked."""
        asked = np.zeros((image.work_height, image.work_width), bool)
        rows = self.rows.get(image.image_id)
        if rows is None:
            return asked
        unit = self.unit[rows]
        if (unit == "image").any():
            return ~asked
        asked[self.y[rows], self.x[rows]] = True
        regions = unit == "superpixel"
        if regions.any():
            label_map = self.label_maps[image.image_id]
            asked |= np.isin(label_map, self.superpixel[rows][regions].astype(label_map.dtype))
        return asked


def asked_images(labels: Sequence[StageDir], shard_ids: Sequence[int]) -> tuple[set[str], set[str]]:
    """Return the images with any answer, and those that were asked as a whole.

    Args:
        labels: label stages of all rounds so far.
    """
    some: set[str] = set()
    whole: set[str] = set()
    for stage in labels:
        table = stage.read_table("labels", list(shard_ids), columns=["image_id", "unit"])
        is_whole = pa.array(table["unit"].to_numpy() == "image")
        some.update(table["image_id"].unique().to_pylist())
        whole.update(table.filter(is_whole)["image_id"].unique().to_pylist())
    return some, whole


def _table(stage: StageDir) -> str:
    return "queries" if stage.stage == "evaluation_points" else "labels"
