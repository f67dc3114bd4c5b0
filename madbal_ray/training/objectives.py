"""What a phase of training minimises, by name (`madbal_ray.seams.OBJECTIVES`)."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from madbal_ray.config.section import Section
from madbal_ray.config.training import LossWeights, Phase2Config, PhaseConfig
from madbal_ray.engine.workers import TrainContext
from madbal_ray.models.network import NetworkOutput
from madbal_ray.training.batches import PLAIN_VIEW, TrainBatch
from madbal_ray.training.loss_prediction import loss_prediction_loss
from madbal_ray.training.point_loss import point_cross_entropy
from madbal_ray.transfer import to_device
from madbal_ray.vision.points import sample_points

SUPPORT_MAPS = ("head_logits", "maturity_weights", "error_logits")


@dataclass(frozen=True)
class View:
    """One augmented view of a worker's images: what the network said, and the points on it."""

    output: NetworkOutput
    batch: TrainBatch


class Objective(abc.ABC):
    """What a phase minimises; one is made at the start of a phase.

    Attributes:
        views: names of the views of every image that a step needs; each name draws
            augmentations of its own. The first one is the plain training view.
        maps: fields of `NetworkOutput` that are read.
        needs_targets: Y_L and delta of every labelled pixel are recorded before the phase.
        options: `train.<phase>.objective_options`.
        class_count: labelled pixels of each class, up to the last that has any.
    """

    views: ClassVar[tuple[str, ...]] = (PLAIN_VIEW,)
    maps: ClassVar[tuple[str, ...]] = ("logits",)
    needs_targets: ClassVar[bool] = False

    def __init__(self, config: PhaseConfig, context: TrainContext) -> None:
        self.config = config
        self.context = context
        self.options: dict[str, Any] = config.objective_options

    @classmethod
    def problems(cls, options: Mapping[str, Any]) -> Iterator[str]:
        """Yield what is wrong with `objective_options`, before anything runs."""
        yield from ()

    def begin(self, class_ids: np.ndarray) -> None:
        """Hear of the class of every labelled pixel, before the first step.

        Args:
            class_ids: [P], of all workers' points.
        """
        self.class_count = np.bincount(class_ids)

    @classmethod
    def needs_supports(cls) -> bool:
        """Tell whether the network's heads of phase II are run."""
        return any(name in SUPPORT_MAPS for name in cls.maps)

    @abc.abstractmethod
    def loss(self, views: Sequence[View], *, progress: float) -> Tensor:
        """Return this worker's part of the loss: the parts of all workers add up to it.

        Args:
            views: in the order of `Objective.views`.
            progress: share of the phase's steps that are done, 0 to below 1.
        """


class CrossEntropy(Objective):
    """The mean cross-entropy over the batch's points (MADBAL section 3.1, phase I)."""

    @classmethod
    def problems(cls, options: Mapping[str, Any]) -> Iterator[str]:
        """Yield that there are no options."""
        return _no_options(options, "cross_entropy")

    def loss(self, views: Sequence[View], *, progress: float) -> Tensor:
        """Return this worker's sum over its points, divided by the points of all workers."""
        (view,) = views
        count = torch.full((), len(view.batch.y), device=self.context.device)
        total = self.context.all_reduce(count).clamp(min=1)
        return self.of_points(view).sum() / total

    def of_points(self, view: View) -> Tensor:
        """Return the loss of each point, float32 [P], in nats."""
        return cross_entropy(view.output.logits, view.batch)


class ClassWeights(Section):
    """Options of ``weighted_cross_entropy``."""

    exponent: Annotated[float, Field(ge=0)] = Field(
        default=0.5, description="gamma of the weights n_c^-gamma; 0: all classes alike"
    )


class WeightedCrossEntropy(CrossEntropy):
    """Cross-entropy with weights n_c^-gamma, n_c the labelled pixels of a point's class.

    Weights are scaled so that their mean over all points is 1: the learning rate keeps its
    meaning, and gamma = 0 is `CrossEntropy`.
    """

    @classmethod
    def problems(cls, options: Mapping[str, Any]) -> Iterator[str]:
        """Yield what is wrong with the options."""
        try:
            ClassWeights.model_validate(options)
        except ValueError as error:
            yield f"objective_options of weighted_cross_entropy: {error}"

    def begin(self, class_ids: np.ndarray) -> None:
        """Compute the weights."""
        super().begin(class_ids)
        count = self.class_count.astype(np.float64)
        exponent = ClassWeights.model_validate(self.options).exponent
        weight = np.where(count > 0, np.maximum(count, 1) ** -exponent, 0.0)
        weight *= count.sum() / (count * weight).sum()
        self._weight = torch.tensor(weight, dtype=torch.float32, device=self.context.device)

    def of_points(self, view: View) -> Tensor:
        """Return the weighted loss of each point."""
        classes = to_device(view.batch.class_id, self.context.device)
        return super().of_points(view) * self._weight[classes]


class LossPrediction(Objective):
    """Eq. 3: lambda_0 L_center + lambda_1 L_boundary + the cross-entropies of three heads."""

    maps: ClassVar[tuple[str, ...]] = SUPPORT_MAPS
    needs_targets: ClassVar[bool] = True

    @classmethod
    def problems(cls, options: Mapping[str, Any]) -> Iterator[str]:
        """Yield that there are no options."""
        return _no_options(options, "loss_prediction")

    def loss(self, views: Sequence[View], *, progress: float) -> Tensor:
        """Return this worker's part of Eq. 3."""
        ((output, batch),) = ((view.output, view.batch) for view in views)
        assert isinstance(self.config, Phase2Config)
        weights: LossWeights = self.config.loss_weights
        device = self.context.device
        assert batch.is_boundary is not None
        assert batch.is_target is not None
        assert output.error_logits is not None
        num_boundary = int(batch.is_boundary.sum())
        counts = torch.tensor([num_boundary, len(batch.y) - num_boundary])
        if self.context.world_size > 1:  # alone, the host need not wait for the device
            counts = self.context.all_reduce(counts.to(device))
        all_boundary, all_center = counts.tolist()
        boundary, center = loss_prediction_loss(
            error_logits=sample_points(
                output.error_logits,
                point_batch=to_device(batch.batch, device),
                point_y=to_device(batch.y, device),
                point_x=to_device(batch.x, device),
                height=batch.crop[0],
                width=batch.crop[1],
            ),
            target=to_device(batch.is_target, device),
            is_boundary=to_device(batch.is_boundary, device),
            num_boundary=all_boundary,
            num_center=all_center,
        )
        loss = weights.center * center + weights.boundary * boundary
        total = max(1, all_boundary + all_center)
        of_heads = (weights.shallow, weights.semi, weights.almost)
        for weight, logits in zip(of_heads, output.head_logits, strict=False):
            loss = loss + weight * cross_entropy(logits, batch).sum() / total
        return loss


def _no_options(options: Mapping[str, Any], objective: str) -> Iterator[str]:
    if options:
        yield f"objective_options: {objective} has none, given {', '.join(map(str, options))}"


def cross_entropy(logits: Tensor, batch: TrainBatch) -> Tensor:
    """Return the cross-entropy of each of the batch's points, float32 [P], in nats."""
    device = logits.device
    return point_cross_entropy(
        logits=logits,
        point_batch=to_device(batch.batch, device),
        point_y=to_device(batch.y, device),
        point_x=to_device(batch.x, device),
        point_class=to_device(batch.class_id, device),
        height=batch.crop[0],
        width=batch.crop[1],
    )
