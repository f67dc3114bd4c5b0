"""Hyper-parameter search: Ray Tune over trials of the cross-validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

from madbal_ray import errors
from madbal_ray.distributed.session import (
    check_shared,
    cluster_device,
    cluster_resources,
    connect,
)
from madbal_ray.errors import ConfigError, MadbalError
from madbal_ray.seams import load_plugins
from madbal_ray.state.storage import Folder
from madbal_ray.studies.cross_validation import CrossValidation
from madbal_ray.studies.search_space import Range

Algorithm = Literal["random", "optuna"]
METRIC = "objective"
PARTS = ("score_precision", "error_precision", "chance", "miou")
FAILED = -1.0
"""Objective of a trial that ended in an error; average precision is never negative."""


def search(
    validation: CrossValidation,
    space: Mapping[str, Range],
    *,
    num_samples: int,
    algorithm: Algorithm,
    use_asha: bool,
    storage: Folder,
    address: str | None,
) -> list[dict[str, Any]]:
    """Run the trials, each on a core or GPU of its own; return one row per trial.

    Every fold of every trial is committed under its settings. Started again, the search
    draws the same samples (``random``) and finds the finished ones done.

    Args:
        use_asha: give up on trials that are behind after their first folds.
        storage: for Ray Tune's own files.

    Returns:
        Settings by key, objective, its parts, the folds done and the error of a trial that
        failed (it stands last); best first.

    Raises:
        MadbalError: a trial's own; StageError where workers were lost.
    """
    is_ours = connect(address)
    try:
        check_shared(storage)
        config = validation.config
        device = cluster_device(config.resources.device)
        validation.device = device
        cpus, _ = cluster_resources()
        share = {
            "CPU": min(float(config.train.threads_per_worker), cpus),
            "GPU": 1 if device == "cuda" else 0,
        }
        _prepare(validation, share)
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_trial, validation=validation), share),
            param_space={} if algorithm == "optuna" else _domains(space),
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                num_samples=num_samples,
                search_alg=_algorithm(algorithm, space, config.seed),
                scheduler=ASHAScheduler(grace_period=1, max_t=validation.num_folds)
                if use_asha
                else None,
            ),
            run_config=tune.RunConfig(storage_path=storage.uri, name="search", verbose=0),
        )
        results = tuner.fit()
        failed = [result.error for result in results if result.error is not None]
        if failed:
            raise errors.StageError(
                f"{len(failed)} of {len(results)} trials failed; the first: {failed[0]}; start the "
                "same command again to go on with the others done"
            )
        with_miou = validation.objective == "miou"
        rows = [_row(r.config or {}, r.metrics or {}, with_miou=with_miou) for r in results]
        if all(row["error"] for row in rows):
            raise errors.StageError(f"every trial failed; the first: {rows[0]['error']}")
        return sorted(rows, key=lambda row: (-row["folds"], -row[METRIC]))
    finally:
        if is_ours:
            ray.shutdown()


def _prepare(validation: CrossValidation, share: Mapping[str, float]) -> None:
    """Train phase I of every fold, side by side."""
    prepare: Any = ray.remote(num_cpus=share["CPU"], num_gpus=share["GPU"])(_prepare_fold)
    for error in ray.get([prepare.remote(validation, i) for i in range(validation.num_folds)]):
        if error is not None:
            raise errors.unpack(error)


def _prepare_fold(validation: CrossValidation, fold: int) -> dict[str, Any] | None:
    load_plugins(validation.config.plugins)
    try:
        validation.prepare(fold)
    except MadbalError as error:
        return errors.pack(error)
    return None


def _trial(config: dict[str, Any], validation: CrossValidation) -> None:
    """Report the means over the folds done so far, fold by fold."""
    load_plugins(validation.config.plugins)
    results = []
    for fold in range(validation.num_folds):
        try:
            results.append(validation.result(config, fold))
        except MadbalError as error:  # it diverged, say: a bad trial, not the end of the search
            nothing = dict.fromkeys(PARTS, 0.0)
            tune.report({METRIC: FAILED, **nothing, "folds": 0, "error": str(error)})
            return
        count = len(results)
        tune.report(
            {
                METRIC: sum(result.objective for result in results) / count,
                "score_precision": sum(result.score_precision for result in results) / count,
                "error_precision": sum(result.error_precision for result in results) / count,
                "chance": sum(result.error_rate for result in results) / count,
                "miou": sum(result.miou or 0.0 for result in results) / count,
                "folds": count,
                "error": "",
            }
        )


def _row(
    settings: Mapping[str, Any], metrics: Mapping[str, Any], *, with_miou: bool
) -> dict[str, Any]:
    names = [METRIC, *PARTS, "folds", "error"]
    if not with_miou:
        names.remove("miou")
    return {**settings, **{name: metrics[name] for name in names}}


def _domains(space: Mapping[str, Range]) -> dict[str, Any]:
    makers = {
        "uniform": lambda values: tune.uniform(*values),
        "loguniform": lambda values: tune.loguniform(*values),
        "choice": lambda values: tune.choice(list(values)),
    }
    return {key: makers[values.kind](values.values) for key, values in space.items()}


def _algorithm(name: Algorithm, space: Mapping[str, Range], seed: int) -> Any:
    if name == "random":
        return BasicVariantGenerator(random_state=seed)
    try:
        from ray.tune.search.optuna import OptunaSearch

        return OptunaSearch(_domains(space), metric=METRIC, mode="max", seed=seed)
    except (ImportError, AssertionError):
        raise ConfigError(
            "--algorithm optuna needs Optuna: pip install 'madbal_ray[tune]'"
        ) from None
