"""Damaged files of runs and models: a sentence with the path, or, for hints, no harm at all."""

import errno
import json
import shutil

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import madbal_ray
from madbal_ray import api
from madbal_ray.cli import main
from madbal_ray.errors import ConfigError, IntegrityError, MadbalError, RunDirError
from madbal_ray.state import tables
from madbal_ray.state.lock import LEASE_NAME, _read_lease
from madbal_ray.state.stage_dir import StageDir, forget_hashed
from madbal_ray.state.storage import Folder
from madbal_ray.training.checkpoint import CHECKPOINT_NAME, BestEpoch, Checkpoint
from tests.hand_made import Worker

DAMAGE = [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}", b"[" * 5000, b"NaN"]


@pytest.fixture
def copy(tiny_run, tmp_path):
    """A copy of a finished run, its pool beside it."""
    source = tiny_run.run_dir.folder.local_path
    shutil.copytree(source.parent, tmp_path / "copy")
    return tmp_path / "copy" / source.name


@pytest.mark.parametrize(
    "name", ["config.json", "rounds/000/metrics/_CURRENT.json", "pool/images.json"]
)
def test_a_damaged_file_of_a_run_is_named(copy, name):
    for damage in DAMAGE:
        if name == "config.json" and damage == b"{}":
            continue  # every option has a default
        (copy / name).write_bytes(damage)
        with pytest.raises(MadbalError, match=name.replace(".", r"\.")):
            list(api.verify(copy))
        for command in (["status", str(copy)], ["report", str(copy)]):
            result = CliRunner().invoke(main, command)
            assert result.exception is None or isinstance(result.exception, SystemExit)


def test_a_marker_that_is_no_object_is_named(copy):
    marker = next((copy / "rounds/001/metrics").glob("*/_DONE.json"))
    for damage in DAMAGE:
        marker.write_bytes(damage)
        with pytest.raises(IntegrityError, match=r"_DONE\.json is damaged"):
            madbal_ray.open_run(copy).metrics()


def test_a_damaged_table_is_named(copy):
    table = next((copy / "rounds/001/labels").glob("*/labels/00000.parquet"))
    data = bytearray(table.read_bytes())
    for damage in (b"", bytes(data[:-5]), b"PAR1" + b"\xff" * 60 + b"PAR1"):
        table.write_bytes(damage)
        with pytest.raises(MadbalError, match=r"labels/00000\.parquet"):
            madbal_ray.open_run(copy).table("labels", 1)


def test_a_damaged_table_is_damage_and_not_a_full_disk(copy, monkeypatch):
    table = next((copy / "rounds/001/labels").glob("*/labels/00000.parquet"))
    whole = table.read_bytes()
    table.write_bytes(whole[:-5])  # the footer
    with pytest.raises(IntegrityError, match="is damaged"):
        madbal_ray.open_run(copy).table("labels", 1)
    table.write_bytes(whole[:4] + bytes(200) + whole[204:])  # pages
    with pytest.raises(IntegrityError, match="is damaged"):
        madbal_ray.open_run(copy).table("labels", 1)
    table.write_bytes(whole)

    def refuse(*args, **options):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(tables, "decode", refuse)
    with pytest.raises(RunDirError, match=r"cannot be read \(Input/output error\); free space"):
        madbal_ray.open_run(copy).table("labels", 1)


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("pool/images", "images/00001.parquet"),
        ("rounds/001/score", "superpixel_scores/00000.parquet"),
        ("rounds/001/train/phase1", "phase1.safetensors"),
    ],
)
def test_what_a_start_reads_is_what_was_written(copy, stage, name):
    """Bytes that decode, and are others than those that were written."""
    (path,) = ((copy.parent if stage.startswith("pool") else copy) / stage).glob(f"*/{name}")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    folder = StageDir(Folder(path.parents[1 if "/" in name else 0]), stage, "")
    stage_dir = StageDir(folder.folder, stage.rpartition("/")[2], folder.folder.uri[-12:])
    read = stage_dir.read_file if name.endswith("safetensors") else stage_dir.read_table
    with pytest.raises(IntegrityError, match=f"{name} is damaged: it holds something else than"):
        read(name.partition("/")[0])


def test_a_file_is_hashed_once_in_a_start(tmp_path):
    stage = StageDir.plan(Folder(tmp_path), "allocate", {}, {})
    stage.commit([stage.write_file("a.bin", b"abc")], {})
    path = stage.folder.local_path / "a.bin"
    forget_hashed()
    assert stage.read_file("a.bin") == b"abc"
    path.write_bytes(b"abd")
    stage.check_once("a.bin")  # this start has looked
    forget_hashed()
    for look in (stage.check_once, stage.read_file):
        with pytest.raises(IntegrityError, match=r"a\.bin is damaged: it holds something else"):
            look("a.bin")
    path.unlink()
    with pytest.raises(IntegrityError, match=r"a\.bin is missing"):
        stage.read_file("a.bin")
    with pytest.raises(IntegrityError, match=r"_DONE\.json names no file b\.bin"):
        stage.read_file("b.bin")


def test_a_start_hashes_anew(copy, monkeypatch):
    calls = []
    monkeypatch.setattr("madbal_ray.loop.launch.forget_hashed", lambda: calls.append(copy))
    config = madbal_ray.open_run(copy).config
    madbal_ray.run(config, run_dir=copy, engine="local")
    assert calls == [copy]


def test_a_run_is_not_carried_on_from_a_changed_marker(copy):
    """A marker whose own hashes are right, and which the run was never pointed to."""
    (path,) = (copy / "rounds/001/train/phase2").glob("*/_DONE.json")
    marker = json.loads(path.read_text())
    marker["summary"]["best_epoch"] = 7
    path.write_text(json.dumps(marker))
    with pytest.raises(IntegrityError, match=r"phase2/\w+: its marker is not the one that .*_CURR"):
        madbal_ray.run(madbal_ray.open_run(copy).config, run_dir=copy, engine="local")


def test_what_a_kill_left_of_a_committed_phase_is_removed(copy):
    """Killed after the commit, before the checkpoint went and before the run was pointed to it."""
    (folder,) = (copy / "rounds/001/train/phase2").glob("*")
    (folder / CHECKPOINT_NAME).write_bytes(b"x" * 99)
    (copy / "rounds/001/phase2/_CURRENT.json").unlink()
    madbal_ray.run(madbal_ray.open_run(copy).config, run_dir=copy, engine="local")
    assert not (folder / CHECKPOINT_NAME).exists()


def test_a_damaged_lease_holds_nobody(tmp_path):
    folder = Folder(tmp_path)
    for damage in [*DAMAGE, b'{"expires": "soon"}']:
        (tmp_path / LEASE_NAME).write_bytes(damage)
        assert _read_lease(folder) is None


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign"])
def test_a_damaged_checkpoint_begins_the_phase_again(tmp_path, damage):
    network = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    stage = StageDir(Folder(tmp_path), "phase1", "key")
    Checkpoint(stage, network, optimizer, BestEpoch()).save(4)
    path = tmp_path / CHECKPOINT_NAME
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    path.write_bytes(
        {"empty": b"", "cut": data[:-9], "flipped": bytes(flipped), "foreign": b"x" * 99}[damage]
    )
    fresh = nn.Linear(1, 1)
    weight = fresh.weight.item()
    optimizer = torch.optim.SGD(fresh.parameters(), lr=0.5)
    assert Checkpoint(stage, fresh, optimizer, BestEpoch()).restore(Worker()) == 0
    assert fresh.weight.item() == weight


# ---- model files ----


@pytest.fixture(scope="module")
def model_file(tiny_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    api.export(tiny_run.run_dir.folder.uri, path)
    return path


def changed(model_file, path, *, metadata=None, tensors=None):
    """Write a model file with other metadata or tensors."""
    with safe_open(model_file, "pt") as file:
        given = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        described = dict(file.metadata())
    (metadata or (lambda values: None))(described)
    (tensors or (lambda values: None))(given)
    save_file(given, path, metadata=described)
    return path


def score(tmp_path, checkpoint, pool, **options):
    return api.score(pool, checkpoint=checkpoint, out=tmp_path / "out", engine="local", **options)


def first_of(name):
    def cut(tensors):
        key = next(key for key in sorted(tensors) if key.startswith(name) and tensors[key].ndim > 1)
        tensors[key] = tensors[key][:1].clone()

    return cut


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": lambda m: m.pop("config")}, "lacks 'config'"),
        ({"metadata": lambda m: m.pop("class_names")}, "lacks 'class_names'"),
        ({"metadata": lambda m: m.update(config="{")}, "its description is damaged"),
        ({"metadata": lambda m: m.update(config="[]")}, "its description is damaged"),
        ({"metadata": lambda m: m.update(class_names="7")}, "its description is damaged"),
        ({"metadata": lambda m: m.update(class_names='["a"]')}, "are of another network"),
        ({"tensors": first_of("phase1/")}, "are of another network"),
        ({"tensors": first_of("phase2/")}, "are of another network"),
        ({"tensors": lambda t: t.pop(sorted(t)[0])}, "are of another network"),
    ],
)
def test_a_model_file_that_does_not_fit_is_a_sentence(
    model_file, tmp_path, tiny_run, changes, message
):
    path = changed(model_file, tmp_path / "m.safetensors", **changes)
    with pytest.raises(ConfigError, match=message) as caught:
        score(tmp_path, path, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_madbal_checkpoint_scores_by_entropy(model_file, tmp_path, tiny_run):
    scenes = tiny_run.reader().root.uri + "/train"
    overrides = ["strategy.name=entropy"]
    scored = score(tmp_path, model_file, scenes, overrides=overrides)
    assert Folder(scored["scores"]).exists("_DONE.json")
    assert json.loads((tmp_path / "out/config.json").read_text())["strategy"]["name"] == "entropy"
