"""What a disk refuses is one sentence with path and cause, at every call of the storage layer."""

import errno
import os
import pathlib

import pytest
from click.testing import CliRunner
from pyarrow import fs as pafs

from madbal_ray.cli import main
from madbal_ray.errors import RunDirError
from madbal_ray.state import lock, storage
from madbal_ray.state.local_disk import check_local_disk
from madbal_ray.state.storage import Folder

CALLS = {
    "read": lambda folder: folder.read("a/b"),
    "write": lambda folder: folder.write("a/b", b"x"),
    "append": lambda folder: folder.append_line("a/b", "x"),
    "delete": lambda folder: folder.delete("a/b"),
    "exists": lambda folder: folder.exists("a/b"),
    "lock": lambda folder: lock.hold(folder).__enter__(),
}
BROKEN = {
    "read": (pathlib.Path, "read_bytes"),
    "write": (os, "fsync"),
    "append": (pathlib.Path, "mkdir"),
    "delete": (pathlib.Path, "unlink"),
    "exists": (pathlib.Path, "is_file"),
    "lock": (pathlib.Path, "mkdir"),
}


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("call", list(CALLS))
def test_an_error_of_the_disk_is_a_sentence(tmp_path, monkeypatch, call, code):
    def refuse(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(*BROKEN[call], refuse)
    with pytest.raises(RunDirError) as caught:
        CALLS[call](Folder(tmp_path / "run"))
    text = str(caught.value)
    assert str(tmp_path / "run") in text
    assert os.strerror(code) in text
    assert "then start the same command again" in text


@pytest.mark.parametrize("where", ["mkdir", "fsync of the folder"])
def test_a_write_that_fails_at_its_ends_is_a_sentence(tmp_path, monkeypatch, where):
    (tmp_path / "file").write_text("x")
    if where == "mkdir":
        with pytest.raises(RunDirError, match="cannot be written"):
            Folder(tmp_path / "file").write("a", b"x")
        return
    real = os.fsync

    def refuse(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RunDirError, match="cannot be written"):
        Folder(tmp_path).write("a", b"x")


def test_a_name_that_no_file_can_have_is_a_sentence(tmp_path):
    folder = Folder(tmp_path)
    for call in (folder.read, lambda name: folder.write(name, b"")):
        with pytest.raises(RunDirError, match="cannot be"):
            call("a\0b")
    with pytest.raises(RunDirError, match="File name too long"):
        folder.read("a" * 5000)


def test_a_folder_where_a_file_should_be_is_a_sentence(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(RunDirError, match="Is a directory"):
        Folder(tmp_path).read("a")


def test_a_command_ends_with_a_sentence_whatever_the_system_refuses(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EIO, "Input/output error", "/some/place")

    monkeypatch.setattr("madbal_ray.api.status", refuse)
    result = CliRunner().invoke(main, ["status", str(tmp_path)])
    assert result.exit_code == 1
    assert result.output == "error: /some/place: Input/output error\n"


def test_a_file_that_cannot_be_made_is_a_sentence():
    folder = Folder("/proc/no")
    with pytest.raises(RunDirError, match="/proc/no/a cannot be written"):
        folder.write("a", b"")
    with pytest.raises(RunDirError, match="/proc/no/a cannot be appended to"):
        folder.append_line("a", "")


def test_a_listing_bears_files_that_another_writer_renames(tmp_path, monkeypatch):
    for name in ("a", "_tmp-b"):
        (tmp_path / name).write_text("x")
    plain = os.scandir

    def scandir(path):
        entries = list(plain(path))
        (tmp_path / "_tmp-b").unlink(missing_ok=True)
        return entries

    monkeypatch.setattr(os, "scandir", scandir)
    assert list(Folder(tmp_path).walk()) == [("a", 1)]


def test_a_listing_follows_links_but_not_in_circles(tmp_path):
    (tmp_path / "elsewhere" / "train").mkdir(parents=True)
    (tmp_path / "elsewhere" / "train" / "a.png").write_text("abc")
    root = tmp_path / "root"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "elsewhere")
    (root / "again.png").symlink_to(tmp_path / "elsewhere" / "train" / "a.png")
    (root / "round").symlink_to(root)
    (root / "nowhere").symlink_to(tmp_path / "gone")
    (root / "itself").symlink_to(root / "itself")
    assert list(Folder(root).walk()) == [("again.png", 3), ("images/train/a.png", 3)]
    assert list(Folder(root / "images").walk()) == [("train/a.png", 3)]
    assert list(Folder(root / "none").walk()) == []


def test_a_folder_that_cannot_be_listed_is_not_left_out_in_silence(tmp_path, monkeypatch):
    (tmp_path / "shut").mkdir()
    plain = os.scandir

    def scandir(path):
        if str(path).endswith("shut"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return plain(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(RunDirError, match=r"cannot be listed \(Permission denied\); .*permissions"):
        list(Folder(tmp_path).walk())


def test_an_address_of_a_file_means_the_same_everywhere(tmp_path):
    for address in (f"file://{tmp_path}/my%20store", f"file://localhost{tmp_path}/my store"):
        place = check_local_disk(address, what="it", instead="move it", mounts="")
        assert place == tmp_path / "my store"
        assert Folder(address).local_path == place


def test_stores_are_compared_by_whole_seconds():
    listed = pafs.FileInfo("a", pafs.FileType.File, mtime_ns=1_665_597_000_123_000_000, size=3)
    asked = pafs.FileInfo("a", pafs.FileType.File, mtime_ns=1_665_597_000_000_000_000, size=3)
    assert storage._look(listed) == storage._look(asked) == "3-1665597000"


def test_an_owner_without_a_time_is_still_named(tmp_path):
    text = lock._holder_text(Folder(tmp_path), {"pid": 7, "host": "h", "since": "noon"}, "")
    assert "process 7 on h since noon" in text
