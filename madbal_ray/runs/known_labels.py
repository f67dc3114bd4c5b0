"""Pixels that were asked elsewhere already, so that `madbal score` does not ask for them again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from madbal_ray.errors import ConfigError, DataError
from madbal_ray.labels.answer_store import AnswerStore, store_place
from madbal_ray.labels.csv_format import read_cells
from madbal_ray.labels.exchange import finite
from madbal_ray.labels.ledger import WAITING
from madbal_ray.labels.request_format import Refusal
from madbal_ray.pool.prepared import Pool
from madbal_ray.runs.run import Run, open_run
from madbal_ray.state import tables
from madbal_ray.state.marker import digest
from madbal_ray.state.run_dir import CONFIG_NAME
from madbal_ray.state.stage_dir import StageDir, digests
from madbal_ray.state.storage import Folder
from madbal_ray.vision.grids import nearest_pixel

Place = tuple[str, int, int]
"""image_id, row and column on the original image."""

COLUMNS = ("image_id", "x", "y")


def write_known_labels(
    sources: Sequence[str], pool: Pool, folder: Folder, say: Callable[[str], None]
) -> StageDir:
    """Return a stage of table `labels` with the pixels of a pool that were asked before.

    Args:
        sources: folders of runs or of `madbal score`, or CSV files with columns image_id, x, y
            (original image, floor is taken), such as `madbal requests export` writes.
        say: told of pixels in images that the pool does not hold.

    Raises:
        ConfigError: no pixel lies in an image of the pool.
        DataError: a file cannot be read, or a pixel lies outside its image.
    """
    places = sorted({place for source in sources for place in _places(source)})
    output = StageDir.plan(folder, "known_labels", {"places": digest(places)}, digests(pool.images))
    if output.is_done:
        return output
    by_image: dict[str, list[Place]] = {}
    for place in places:
        by_image.setdefault(place[0], []).append(place)
    files, found = [], 0
    for shard_id in pool.shard_ids:
        rows = []
        for image in pool.images_of(shard_id):
            for _, y, x in by_image.get(image.image_id, ()):
                if not (0 <= y < image.height and 0 <= x < image.width):
                    raise DataError(
                        f"{', '.join(sources)}: {image.image_id} has {image.height} x "
                        f"{image.width} pixels, and a label lies at y {y}, x {x}"
                    )
                found += 1
                rows.append(
                    {
                        "round": 0,
                        "image_id": image.image_id,
                        "y": int(nearest_pixel(y, image.height, image.work_height)),
                        "x": int(nearest_pixel(x, image.width, image.work_width)),
                        "unit": "pixel",
                        "num_pixels": 0,
                        "image_y": y,
                        "image_x": x,
                        "status": WAITING,
                        "oracle": "elsewhere",
                        "revision": 0,
                    }
                )
        files.append(output.write_table("labels", shard_id, tables.from_rows("labels", rows)))
    if places and not found:
        raise ConfigError(
            f"none of the {len(places)} pixels of {', '.join(sources)} lies in an image of this "
            f"pool; they name images such as {places[0][0]!r}: ids are paths below the pool's root"
        )
    if found < len(places):
        say(f"{len(places) - found} known pixels lie in images that this pool does not hold")
    output.commit(files, {"known": found})
    return output


def _places(source: str) -> Iterator[Place]:
    if Folder(source).exists(CONFIG_NAME):
        yield from _of_run(open_run(source))
        return
    path = Path(source)
    if not path.is_file():
        raise DataError(f"{source}: neither a folder of a run nor a CSV file")
    for where, row in read_cells(path, COLUMNS):
        if isinstance(row, Refusal):
            raise DataError(f"{path}, {row}")
        y, x = finite(row["y"]), finite(row["x"])
        if y is None or x is None:
            raise DataError(f"{path}, {where}: x {row['x']!r}, y {row['y']!r}; expected numbers")
        yield row["image_id"], math.floor(y), math.floor(x)


def _of_run(run: Run) -> Iterator[Place]:
    """Yield what a run asked: its labels, and what it has put to people."""
    for index in range(run.config.num_rounds):
        stage = run.run_dir.find("labels", index)
        if stage is not None:
            columns = ["image_id", "image_y", "image_x"]
            table = stage.read_table("labels", columns=columns)
            yield from zip(*(table[name].to_pylist() for name in columns), strict=True)
        stage = run.run_dir.find("requests", index)
        if stage is not None:
            columns = ["image_id", "image_y", "image_x"]
            table = stage.read_table("pixel_requests", columns=columns)
            yield from zip(*(table[name].to_pylist() for name in columns), strict=True)
    place = store_place(run.config.oracle.store, run.run_dir)
    if Folder(".").exists(place):  # points of evaluation among them
        with AnswerStore.open(place) as store:
            for query in store.queries():
                yield query.image_id, query.image_y, query.image_x
