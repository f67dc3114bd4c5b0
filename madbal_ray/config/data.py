"""Options of the data set."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    model_validator,
)

from madbal_ray.config.section import (
    ADDED,
    RUNTIME,
    Address,
    Fraction,
    NonNegative,
    Positive,
    Section,
    known,
)
from madbal_ray.seams import (
    DATASETS,
)

STEM = "{stem}"
"""In `data.folder.mask_name`: the name of the image without its suffix."""

DatasetName = Annotated[str, known(DATASETS)]


class SyntheticConfig(Section):
    """Street-like scenes drawn from a seed."""

    num_train: Positive = 96
    num_val: Positive = 48
    height: Annotated[int, Field(ge=32)] = Field(default=96, description="pixels")
    width: Annotated[int, Field(ge=32)] = Field(default=128, description="pixels")
    seed: NonNegative = Field(
        default=0, description="of the scenes; the run's own seed does not touch them"
    )


def _mask_name(pattern: str) -> str:
    if pattern.count(STEM) != 1 or "/" in pattern or pattern == STEM:
        raise ValueError(
            f"expected the name of a mask with {STEM} where its image's stands, without suffix and "
            f"folders, as in {STEM}_mask.png; given: {pattern}"
        )
    return pattern


class FolderConfig(Section):
    """The user's own images: `images/[split/]…`, `masks/[split/]…png`, a class list."""

    images: str = Field(default="images", description="folder below data.root")
    masks: str | None = Field(default="masks", description="folder below data.root; null: no masks")
    classes: tuple[str, ...] | None = Field(
        default=None,
        description="names in order of mask value; null: from <root>/classes.yaml or classes.txt",
    )
    class_file: str | None = Field(
        default=None,
        json_schema_extra=RUNTIME,
        description="a classes.yaml elsewhere; null: <root>/classes.yaml or classes.txt",
    )
    void_value: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=255, description="mask value that means void, where classes.yaml says nothing of it"
    )
    mask_name: Annotated[str, AfterValidator(_mask_name)] = Field(
        default=f"{STEM}.png",
        json_schema_extra=ADDED,
        description="name of an image's mask, below `masks` in the image's folder; beside the "
        "images: masks: images, mask_name: '{stem}_mask.png'",
    )
    splits: dict[str, str] | None = Field(
        default=None,
        json_schema_extra=ADDED,
        description="split -> its list below data.root, an image's path or stem a line, as in "
        "train: ImageSets/Segmentation/train.txt; images in no list are left out; null: folders",
    )
    val_fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        json_schema_extra=ADDED,
        description="of images without lists and split folders: share that is split val, chosen by "
        "a hash of their names",
    )
    only_with_masks: bool = Field(
        default=False, json_schema_extra=ADDED, description="leave images without a mask out"
    )


class DataConfig(Section):
    """Which images, which masks."""

    name: DatasetName = "synthetic"
    root: Address | None = Field(
        default=None,
        json_schema_extra=RUNTIME,
        description="folder or URI that holds the data set; synthetic: null puts it into the pool",
    )
    pool_split: str = Field(default="train", description="the split that is asked for labels")
    pool_images: Positive | None = Field(
        default=None, description="use this many pool images, evenly spaced in image_id order"
    )
    max_bad_fraction: Fraction = Field(
        default=0.01,
        json_schema_extra=RUNTIME,
        description="stop when more of the pool is quarantined",
    )
    max_pixels: Positive = Field(
        default=178_956_970, description="an image with more pixels is quarantined unread"
    )
    max_bytes: Positive = Field(
        default=2**30,
        json_schema_extra=ADDED,
        description="an image file with more bytes is quarantined unread",
    )
    synthetic: SyntheticConfig = SyntheticConfig()
    folder: FolderConfig = FolderConfig()
    options: dict[str, Any] = Field(
        default_factory=dict, description="of a plug-in's own data set, which checks them"
    )

    @model_validator(mode="after")
    def _needs_root(self) -> DataConfig:
        if self.name != "synthetic" and self.root is None:
            raise ValueError(f"data.root is needed for {self.name}: the folder that holds it")
        return self
