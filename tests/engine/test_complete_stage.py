"""Completing a stage: what is adopted, what runs again, which error is raised."""

import errno
import hashlib
from dataclasses import dataclass, field
from functools import partial

import pytest

from madbal_ray.engine.contract import LightShardJob, written_row
from madbal_ray.engine.local import LocalEngine
from madbal_ray.engine.shards import complete_stage
from madbal_ray.errors import AnswersPending, DataError, LabelError, NumericalError
from madbal_ray.state import notices, retries, tables
from madbal_ray.state.stage_dir import StageDir, table_path
from madbal_ray.state.storage import Folder

TABLE, OTHER = "superpixel_clusters", "quarantine"


@dataclass(kw_only=True)
class Numbered(LightShardJob):
    """Writes a row an image, as many as the shard's number and one; some shards fail."""

    fails: dict = field(default_factory=dict)
    ran: list = field(default_factory=list)
    table_names = (TABLE,)

    def run(self, shard_id):
        self.ran.append(shard_id)
        if shard_id in self.fails:
            raise self.fails[shard_id]
        return {name: rows_of(name, shard_id) for name in self.table_names}


class Both(Numbered):
    """Writes two tables."""

    table_names = (TABLE, OTHER)


class Backwards(LocalEngine):
    """Finishes the last shard first."""

    def map_shards(self, job, shard_ids):
        return super().map_shards(job, list(reversed(shard_ids)))


def rows_of(name, shard_id):
    return tables.from_rows(name, [{"image_id": f"{shard_id}-{i}"} for i in range(shard_id + 1)])


def job_of(tmp_path, kind=Numbered, **options):
    return kind(output=StageDir.plan(Folder(tmp_path), TABLE, {}, {}), **options)


def complete(job, shard_ids=(0, 1, 2)):
    rows = []
    marker = complete_stage(Backwards("cpu"), job, list(shard_ids), on_row=rows.append)
    return marker, rows


def test_all_shards_run_and_their_counts_stand_in_order(tmp_path):
    job = job_of(tmp_path)
    marker, rows = complete(job)
    assert job.ran == [2, 1, 0]
    assert [row["shard_id"] for row in rows] == [2, 1, 0]
    assert [record.path for record in marker.files] == [table_path(TABLE, i) for i in range(3)]
    assert [record.rows for record in marker.files] == [1, 2, 3]
    assert list(marker.summary["shards"].items()) == [
        ("0", {"images": 1}),
        ("1", {"images": 2}),
        ("2", {"images": 3}),
    ]


def test_a_whole_file_that_the_manifest_does_not_name_is_adopted(tmp_path):
    job = job_of(tmp_path)
    record = job.output.write_table(TABLE, 1, rows_of(TABLE, 1))
    marker, rows = complete(job)
    assert job.ran == [2, 0]
    assert rows[0] == {
        "shard_id": 1,
        "files": [vars(record)],
        "counts": {"images": 2},
        "seconds": 0.0,
        "peak_memory": 0,
    }
    assert marker.paths[record.path] == record
    content = job.output.folder.read(record.path)
    assert record.sha256 == hashlib.sha256(content).hexdigest()
    assert marker.summary["shards"]["1"] == {"images": 2}


def test_adopting_is_tried_again_where_the_disk_failed_in_passing(tmp_path, monkeypatch):
    job, failed = job_of(tmp_path), []
    job.output.write_table(TABLE, 1, rows_of(TABLE, 1))

    def every_other(method):
        def act(folder, name):
            failed.append(name)
            if len(failed) % 2:
                raise OSError(errno.EIO, "Input/output error")
            return method(folder, name)

        return act

    monkeypatch.setattr(retries, "PAUSE_SECONDS", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(Folder, "_read", every_other(Folder._read))
        patched.setattr(Folder, "open", every_other(Folder.open))
        complete(job)
    notices.take()
    assert job.ran == [2, 0]
    assert table_path(TABLE, 1) in failed


def test_a_file_of_another_stage_or_half_a_file_is_not_adopted(tmp_path):
    job = job_of(tmp_path)
    whole = tables.encode(TABLE, rows_of(TABLE, 1), key=job.output.key)
    job.output.write_file(table_path(TABLE, 0), whole[:-20])
    foreign = tables.encode(TABLE, rows_of(TABLE, 1), key="another key")
    job.output.write_file(table_path(TABLE, 1), foreign)
    complete(job)
    assert job.ran == [2, 1, 0]


def test_a_shard_is_adopted_when_all_its_tables_are_there(tmp_path):
    job = job_of(tmp_path, Both)
    job.output.write_table(TABLE, 0, rows_of(TABLE, 0))
    job.output.write_table(OTHER, 0, rows_of(OTHER, 0))
    job.output.write_table(TABLE, 1, rows_of(TABLE, 1))
    complete(job)
    assert job.ran == [2, 1]


def test_a_shard_of_which_one_table_is_another_stages_runs_again(tmp_path):
    job = job_of(tmp_path, Both)
    job.output.write_table(TABLE, 0, rows_of(TABLE, 0))
    foreign = tables.encode(OTHER, rows_of(OTHER, 0), key="another key")
    job.output.write_file(table_path(OTHER, 0), foreign)
    complete(job)
    assert job.ran == [2, 1, 0]


def manifest(job, shard_id, *, images):
    job.output.append_manifest(
        {
            "shard_id": shard_id,
            "files": [vars(job.output.write_table(TABLE, shard_id, rows_of(TABLE, shard_id)))],
            "counts": {"images": images},
            "seconds": 1.5,
            "peak_memory": 9,
        }
    )


def test_a_noted_shard_does_not_run_again_unless_its_file_is_missing(tmp_path):
    job = job_of(tmp_path)
    manifest(job, 0, images=70)
    manifest(job, 2, images=72)
    job.output.folder.delete(table_path(TABLE, 2))
    job.output.append_manifest({"shard_id": 1, "error": {}})
    marker, rows = complete(job)
    assert job.ran == [2, 1]
    assert rows[0]["seconds"] == 1.5
    assert marker.summary["shards"] == {
        "0": {"images": 70},
        "1": {"images": 2},
        "2": {"images": 3},
    }


def test_a_noted_shard_runs_again_when_one_of_its_tables_is_missing(tmp_path):
    job = job_of(tmp_path, Both)
    for shard_id in (0, 1):
        records = [
            job.output.write_table(n, shard_id, rows_of(n, shard_id)) for n in (TABLE, OTHER)
        ]
        job.output.append_manifest(
            {
                "shard_id": shard_id,
                "files": [vars(record) for record in records],
                "counts": {"images": 1},
                "seconds": 1.5,
                "peak_memory": 9,
            }
        )
    job.output.folder.delete(table_path(OTHER, 1))
    complete(job)
    assert job.ran == [2, 1]


def test_nothing_runs_when_every_shard_is_noted(tmp_path):
    job = job_of(tmp_path)
    manifest(job, 0, images=1)
    complete(job, [0])
    assert job.ran == []
    assert job.output.is_done


def test_the_first_failed_shard_is_raised_with_how_many_failed_and_others_are_kept(tmp_path):
    job = job_of(tmp_path, fails={3: DataError("no mask"), 1: NumericalError("not finite")})
    with pytest.raises(
        NumericalError,
        match=r"^stage superpixel_clusters, shard 1 \(2 of 4 shards failed\): not finite$",
    ):
        complete(job, range(4))
    assert sorted(row["shard_id"] for row in job.output.read_manifest()) == [0, 2]
    assert not job.output.is_done
    job.fails, job.ran = {}, []
    complete(job, range(4))
    assert job.ran == [3, 1]


def test_a_single_failure_is_not_counted(tmp_path):
    job = job_of(tmp_path, fails={2: LabelError("twice")})
    with pytest.raises(LabelError, match=r"^stage superpixel_clusters, shard 2: twice$"):
        complete(job)


def test_an_error_that_is_no_madbal_error_is_a_defect_and_stops_at_once(tmp_path):
    job = job_of(tmp_path, fails={1: ValueError("a defect")})
    with pytest.raises(ValueError, match=r"^a defect$"):
        complete(job)
    assert job.ran == [2, 1]


def test_answers_that_all_failed_shards_wait_for_are_added_up(tmp_path):
    job = job_of(tmp_path, fails={2: AnswersPending("bob", 4), 0: AnswersPending("ada", 3)})
    with pytest.raises(AnswersPending, match=r"^ada$") as error:
        complete(job)
    assert error.value.count == 7


def test_a_failure_is_told_before_answers_that_are_awaited(tmp_path):
    fails = {0: AnswersPending("ada", 3), 1: LabelError("twice"), 2: LabelError("thrice")}
    with pytest.raises(LabelError, match=r"shard 1 \(3 of 3 shards failed\): twice"):
        complete(job_of(tmp_path, fails=fails))


@dataclass(kw_only=True)
class Ahead(Numbered):
    """Writes the shards of a later stage, too."""

    later: Numbered

    @property
    def beside_output(self):
        return self.later.output

    def beside(self, shard_id):
        table = rows_of(TABLE, shard_id + 1)
        record = self.later.output.write_table(TABLE, shard_id, table)
        return written_row(shard_id, [record], {"images": shard_id + 2})


def test_what_a_stage_writes_for_a_later_one_is_noted_and_not_read_again(tmp_path, monkeypatch):
    later = job_of(tmp_path / "later")
    first = job_of(tmp_path / "first", partial(Ahead, later=later))
    marker, rows = complete(first)
    assert all("beside" not in row for row in rows)
    assert all("beside" not in row for row in first.output.read_manifest())
    assert [record.rows for record in marker.files] == [1, 2, 3]

    def listed_only(method):
        def act(folder, name):
            assert not name.endswith(".parquet"), f"{name} was read"
            return method(folder, name)

        return act

    with monkeypatch.context() as patched:
        for name in ("open", "_read"):
            patched.setattr(Folder, name, listed_only(getattr(Folder, name)))
        marker, rows = complete(later)
    assert later.ran == []
    assert [record.rows for record in marker.files] == [2, 3, 4]
    assert [row["counts"] for row in rows] == [{"images": n} for n in (2, 3, 4)]
    content = later.output.folder.read(marker.files[0].path)
    assert marker.files[0].sha256 == hashlib.sha256(content).hexdigest()
