"""Run folders and pools on S3: a real HTTP server on loopback, pyarrow's own client."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import madbal_ray
from madbal_ray import api
from madbal_ray.errors import LockedError, MadbalError
from madbal_ray.state import lock, storage
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.storage import Folder
from tests.conftest import tiny_config

TABLES = ("queries", "labels", "cluster_budgets", "superpixel_scores", "metrics")


@pytest.fixture(scope="module")
def bucket():
    """An empty bucket on a server of its own; its address is in the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    known = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    before = {name: os.environ.get(name) for name in known}
    os.environ.update(known)
    storage._filesystem.cache_clear()
    import boto3

    boto3.client("s3").create_bucket(Bucket="madbal-test")
    yield "s3://madbal-test"
    server.stop()
    storage._filesystem.cache_clear()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def upload(folder: Path, target: Folder) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            target.write(path.relative_to(folder).as_posix(), path.read_bytes())


def test_a_folder_on_s3_behaves_like_one_on_disk(bucket, tmp_path):
    for folder in (Folder(tmp_path / "f"), Folder(f"{bucket}/f")):
        folder.write("a/b.bin", b"one")
        folder.write("a/b.bin", b"two")
        assert folder.read("a/b.bin") == b"two"
        assert folder.exists("a/b.bin")
        assert not folder.exists("a")
        assert folder.size("a/b.bin") == 3
        assert folder.size("nothing") is None
        for line in ("first", "second", "third"):
            folder.append_line("log.jsonl", line)
        assert folder.read_lines("log.jsonl") == ["first", "second", "third"]
        assert folder.read_lines("none.jsonl") == []
        folder.delete("a/b.bin")
        folder.delete("a/b.bin")
        with pytest.raises(FileNotFoundError):
            folder.read("a/b.bin")


def test_a_run_on_s3_equals_the_run_on_disk_and_resumes(bucket, tiny_run):
    config = tiny_config()
    where = f"{bucket}/runs/tiny"
    with pytest.raises(Exception, match="stopped after round 1 score"):
        madbal_ray.run(config, run_dir=where, engine="local", stop_after=("score", 1))
    run = madbal_ray.run(config, run_dir=where, engine="local")
    for name in TABLES:
        assert run.table(name).equals(tiny_run.table(name)), name
    assert api.is_finished(run.config, run_dir=where)
    assert RunDir(where).holder() is None
    stages = [
        event["stage"] for event in RunDir(where).events() if event["event"] == "stage_finished"
    ]
    assert stages.count("score") == 1  # the resume did not score again


def test_a_run_on_s3_survives_a_kill(bucket, tiny_run, tmp_path):
    config = tmp_path / "tiny.json"
    config.write_text(json.dumps(tiny_config()))
    where = f"{bucket}/kill/run"
    command = [sys.executable, "-m", "madbal_ray", "run", config, "--run-dir", where]
    command += ["--engine", "local"]
    kills = 0
    for wait_for in ("superpixels", "phase1", "score"):
        process = subprocess.Popen(
            [*command, "--take-over"], stdout=subprocess.PIPE, text=True, cwd=tmp_path,
            start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if wait_for in line:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                break
        process.wait()
    assert kills == 3
    refused = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert refused.returncode == 1
    assert "is held by process" in refused.stderr
    assert "--take-over" in refused.stderr
    done = subprocess.run(
        [*command, "--take-over"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    run = madbal_ray.open_run(where)
    for name in TABLES:
        assert run.table(name).equals(tiny_run.table(name)), name


def test_the_same_pool_from_s3(bucket, tiny_run, tmp_path):
    images = sorted(Path(str(tiny_run.run_dir)).parent.glob("pool/synthetic/**/train/*.png"))
    images = [path for path in images if "mask" not in str(path)]
    local = tmp_path / "pool"
    local.mkdir()
    for path in images:
        (local / path.name).write_bytes(path.read_bytes())
    upload(local, Folder(f"{bucket}/pool"))
    checkpoint = tiny_run.run_dir.folder.uri
    options = {"checkpoint": checkpoint, "budget": 4, "engine": "local"}
    api.score(local, out=tmp_path / "here", **options)
    api.score(f"{bucket}/pool", out=f"{bucket}/scored", **options)
    here, there = madbal_ray.open_run(tmp_path / "here"), madbal_ray.open_run(f"{bucket}/scored")
    for name in ("superpixel_scores", "queries"):
        assert here.table(name, 0).equals(there.table(name, 0)), name
    ours, theirs = (
        run.table("pixel_requests", 0).drop_columns("query_id") for run in (here, there)
    )
    assert ours.equals(theirs)  # ids name the run that asks


def test_a_lease_is_held_renewed_and_given_back(bucket, monkeypatch):
    monkeypatch.setattr(lock, "LEASE_SECONDS", 3.0)
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.3)
    monkeypatch.setattr(lock, "RACE_SECONDS", 0.05)
    folder = Folder(f"{bucket}/lease")
    with lock.hold(folder):
        first = lock.holder(folder)
        assert first is not None
        assert first["pid"] == os.getpid()
        with pytest.raises(LockedError, match="--take-over"), lock.hold(folder):
            pass
        time.sleep(1.0)
        renewed = lock.holder(folder)
        assert renewed is not None
        assert renewed["expires"] > first["expires"]
    assert lock.holder(folder) is None
    with lock.hold(folder), lock.hold(folder, take_over=True):
        pass
    folder.write(
        lock.LEASE_NAME, json.dumps({"host": "gone", "pid": 1, "since": 0, "expires": 1}).encode()
    )
    with lock.hold(folder):  # an expired lease is free
        pass


class TestBadInput:
    def test_no_such_bucket(self, bucket, tmp_path, tiny_run):
        with pytest.raises(MadbalError, match="bucket exists"):
            madbal_ray.run(tiny_config(), run_dir="s3://madbal-none/run", engine="local")
        with pytest.raises(MadbalError, match=r"madbal-none.* (cannot be|holds no images)"):
            api.score(
                "s3://madbal-none/pool",
                checkpoint=tiny_run.run_dir.folder.uri,
                out=tmp_path / "out",
                engine="local",
            )

    def test_unreachable_server(self, bucket, monkeypatch, tmp_path):
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        storage._filesystem.cache_clear()
        try:
            with pytest.raises(MadbalError, match="network"):
                madbal_ray.run(tiny_config(), run_dir="s3://madbal-test/x", engine="local")
        finally:
            storage._filesystem.cache_clear()

    def test_unknown_scheme(self):
        with pytest.raises(MadbalError, match="ftp://host cannot be opened"):
            Folder("ftp://host/x").exists("a")
