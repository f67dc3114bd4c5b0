"""What a run will cost, from a probe of a few images on this machine."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch

from madbal_ray.arrays import RGBImage
from madbal_ray.config.schema import Config
from madbal_ray.data.dataset import Dataset
from madbal_ray.data.members import read_image_bytes
from madbal_ray.data.registry import data_root, open_dataset
from madbal_ray.engine.shards import peak_memory
from madbal_ray.engine.workers import SingleWorker
from madbal_ray.errors import BadImageError, PoolError
from madbal_ray.labels.labeled_points import LabeledPoints
from madbal_ray.models.network import SegmentationNetwork, build_network
from madbal_ray.models.trained import PHASE1, PHASE2, PhaseSpec
from madbal_ray.pool.reader import PoolImage
from madbal_ray.pool.superpixels.embed_superpixels import EmbedSuperpixels
from madbal_ray.pool.superpixels.segment_images import SegmentImages
from madbal_ray.runs.status import format_seconds
from madbal_ray.scoring.score_images import ScoreImages
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from madbal_ray.strategies.strategy import resolve
from madbal_ray.training.batches import BatchMaker
from madbal_ray.training.image_cache import ImageCache
from madbal_ray.training.phase import PhaseTrainer
from madbal_ray.vision.decode import decode_image, resize_image
from madbal_ray.vision.grids import grid_shape

PROBED = 4
TRIED = 20
"""Images looked at, at most, to find `PROBED` good ones."""

SCORE_ROW_BYTES = 40
"""Of a row of `superpixel_scores` on disk, ids and compression included."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class StageForecast:
    """One stage of a run.

    Attributes:
        seconds: of all its rounds, on as many workers as the configuration asks for.
        num_bytes: written.
    """

    stage: str
    seconds: float
    num_bytes: float = 0.0


@dataclass(frozen=True)
class Forecast:
    """Stages of a whole run; nothing is known of what other runs have done already."""

    stages: list[StageForecast]
    num_images: int
    device: str
    memory: int

    def lines(self) -> list[str]:
        """Return the forecast in words, a line per stage."""
        lines = [
            f"forecast from {PROBED} of {self.num_images} pool images on this machine's "
            f"{self.device}; start-ups and stages that are done already not counted"
        ]
        for stage in self.stages:
            size = f", {stage.num_bytes / 2**20:.1f} MiB" if stage.num_bytes else ""
            lines.append(f"  {stage.stage:<20} {format_seconds(stage.seconds)}{size}")
        seconds = sum(stage.seconds for stage in self.stages)
        size = sum(stage.num_bytes for stage in self.stages)
        lines.append(
            f"  {'together':<20} {format_seconds(seconds)}, {size / 2**20:.1f} MiB; the probe took "
            f"{self.memory / 2**30:.1f} GiB of memory"
        )
        return lines


def forecast(config: Config, *, device: str) -> Forecast:
    """Do every step of a run on a few images and multiply.

    Raises:
        DataError, PoolError: the data set cannot be read, or holds no good image.
    """
    before = torch.get_num_threads()
    try:
        with tempfile.TemporaryDirectory() as folder:  # synthetic scenes are drawn into it
            return _Probe(config, Folder(folder), torch.device(device)).forecast()
    finally:
        torch.set_num_threads(before)


class _Probe:
    def __init__(self, config: Config, folder: Folder, device: torch.device) -> None:
        self.config, self.device = config, device
        self.dataset: Dataset = open_dataset(config.data, folder)
        self.root = data_root(config.data, folder)
        self.pool = self.dataset.of_split(config.data.pool_split)
        wanted = config.evaluation.splits
        splits = wanted or [s for s in self.dataset.splits if s != config.data.pool_split]
        self.num_evaluated = sum(len(self.dataset.of_split(split)) for split in splits)

    def forecast(self) -> Forecast:
        config, total = self.config, len(self.pool)
        workers, rounds = config.resources.scoring_workers, config.num_rounds
        strategy = resolve(config.strategy)
        decode, pictures = self._decode()
        inputs, works = self._resize(pictures)
        segment, maps = _timed(
            lambda: [SegmentImages(config.superpixels).segment(w) for w in works]
        )
        embedder = EmbedSuperpixels(config.features, weights=None, device=self.device)
        embed, features = _timed(
            lambda: [embedder.embed(w, m) for w, m in zip(works, maps, strict=True)]
        )
        superpixels = float(np.mean([int(label_map.max()) + 1 for label_map in maps]))
        # each stage that needs pixels decodes again
        stages = [
            StageForecast("images", total * decode / workers / config.resources.decode_threads),
            StageForecast("superpixels", total * (decode + segment) / workers,
                          total * float(np.mean([label_map.nbytes / 8 for label_map in maps]))),
            StageForecast("superpixel_features", total * (decode + embed) / workers,
                          total * float(np.mean([vectors.nbytes for vectors in features]))),
        ]  # fmt: skip
        network = build_network(
            config.model, self.dataset.num_classes, weights=None, seed=0, supports=strategy.supports
        ).to(self.device)
        maker = self._batch_maker(inputs, works)
        stages.append(StageForecast("train phase I", self._train(network, maker, PHASE1)))
        if strategy.has_phase2:
            stages.append(StageForecast("train phase II", self._train(network, maker, PHASE2)))
        network.set_phase("eval")
        torch.set_num_threads(config.train.threads_per_worker)
        forward, _ = _timed(lambda: [self._forward(network, picture) for picture in inputs])
        stages.append(StageForecast("evaluate", rounds * self.num_evaluated * (decode + forward)))
        if strategy.scores_pool and rounds > 1:
            score = self._score(network, inputs, works, maps)
            size = (rounds - 1) * total * superpixels * SCORE_ROW_BYTES
            seconds = (rounds - 1) * total * max(decode, score) / workers
            stages.append(StageForecast("score", seconds, size))
        return Forecast(stages, total, self.device.type, peak_memory())

    def _decode(self) -> tuple[float, list[np.ndarray]]:
        """Return seconds per image and some decoded images, bad ones left out."""
        step = max(1, len(self.pool) // TRIED)
        pictures: list[np.ndarray] = []
        started = time.perf_counter()
        for record in self.pool[::step]:
            try:
                data = read_image_bytes(self.root, record.image_uri)
                pictures.append(decode_image(data, max_pixels=self.config.data.max_pixels))
            except (OSError, BadImageError):
                continue
            if len(pictures) == PROBED:
                break
        if not pictures:
            raise PoolError(f"none of {TRIED} images of the pool could be decoded for the forecast")
        return (time.perf_counter() - started) / len(pictures), pictures

    def _resize(self, pictures: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        grids = self.config.grids
        inputs, works = (
            [resize_image(image, *grid_shape(grid, *image.shape[:2])) for image in pictures]
            for grid in (grids.input, grids.working)
        )
        return inputs, works

    def _batch_maker(self, inputs: list[np.ndarray], works: list[np.ndarray]) -> BatchMaker:
        """Return what makes batches of the probed images, with as many points as a round's."""
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
        return BatchMaker(
            points=points,
            cache=ImageCache(_Decoded(inputs), memory_gib=1.0, disk_gib=0.0),
            config=self.config.train,
            seed=0,
            round_index=0,
            threads=self.config.resources.decode_threads,
        )

    def _train(self, network: SegmentationNetwork, maker: BatchMaker, phase: PhaseSpec) -> float:
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
        seconds = trainer.step_seconds(network) / self.config.train.num_workers
        steps = math.ceil(len(self.pool) / settings.batch_size)
        return self.config.num_rounds * settings.epochs * steps * seconds

    def _forward(self, network: SegmentationNetwork, image: np.ndarray) -> Any:
        with torch.inference_mode():
            tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float().to(self.device)
            return network(tensor, supports=False).logits.cpu()

    def _score(
        self,
        network: SegmentationNetwork,
        inputs: list[np.ndarray],
        works: list[np.ndarray],
        maps: list[np.ndarray],
    ) -> float:
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
                input_image=inputs[index][None],
                work_image=[works[index]],
                label_map=[maps[index]],
                cluster_id=[np.zeros(int(maps[index].max()) + 1, np.int32)],
                is_asked=[np.zeros(works[index].shape[:2], bool)],
            )

        score_one(0)
        return _timed(lambda: [score_one(index) for index in range(len(inputs))])[0]


class _Decoded:
    """Reads the probed images, which are decoded already."""

    def __init__(self, inputs: list[np.ndarray]) -> None:
        self.inputs = inputs

    def on_input_grid(self, image: PoolImage) -> RGBImage:
        """Return the image on the input grid."""
        return self.inputs[int(image.image_id)]


def _timed(work: Callable[[], list[Result]]) -> tuple[float, list[Result]]:
    """Return seconds per result, and the results."""
    started = time.perf_counter()
    results = work()
    return (time.perf_counter() - started) / len(results), results
