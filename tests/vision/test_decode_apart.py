"""Pictures that kill their decoder: a process dies, the picture is told, nothing else is lost."""

import io
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from PIL import Image

import madbal_ray
from madbal_ray.errors import BadImageError, ResourceError
from madbal_ray.vision import decode_apart
from madbal_ray.vision.decode import decode_image
from madbal_ray.vision.decode_apart import image_size
from tests.conftest import tiny_config

HOSTILE = textwrap.dedent(
    """
    import os, signal, sys, time
    from madbal_ray.vision import decode_apart

    decode = decode_apart.decode_image

    def hostile(data, **options):
        if b"DIE" in data:
            os.kill(os.getpid(), signal.SIGSEGV)
        if b"EXIT" in data:
            os._exit(7)
        if b"HANG" in data:
            time.sleep(1000)
        if b"ONCE" in data and not os.path.exists(sys.argv[1]):
            open(sys.argv[1], "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(data, **options)

    decode_apart.decode_image = hostile
    decode_apart.serve()
    """
)
MANY = 10**9


def picture(height, width, note=b"", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG")
    return sink.getvalue() + note  # bytes after the end are read and mean nothing


@pytest.fixture
def hostile(monkeypatch, tmp_path):
    """Children that certain bytes kill."""
    command = [sys.executable, "-c", HOSTILE, str(tmp_path / "once")]
    monkeypatch.setattr(decode_apart, "COMMAND", command)
    idle = decode_apart._Idle()
    monkeypatch.setattr(decode_apart, "_idle", idle)
    yield idle
    idle.end()


def test_sizes_and_reasons_are_those_of_the_decoder():
    assert image_size(picture(30, 20), max_pixels=MANY) == (30, 20)
    for bad in (b"", b"GIF89a", picture(30, 20)[:200]):
        with pytest.raises(BadImageError) as inside:
            decode_image(bad, max_pixels=MANY)
        with pytest.raises(BadImageError) as apart:
            image_size(bad, max_pixels=MANY)
        assert apart.value.reason == inside.value.reason
    with pytest.raises(BadImageError, match=r"30 x 20 pixels, more than data.max_pixels = 599"):
        image_size(picture(30, 20), max_pixels=599)
    assert image_size(picture(30, 20), max_pixels=600) == (30, 20)


@pytest.mark.parametrize(("note", "how"), [(b"DIE", "SIGSEGV"), (b"EXIT", "exit code 7")])
def test_a_picture_that_kills_its_decoder_is_told_and_the_next_is_decoded(hostile, note, how):
    with pytest.raises(BadImageError, match=rf"its decoder was ended by {how}, 2 times"):
        image_size(picture(30, 20, note), max_pixels=MANY)
    assert image_size(picture(31, 21), max_pixels=MANY) == (31, 21)


def test_a_decoder_that_something_else_ended_is_asked_again(hostile):
    assert image_size(picture(30, 20, b"ONCE"), max_pixels=MANY) == (30, 20)


def test_a_picture_that_takes_for_ever_is_given_up(hostile, monkeypatch):
    assert image_size(picture(8, 8), max_pixels=MANY) == (8, 8)  # the child has started
    monkeypatch.setattr(decode_apart, "SECONDS", 0.3)
    started = time.monotonic()
    with pytest.raises(BadImageError, match=r"not done after 0 s"):
        image_size(picture(30, 20, b"HANG"), max_pixels=MANY)
    assert time.monotonic() - started < 4
    monkeypatch.setattr(decode_apart, "SECONDS", 60.0)
    assert image_size(picture(31, 21), max_pixels=MANY) == (31, 21)


def test_a_child_is_kept_and_serves_one_thread_at_a_time(hostile):
    image_size(picture(30, 20), max_pixels=MANY)
    (child,) = hostile._children
    image_size(picture(30, 20), max_pixels=MANY)
    with pytest.raises(BadImageError):  # which is no reason to end it
        image_size(b"no picture", max_pixels=MANY)
    assert hostile._children == [child]
    found = {}

    def look(index):
        for _ in range(5):
            size = image_size(picture(16 + index, 40, seed=index), max_pixels=MANY)
            found.setdefault(index, set()).add(size)

    threads = [threading.Thread(target=look, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {index: {(16 + index, 40)} for index in range(4)}
    assert 1 <= len(hostile._children) <= 4
    children = list(hostile._children)
    hostile.end()
    assert not any(one.is_alive for one in children)


def test_where_no_process_can_be_started_no_picture_is_to_blame(monkeypatch):
    monkeypatch.setattr(decode_apart, "COMMAND", [sys.executable, "-c", "raise SystemExit(3)"])
    monkeypatch.setattr(decode_apart, "_idle", decode_apart._Idle())
    with pytest.raises(ResourceError, match=r"ended with 3 as it started: .* import madbal_ray"):
        image_size(picture(30, 20), max_pixels=MANY)


def test_a_child_ends_with_its_parent(hostile):
    image_size(picture(30, 20), max_pixels=MANY)
    (child,) = hostile._children
    child.process.stdin.close()  # what the end of a process does to its pipes
    assert child.process.wait(timeout=10) == 0
    assert image_size(picture(30, 20), max_pixels=MANY) == (30, 20)


def test_a_run_quarantines_the_picture_and_goes_on(hostile, tmp_path):
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for index in range(8):
        note = b"DIE" if index == 3 else b""
        (root / f"images/{index}.jpg").write_bytes(picture(32, 48, note, seed=index))
        mask = np.repeat(np.arange(48, dtype=np.uint8)[None] // 24, 32, axis=0)
        Image.fromarray(mask).save(root / f"masks/{index}.png")
    config = tiny_config(
        num_rounds=1,
        data={
            "name": "folder", "root": str(root), "max_bad_fraction": 0.5,
            "folder": {"classes": ["left", "right"], "val_fraction": 0.25},
        },
        grids={"input": [32, 48], "working": [32, 48]},
    )  # fmt: skip
    run = madbal_ray.run(config, run_dir=tmp_path / "run", engine="local")
    (row,) = run.table("quarantine").to_pylist()
    assert row["image_id"] == "images/3.jpg"
    assert row["reason"] == "cannot be decoded: its decoder was ended by SIGSEGV, 2 times"
    assert run.table("images").num_rows == 7
