"""Packed records: what goes in comes out, in order of image_id, in little memory."""

import pytest

from madbal_ray.config.pool import PoolConfig
from madbal_ray.data import records as records_module
from madbal_ray.data.dataset import Dataset
from madbal_ray.data.records import ImageRecord, PackedRecords
from madbal_ray.errors import DataError
from madbal_ray.pool.index import index_rows
from madbal_ray.state.marker import digest, digest_each
from madbal_ray.state.storage import Folder


def record(name, split="train", uri=None, mask=None, size=None):
    return ImageRecord(name, uri or name, mask, split, size)


GIVEN = [
    record("c"),
    record("a", mask="m/a.png", size=7),
    record("v", "val", uri="x.tar#offset=1&length=2"),
    record("b", uri="elsewhere"),
    record("u", "val"),
]


def dataset(given):
    return Dataset(
        name="packed",
        records=given,
        class_names=("x", "y"),
        mask_values={0: 0},
        colors=((0, 0, 0), (1, 1, 1)),
    )


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_records_come_back_in_order(monkeypatch, chunk):
    monkeypatch.setattr(records_module, "CHUNK", chunk)
    packed = PackedRecords(iter(GIVEN))
    assert list(packed) == GIVEN
    assert len(packed) == 5
    assert packed[1] == GIVEN[1]
    assert packed[-1] == GIVEN[-1]
    assert packed[1:4:2] == GIVEN[1:4:2]
    assert packed.splits == ("train", "val")
    assert [one.image_id for one in packed.of_split("train")] == ["a", "b", "c"]
    assert [one.image_id for one in packed.of_split("val")] == ["u", "v"]
    assert (packed.size_of("train"), packed.size_of("val"), packed.size_of("test")) == (3, 2, 0)
    assert list(packed.of_split("test")) == []
    with pytest.raises(IndexError):
        packed[5]


def test_an_id_that_occurs_twice_is_refused(monkeypatch):
    for chunk in (1, 2, 100):
        monkeypatch.setattr(records_module, "CHUNK", chunk)
        for twice in (["a", "b", "b", "c"], ["b", "a", "b", "a"]):
            with pytest.raises(DataError, match=r"image ids occur more than once, the first is"):
                dataset(map(record, twice))
    with pytest.raises(DataError, match=r"1 image ids .* the first is 'b'"):
        dataset([record("b"), record("b", "val")])


def test_rows_and_their_digest_are_those_of_a_list(tmp_path):
    (tmp_path / "c").write_bytes(b"four")
    found = dataset(GIVEN)
    rows = list(index_rows(found, Folder(tmp_path), found.splits))
    assert [(row["image_id"], row["num_bytes"]) for row in rows] == [
        ("a", 7),
        ("b", None),
        ("c", 4),
        ("u", None),
        ("v", None),
    ]
    assert digest_each(iter(rows)) == (5, digest(rows))
    assert digest_each(iter([])) == (0, digest([]))


def test_large_pools_get_larger_shards_that_hold_whole_batches():
    pool = PoolConfig(shard_images=6, max_shards=3)
    assert [pool.images_in_shard(n) for n in (1, 18, 19, 36, 37)] == [6, 6, 12, 12, 24]
    assert PoolConfig().images_in_shard(10_000_000) == 512
    assert PoolConfig().images_in_shard(1_280_000) == 64
    assert "max_shards" not in PoolConfig().result_settings()
