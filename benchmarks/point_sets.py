"""The points of a run of frozen features, for trials of how a head learns from them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from madbal_ray.labels.labeled_points import read_labeled_points
from madbal_ray.models.network import SegmentationNetwork, build_network
from madbal_ray.runs.run import Run
from madbal_ray.strategies.strategy import resolve
from madbal_ray.training.point_matrix import PointBatchMaker, read_point_matrix

PAIR_DISTANCE = 40
PAIR_SIGMA, COLOUR_SIGMA = 48.0, 0.1
"""Gated CRF (Obukhov et al. 2019): r = 5 and sigma = 6 cells of 8 pixels; colours from 0 to 1."""


class PointSet:
    """The points of a run's first round, features in the same order.

    Attributes:
        code: image and superpixel of each point.
        pairs: rows of neighbours [N, 2].
        likeness: of each pair, 0 to 1.
    """

    pairs: np.ndarray
    likeness: np.ndarray

    def __init__(self, run: Run) -> None:
        self.run, self.pool = run, run.pool()
        self.points = read_labeled_points(self.pool, [run.stage("labels", 0)])
        self.matrix = read_point_matrix(
            self.pool,
            self.points,
            [run.stage("point_features", 0)],
            head_of(run, dropout=0.0, seed=0).backbone.channels,
            memory_gib=run.config.resources.image_cache_gib,
            mirrored=True,
        )
        assert len(self.matrix.class_id) == len(self.points.y)
        self.maker = PointBatchMaker(matrix=self.matrix, seed=0, round_index=0)
        self.code = np.zeros(len(self.points.y), np.int64)
        row_of = {image.image_id: index for index, image in enumerate(self.points.images)}
        for shard_id in self.pool.shard_ids:
            for position, (name, ids) in enumerate(self.pool.label_maps_of(shard_id).items()):
                if name in row_of:
                    rows = self.points.of_image(row_of[name])
                    here = ids[self.points.y[rows], self.points.x[rows]].astype(np.int64)
                    self.code[rows] = (((shard_id << 16) + position) << 32) + here

    def ask(self, network: SegmentationNetwork, rows: np.ndarray, mirror: np.ndarray) -> Tensor:
        """Return the probabilities at points [P, C], for nothing to be learned through."""
        with torch.no_grad():
            taps = self.matrix.taps(rows, mirror)
            return network(taps, supports=False).logits[:, :, 0, 0].softmax(dim=1)

    def find_pairs(self) -> None:
        """Find neighbours of one image and how alike they look."""
        found, likeness = [], []
        for index, image in enumerate(self.points.images):
            rows = self.points.of_image(index)
            where = np.stack([self.points.y[rows], self.points.x[rows]], axis=1).astype(np.float64)
            picture = self.pool.reader.on_working_grid(image).astype(np.float64) / 255
            colour = picture[self.points.y[rows], self.points.x[rows]]
            first, second = np.triu_indices(len(where), 1)
            is_near = np.abs(where[first] - where[second]).max(axis=1) <= PAIR_DISTANCE
            first, second = first[is_near], second[is_near]
            far = ((where[first] - where[second]) ** 2).sum(axis=1) / PAIR_SIGMA**2
            other = ((colour[first] - colour[second]) ** 2).sum(axis=1) / COLOUR_SIGMA**2
            found.append(np.stack([first, second], axis=1) + rows.start)
            likeness.append(np.exp(-(far + other) / 2).astype(np.float32))
        self.pairs, self.likeness = np.concatenate(found), np.concatenate(likeness)


def head_of(run: Run, *, dropout: float, seed: int) -> SegmentationNetwork:
    """Return a network that knows the taps' statistics; its backbone is not used."""
    network = build_network(
        run.config.model.model_copy(update={"dropout": dropout}),
        len(run.class_names),
        weights=None,
        seed=seed,
        supports=resolve(run.config.strategy).supports,
    )
    rows = run.stage("tap_statistics").read_table("tap_statistics").to_pylist()
    assert network.tap_norm is not None
    network.tap_norm.set_statistics(
        *([torch.tensor(row[name]) for row in rows] for name in ("mean", "deviation"))
    )
    return network
