"""Looking into a finished run: what its last asking network saw, doubted and got wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import average_precision_score

from madbal_ray.arrays import IGNORE_INDEX, LabelMap, RGBImage
from madbal_ray.labels.asked_pixels import AskedPixels
from madbal_ray.models.trained import load_network
from madbal_ray.pool.prepared import read_clusters
from madbal_ray.pool.reader import PoolImage, read_images, read_label_maps
from madbal_ray.pool.superpixels.patches import crop_patches
from madbal_ray.report.pictures import ClusterGallery, QueryPicture, RunInsight
from madbal_ray.runs.run import Run
from madbal_ray.scoring.explain_image import Explanation, explain_image
from madbal_ray.scoring.registry import ScoreOptions
from madbal_ray.strategies.strategy import resolve

NUM_PICTURES = 3
NUM_MEASURED = 48
NUM_PATCHES = 14
PATCH_SIZE = 32


def look_inside(run: Run, *, device: str, round_index: int | None = None) -> RunInsight | None:
    """Run a network that asked over some images of the pool.

    Args:
        round_index: of the network; None: the one that asked last.

    Returns:
        None for a run of one round: nothing was asked by a network.

    Raises:
        DataError: the data set is no longer where the run found it.
    """
    last = run.num_rounds - 2
    round_index = last if round_index is None else round_index
    if not 0 <= round_index <= last:
        return None
    return _Inspector(run, round_index, torch.device(device)).look()


class _Inspector:
    def __init__(self, run: Run, round_index: int, device: torch.device) -> None:
        self.run, self.round_index, self.device = run, round_index, device
        config = run.config
        self.supports = resolve(config.strategy).supports
        self.reader = run.reader()
        self.network = load_network(
            config.model, len(run.class_names), run.network(round_index), self.supports
        ).to(device)
        self.network.set_phase("eval")
        self.options = ScoreOptions(config.strategy.normalize_terms, config.strategy.uncertainty)
        queries = run.table("queries", round_index + 1).to_pandas()
        self.queries = dict(iter(queries.groupby("image_id")))
        self._errors: list[np.ndarray] = []
        self._signals: dict[str, list[np.ndarray]] = {}
        self._right: dict[str, list[np.ndarray]] = {}

    def look(self) -> RunInsight:
        measured = self.run.pool_sample(NUM_MEASURED)
        step = max(1, len(measured) // NUM_PICTURES)
        shown = {image.image_id for _, image in measured[::step][:NUM_PICTURES]}
        pictures = []
        for shard_id in sorted({shard for shard, _ in measured}):
            images = [image for shard, image in measured if shard == shard_id]
            label_maps = read_label_maps(
                self.run.stage("superpixels"),
                shard_id,
                read_images(self.run.stage("images"), shard_id),
            )
            labels = [self.run.stage("labels", i) for i in range(self.round_index + 1)]
            asked = AskedPixels(labels, shard_id, label_maps)
            for image in images:
                picture = self._one(image, asked.map_of(image))
                if image.image_id in shown:
                    pictures.append(picture)
        return self._insight(pictures)

    def _one(self, image: PoolImage, is_asked: np.ndarray) -> QueryPicture:
        input_image, work_image = self.reader.on_both_grids(image)
        explanation = explain_image(
            self.network, input_image, work_image, options=self.options, device=self.device
        )
        truth = None if image.mask_uri is None else self.reader.mask_on_working_grid(image)
        if truth is not None:
            self._measure(explanation, truth, ~is_asked & (truth != IGNORE_INDEX))
        return self._picture(image, work_image, explanation, truth)

    def _measure(self, explanation: Explanation, truth: np.ndarray, counts: np.ndarray) -> None:
        self._errors.append(explanation.predictions["final"].numpy()[counts] != truth[counts])
        for name, signal in explanation.signals.items():
            self._signals.setdefault(name, []).append(signal.numpy()[counts])
        for name, prediction in explanation.predictions.items():
            right = prediction.numpy()[counts] == truth[counts]
            self._right.setdefault(name, []).append(right)

    def _picture(
        self,
        image: PoolImage,
        work_image: RGBImage,
        explanation: Explanation,
        truth: np.ndarray | None,
    ) -> QueryPicture:
        rows = self.queries.get(image.image_id, pd.DataFrame({"y": [], "x": []}))
        name = "score" if "score" in explanation.signals else "entropy"
        if resolve(self.run.config.strategy).pixel_score in explanation.signals:
            name = str(resolve(self.run.config.strategy).pixel_score)
        return QueryPicture(
            image.image_id,
            work_image,
            explanation.predictions["final"].numpy().astype(np.uint8),
            explanation.signals[name].numpy(),
            name,
            truth,
            rows["y"].to_numpy(),
            rows["x"].to_numpy(),
        )

    def _insight(self, pictures: list[QueryPicture]) -> RunInsight:
        errors = np.concatenate([np.zeros(0, bool), *self._errors])
        if not errors.any() or errors.all():  # no mask, nothing left to measure, or no contrast
            return RunInsight(self.round_index, pictures)
        rate = float(errors.mean())
        rows = []
        for name, parts in self._signals.items():
            precision = float(average_precision_score(errors, np.concatenate(parts)))
            rows.append({"signal": name, "average_precision": precision, "lift": precision / rate})
        heads = [
            {"output": name, "pixel_accuracy": float(np.concatenate(parts).mean())}
            for name, parts in self._right.items()
        ]
        return RunInsight(
            self.round_index,
            pictures,
            pd.DataFrame(rows),
            rate,
            pd.DataFrame(heads),
            len(self._errors),
        )


def cluster_galleries(run: Run) -> list[ClusterGallery]:
    """Return some superpixels of every cluster, from images spread over the pool."""
    reader = run.reader()
    patches: dict[int, list[np.ndarray]] = {}
    chosen = run.pool_sample(NUM_PATCHES)
    for shard_id in sorted({shard for shard, _ in chosen}):
        label_maps = _label_maps(run, shard_id)
        clusters = read_clusters(run.stage("superpixel_clusters"), shard_id)
        for image in (image for shard, image in chosen if shard == shard_id):
            cluster_id = clusters[image.image_id]
            cut = crop_patches(
                reader.on_working_grid(image),
                label_maps[image.image_id],
                num_superpixels=len(cluster_id),
                size=PATCH_SIZE,
            )
            for cluster in np.unique(cluster_id).tolist():
                members = np.flatnonzero(cluster_id == cluster)
                patches.setdefault(cluster, []).append(cut[members[len(members) // 2]])
    return [ClusterGallery(cluster, np.stack(patches[cluster])) for cluster in sorted(patches)]


def _label_maps(run: Run, shard_id: int) -> dict[str, LabelMap]:
    in_shard = read_images(run.stage("images"), shard_id)
    return read_label_maps(run.stage("superpixels"), shard_id, in_shard)
