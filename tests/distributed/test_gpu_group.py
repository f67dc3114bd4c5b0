"""Groups of processes: results in rank order, and whoever fails or hangs, all end.

Members reserve CPUs here, so that real actors run without GPUs. NCCL needs two GPUs.
"""

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
import torch
from ray import cloudpickle

import madbal_ray
from madbal_ray.engine.contract import GpuJob, Member
from madbal_ray.errors import PoolError, ResourceError, StageError
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from tests.conftest import tiny_config

ONE_CPU = {"CPU": 1.0}


class Job:
    """Does what it is told; travels to workers by value."""

    num_gpus = 9

    def __init__(self, folder, act):
        self.output = StageDir.plan(Folder(str(folder)), "centroids", {}, {})
        self.act = act
        self.results = None

    def run(self):
        raise AssertionError("a group does not call run")

    def run_member(self, member):
        return self.act(member)

    def finish(self, results):
        self.results = results


@pytest.fixture(autouse=True)
def by_value():
    """Workers cannot import tests."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


class Unjoined:
    """A member that knows its rank and has no NCCL."""

    def make_id(self):
        return b"id"

    def join(self, rank, size, group_id):
        assert group_id == b"id"
        self.member = Member(rank, size)

    def run_member(self, job):
        return job.run_member(self.member)


def no_join(monkeypatch):
    """Leave NCCL out; placement, waiting and ending are the real ones."""
    from madbal_ray.distributed import gpu_group

    monkeypatch.setattr(gpu_group, "GpuActor", Unjoined)
    return gpu_group


def free_cpus(expected):
    import ray

    ends = time.monotonic() + 30
    while ray.available_resources().get("CPU", 0) < expected and time.monotonic() < ends:
        time.sleep(0.1)
    return ray.available_resources().get("CPU", 0)


@pytest.mark.ray
def test_one_member_needs_no_nccl(ray_session, tmp_path):
    from madbal_ray.distributed.gpu_group import call_on_gpus

    job = Job(tmp_path, lambda member: (member.rank, member.size, member.handle))
    assert isinstance(job, GpuJob)
    call_on_gpus(job, 1, bundle=ONE_CPU)
    assert job.results == [(0, 1, None)]


@pytest.mark.ray
@pytest.mark.skipif(find_spec("raft_dask") is not None, reason="raft_dask is installed here")
def test_several_members_without_nccl_say_what_to_install(ray_session, tmp_path):
    from madbal_ray.distributed.gpu_group import call_on_gpus

    with pytest.raises(
        ResourceError,
        match=r"^clustering on several GPUs: raft_dask cannot be imported .*madbal_ray\[gpu\]",
    ):
        call_on_gpus(Job(tmp_path, lambda member: None), 2, bundle=ONE_CPU)


@pytest.mark.ray
def test_a_whole_pool_jobs_own_error_comes_out_as_it_is(ray_session, tmp_path):
    from madbal_ray.distributed.job_actors import JobActors

    class Refused(Job):
        def run(self):
            raise PoolError("too few")

    actors = JobActors(1)
    with pytest.raises(PoolError, match=r"^too few$"):
        actors.call("call", "centroids", Refused(tmp_path, None))
    actors.stop()


@pytest.mark.ray
def test_results_come_in_rank_order_and_all_is_given_back(ray_session, tmp_path, monkeypatch):
    group = no_join(monkeypatch)

    def slow_first(member):
        time.sleep(0.5 if member.rank == 0 else 0)
        return member.rank, member.size

    job = Job(tmp_path, slow_first)
    group.call_on_gpus(job, 3, bundle=ONE_CPU)
    assert job.results == [(0, 3), (1, 3), (2, 3)]
    assert free_cpus(4) == 4


@pytest.mark.ray
def test_one_lost_member_ends_all_at_once(ray_session, tmp_path, monkeypatch):
    group = no_join(monkeypatch)

    def die(member):
        if member.rank == 1:
            os._exit(1)
        time.sleep(300)

    job = Job(tmp_path, die)
    started = time.monotonic()
    with pytest.raises(StageError, match="centroids: GPU process 1 of 2 was lost, so all"):
        group.call_on_gpus(job, 2, bundle=ONE_CPU)
    assert time.monotonic() - started < 60
    assert job.results is None
    assert free_cpus(4) == 4


@pytest.mark.ray
def test_a_members_own_error_comes_out_while_others_wait(ray_session, tmp_path, monkeypatch):
    group = no_join(monkeypatch)

    def refuse(member):
        if member.rank == 1:
            raise PoolError("too few")
        time.sleep(300)

    with pytest.raises(PoolError, match=r"^too few$"):
        group.call_on_gpus(Job(tmp_path, refuse), 2, bundle=ONE_CPU)
    assert free_cpus(4) == 4


@pytest.mark.ray
def test_members_that_never_end_are_ended(ray_session, tmp_path, monkeypatch):
    group = no_join(monkeypatch)
    monkeypatch.setattr(group, "WORK_SECONDS", 2.0)
    job = Job(tmp_path, lambda member: time.sleep(300) if member.rank else None)
    with pytest.raises(StageError, match="1 of 2 GPU processes did not fit within 2 s"):
        group.call_on_gpus(job, 2, bundle=ONE_CPU)
    assert free_cpus(4) == 4


@pytest.mark.ray
def test_gpus_that_never_come_free_are_said(ray_session, tmp_path, monkeypatch):
    group = no_join(monkeypatch)
    monkeypatch.setattr(group, "PLACE_SECONDS", 1.0)
    with pytest.raises(StageError, match="no 2 GPUs became free in 1 s"):
        group.call_on_gpus(Job(tmp_path, lambda member: None), 2)


@pytest.mark.gpu
def test_two_gpus_cluster_a_pool_together(tmp_path):
    if find_spec("cuml") is None or find_spec("raft_dask") is None:
        pytest.skip("cuML and raft_dask are not installed (pip install 'madbal_ray[gpu]')")
    if torch.cuda.device_count() < 2:
        pytest.skip(f"needs 2 CUDA devices, torch sees {torch.cuda.device_count()}")
    clustering = {"num_clusters": 3, "backend": "cuml", "fit_on": "all", "max_fit_rows": 3}
    config = tiny_config(clustering=clustering, resources={"scoring_workers": 2})
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "madbal_ray", "run", tmp_path / "config.json"]
    command += ["--run-dir", tmp_path / "run", "--stop-after", "superpixel_clusters"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = madbal_ray.open_run(tmp_path / "run").run_dir.find("centroids").marker().summary
    assert (summary["backend"], summary["processes"]) == ("cuml", 2)
