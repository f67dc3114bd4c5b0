"""What a run will cost, from a probe of a few images on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from madbal_ray.config.schema import Config
from madbal_ray.engine.shards import peak_memory
from madbal_ray.loop.probe import PROBED, Probe, timed
from madbal_ray.models.network import build_network
from madbal_ray.models.trained import FROZEN_HEAD, PHASE1, PHASE2
from madbal_ray.pool.features.prepare_features import keeps_features
from madbal_ray.pool.features.stored_taps import NetworkInput
from madbal_ray.pool.superpixels.embed_superpixels import EmbedSuperpixels
from madbal_ray.pool.superpixels.segment_images import SegmentImages
from madbal_ray.runs.status import format_seconds
from madbal_ray.seams import ORACLES
from madbal_ray.state.storage import Folder
from madbal_ray.strategies.strategy import resolve
from madbal_ray.training.adversarial import THUMBNAIL, learn_to_tell
from madbal_ray.vision.decode import resize_image

SCORE_ROW_BYTES = 40
"""Of a row of `superpixel_scores` on disk, ids and compression included."""


@dataclass(frozen=True)
class StageForecast:
    """One stage of a run.

    Attributes:
        seconds: of all its rounds, on as many workers as the configuration asks for.
        num_bytes: written.
        rounds: in how many rounds it comes; 0: once, for the pool.
    """

    stage: str
    seconds: float
    num_bytes: float = 0.0
    rounds: int = 0


@dataclass(frozen=True)
class Forecast:
    """Stages of a whole run; nothing is known of what other runs have done already."""

    stages: list[StageForecast]
    num_images: int
    device: str
    memory: int

    @property
    def round_seconds(self) -> float:
        """Return the seconds of a round that asks, labels, trains and measures."""
        return sum(stage.seconds / stage.rounds for stage in self.stages if stage.rounds)

    def lines(self) -> list[str]:
        """Return the forecast in words, a line per stage."""
        lines = [
            f"forecast from {PROBED} of {self.num_images} pool images on this machine's "
            f"{self.device}; start-ups and stages that are done already not counted"
        ]
        for stage in self.stages:
            size = f", {stage.num_bytes / 2**20:.1f} MiB" if stage.num_bytes else ""
            lines.append(f"  {stage.stage:<20} {format_seconds(stage.seconds)}{size}")
        lines.append(f"  {'a round':<20} {format_seconds(self.round_seconds)}")
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
            probe = Probe(config, Folder(folder), torch.device(device))
            return Forecast(forecast_stages(probe), len(probe.pool), device, peak_memory())
    finally:
        torch.set_num_threads(before)


def forecast_stages(probe: Probe) -> list[StageForecast]:
    """Return what every stage of the probed configuration's run will take."""
    config, total = probe.config, len(probe.pool)
    asked, rounds = config.resources.scoring_workers, config.num_rounds
    workers = 1 if asked == "auto" else asked  # of a cluster that is not here to be counted
    strategy = resolve(config.strategy)
    decode, pictures = probe.decode()
    inputs, works = probe.resize(pictures)
    segmenter = SegmentImages(config.superpixels)
    embedder = EmbedSuperpixels(config.features, weights=None, device=probe.device)
    embedder.embed(works[0], segmenter.segment(works[0]))  # what is to be compiled is, untimed
    segment, maps = timed(lambda: [segmenter.segment(work) for work in works])
    embed, features = timed(
        lambda: [embedder.embed(w, m) for w, m in zip(works, maps, strict=True)]
    )
    superpixels = float(np.mean([int(label_map.max()) + 1 for label_map in maps]))
    # superpixels and their features come from one decoded image
    stages = [
        StageForecast("images", total * decode / workers / config.resources.decode_threads),
        StageForecast("superpixels", total * (decode + segment) / workers,
                      total * float(np.mean([label_map.nbytes / 8 for label_map in maps]))),
        StageForecast("superpixel_features", total * embed / workers,
                      total * float(np.mean([vectors.nbytes for vectors in features]))),
    ]  # fmt: skip
    asked, points = (sum(counts) for counts in zip(*map(probe.asked, range(rounds)), strict=True))
    mask = probe.decode_masks()
    if ORACLES[config.oracle.kind].needs_masks:
        seconds = asked * mask / workers / config.resources.decode_threads
        stages.append(StageForecast("labels", seconds, rounds=rounds))
    network = build_network(
        config.model, probe.dataset.num_classes, weights=None, seed=0, supports=strategy.supports
    ).to(probe.device)
    seen: Sequence[NetworkInput] = inputs
    if not config.model.train_backbone:
        torch.set_num_threads(config.score.threads_per_worker)
        embed, taps = timed(lambda: [probe.taps(network, picture) for picture in inputs])
        count = total + probe.num_evaluated
        size = count * float(np.mean([sum(t.nbytes for t in of_one) for of_one in taps]))
        mirrored = total if config.train.mirrored_points else 0
        of_mirrored = size / count * mirrored
        is_kept = keeps_features(config.pool, size + of_mirrored)
        delta = float(np.mean([work[..., 0].size / 8 for work in works]))  # in bits
        size, of_mirrored = size + count * delta, of_mirrored + mirrored * delta
        seconds = (count if is_kept else 0) * (decode + embed) / workers
        stages.append(StageForecast("backbone_features", seconds, size if is_kept else 0.0))
        if is_kept and mirrored:
            seconds *= mirrored / count
            stages.append(StageForecast("mirrored_features", seconds, of_mirrored))
        gather = decode + embed * (2 if mirrored else 1)
        if is_kept:
            seen, decode = taps, probe.read_taps(taps, works)
            gather = decode * (2 if mirrored else 1)
        values = points * sum(network.backbone.channels) * (2 if mirrored else 1)
        size = values * np.dtype(np.float16).itemsize
        stages.append(
            StageForecast("point_features", asked * gather / workers, size, rounds=rounds)
        )
    maker = probe.batch_maker(network, inputs, works, seen)
    phases = {"train phase I": PHASE1} | ({"train phase II": PHASE2} if strategy.has_phase2 else {})
    if config.train.init == "frozen_head":
        phases = {"train frozen head": FROZEN_HEAD} | phases
    for name, phase in phases.items():
        stages.append(StageForecast(name, probe.train(network, maker, phase), rounds=rounds))
    network.set_phase("eval")
    torch.set_num_threads(config.train.threads_per_worker)
    measure, _ = timed(lambda: probe.measure(network, seen, pictures))
    seconds = rounds * probe.num_evaluated * (decode + mask + measure)
    stages.append(StageForecast("evaluate", seconds, rounds=rounds))
    if strategy.scores_pool and rounds > 1:
        score = probe.score(network, seen, works, maps)
        size = (rounds - 1) * total * superpixels * SCORE_ROW_BYTES
        seconds = (rounds - 1) * total * max(decode, score) / workers
        stages.append(StageForecast("score", seconds, size, rounds - 1))
    steps = strategy.comparing_steps(config)
    if steps and rounds > 1:
        shrunk = np.stack([resize_image(picture, THUMBNAIL, THUMBNAIL) for picture in pictures])
        seconds = (rounds - 1) * total * decode / workers / config.resources.decode_threads
        size = (rounds - 1) * total * shrunk[0].nbytes
        stages.append(StageForecast("thumbnails", seconds, size, rounds - 1))
        torch.set_num_threads(1)  # as the stage does
        generator = np.random.default_rng(0)
        step, _ = timed(lambda: [learn_to_tell(shrunk, shrunk, steps=1, generator=generator)])
        stages.append(StageForecast("familiarity", (rounds - 1) * steps * step, rounds=rounds - 1))
    return stages
