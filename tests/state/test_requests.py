"""What an object store is asked for, counted: absolute numbers of requests."""

import os
import threading
from dataclasses import dataclass

import pyarrow as pa
import pytest

from madbal_ray.engine.contract import LightShardJob
from madbal_ray.engine.local import LocalEngine
from madbal_ray.engine.shards import complete_stage
from madbal_ray.errors import DataError
from madbal_ray.state import notes, storage, tables
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from tests.object_store import CREDENTIALS, CountedStore

TABLE = "superpixel_clusters"


@pytest.fixture(scope="module")
def store():
    """An empty bucket `counted` on a server of its own."""
    server = CountedStore()
    known = {**CREDENTIALS, "AWS_ENDPOINT_URL": server.endpoint}
    before = {name: os.environ.get(name) for name in known}
    os.environ.update(known)
    storage._filesystem.cache_clear()
    import boto3

    boto3.client("s3").create_bucket(Bucket="counted")
    yield server
    server.close()
    storage._filesystem.cache_clear()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def test_as_many_connections_as_requests_that_are_sent_at_once(store):
    before = pa.io_thread_count()
    try:
        pa.set_io_thread_count(8)
        storage._filesystem.cache_clear()
        Folder("s3://counted/threads").exists("nothing")
        assert pa.io_thread_count() == storage.IN_FLIGHT == 64
    finally:
        pa.set_io_thread_count(before)


@dataclass(kw_only=True)
class OneRow(LightShardJob):
    """Writes a row a shard; shards from `fails_from` on fail."""

    fails_from: int = 1000
    ran: list
    table_names = (TABLE,)

    def run(self, shard_id):
        if shard_id >= self.fails_from:
            raise DataError("as asked")
        self.ran.append(shard_id)
        return {TABLE: tables.from_rows(TABLE, [{"image_id": f"{shard_id:04d}"}])}


def complete(output, shards, **options):
    """Complete a stage; return the job."""
    job = OneRow(output=output, ran=[], **options)
    complete_stage(LocalEngine("cpu"), job, list(range(shards)), on_row=lambda row: None)
    return job


def stage_at(name):
    return StageDir.plan(Folder(f"s3://counted/{name}"), TABLE, {}, {})


def kinds(requests):
    """Return requests on tables, and those on anything else, as texts."""
    of_tables = [one.kind for one in requests if one.key.endswith(".parquet")]
    return of_tables, [one.kind for one in requests if not one.key.endswith(".parquet")]


@pytest.mark.parametrize("shards", [3, 30])
def test_a_fresh_stage_costs_one_request_a_file(store, shards):
    with store.counting() as seen:
        complete(stage_at(f"fresh-{shards}"), shards)
    of_tables, others = kinds(seen)
    assert of_tables == ["PUT"] * shards
    # what lies there; the marker is not, as a file or a folder; the marker
    assert others == ["LIST", "HEAD", "LIST", "PUT"]


def test_a_resume_lists_and_reads_no_finished_shard(store):
    output = stage_at("half")
    with pytest.raises(DataError):
        complete(output, 20, fails_from=15)
    with store.counting() as seen:
        job = complete(output, 20)
    assert job.ran == [15, 16, 17, 18, 19]
    of_tables, others = kinds(seen)
    assert of_tables == ["PUT"] * 5
    assert others.count("LIST") == 3  # the stage, its manifest, the missing marker
    assert others.count("GET") == 1  # the manifest is one object
    assert len(output.marker().files) == 20


def test_shards_that_no_manifest_names_are_adopted(store):
    output = stage_at("adopted")
    written = [OneRow(output=output, ran=[]).run(i)[TABLE] for i in range(4)]
    for shard_id, table in enumerate(written):
        output.write_table(TABLE, shard_id, table)
    job = complete(output, 6)
    assert job.ran == [4, 5]
    assert len(output.marker().files) == 6


def test_a_shard_of_another_size_than_noted_runs_again(store):
    output = stage_at("cut")
    with pytest.raises(DataError):
        complete(output, 4, fails_from=3)
    output.folder.write(f"{TABLE}/00001.parquet", b"half")
    assert complete(output, 4).ran == [1, 3]


def test_notes_go_out_many_at_a_time(store, monkeypatch):
    monkeypatch.setattr(notes, "NOTED_ROWS", 10)
    with store.counting() as seen:
        complete(stage_at("notes"), 25)
    written = [one for one in seen if one.kind == "PUT" and "_manifest" in one.key]
    assert len(written) == 2  # the last five are in the marker


def test_a_small_table_is_two_requests_and_many_are_in_flight(store, monkeypatch):
    output = stage_at("read")
    complete(output, 12)
    output.marker()
    with store.counting() as seen:
        output.read_table(TABLE, [3])
    assert [one.kind for one in seen] == ["HEAD", "GET"]
    at_once, most = 0, 0
    plain = Folder.read

    def watched(self, name):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        data = plain(self, name)
        at_once -= 1
        return data

    monkeypatch.setattr(Folder, "read", watched)
    ids = output.read_table(TABLE)["image_id"].to_pylist()
    assert ids == [f"{i:04d}" for i in range(12)]
    assert most > 1
    each = output.each_table(TABLE, [5, 2, 99])
    assert [table["image_id"].to_pylist() for table in each] == [["0005"], ["0002"], []]


def test_lines_of_one_call_are_one_object(store):
    folder = Folder("s3://counted/lines")
    with store.counting() as seen:
        folder.append_line("log.jsonl", "one\ntwo")
    assert [one.kind for one in seen] == ["PUT"]
    folder.append_line("log.jsonl", "three")
    assert folder.read_lines("log.jsonl") == ["one", "two", "three"]


def test_as_many_requests_as_are_asked_for_are_in_flight(store):
    folder = Folder("s3://counted/together")
    folder.write("one", b"1")
    together = threading.Barrier(storage.IN_FLIGHT)

    def meet():
        together.wait(timeout=30)
        return ""

    store.label = meet  # nobody is answered before all have asked
    try:
        read = map_ahead(folder.read, ["one"] * 64, threads=64, ahead=64)
        assert list(read) == [b"1"] * 64
    finally:
        store.label = lambda: ""
    assert not together.broken
