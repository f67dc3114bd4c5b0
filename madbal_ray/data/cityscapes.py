"""Cityscapes, original layout: ``leftImg8bit/`` and ``gtFine/`` with ``labelIds`` masks.

Source: Cordts et al. 2016; the 19 train ids, every other label id is void.
"""

from __future__ import annotations

from madbal_ray.arrays import IGNORE_INDEX
from madbal_ray.config.data import DataConfig
from madbal_ray.data.dataset import Dataset, ImageRecord
from madbal_ray.errors import DataError
from madbal_ray.state.storage import Folder

# name: (label id in the masks, colour)
CLASSES: dict[str, tuple[int, tuple[int, int, int]]] = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
NUM_LABEL_IDS = 34
LICENSE_PLATE = 65_535  # label id -1, stored unsigned
IMAGE_SUFFIX = "_leftImg8bit.png"
SPLITS = ("train", "val")


def open_dataset(config: DataConfig, root: Folder) -> Dataset:
    """List ``leftImg8bit/{train,val}/<city>/*``; masks are found by name."""
    records = []
    for split in SPLITS:
        below = root / f"leftImg8bit/{split}"
        for path, _ in below.walk():
            if not path.endswith(IMAGE_SUFFIX):
                continue
            image = f"leftImg8bit/{split}/{path}"
            mask = f"gtFine/{split}/{path.removesuffix(IMAGE_SUFFIX)}_gtFine_labelIds.png"
            records.append(ImageRecord(image, image, mask, split))
    if not records:
        raise DataError(
            f"{root}/leftImg8bit/train holds no *{IMAGE_SUFFIX}; data.root must be the folder that "
            "holds leftImg8bit/ and gtFine/"
        )
    values = dict.fromkeys([*range(NUM_LABEL_IDS), 255, LICENSE_PLATE], IGNORE_INDEX)
    values |= {label_id: index for index, (label_id, _) in enumerate(CLASSES.values())}
    return Dataset(
        name="cityscapes",
        records=records,
        class_names=tuple(CLASSES),
        mask_values=values,
        colors=tuple(color for _, color in CLASSES.values()),
    )
