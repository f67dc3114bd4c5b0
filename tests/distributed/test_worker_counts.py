"""How many workers there are and how many GPUs are waited for before they start."""

from types import SimpleNamespace

import pytest

from madbal_ray.config.running import ResourcesConfig
from madbal_ray.distributed import engine as engine_module
from madbal_ray.distributed.engine import RayEngine
from madbal_ray.distributed.metrics import RunMetrics
from madbal_ray.state.storage import Folder
from tests.distributed.test_train import Deaf, Job


@pytest.mark.parametrize(
    ("asked", "device", "cluster", "count"),
    [
        (3, "cuda", (64.0, 8.0), 3),
        ("auto", "cuda", (64.0, 8.0), 8),
        ("auto", "cpu", (64.0, 8.0), 16),  # four threads each
        ("auto", "cpu", (2.0, 0.0), 1),
        ("auto", "cuda", (8.0, 0.0), 1),  # their node was taken away a moment ago
    ],
)
def test_scoring_workers(asked, device, cluster, count, monkeypatch):
    monkeypatch.setattr(engine_module, "cluster_resources", lambda: cluster)
    engine = RayEngine.__new__(RayEngine)
    engine.resources = ResourcesConfig(scoring_workers=asked)
    engine.device, engine.threads = device, 4
    assert engine.scoring_workers == count


@pytest.mark.parametrize(
    ("patience", "least", "node", "share"),
    [(60.0, 1, 8.0, 2.0), (0.0, 4, 8.0, 2.0), (60.0, 1, 1.0, 1.0)],  # nodes of one CPU each
)
def test_scoring_begins_with_one_gpu_where_nodes_may_come(
    patience, least, node, share, monkeypatch
):
    waited = []
    monkeypatch.setattr(engine_module, "cluster_resources", lambda: (8.0, 1.0))
    monkeypatch.setattr(engine_module, "largest_node", lambda: node)
    monkeypatch.setattr(
        engine_module,
        "await_gpus",
        lambda count, *, option, seconds: waited.append((count, option, seconds)),
    )
    engine = RayEngine.__new__(RayEngine)
    engine.resources = ResourcesConfig(scoring_workers=4)
    engine.device, engine.threads, engine.patience = "cuda", 4, patience
    engine.plugins, engine.metrics, engine._heavy = (), RunMetrics("r"), None
    engine._heavy_is_on_gpus = False
    assert engine.heavy.count == 4
    assert engine.heavy.options == {"num_cpus": share, "num_gpus": 1, "max_concurrency": 3}
    assert waited == [(least, "resources.scoring_workers", patience)]


@pytest.mark.parametrize(
    ("least", "told"), [(2, (2, "train.num_workers", 9.0)), (1, (1, "train.min_workers", 9.0))]
)
def test_training_waits_for_all_its_gpus_or_for_those_that_will_do(least, told, monkeypatch):
    waited, fits = [], []
    monkeypatch.setattr(engine_module, "cluster_resources", lambda: (8.0, 2.0))
    monkeypatch.setattr(engine_module, "largest_node", lambda: 8.0)
    monkeypatch.setattr(
        engine_module,
        "await_gpus",
        lambda count, *, option, seconds: waited.append((count, option, seconds)),
    )
    monkeypatch.setattr(
        "madbal_ray.distributed.train.train_with_ray",
        lambda job, listener, **options: fits.append(options),
    )
    engine = RayEngine.__new__(RayEngine)
    engine.resources = ResourcesConfig(worker_retries=7, node_wait_seconds=9.0)
    engine.device, engine.training_threads, engine.patience = "cuda", 3, 9.0
    engine.plugins, engine.metrics, engine._heavy = (), RunMetrics("r"), None
    engine.mailboxes = SimpleNamespace(get=lambda: None)
    engine.scratch = Folder("/nowhere")
    engine.train(Job(least=least), Deaf())
    assert waited == [told]
    (options,) = fits
    assert (options["retries"], options["wait_seconds"], options["num_cpus"]) == (7, 9.0, 3.0)
    assert options["use_gpu"]
