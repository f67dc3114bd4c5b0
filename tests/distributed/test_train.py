"""What Ray Train is asked for, what its failures become, and what a worker does with errors."""

import os
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import ray.train

from madbal_ray import errors
from madbal_ray.distributed import capacity
from madbal_ray.distributed import train as train_module
from madbal_ray.distributed.metrics import RunMetrics
from madbal_ray.distributed.train_in_actor import Mailbox
from madbal_ray.errors import NumericalError, ResourceError, RunDirError, StageError

TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"


class Job:
    """A training that notes who ran it, and fails as told."""

    name, num_workers = "round-000-key", 2

    def __init__(self, *, least=2, raises=None):
        self.min_workers, self.raises, self.ran = least, raises, []

    def run(self, context):
        self.ran.append(context)
        if self.raises is not None:
            raise self.raises


class Silent(RunMetrics):
    """Measures nothing, and needs no Ray for it."""

    def __init__(self):
        self.run = "r"

    def clock(self, stage):
        return nullcontext(lambda: None)


class Deaf:
    def on_training(self, progress, /):
        pass


class Remote:
    """A mailbox whose calls are answered at once, as `ray.get` is made to let pass."""

    def __init__(self):
        self.mailbox = Mailbox()

    def __getattr__(self, name):
        return SimpleNamespace(remote=getattr(self.mailbox, name))


@pytest.fixture
def mailbox(monkeypatch):
    monkeypatch.setattr(train_module.ray, "get", lambda value: value)
    return Remote()


class Fit:
    """Stands for `TorchTrainer`; notes what it was given and the timeout that Ray would see."""

    def __init__(self, outcome=None):
        self.outcome = outcome

    def __call__(self, worker, *, train_loop_config, scaling_config, run_config):
        self.scaling, self.failure = scaling_config, run_config.failure_config
        return self

    def fit(self):
        self.timeout = os.environ.get(TIMEOUT)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return SimpleNamespace(return_value=self.outcome)


@pytest.fixture
def fit(monkeypatch, mailbox):
    """Train with a stand-in for Ray; return it."""

    @contextmanager
    def forwarded(*arguments):
        yield

    monkeypatch.setattr(train_module, "forwarded", forwarded)
    monkeypatch.delenv(TIMEOUT, raising=False)

    def run(*, outcome=None, least=2, before=lambda mailbox: None, wait_seconds=900.0):
        trainer = Fit(outcome)
        monkeypatch.setattr(train_module, "TorchTrainer", trainer)
        raising = trainer.fit

        def fit_after():
            before(mailbox)
            return raising()

        trainer.fit = fit_after
        train_module.train_with_ray(
            Job(least=least),
            Deaf(),
            mailbox=mailbox,
            metrics=Silent(),
            plugins=(),
            storage_path="/nowhere",
            use_gpu=True,
            num_cpus=3.0,
            retries=7,
            wait_seconds=wait_seconds,
        )
        return trainer

    return run


def test_nodes_are_waited_for_and_lost_workers_replaced(fit):
    trainer = fit()
    assert trainer.timeout == "900.0"
    assert TIMEOUT not in os.environ
    failure = trainer.failure
    assert (failure.max_failures, failure.controller_failure_limit) == (7, 2)
    assert failure.max_preemption_failures == -1
    assert trainer.scaling.num_workers == 2
    assert trainer.scaling.resources_per_worker == {"CPU": 3.0, "GPU": 1}
    assert fit(wait_seconds=0.0).timeout == "60.0"


def test_a_users_own_timeout_stays(fit, monkeypatch):
    monkeypatch.setenv(TIMEOUT, "5")
    assert fit().timeout == "5"
    assert os.environ[TIMEOUT] == "5"


def test_elastic_training_goes_on_with_fewer(fit):
    assert fit(least=1).scaling.num_workers == (1, 2)


def test_workers_that_never_start_are_told_with_the_wait(fit):
    lost = ray.train.ControllerError(RuntimeError("no\nplacement"))
    with pytest.raises(StageError, match=r"each try waited 900 s .*node_wait_seconds\): no place"):
        fit(outcome=lost)
    assert TIMEOUT not in os.environ


def test_workers_that_keep_dying_are_told_in_one_line(fit):
    lost = ray.train.WorkerGroupError("traceback", {1: ValueError("at\n fault")})
    with pytest.raises(StageError, match=r"training of round-000-key .*: worker 1: at fault; look"):
        fit(outcome=lost)


@pytest.mark.parametrize("how", ["returned", "kept"])
def test_our_own_error_comes_back_as_itself(fit, how):
    packed = errors.pack(NumericalError("the loss is nan"))
    if how == "returned":
        outcome, before = packed, lambda mailbox: None
    else:  # no retry was left to return it
        outcome = ray.train.WorkerGroupError("", {0: ValueError()})
        before = lambda mailbox: mailbox.fail.remote(packed)  # noqa: E731
    with pytest.raises(NumericalError, match="the loss is nan"):
        fit(outcome=outcome, before=before)


def test_an_error_of_the_round_before_is_forgotten(fit, mailbox):
    mailbox.fail.remote(errors.pack(NumericalError("old")))
    fit()
    assert mailbox.failure.remote() is None


def settings(mailbox, raises=None):
    return {"job": Job(raises=raises), "mailbox": mailbox, "run": "r", "plugins": ()}


@pytest.fixture
def no_group(monkeypatch):
    monkeypatch.setattr(train_module, "RayWorker", lambda mailbox, run: "context")


def test_an_error_that_a_retry_would_repeat_is_raised_once_and_then_returned(mailbox, no_group):
    with pytest.raises(NumericalError):
        train_module.train_worker(settings(mailbox, NumericalError("the loss is nan")))
    again = settings(mailbox)
    assert train_module.train_worker(again) == errors.pack(NumericalError("the loss is nan"))
    assert again["job"].ran == []


def test_what_a_disk_refused_is_tried_again(mailbox, no_group):
    with pytest.raises(RunDirError):
        train_module.train_worker(settings(mailbox, RunDirError("stale file handle")))
    again = settings(mailbox)
    assert train_module.train_worker(again) is None
    assert again["job"].ran == ["context"]


def test_the_first_error_is_the_one_that_is_told():
    mailbox = Mailbox()
    mailbox.fail({"text": "cause"})
    mailbox.fail({"text": "consequence"})
    assert mailbox.failure() == {"text": "cause"}


class TestGpus:
    @pytest.fixture
    def cluster(self, monkeypatch):
        """A cluster whose GPUs come as given, one number a look; notes what is asked for."""
        cluster = SimpleNamespace(gpus=[], asked=[], now=0.0)
        monkeypatch.setattr(
            capacity,
            "cluster_resources",
            lambda: (8.0, cluster.gpus.pop(0) if len(cluster.gpus) > 1 else cluster.gpus[0]),
        )
        monkeypatch.setattr(
            capacity, "request_resources", lambda *, bundles: cluster.asked.append(bundles)
        )
        clock = SimpleNamespace(
            monotonic=lambda: cluster.now,
            sleep=lambda seconds: setattr(cluster, "now", cluster.now + seconds),
        )
        monkeypatch.setattr(capacity, "time", clock)
        return cluster

    def test_enough_are_not_waited_for(self, cluster):
        cluster.gpus = [2.0]
        capacity.await_gpus(2, option="train.num_workers", seconds=60)
        assert cluster.asked == []

    def test_the_autoscaler_is_asked_and_the_wish_taken_back(self, cluster, caplog):
        cluster.gpus = [0.0, 1.0, 1.0, 2.0]
        capacity.await_gpus(2, option="train.num_workers", seconds=60)
        assert cluster.asked == [[{"GPU": 1}, {"GPU": 1}], []]
        assert cluster.now == 2.0
        assert "train.num_workers = 2: waiting up to 60 s" in caplog.text

    def test_too_few_in_the_end_are_said_with_the_wait(self, cluster):
        cluster.gpus = [1.0]
        with pytest.raises(ResourceError, match=r"needs 2 GPUs, the Ray cluster has 1 after 5 s"):
            capacity.await_gpus(2, option="x", seconds=5)
        assert cluster.asked[-1] == []
        assert cluster.now == 5.0

    def test_a_private_cluster_is_refused_at_once(self, cluster):
        cluster.gpus = [1.0]
        with pytest.raises(ResourceError, match="has 1; lower"):
            capacity.await_gpus(2, option="x", seconds=0.0)
        assert (cluster.asked, cluster.now) == ([], 0.0)

    def test_only_a_cluster_that_was_joined_may_grow(self, monkeypatch):
        assert [capacity.is_joined(address) for address in (None, "local", "auto")] == [
            False,
            False,
            True,
        ]
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
        assert capacity.is_joined(None)
