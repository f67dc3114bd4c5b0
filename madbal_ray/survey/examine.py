"""Every image and mask of a data set decoded once."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np

from madbal_ray.config.data import DataConfig
from madbal_ray.data.dataset import Dataset, ImageRecord
from madbal_ray.data.folder import is_image, open_dataset
from madbal_ray.errors import BadImageError
from madbal_ray.pool.reader import ImageReader
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.storage import Folder
from madbal_ray.survey.class_names import ClassNames, find_names
from madbal_ray.survey.duplicates import across_splits, look_at
from madbal_ray.survey.found import Examined, Survey
from madbal_ray.survey.layout import data_set_below, find_layout
from madbal_ray.vision.decode import decode_image, decode_mask, is_turned, look_into_mask

UNNAMED = ("a", "b")
"""Stand in for class names where there is no class file yet: files are paired without them."""

OTHER_FORMATS = {".gif", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".psd", ".svg", ".raw"}


def survey(root: Folder, *, most: int, threads: int) -> Survey:
    """Look at the data below a folder.

    Args:
        root: of the data, or a folder that holds their folder and nothing else.
        most: images to look at; of more, so many evenly spaced.
        threads: that decode.

    Raises:
        DataError: there is no image, or the class file cannot be used.
    """
    root = data_set_below(root)
    layout = find_layout(root)
    options = layout.options | ({} if layout.has_classes else {"classes": UNNAMED})
    config = DataConfig.model_validate({"name": "folder", "root": root.uri, "folder": options})
    dataset = open_dataset(config, root)
    records = sorted(dataset.records, key=lambda record: record.image_id)
    step = max(1, -(-len(records) // most))
    reader = ImageReader.of(dataset, root, config)

    def examine(record: ImageRecord) -> Examined:
        return _examine(record, reader, knows_classes=layout.has_classes)

    examined = list(map_ahead(examine, records[::step], threads=threads, ahead=2 * threads))
    looks = [
        (one.record.image_id, one.record.split, one.look)
        for one in examined
        if one.look is not None
    ]
    return Survey(
        root=root,
        config=config,
        layout=layout,
        dataset=dataset,
        examined=examined,
        strays=_strays(config, root, dataset),
        duplicates=list(across_splits(looks)),
        skipped=_skipped(config, root),
        names=ClassNames() if layout.has_classes else find_names(root, layout.others),
    )


def _examine(record: ImageRecord, reader: ImageReader, *, knows_classes: bool) -> Examined:
    limit = reader.max_pixels
    try:
        encoded = reader.encoded(record.image_uri)
        image = decode_image(encoded, max_pixels=limit)
    except (BadImageError, OSError) as error:
        return Examined(record, problem=str(error))
    height, width = image.shape[:2]
    look = look_at(image)
    if record.mask_uri is None:
        return Examined(record, height, width, look)
    contents, classes, turned = None, None, is_turned(encoded)
    try:
        data = reader.encoded(record.mask_uri)
        contents = look_into_mask(data, max_pixels=limit)
        if (contents.height, contents.width) != (height, width):
            raise BadImageError(
                f"{contents.height} x {contents.width}, its image is {height} x {width}"
                + (", turned as its EXIF orientation says: turn the mask, too" if turned else "")
            )
        if knows_classes:
            mask = decode_mask(data, reader.mask_lookup, max_pixels=limit)
            counts = np.bincount(mask.ravel())
            classes = {int(i): int(counts[i]) for i in np.flatnonzero(counts)}
    except (BadImageError, OSError) as error:
        return Examined(record, height, width, look, None, contents, str(error), None, turned)
    return Examined(record, height, width, look, None, contents, None, classes, turned)


def _strays(config: DataConfig, root: Folder, dataset: Dataset) -> list[str]:
    """Return files among the masks that are no image's mask."""
    options = config.folder
    if options.masks is None:
        return []
    used = {record.mask_uri for record in dataset.records}
    if options.masks == options.images:
        used |= {record.image_uri for record in dataset.records}
    found = (f"{options.masks}/{path}" for path, _ in (root / options.masks).walk())
    return sorted(path for path in found if is_image(path) and path not in used)


def _skipped(config: DataConfig, root: Folder) -> list[str]:
    """Return files among the images whose format is that of a picture, and is not read."""
    found = (path for path, _ in (root / config.folder.images).walk())
    return sorted(path for path in found if PurePosixPath(path).suffix.lower() in OTHER_FORMATS)
