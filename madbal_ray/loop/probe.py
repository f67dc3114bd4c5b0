"""A probe: every step of a round on a few images, timed on this machine.

Longer than 300 lines: a method for every step, and what stands there for the pool.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch

from madbal_ray.arrays import RGBImage
from madbal_ray.config.schema import Config
from madbal_ray.config.training import PhaseConfig
from madbal_ray.data.dataset import Dataset
from madbal_ray.data.members import read_image_bytes
from madbal_ray.data.registry import data_root, open_dataset
from madbal_ray.engine.threads import shared_threads
from madbal_ray.engine.workers import SingleWorker
from madbal_ray.errors import BadImageError, PoolError
from madbal_ray.evaluation.prediction import batch_confusion
from madbal_ray.labels.labeled_points import LabeledPoints
from madbal_ray.models.inputs import stack_inputs
from madbal_ray.models.network import SegmentationNetwork
from madbal_ray.models.trained import PhaseSpec
from madbal_ray.pool.features.stored_taps import (
    TABLE,
    NetworkInput,
    Taps,
    feature_row,
    read_features,
)
from madbal_ray.pool.reader import ImageReader, PoolImage
from madbal_ray.scoring.score_images import ScoreImages
from madbal_ray.state import tables
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from madbal_ray.strategies.strategy import resolve
from madbal_ray.training.batches import Batches, BatchMaker
from madbal_ray.training.image_cache import ImageCache
from madbal_ray.training.input_batches import InputBatchMaker
from madbal_ray.training.phase import PhaseTrainer
from madbal_ray.training.point_matrix import PointBatchMaker, PointMatrix
from madbal_ray.vision.boundary import boundary_map
from madbal_ray.vision.decode import decode_image, decode_mask, resize_image
from madbal_ray.vision.grids import grid_shape

PROBED = 4
PROBED_POINTS = 4096
TRIED = 20
"""Images looked at, at most, to find `PROBED` good ones."""

Result = TypeVar("Result")


class Probe:
    """Times single steps of a configuration's run."""

    def __init__(self, config: Config, folder: Folder, device: torch.device) -> None:
        self.config, self.folder, self.device = config, folder, device
        self.dataset: Dataset = open_dataset(config.data, folder)
        self.root = data_root(config.data, folder)
        self.pool = self.dataset.of_split(config.data.pool_split)
        wanted = config.evaluation.splits
        splits = wanted or [s for s in self.dataset.splits if s != config.data.pool_split]
        self.num_evaluated = sum(self.dataset.size_of(split) for split in splits)

    def decode(self) -> tuple[float, list[np.ndarray]]:
        """Return seconds per image and some decoded images, bad ones left out."""
        step = max(1, len(self.pool) // TRIED)
        pictures: list[np.ndarray] = []
        started = time.perf_counter()
        for record in self.pool[::step]:
            try:
                data = read_image_bytes(
                    self.root, record.image_uri, max_bytes=self.config.data.max_bytes
                )
                pictures.append(decode_image(data, max_pixels=self.config.data.max_pixels))
            except (OSError, BadImageError):
                continue
            if len(pictures) == PROBED:
                break
        if not pictures:
            raise PoolError(f"none of {TRIED} images of the pool could be decoded for the forecast")
        return (time.perf_counter() - started) / len(pictures), pictures

    def decode_masks(self) -> float:
        """Return the seconds that a mask takes, bad ones included; 0: there are none."""
        reader = ImageReader.of(self.dataset, self.root, self.config.data)

        def decode(uri: str) -> None:
            with suppress(OSError, BadImageError):
                decode_mask(reader.encoded(uri), reader.mask_lookup, max_pixels=reader.max_pixels)

        uris = [record.mask_uri for record in self.pool[:PROBED] if record.mask_uri]
        return timed(lambda: [decode(uri) for uri in uris])[0] if uris else 0.0

    def read_taps(self, taps: Sequence[Taps], works: list[np.ndarray]) -> float:
        """Return the seconds that reading the kept features of an image takes."""
        stage = StageDir.plan(self.folder, TABLE, {}, {})
        rows, images = [], []
        for index, (of_one, work) in enumerate(zip(taps, works, strict=True)):
            rows.append(feature_row(str(index), of_one, boundary_map(work)))
            images.append(PoolImage(str(index), "", None, *3 * work.shape[:2], shard_id=0))
        stage.commit([stage.write_table(TABLE, 0, tables.from_rows(TABLE, rows))], {})
        return timed(lambda: [read_features(stage, image) for image in images])[0]

    def asked(self, round_index: int) -> tuple[int, int]:
        """Return in how many images a round asks, and for how many points, at most.

        Points as a head on a frozen backbone learns from them: some of a region or an image.
        """
        budget, all_images = self.config.budget, len(self.pool)
        most, unit = self.config.train.points_per_image, resolve(self.config.strategy).unit
        if round_index == 0:
            images, first = budget.initial_images or all_images, budget.initial_pixels_per_image
            return images, images * (most if first == "all" else min(first, most))
        if unit == "image":
            images = min(all_images, budget.images_per_round)
            return images, images * most
        queries = budget.total(all_images)
        images = min(all_images, queries)
        pixels = queries * (self.config.superpixels.pixels if unit == "superpixel" else 1)
        return images, min(pixels, images * most)

    def resize(self, pictures: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the images on the input grid and on the working grid."""
        grids = self.config.grids
        inputs, works = (
            [resize_image(image, *grid_shape(grid, *image.shape[:2])) for image in pictures]
            for grid in (grids.input, grids.working)
        )
        return inputs, works

    def taps(self, network: SegmentationNetwork, picture: np.ndarray) -> Taps:
        """Return the features of one image as they are kept."""
        with torch.inference_mode():
            images = stack_inputs([picture], self.device)
            assert isinstance(images, torch.Tensor)
            taps = network.taps(images)
        return tuple(tap[0].permute(1, 2, 0).contiguous().cpu().numpy() for tap in taps)

    def batch_maker(
        self,
        network: SegmentationNetwork,
        inputs: list[np.ndarray],
        works: list[np.ndarray],
        seen: Sequence[NetworkInput],
    ) -> Batches:
        """Return what makes batches of the probed images, with as many points as a round's."""
        if self.config.model.learns_from_points:
            return PointBatchMaker(
                matrix=self._matrix(network.backbone.channels), seed=0, round_index=0
            )
        count = self.config.budget.initial_pixels_per_image
        generator = np.random.default_rng(0)
        images, parts = [], []
        for index, (picture, work) in enumerate(zip(inputs, works, strict=True)):
            size = (*work.shape[:2], *picture.shape[:2], *work.shape[:2])
            images.append(PoolImage(str(index), "", None, *size))
            pixels = work.shape[0] * work.shape[1]
            number = pixels if count == "all" else min(count, pixels)
            drawn = np.sort(generator.choice(pixels, number, replace=False))
            parts.append(np.stack(np.divmod(drawn, work.shape[1])))
        y, x = np.concatenate(parts, axis=1)
        points = LabeledPoints(
            images=images,
            start=np.cumsum([0, *(part.shape[1] for part in parts)]),
            y=y,
            x=x,
            class_id=generator.integers(0, self.dataset.num_classes, len(y)).astype(np.uint8),
            is_target=generator.random(len(y)) < 0.5,
            is_boundary=generator.random(len(y)) < 0.5,
        )
        if not self.config.model.train_backbone:
            return InputBatchMaker(points=points, pool=_Probed(seen), seed=0, round_index=0)
        return BatchMaker(
            points=points,
            cache=ImageCache(_Decoded(inputs), memory_gib=1.0, disk_gib=0.0),
            config=self.config.train,
            seed=0,
            round_index=0,
            threads=self.config.resources.decode_threads,
        )

    def train(self, network: SegmentationNetwork, maker: Batches, phase: PhaseSpec) -> float:
        """Return the seconds of a phase in all rounds: a step of the trainer, many times."""
        settings = phase.settings(self.config.train)
        torch.set_num_threads(self.config.train.threads_per_worker)
        trainer = PhaseTrainer(
            config=self.config,
            round_index=0,
            phase=phase,
            stage=StageDir(Folder("."), phase.name, "probe"),
            maker=maker,
            context=SingleWorker(self.device, lambda progress: None),
        )
        steps = sum(self._steps(settings, index) for index in range(self.config.num_rounds))
        return steps * trainer.step_seconds(network) / self.config.train.num_workers

    def _steps(self, settings: PhaseConfig, round_index: int) -> int:
        """Return the batches of a phase in one round."""
        if not self.config.model.learns_from_points:
            images = self._most_images(round_index)
            return settings.epochs * math.ceil(images / settings.batch_size)
        if settings.steps is not None:
            return settings.steps
        points = sum(self.asked(index)[1] for index in range(round_index + 1))
        return settings.epochs * math.ceil(points / settings.batch_points)

    def _most_images(self, round_index: int) -> int:
        """Return how many images have labels in a round at most: each pixel in another one."""
        images = sum(self.asked(index)[0] for index in range(round_index + 1))
        return min(len(self.pool), images)

    def _matrix(self, channels: tuple[int, ...]) -> PointMatrix:
        """Return points of noise: how long a step takes hangs on their number alone."""
        generator = np.random.default_rng(0)
        return PointMatrix(
            channels=channels,
            features=generator.random((PROBED_POINTS, sum(channels))).astype(np.float16),
            class_id=generator.integers(0, self.dataset.num_classes, PROBED_POINTS),
            is_boundary=generator.random(PROBED_POINTS) < 0.5,
            is_target=generator.random(PROBED_POINTS) < 0.5,
        )

    def measure(
        self,
        network: SegmentationNetwork,
        seen: Sequence[NetworkInput],
        pictures: Sequence[np.ndarray],
    ) -> list[torch.Tensor]:
        """Compare predictions with masks of the original images' sizes, an image at a time."""

        def confusion(pair: tuple[NetworkInput, np.ndarray]) -> torch.Tensor:
            inputs, picture = pair
            truth = torch.zeros((1, *picture.shape[:2]), dtype=torch.uint8, device=self.device)
            return batch_confusion(
                network,
                stack_inputs([inputs], self.device),
                truth,
                num_classes=self.dataset.num_classes,
                use_bf16=self.config.train.precision == "bf16",
            ).cpu()

        pairs = list(zip(seen, pictures, strict=True))
        with shared_threads(network, self.device) as threads:
            return list(map_ahead(confusion, pairs, threads=threads, ahead=threads))

    def score(
        self,
        network: SegmentationNetwork,
        inputs: Sequence[NetworkInput],
        works: list[np.ndarray],
        maps: list[np.ndarray],
    ) -> float:
        """Return the seconds that scoring an image takes."""
        config, strategy = self.config, resolve(self.config.strategy)
        torch.set_num_threads(config.score.threads_per_worker)
        plan = replace(
            strategy.plan(config, num_classes=self.dataset.num_classes, round_index=1),
            rows="superpixels",
            candidate_rule="top",
        )
        use_bf16 = config.score.precision == "bf16"
        stage = ScoreImages(network, plan, use_bf16=use_bf16, device=self.device)

        def score_one(index: int) -> Any:
            return stage(
                image_id=["probe"],
                inputs=[inputs[index]],
                boundary=[boundary_map(works[index])],
                label_map=[maps[index]],
                cluster_id=[np.zeros(int(maps[index].max()) + 1, np.int32)],
                is_asked=[np.zeros(works[index].shape[:2], bool)],
            )

        score_one(0)
        with stage.threads() as threads:
            of_all = range(len(inputs))
            return timed(
                lambda: list(map_ahead(score_one, of_all, threads=threads, ahead=threads))
            )[0]


@dataclass(frozen=True)
class _Probed:
    """Stands for the pool of the probed images."""

    seen: Sequence[NetworkInput]
    threads: int = 1

    def input_of(self, image: PoolImage) -> NetworkInput:
        """Return what the network takes of an image."""
        return self.seen[int(image.image_id)]


class _Decoded:
    """Reads the probed images, which are decoded already."""

    def __init__(self, inputs: list[np.ndarray]) -> None:
        self.inputs = inputs

    def on_input_grid(self, image: PoolImage) -> RGBImage:
        """Return the image on the input grid."""
        return self.inputs[int(image.image_id)]


def timed(work: Callable[[], list[Result]]) -> tuple[float, list[Result]]:
    """Return seconds per result, and the results."""
    started = time.perf_counter()
    results = work()
    return (time.perf_counter() - started) / len(results), results
