"""PASCAL VOC 2012 segmentation, original layout below ``VOCdevkit/VOC2012``.

Source: Everingham et al. 2015; 21 classes with background, void 255.
"""

from __future__ import annotations

from madbal_ray.config.data import DataConfig
from madbal_ray.data.dataset import Dataset, ImageRecord, identity_values, spread_colors
from madbal_ray.data.members import read_lines
from madbal_ray.errors import DataError
from madbal_ray.state.storage import Folder

CLASSES = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
BASE = "VOCdevkit/VOC2012"
SPLITS = ("train", "val")


def open_dataset(config: DataConfig, root: Folder) -> Dataset:
    """Read the index from ``ImageSets/Segmentation/{train,val}.txt``."""
    records = []
    for split in SPLITS:
        name = f"{BASE}/ImageSets/Segmentation/{split}.txt"
        if not root.exists(name):
            raise DataError(
                f"{root}/{name} is missing; data.root must be the folder that holds VOCdevkit/"
            )
        for stem in " ".join(read_lines(root, name)).split():
            image = f"{BASE}/JPEGImages/{stem}.jpg"
            mask = f"{BASE}/SegmentationClass/{stem}.png"
            records.append(ImageRecord(image, image, mask, split))
    return Dataset(
        name="voc2012",
        records=records,
        class_names=tuple(CLASSES),
        mask_values=identity_values(len(CLASSES)),
        colors=spread_colors(len(CLASSES)),
    )
