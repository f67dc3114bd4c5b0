"""A search of phase II's settings: the run it stands on, the search itself, what it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from madbal_ray.config.counts import check_counts
from madbal_ray.config.file import load_config
from madbal_ray.config.schema import Config
from madbal_ray.engine.stages import StopRequested
from madbal_ray.loop.launch import Launch, make_local_engine, run_whole
from madbal_ray.models.weights import publish_weights
from madbal_ray.report.search import write_search
from madbal_ray.runs.run import Run
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.storage import Folder
from madbal_ray.studies.cross_validation import CrossValidation, Objective
from madbal_ray.studies.search_space import Range, load_space

Search = Callable[[CrossValidation, Mapping[str, Range], Folder], list[dict[str, Any]]]
"""(trials, space, folder for the library's own files) -> a row per trial, best first."""


def tune(
    config: Config,
    space: str | Path,
    search: Search,
    root: Folder,
    *,
    folds: int,
    objective: Objective,
    say: Callable[[str], None],
) -> tuple[list[dict[str, Any]], list[Path]]:
    """Search settings of phase II by cross-validation on round 0.

    Returns:
        One row per trial, best first, and the files written, ``best.yaml`` first.

    Raises:
        ConfigError: the space or the configuration cannot be searched.
    """
    check_counts(config, "a search")
    ranges = load_space(space)
    for key, values in ranges.items():
        for value in values.examples():  # the key exists, and takes what may be drawn
            load_config(config, [f"{key}={json.dumps(value)}"])
    base = RunDir((root / "base").uri)
    untracked = load_config(config, ["tracking.mlflow=null", "tracking.wandb=null"])
    try:
        run_whole(untracked, base, make_local_engine, Launch(stop_after=("labels", 0)))
    except StopRequested:
        say("pool prepared, initial labels drawn")
    weights = publish_weights(
        config.model.weights,
        config.model.backbone,
        base.pool_folder(config),
        option="model.weights",
    )
    run = Run(base.folder.uri)
    trials = CrossValidation(run, root, weights, folds, device="cpu", objective=objective)
    rows = search(trials, ranges, root / "_ray")
    best = load_config(config, [f"{key}={json.dumps(rows[0][key])}" for key in ranges])
    return rows, write_search(rows, list(ranges), best.model_dump(mode="json"), root.local_path)
