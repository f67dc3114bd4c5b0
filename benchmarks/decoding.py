"""What it costs to decode pictures in a process of their own, as the inspection does.

Command: ``python -m benchmarks.decoding ../shared/data/camvid/train``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from madbal_ray.data.folder import is_image
from madbal_ray.state.ahead import map_ahead
from madbal_ray.vision.decode import decode_image
from madbal_ray.vision.decode_apart import image_size

MAX_PIXELS = 10**9


def main() -> None:
    """Print seconds of both ways in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    paths = sorted(path for path in options.folder.rglob("*") if is_image(path.name))
    pictures = [path.read_bytes() for path in paths[: options.images]]
    ways = {
        "inside": lambda data: decode_image(data, max_pixels=MAX_PIXELS).shape[:2],
        "apart": lambda data: image_size(data, max_pixels=MAX_PIXELS),
    }
    size = sum(map(len, pictures)) / max(1, len(pictures)) / 1e3
    print(f"{len(pictures)} pictures of {size:.0f} kB, {options.threads} threads")
    for _ in range(4):
        for name, way in ways.items():
            started = time.perf_counter()
            for _ in map_ahead(way, pictures, threads=options.threads, ahead=2 * options.threads):
                pass
            print(f"{name:8} {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
