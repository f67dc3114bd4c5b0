"""Looking into a finished run: what its networks saw, doubted and got wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import torch
from sklearn.metrics import average_precision_score

from madbal_ray.arrays import IGNORE_INDEX, BoolMap, LabelMap, Mask
from madbal_ray.labels.asked_pixels import AskedPixels
from madbal_ray.pool.prepared import read_clusters
from madbal_ray.pool.reader import PoolImage, pool_images, read_images, read_label_maps
from madbal_ray.pool.superpixels.patches import crop_patches
from madbal_ray.report.pictures import ClusterGallery, RunInsight
from madbal_ray.runs.image_stories import Candidate, Networks, accuracies, choose, tell_stories
from madbal_ray.runs.run import Run
from madbal_ray.runs.superpixel_map import superpixel_map
from madbal_ray.scoring.explain_image import Explanation

NUM_MEASURED = 48
CANDIDATE_STEP = 2
"""Of the measured images every second one may be shown: each costs two more passes."""

NUM_PATCHES = 14
PATCH_SIZE = 32


def look_inside(
    run: Run,
    *,
    device: str,
    num_images: int,
    chosen: Mapping[str, str] | None = None,
) -> RunInsight | None:
    """Run the network that asked last over some images of the pool, and all networks over a few.

    Args:
        num_images: that are shown through the rounds.
        chosen: image_id -> why it is shown, as another run of this pool chose; None: this run
            chooses, and maps the pool's superpixels.

    Returns:
        None for a run of one round: nothing was asked by a network.

    Raises:
        DataError: the data set is no longer where the run found it.
    """
    if run.num_rounds < 2:
        return None
    images = None if chosen is None else _images(run, chosen)
    return _Inspector(run, torch.device(device)).look(num_images, images)


class _Inspector:
    def __init__(self, run: Run, device: torch.device) -> None:
        self.run, self.round_index = run, run.num_rounds - 2
        self.networks = Networks(run, device)
        self.pool = self.networks.pool
        self._errors: list[np.ndarray] = []
        self._signals: dict[str, list[np.ndarray]] = {}
        self._right: dict[str, list[np.ndarray]] = {}
        self._wrong: dict[str, tuple[LabelMap, np.ndarray, np.ndarray]] = {}

    def look(self, num_images: int, chosen: Sequence[tuple[PoolImage, str]] | None) -> RunInsight:
        measured = self.run.pool_sample(NUM_MEASURED)
        for shard_id in sorted({shard for shard, _ in measured}):
            asked = self._asked(shard_id)
            for image in (image for shard, image in measured if shard == shard_id):
                explanation = self._explain(self.round_index, image)
                truth = self._truth(image)
                if truth is not None:
                    counts = ~asked.map_of(image) & (truth != IGNORE_INDEX)
                    self._measure(explanation, truth, counts)
                    wrong = _prediction(explanation) != truth
                    label_map = asked.label_maps[image.image_id]
                    self._wrong[image.image_id] = (label_map, counts, wrong)
        superpixels = pd.DataFrame()
        if chosen is None:
            chosen = choose(self._candidates([image for _, image in measured]), num_images)
            shards = {image.image_id: shard for shard, image in measured}
            superpixels = superpixel_map(self.run, shards, self._wrong)
        return replace(self._insight(chosen), superpixels=superpixels)

    def _asked(self, shard_id: int) -> AskedPixels:
        labels = [self.run.stage("labels", i) for i in range(self.round_index + 1)]
        return AskedPixels(labels, shard_id, _label_maps(self.run, shard_id))

    def _explain(self, round_index: int, image: PoolImage) -> Explanation:
        return self.networks.explain(round_index, *self.pool.input_and_boundary(image))

    def _truth(self, image: PoolImage) -> Mask | None:
        return None if image.mask_uri is None else self.pool.reader.mask_on_working_grid(image)

    def _candidates(self, measured: Sequence[PoolImage]) -> list[Candidate]:
        """Compare the first and the last network on images that may be shown."""
        images = measured[:: CANDIDATE_STEP if len(measured) == NUM_MEASURED else 1]
        first = [_prediction(self._explain(0, image)) for image in images]
        candidates = []
        for image, before in zip(images, first, strict=True):
            explanation, truth = self._explain(self.round_index + 1, image), self._truth(image)
            score = explanation.signals[self.networks.score_name(explanation)].numpy()
            counts: BoolMap | None = None if truth is None else truth != IGNORE_INDEX
            found = accuracies(before, _prediction(explanation), score, truth, counts)
            candidates.append(
                Candidate(image, found["gained"], found["wrong"], has_truth=truth is not None)
            )
        return candidates

    def _measure(self, explanation: Explanation, truth: np.ndarray, counts: np.ndarray) -> None:
        self._errors.append(explanation.predictions["final"].numpy()[counts] != truth[counts])
        for name, signal in explanation.signals.items():
            self._signals.setdefault(name, []).append(signal.numpy()[counts])
        for name, prediction in explanation.predictions.items():
            right = prediction.numpy()[counts] == truth[counts]
            self._right.setdefault(name, []).append(right)

    def _insight(self, chosen: Sequence[tuple[PoolImage, str]]) -> RunInsight:
        stories = tell_stories(self.run, chosen, self.networks)
        errors = np.concatenate([np.zeros(0, bool), *self._errors])
        if not errors.any() or errors.all():  # no mask, nothing left to measure, or no contrast
            return RunInsight(self.round_index, stories)
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
            stories,
            pd.DataFrame(rows),
            rate,
            pd.DataFrame(heads),
            len(self._errors),
        )


def _prediction(explanation: Explanation) -> Mask:
    return explanation.predictions["final"].numpy().astype(np.uint8)


def _images(run: Run, chosen: Mapping[str, str]) -> list[tuple[PoolImage, str]]:
    table = run.table("images").filter(pc.field("image_id").isin(list(chosen)))
    by_id = {image.image_id: image for image in pool_images(table)}
    return [(by_id[image_id], reason) for image_id, reason in chosen.items()]


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
