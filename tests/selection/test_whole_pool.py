"""Scope `pool` against one unit-by-unit reference over all images, whatever the sharding."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from madbal_ray.config.asking import BudgetConfig, StrategyConfig
from madbal_ray.errors import NumericalError
from madbal_ray.selection.cluster_statistics import score_superpixels
from madbal_ray.selection.scored_shard import ClusterBudgets
from madbal_ray.selection.whole_pool.cut import Cuts, count_digits, score_bits
from madbal_ray.selection.whole_pool.jobs import query_whole_pool
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from tests import references
from tests.askings import asking_on
from tests.selection.test_query import random_image

CLASSES = 3
OPTIONS = StrategyConfig()


def write_pool(folder, images, *, per_shard, budget):
    """Store images (see `random_image`) as a scoring and an allocation stage."""
    names = [f"{i:03d}.png" for i in range(len(images))]
    score = StageDir.plan(folder, "score", {}, {})
    files, counts = [], {}
    for shard_id, first in enumerate(range(0, len(images), per_shard)):
        rows = []
        for name, image in list(zip(names, images, strict=True))[first : first + per_shard]:
            for row in image["rows"]:
                missing = image["top"] - len(row["pixels"])
                rows.append(
                    {
                        "image_id": name,
                        "superpixel_id": row["id"],
                        "cluster_id": row["cluster"],
                        "num_pixels": len(row["pixels"]),
                        "mean_score": row["score"],
                        "dominant_class": 0 if row["pixels"] else -1,
                        "top_y": [p[0] for p in row["pixels"]] + [-1] * missing,
                        "top_x": [p[1] for p in row["pixels"]] + [-1] * missing,
                        "top_score": [p[2] for p in row["pixels"]] + [-np.inf] * missing,
                    }
                )
        table = tables.from_rows("superpixel_scores", rows)
        files.append(score.write_table("superpixel_scores", shard_id, table))
        counts[str(shard_id)] = {"images": per_shard}
    score.commit(files, {"shards": counts})
    budgets = StageDir.plan(folder, "allocate", {}, {})
    clusters = len(budget)
    columns = {
        "round": np.ones(clusters),
        "cluster_id": np.arange(clusters),
        "num_superpixels": np.ones(clusters),
        "score": images[0]["cluster_score"],
        "share": np.zeros(clusters),
        "budget": np.array(budget),
        "class_share": np.zeros((clusters, CLASSES)),  # exp(-P) = 1: u(s) is the mean score
    }
    table = tables.from_columns("cluster_budgets", columns)
    budgets.commit([budgets.write_table("cluster_budgets", 0, table)], {})
    return score, budgets


def select(folder, images, *, per_shard, budget, config):
    score, budgets = write_pool(folder, images, per_shard=per_shard, budget=budget)
    queries = query_whole_pool(asking_on(score, folder, budget=config), budgets, "pixel")
    return queries.read_table("queries").to_pandas(), queries


def reference(images, budget, offered=None):
    """Lay all images into one, superpixels numbered in order of image and id."""
    rows = [
        {**row, "id": (image, row["id"]), "score": row["score"] if row["pixels"] else 0.0}
        for image, one in enumerate(images if offered is None else offered)
        for row in one["rows"]
    ]
    chosen = references.query_image(rows, budget, images[0]["cluster_score"].tolist())
    return {(f"{key[0]:03d}.png", y, x, key[1], cluster) for y, x, key, cluster in chosen}


def found(frame):
    names = ["image_id", "y", "x", "superpixel_id", "cluster_id"]
    return set(frame[names].itertuples(index=False, name=None))


def pool_of(seed, *, levels, count=5, superpixels=7):
    images = [
        random_image(seed + i, superpixels=superpixels, clusters=3, top=2, budget=4, levels=levels)
        for i in range(count)
    ]
    if levels > 100:
        rng = np.random.default_rng(seed)
        for image in images:
            for row in image["rows"]:
                row["score"] = float(rng.random())
    return images


@given(
    seed=st.integers(0, 10_000),
    levels=st.sampled_from([1, 3, 1000]),
    per_shard=st.integers(1, 5),
    total=st.integers(1, 60),
)
@example(seed=1, levels=1, per_shard=2, total=9)  # every score alike: only ties
@settings(max_examples=60, deadline=None)
def test_the_pool_gets_what_one_big_image_would(tmp_path_factory, seed, levels, per_shard, total):
    images = pool_of(seed, levels=levels)
    budget = references.largest_remainder([3, 1, 2], total)
    config = BudgetConfig(pixels_per_image=4, scope="pool")
    folder = Folder(tmp_path_factory.mktemp("pool"))
    frame, _ = select(folder, images, per_shard=per_shard, budget=budget, config=config)
    assert found(frame) == reference(images, budget)


@given(seed=st.integers(0, 10_000), cap=st.integers(4, 9), total=st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_a_cap_offers_what_the_image_scope_would_ask(tmp_path_factory, seed, cap, total):
    images = pool_of(seed, levels=3)
    budget = references.largest_remainder([3, 1, 2], total)
    config = BudgetConfig(pixels_per_image=4, scope="pool", max_per_image=cap)
    folder = Folder(tmp_path_factory.mktemp("pool"))
    frame, _ = select(folder, images, per_shard=2, budget=budget, config=config)
    assert frame.groupby("image_id").size().max() <= cap
    weights = images[0]["cluster_score"]
    if weights.any():
        share = references.largest_remainder(weights.astype(int).tolist(), cap)
    else:
        share = references.largest_remainder([1, 1, 1], cap)
    offered = []
    for image in images:
        asked = references.query_image(
            [{**r, "score": r["score"] if r["pixels"] else 0.0} for r in image["rows"]],
            share,
            weights.tolist(),
        )
        pixels = {(y, x) for y, x, _, _ in asked}
        rows = [
            {**row, "pixels": [p for p in row["pixels"] if (p[0], p[1]) in pixels]}
            for row in image["rows"]
        ]
        offered.append({**image, "rows": rows})
    assert found(frame) == reference(images, budget, offered)


def test_ranks_follow_laps_and_scores(tmp_path):
    images = pool_of(3, levels=1000)
    config = BudgetConfig(pixels_per_image=4, scope="pool")
    frame, _ = select(Folder(tmp_path), images, per_shard=2, budget=[20, 20, 20], config=config)
    assert len(frame) > 35  # second pixels are asked for
    for name, rows in frame.groupby("image_id"):
        scores = {row["id"]: row["score"] for row in images[int(name[:3])]["rows"]}
        lap = rows.groupby("superpixel_id").cumcount()
        keys = list(zip(lap, [-scores[i] for i in rows["superpixel_id"]], strict=True))
        assert rows["rank"].tolist() == list(range(len(rows)))
        assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("budget", "cap", "expected"),
    [
        ([2, 1, 1], None, []),
        (
            [3, 4, 1],  # the pool has two superpixels of each cluster
            None,
            [
                "round 1: 2 queries are further pixels of superpixels that gave one, of images "
                "with fewer than 4 open superpixels; other images offered one pixel of each. For "
                "second pixels of all: budget.total_pixels = 8 and a larger budget.pixels_per_image"
            ],
        ),
        ([3, 4, 1], 4, []),
    ],
)
def test_further_pixels_of_superpixels_are_told(tmp_path, budget, cap, expected):
    rows = [
        {"id": i, "cluster": i, "score": 1.0, "pixels": [(i, x, 1.0 - x / 8) for x in range(2)]}
        for i in range(3)
    ]
    image = {"rows": rows, "top": 2, "cluster_score": np.array([1.0, 1.0, 1.0])}
    score, budgets = write_pool(Folder(tmp_path), [image, image], per_shard=1, budget=budget)
    config = BudgetConfig(pixels_per_image=4, scope="pool", max_per_image=cap)
    asking = asking_on(score, Folder(tmp_path), budget=config)
    queries = query_whole_pool(asking, budgets, "pixel").read_table("queries")
    assert queries.num_rows == sum(budget)
    assert asking.stages.lines == expected


def test_sharding_changes_nothing(tmp_path):
    images = pool_of(11, levels=3, count=7)
    config = BudgetConfig(pixels_per_image=4, scope="pool")
    frames = [
        select(Folder(tmp_path / str(n)), images, per_shard=n, budget=[6, 5, 4], config=config)[0]
        for n in (1, 2, 7)
    ]
    assert frames[0].equals(frames[1])
    assert frames[0].equals(frames[2])


@given(st.lists(st.floats(0, 1e300, allow_nan=False), min_size=1, max_size=30))
def test_bits_are_ordered_as_scores(values):
    scores = np.array(values)
    assert (
        np.argsort(score_bits(scores), kind="stable") == np.argsort(scores, kind="stable")
    ).all()


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(NumericalError, match="score nan"):
        score_bits(np.array([1.0, np.nan]))


def test_the_first_pass_counts_everything():
    digits = count_digits(np.array([0, 0, 1]), score_bits(np.array([0.5, 0.5, 2.0])), None, 48)
    assert digits.count.tolist() == [2, 1]
    cuts = Cuts.start(np.array([1, 1]), np.array([2, 1])).narrow(digits, 48)
    assert cuts.is_open.tolist() == [True, False]


def test_u_of_the_reference_is_u_of_the_product(tmp_path):
    """The reference above takes the mean score for u(s); so it is when P_k is zero."""
    images = pool_of(0, levels=3)
    _, budgets = write_pool(Folder(tmp_path), images, per_shard=5, budget=[1, 1, 1])
    clusters = ClusterBudgets.read(budgets, OPTIONS)
    score = score_superpixels(
        mean_score=[2.5, 1.0],
        dominant_class=[0, -1],
        cluster_id=[0, 1],
        cluster_class_share=clusters.class_share,
    )
    assert score.tolist() == [2.5, 0.0]
