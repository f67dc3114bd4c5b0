"""A search's plumbing: what a trial reserves, when it is given up, what a restart knows."""

import json
from types import SimpleNamespace

import pytest

from madbal_ray.config.file import load_config
from madbal_ray.distributed import tune as tune_module
from madbal_ray.distributed.finished_trials import NAME, FinishedTrials
from madbal_ray.distributed.tune import METRIC, PARTS
from madbal_ray.errors import (
    ConfigError,
    IntegrityError,
    NumericalError,
    ResourceError,
    RunDirError,
    StageError,
)
from madbal_ray.state.storage import Folder
from madbal_ray.studies.cross_validation import CrossValidation
from madbal_ray.studies.search_space import Range
from tests.conftest import tiny_config

KEY = "train.phase2.loss_weights.center"
SPACE = {KEY: Range("uniform", (0.0, 1.0))}
MEASURED = (METRIC, *PARTS, "folds", "error")


def validation_of(**changes):
    validation = CrossValidation.__new__(CrossValidation)
    config = load_config(tiny_config())
    validation.run = SimpleNamespace(
        config=config, stage=lambda name, index: SimpleNamespace(key=f"{name}-{index}")
    )
    validation.weights = SimpleNamespace(identity="none")
    validation.num_folds, validation.objective = 3, "precision"
    for name, value in changes.items():
        setattr(validation, name, value)
    return validation


@pytest.mark.parametrize(
    ("device", "nodes", "share"),
    [
        ("cpu", [{"CPU": 16.0}], {"CPU": 5.0, "GPU": 0}),  # 2 + 3 threads
        ("cpu", [{}, {"CPU": 2.0}, {"CPU": 4.0}], {"CPU": 4.0, "GPU": 0}),
        ("cuda", [{"CPU": 64.0}, {"CPU": 16.0, "GPU": 8.0}], {"CPU": 2.0, "GPU": 1}),
        ("cuda", [{"CPU": 64.0, "GPU": 8.0}], {"CPU": 5.0, "GPU": 1}),
    ],
)
def test_a_trial_reserves_its_threads_but_no_more_than_its_part_of_a_node(
    device, nodes, share, monkeypatch
):
    every = [{"Alive": True, "Resources": node} for node in nodes]
    every.append({"Alive": False, "Resources": {"CPU": 99.0, "GPU": 1.0}})
    monkeypatch.setattr(tune_module.ray, "nodes", lambda: every)
    config = load_config(tiny_config(train__threads_per_worker=2, resources={"decode_threads": 3}))
    assert tune_module._share(config, device) == share


@pytest.mark.parametrize(("folds", "cuts"), [(2, [1]), (3, [2]), (5, [2, 4]), (10, [2, 4, 8])])
def test_half_of_the_trials_are_given_up_after_two_folds(folds, cuts):
    (bracket,) = tune_module._halving(folds)._brackets
    assert sorted(milestone for milestone, _ in bracket._rungs if milestone < folds) == cuts
    assert bracket.rf == 2


def ended(value, objective):
    metrics = dict.fromkeys(MEASURED, 0.0) | {METRIC: objective, "folds": 3, "error": ""}
    return {KEY: value}, metrics


def test_what_ended_is_read_by_the_same_search_alone(tmp_path):
    def records(space=SPACE, **changes):
        return FinishedTrials(Folder(tmp_path), validation_of(**changes), space, MEASURED)

    settings, metrics = ended(0.25, 0.5)
    trial = SimpleNamespace(config=settings, last_result=metrics | {"pid": 1})
    assert records().read() == []
    records().on_trial_complete(1, [], trial)
    with open(tmp_path / NAME, "a") as sink:
        sink.write(json.dumps({"search": "torn"})[:-3])
    records().on_trial_complete(1, [], trial)
    assert records().read() == [(settings, metrics)]  # what ended twice comes once
    assert records(weights=SimpleNamespace(identity="other")).read() == []
    assert records(num_folds=4).read() == []
    assert records(objective="miou").read() == []
    assert records({KEY: Range("uniform", (0.0, 2.0))}).read() == []


def test_optuna_is_told_of_the_trials_that_ended_and_proposes_others():
    known = [ended(0.25, 0.5), ended(0.75, 0.125)]
    search = tune_module._algorithm("optuna", SPACE, 0, known)
    study = search._ot_study.trials
    assert [(one.params[KEY], one.value) for one in study] == [(0.25, 0.5), (0.75, 0.125)]
    fresh = tune_module._algorithm("optuna", SPACE, 0).suggest("a")
    assert search.suggest("a") != fresh
    assert tune_module._algorithm("optuna", SPACE, 0).suggest("b") == fresh


class TestSearch:
    @pytest.fixture
    def ray_tune(self, monkeypatch):
        """Stands for Ray Tune; notes what it was given, ends one trial a sample, or fails."""
        noted = SimpleNamespace(error=None, drawn=0)

        class Tuner:
            def __init__(self, trainable, *, param_space, tune_config, run_config):
                noted.config, noted.run = tune_config, run_config

            def fit(self):
                if noted.error is not None:
                    raise noted.error
                for number in range(noted.drawn, noted.drawn + noted.config.num_samples):
                    noted.drawn += 1
                    settings, metrics = ended(number / 8, number / 4)
                    trial = SimpleNamespace(config=settings, last_result=metrics)
                    for callback in noted.run.callbacks:
                        callback.on_trial_complete(0, [], trial)
                    yield SimpleNamespace(config=settings, metrics=metrics, error=None)

        class Eager(Tuner):
            def fit(self):
                return list(super().fit())

        monkeypatch.setattr(tune_module.tune, "Tuner", Eager)
        monkeypatch.setattr(tune_module.tune, "with_resources", lambda function, share: function)
        monkeypatch.setattr(tune_module.tune, "with_parameters", lambda function, **more: function)
        monkeypatch.setattr(tune_module, "connect", lambda address: False)
        monkeypatch.setattr(tune_module, "check_shared", lambda folder: None)
        monkeypatch.setattr(tune_module, "cluster_device", lambda asked: "cpu")
        monkeypatch.setattr(tune_module, "_share", lambda config, device: {"CPU": 1, "GPU": 0})
        monkeypatch.setattr(tune_module, "_prepare", lambda *arguments: None)
        return noted

    def search(self, tmp_path, num_samples, algorithm="optuna"):
        return tune_module.search(
            validation_of(),
            SPACE,
            num_samples=num_samples,
            algorithm=algorithm,
            use_asha=False,
            storage=Folder(tmp_path),
            address=None,
        )

    def test_a_restart_with_optuna_runs_the_rest_alone(self, ray_tune, tmp_path):
        assert [row[KEY] for row in self.search(tmp_path, 2)] == [0.125, 0.0]
        rows = self.search(tmp_path, 5)
        assert ray_tune.config.num_samples == 3
        assert len(ray_tune.config.search_alg._ot_study.trials) == 2
        assert [row[KEY] for row in rows] == [0.5, 0.375, 0.25, 0.125, 0.0]
        del ray_tune.config
        assert self.search(tmp_path, 5) == rows  # nothing is left to run
        assert not hasattr(ray_tune, "config")

    def test_a_restart_at_random_draws_them_all_again(self, ray_tune, tmp_path):
        self.search(tmp_path, 2, "random")
        assert len(self.search(tmp_path, 3, "random")) == 3
        assert ray_tune.config.num_samples == 3

    def test_optuna_knows_nothing_of_what_was_drawn_at_random(self, ray_tune, tmp_path):
        self.search(tmp_path, 2, "random")
        assert len(self.search(tmp_path, 3)) == 3
        assert ray_tune.config.num_samples == 3

    def test_lost_trials_start_again(self, ray_tune, tmp_path):
        self.search(tmp_path, 1)
        assert ray_tune.run.failure_config.max_failures == 10

    def test_a_worker_that_is_lost_while_it_starts_is_one_sentence(self, ray_tune, tmp_path):
        ray_tune.error = RuntimeError("Caught unexpected\n exception")
        with pytest.raises(StageError, match=r"ended by Ray: Caught unexpected exception; look"):
            self.search(tmp_path, 1)


@pytest.mark.parametrize(
    ("error", "is_told"),
    [
        (NumericalError("it diverged"), True),
        (ConfigError("no such value"), True),
        (RunDirError("the disk is full"), False),
        (IntegrityError("a file is damaged"), False),
        (ResourceError("no memory"), False),
    ],
)
def test_a_full_disk_is_no_bad_trial(error, is_told, monkeypatch):
    """What the settings are not to blame for ends the trial, so that it is run again."""
    told = []
    monkeypatch.setattr(tune_module.tune, "report", told.append)

    def result(config, fold):
        raise error

    validation = validation_of(result=result)
    if is_told:
        tune_module._trial({KEY: 1.0}, validation)
        assert told == [
            {METRIC: -1.0, **dict.fromkeys(PARTS, 0.0), "folds": 0, "error": str(error)}
        ]
    else:
        with pytest.raises(type(error)):
            tune_module._trial({KEY: 1.0}, validation)
        assert told == []
