"""Checks across sections: what does not go together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from madbal_ray.config.section import AUTO
from madbal_ray.config.training import AugmentConfig, FrozenHeadConfig, PhaseConfig, TrainConfig
from madbal_ray.seams import OBJECTIVES, ORACLES, STRATEGIES

if TYPE_CHECKING:
    from madbal_ray.config.schema import Config

OF_SEVERAL_SIZES = ("voc2012", "folder")
"""Data sets whose images differ in size; of others the training looks at what is labelled."""


def combinations(config: Config) -> Iterator[str]:
    """Yield what does not go together across sections, a line each."""
    if config.pool.shard_images % config.score.batch_size:
        yield (
            f"pool.shard_images = {config.pool.shard_images} is not a multiple of "
            f"score.batch_size = {config.score.batch_size}, so batches would depend on sharding"
        )
    yield from _sizes(config)
    yield from _frozen(config)
    yield from _single_images(config)
    workers = config.train.num_workers
    for option, size in batch_sizes(config).items():
        if workers != AUTO and size % workers:
            yield f"{option} = {size} is not a multiple of train.num_workers = {workers}"
    yield from STRATEGIES[config.strategy.name].problems(config)
    yield from ORACLES[config.oracle.kind].problems(config)
    yield from _objectives(config)
    budget = config.budget
    labels_all = budget.initial_pixels_per_image == "all" and budget.initial_images is None
    if labels_all and config.num_rounds > 1:
        yield (
            f"budget.initial_pixels_per_image = all labels everything in round 0, which leaves "
            f"nothing for the other {config.num_rounds - 1} rounds: set num_rounds = 1"
        )
    if config.evaluation.splits and config.data.pool_split in config.evaluation.splits:
        yield (
            f"evaluation.splits holds the pool's own split {config.data.pool_split!r}: a model "
            "would be measured on pixels that it may have been trained on"
        )


def _sizes(config: Config) -> Iterator[str]:
    """Yield that images of several sizes cannot form a batch."""
    if config.data.name not in OF_SEVERAL_SIZES or isinstance(config.grids.input, tuple):
        return
    if config.model.learns_from_points:
        return
    if not config.model.train_backbone:
        yield (
            "images of different sizes cannot form a batch: set grids.input = [height, width], "
            "or model.head = hypercolumn"
        )
    elif config.train.crop is None:
        yield (
            "images of different sizes cannot form a batch: set train.crop = [height, width], or a "
            "fixed grids.input"
        )


def batch_sizes(config: Config) -> dict[str, int]:
    """Return option -> items of a batch over all workers, of the phases that are trained."""
    option = "batch_points" if config.model.learns_from_points else "batch_size"
    return {
        f"train.{name}.{option}": getattr(getattr(config.train, name), option)
        for name in _trained_phases(config)
    }


def _trained_phases(config: Config) -> list[str]:
    phases = ["phase1", *(["phase2"] if STRATEGIES[config.strategy.name].has_phase2 else [])]
    return phases + (["frozen_head"] if config.train.init == "frozen_head" else [])


def _objectives(config: Config) -> Iterator[str]:
    """Yield what is wrong with objectives; usual ones without options are not looked at."""
    usual = TrainConfig()
    for name in _trained_phases(config):
        phase = getattr(config.train, name)
        if not phase.objective_options and phase.objective == getattr(usual, name).objective:
            continue
        objective = OBJECTIVES[phase.objective]
        for problem in objective.problems(phase.objective_options):
            yield f"train.{name}.{problem}"
        if objective.needs_supports() != (name == "phase2"):
            yield (
                f"train.{name}.objective = {phase.objective} reads {', '.join(objective.maps)}; "
                + (
                    "phase 2 trains head_logits, maturity_weights and error_logits alone"
                    if name == "phase2"
                    else "only phase 2 trains what is not logits: set train.phase2.objective"
                )
            )


def _single_images(config: Config) -> Iterator[str]:
    """Yield what trains a head that normalises over a batch on batches of one."""
    head = config.model.head
    if config.model.learns_from_points:
        for option, size in batch_sizes(config).items():
            if size == 1:
                yield f"{option} = 1 is too small: head {head} normalises over the batch"
        return
    if head not in ("deeplabv3", "deeplabv3plus"):
        return
    for option, size in batch_sizes(config).items():
        if size == 1:
            yield (
                f"{option} = 1 is too small for head {head}, which normalises over "
                "the batch what it pools over an image: set 2 or more, or model.head: lraspp"
            )


def _frozen(config: Config) -> Iterator[str]:
    """Yield what does not go with a frozen backbone, or only with one."""
    train = config.train
    if train.mirrored_points and not config.model.learns_from_points:
        yield (
            "train.mirrored_points needs head hypercolumn on a frozen backbone "
            "(model.train_backbone: false); elsewhere train.augment.flip mirrors images"
        )
    for name in ("frozen_head", "phase1", "phase2"):
        phase = getattr(train, name)
        if phase.steps is not None and not config.model.learns_from_points:
            yield (
                f"train.{name}.steps counts batches of points, which only head hypercolumn on a "
                "frozen backbone (model.train_backbone: false) learns from; set epochs instead"
            )
        if phase.batch_points != PhaseConfig().batch_points and not config.model.learns_from_points:
            yield (
                f"train.{name}.batch_points has no effect but with head hypercolumn on a frozen "
                "backbone (model.train_backbone: false); set batch_size instead"
            )
    if train.frozen_head.backbone_rate_factor != FrozenHeadConfig().backbone_rate_factor:
        yield (
            "train.frozen_head.backbone_rate_factor has no effect: the backbone does not learn "
            "then; leave it out"
        )
    if train.init != "frozen_head" and train.frozen_head != FrozenHeadConfig():
        yield (
            f"train.frozen_head has no effect on train.init = {train.init}: leave it out, or set "
            "train.init: frozen_head"
        )
    if config.model.train_backbone:
        return
    if train.init == "frozen_head":
        yield (
            "train.init = frozen_head is the start of fine-tuning, and a frozen backbone is not "
            "tuned: leave it out, or set model.train_backbone: true"
        )
    if train.augment != AugmentConfig():
        yield (
            "train.augment has no effect on a frozen backbone, whose features are computed once: "
            "leave it out, or set model.train_backbone: true"
        )
    if train.crop is not None:
        yield (
            "train.crop has no effect on a frozen backbone: leave it out, or set "
            "model.train_backbone: true"
        )
    if train.precision != config.score.precision:
        yield (
            f"a frozen backbone's features have one precision: train.precision = "
            f"{train.precision} and score.precision = {config.score.precision} must be the same"
        )
