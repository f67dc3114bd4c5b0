"""Every strategy, one contract: seeded, exact budget, nothing twice, independent of workers."""

import numpy as np
import pytest

import madbal_ray
from madbal_ray import api
from madbal_ray.errors import ConfigError
from madbal_ray.loop.verify import verify_run
from madbal_ray.seams import STRATEGIES
from tests.conftest import tiny_config

BUDGET = 6
NEED_DROPOUT = ("bald", "balent", "cpral")
FEW = {
    "options": {"candidates": 8}
}  # fewer than an image has superpixels, or herding leaves none out
NEED_OPTIONS = {
    "class_aware_margin": {"top_share": 0.5},
    "diverse_uncertain": FEW,
    "herded_margin": FEW,
    "vaal": {"options": {"steps": 3}},
}


def strategy_config(name, **changes):
    config = tiny_config(
        num_rounds=3,
        strategy={"name": name} | NEED_OPTIONS.get(name, {}),
        budget={"initial_pixels_per_image": 4, "pixels_per_image": BUDGET, "images_per_round": 2},
        model={"dropout": 0.5} if name in NEED_DROPOUT else {},
        train__phase2__epochs=1,
        evaluation={"batch_size": 3},
    )
    config["strategy"].update(changes)
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One pool for all strategies; round 0 is computed once."""
    return tmp_path_factory.mktemp("strategies")


@pytest.fixture(scope="module")
def runs(folder):
    done = {}

    def get(name):
        if name not in done:
            done[name] = madbal_ray.run(
                strategy_config(name), run_dir=folder / name, engine="local"
            )
        return done[name]

    return get


@pytest.mark.parametrize("name", list(STRATEGIES))
class TestEveryStrategy:
    def test_budget_is_exact_and_nothing_is_asked_twice(self, name, runs):
        strategy, run = STRATEGIES[name], runs(name)
        images = run.table("images").to_pandas().set_index("image_id")
        pool = images[images["split"] == "train"]
        for round_index in (1, 2):
            queries = run.table("queries", round_index).to_pandas()
            assert set(queries["unit"]) == {strategy.unit}
            if strategy.unit == "image":
                assert len(queries) == 2
            else:
                assert (queries.groupby("image_id").size() == BUDGET).all()
                assert queries["image_id"].nunique() == len(pool)
            assert (queries.groupby("image_id")["rank"].max() < BUDGET).all()
        asked = {}
        superpixels = {}
        labels = run.table("labels").to_pandas()
        for row in labels.itertuples():
            size = pool.loc[row.image_id, ["work_height", "work_width"]]
            seen = asked.setdefault(row.image_id, np.zeros(tuple(size), bool))
            if row.unit == "pixel":
                assert not seen[row.y, row.x]
                seen[row.y, row.x] = True
            elif row.unit == "superpixel":
                assert not seen[row.y, row.x]
                key = (row.image_id, row.superpixel_id)
                assert key not in superpixels
                superpixels[key] = row.num_pixels
            else:
                assert row.num_pixels == (~seen).sum()
                seen[:] = True
        metrics = run.metrics().iloc[-1]
        assert metrics["num_labels"] == labels["num_pixels"].sum()
        assert metrics["num_regions"] == len(labels)
        whole = labels["unit"] == "image"
        clicks = np.where(whole, labels["num_pixels"], 1).sum()
        assert metrics["num_clicks"] == clicks

    def test_same_seed_same_queries_another_seed_others(self, name, runs, folder):
        first = runs(name)
        config = strategy_config(name)
        again = madbal_ray.run(config, run_dir=folder / f"{name}-again", engine="local")
        assert again.table("queries").equals(first.table("queries"))
        config["seed"] = 1
        other = madbal_ray.run(config, run_dir=folder / f"{name}-other", engine="local")
        assert not other.table("queries").equals(runs(name).table("queries"))

    def test_queries_do_not_depend_on_sharding_or_order(self, name, runs, tmp_path):
        config = strategy_config(name)
        config["pool"]["shard_images"] = 4
        other = madbal_ray.run(config, run_dir=tmp_path / "r", engine="local")
        assert other.table("queries").equals(runs(name).table("queries"))

    def test_round_zero_is_shared(self, name, runs):
        first, this = runs("madbal").run_dir, runs(name).run_dir
        for stage in ("select", "labels", "phase1", "metrics"):
            if name in NEED_DROPOUT:  # their networks have dropout
                continue
            assert this.find(stage, 0).folder == first.find(stage, 0).folder

    def test_it_declares_where_it_comes_from(self, name):
        assert STRATEGIES[name].name == name
        assert STRATEGIES[name].source


def queries_of(run, round_index=1):
    return run.table("queries", round_index)


def test_strategies_differ_from_each_other(runs):
    first = {name: queries_of(runs(name)) for name in STRATEGIES}
    pixel = [name for name, s in STRATEGIES.items() if s.unit == "pixel"]
    for index, name in enumerate(pixel):
        for other in pixel[index + 1 :]:
            assert not first[name].equals(first[other]), (name, other)


def test_random_of_the_top_share_stays_inside_it(folder):
    config = strategy_config("margin", top_share=0.1)
    run = madbal_ray.run(config, run_dir=folder / "margin-top", engine="local")
    plain = madbal_ray.run(
        strategy_config("margin"), run_dir=folder / "margin-plain", engine="local"
    )
    assert not queries_of(run).equals(queries_of(plain))
    lowest = run.table("pixel_candidates", 1).to_pandas().groupby("image_id")["score"].min()
    best = plain.table("pixel_candidates", 1).to_pandas().groupby("image_id")["score"].min()
    assert (lowest <= best).all()


def test_class_aware_random_takes_classes_in_turn(runs):
    table = runs("class_aware_random").table("pixel_candidates", 1).to_pandas()
    for _, rows in table.groupby("image_id"):
        counts = rows["predicted_class"].value_counts()
        if len(counts) < BUDGET:
            assert counts.max() - counts.min() <= BUDGET  # a class may run out
        first_turn = rows.sort_values("rank")["predicted_class"].head(len(counts))
        assert first_turn.is_unique


def test_random_clusters_keep_the_number_of_clusters(runs):
    drawn = runs("random_clusters").table("superpixel_scores", 1)["cluster_id"].to_numpy()
    kept = runs("madbal").table("superpixel_scores", 1)["cluster_id"].to_numpy()
    assert set(drawn) == set(range(3))
    assert (drawn != kept).any()


def test_a_superpixel_answer_teaches_all_its_pixels(runs):
    run = runs("class_balanced_superpixel")
    labels = run.table("labels").to_pandas()
    regions = labels[labels["unit"] == "superpixel"]
    assert (regions["num_pixels"] > 1).any()
    trained = run.run_dir.find("phase1", 2).marker().summary["labelled_pixels"]
    pixels = labels[labels["status"] == "labelled"]["num_pixels"].sum()
    assert trained == pixels


@pytest.mark.parametrize(
    "options",
    [
        {"normalize_terms": True},
        {"uncertainty": "margin"},
        {"balance_exponent": 4.0},
        {"cluster_size_exponent": 1.0},
        {"pixel_share": 0.2},
    ],
    ids=lambda options: next(iter(options)),
)
def test_every_option_of_madbal_changes_what_is_asked(options, folder, runs):
    name = f"madbal-{next(iter(options))}"
    run = madbal_ray.run(
        strategy_config("madbal", **options), run_dir=folder / name, engine="local"
    )
    assert not queries_of(run).equals(queries_of(runs("madbal")))
    assert (queries_of(run).to_pandas().groupby("image_id").size() == BUDGET).all()


@pytest.mark.parametrize("name", ["madbal", "class_balanced_superpixel"])
def test_scope_pool_spends_the_same_budget_where_it_is_worth_most(name, folder, runs):
    config = strategy_config(name)
    config["budget"]["scope"] = "pool"
    run = madbal_ray.run(config, run_dir=folder / f"{name}-pool", engine="local")
    per_image = queries_of(run).to_pandas().groupby("image_id").size()
    images = len(run.table("images").to_pandas().query("split == 'train'"))
    assert per_image.sum() == BUDGET * images
    assert per_image.max() > BUDGET  # images differ, so their shares do
    assert (
        run.table("cluster_budgets")
        .to_pandas()
        .groupby("round")["budget"]
        .sum()
        .eq(BUDGET * images)
        .all()
    )
    assert any("replayed" in line for line in verify_run(run.run_dir))
    results, _ = api.report([folder / f"{name}-pool"], out=folder / "report")
    (told,) = results.of(results.members[0])
    assert np.allclose(told.cluster_budgets.groupby("round")["budget"].sum(), BUDGET)
    assert not queries_of(run).equals(queries_of(runs(name)))


def test_scope_pool_with_a_cap_of_b_is_scope_image(folder, runs):
    config = strategy_config("madbal")
    config["budget"] |= {"scope": "pool", "max_per_image": BUDGET}
    run = madbal_ray.run(config, run_dir=folder / "madbal-capped", engine="local")
    pixels = ["image_id", "y", "x", "cluster_id"]
    capped, plain = (queries_of(one).to_pandas()[pixels] for one in (run, runs("madbal")))
    assert set(capped.itertuples(index=False)) == set(plain.itertuples(index=False))


def test_full_supervision_trains_on_every_pixel_that_is_not_void(folder):
    config = strategy_config("random")
    config["num_rounds"] = 1
    config["budget"]["initial_pixels_per_image"] = "all"
    run = madbal_ray.run(config, run_dir=folder / "full", engine="local")
    metrics = run.metrics().iloc[0]
    assert metrics["percent_labelled"] == 100.0
    trained = run.run_dir.find("phase1", 0).marker().summary["labelled_pixels"]
    assert 0.9 * metrics["num_labels"] < trained < metrics["num_labels"]  # a void strip


def test_an_unknown_strategy_lists_those_that_exist(tmp_path):
    config = tiny_config(strategy="madball")
    with pytest.raises(ConfigError, match=r"there are: madbal, averaging, .*image_entropy"):
        madbal_ray.run(config, run_dir=tmp_path / "run", engine="local")
