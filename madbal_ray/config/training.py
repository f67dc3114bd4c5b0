"""Options of the network and its training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    model_validator,
)

from madbal_ray.config.section import (
    RUNTIME,
    Fraction,
    NonNegative,
    Positive,
    Section,
    known,
)
from madbal_ray.seams import (
    BACKBONES,
    HEADS,
    OBJECTIVES,
)

Supports = Literal["full", "averaging", "no_maturity", "none"]
"""Which active-learning parts a network has (paper section 4, ablations)."""

BackboneName = Annotated[str, known(BACKBONES)]
HeadName = Annotated[str, known(HEADS)]
ObjectiveName = Annotated[str, known(OBJECTIVES)]


class ModelConfig(Section):
    """The segmentation network (method 1)."""

    backbone: BackboneName = "mobilenet_v2"
    head: HeadName = "lraspp"
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="on the deepest features, in training (and in bald's passes)"
    )
    weights: str = Field(
        default="none",
        json_schema_extra=RUNTIME,
        description="torchvision weights name | file | none (random); keys hold the file's sha256",
    )
    output_stride: Literal[8, 16, 32] = Field(
        default=16, description="input pixels per deepest feature"
    )


class AugmentConfig(Section):
    """Training augmentation; points move with the image, exactly (method 2)."""

    flip: bool = True
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        default=(1.0, 1.0), description="range of the resize factor, log-uniform"
    )
    blur_probability: Fraction = 0.5
    color_jitter: Fraction = Field(
        default=0.0, description="greatest change of brightness, contrast, saturation (hue: / 4)"
    )
    grayscale_probability: Fraction = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> AugmentConfig:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"train.augment.scale must rise, got {list(self.scale)}")
        return self


class PhaseConfig(Section):
    """One training phase; default: SGD, learning rate decaying linearly to 0 (method 2)."""

    objective: ObjectiveName = Field(default="cross_entropy", description="what is minimised")
    objective_options: dict[str, Any] = Field(
        default_factory=dict, description="of a plug-in's own objective"
    )
    epochs: NonNegative = 150
    batch_size: Positive = Field(default=10, description="images, over all training workers")
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    backbone_rate_factor: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="of the backbone's learning rate; PixelPick: 0.1"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.9, description="sgd only")
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["poly", "steps"] = "poly"
    poly_power: Annotated[float, Field(ge=0)] = Field(default=1.0, description="1: linear to 0")
    step_epochs: tuple[Positive, ...] = Field(
        default=(), description="schedule steps: the rate falls to a tenth after these epochs"
    )


class LossWeights(Section):
    """The weights lambda_0 ... lambda_4 of Eq. 3."""

    center: Annotated[float, Field(ge=0)] = Field(default=1.0, description="lambda_0")
    boundary: Annotated[float, Field(ge=0)] = Field(default=1.0, description="lambda_1")
    shallow: Annotated[float, Field(ge=0)] = Field(default=0.05, description="lambda_2")
    semi: Annotated[float, Field(ge=0)] = Field(default=0.1, description="lambda_3")
    almost: Annotated[float, Field(ge=0)] = Field(default=0.15, description="lambda_4")


class Phase2Config(PhaseConfig):
    """Phase II: maturity heads, weight prediction block, loss prediction module."""

    objective: ObjectiveName = Field(default="loss_prediction", description="Eq. 3")
    epochs: NonNegative = 30
    batch_size: Positive = Field(default=12, description="images, over all training workers")
    loss_weights: LossWeights = LossWeights()


class TrainConfig(Section):
    """Training in two phases (method 2)."""

    init: Literal["pretrained", "previous"] = Field(
        default="pretrained",
        description="weights at the start of a round: model.weights | last round's",
    )
    crop: tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=32)]] | None = Field(
        default=None,
        description="random crop of the input, height x width in pixels; null: whole image",
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="autocast of the forward pass"
    )
    compile: bool = Field(
        default=False, description="torch.compile; pays where steps are many (docs/performance.md)"
    )
    num_workers: Positive = Field(default=1, description="training workers (world size)")
    threads_per_worker: Positive = Field(
        default=2, description="torch threads of a training worker"
    )
    keep_epoch: Literal["last", "best"] = Field(
        default="last",
        description="which epoch's metrics are reported; the last one always asks",
    )
    select_split: str = Field(
        default="val", description="split that `best` is chosen on; `test` reproduces PixelPick"
    )
    augment: AugmentConfig = AugmentConfig()
    phase1: PhaseConfig = PhaseConfig()
    phase2: Phase2Config = Phase2Config()

    @model_validator(mode="after")
    def _divisible(self) -> TrainConfig:
        for name in ("phase1", "phase2"):
            size = getattr(self, name).batch_size
            if size % self.num_workers:
                raise ValueError(
                    f"train.{name}.batch_size = {size} is not a multiple of "
                    f"train.num_workers = {self.num_workers}"
                )
        return self
