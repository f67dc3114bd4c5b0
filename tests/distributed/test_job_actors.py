"""Actors that stay: shards of lost ones run again, those that cannot start hold up nobody."""

import os
import threading
import time

import pyarrow as pa
import pytest
import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError

from madbal_ray.errors import StageError
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder

pytestmark = pytest.mark.ray


class Shards:
    """Counts the shard's number; a deadly shard kills its process, `deaths` times."""

    is_light = counts_images = True
    uses_device = False
    table_names = ("images",)

    deaths = 1

    def __init__(self, folder, *, deadly=(), defect=False):
        self.output = StageDir.plan(Folder(folder), "images", {"deadly": list(deadly)}, {})
        self.folder, self.deadly, self.defect = str(folder), deadly, defect

    def setup(self):
        with open(f"{self.folder}/set-up", "a") as sink:
            sink.write(f"{os.getpid()}\n")

    def run(self, shard_id):
        if self.defect:
            raise ZeroDivisionError("oops")
        flag = f"{self.folder}/died-{shard_id}"
        with open(flag, "a") as sink:
            sink.write("+")
        if shard_id in self.deadly and os.path.getsize(flag) <= self.deaths:
            os._exit(1)
        time.sleep(0.01)
        return {"images": pa.table({"image_id": [str(shard_id)]}, schema=None)}

    def count(self, shard_tables):
        return {"images": 1}


@pytest.fixture
def actors(ray_session, monkeypatch):
    from madbal_ray.distributed.job_actors import JobActors

    monkeypatch.setattr(StageDir, "write_table", lambda *args: None)
    made = []

    def make(count, **options):
        made.append(JobActors(count, **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def shards_of(rows):
    return sorted(row["shard_id"] for row in rows)


@pytest.fixture
def plain_rows(monkeypatch):
    """Actors that return a shard's number and process, without files."""
    from madbal_ray.distributed import job_actors

    class Plain(job_actors.JobActor):
        def run_shard(self, job, shard_id):
            if self.key != job.output.key:
                job.setup()
                self.key = job.output.key
            job.run(shard_id)
            return {"shard_id": shard_id, "process": os.getpid()}

    return Plain


def test_processes_stay_from_job_to_job_and_set_each_job_up_once(actors, plain_rows, tmp_path):
    pool = actors(2, kind=plain_rows)
    first = list(pool.map(Shards(tmp_path), range(12)))
    assert shards_of(first) == list(range(12))
    second = list(pool.map(Shards(tmp_path, deadly=[99]), range(12)))
    processes = {row["process"] for row in first}
    assert {row["process"] for row in second} <= processes
    set_up = (tmp_path / "set-up").read_text().split()
    assert len(set_up) == len(set(set_up)) * 2 <= 4


def test_a_lost_actors_shards_run_again(actors, plain_rows, tmp_path):
    rows = list(actors(2, kind=plain_rows).map(Shards(tmp_path, deadly=[2, 5]), range(8)))
    assert shards_of(rows) == list(range(8))


@pytest.mark.parametrize("error", [OutOfMemoryError("1.9 of 2 GB"), NodeDiedError("gone")])
def test_however_ray_says_that_a_process_is_gone_its_shards_run_again(
    error, actors, plain_rows, tmp_path, monkeypatch
):
    """Its memory monitor's error is none of an actor's; nor is that of a node."""
    from madbal_ray.distributed import job_actors

    plain, seen = ray.get, []

    def get(reference):
        value = plain(reference)
        if isinstance(value, dict) and value["shard_id"] == 3:
            seen.append(value["process"])
            if len(seen) < 3:
                raise error
        return value

    monkeypatch.setattr(job_actors.ray, "get", get)
    rows = list(actors(2, kind=plain_rows).map(Shards(tmp_path), range(8)))
    assert shards_of(rows) == list(range(8))
    assert len(set(seen)) == 3  # each time in another process


def test_a_call_goes_on_in_another_process_when_memory_ran_out(actors, tmp_path, monkeypatch):
    from madbal_ray.distributed import job_actors

    class Asked(job_actors.JobActor):
        def process(self):
            return os.getpid()

    plain, seen = ray.get, []

    def get(reference):
        value = plain(reference)
        if isinstance(value, int):
            seen.append(value)
            if len(seen) == 1:
                raise OutOfMemoryError("1.9 of 2 GB")
        return value

    monkeypatch.setattr(job_actors.ray, "get", get)
    assert actors(1, kind=Asked).call("process", "train") == seen[1] != seen[0]


def test_what_is_waited_for_is_told(actors, plain_rows, tmp_path, monkeypatch, caplog):
    from madbal_ray.distributed import job_actors

    holds = actors(1, kind=plain_rows, options={"num_cpus": 4})  # all that the session has
    list(holds.map(Shards(tmp_path), [0]))
    monkeypatch.setattr(job_actors, "PATIENT_SECONDS", 0.2)
    rows = actors(1, kind=plain_rows, options={"num_cpus": 1}).map(Shards(tmp_path), [1])
    threading.Timer(3.0, holds.stop).start()
    assert shards_of(rows) == [1]
    (line,) = caplog.messages
    assert line.startswith(
        "stage images: waiting for a node with room for an actor of {'num_cpus': 1}; the Ray "
        "cluster has 4 CPUs, 0 GPUs in all, 0 CPUs, 0 GPUs of it free now"
    )


def test_a_shard_that_kills_three_processes_is_told_and_takes_no_other_along(
    actors, plain_rows, tmp_path
):
    job = Shards(tmp_path, deadly=[2])
    job.deaths = 99
    rows = list(actors(1, kind=plain_rows).map(job, range(5)))
    (failed,) = [row for row in rows if "error" in row]
    assert shards_of(rows) == list(range(5))
    assert failed["shard_id"] == 2
    assert failed["error"]["text"].startswith(
        "shard 2 was at work each time when 3 processes were lost, alone in the last two"
    )
    assert os.path.getsize(tmp_path / "died-2") == 3


def test_many_deadly_shards_are_not_the_shards_fault(actors, plain_rows, tmp_path, monkeypatch):
    from madbal_ray.distributed import job_actors

    monkeypatch.setattr(job_actors, "DEATHS", 1)
    monkeypatch.setattr(job_actors, "MOST_GIVEN_UP", 2)
    rows = actors(1, kind=plain_rows).map(Shards(tmp_path, deadly=range(4)), range(4))
    assert "error" in next(rows)
    with pytest.raises(StageError, match="2 workers in a row were lost"):
        next(rows)


def test_an_actor_that_cannot_start_holds_up_nobody(actors, plain_rows, tmp_path):
    pool = actors(2, kind=plain_rows, options={"num_cpus": 3})  # the session has 4
    rows = list(pool.map(Shards(tmp_path), range(6)))
    assert shards_of(rows) == list(range(6))
    assert len({row["process"] for row in rows}) == 1


def test_a_defect_is_told_with_the_stages_name(actors, plain_rows, tmp_path):
    with pytest.raises(StageError, match=r"stage images: a Ray worker failed: .*oops"):
        list(actors(1, kind=plain_rows).map(Shards(tmp_path, defect=True), [0]))


@pytest.mark.parametrize("ends", ["raises", "dies"])
def test_actors_that_cannot_start_end_the_stage(ends, actors, tmp_path):
    from madbal_ray.distributed.job_actors import JobActor

    class Stillborn(JobActor):
        def __init__(self, how):
            if how == "raises":
                raise ImportError("no such module")
            os._exit(1)

    pool = actors(1, kind=Stillborn, arguments=(ends,))
    message = "cannot start: .*no such module" if ends == "raises" else "4 workers in a row were"
    with pytest.raises(StageError, match=f"(?s)stage images: .*{message}"):
        list(pool.map(Shards(tmp_path), [0]))
