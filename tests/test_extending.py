"""Every file of docs/extending.md, run as a plug-in outside the package."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import madbal_ray
from madbal_ray import api, seams
from madbal_ray.errors import ConfigError
from tests.conftest import tiny_config

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
FILES = dict(
    re.findall(r"<!-- file: (\w+\.py) -->\n```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
)
MOST_LINES = 50


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with all plug-ins, from which runs are started and opened."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    for registry in vars(seams).values():
        if isinstance(registry, seams.Registry):  # what a test registers goes with it
            monkeypatch.setattr(registry, "_things", dict(registry._things))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def madbal(folder, *arguments):
    """Run the command line from a folder, as a user does."""
    root = str(Path(madbal_ray.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", "madbal_ray", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )


def run(folder, *, engine="local", name="run", **changes):
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tiny_config(**changes)))
    return madbal(folder, "run", path, "--engine", engine, "--run-dir", folder / name)


def run_here(folder, *, name="run", **changes):
    """Run in this process: the same code without the seconds that a new one takes to start."""
    return madbal_ray.run(tiny_config(**changes), run_dir=folder / name, engine="local")


def test_the_page_has_a_file_for_every_kind():
    assert list(FILES) == ["tiles.py", "gini.py", "rare_first.py", "focal.py", "text_file.py"]
    assert all(len(text.splitlines()) <= MOST_LINES for text in FILES.values())


def test_a_data_set(folder):
    tiles = folder / "tiles"
    tiles.mkdir()
    generator = np.random.default_rng(0)
    for index in range(8):
        mask = np.repeat(generator.integers(0, 3, (48, 4)), 16, axis=1).astype(np.uint8)
        picture = (mask[..., None] * 80 + generator.integers(0, 40, (48, 64, 3))).astype(np.uint8)
        Image.fromarray(picture).save(tiles / f"{index}.png")
        Image.fromarray(mask).save(tiles / f"{index}_mask.png")
    data = {"name": "tiles", "root": str(tiles), "options": {"suffix": "_mask.png"}}
    process = run(folder, plugins=["tiles"], data=data, num_rounds=1)
    assert process.returncode == 0, process.stderr
    opened = madbal_ray.open_run(folder / "run")
    assert opened.class_names == ("field", "house", "water")
    assert opened.table("images")["split"].to_pylist().count("val") == 2
    assert opened.table("labels", 0).num_rows == 6 * 5


@pytest.mark.parametrize(
    ("plugin", "options"), [("gini", {}), ("rare_first", {"options": {"power": 2.0}})]
)
def test_a_score_and_a_strategy(folder, plugin, options):
    process = run(folder, plugins=[plugin], strategy={"name": plugin, **options})
    assert process.returncode == 0, process.stderr
    verified = list(api.verify(folder / "run"))
    assert "round 1: selection replayed from the stored scores" in verified
    assert madbal(folder, "report", folder / "run").returncode == 0


@pytest.mark.parametrize("power", [1.0, 0.0])
def test_a_strategy_asks_for_what_it_chooses(folder, power):
    strategy = {"name": "rare_first", "options": {"power": power}}
    opened = run_here(folder, plugins=["rare_first"], strategy=strategy)
    scores = opened.table("superpixel_scores", 1).to_pandas()
    queries = opened.table("queries", 1).to_pandas()
    for image_id, rows in scores[scores["num_pixels"] > 0].groupby("image_id"):
        counts = rows["dominant_class"].value_counts()
        share = rows["dominant_class"].map(counts) / len(rows)
        worth = (rows["mean_score"] / share**power).sort_values(ascending=False, kind="stable")
        asked = queries[queries["image_id"] == image_id].sort_values("rank")["superpixel_id"]
        assert asked.tolist() == rows.loc[worth.index[:5], "superpixel_id"].tolist()


def test_an_option_that_the_plug_in_refuses_is_told_before_anything_runs(folder):
    strategy = {"name": "rare_first", "options": {"powr": 1}}
    process = run(folder, plugins=["rare_first"], strategy=strategy)
    assert process.returncode == 2
    assert "strategy.options of rare_first" in process.stderr
    assert "powr" in process.stderr
    assert not (folder / "run").exists()


def test_an_objective(folder):
    phase1 = {"epochs": 1, "batch_size": 2, "objective": "focal"}
    gamma = {"objective_options": {"gamma": 0.0}}
    changes = {"focal": {}, "flat": gamma, "plain": {"objective": "cross_entropy"}}
    weights = {}
    for name, change in changes.items():
        settings = {**phase1, **change}
        opened = run_here(
            folder, name=name, plugins=["focal"], num_rounds=1, train__phase1=settings
        )
        stage = opened.stage("phase1", 0)
        weights[name] = stage.marker().files[0].sha256
    assert weights["focal"] != weights["plain"]
    assert weights["flat"] == weights["plain"]  # gamma 0 is the cross-entropy


def answer(folder, waiting):
    """Write the answers that a run waits for, as its masks say; leave some of them out."""
    opened = madbal_ray.open_run(folder / "run")
    round_index = 0 if opened.run_dir.find("select", 1) is None else 1
    reader = opened.reader()
    images = {image.image_id: image for _, image in opened.pool_sample(100)}
    lines = []
    for row in opened.table("queries", round_index).to_pylist():
        image = images[row["image_id"]]
        value = reader.mask(image)[row["y"], row["x"]]  # both grids are the original's
        lines.append(f"{row['image_id']},{row['y']},{row['x']},{'void' if value == 255 else value}")
    kept = lines[: len(lines) - waiting]
    with open(folder / "answers.txt", "a") as sink:
        sink.write("\n".join(kept) + "\n")


@pytest.mark.ray
def test_an_oracle_that_is_awaited_on_ray(folder):
    oracle = {"kind": "text_file", "options": {"path": str(folder / "answers.txt")}}
    changes = {"plugins": ["text_file"], "oracle": oracle, "engine": "ray", "num_rounds": 1}
    first = run(folder, **changes)
    assert first.returncode == 3, first.stderr
    assert "waiting for 30 answers: answers are awaited in" in first.stderr
    answer(folder, waiting=0)
    assert run(folder, **changes).returncode == 0
    labels = madbal_ray.open_run(folder / "run").table("labels")
    assert set(labels["oracle"].to_pylist()) == {"text_file"}


def test_an_oracle_that_is_awaited(folder):
    oracle = {"kind": "text_file", "options": {"path": str(folder / "answers.txt")}}
    changes = {"plugins": ["text_file"], "oracle": oracle}
    first = run(folder, **changes)
    assert first.returncode == 3, first.stderr
    assert "waiting for 30 answers: answers are awaited in" in first.stderr
    answer(folder, waiting=4)
    second = run(folder, **changes)
    assert second.returncode == 3
    assert "waiting for 4 answers" in second.stderr
    answer(folder, waiting=0)
    assert run(folder, **changes).returncode == 3  # round 1 asks
    answer(folder, waiting=0)
    assert run(folder, **changes).returncode == 0
    opened = madbal_ray.open_run(folder / "run")
    assert set(opened.table("labels")["oracle"].to_pylist()) == {"text_file"}
    other = run_here(folder, name="simulated", oracle={"kind": "simulated"})
    columns = ["image_id", "y", "x", "class_id", "status"]
    for index in range(2):
        mine, theirs = opened.table("labels", index), other.table("labels", index)
        assert mine.select(columns).equals(theirs.select(columns))


def test_a_plug_in_that_is_not_there(folder):
    process = run(folder, plugins=["no_such_module"])
    assert process.returncode == 2
    assert "plugins: no_such_module cannot be imported" in process.stderr
    with pytest.raises(ConfigError, match="'rare_first' is no strategy; there are: madbal, aver"):
        run_here(folder, strategy="rare_first")


def test_a_plug_in_in_a_suite_and_by_dotted_path(folder):
    (folder / "suite.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "mixed",
                "base": tiny_config(plugins=["gini"]),
                "seeds": [0],
                "baseline": "random",
                "members": {
                    "random": {"strategy": "random"},
                    "gini": {"strategy": "gini"},
                    "dotted": {"strategy": "rare_first:BY_PATH"},
                },
            }
        )
    )
    with open(folder / "rare_first.py", "a") as sink:
        sink.write('BY_PATH = RareFirst(name="by_path", source="", pixel_score="entropy")\n')
    process = madbal(folder, "suite", "suite.yaml", "--engine", "local", "--folder", folder / "out")
    assert process.returncode == 0, process.stderr + process.stdout
    for member in ("random", "gini", "dotted"):
        assert madbal_ray.open_run(folder / "out" / f"{member}-seed-0").num_rounds == 2
