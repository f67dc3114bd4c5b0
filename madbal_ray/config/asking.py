"""Options of a round's questions and answers: score, budget, strategy, oracle."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    model_validator,
)

from madbal_ray.config.section import (
    ADDED,
    RUNTIME,
    Count,
    Fraction,
    Positive,
    Section,
    known,
)
from madbal_ray.seams import (
    ORACLES,
    STRATEGIES,
)

OracleName = Annotated[str, known(ORACLES)]
StrategyName = Annotated[str, known(STRATEGIES)]


class ScoreConfig(Section):
    """Scoring of the pool (method 3)."""

    batch_size: Positive = Field(default=4, description="images through the network at once")
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = Field(
        default=False, description="torch.compile; pays where images are many and of one size"
    )
    threads_per_worker: Count = Field(
        default=1,
        description="torch threads of a scoring worker; auto: cores that are free where the run "
        "begins",
    )


class BudgetConfig(Section):
    """How many pixels are asked for (paper section 4)."""

    initial_pixels_per_image: Positive | Literal["all"] = Field(
        default=20, description="B0, at random, round 0; all: full supervision"
    )
    initial_images: Positive | None = Field(
        default=None,
        json_schema_extra=ADDED,
        description="images of round 0, B0 pixels each; null: all of the pool",
    )
    initial: Literal["random", "spread"] = Field(
        default="random",
        json_schema_extra=ADDED,
        description="random: initial_images at random, B0 random pixels in each; spread: as many "
        "images and pixels in all, shared equally by the clusters of superpixels",
    )
    pixels_per_image: Positive = Field(
        default=20,
        description="B, every later round; beside total_pixels, what an image can offer at least",
    )
    total_pixels: Positive | None = Field(
        default=None,
        json_schema_extra=ADDED,
        description="scope pool: pixels of every later round over the whole pool; null: "
        "pixels_per_image times its images",
    )
    scope: Literal["image", "pool"] = Field(
        default="image",
        description="image: B pixels in every image (the paper's); pool: N times B over the "
        "pool, the best superpixels of each cluster wherever they are",
    )
    max_per_image: Positive | None = Field(
        default=None, description="scope pool: pixels in one image at most; null: no limit"
    )
    rounding: Literal["largest_remainder", "ceil"] = Field(
        default="largest_remainder", description="of Eq. 8; ceil is the paper's"
    )
    images_per_round: Positive = Field(
        default=10, description="whole images a round, for image-level strategies"
    )

    @model_validator(mode="after")
    def _fits_scope(self) -> BudgetConfig:
        for name in ("max_per_image", "total_pixels"):
            if self.scope == "image" and getattr(self, name) is not None:
                raise ValueError(f"budget.{name} is for budget.scope = pool")
        asks_all = self.initial_pixels_per_image == "all" and self.initial_images is None
        if self.initial == "spread" and asks_all:
            raise ValueError(
                "budget.initial = spread has nothing to spread where every pixel of every image "
                "is asked: set budget.initial_images, or leave it out"
            )
        if self.max_per_image is None or self.total_pixels is not None:
            return self
        if self.max_per_image < self.pixels_per_image:
            raise ValueError(
                f"budget.max_per_image = {self.max_per_image} is below budget.pixels_per_image = "
                f"{self.pixels_per_image}, so the budget could never be spent"
            )
        return self

    @property
    def most_per_image(self) -> int:
        """Return how many pixels an image must be able to offer."""
        return self.max_per_image or self.pixels_per_image

    def total(self, num_images: int) -> int:
        """Return the pixels of a later round over a pool of `num_images`."""
        if self.total_pixels is not None:
            return self.total_pixels
        return self.pixels_per_image * num_images


class NoiseConfig(Section):
    """Wrong answers of a simulated annotator."""

    share: Fraction = Field(default=0.0, description="of answers that are wrong")
    boundary_share: Fraction | None = Field(
        default=None, description="the same next to another class (5 x 5); null: no difference"
    )
    confusion: tuple[tuple[Annotated[float, Field(ge=0)], ...], ...] | None = Field(
        default=None,
        description="C x C weights of what a class is mistaken for; null: all others alike",
    )


class OracleConfig(Section):
    """Who answers (method 6). `oracle: people` is short for `oracle: {kind: people}`."""

    kind: OracleName = "simulated"
    options: dict[str, Any] = Field(
        default_factory=dict, description="of a plug-in's own oracle, which checks them"
    )
    noise: NoiseConfig = NoiseConfig()
    skip_void: bool = Field(
        default=False, description="never ask void pixels (PixelPick's peek at the mask)"
    )
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0,
        json_schema_extra=RUNTIME,
        description="people: a round goes on when this share of its queries is answered; what "
        "comes later enters the next round",
    )
    store: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        json_schema_extra=RUNTIME,
        description="people: file of their answers, on a local disk; null: <run>/answers.sqlite",
    )


class StrategyConfig(Section):
    """Which pixels to ask for. `strategy: margin` is short for `strategy: {name: margin}`.

    The options below `top_share` change MADBAL away from the paper (docs/strategies.md).
    """

    name: StrategyName = "madbal"
    top_share: Fraction | None = Field(
        default=None,
        description="pixel-level scores: B at random among this share of the whole image's most "
        "uncertain pixels (PixelPick: 0.05); null: the B most uncertain",
    )
    mc_samples: Annotated[int, Field(ge=2)] = Field(default=8, description="passes of dropout")
    normalize_terms: bool = Field(default=False, description="H / ln C + sum W JS / ln 2 in Eq. 4")
    uncertainty: Literal["entropy", "margin"] = Field(
        default="entropy", description="margin: 1 - (p1 - p2) in place of H in Eq. 4"
    )
    balance_exponent: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="gamma of exp(-gamma P) in Eq. 6"
    )
    cluster_size_exponent: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="alpha: cluster weights u(cl) * n_k^alpha in Eq. 8"
    )
    pixel_share: Fraction | None = Field(
        default=None,
        description="a random pixel among this share of the chosen superpixel's most uncertain; "
        "null: the most uncertain one",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="the strategy's own, which checks them"
    )


SHORT = {"strategy": "name", "oracle": "kind"}
"""Sections that a bare name stands for, and the key that it is."""


def by_name(section: str) -> BeforeValidator:
    """Take a bare name for a section of `SHORT` that holds it."""
    return BeforeValidator(
        lambda value: {SHORT[section]: value} if isinstance(value, str) else value
    )
