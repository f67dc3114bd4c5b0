"""Archives, lists and addresses that users hand over: refused in a sentence, or read whole."""

import io
import os
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from madbal_ray.config.data import DataConfig
from madbal_ray.data.members import list_parquet, read_image_bytes
from madbal_ray.data.registry import open_dataset
from madbal_ray.data.tars import list_tar
from madbal_ray.errors import BadImageError, DataError
from madbal_ray.state.storage import Folder

SUFFIXES = {".png"}
MANY = 2**30


def picture(seed=0, size=(8, 9)):
    sink = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(values).save(sink, "PNG")
    return sink.getvalue()


def tar_bytes(names, kind=tarfile.GNU_FORMAT):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=kind) as archive:
        for index, name in enumerate(names):
            data = picture(index)
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return sink.getvalue()


def listed(tmp_path, data):
    (tmp_path / "a.tar").write_bytes(data)
    return list(list_tar(Folder(tmp_path), "a.tar", SUFFIXES))


def offset_of(data, index):
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getmembers()[index].offset


NAMES = [f"{index}.png" for index in range(8)]


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_whole_tars_are_listed(tmp_path, kind):
    data = tar_bytes(NAMES, kind)
    assert [member.image_id for member in listed(tmp_path, data)] == NAMES
    with_one_record = data.rstrip(b"\0")
    padded = with_one_record + b"\0" * (512 - len(with_one_record) % 512 + 1024)
    assert len(listed(tmp_path, padded)) == 8


def test_a_tar_that_is_cut_in_a_header_is_refused_and_the_place_named(tmp_path):
    data = tar_bytes(NAMES)
    third = offset_of(data, 2)
    for cut in (third, third + 7, third + 300):
        with pytest.raises(DataError, match=f"it ends at byte {cut} without end-of-archive"):
            listed(tmp_path, data[:cut])


def test_a_damaged_header_is_refused_and_the_place_named(tmp_path):
    data = bytearray(tar_bytes(NAMES))
    third = offset_of(data, 2)
    data[third + 3] ^= 1
    with pytest.raises(DataError, match=f"a damaged header at byte {third}"):
        listed(tmp_path, bytes(data))


def test_two_tars_in_one_file_are_refused_and_the_place_named(tmp_path):
    first, second = tar_bytes(NAMES), tar_bytes([f"b{name}" for name in NAMES])
    with pytest.raises(DataError, match=f"more data at byte {len(first)}, after its end"):
        listed(tmp_path, first + second)


@pytest.mark.timeout(20)
def test_negative_sizes_are_refused(tmp_path):
    data = bytearray(tar_bytes(NAMES))
    size = (-(2**20)).to_bytes(12, "big", signed=True)
    data[124:136] = size
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    with pytest.raises(DataError, match="no tar") as caught:
        listed(tmp_path, bytes(data))
    assert "an impossible entry at byte 0" in str(caught.value)


def test_names_that_are_not_utf8_and_macos_files_in_a_tar(tmp_path):
    members = listed(tmp_path, tar_bytes(["caf\udce9.png", "._0.png", "d/._1.png", "2.png"]))
    config = DataConfig.model_validate(
        {"name": "images", "root": str(tmp_path), "folder": {"classes": ["a", "b"]}}
    )
    records = open_dataset(config, Folder(tmp_path / "pool")).records
    assert len(members) == 2
    assert [record.image_id for record in records] == ["caf\\udce9.png", "2.png"]
    for record in records:
        record.image_id.encode()  # a table can hold it
        assert read_image_bytes(Folder(tmp_path), record.image_uri, max_bytes=MANY) == (
            picture(0) if "caf" in record.image_id else picture(3)
        )


def test_a_compressed_tar_is_not_passed_over_in_silence(tmp_path):
    (tmp_path / "0.png").write_bytes(picture())
    (tmp_path / "more.tar.gz").write_bytes(b"x")
    config = DataConfig.model_validate(
        {"name": "images", "root": str(tmp_path), "folder": {"classes": ["a", "b"]}}
    )
    with pytest.raises(DataError, match=r"more\.tar\.gz is compressed.*unpack it"):
        open_dataset(config, Folder(tmp_path / "pool"))


# ---- Parquet ----


def write_parquet(tmp_path, columns, names=None, **options):
    table = pa.table(list(columns.values()), names=names or list(columns))
    pq.write_table(table, tmp_path / "a.parquet", **options)
    return Folder(tmp_path)


def test_columns_of_another_type_or_twice_are_a_sentence(tmp_path):
    root = write_parquet(tmp_path, {"bytes": [1, 2]})
    with pytest.raises(DataError, match="expected image bytes in one of"):
        list(list_parquet(root, "a.parquet"))
    root = write_parquet(tmp_path, {"image": [{"bytes": 1}]})
    with pytest.raises(DataError, match="expected image bytes in one of"):
        list(list_parquet(root, "a.parquet"))
    root = write_parquet(tmp_path, {"a": [b"1"], "b": [b"2"]}, names=["image", "image"])
    with pytest.raises(DataError, match="several columns 'image'"):
        list(list_parquet(root, "a.parquet"))


def test_parquet_damage_of_any_kind_is_a_sentence(tmp_path):
    root = write_parquet(tmp_path, {"image": [picture(i) for i in range(4)]})
    data = (tmp_path / "a.parquet").read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    messages = []
    for byte in range(len(data) - 8 - length, len(data) - 8, 3):
        damaged = bytearray(data)
        damaged[byte] ^= 0xFF
        (tmp_path / "a.parquet").write_bytes(bytes(damaged))
        try:
            members = list(list_parquet(root, "a.parquet"))
        except DataError as error:
            messages.append(str(error))
            continue
        for member in members:
            try:
                read_image_bytes(root, member.uri, max_bytes=MANY)
            except (BadImageError, OSError):
                continue
    assert messages
    assert not any("\n" in message for message in messages)


def test_a_flipped_bit_in_a_page_with_a_checksum_is_noticed(tmp_path):
    values = [picture(i) for i in range(4)]
    root = write_parquet(
        tmp_path,
        {"image": values},
        write_page_checksum=True,
        write_statistics=False,
        compression="none",
        use_dictionary=False,
    )
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[data.index(values[2]) + 40] ^= 1
    (tmp_path / "a.parquet").write_bytes(bytes(data))
    with pytest.raises(BadImageError, match="row group 0 is damaged"):
        read_image_bytes(root, "a.parquet#group=0&row=2", max_bytes=MANY)


def test_rows_that_lead_nowhere_are_bad_images_of_their_own(tmp_path):
    uris = ["a\0b.png", None, "", "no/such.png", "http://127.0.0.1:9/x.png", "/dev/zero"]
    root = write_parquet(tmp_path, {"uri": uris})
    os.mkfifo(tmp_path / "pipe.png")
    members = [member.uri for member in list_parquet(root, "a.parquet")]
    assert len(members) == 6
    for uri in (*members, "pipe.png", "a.parquet#group=7&row=0", "a.parquet#group=0&row=99"):
        with pytest.raises((BadImageError, OSError)):
            read_image_bytes(root, uri, max_bytes=MANY)


def test_file_addresses_are_files(tmp_path):
    place = tmp_path / "with space"
    place.mkdir()
    (place / "0.png").write_bytes(picture())
    root = Folder("s3://elsewhere/pool")
    for uri in (
        (place / "0.png").as_uri(),
        f"file://{place}/0.png",
        f"file://localhost{place}/0.png",
    ):
        assert read_image_bytes(root, uri, max_bytes=MANY) == picture()
    assert Folder(place.as_uri()) == Folder(place)


# ---- sizes ----


def test_files_and_members_beyond_the_limit_are_not_read(tmp_path):
    with open(tmp_path / "sparse.png", "wb") as sink:
        sink.truncate(2**40)  # a TiB that takes no room
    root = Folder(tmp_path)
    with pytest.raises(
        BadImageError, match=r"1099511627776 bytes, more than data\.max_bytes = 1000"
    ):
        read_image_bytes(root, "sparse.png", max_bytes=1000)
    with pytest.raises(BadImageError, match=r"data\.max_bytes"):
        read_image_bytes(root, "sparse.png#offset=0&length=1001", max_bytes=1000)
    root = write_parquet(tmp_path, {"image": [b"x" * 1001]})
    with pytest.raises(BadImageError, match="1001 bytes, more than"):
        read_image_bytes(root, "a.parquet#group=0&row=0", max_bytes=1000)


# ---- lists and classes ----


def folder_root(tmp_path, names, classes=b"a\nb\nc\n"):
    for name in names:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture())
    (tmp_path / "classes.txt").write_bytes(classes)
    return str(tmp_path)


def opened(root, **options):
    config = DataConfig.model_validate({"name": "folder", "root": root, "folder": options})
    return open_dataset(config, Folder(f"{root}/pool"))


def test_a_void_value_that_is_a_class_is_refused(tmp_path):
    root = folder_root(tmp_path, ["train/0.png", "val/0.png"])
    with pytest.raises(DataError, match=r"void_value = 2 is the value of a class \(0 to 2\)"):
        opened(root, void_value=2)
    assert opened(root, void_value=3).mask_values == {0: 0, 1: 1, 2: 2, 3: 255}


def test_one_stray_image_does_not_turn_all_splits_into_pool(tmp_path):
    root = folder_root(tmp_path, ["train/0.png", "val/0.png", "extra.png"])
    with pytest.raises(DataError, match=r"1 of 3 images lie outside .* the first is 'extra\.png'"):
        opened(root)
    (tmp_path / "images" / "extra.png").rename(tmp_path / "images" / "val" / "._1.png")
    assert opened(root).splits == ("train", "val")
    assert len(opened(root).records) == 2


def test_a_class_list_that_is_not_utf8_is_a_sentence(tmp_path):
    root = folder_root(tmp_path, ["train/0.png"], classes="café\nb\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"classes\.txt is not UTF-8 text \(byte 3\)"):
        opened(root)
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfa\nb\n")
    assert opened(root).class_names == ("a", "b")
