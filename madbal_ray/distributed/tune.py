"""Hyper-parameter search: Ray Tune over trials of the cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

from madbal_ray import errors, rng
from madbal_ray.config.schema import Config
from madbal_ray.distributed.finished_trials import FinishedTrials
from madbal_ray.distributed.session import check_shared, cluster_device, connect
from madbal_ray.errors import ConfigError, LabelError, MadbalError, NumericalError
from madbal_ray.seams import load_plugins
from madbal_ray.state.storage import Folder
from madbal_ray.studies.cross_validation import CrossValidation
from madbal_ray.studies.search_space import Range

Algorithm = Literal["random", "optuna"]
METRIC = "objective"
PARTS = ("score_precision", "error_precision", "chance", "miou")
FAILED = -1.0
"""Objective of a trial that ended in an error; average precision is never negative."""

OF_A_TRIAL = (NumericalError, LabelError, ConfigError)
"""Errors that the drawn settings may be to blame for.

A full disk or a damaged file ends the search: started again it runs the trial once more.
"""


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

    Every fold of every trial is committed under its settings, so a trial whose worker was lost
    (`resources.worker_retries` times at most) goes on with the folds that it has not done. Started
    again, the search draws the same samples (``random``) and finds the finished ones done, or tells
    Optuna of the trials that ended and goes on with the rest.

    Args:
        use_asha: give up on the worse half of the trials after two folds (one where there are
            two), and again after four, eight ...
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
        share = _share(config, device)
        retries = config.resources.worker_retries
        _prepare(validation, share, retries)
        finished = FinishedTrials(storage, validation, space, (METRIC, *PARTS, "folds", "error"))
        known = finished.read()[:num_samples] if algorithm == "optuna" else []
        if len(known) == num_samples:
            return _ranked(known, validation)
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_trial, validation=validation), share),
            param_space={} if algorithm == "optuna" else _domains(space),
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                num_samples=num_samples - len(known),
                search_alg=_algorithm(algorithm, space, config.seed, known),
                scheduler=_halving(validation.num_folds) if use_asha else None,
            ),
            run_config=tune.RunConfig(
                storage_path=storage.uri,
                name="search",
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=retries),
                callbacks=[finished] if algorithm == "optuna" else [],
            ),
        )
        try:
            results = tuner.fit()
        except (
            RayError,
            RuntimeError,
        ) as error:  # Tune bears no worker that is lost while it starts
            raise errors.StageError(
                f"the search was ended by Ray: {errors.one_line(error)}; look at the memory of the "
                "nodes, then start the same command again to go on with the trials that are done"
            ) from error
        failed = [result.error for result in results if result.error is not None]
        if failed:
            raise errors.StageError(
                f"{len(failed)} of {len(results)} trials failed; the first: {failed[0]}; start the "
                "same command again to go on with the others done"
            )
        ended = [(result.config or {}, result.metrics or {}) for result in results]
        return _ranked([*known, *ended], validation)
    finally:
        if is_ours:
            ray.shutdown()


def _share(config: Config, device: str) -> dict[str, float]:
    """Return what a trial reserves: a core for each thread, no more than a node has for it."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if device == "cuda":
        nodes = [node for node in nodes if node.get("GPU")]
    most = max(node.get("CPU", 0.0) / (node["GPU"] if device == "cuda" else 1) for node in nodes)
    threads = config.train.threads_per_worker + config.resources.decode_threads
    return {"CPU": min(float(threads), most), "GPU": 1 if device == "cuda" else 0}


def _halving(num_folds: int) -> ASHAScheduler:
    """Return what gives up on the worse half of the trials: not on the word of a single fold."""
    return ASHAScheduler(grace_period=min(2, num_folds - 1), max_t=num_folds, reduction_factor=2)


def _prepare(validation: CrossValidation, share: Mapping[str, float], retries: int) -> None:
    """Train phase I of every fold, side by side."""
    options: dict[str, Any] = {"num_cpus": share["CPU"], "num_gpus": share["GPU"]}
    prepare: Any = ray.remote(max_retries=retries, **options)(_prepare_fold)
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
        except OF_A_TRIAL as error:  # it diverged, say: a bad trial, not the end of the search
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


def _ranked(
    trials: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], validation: CrossValidation
) -> list[dict[str, Any]]:
    """Return a row for each trial, best first.

    Raises:
        StageError: every one failed.
    """
    with_miou = validation.objective == "miou"
    rows = [_row(settings, metrics, with_miou=with_miou) for settings, metrics in trials]
    if all(row["error"] for row in rows):
        raise errors.StageError(f"every trial failed; the first: {rows[0]['error']}")
    return sorted(rows, key=lambda row: (-row["folds"], -row[METRIC]))


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


def _algorithm(
    name: Algorithm,
    space: Mapping[str, Range],
    seed: int,
    known: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = (),
) -> Any:
    """Return what proposes settings.

    Args:
        known: settings and metrics of trials that ended before, for Optuna.
    """
    if name == "random":
        return BasicVariantGenerator(random_state=seed)
    if known:  # else the first proposals would come again
        seed = rng.derive_seed(seed, "optuna", len(known)) % 2**32
    try:
        from ray.tune.search.optuna import OptunaSearch

        return OptunaSearch(
            _domains(space),
            metric=METRIC,
            mode="max",
            seed=seed,
            points_to_evaluate=[dict(settings) for settings, _ in known],
            evaluated_rewards=[metrics[METRIC] for _, metrics in known],
        )
    except (ImportError, AssertionError):
        raise ConfigError(
            "--algorithm optuna needs Optuna: pip install 'madbal_ray[tune]'"
        ) from None
