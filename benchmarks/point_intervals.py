"""How often intervals from points cover what whole masks say: ``python -m benchmarks.point_intervals RUN``.

RUN is a finished run with masks on the split. Its last network predicts the split once; then points are
drawn 100 times, and each sample's intervals are compared with the metrics of all pixels.
"""  # noqa: E501

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch.nn import functional as F

from madbal_ray.arrays import IGNORE_INDEX
from madbal_ray.evaluation.metrics import summarize_confusion
from madbal_ray.evaluation.point_estimates import PointEstimates, estimate_from_points
from madbal_ray.models.inputs import stack_inputs
from madbal_ray.models.trained import load_network
from madbal_ray.pool.reader import read_images
from madbal_ray.runs.run import Run, open_run

SAMPLES = 100


def cells_of(run: Run, split: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Return (true * C + predicted, image) of every pixel of a split that is not void, and C."""
    pool, num_classes = run.pool(), len(run.class_names)
    network = load_network(
        run.config.model, num_classes, run.network(run.num_rounds - 1), "none"
    ).eval()
    shards = run.stage("index").marker().summary["shards_of_split"][split]
    images = [image for shard_id in shards for image in read_images(pool.images, shard_id)]
    cells, index = [], []
    for position, image in enumerate(images):
        truth = pool.reader.mask(image)
        with torch.inference_mode():
            inputs = stack_inputs([pool.input_of(image)], torch.device("cpu"))
            logits = network(inputs, supports=False).logits
            full = F.interpolate(logits, truth.shape, mode="bilinear", align_corners=False)
        kept = truth != IGNORE_INDEX
        predicted = full[0].argmax(dim=0).numpy()[kept]
        cells.append(truth[kept].astype(np.int64) * num_classes + predicted)
        index.append(np.full(len(predicted), position))
    return np.concatenate(cells), np.concatenate(index), num_classes


def main() -> None:
    """Print one row for each number of points."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--split", default="val")
    parser.add_argument("--points", type=int, nargs="+", default=[500, 1000, 2400, 5000])
    options = parser.parse_args()
    cells, image, num_classes = cells_of(open_run(options.run), options.split)
    counts = np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)
    true = summarize_confusion(counts)
    print(f"{len(cells)} pixels: mIoU {true.miou:.4f}, pixel accuracy {true.pixel_accuracy:.4f}")
    print("points | mIoU covered, +- | accuracy covered, +- | class IoU covered")
    for count in options.points:
        found = [_sampled(cells, image, num_classes, count, seed) for seed in range(SAMPLES)]
        covered = [
            sum(low <= wanted <= high for low, high in ends)
            for wanted, ends in (
                (true.miou, [(one.miou.low, one.miou.high) for one in found]),
                (
                    true.pixel_accuracy,
                    [(one.pixel_accuracy.low, one.pixel_accuracy.high) for one in found],
                ),
            )
        ]
        classes = np.nanmean(
            [
                [e.low <= v <= e.high for e, v in zip(one.class_iou, true.class_iou, strict=True)]
                for one in found
            ]
        )
        print(
            f"{count} | {covered[0]}, {np.mean([one.miou.half_width for one in found]):.3f} | "
            f"{covered[1]}, {np.mean([one.pixel_accuracy.half_width for one in found]):.3f} | "
            f"{classes:.2f}",
            flush=True,
        )


def _sampled(
    cells: np.ndarray, image: np.ndarray, num_classes: int, count: int, seed: int
) -> PointEstimates:
    generator = np.random.default_rng(seed)
    drawn = generator.choice(len(cells), count, replace=False, shuffle=False)
    truth, predicted = np.divmod(cells[drawn], num_classes)
    return estimate_from_points(
        image[drawn], truth, predicted, num_classes=num_classes, generator=generator
    )


if __name__ == "__main__":
    main()
