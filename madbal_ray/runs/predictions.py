"""What the network that asked takes the asked pixels for."""

from __future__ import annotations

import pyarrow as pa

from madbal_ray.runs.run import Run

PIXEL = ["image_id", "y", "x"]
REGION = ["image_id", "superpixel_id"]


def predicted_classes(run: Run, round_index: int) -> dict[str, str]:
    """Return query_id -> class name for a round's queries; empty where no network asked.

    Of a pixel whose own prediction was kept (table `pixel_candidates`) that one, of another one the
    class that most pixels of its superpixel have (`superpixel_scores`).
    """
    requests = run.run_dir.find("requests", round_index)
    scores = run.run_dir.find("score", round_index)
    if requests is None or scores is None:
        return {}
    names = run.class_names
    found: dict[str, str] = {}
    for shard_id in requests.shards_with("pixel_requests"):
        asked = requests.read_table("pixel_requests", [shard_id])
        columns = [*REGION, "dominant_class"]
        regions = scores.read_table("superpixel_scores", [shard_id], columns=columns)
        candidates = [*PIXEL, "predicted_class"]
        pixels = scores.read_table("pixel_candidates", [shard_id], columns=candidates)
        of_region, of_pixel = _by_key(regions, REGION), _by_key(pixels, PIXEL)
        for row in asked.to_pylist():
            region = of_region.get(tuple(row[name] for name in REGION), -1)
            class_id = of_pixel.get(tuple(row[name] for name in PIXEL), region)
            if class_id >= 0:
                found[row["query_id"]] = names[class_id]
    return found


def _by_key(table: pa.Table, key: list[str]) -> dict[tuple, int]:
    """Return key -> value of the table's last column."""
    *keys, values = (table[name].to_pylist() for name in table.column_names)
    return dict(zip(zip(*keys, strict=True), values, strict=True))
