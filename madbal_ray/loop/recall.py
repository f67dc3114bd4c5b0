"""What a finished run was made from, looked up again without writing anything."""

from __future__ import annotations

import hashlib
from pathlib import Path

from madbal_ray.config.schema import Config
from madbal_ray.data.registry import data_root, open_dataset
from madbal_ray.engine.stages import JobRunner
from madbal_ray.errors import DataError, IntegrityError, MadbalError
from madbal_ray.models.weights import FILE_SUFFIXES, NONE, PublishedWeights
from madbal_ray.pool.index import index_rows
from madbal_ray.pool.reader import ImageReader
from madbal_ray.state.marker import digest_each
from madbal_ray.state.stage_dir import MARKER_NAME, StageDir
from madbal_ray.state.storage import Folder

OF_CLASS_FILE = ("masks", "classes")
"""Settings of an index whose data set has a file of classes, which may have been edited since."""


def recall_data_set(
    config: Config, shared: Folder, index: StageDir
) -> tuple[ImageReader | None, str]:
    """Return what reads the data set, where it is what was indexed, and how that is told.

    Args:
        shared: folder of the pool.

    Raises:
        IntegrityError: it is, and its classes are others.
    """
    data = config.data
    try:
        root = data_root(data, shared)
        if data.root is None and not root.exists(MARKER_NAME):
            raise DataError(f"no scenes are in {root}")  # and none are drawn
        dataset = open_dataset(data, shared)
        files = digest_each(index_rows(dataset, root, dataset.splits))[1]
    except (MadbalError, OSError) as error:
        return None, f"data set: not here, so nothing is read from it ({error})"
    if files != index.marker().settings.get("files"):
        return None, f"data set: {root} lists other files now, so nothing is read from it"
    stored = index.marker().summary["class_names"]
    if tuple(stored) != dataset.class_names:
        raise IntegrityError(
            f"{index.folder}: classes {stored} are stored, the data set has "
            f"{list(dataset.class_names)}"
        )
    reader = ImageReader.of(dataset, root, data)
    return reader, f"data set: {root} lists the files that were indexed"


def recall_index(
    config: Config, runner: JobRunner, shared: Folder, index: StageDir, images: StageDir
) -> None:
    """Plan the index and the inspection again; what the files held is taken as stored."""
    noted = index.marker().settings
    settings = {
        "data": config.data.result_settings(),
        "pool": config.pool.result_settings(),
        **{name: noted[name] for name in ("files", *OF_CLASS_FILE) if name in noted},
    }
    runner.plan(shared, "index", settings, {})
    inspected_as = images.marker().settings
    changed = {name: inspected_as[name] for name in ("changed",) if name in inspected_as}
    inspected = config.grids.result_settings() | changed
    runner.plan(shared, "images", inspected, {"index": index.digest()})


def recall_weights(spec: str, network: str, folder: Folder, stored: str) -> PublishedWeights:
    """Return published weights without publishing any.

    Args:
        spec, network: see `publish_weights`.
        folder: of the pool.
        stored: identity that the run noted, which is believed where the file is gone.
    """
    if spec == NONE:
        return PublishedWeights(NONE, None)
    path, identity = Path(spec), f"{network}-{spec}"
    if path.suffix in FILE_SUFFIXES:
        is_here = path.is_file()
        identity = hashlib.sha256(path.read_bytes()).hexdigest() if is_here else stored
    return PublishedWeights(identity, folder / "weights")
