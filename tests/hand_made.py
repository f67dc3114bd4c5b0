"""A pool, labels, workers and networks made by hand: a few pixels, every value known."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from madbal_ray.models.network import NetworkOutput, SegmentationNetwork
from madbal_ray.pool.label_map import pack_label_map
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import ImageReader, PoolImage
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from madbal_ray.vision.normalize import IMAGENET_MEAN, IMAGENET_STD


def pool_image(name, *, original=(2, 3), grid=(2, 3), work=(2, 3)):
    """Return an image of a pool with its three sizes (height, width)."""
    return PoolImage(name, f"{name}.png", f"{name}-mask.png", *original, *grid, *work)


@dataclass(frozen=True)
class FromArrays(ImageReader):
    """Reads images and masks from arrays by image_id."""

    root: Folder = field(default_factory=lambda: Folder("."))
    mask_values: Mapping[int, int] = field(default_factory=dict)
    max_pixels: int = 0
    max_bytes: int = 0
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    works: Mapping[str, np.ndarray] = field(default_factory=dict)
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)

    def on_input_grid(self, image):
        return self.inputs[image.image_id]

    def on_working_grid(self, image):
        return self.works[image.image_id]

    def fetch(self, image):
        return image.image_id.encode()

    def on_both_grids(self, image, data=None):
        assert data is None or data == image.image_id.encode()
        return self.inputs[image.image_id], self.works[image.image_id]

    def fetch_mask(self, image):
        return b""

    def mask(self, image, data=None):
        return self.masks[image.image_id]


def write_stage(folder, name, shards, *, version=0, summary=None, table=None):
    """Return a finished stage of one table: shard -> rows or a table."""
    table = table or name
    stage = StageDir.plan(Folder(folder), name, {"version": version}, {})
    files = []
    for shard_id, rows in shards.items():
        if isinstance(rows, list):
            rows = tables.from_rows(table, rows)
        files.append(stage.write_table(table, shard_id, rows))
    stage.commit(files, summary or {})
    return stage


def write_pool(folder, shards, *, label_maps=None, clusters=None, reader=None, **more) -> Pool:
    """Return a pool of hand-made images.

    Args:
        shards: shard -> images.
        label_maps: image_id -> superpixels; none: the image is one superpixel.
        clusters: image_id -> cluster of each superpixel; none: cluster 0.
    """
    label_maps, clusters = dict(label_maps or {}), dict(clusters or {})
    everything = [image for images in shards.values() for image in images]
    for image in everything:
        label_maps.setdefault(image.image_id, np.zeros((image.work_height, image.work_width), int))
        count = int(np.max(label_maps[image.image_id])) + 1
        clusters.setdefault(image.image_id, [0] * count)
    rows: dict[str, Any] = {"images": {}, "superpixels": {}, "superpixel_clusters": {}}
    for shard_id, images in shards.items():
        rows["images"][shard_id] = [vars(one) | {"shard_id": shard_id} for one in images]
        rows["superpixels"][shard_id] = [
            {
                "image_id": one.image_id,
                "num_superpixels": len(clusters[one.image_id]),
                "label_map": pack_label_map(np.asarray(label_maps[one.image_id], np.uint16)),
            }
            for one in images
        ]
        rows["superpixel_clusters"][shard_id] = [
            {"image_id": one.image_id, "superpixel_id": index, "cluster_id": cluster}
            for one in images
            for index, cluster in enumerate(clusters[one.image_id])
        ]
    stages = {name: write_stage(folder, name, shard_rows) for name, shard_rows in rows.items()}
    settings: dict[str, Any] = {
        "threads": 1,
        "class_names": ("road", "car", "tree"),
        "shard_ids": list(shards),
        "num_images": len(everything),
        "num_pixels": sum(one.work_height * one.work_width for one in everything),
    }
    return Pool(
        reader=reader or FromArrays(),
        images=stages["images"],
        superpixels=stages["superpixels"],
        clusters=stages["superpixel_clusters"],
        **(settings | more),
    )


def write_labels(folder, shards, *, round_index=0):
    """Return a finished stage `labels`: shard -> rows, of which common columns may be left out."""
    usual = {
        "round": round_index,
        "unit": "pixel",
        "num_pixels": 1,
        "status": "labelled",
        "revision": 0,
    }
    filled = {shard_id: [usual | row for row in rows] for shard_id, rows in shards.items()}
    return write_stage(folder, "labels", filled, version=round_index)


class Worker:
    """One of several training workers: sums are multiplied, values of others are appended."""

    def __init__(self, *, rank=0, world_size=1, factor=1, others=()):
        self.rank, self.world_size, self.factor, self.others = rank, world_size, factor, others
        self.device = torch.device("cpu")
        self.gathered: list[Any] = []
        self.reports: list[dict[str, Any]] = []
        self.agreed: list[nn.Module] = []

    def agree_on_buffers(self, module):
        self.agreed.append(module)

    def all_reduce(self, tensor):
        return tensor * self.factor

    def all_gather(self, value):
        self.gathered.append(value)
        return [value, *self.others]

    def decide(self, look, /):
        return look()

    def wrap(self, module):
        return module

    def barrier(self):
        pass

    def report(self, progress, /):
        self.reports.append(progress)


def pixels_of(images):
    """Return the bytes [B, h, w, 3] that normalised images were made of."""
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return ((images.permute(0, 2, 3, 1) * std + mean) * 255).round()


class ByHand(SegmentationNetwork):
    """Says what a function of the images' bytes says; notes phases and what it was shown."""

    def __init__(self, say):
        nn.Module.__init__(self)
        self.say, self.phases, self.shown, self.asked_for_supports = say, [], [], []
        self.backbone = nn.Module()
        self.weight = nn.Parameter(torch.tensor([1.0]))

    def set_phase(self, phase):
        self.phases.append(phase)

    def switch_dropout_on(self):
        self.phases.append("dropout")

    def forward(self, images, *, supports):
        self.shown.append(pixels_of(images))
        self.asked_for_supports.append(supports)
        return self.say(self.shown[-1])


def colours_are_logits(pixels):
    """Return red, green and blue, in tenths, as the logits of three classes."""
    logits = (pixels / 10).permute(0, 3, 1, 2).contiguous()
    return NetworkOutput(logits=logits, pooled=pixels.mean(dim=(1, 2)))
