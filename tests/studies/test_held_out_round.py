"""A fold: what is trained and asked on, and what is measured, are each other's complement."""

from types import SimpleNamespace

import pytest

from madbal_ray.config.file import load_config
from madbal_ray.errors import LabelError, RunDirError
from madbal_ray.loop.history import History
from madbal_ray.loop.round import Round
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.runs.run import Run
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.storage import Folder
from madbal_ray.studies.held_out_round import HELD_OUT, Fold, HeldOut
from tests.conftest import tiny_config
from tests.hand_made import pool_image, write_labels, write_pool, write_stage

SHARDS = {1: ["a", "b"], 4: ["c", "d", "e"]}
SIZES = {"a": (2, 3), "b": (4, 5), "c": (2, 2), "d": (1, 7), "e": (3, 3)}
OUT = frozenset({"b", "d"})


class HandMade(Run):
    """A run with a labelled round 0, of stages made by hand."""

    def __init__(self, folder):
        self.run_dir = RunDir(folder / "run")
        self.config = load_config(tiny_config())
        images = {
            shard_id: [pool_image(name, work=SIZES[name]) for name in names]
            for shard_id, names in SHARDS.items()
        }
        self._pool = write_pool(folder, images)
        rows = {
            shard_id: [{"image_id": name, "y": 0, "x": x} for name in names for x in (0, 1)]
            for shard_id, names in SHARDS.items()
        }
        splits = {"train": [1, 4], "val": [9]}
        self.stages = {
            ("images", None): self._pool.images,
            ("labels", 0): write_labels(folder, rows),
            ("index", None): write_stage(
                folder, "index", {}, table="images", summary={"shards_of_split": splits}
            ),
        }

    def stage(self, name, round=None):
        if (name, round) not in self.stages:
            raise RunDirError(name)
        return self.stages[name, round]

    def pool(self, *, reads_images=True):
        return self._pool


def held_out(tmp_path, out=OUT, number=0):
    return HeldOut(
        run=HandMade(tmp_path),
        folder=Folder(tmp_path / "fold"),
        fold=Fold(out, {"fold": number}),
        weights=PublishedWeights("none", None),
    )


def images_of(stage, shard_ids=(1, 4), table="images"):
    return [stage.read_table(table, [shard_id])["image_id"].to_pylist() for shard_id in shard_ids]


def test_labels_of_the_folds_images_are_left_out(tmp_path):
    labels = held_out(tmp_path).labels()
    assert images_of(labels, table="labels") == [["a", "a"], ["c", "c", "e", "e"]]


def test_the_pool_holds_the_images_that_are_kept_and_counts_them(tmp_path):
    pool = held_out(tmp_path)._pool()
    assert images_of(pool.images) == [["a"], ["c", "e"]]
    assert pool.num_images == 3
    assert pool.num_pixels == 2 * 3 + 2 * 2 + 3 * 3
    assert list(pool.shard_ids) == [1, 4]


def test_another_fold_has_stages_of_its_own(tmp_path):
    first, second = held_out(tmp_path), held_out(tmp_path, frozenset({"a"}), 1)
    assert images_of(second.labels(), table="labels") == [
        ["b", "b"],
        ["c"] * 2 + ["d"] * 2 + ["e"] * 2,
    ]
    assert first.labels().key != second.labels().key
    assert first.labels() == held_out(tmp_path).labels()


class Noted(Round):
    """Asks and trains nothing; `metrics` holds what is given."""

    def ask(self, history):
        return self.given["queries"]

    def label(self, queries, history):
        assert queries is self.given["queries"]
        self.given["asked_on"] = self.pool
        return history

    def train(self, history, *, only_phase1=False):
        self.given["only_phase1"] = only_phase1
        return history, self.given["metrics"]


def measure(tmp_path, monkeypatch, miou):
    fold = held_out(tmp_path)
    given = {
        "queries": fold.run.stage("index"),
        "metrics": write_stage(tmp_path, "metrics", {0: [{"round": 1, "miou": miou}]}),
    }
    monkeypatch.setattr(Noted, "given", given, raising=False)
    monkeypatch.setattr("madbal_ray.studies.held_out_round.Round", Noted)
    pool = fold._pool()
    found = fold.next_miou(fold.run.config, History.before(pool), "cpu")
    return SimpleNamespace(miou=found, **given)


def test_one_more_round_is_asked_on_kept_images_and_measured_on_the_others(tmp_path, monkeypatch):
    found = measure(tmp_path, monkeypatch, 0.25)
    assert found.miou == 0.25
    assert found.only_phase1
    pool = found.asked_on
    assert images_of(pool.images) == [["a"], ["c", "e"]]
    assert images_of(pool.evaluation_images) == [["b"], ["d"]]
    assert {name: list(ids) for name, ids in pool.evaluation_shards.items()} == {HELD_OUT: [1, 4]}
    assert pool.evaluation_images.key != pool.images.key


def test_an_undefined_miou_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(LabelError, match="mIoU on held-out images is undefined"):
        measure(tmp_path, monkeypatch, None)
