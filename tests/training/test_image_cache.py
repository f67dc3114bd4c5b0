"""The cache of decoded images: memory first, then a scratch file, then decoding again."""

import threading

import numpy as np
import pytest

from madbal_ray.pool.reader import read_images
from madbal_ray.training import image_cache
from madbal_ray.training.image_cache import GIBIBYTE, ImageCache


class Counting:
    """A reader that counts how often it decodes."""

    def __init__(self, reader):
        self.reader, self.count, self.lock = reader, 0, threading.Lock()

    def on_input_grid(self, image):
        with self.lock:
            self.count += 1
        return self.reader.on_input_grid(image)


@pytest.fixture(autouse=True)
def any_disk(monkeypatch):
    """However full the disk of this machine is."""
    monkeypatch.setattr(image_cache, "KEPT_FREE", 0.0)


@pytest.fixture
def images(tiny_run):
    stage = tiny_run.stage("images")
    return [image for shard in (0, 1, 2) for image in read_images(stage, shard)]


@pytest.mark.parametrize(
    ("memory", "disk", "decoded_again"), [(6, 0, 0), (2, 4, 0), (0, 6, 0), (2, 1, 3), (0, 0, 6)]
)
def test_what_fits_is_decoded_once(images, tiny_run, memory, disk, decoded_again):
    reader = Counting(tiny_run.reader())
    size = tiny_run.reader().on_input_grid(images[0]).nbytes
    cache = ImageCache(
        reader,
        memory_gib=memory * size / GIBIBYTE,
        disk_gib=disk * size / GIBIBYTE,
    )
    for _ in range(2):
        for image in images:
            assert np.array_equal(cache.get(image), tiny_run.reader().on_input_grid(image))
    assert reader.count == len(images) + decoded_again


def test_a_part_of_the_disk_stays_free(images, tiny_run, monkeypatch):
    monkeypatch.setattr(image_cache, "KEPT_FREE", 1.0)
    reader = Counting(tiny_run.reader())
    cache = ImageCache(reader, memory_gib=0, disk_gib=1)
    for image in images * 2:
        cache.get(image)
    assert reader.count == 2 * len(images)


def test_threads_may_share_it(images, tiny_run):
    reader = Counting(tiny_run.reader())
    cache = ImageCache(reader, memory_gib=0, disk_gib=1)
    wrong = []

    def read():
        wrong.extend(
            image.image_id
            for image in images * 5
            if not np.array_equal(cache.get(image), tiny_run.reader().on_input_grid(image))
        )

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert reader.count <= 4 * len(images)


def test_a_full_disk_is_no_error(images, tiny_run, tmp_path, monkeypatch):
    """/dev/full refuses every byte, as a full disk does."""
    cache = ImageCache(tiny_run.reader(), memory_gib=0, disk_gib=1)
    with open("/dev/full", "r+b", buffering=0) as full:
        monkeypatch.setattr(cache, "_file", full)
        for image in images * 2:
            assert np.array_equal(cache.get(image), tiny_run.reader().on_input_grid(image))
