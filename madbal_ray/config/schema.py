"""Every option, declared once, with unit, default and source.

Fields are `result` settings unless tagged `runtime`: result settings enter the keys of
stages and may not change when a run is resumed (`num_rounds` may grow); runtime settings
say where and how fast, never what, and may change at every start.

Longer than our usual 300 lines on purpose: one place for every option.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
    model_validator,
)

RUNTIME: dict[str, Any] = {"kind": "runtime"}
GROWING: dict[str, Any] = {"kind": "growing"}

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A frozen group of options; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def result_settings(self) -> dict[str, Any]:
        """Return the JSON form of the options that may change a result."""
        settings = {}
        for name, field in type(self).model_fields.items():
            if _kind(field) != "result":
                continue
            value = getattr(self, name)
            settings[name] = (
                value.result_settings()
                if isinstance(value, Section)
                else self.model_dump(mode="json", include={name})[name]
            )
        return settings


def _kind(field: Any) -> str:
    extra = field.json_schema_extra
    return extra.get("kind", "result") if isinstance(extra, dict) else "result"


class LongSide(Section):
    """A grid that keeps each image's proportions and whose longer side is `long_side`."""

    long_side: Annotated[int, Field(ge=16)]


def _grid_size(value: Any, parse: Callable[[Any], Any]) -> Any:
    try:
        return parse(value)
    except ValidationError:
        raise ValueError(
            f"expected original, [height, width] or {{long_side: n}}, each side at least 16 "
            f"pixels; given: {value}"
        ) from None


GridSize = Annotated[
    Literal["original"]
    | LongSide
    | tuple[Annotated[int, Field(ge=16)], Annotated[int, Field(ge=16)]],
    WrapValidator(_grid_size),
]


class SyntheticConfig(Section):
    """Street-like scenes drawn from a seed."""

    num_train: Positive = 96
    num_val: Positive = 48
    height: Annotated[int, Field(ge=32)] = Field(default=96, description="pixels")
    width: Annotated[int, Field(ge=32)] = Field(default=128, description="pixels")
    seed: NonNegative = Field(
        default=0, description="of the scenes; the run's own seed does not touch them"
    )


class FolderConfig(Section):
    """The user's own images: `images/[split/]…`, `masks/[split/]…png`, a class list."""

    images: str = Field(default="images", description="folder below data.root")
    masks: str | None = Field(default="masks", description="folder below data.root; null: no masks")
    classes: tuple[str, ...] | None = Field(
        default=None, description="names in order of mask value; null: read from <root>/classes.txt"
    )
    void_value: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=255, description="mask value that means void"
    )


class DataConfig(Section):
    """Which images, which masks."""

    name: Literal["synthetic", "camvid", "voc2012", "cityscapes", "folder", "images"] = "synthetic"
    root: str | None = Field(
        default=None,
        json_schema_extra=RUNTIME,
        description="folder or URI that holds the data set; synthetic: null puts it into the pool",
    )
    pool_split: str = Field(default="train", description="the split that is asked for labels")
    pool_images: Positive | None = Field(
        default=None, description="use this many pool images, evenly spaced in image_id order"
    )
    max_bad_fraction: Fraction = Field(
        default=0.01,
        json_schema_extra=RUNTIME,
        description="stop when more of the pool is quarantined",
    )
    max_pixels: Positive = Field(
        default=178_956_970, description="an image with more pixels is quarantined unread"
    )
    synthetic: SyntheticConfig = SyntheticConfig()
    folder: FolderConfig = FolderConfig()

    @model_validator(mode="after")
    def _needs_root(self) -> DataConfig:
        if self.name != "synthetic" and self.root is None:
            raise ValueError(f"data.root is needed for {self.name}: the folder that holds it")
        return self


class GridsConfig(Section):
    """The three grids (method 0); the third is `evaluation.size`."""

    input: GridSize = Field(default="original", description="what the network sees; pixels")
    working: GridSize = Field(
        default="original", description="labels, superpixels, scores, queries; pixels"
    )


class PoolConfig(Section):
    """Pool preparation, shared by all runs that agree on its settings."""

    dir: str | None = Field(
        default=None,
        json_schema_extra=RUNTIME,
        description="null: the folder `pool` beside the run",
    )
    shard_images: Positive = Field(default=64, description="images in a shard")


class SuperpixelsConfig(Section):
    """Superpixels of the working grid (paper section 4; method 4)."""

    method: Literal["seeds", "slic"] = "seeds"
    pixels: Annotated[int, Field(ge=4)] = Field(
        default=256, description="mean pixels of a superpixel asked for (16 x 16 squares)"
    )
    seeds_levels: Annotated[int, Field(ge=1, le=5)] = Field(
        default=4,
        description="levels of SEEDS at most; a level more costs three times as much "
        "(docs/performance.md)",
    )


class FeaturesConfig(Section):
    """What a superpixel looks like (method 4)."""

    extractor: Literal["color", "mobilenet_v2", "vgg16"] = "color"
    weights: str = Field(
        default="none",
        json_schema_extra=RUNTIME,
        description="torchvision weights name | file | none (random); keys hold the file's sha256",
    )
    batch_size: Positive = Field(default=256, description="patches through the network at once")


class ClusteringConfig(Section):
    """K-means over all superpixels of the pool (paper section 4)."""

    num_clusters: Positive = Field(default=9, description="K; the reference code's 9")
    backend: Literal["auto", "sklearn", "cuml"] = Field(
        default="auto",
        description="auto: cuml where workers use CUDA and cuML is installed, else sklearn",
    )
    max_fit_rows: Positive = Field(
        default=1_000_000,
        description="superpixels that one fit holds in memory; for more see fit_on",
    )
    fit_on: Literal["sample", "all"] = Field(
        default="sample",
        description="when there are more: a seeded sample of max_fit_rows | all of them (sklearn: "
        "the sample's centroids refined in mini-batches; cuml: all rows, on all GPUs)",
    )
    seed: NonNegative = Field(
        default=0, description="of K-means; apart from the run's own, so that seeds share one pool"
    )
    num_init: Positive = Field(
        default=4, description="restarts of k-means++; the lowest inertia is kept"
    )

    @model_validator(mode="after")
    def _enough_rows(self) -> ClusteringConfig:
        if self.max_fit_rows < self.num_clusters:
            raise ValueError(
                f"clustering.max_fit_rows = {self.max_fit_rows} is less than "
                f"clustering.num_clusters = {self.num_clusters}"
            )
        return self


class ModelConfig(Section):
    """The segmentation network (method 1)."""

    backbone: Literal["mobilenet_v2", "mobilenet_v3_large", "resnet50"] = "mobilenet_v2"
    head: Literal["lraspp", "deeplabv3", "deeplabv3plus"] = "lraspp"
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
    select: Literal["last", "best"] = Field(
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


class ScoreConfig(Section):
    """Scoring of the pool (method 3)."""

    batch_size: Positive = Field(default=4, description="images through the network at once")
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = Field(
        default=False, description="torch.compile; pays where images are many and of one size"
    )
    threads_per_worker: Positive = Field(default=1, description="torch threads of a scoring worker")


class BudgetConfig(Section):
    """How many pixels are asked for (paper section 4)."""

    initial_pixels_per_image: Positive | Literal["all"] = Field(
        default=20, description="B0, at random, round 0; all: full supervision"
    )
    pixels_per_image: Positive = Field(default=20, description="B, every later round")
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
    def _cap_fits(self) -> BudgetConfig:
        if self.max_per_image is None:
            return self
        if self.scope == "image":
            raise ValueError("budget.max_per_image is for budget.scope = pool")
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
    """Who answers (method 6)."""

    kind: Literal["simulated"] = "simulated"
    noise: NoiseConfig = NoiseConfig()
    skip_void: bool = Field(
        default=False, description="never ask void pixels (PixelPick's peek at the mask)"
    )


class EvaluationConfig(Section):
    """How a trained network is measured (design 5)."""

    splits: tuple[str, ...] | None = Field(
        default=None, description="null: every split of the data set but the pool's"
    )
    size: Literal["original", "working"] = Field(
        default="original", description="grid that predictions and masks are compared on"
    )
    batch_size: Positive = Field(default=4, description="images through the network at once")


class StopConfig(Section):
    """When to stop before `num_rounds`; every rule that is set can stop the run."""

    full_supervision_miou: Fraction | None = Field(
        default=None, description="mIoU of our own full supervision on `split`"
    )
    share: Fraction = Field(
        default=0.9, description="stop at this share of it (the paper's ablation)"
    )
    clicks_per_image: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="stop when so many clicks an image are spent"
    )
    patience: Positive | None = Field(
        default=None, description="stop after so many rounds without a better mIoU"
    )
    split: str = Field(default="val", description="split that the rules look at")


Supports = Literal["full", "averaging", "no_maturity", "none"]
"""Which active-learning parts a network has (paper section 4, ablations)."""

StrategyName = Literal[
    "madbal",
    "averaging",
    "no_maturity",
    "vanilla",
    "random_clusters",
    "no_breakdown",
    "random",
    "class_aware_random",
    "entropy",
    "margin",
    "least_confidence",
    "bald",
    "self_consistency",
    "class_balanced_superpixel",
    "core_set",
    "image_entropy",
]

BREAKDOWN = ("madbal", "averaging", "no_maturity", "vanilla", "random_clusters")
REGIONS = ("class_balanced_superpixel",)
PIXEL_SCORED = (
    "no_breakdown",
    "entropy",
    "margin",
    "least_confidence",
    "bald",
    "self_consistency",
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
    mc_samples: Annotated[int, Field(ge=2)] = Field(default=8, description="passes of bald")
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

    @model_validator(mode="after")
    def _options_fit(self) -> StrategyConfig:
        problems = []
        if self.top_share is not None and self.name not in PIXEL_SCORED:
            problems.append(f"top_share is for {', '.join(PIXEL_SCORED)}, not for {self.name}")
        defaults = type(self).model_fields
        for option in ("balance_exponent", "cluster_size_exponent", "pixel_share"):
            changed = getattr(self, option) != defaults[option].default
            if changed and self.name not in BREAKDOWN:
                problems.append(f"{option} is for {', '.join(BREAKDOWN)}, not for {self.name}")
        for option in ("normalize_terms", "uncertainty"):
            changed = getattr(self, option) != defaults[option].default
            if changed and self.name not in (*BREAKDOWN, "no_breakdown"):
                problems.append(f"{option} changes MADBAL's score, which {self.name} does not use")
        if problems:
            raise ValueError("\n".join(problems))
        return self


def _strategy_by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class ResourcesConfig(Section):
    """Where and how fast; nothing here may change a result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", json_schema_extra=RUNTIME)
    scoring_workers: Positive = Field(default=1, json_schema_extra=RUNTIME)
    decode_threads: Positive = Field(default=2, json_schema_extra=RUNTIME, description="per worker")
    image_cache_gib: Annotated[float, Field(ge=0)] = Field(
        default=4.0,
        json_schema_extra=RUNTIME,
        description="decoded training images kept in memory, per worker",
    )
    image_cache_disk_gib: Annotated[float, Field(ge=0)] = Field(
        default=16.0,
        json_schema_extra=RUNTIME,
        description="and, when that is full, in a scratch file in $TMPDIR, per worker; 0 where "
        "that is memory (tmpfs)",
    )
    checkpoint_seconds: Annotated[float, Field(ge=0)] = Field(
        default=60.0,
        json_schema_extra=RUNTIME,
        description="a training checkpoint at most this often",
    )
    worker_retries: NonNegative = Field(
        default=3, json_schema_extra=RUNTIME, description="times a lost training worker is replaced"
    )


class TrackingConfig(Section):
    """Dashboards; nothing here may change a result."""

    tensorboard: bool = Field(
        default=True, json_schema_extra=RUNTIME, description="event files in <run>/tensorboard"
    )
    mlflow: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        json_schema_extra=RUNTIME,
        description="address of an MLflow tracking server; needs the extra `mlflow`",
    )
    wandb: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        json_schema_extra=RUNTIME,
        description="Weights & Biases project; needs the extra `wandb`",
    )

    @model_validator(mode="after")
    def _no_credentials(self) -> TrackingConfig:
        if self.mlflow is not None and "@" in urlsplit(self.mlflow).netloc:
            raise ValueError(
                "tracking.mlflow holds a user name or a password, and config.json would keep it: "
                "put them into $MLFLOW_TRACKING_USERNAME and $MLFLOW_TRACKING_PASSWORD"
            )
        return self


class Config(Section):
    """A whole experiment."""

    name: str = Field(
        default="run", json_schema_extra=RUNTIME, description="default name of the run folder"
    )
    seed: NonNegative = 0
    num_rounds: Positive = Field(
        default=5, json_schema_extra=GROWING, description="trained models; may grow at a resume"
    )
    strategy: Annotated[StrategyConfig, BeforeValidator(_strategy_by_name)] = StrategyConfig()
    data: DataConfig = DataConfig()
    grids: GridsConfig = GridsConfig()
    pool: PoolConfig = PoolConfig()
    superpixels: SuperpixelsConfig = SuperpixelsConfig()
    features: FeaturesConfig = FeaturesConfig()
    clustering: ClusteringConfig = ClusteringConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    score: ScoreConfig = ScoreConfig()
    budget: BudgetConfig = BudgetConfig()
    oracle: OracleConfig = OracleConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    stop: StopConfig = Field(default=StopConfig(), json_schema_extra=GROWING)
    resources: ResourcesConfig = ResourcesConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        problems = list(_combinations(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self


def _combinations(config: Config) -> Iterator[str]:
    if config.pool.shard_images % config.score.batch_size:
        yield (
            f"pool.shard_images = {config.pool.shard_images} is not a multiple of "
            f"score.batch_size = {config.score.batch_size}, so batches would depend on sharding"
        )
    fixed_input = isinstance(config.grids.input, tuple)
    if not fixed_input and config.train.crop is None and config.data.name in ("voc2012", "folder"):
        yield (
            "images of different sizes cannot form a batch: set train.crop = [height, width], or a "
            "fixed grids.input"
        )
    has_dropout = config.model.dropout or config.model.head != "lraspp"
    if config.budget.scope == "pool" and config.strategy.name not in (*BREAKDOWN, *REGIONS):
        yield (
            f"budget.scope = pool is for {', '.join((*BREAKDOWN, *REGIONS))}, not for "
            f"{config.strategy.name}, which asks image by image"
        )
    if config.strategy.name == "bald" and not has_dropout:
        yield "strategy bald needs dropout: set model.dropout (0.5 is usual)"
    if config.budget.initial_pixels_per_image == "all" and config.num_rounds > 1:
        yield (
            f"budget.initial_pixels_per_image = all labels everything in round 0, which leaves "
            f"nothing for the other {config.num_rounds - 1} rounds: set num_rounds = 1"
        )
    if config.evaluation.splits and config.data.pool_split in config.evaluation.splits:
        yield (
            f"evaluation.splits holds the pool's own split {config.data.pool_split!r}: a model "
            "would be measured on pixels that it may have been trained on"
        )
