"""What a run would do and cost, in words: `madbal run --dry-run`."""

from __future__ import annotations

import torch

from madbal_ray.config.counts import WORKERS, with_counts, workers_for
from madbal_ray.config.file import changed_keys
from madbal_ray.config.schema import Config
from madbal_ray.errors import ConfigError
from madbal_ray.loop.forecast import forecast
from madbal_ray.loop.launch import counted_here
from madbal_ray.report.protocol import describe_asking
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stages import stages_of
from madbal_ray.strategies.strategy import resolve


def plan_lines(config: Config, run_dir: RunDir, *, device: str) -> list[str]:
    """Return what a run would do, what is done of it and what it will cost, as lines.

    Raises:
        ConfigError: the folder holds a run with other settings.
        DataError, PoolError: as `forecast`.
    """
    if run_dir.exists and (changes := changed_keys(run_dir.config(), config)):
        raise ConfigError(f"{run_dir} was started with other settings: {'; '.join(changes)}")
    config = counted_here(config, run_dir)
    gpus = torch.cuda.device_count() if device == "cuda" else 1
    config = with_counts(config, {WORKERS: workers_for(config, gpus)})
    lines = [
        f"data     {config.data.name}, pool split {config.data.pool_split}",
        f"pool     {run_dir.pool_folder(config)}",
        f"run      {run_dir}",
        f"network  {config.model.backbone} + {config.model.head}, weights {config.model.weights}",
        f"asks     {describe_asking(config, unit=resolve(config.strategy).unit)}",
    ]
    for index in range(config.num_rounds):
        names = stages_of("round") if run_dir.exists else []
        done = [name for name in names if run_dir.find(name, index)]
        lines.append(f"round {index}  done: {', '.join(done) or 'nothing'}")
    return lines + forecast(config, device=device).lines()
