"""A second try where a disk or a store failed in passing: bounded, counted, told."""

import errno
import os
import pathlib
import time

import pyarrow as pa
import pytest

from madbal_ray.errors import RunDirError
from madbal_ray.state import notices, retries, tables
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder


@pytest.fixture(autouse=True)
def nothing_noted():
    notices.take()
    yield
    notices.take()


def failing(times, error, then):
    """Return a function that raises `error` so often, and counts its calls."""

    def call(*args, **kwargs):
        call.count += 1
        if call.count <= times:
            raise error
        return then(*args, **kwargs)

    call.count = 0
    return call


def test_a_read_and_a_write_are_tried_again_after_pauses_that_double(tmp_path, monkeypatch):
    folder, pauses = Folder(tmp_path), []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(retries, "PAUSE_SECONDS", 0.5)
    stale = OSError(errno.ESTALE, "Stale file handle")
    monkeypatch.setattr(os, "fsync", failing(2, stale, os.fsync))
    folder.write("a", b"one")
    assert pauses == [0.5, 1.0]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]  # no temporary file is left
    monkeypatch.setattr(pathlib.Path, "read_bytes", failing(3, stale, pathlib.Path.read_bytes))
    assert folder.read("a") == b"one"
    assert pauses[2:] == [0.5, 1.0, 2.0]
    ((kind, (count, last)),) = notices.take().items()
    assert (kind, count) == ("tried again", 5)
    assert last == f"{tmp_path}/a ([Errno 116] Stale file handle), attempt 3 of 4"
    assert notices.take() == {}


def test_the_fourth_failure_is_the_last_one(tmp_path, monkeypatch):
    read = failing(9, OSError(errno.EIO, "Input/output error"), bytes)
    monkeypatch.setattr(pathlib.Path, "read_bytes", read)
    with pytest.raises(RunDirError, match="Input/output error"):
        Folder(tmp_path).read("a")
    assert read.count == 4


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOENT])
def test_what_another_attempt_would_meet_again_is_told_at_once(tmp_path, monkeypatch, code):
    sync = failing(9, OSError(code, os.strerror(code)), bytes)
    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(RunDirError, match=os.strerror(code)):
        Folder(tmp_path).write("a", b"x")
    assert sync.count == 1
    assert notices.take() == {}


def test_a_table_is_opened_again_after_a_failure_of_the_disk(tmp_path, monkeypatch):
    stage = StageDir.plan(Folder(tmp_path), "superpixel_clusters", {}, {})
    rows = tables.from_rows("superpixel_clusters", [{"image_id": "a"}])
    stage.commit([stage.write_table("superpixel_clusters", 0, rows)], {})
    opened = failing(1, OSError(errno.EIO, "Input/output error"), pa.OSFile)
    monkeypatch.setattr(pa, "OSFile", opened)
    assert stage.read_table("superpixel_clusters").equals(rows)
    assert opened.count == 3  # the failure, then to hash it and to read it


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("AWS Error SLOW_DOWN during PutObject operation: Please reduce your rate", True),
        ("AWS Error UNKNOWN (HTTP status 503) during HeadObject operation", True),
        ("AWS Error UNKNOWN (HTTP status 429) during GetObject operation", True),
        ("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 28", True),
        ("part-0.tar ends 12 bytes early", True),
        ("AWS Error UNKNOWN (HTTP status 400) during HeadObject operation", False),
        ("AWS Error ACCESS_DENIED during HeadObject operation: No response body.", False),
        ("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation", False),
        ("AWS Error INVALID_ACCESS_KEY_ID during PutObject operation", False),
    ],
)
def test_errors_of_a_store_are_told_apart_by_their_words(text, passes):
    assert retries.is_passing(OSError(text)) is passes
