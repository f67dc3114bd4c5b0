"""Options of measuring, stopping, resources and dashboards."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    ConfigDict,
    Field,
    model_validator,
)

from madbal_ray.config.section import (
    ADDED,
    RUNTIME,
    Fraction,
    NonNegative,
    Positive,
    Section,
    known,
)
from madbal_ray.seams import (
    TRACKERS,
)

TrackerName = Annotated[str, known(TRACKERS)]


class EvaluationConfig(Section):
    """How a trained network is measured (design 5)."""

    splits: tuple[str, ...] | None = Field(
        default=None, description="null: every split of the data set but the pool's"
    )
    size: Literal["original", "working"] = Field(
        default="original", description="grid that predictions and masks are compared on"
    )
    batch_size: Positive = Field(default=4, description="images through the network at once")
    points: Positive | None = Field(
        default=None,
        json_schema_extra=ADDED,
        description="measure on so many random points, answered once by the oracle, where there "
        "are no masks; 1000 or more (docs/your-own-images.md)",
    )
    points_split: str | None = Field(
        default=None,
        json_schema_extra=ADDED,
        description="that points are drawn from; null: val, else test, else the pool, whose points "
        "are then never asked for nor trained on",
    )


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
    split: str = Field(default="val", description="split whose mIoU the rules look at")


class ResourcesConfig(Section):
    """Where and how fast; nothing here may change a result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", json_schema_extra=RUNTIME)
    scoring_workers: Positive | Literal["auto"] = Field(
        default=1,
        json_schema_extra=RUNTIME,
        description="auto: the cluster's GPUs when scoring starts, or as many as its cores bear",
    )
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
        default=10,
        json_schema_extra=RUNTIME,
        description="times a round's lost training workers, or a search's lost trial, are replaced",
    )
    node_wait_seconds: Annotated[float, Field(ge=0)] = Field(
        default=1800.0,
        json_schema_extra=RUNTIME,
        description="how long a cluster's GPUs and training workers are waited for, such as those "
        "of a spot node that was taken away",
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

    others: dict[TrackerName, str] = Field(
        default_factory=dict,
        json_schema_extra=RUNTIME,
        description="trackers of plug-ins: name -> what it is given, such as an address",
    )

    @model_validator(mode="after")
    def _no_credentials(self) -> TrackingConfig:
        if self.mlflow is not None and "@" in urlsplit(self.mlflow).netloc:
            raise ValueError(
                "tracking.mlflow holds a user name or a password, and config.json would keep it: "
                "put them into $MLFLOW_TRACKING_USERNAME and $MLFLOW_TRACKING_PASSWORD"
            )
        return self
