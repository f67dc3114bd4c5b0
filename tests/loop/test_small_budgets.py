"""Budgets far below the pool: some images first, then a total over the pool."""

import re

import pytest
from pydantic import ValidationError

import madbal_ray
from madbal_ray import api
from madbal_ray.config.asking import BudgetConfig
from madbal_ray.errors import MadbalError
from madbal_ray.state.storage import Folder
from madbal_ray.training.job import TrainRound
from tests.conftest import tiny_config

TRAIN, PER_SHARD = 24, 2
VAL_SHARD = TRAIN // PER_SHARD
SHARD = re.compile(r"/(\w+)/(\d{5})\.parquet$")


def small(folder, strategy="madbal", **budget):
    config = tiny_config(
        data={
            "name": "synthetic",
            "synthetic": {"num_train": TRAIN, "num_val": 1, "height": 48, "width": 64},
        },
        pool={"shard_images": PER_SHARD, "dir": str(folder / "pool")},
        strategy=strategy,
        budget={"initial_pixels_per_image": 4, "pixels_per_image": 2, "scope": "pool", **budget},
    )
    return madbal_ray.run(config, run_dir=folder / "run", engine="local")


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A run of 5 first images and 7 pixels more; what each training opened."""
    opened, trainings = [], []
    plain_open, plain_run = Folder.open, TrainRound.run

    def open_file(self, name, *more):
        opened.append(self.file_uri(name))
        return plain_open(self, name, *more)

    def train(self, context):
        opened.clear()
        plain_run(self, context)
        trainings.append(list(opened))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "open", open_file)
        patch.setattr(TrainRound, "run", train)
        run = small(tmp_path_factory.mktemp("small"), initial_images=5, total_pixels=7)
    return run, trainings


def test_first_images_and_the_total_are_exact(watched, tmp_path):
    run, _ = watched
    first, second = (run.table("queries", i).to_pandas() for i in (0, 1))
    assert first.groupby("image_id").size().tolist() == [4] * 5
    assert first["score"].isna().all()
    assert len(second) == 7
    assert second["score"].notna().all()
    results, _ = api.report([run.run_dir.folder.uri], out=tmp_path / "report")
    (told,) = results.of(results.members[0])
    assert told.cluster_budgets["budget"].sum() == pytest.approx(7 / TRAIN)  # an image, on average
    metrics = run.table("metrics").to_pandas()
    assert metrics["num_labels"].tolist() == [20, 27]
    assert metrics["labels_per_image"].tolist() == [20 / TRAIN, 27 / TRAIN]


def test_training_opens_no_shard_without_labels(watched):
    """Absolute: shards by table, counted, against those of the images that were asked."""
    run, trainings = watched
    shard_of = run.table("images").to_pandas().set_index("image_id")["shard_id"]
    labelled = set()
    for index, files in enumerate(trainings):
        asked = set(run.table("queries", index)["image_id"].to_pylist())
        labelled |= asked
        shards = {int(shard_of[name]) for name in labelled}
        assert len(shards) < VAL_SHARD  # or nothing is shown
        seen = {}
        for path in files:
            if match := SHARD.search(path):
                seen.setdefault(match[1], set()).add(int(match[2]))
        assert seen["labels"] == shards
        assert seen["images"] == shards | {VAL_SHARD}
        assert seen.keys() == {"labels", "images"}
        pictures = {path for path in files if path.endswith(".png") and "/train/" in path}
        assert len({p for p in pictures if "mask" not in p}) == len(labelled)


def test_shards_without_queries_are_not_asked(watched):
    run, _ = watched
    for index in (0, 1):
        queries, labels = (run.run_dir.find(name, index) for name in ("select", "labels"))
        assert labels.shards_with("labels") == queries.shards_with("queries")
        assert len(labels.marker().files) == len(queries.shards_with("queries")) < VAL_SHARD


def test_a_spread_start_takes_equally_of_every_cluster(tmp_path):
    run = small(
        tmp_path,
        "random",
        initial="spread",
        initial_images=7,
        initial_pixels_per_image=3,
        total_pixels=11,
    )
    first, second = (run.table("queries", i).to_pandas() for i in (0, 1))
    assert first.groupby("cluster_id").size().tolist() == [7, 7, 7]
    assert first["image_id"].nunique() <= 7
    chosen = run.run_dir.find("first_images", 0).read_table("queries").to_pandas()
    assert chosen["image_id"].nunique() == len(chosen) == 7
    assert chosen.groupby("cluster_id").size().tolist() == [3, 2, 2]
    assert set(first["image_id"]) <= set(chosen["image_id"])
    assert len(second) == 11  # strategy random draws over the pool too
    asked = ["image_id", "y", "x"]
    assert not len(first[asked].merge(second[asked]))
    lines = list(api.verify(run.run_dir.folder.uri))
    assert sum("selection replayed from the seed" in line for line in lines) == 2


class TestBadInput:
    def test_more_first_images_than_there_are(self, tmp_path):
        with pytest.raises(MadbalError, match=r"initial_images = 25, and the pool has 24 images"):
            small(tmp_path, initial_images=25)

    def test_options_that_do_not_fit(self):
        with pytest.raises(ValidationError, match=r"budget\.total_pixels is for budget\.scope"):
            BudgetConfig(total_pixels=5)
        with pytest.raises(ValidationError, match="nothing to spread"):
            BudgetConfig(initial="spread", initial_pixels_per_image="all")

    def test_a_limit_below_the_mean_fits_a_total(self):
        assert BudgetConfig(scope="pool", max_per_image=3, total_pixels=5).most_per_image == 3
        with pytest.raises(ValidationError, match="could never be spent"):
            BudgetConfig(scope="pool", max_per_image=3)


def test_options_at_their_defaults_enter_no_key():
    assert set(BudgetConfig().result_settings()) == {
        "initial_pixels_per_image",
        "pixels_per_image",
        "scope",
        "max_per_image",
        "rounding",
        "images_per_round",
    }
