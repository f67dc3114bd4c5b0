"""A pool of which little is labelled: which of its shards training opens."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import madbal_ray
from benchmarks.cluster.scale import Figures
from madbal_ray.state.storage import Folder
from madbal_ray.training.job import TrainRound


def small_labels(images: int = 20_000, labelled: int = 500) -> Figures:
    """Run two rounds on small generated images; count what training opens."""
    opened: list[str] = []
    plain = Folder.open
    Folder.open = lambda self, name: opened.append(self.file_uri(name)) or plain(self, name)  # type: ignore[method-assign,func-returns-value]
    trained: list[list[str]] = []
    plain_run = TrainRound.run

    def train(self: TrainRound, context: Any) -> None:
        opened.clear()
        plain_run(self, context)
        trained.append(list(opened))

    TrainRound.run = train  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        run = madbal_ray.run(
            {
                "num_rounds": 2,
                "data": {
                    "name": "synthetic",
                    "synthetic": {"num_train": images, "num_val": 2, "height": 32, "width": 32},
                },
                "pool": {"shard_images": 8},
                "superpixels": {"pixels": 64},
                "clustering": {"num_clusters": 5, "num_init": 1},
                "train": {"phase1": {"epochs": 1}, "phase2": {"epochs": 1}},
                "score": {"batch_size": 8},
                "budget": {
                    "initial_images": labelled,
                    "initial_pixels_per_image": 5,
                    "initial": "spread",
                    "scope": "pool",
                    "total_pixels": labelled,
                    "pixels_per_image": 1,
                },
            },
            run_dir=Path(folder) / "run",
            engine="local",
        )
        shard_of = run.table("images").to_pandas().set_index("image_id")["shard_id"]
        asked: set[str] = set()
        found: Figures = {f"{images:,} images, shards": len(set(shard_of))}
        for number, files in enumerate(trained):
            asked |= set(run.table("queries", number)["image_id"].to_pylist())
            wanted = {int(shard_of[name]) for name in asked}
            tables_read = {
                int(match[1])
                for path in files
                if (match := re.search(r"/(?:labels|images|superpixels)/(\d{5})\.parquet$", path))
            }
            evaluation = {int(i) for i in tables_read if i >= images // 8}
            found[f"{images:,} images, round {number}: images asked"] = len(asked)
            found[f"{images:,} images, round {number}: shards with labels"] = len(wanted)
            found[f"{images:,} images, round {number}: shards opened in training"] = len(
                tables_read - evaluation
            )
            found[f"{images:,} images, round {number}: of them without labels"] = len(
                tables_read - evaluation - wanted
            )
    return found
