"""What a run shows on Ray's Prometheus port: real values, read over HTTP."""

import shutil
import time
import urllib.request
from pathlib import Path

import pytest
import torch

import madbal_ray
from madbal_ray import api
from tests.conftest import tiny_config

LIMIT_SECONDS = 40.0
"""Ray's processes hand their metrics on every 10 s."""


@pytest.fixture(scope="module")
def port(ray_session):
    """The metrics port of the one node."""
    import ray

    pytest.importorskip("prometheus_client", reason="ray[default] is not installed")
    pytest.importorskip("opentelemetry.exporter.prometheus", reason="ray[default] is not installed")
    (node,) = ray.nodes()
    assert node["MetricsExportPort"] > 0
    return node["MetricsExportPort"]


def read_metrics(port, run):
    """Return our samples of one run as {(name, stage): [value of every worker]}."""
    from prometheus_client.parser import text_string_to_metric_families

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            is_ours = sample.name.startswith("ray_madbal_") and sample.labels.get("run") == run
            if is_ours and not sample.name.endswith("_bucket"):
                found.setdefault((sample.name, sample.labels["stage"]), []).append(sample.value)
    return found


def wait_for(port, run, key, least):
    """Return the samples of a run once `key` has reached a value."""
    until = time.monotonic() + LIMIT_SECONDS
    while sum((found := read_metrics(port, run)).get(key, [])) < least:
        assert time.monotonic() < until, (key, least, found)
        time.sleep(0.5)
    return found


@pytest.mark.ray
def test_a_round_on_ray_is_counted(port, tiny_run, tmp_path):
    source = Path(str(tiny_run.run_dir)).parent
    shutil.copytree(source / "pool", tmp_path / "pool")
    shutil.copytree(source / "run", tmp_path / "metered")
    shutil.rmtree(tmp_path / "metered" / "rounds" / "001")
    run = madbal_ray.run(tiny_config(), run_dir=tmp_path / "metered", engine="ray")
    spent = {
        event["stage"]: event["seconds"]
        for event in run.run_dir.events()
        if event["event"] == "stage_finished" and event["round"] == 1
    }
    key = ("ray_madbal_stage_seconds_total", "train")
    found = wait_for(port, "metered", key, 0.9 * spent["train"])
    for stage in ("score", "select", "labels"):
        assert found["ray_madbal_images_total", stage] == [6.0], stage
        assert found["ray_madbal_shard_seconds_count", stage] == [3.0], stage
    for stage in ("score", "allocate", "train"):
        (seconds,) = found["ray_madbal_stage_seconds_total", stage]
        assert 0.9 * spent[stage] - 0.5 <= seconds <= spent[stage] + 0.001, stage
    memory = {stage: v for (name, stage), v in found.items() if "gpu_memory" in name}
    assert set(memory) == ({"score", "train"} if torch.cuda.is_available() else set())


@pytest.mark.ray
def test_bad_images_are_counted(port, tiny_run, tmp_path):
    pool = Path(str(tiny_run.run_dir)).parent / "pool" / "synthetic"
    images = sorted(path for path in pool.rglob("train/*.png") if "mask" not in str(path))[:3]
    (tmp_path / "images").mkdir()
    for path in images:
        shutil.copy(path, tmp_path / "images" / path.name)
    (tmp_path / "images" / "broken.png").write_bytes(b"not an image")
    api.score(
        tmp_path / "images",
        checkpoint=tiny_run.run_dir.folder.uri,
        out=tmp_path / "with-a-bad-one",
        engine="ray",
    )
    found = wait_for(port, "with-a-bad-one", ("ray_madbal_images_total", "score"), 3)
    assert found["ray_madbal_bad_images_total", "images"] == [1.0]
    assert found["ray_madbal_images_total", "images"] == [3.0]
    assert found["ray_madbal_images_total", "score"] == [3.0]
