"""What a level of SEEDS, and SLIC, cost and bring on CamVid: time, achievable accuracy, borders.

Command: ``python -m benchmarks.superpixel_levels ../shared/data/camvid``.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import cv2
import numpy as np

from madbal_ray.arrays import IGNORE_INDEX
from madbal_ray.config.data import DataConfig
from madbal_ray.data.dataset import mask_lookup
from madbal_ray.data.registry import open_dataset
from madbal_ray.pool.superpixels.seeds import segment_seeds
from madbal_ray.pool.superpixels.slic import segment_slic
from madbal_ray.state.storage import Folder
from madbal_ray.vision.decode import decode_image, decode_mask, resize_image, resize_mask

SIZES = ((256, 512), (368, 480), (360, 480))
"""Blocks of 16 fit the first two, where every number of levels finds the same count."""

METHODS = {
    **{f"SEEDS, levels {level}": partial(segment_seeds, max_levels=level) for level in range(1, 6)},
    "SLIC": segment_slic,
}


def main() -> None:
    """Print a row per size and method."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("root")
    parser.add_argument("--images", type=int, default=20)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    segment_slic(np.zeros((32, 32, 3), np.uint8), num_superpixels=4)  # compiled now, not timed
    root = Folder(options.root)
    data = DataConfig(name="camvid", root=options.root)
    dataset = open_dataset(data, root)
    lookup = mask_lookup(dataset.mask_values)
    records = dataset.of_split("val")
    for height, width in SIZES:
        rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in METHODS}
        for record in records[:: len(records) // options.images][: options.images]:
            limit = data.max_pixels
            image = decode_image(root.read(record.image_uri), max_pixels=limit)
            assert record.mask_uri is not None
            mask = decode_mask(root.read(record.mask_uri), lookup, max_pixels=limit)
            image, mask = resize_image(image, height, width), resize_mask(mask, height, width)
            for name, found in rows.items():
                started = time.process_time()
                labels = METHODS[name](image, num_superpixels=height * width // 256)
                seconds = time.process_time() - started
                found.append((*_quality(labels.astype(np.int64), mask), 1000 * seconds))
        for name, found in rows.items():
            accuracy, error, recall, count, milliseconds = np.mean(found, axis=0)
            print(
                f"{height} x {width}, {name}: achievable pixel accuracy {accuracy:.4f}, "
                f"undersegmentation {error:.4f}, boundary recall {recall:.3f}, {count:.0f} "
                f"superpixels, {milliseconds:.1f} ms of CPU an image"
            )


def _quality(labels: np.ndarray, mask: np.ndarray) -> tuple[float, ...]:
    """Return how well superpixels fit a mask.

    Returns:
        The accuracy of the best class per superpixel; the undersegmentation error of Neubert and
        Protzel 2012 (pixels that leak out of, or into, a class, whichever is less); class borders
        found within 1 px; the number of superpixels.
    """
    known = mask != IGNORE_INDEX
    counts = np.zeros((labels.max() + 1, 256))
    np.add.at(counts, (labels[known], mask[known]), 1)
    leaks = np.minimum(counts, counts.sum(axis=1, keepdims=True) - counts).sum()
    borders = _edges(mask) & known
    near = cv2.dilate(_edges(labels).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return (
        counts.max(axis=1).sum() / known.sum(),
        leaks / known.sum(),
        (borders & near).sum() / max(borders.sum(), 1),
        len(counts),
    )


def _edges(values: np.ndarray) -> np.ndarray:
    found = np.zeros(values.shape, bool)
    found[:, 1:] |= values[:, 1:] != values[:, :-1]
    found[1:] |= values[1:] != values[:-1]
    return found


if __name__ == "__main__":
    main()
