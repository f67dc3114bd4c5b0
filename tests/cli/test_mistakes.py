"""Sixty mistakes of new users: an exit code, one sentence that says what to do, nothing written."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from madbal_ray import __version__
from madbal_ray.cli import main
from tests.conftest import tiny_config

RUN = ["--engine", "local", "--run-dir", "{new}"]
OWN = [("data.name", "folder"), ("train.crop", "[32, 32]")]


def sets(*pairs, own=True):
    return [
        word
        for key, value in (*(OWN if own else ()), *pairs)
        for word in ("--set", f"{key}={value}")
    ]


def start(*pairs, root, own=True):
    return ["run", "{config}", *RUN, *sets(("data.root", root), *pairs, own=own)]


MISTAKES = {
    # ---- commands and options ----
    "no such command": (["rum"], 2, "No such command 'rum'"),
    "no config": (["run"], 2, "Missing argument 'CONFIG'"),
    "config missing": (["run", "{root}/none.yaml"], 2, "none.yaml: cannot be read (No such file"),
    "config is a folder": (["run", "{root}"], 2, "cannot be read (Is a directory)"),
    "config is a picture": (["run", "{image}"], 2, "cannot be read (not a text file)"),
    "config is a list": (["run", "{list}"], 2, "expected keys and values, got list"),
    "config is no YAML": (["run", "{broken}"], 2, "not valid YAML"),
    "suite given to run": (
        ["run", "{suite_file}"],
        2,
        "is a suite and not an experiment: `madbal suite",
    ),
    "experiment given to suite": (
        ["suite", "{config}"],
        2,
        "is an experiment and not a suite: `madbal run",
    ),
    "engine unknown": (["run", "{config}", "--engine", "dask"], 2, "'dask' is not one of"),
    "option unknown": (["run", "{config}", "--gpu"], 2, "No such option"),
    "set without value": (
        ["run", "{config}", *RUN, "--set", "seed"],
        2,
        "expected section.key=value",
    ),
    "set unknown section": (
        ["run", "{config}", *RUN, "--set", "trian.crop=1"],
        2,
        "--set trian: unknown key; allowed here",
    ),
    "set unknown key": (
        ["run", "{config}", *RUN, "--set", "train.lr=1"],
        2,
        "--set train.lr: unknown key; allowed here",
    ),
    "set below a value": (
        ["run", "{config}", *RUN, "--set", "seed.x=1"],
        2,
        "--set seed: Input should be a valid integer",
    ),
    "set a word for a number": (
        ["run", "{config}", *RUN, "--set", "num_rounds=many"],
        2,
        "--set num_rounds: Input should be",
    ),
    "set zero rounds": (["run", "{config}", *RUN, "--set", "num_rounds=0"], 2, "--set num_rounds"),
    "set odd YAML": (["run", "{config}", *RUN, "--set", "seed=[1"], 2, "not valid YAML"),
    "classes by comma": (
        start(("data.folder.classes", "road,car"), root="{tree}"),
        2,
        "expected a list, as in [road, car]",
    ),
    "strategy unknown": (["run", "{config}", *RUN, "--set", "strategy=margins"], 2, "margins"),
    "data set unknown": (
        ["run", "{config}", *RUN, "--set", "data.name=voc"],
        2,
        "synthetic, camvid, voc2012",
    ),
    "data set without root": (
        ["run", "{config}", *RUN, "--set", "data.name=camvid"],
        2,
        "data.root is needed",
    ),
    "sizes differ and no crop": (
        [*start(root="{tree}", own=False), "--set", "data.name=folder"],
        2,
        "set train.crop = [height, width]",
    ),
    "stop at a typo": (
        ["run", "{config}", *RUN, "--stop-after", "training"],
        2,
        "no such stage; did you mean train?",
    ),
    "stop without a round": (
        ["run", "{config}", *RUN, "--stop-after", "score"],
        2,
        "say which, from score:0",
    ),
    "stop beyond the end": (
        ["run", "{config}", *RUN, "--stop-after", "train:9"],
        2,
        "from train:0 to train:1",
    ),
    "stop in words": (
        ["run", "{config}", *RUN, "--stop-after", "after score"],
        2,
        "expected STAGE or STAGE:ROUND",
    ),
    "credentials in an address": (
        ["run", "{config}", *RUN, "--set", "data.root=s3://K:S@b/x"],
        2,
        "put credentials into the environment",
    ),
    "name of a folder": (["run", "{config}", *RUN, "--set", "name=a/b"], 2, "cannot name a folder"),
    # ---- run folders ----
    "run folder is a file": (
        ["run", "{config}", "--engine", "local", "--run-dir", "{config}"],
        1,
        "cannot be locked",
    ),
    "run folder below a file": (
        ["run", "{config}", "--engine", "local", "--run-dir", "{config}/run"],
        1,
        "cannot be locked",
    ),
    "run folder holds other things": (
        ["run", "{config}", "--engine", "local", "--run-dir", "{tree}"],
        1,
        "holds 3 other things, such as 'classes.txt'; a run wants a folder of its own",
    ),
    "run folder is a suite's": (
        ["run", "{config}", "--engine", "local", "--run-dir", "{suite}"],
        1,
        "is the folder of a suite",
    ),
    "status of nothing": (["status", "{new}"], 1, "is not a run folder: no config.json"),
    "status of a suite": (["status", "{suite}"], 1, "give one of its runs (madbal-seed-0)"),
    "verify nothing": (["verify", "{new}"], 1, "is not a run folder"),
    "verify a suite": (["verify", "{suite}"], 1, "is the folder of a suite and not of a run"),
    "report nothing": (["report", "{new}"], 1, "is not a run folder"),
    "report without runs": (["report"], 2, "Missing argument 'RUNS...'"),
    "report a run that has not begun": (
        ["report", "{begun}"],
        1,
        "no round is finished yet (`madbal score`",
    ),
    "export from nothing": (["export", "{new}", "{root}/x.safetensors"], 1, "is not a run folder"),
    "requests of nothing": (
        ["requests", "export", "{new}", "--out", "{root}/a.csv"],
        1,
        "is not a run folder",
    ),
    "train a suite": (["train", "{suite_file}"], 2, "is a suite and not an experiment"),
    # ---- score ----
    "score without a pool": (
        ["score", "--checkpoint", "x", "--out", "y"],
        2,
        "Missing option '--pool'",
    ),
    "score a missing checkpoint": (
        ["score", "--pool", "{tree}", "--checkpoint", "{new}", "--out", "{out}"],
        2,
        "--checkpoint",
    ),
    "score with a suite": (
        ["score", "--pool", "{tree}", "--checkpoint", "{suite}", "--out", "{out}"],
        1,
        "give one of its runs",
    ),
    "score with a picture": (
        ["score", "--pool", "{tree}", "--checkpoint", "{image}", "--out", "{out}"],
        2,
        "cannot be read",
    ),
    "score a budget of none": (
        ["score", "--pool", "{tree}", "--checkpoint", "x", "--out", "y", "--budget", "0"],
        2,
        "0 is not in the range",
    ),
    # ---- own images ----
    "root missing": (start(root="{new}"), 1, "holds no images (.bmp, .jpeg"),
    "images missing": (
        start(("data.folder.images", "pictures"), root="{tree}"),
        1,
        "it does not exist",
    ),
    "images is a file": (
        start(("data.folder.images", "classes.txt"), root="{tree}"),
        1,
        "it is a file",
    ),
    "images empty": (start(("data.folder.images", "empty"), root="{odd}"), 1, "it is empty"),
    "no class list": (start(root="{odd}"), 1, "found: neither"),
    "masks by another name": (
        start(("data.folder.mask_name", "'{{stem}}_gt.png'"), root="{tree}"),
        1,
        "_gt.png was looked for",
    ),
    "mask name without stem": (
        start(("data.folder.mask_name", "mask.png"), root="{tree}"),
        2,
        "expected the name of a mask with {stem}",
    ),
    "pool split missing": (
        start(("data.pool_split", "pool"), root="{tree}"),
        1,
        "splits found: train, val",
    ),
    "evaluation split missing": (
        start(("evaluation.splits", "[test]"), root="{tree}"),
        1,
        "has no split 'test'; splits found: train, val",
    ),
    "nothing to measure": (
        start(
            ("data.folder.images", "images/train"),
            ("data.folder.masks", "masks/train"),
            root="{tree}",
        ),
        1,
        "nothing to measure on",
    ),
    "list missing": (
        start(("data.folder.splits", "{{train: t.txt}}"), root="{tree}"),
        1,
        "t.txt is missing",
    ),
    "void is a class": (
        start(("data.folder.void_value", "1"), root="{tree}"),
        1,
        "is the value of a class (0 to 1)",
    ),
    # ---- data check ----
    "check nothing": (["data", "check", "{new}"], 1, "holds no images: it does not exist"),
    "check a file": (["data", "check", "{config}"], 1, "holds no images: it is a file"),
    "check a folder of texts": (
        ["data", "check", "{suite}"],
        1,
        "holds no images: it holds other files",
    ),
    "check writes over nothing": (
        ["data", "check", "{tree}", "--out", "{config}"],
        2,
        "exists; choose another name, or remove it",
    ),
    "check nothing of it": (["data", "check", "{tree}", "--most", "0"], 2, "0 is not in the range"),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Files and folders that the mistakes are made with, by name."""
    root = tmp_path_factory.mktemp("mistakes")
    (root / "config.json").write_text(json.dumps(tiny_config()))
    (root / "list.yaml").write_text("- a\n")
    (root / "broken.yaml").write_text("a: [\n")
    (root / "suite.yaml").write_text(
        "name: s\nbase: {}\nseeds: [0]\nmembers: {m: {}}\nbaseline: m\n"
    )
    (root / "suite").mkdir()
    listing = {"baseline": "madbal", "runs": ["madbal-seed-0"]}
    (root / "suite/suite.json").write_text(json.dumps(listing))
    (root / "begun").mkdir()
    (root / "begun/config.json").write_text(json.dumps(tiny_config()))
    (root / "odd/images").mkdir(parents=True)
    (root / "odd/empty").mkdir()
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / "tree" / kind / split).mkdir(parents=True)
        image = Image.fromarray(rng.integers(0, 256, (32, 40, 3), np.uint8))
        image.save(root / "tree/images" / split / "0.png")
        mask = Image.fromarray(rng.integers(0, 2, (32, 40), np.uint8))
        mask.save(root / "tree/masks" / split / "0.png")
    (root / "tree/classes.txt").write_text("road\ncar\n")
    image.save(root / "odd/images/0.png")
    names = {"config": "config.json", "list": "list.yaml", "broken": "broken.yaml"}
    names |= {"suite_file": "suite.yaml", "image": "odd/images/0.png"}
    folders = {name: name for name in ("suite", "begun", "odd", "tree", "new", "out")}
    return {"root": root} | {name: root / path for name, path in (names | folders).items()}


def files_of(root):
    return {
        path: path.stat().st_size
        for path in sorted(root.rglob("*"))
        if not path.name.startswith("_") and path.name not in ("config.json", "events.jsonl")
    }


def filled(word, places):
    for name, path in places.items():
        word = word.replace(f"{{{name}}}", str(path))
    return word.replace("{{", "{").replace("}}", "}")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_sentence(mistake, places, monkeypatch):
    words, code, text = MISTAKES[mistake]
    monkeypatch.chdir(places["root"])
    before = files_of(places["root"])
    result = CliRunner().invoke(main, [filled(word, places) for word in words])
    assert result.exit_code == code, result.output
    assert text in result.output
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    message = result.output.partition("rror: ")[2]
    assert 0 < len(message) < 4000
    after = files_of(places["root"])
    made = {path for path in after if after[path] != before.get(path)} - {
        places["new"],
        places["out"],
    }
    assert not [path for path in made if "tensorboard" not in path.parts]
    for name in ("new", "out"):
        shutil.rmtree(places[name], ignore_errors=True)


def test_there_are_sixty():
    assert len(MISTAKES) >= 60


def test_version_and_help():
    assert f"madbal, version {__version__}" in CliRunner().invoke(main, ["--version"]).output
    help_text = CliRunner().invoke(main, ["--help"]).output
    assert "..." not in help_text.partition("Commands:")[2]
    assert "_MADBAL_COMPLETE=bash_source madbal" in " ".join(help_text.split())
