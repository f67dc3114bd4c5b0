"""Environment, type checking of shapes, and fixtures shared by all tests."""
# ruff: noqa: E402

import os
import shutil

os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_ENABLE_UV_RUN_RUNTIME_ENV="0",
    RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.1",
    RAY_TRAIN_ENABLE_PREEMPTION_WATCHER="0",
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",  # every server of Ray listens on loopback
)
os.environ.pop("RAY_ADDRESS", None)

from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401  (the hook below looks it up by name)

install_import_hook("madbal_ray", "tests.typecheck.typechecked")

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, settings

from madbal_ray.state import retries

retries.PAUSE_SECONDS = 0.001

# Torch tells most warnings once a process: whether a test fails must not hang on the order.
torch.set_warn_always(True)

settings.register_profile(
    "madbal",
    deadline=None,
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("madbal")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses the session's Ray."""
    for item in items:
        if "ray_session" in getattr(item, "fixturenames", ()):
            item.add_marker("ray")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked `gpu` where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device: torch.cuda.is_available() is False here")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The real data sets, or a skip with the reason."""
    here = Path(__file__).resolve().parents[2] / "shared" / "data"
    for candidate in (os.environ.get("MADBAL_DATA"), here):
        if candidate and Path(candidate).is_dir():
            return Path(candidate)
    pytest.skip("no real data: neither $MADBAL_DATA nor ../shared/data exists")


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray for the whole session."""
    import ray

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(
            address="local",
            num_cpus=4,
            num_gpus=0,
            include_dashboard=False,
            object_store_memory=256 * 2**20,
            log_to_driver=False,
        )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser, or a skip with the reason."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        assert "MADBAL_BROWSER" not in os.environ, "CI promised a browser: apt install chromium"
        pytest.skip("no chromium: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def tiny_config(**changes: Any) -> dict[str, Any]:
    """A run of seconds: 6 images of 48 x 64, 3 clusters, one epoch a phase."""
    config: dict[str, Any] = {
        "name": "tiny",
        "num_rounds": 2,
        "data": {
            "name": "synthetic",
            "synthetic": {"num_train": 6, "num_val": 3, "height": 48, "width": 64},
        },
        "pool": {"shard_images": 2},
        "superpixels": {"pixels": 64},
        "clustering": {"num_clusters": 3, "num_init": 1},
        "train": {
            "threads_per_worker": 1,
            "phase1": {"epochs": 1, "batch_size": 2},
            "phase2": {"epochs": 1, "batch_size": 2},
        },
        "score": {"batch_size": 2},
        "budget": {"initial_pixels_per_image": 5, "pixels_per_image": 5},
    }
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return config


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished tiny run of the local engine; do not change it."""
    import madbal_ray

    folder = tmp_path_factory.mktemp("tiny")
    return madbal_ray.run(tiny_config(), run_dir=folder / "run", engine="local")


def frozen_config(**changes: Any) -> dict[str, Any]:
    """The tiny run on a frozen backbone, whose heads learn from points."""
    phase = {"steps": 20, "batch_points": 16, "optimizer": "adamw", "schedule": "one_cycle"}
    frozen = tiny_config(
        model={"train_backbone": False, "head": "hypercolumn", "hidden": 16, "dropout": 0.3},
        train={"threads_per_worker": 1, "phase1": phase, "phase2": phase},
    )
    return frozen | changes


@pytest.fixture(scope="session")
def frozen_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run of `frozen_config` on the local engine; do not change it."""
    import madbal_ray

    folder = tmp_path_factory.mktemp("frozen")
    return madbal_ray.run(frozen_config(), run_dir=folder / "run", engine="local")


def tiny_suite_file() -> dict[str, Any]:
    """The YAML of a suite of tiny runs."""
    return {
        "name": "tiny",
        "base": tiny_config(),
        "seeds": [0, 1],
        "baseline": "random",
        "members": {
            "madbal": {"strategy": {"name": "madbal"}},
            "random": {"strategy": {"name": "random"}},
        },
        "reference": {},
    }


@pytest.fixture(scope="session")
def tiny_suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished suite of tiny runs; do not change it."""
    from madbal_ray import api

    folder = tmp_path_factory.mktemp("suite")
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_suite_file()))
    _, failed = api.run_suite(path, folder=folder / "tiny", engine="local", say=lambda line: None)
    assert failed == []
    return folder / "tiny"
