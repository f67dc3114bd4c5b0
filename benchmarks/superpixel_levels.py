"""What a level of SEEDS costs and brings, on CamVid: time, achievable accuracy, boundaries.

Command: ``python -m benchmarks.superpixel_levels ../shared/data/camvid``.
"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np

from madbal_ray.arrays import IGNORE_INDEX
from madbal_ray.config.data import DataConfig
from madbal_ray.data.dataset import mask_lookup
from madbal_ray.data.registry import open_dataset
from madbal_ray.pool.superpixels.seeds import segment_seeds
from madbal_ray.state.storage import Folder
from madbal_ray.vision.decode import decode_image, decode_mask, resize_image, resize_mask

SIZES = ((192, 256), (368, 480))
"""Sizes that blocks of 16 fit, where every number of levels finds the same count."""


def main() -> None:
    """Print a row per size and number of levels."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("root")
    parser.add_argument("--images", type=int, default=20)
    options = parser.parse_args()
    root = Folder(options.root)
    data = DataConfig(name="camvid", root=options.root)
    dataset = open_dataset(data, root)
    lookup = mask_lookup(dataset.mask_values)
    records = dataset.of_split("train")
    for height, width in SIZES:
        rows: dict[int, list[tuple[float, ...]]] = {level: [] for level in range(1, 6)}
        for record in records[:: len(records) // options.images][: options.images]:
            limit = data.max_pixels
            image = decode_image(root.read(record.image_uri), max_pixels=limit)
            assert record.mask_uri is not None
            mask = decode_mask(root.read(record.mask_uri), lookup, max_pixels=limit)
            image, mask = resize_image(image, height, width), resize_mask(mask, height, width)
            for level, found in rows.items():
                started = time.process_time()
                labels = segment_seeds(
                    image, num_superpixels=height * width // 256, max_levels=level
                )
                seconds = time.process_time() - started
                found.append((*_quality(labels.astype(np.int64), mask), 1000 * seconds))
        for level, found in rows.items():
            accuracy, recall, milliseconds = np.mean(found, axis=0)
            print(
                f"{height} x {width}, levels {level}: achievable pixel accuracy {accuracy:.4f}, "
                f"boundary recall {recall:.3f}, {milliseconds:.0f} ms of CPU an image"
            )


def _quality(labels: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Return the accuracy of the best class per superpixel, and class borders found within 1 px."""
    known = mask != IGNORE_INDEX
    counts = np.zeros((labels.max() + 1, 256))
    np.add.at(counts, (labels[known], mask[known]), 1)
    borders = _edges(mask) & known
    near = cv2.dilate(_edges(labels).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return counts.max(axis=1).sum() / known.sum(), (borders & near).sum() / max(borders.sum(), 1)


def _edges(values: np.ndarray) -> np.ndarray:
    found = np.zeros(values.shape, bool)
    found[:, 1:] |= values[:, 1:] != values[:, :-1]
    found[1:] |= values[1:] != values[:-1]
    return found


if __name__ == "__main__":
    main()
