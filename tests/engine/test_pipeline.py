"""A shard is read while another is computed and a third written; errors stay with their shard."""

import threading
from dataclasses import dataclass, field

import pytest

from madbal_ray.engine.contract import LightShardJob, StreamedJob
from madbal_ray.engine.local import LocalEngine
from madbal_ray.engine.shards import ShardWorker
from madbal_ray.errors import DataError, RunDirError
from madbal_ray.state import notices, tables
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder

TABLE = "superpixel_clusters"


@dataclass(kw_only=True)
class Streamed(LightShardJob):
    """A row a shard; `hooks` are called with (step, shard)."""

    hooks: list = field(default_factory=list)
    table_names = (TABLE,)

    def meet(self, step, shard_id):
        for hook in self.hooks:
            hook(step, shard_id)

    def load(self, shard_id):
        self.meet("load", shard_id)
        return f"loaded {shard_id}"

    def compute(self, shard_id, loaded):
        assert loaded == f"loaded {shard_id}"
        self.meet("compute", shard_id)
        return {TABLE: tables.from_rows(TABLE, [{"image_id": str(shard_id)}])}

    def run(self, shard_id):
        return self.compute(shard_id, self.load(shard_id))


def job_of(tmp_path, *hooks):
    return Streamed(output=StageDir.plan(Folder(tmp_path), TABLE, {}, {}), hooks=list(hooks))


def rows_of(job, count=4):
    return list(LocalEngine("cpu").map_shards(job, list(range(count))))


def failing(step, shard_id, error):
    def hook(*at):
        if at == (step, shard_id):
            raise error

    return hook


def test_the_next_shard_is_loaded_and_the_last_written_while_one_is_computed(tmp_path, monkeypatch):
    loaded, written = threading.Event(), threading.Event()
    write = StageDir.write_table

    def hook(step, shard_id):
        if (step, shard_id) == ("load", 2):
            loaded.set()
        if (step, shard_id) == ("compute", 1):
            assert loaded.wait(10)  # shard 2
            assert written.wait(10)  # shard 0

    def noted_write(stage, name, shard_id, table):
        record = write(stage, name, shard_id, table)
        written.set()
        return record

    monkeypatch.setattr(StageDir, "write_table", noted_write)
    assert [row["shard_id"] for row in rows_of(job_of(tmp_path, hook))] == [0, 1, 2, 3]


def test_a_shard_that_is_slow_to_write_holds_up_no_other(tmp_path, monkeypatch):
    computing = threading.Event()
    write = StageDir.write_table

    def hook(step, shard_id):
        if (step, shard_id) == ("compute", 1):
            computing.set()

    def slow_write(stage, name, shard_id, table):
        assert computing.wait(10)  # shard 1, while shard 0 is not written yet
        return write(stage, name, shard_id, table)

    monkeypatch.setattr(StageDir, "write_table", slow_write)
    assert len(rows_of(job_of(tmp_path, hook))) == 4


def test_one_thread_computes_and_no_more_than_two_shards_are_loaded(tmp_path):
    threads, loads, done = set(), [], []

    def hook(step, shard_id):
        if step == "load":
            loads.append(shard_id)
            assert len(loads) - len(done) <= 3  # the one that is computed, the next, and one begun
        else:
            threads.add(threading.get_ident())
            done.append(shard_id)

    rows_of(job_of(tmp_path, hook), 8)
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("step", ["load", "compute", "write"])
def test_an_error_of_ours_is_the_row_of_its_shard(tmp_path, monkeypatch, step):
    write = StageDir.write_table
    if step == "write":

        def refuse(stage, name, shard_id, table):
            if shard_id == 1:
                raise RunDirError("no space")
            return write(stage, name, shard_id, table)

        monkeypatch.setattr(StageDir, "write_table", refuse)
    rows = rows_of(job_of(tmp_path, failing(step, 1, DataError("no mask"))), 3)
    assert ["error" in row for row in rows] == [False, True, False]
    assert rows[1]["error"]["text"] == ("no space" if step == "write" else "no mask")
    assert [row["shard_id"] for row in rows] == [0, 1, 2]


def test_a_defect_is_raised(tmp_path):
    with pytest.raises(ZeroDivisionError):
        rows_of(job_of(tmp_path, failing("load", 1, ZeroDivisionError())))


def test_what_was_tried_again_is_told_in_the_row(tmp_path):
    notices.take()

    def hook(step, shard_id):
        if (step, shard_id) == ("compute", 0):
            notices.note("tried again", "a")
            notices.note("tried again", "b")

    rows = rows_of(job_of(tmp_path, hook), 1)
    assert rows[0]["notices"] == {"tried again": (2, "b")}
    assert "notices" not in rows_of(job_of(tmp_path / "other"), 1)[0]


def test_one_shard_alone_is_loaded_computed_and_written(tmp_path):
    job = job_of(tmp_path)
    assert isinstance(job, StreamedJob)
    row = ShardWorker(job).run(5)
    assert row["counts"] == {"images": 1}
    assert row["files"][0]["path"] == f"{TABLE}/00005.parquet"
