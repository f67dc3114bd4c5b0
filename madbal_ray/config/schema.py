"""A whole experiment: every option, declared once, with unit, default and source.

Fields are `result` settings unless tagged `runtime`: result settings enter the keys of
stages and may not change when a run is resumed (`num_rounds` may grow); runtime settings
say where and how fast, never what, and may change at every start. The sections stand in the
files beside this one.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from madbal_ray.config.asking import (
    BudgetConfig,
    OracleConfig,
    ScoreConfig,
    StrategyConfig,
    by_name,
)
from madbal_ray.config.combinations import combinations
from madbal_ray.config.data import DataConfig
from madbal_ray.config.pool import (
    ClusteringConfig,
    FeaturesConfig,
    GridsConfig,
    PoolConfig,
    SuperpixelsConfig,
)
from madbal_ray.config.running import (
    EvaluationConfig,
    ResourcesConfig,
    StopConfig,
    TrackingConfig,
)
from madbal_ray.config.section import (
    GROWING,
    RUNTIME,
    FolderName,
    NonNegative,
    Positive,
    Section,
)
from madbal_ray.config.training import ModelConfig, TrainConfig
from madbal_ray.seams import load_plugins


class Config(Section):
    """A whole experiment."""

    name: FolderName = Field(
        default="run", json_schema_extra=RUNTIME, description="default name of the run folder"
    )
    seed: NonNegative = 0
    num_rounds: Positive = Field(
        default=5, json_schema_extra=GROWING, description="trained models; may grow at a resume"
    )
    strategy: Annotated[StrategyConfig, by_name("strategy")] = StrategyConfig()
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
    oracle: Annotated[OracleConfig, by_name("oracle")] = OracleConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    stop: StopConfig = Field(default=StopConfig(), json_schema_extra=GROWING)
    resources: ResourcesConfig = ResourcesConfig()
    tracking: TrackingConfig = TrackingConfig()
    plugins: tuple[str, ...] = Field(
        default=(),
        json_schema_extra=RUNTIME,
        description="modules that register strategies, scores, data sets … (docs/extending.md)",
    )

    @model_validator(mode="before")
    @classmethod
    def _with_plugins(cls, values: Any) -> Any:
        """Import the plug-ins first, so that their names stand for something."""
        plugins = values.get("plugins") if isinstance(values, dict) else None
        if isinstance(plugins, (list, tuple)):
            load_plugins(str(name) for name in plugins)
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        problems = list(combinations(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self
