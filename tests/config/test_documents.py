"""Configurations that people write: read, or refused in one short sentence."""

import re
from pathlib import Path

import pytest

from madbal_ray.config.data import DataConfig
from madbal_ray.config.documents import parse_yaml, preset_or_path, presets
from madbal_ray.config.file import load_config, stored_config
from madbal_ray.errors import ConfigError
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.storage import Folder
from madbal_ray.studies.suite_config import load_suite


def refused(tmp_path, text, message, limit=3000):
    path = tmp_path / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert len(str(caught.value)) < limit


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2\n", r"line 2: key 'seed' stands there already, in line 1"),
        ("data:\n  name: camvid\n  root: x\n  name: folder\n", "line 4: key 'name' stands there"),
        (BOMB, "more than 20000 values once aliases are used"),
        ("seed: &a [*a]\n", "an alias that contains itself"),
        ("seed: " + "[" * 3000, "nested more than 32 levels deep"),
        ("seed: " + "[" * 40 + "]" * 40, "nested more than 32 levels deep"),
        ("seed: 2001-99-99\n", "'timestamp'; write it as text"),
        ("seed: " + "9" * 5000, "not valid YAML"),
        ("seed: 0x" + "f" * 6000, "a whole number of 24000 bits"),
        ("train: {phase1: {learning_rate: .inf}}", "the number inf; only finite"),
        ("seed: !!binary aGk=\n", "'binary'; write it as text"),
        ("seed: !!int _\n", "not valid YAML"),
        ("seed: !!bool x\n", "not valid YAML"),
        (b"seed: \xff\xfe\n", "not a text file"),
        ("seed: " + "a" * 100_000, "seed: .*aaa"),
        ("? " + "k" * 100_000 + "\n: 1", "k{50}"),
        ("\n".join(f"k{i}: 1" for i in range(5000)), "and 4900 more"),
    ],
)
def test_odd_documents_are_one_short_sentence(tmp_path, text, message):
    limit = 300_000 if "and 4900 more" in message else 3000
    refused(tmp_path, text, message, limit)


def test_overrides_pass_the_same_door():
    for text, message in (("seed=2001-99-99", "timestamp"), ("seed=[" + "[" * 3000, "nested")):
        with pytest.raises(ConfigError, match=message):
            load_config({}, [text])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("-2E+3", -2000.0), ("1.e5", 1e5), ("1e2", 100.0), ("3", 3), ("0.5", 0.5),
        ("1e", "1e"), ("e5", "e5"), ("12e4f", "12e4f"), ("'1e-4'", "1e-4"), ("1e-4 px", "1e-4 px"),
    ],
)  # fmt: skip
def test_numbers_may_be_written_with_an_exponent_alone(text, value):
    found = parse_yaml(text, "here")
    assert (found, type(found)) == (value, type(value))
    (again,) = parse_yaml(f"[{text}]", "here")
    assert again == value


def test_aliases_and_merges_of_a_sane_size_work(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("train:\n  phase1: &p {epochs: 3}\n  phase2:\n    <<: *p\n    batch_size: 2\n")
    config = load_config(path)
    assert (config.train.phase1.epochs, config.train.phase2.epochs) == (3, 3)
    assert config.train.phase2.batch_size == 2


# ---- credentials ----

SECRET = "s3://AKIDEXAMPLE:wJalrXUtnFEMI@bucket/data"


def test_credentials_in_addresses_are_refused_and_not_repeated(tmp_path):
    for values in (
        {"data": {"name": "folder", "root": SECRET}},
        {"pool": {"dir": SECRET}},
        {"data": {"name": "folder", "root": "abfs://box@host/x?sas_token=wJalrXUtnFEMI"}},
    ):
        with pytest.raises(ConfigError, match="credentials into the environment") as caught:
            load_config(values)
        assert "wJalr" not in str(caught.value)
        assert "wJalr" not in repr(caught.value.__context__)
    for make in (Folder, RunDir):
        with pytest.raises(ConfigError, match="credentials into the environment") as caught:
            make(SECRET)
        assert "wJalr" not in str(caught.value)
    for fine in ("s3://bucket/a@b", "/disk/a@b:c", "hdfs://user@host/x"):
        assert DataConfig(name="folder", root=fine).root == fine


def test_runs_that_stored_what_is_refused_today_still_open():
    values = {
        "name": "../up",
        "data": {"name": "folder", "root": SECRET},
        "train": {"crop": [32, 32]},
    }
    config = stored_config(values)
    assert config.data.root == "s3://bucket/data"
    assert config.name == "___up"


# ---- names ----


@pytest.mark.parametrize(
    "name", ["../up", "/abs", "a/b", "..", ".", "", " ", "a\nb", "a\\b", "c:x"]
)
def test_names_that_leave_their_folder_are_refused(name):
    with pytest.raises(ConfigError, match="cannot name a folder"):
        load_config({"name": name})


def test_members_and_suites_that_leave_their_folder_are_refused(tmp_path):
    path = tmp_path / "s.yaml"
    suite = (
        "name: {name}\nbase: {{}}\nseeds: [0]\nbaseline: m\nmembers:\n  m: {{}}\n  {member}: {{}}\n"
    )
    for name, member in (("../up", "n"), ("s", "../../up"), ("/abs", "n"), ("s", "/abs")):
        path.write_text(suite.format(name=name, member=member))
        with pytest.raises(ConfigError, match="cannot name a folder"):
            load_suite(path)
    path.write_text(suite.format(name="s", member="n"))
    assert re.fullmatch("s", load_suite(path).name)


def test_a_preset_is_found_by_its_name_and_a_file_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("quickstart").name == "quickstart"
    assert preset_or_path("suites/paper-camvid").name == "paper-camvid.yaml"
    for other in ("quickstart.yaml", "nosuch", "../presets/quickstart", "/quickstart"):
        assert preset_or_path(other) == Path(other)
    Path("quickstart").write_text("name: mine")
    assert load_config("quickstart").name == "mine"
    with pytest.raises(ConfigError, match=r"^nosuch: cannot be read .* `madbal presets` lists"):
        load_config("nosuch")


def test_every_preset_says_what_it_is_and_can_be_read():
    found = presets()
    assert {"quickstart", "suites/frozen-camvid"} <= found.keys()
    assert found["quickstart"] == "Quick start: three MADBAL rounds on synthetic street scenes"
    assert "Fig. 6" in found["suites/paper-ablation"]  # a dot that ends no sentence
    for name, about in found.items():
        assert len(about) > 20, name
        (load_suite if name.startswith("suites/") else load_config)(name, ("data.root=x",))
