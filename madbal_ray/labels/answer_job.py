"""The simulated oracle: labels of one shard's queries, read off the masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from madbal_ray import rng
from madbal_ray.arrays import IGNORE_INDEX, BoolMap, LabelMap, Mask
from madbal_ray.config.schema import NoiseConfig
from madbal_ray.errors import ConfigError
from madbal_ray.labels.asked_pixels import AskedPixels
from madbal_ray.labels.ledger import check_answers, check_disjoint, cost_of
from madbal_ray.labels.simulated import (
    AnnotatorNoise,
    answer_pixels,
    answer_region,
    make_mistakes,
    on_boundary,
)
from madbal_ray.pool.reader import (
    ImageShardJob,
    PoolImage,
    map_ahead,
    read_images,
    read_label_maps,
    split_by_image,
)
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.vision.decode import resize_mask
from madbal_ray.vision.grids import nearest_pixel


def annotator_noise(config: NoiseConfig, num_classes: int) -> AnnotatorNoise:
    """Return the annotator that a configuration describes.

    Raises:
        ConfigError: the confusion matrix is not C x C.
    """
    boundary = config.share if config.boundary_share is None else config.boundary_share
    noise = AnnotatorNoise.uniform(num_classes, config.share, boundary)
    if config.confusion is None:
        return noise
    rows = [len(row) for row in config.confusion]
    if rows != [num_classes] * num_classes:
        raise ConfigError(
            f"oracle.noise.confusion has {len(rows)} rows of {sorted(set(rows))} entries; the data "
            f"set has {num_classes} classes"
        )
    return replace(noise, confusion=np.array(config.confusion, np.float64))


@dataclass
class SimulateAnswers(ImageShardJob):
    """Labels of one shard's queries.

    Attributes:
        earlier_labels: of the rounds before; nothing in them may be asked again.
    """

    images: StageDir
    superpixels: StageDir
    queries: StageDir
    earlier_labels: tuple[StageDir, ...]
    noise: AnnotatorNoise
    seed: int
    round_index: int
    is_light = True
    table_names = ("labels",)

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the answers, after asserting that none was asked before.

        Raises:
            LabelError: a query repeats a pixel, or answers and queries differ.
        """
        queries = self.queries.read_table("queries", [shard_id])
        rows_of = split_by_image(queries)
        images = [i for i in read_images(self.images, shard_id) if i.image_id in rows_of]
        label_maps: dict[str, LabelMap] = {}
        if "superpixel" in queries["unit"].unique().to_pylist():
            label_maps = read_label_maps(
                self.superpixels, shard_id, read_images(self.images, shard_id)
            )
        asked = AskedPixels(self.earlier_labels, shard_id, label_maps)
        masks = map_ahead(self.reader.mask, images, threads=self.threads, ahead=self.threads)
        parts = []
        for image, mask in zip(images, masks, strict=True):
            rows = rows_of[image.image_id]
            part = queries.slice(rows.start, rows.stop - rows.start)
            unit = part["unit"][0].as_py()
            if unit == "pixel":
                answers = self._pixels(image, part, mask)
            elif unit == "superpixel":
                answers = self._superpixels(
                    image, part, mask, label_maps[image.image_id], asked.map_of(image)
                )
            else:
                answers = self._whole_image(image, asked.map_of(image))
            parts.append(_label_rows(part, answers))
        labels = tables.concat("labels", parts)
        check_answers(queries, labels)
        for earlier in self.earlier_labels:
            known = earlier.read_table("labels", [shard_id])
            check_disjoint(labels, known)
        return {"labels": labels}

    def count(self, shard_tables: Mapping[str, pa.Table]) -> dict[str, int]:
        """Count images and what the answers cost."""
        labels = shard_tables["labels"]
        return {"images": len(labels["image_id"].unique()), **vars(cost_of(labels))}

    def _pixels(self, image: PoolImage, queries: pa.Table, mask: Mask) -> dict[str, Any]:
        y = queries["y"].to_numpy().astype(np.int64)
        x = queries["x"].to_numpy().astype(np.int64)
        image_y = nearest_pixel(y, image.work_height, image.height)
        image_x = nearest_pixel(x, image.work_width, image.width)
        true_class, is_void = answer_pixels(mask=mask, y=image_y, x=image_x)
        class_id = make_mistakes(
            class_id=true_class,
            is_void=is_void,
            is_boundary=on_boundary(mask=mask, y=image_y, x=image_x),
            noise=self.noise,
            generator=self._annotator(image),
        )
        return {
            "image_y": image_y,
            "image_x": image_x,
            "class_id": pa.array(class_id, pa.int32(), mask=is_void),
            "is_void": is_void,
            "num_pixels": np.ones(len(y), np.int64),
        }

    def _superpixels(
        self,
        image: PoolImage,
        queries: pa.Table,
        mask: Mask,
        label_map: LabelMap,
        is_asked: BoolMap,
    ) -> dict[str, Any]:
        work_mask = resize_mask(mask, image.work_height, image.work_width)
        ids = queries["superpixel_id"].to_numpy()
        insides = [(label_map == superpixel) & ~is_asked for superpixel in ids]
        true_class = np.array([answer_region(mask=work_mask, inside=i) for i in insides], np.int64)
        is_void = true_class == IGNORE_INDEX
        class_id = make_mistakes(
            class_id=true_class,
            is_void=is_void,
            is_boundary=np.zeros(len(ids), bool),
            noise=self.noise,
            generator=self._annotator(image),
        )
        y, x = queries["y"].to_numpy().astype(np.int64), queries["x"].to_numpy().astype(np.int64)
        return {
            "image_y": nearest_pixel(y, image.work_height, image.height),
            "image_x": nearest_pixel(x, image.work_width, image.width),
            "class_id": pa.array(class_id, pa.int32(), mask=is_void),
            "is_void": is_void,
            "num_pixels": np.array([inside.sum() for inside in insides]),
        }

    def _whole_image(self, image: PoolImage, is_asked: BoolMap) -> dict[str, Any]:
        """Return one row; the classes stay in the mask, where training reads them."""
        return {
            "image_y": np.zeros(1, np.int64),
            "image_x": np.zeros(1, np.int64),
            "class_id": pa.nulls(1, pa.int32()),
            "is_void": np.zeros(1, bool),
            "num_pixels": np.array([int((~is_asked).sum())]),
        }

    def _annotator(self, image: PoolImage) -> np.random.Generator:
        return rng.stream(self.seed, "annotator", self.round_index, image.image_id)


def _label_rows(queries: pa.Table, answers: dict[str, Any]) -> pa.Table:
    count = queries.num_rows
    names = ("round", "image_id", "y", "x", "unit", "superpixel_id")
    return tables.from_columns(
        "labels",
        {
            **{name: queries[name].combine_chunks() for name in names},
            **{name: answers[name] for name in ("num_pixels", "image_y", "image_x", "class_id")},
            "status": np.where(answers["is_void"], "void", "labelled").tolist(),
            "oracle": ["simulated"] * count,
            "revision": np.zeros(count, np.int64),
        },
    )
