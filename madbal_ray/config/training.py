"""Options of the network and its training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    model_validator,
)

from madbal_ray.config.section import (
    ADDED,
    AUTO,
    RUNTIME,
    Count,
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

    backbone: BackboneName = Field(
        default="mobilenet_v2", description="also timm:NAME, any network of timm (extra `timm`)"
    )
    train_backbone: bool = Field(
        default=True,
        json_schema_extra=ADDED,
        description="false: frozen; the features of every image are computed once (train.augment "
        "does not apply)",
    )
    head: HeadName = "lraspp"
    hidden: Positive = Field(
        default=256, json_schema_extra=ADDED, description="width of head hypercolumn"
    )
    head_stride: Literal[4, 8, 16] = Field(
        default=8,
        json_schema_extra=ADDED,
        description="grid of head hypercolumn: that of the first, second or third tap",
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="in training (and in bald's passes): on the deepest features; hypercolumn: on "
        "the hidden layer; the DeepLab heads have torchvision's own dropout of 0.5 besides",
    )
    weights: str = Field(
        default="none",
        json_schema_extra=RUNTIME,
        description="torchvision weights name | pretrained (timm) | file | none (random); keys "
        "hold the file's sha256",
    )
    output_stride: Literal[8, 16, 32] = Field(
        default=16,
        description="input pixels per deepest feature; of timm's, where the network can be dilated",
    )

    @property
    def is_pointwise(self) -> bool:
        """Tell whether the heads see each pixel's own features alone."""
        return self.head == "hypercolumn"

    @property
    def learns_from_points(self) -> bool:
        """Tell whether training needs the features of the labelled points and no image."""
        return self.is_pointwise and not self.train_backbone


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
        default_factory=dict, description="the objective's own, which checks them"
    )
    epochs: NonNegative = Field(
        default=150, description="passes over the labelled images (or points)"
    )
    batch_size: Positive = Field(default=10, description="images, over all training workers")
    steps: NonNegative | None = Field(
        default=None,
        json_schema_extra=ADDED,
        description="batches in all, in place of epochs; of a head that learns from points alone "
        "(hypercolumn on a frozen backbone)",
    )
    batch_points: Positive = Field(
        default=512,
        json_schema_extra=ADDED,
        description="points, over all training workers, where a head learns from them",
    )
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    backbone_rate_factor: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="of the backbone's learning rate; PixelPick: 0.1"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.9, description="sgd only")
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["poly", "steps", "one_cycle"] = Field(
        default="poly",
        description="one_cycle: from a 25th up to the rate in 30 % of the steps, then down to 0, "
        "both by a cosine",
    )
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


class FrozenHeadConfig(PhaseConfig):
    """Linear probing before fine-tuning: the main head learns while the backbone is frozen.

    Source: Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features (LP-FT).
    """

    epochs: NonNegative = 10
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 0.002
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    schedule: Literal["poly", "steps", "one_cycle"] = "one_cycle"


class TrainConfig(Section):
    """Training in two phases (method 2)."""

    points_per_image: Positive = Field(
        default=1500,
        json_schema_extra=ADDED,
        description="points an image and round that a head learns from on a frozen backbone, drawn "
        "where regions or whole images were labelled",
    )
    mirrored_points: bool = Field(
        default=False,
        json_schema_extra=ADDED,
        description="on a frozen backbone: a head learns from the features of the mirrored image, "
        "too, a second set that the pool keeps",
    )
    init: Literal["pretrained", "previous", "frozen_head"] = Field(
        default="pretrained",
        description="weights at the start of a round: model.weights | last round's | model.weights "
        "and a head that was trained first, while the backbone was frozen",
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
    num_workers: Count = Field(
        default=1,
        description="training workers (world size); auto: the GPUs that there are when the run "
        "begins, as far as the batch sizes divide by them",
    )
    min_workers: Positive | None = Field(
        default=None,
        json_schema_extra=ADDED,
        description="elastic: train with as few while nodes are missing; the weights then depend "
        "on which were there. null: wait for all",
    )
    threads_per_worker: Count = Field(
        default=2,
        description="torch threads of a training worker; auto: cores that are free where the run "
        "begins",
    )
    keep_epoch: Literal["last", "best"] = Field(
        default="last",
        description="which epoch's metrics are reported; the last one always asks",
    )
    select_split: str = Field(
        default="val", description="split that `best` is chosen on; `test` reproduces PixelPick"
    )
    augment: AugmentConfig = AugmentConfig()
    frozen_head: FrozenHeadConfig = Field(
        default=FrozenHeadConfig(),
        json_schema_extra=ADDED,
        description="the training before phase I of init: frozen_head",
    )
    phase1: PhaseConfig = PhaseConfig()
    phase2: Phase2Config = Phase2Config()

    @model_validator(mode="after")
    def _enough_workers(self) -> TrainConfig:
        least = self.min_workers
        if least is not None and self.num_workers != AUTO and least > self.num_workers:
            raise ValueError(
                f"train.min_workers = {least} is more than train.num_workers = "
                f"{self.num_workers}: it is how few will do while nodes are missing"
            )
        return self
