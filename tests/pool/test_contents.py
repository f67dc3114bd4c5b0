"""Files that hold something else than when the pool was inspected are noticed."""

import errno
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import madbal_ray
from madbal_ray.errors import ConfigError, DataError, RunDirError
from madbal_ray.pool.reader import ImageReader, read_images
from madbal_ray.state.storage import Folder
from tests.conftest import tiny_config

STEP = {"engine": "local"}


def write(path, array):
    """Write an uncompressed PNG: files of one shape have one size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, compress_level=0)


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 1)):
        for index in range(count):
            name = f"{split}/{index}.png"
            write(tmp_path / "data/images" / name, rng.integers(0, 256, (32, 40, 3), np.uint8))
            write(tmp_path / "data/masks" / name, np.full((32, 40), index % 3, np.uint8))
    (tmp_path / "data/classes.txt").write_text("a\nb\nc\n")
    return tmp_path / "data"


def config_of(data):
    return tiny_config(
        data={"name": "folder", "root": str(data), "max_bad_fraction": 0.5},
        grids={"input": [32, 40], "working": [32, 40]},
        superpixels__pixels=64,
        num_rounds=1,
    )


def prepare(data, name):
    run_dir = data.parent / "runs" / name
    with pytest.raises(Exception, match="stopped after images"):
        madbal_ray.run(
            config_of(data), run_dir=run_dir, engine="local", stop_after=("images", None)
        )
    return madbal_ray.open_run(run_dir)


def masks_agree(run, data):
    """Return the share of mask pixels that the run reads as they lie on the disk."""
    images = run.reader()
    same = []
    for image in read_images(run.stage("images"), 0):
        on_disk = np.asarray(Image.open(data / image.mask_uri))
        same.append((images.mask(image) == on_disk).mean())
    return float(np.mean(same))


def test_rewritten_masks_make_another_pool_and_stop_a_resume(data):
    first = prepare(data, "first")
    assert masks_agree(first, data) == 1.0
    for path in sorted((data / "masks/train").iterdir()):
        size = path.stat().st_size
        write(path, (np.asarray(Image.open(path)) + 1) % 3)
        assert path.stat().st_size == size
    with pytest.raises(DataError, match="was fine when the pool was prepared and is not now"):
        masks_agree(first, data)
    second = prepare(data, "second")
    assert second.stage("images").key != first.stage("images").key
    assert masks_agree(second, data) == 1.0
    with pytest.raises(ConfigError, match="images, masks or weights have changed"):
        madbal_ray.run(first.config, run_dir=first.run_dir.folder.uri, engine="local")


def test_an_image_of_equal_size_and_time_is_noticed(data):
    first = prepare(data, "first")
    path = data / "images/train/2.png"
    before = path.stat()
    write(path, np.full((32, 40, 3), 9, np.uint8))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert prepare(data, "second").stage("images").key != first.stage("images").key


def test_files_that_were_only_touched_are_the_same_pool(data):
    first = prepare(data, "first")
    for path in data.rglob("*.png"):
        os.utime(path, (1, 1))
    assert prepare(data, "second").stage("images").key == first.stage("images").key
    images = first.stage("images")
    for shard_id in range(3):
        images.folder.delete(f"_seen/{shard_id:05d}.json")  # a hint; everything is read again
    assert prepare(data, "third").stage("images").key == images.key


def test_a_file_that_looks_other_is_read_once_whatever_it_holds(data, monkeypatch):
    images = prepare(data, "first").stage("images")
    for path in data.rglob("*.png"):
        os.utime(path, (1, 1))
    write(data / "masks/train/1.png", np.full((32, 40), 2, np.uint8))
    opened = []
    plain = ImageReader.encoded
    monkeypatch.setattr(
        ImageReader, "encoded", lambda self, uri: opened.append(uri) or plain(self, uri)
    )
    counts = []
    for name in ("second", "third"):
        opened.clear()
        assert prepare(data, name).stage("images").key != images.key
        counts.append(len(opened))
    # at first all 10 files are read to compare and again to inspect; then none
    assert counts == [20, 0]


def test_a_disk_that_refuses_a_file_is_not_a_file_that_has_changed(data, monkeypatch):
    prepare(data, "first")
    os.utime(data / "images/train/2.png", (1, 1))
    plain = Folder.open

    def refuse(self, name):
        if name.endswith("train/2.png"):
            raise OSError(errno.EIO, "Input/output error")
        return plain(self, name)

    monkeypatch.setattr(Folder, "open", refuse)
    with pytest.raises(RunDirError, match=r"train/2\.png cannot be read \(Input/output error\)"):
        madbal_ray.run(config_of(data), run_dir=data.parent / "runs/second", engine="local")


def test_restored_files_are_the_first_pool_again(data):
    first = prepare(data, "first")
    path = data / "masks/train/1.png"
    whole = path.read_bytes()
    write(path, np.full((32, 40), 2, np.uint8))
    assert prepare(data, "second").stage("images").key != first.stage("images").key
    path.write_bytes(whole)
    assert prepare(data, "third").stage("images").key == first.stage("images").key


def test_a_quarantined_image_that_was_mended_is_looked_at_again(data):
    path = data / "images/train/0.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    first = prepare(data, "first")
    assert "checksum" in first.table("quarantine")["reason"][0].as_py()
    path.write_bytes(whole)
    second = prepare(data, "second")
    assert second.table("quarantine").num_rows == 0
    assert second.table("images").num_rows == 5


def test_what_a_disk_cannot_read_in_passing_is_no_images_fault(data, monkeypatch):
    """A quarantined image stays out: EIO ends the start, and the next one goes on."""
    plain = ImageReader.encoded

    def refuse(self, uri):
        if uri.endswith(("images/train/2.png", "masks/train/1.png")):
            raise OSError(errno.EIO, "Input/output error")
        return plain(self, uri)

    monkeypatch.setattr(ImageReader, "encoded", refuse)
    with pytest.raises(RunDirError, match=r"train/[12]\.png cannot be read now \(Input/output"):
        madbal_ray.run(config_of(data), run_dir=data.parent / "runs/first", engine="local")
    monkeypatch.setattr(ImageReader, "encoded", plain)
    again = prepare(data, "first")
    assert again.table("quarantine").num_rows == 0
    assert again.table("images").num_rows == 5


def test_a_node_without_the_data_quarantines_nothing(data, monkeypatch):
    plain = ImageReader.encoded

    def gone(self, uri):
        if uri.endswith("images/train/2.png"):
            shutil.move(data, data.with_name("away"))
        return plain(self, uri)

    monkeypatch.setattr(ImageReader, "encoded", gone)
    with pytest.raises(RunDirError, match=r"data.root = .* is not there on node .*; mount it on"):
        madbal_ray.run(config_of(data), run_dir=data.parent / "runs/first", engine="local")


def test_an_image_that_might_not_be_read_is_read_once_its_permissions_are_mended(data, monkeypatch):
    path, plain = data / "images/train/2.png", ImageReader.encoded

    def refuse(self, uri):
        if uri.endswith("images/train/2.png"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return plain(self, uri)

    monkeypatch.setattr(ImageReader, "encoded", refuse)
    first = prepare(data, "first")
    (row,) = first.table("quarantine").to_pylist()
    assert (row["image_id"], row["sha256"]) == ("images/train/2.png", None)
    assert prepare(data, "again").stage("images").key == first.stage("images").key
    monkeypatch.setattr(ImageReader, "encoded", plain)
    path.chmod(0o600)
    second = prepare(data, "second")
    assert second.table("quarantine").num_rows == 0
    assert second.table("images").num_rows == 5


def test_thin_and_tiny_images_are_prepared(data):
    """OpenCV's SEEDS ends the process on some of these, and never returns from others."""
    rng = np.random.default_rng(1)
    sizes = [(2, 2), (1, 1), (1, 60), (17, 71), (39, 1891), (30, 19)]
    for index, size in enumerate(sizes):
        write(data / f"images/train/t{index}.png", rng.integers(0, 256, (*size, 3), np.uint8))
        write(data / f"masks/train/t{index}.png", np.zeros(size, np.uint8))
    config = tiny_config(
        data={"name": "folder", "root": str(data)},
        superpixels={"pixels": 256},
        num_rounds=1,
        train={"crop": [32, 40], "phase1": {"epochs": 1}, "phase2": {"epochs": 1}},
    )
    with pytest.raises(Exception, match="stopped after superpixel_clusters"):
        madbal_ray.run(
            config,
            run_dir=data.parent / "runs/thin",
            engine="local",
            stop_after=("superpixel_clusters", None),
        )
    run = madbal_ray.open_run(data.parent / "runs/thin")
    found = {
        row["image_id"]: row["num_superpixels"] for row in run.table("superpixels").to_pylist()
    }
    assert len(found) == 10
    assert all(found[f"images/train/t{index}.png"] >= 1 for index in range(len(sizes)))
