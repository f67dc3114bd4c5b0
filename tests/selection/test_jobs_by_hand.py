"""The jobs of a selection on tables made by hand: sums over shards, budgets, rows, streams."""

import math

import numpy as np
import pytest

from madbal_ray import rng
from madbal_ray.config.asking import BudgetConfig, StrategyConfig
from madbal_ray.errors import LabelError, PoolError
from madbal_ray.selection.breakdown_jobs import AllocateBudgets, QueryShard
from madbal_ray.selection.candidates_job import QueryCandidates
from madbal_ray.selection.query_rows import check_exact
from madbal_ray.selection.random_jobs import AskWholeImages, DrawRandomPixels
from madbal_ray.selection.scored_shard import cluster_weights
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from tests.hand_made import FromArrays, pool_image, write_labels, write_pool, write_stage

UNIT = 2**32


def planned(tmp_path, name):
    return StageDir.plan(Folder(tmp_path), name, {"new": True}, {})


def statistics(shard_id, count, score_sum):
    return [
        {
            "shard_id": shard_id,
            "num_clusters": 2,
            "num_classes": 3,
            "count": count,
            "score_sum": [value * UNIT for value in score_sum],
        }
    ]


def allocate(tmp_path, shards, *, total=10, rounding="largest_remainder", **options):
    score = write_stage(tmp_path, "score", shards, table="cluster_statistics")
    return AllocateBudgets(
        output=planned(tmp_path, "allocate"),
        score=score,
        round_index=2,
        num_clusters=2,
        num_classes=3,
        total=total,
        config=BudgetConfig(rounding=rounding),
        options=StrategyConfig(**options),
    )


SHARDS = {
    0: statistics(0, [1, 0, 1, 0, 0, 0], [2, 0, 4, 0, 0, 0]),
    5: statistics(5, [2, 0, 0, 0, 2, 0], [4, 0, 0, 0, 6, 0]),
}
"""Cluster 0: classes 0, 2 thrice and once, sums 6 and 4; cluster 1: class 1 twice, sum 6."""
FIRST = (6 * math.exp(-0.75) + 4 * math.exp(-0.25)) / 4
SECOND = 6 * math.exp(-1) / 2


def test_statistics_of_all_shards_give_shares_scores_and_budgets(tmp_path):
    computed = allocate(tmp_path, SHARDS).compute()
    first, second = computed.tables["cluster_budgets", 0].to_pylist()
    assert first["score"] == pytest.approx(FIRST)
    assert second["score"] == pytest.approx(SECOND)
    assert first["share"] == pytest.approx(FIRST / (FIRST + SECOND))
    assert first["class_share"] == [0.75, 0.0, 0.25]
    assert second["class_share"] == [0.0, 1.0, 0.0]
    assert [row["num_superpixels"] for row in (first, second)] == [4, 2]
    assert [row["cluster_id"] for row in (first, second)] == [0, 1]
    assert {first["round"], second["round"]} == {2}
    assert [row["budget"] for row in (first, second)] == [6, 4]  # 5.75 and 4.25 of 10
    assert computed.summary == {"ceil_excess": 0}


def test_the_papers_ceilings_report_what_was_given_back(tmp_path):
    computed = allocate(tmp_path, SHARDS, rounding="ceil").compute()
    rows = computed.tables["cluster_budgets", 0].to_pylist()
    assert [row["budget"] for row in rows] == [6, 4]  # ceilings 6 and 5; the lower gives one back
    assert computed.summary == {"ceil_excess": 1}


def test_options_change_the_balance_and_the_weights_of_clusters(tmp_path):
    computed = allocate(tmp_path, SHARDS, balance_exponent=0.0, cluster_size_exponent=1.0).compute()
    first, second = computed.tables["cluster_budgets", 0].to_pylist()
    assert (first["score"], second["score"]) == (2.5, 3.0)
    assert (first["share"], second["share"]) == (10 / 16, 6 / 16)
    assert (first["budget"], second["budget"]) == (6, 4)  # 6.25 and 3.75
    columns = {"score": [2.0, 3.0], "num_superpixels": [4, 9]}
    half = StrategyConfig(cluster_size_exponent=0.5)
    assert cluster_weights(columns, half).tolist() == [4.0, 9.0]
    assert cluster_weights(columns, StrategyConfig()).tolist() == [2.0, 3.0]


def test_a_pool_without_unasked_superpixels_is_told(tmp_path):
    job = allocate(tmp_path, {0: statistics(0, [0] * 6, [0] * 6)})
    with pytest.raises(PoolError, match="round 2: every pixel of the pool was asked"):
        job.compute()


def scored(image_id, superpixel_id, cluster_id, mean, dominant, top, *, pixels=None):
    return {
        "image_id": image_id,
        "superpixel_id": superpixel_id,
        "cluster_id": cluster_id,
        "num_pixels": len(top) if pixels is None else pixels,
        "mean_score": mean,
        "dominant_class": dominant,
        "top_y": [y for y, _, _ in top],
        "top_x": [x for _, x, _ in top],
        "top_score": [u for _, _, u in top],
    }


def query_shard(tmp_path, rows, *, unit="pixel", budget=(2, 1), scores=(3.0, 1.0)):
    budgets = write_stage(
        tmp_path,
        "allocate",
        {
            0: [
                {
                    "round": 2,
                    "cluster_id": k,
                    "num_superpixels": 3,
                    "score": scores[k],
                    "share": 0.5,
                    "budget": budget[k],
                    "class_share": [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]][k],
                }
                for k in (0, 1)
            ]
        },
        table="cluster_budgets",
    )
    job = QueryShard(
        output=planned(tmp_path, "select"),
        score=write_stage(tmp_path, "score", {0: rows}, table="superpixel_scores"),
        budgets=budgets,
        round_index=2,
        unit=unit,
        options=StrategyConfig(),
    )
    job.setup()
    return job


ROWS = [
    scored("a", 0, 0, 0.8, 0, [(0, 0, 0.9)]),  # u(s) = 0.8 / e^0.5 = 0.485
    scored("a", 1, 1, 0.9, 2, [(0, 5, 1.0)]),  # 0.9 / e = 0.331
    scored("a", 2, 0, 0.5, 2, [(3, 1, 0.7)]),  # 0.5
    scored("a", 3, 0, 0.1, 1, [(4, 4, 0.2)]),  # 0.061
    scored("b", 0, 1, 0.9, 2, [(7, 2, 0.25)]),
    scored("b", 1, 1, 0.8, 2, [(7, 3, 0.5)]),
    scored("b", 2, 0, 0.1, 0, [(7, 4, 0.75)]),
]


def test_queries_are_the_best_pixels_of_the_best_superpixels_of_each_cluster(tmp_path):
    queries = query_shard(tmp_path, ROWS).run(0)["queries"].to_pylist()
    usual = {"round": 2, "unit": "pixel"}
    columns = ("image_id", "superpixel_id", "cluster_id", "y", "x", "score", "rank")
    # image b has one superpixel of cluster 0 and gives the pixel that is left to cluster 1
    assert queries == [
        usual | dict(zip(columns, row, strict=True))
        for row in (
            ("a", 2, 0, 3, 1, pytest.approx(0.7), 0),
            ("a", 0, 0, 0, 0, pytest.approx(0.9), 1),
            ("a", 1, 1, 0, 5, 1.0, 2),
            ("b", 0, 1, 7, 2, 0.25, 0),
            ("b", 1, 1, 7, 3, 0.5, 1),
            ("b", 2, 0, 7, 4, 0.75, 2),
        )
    ]
    job = query_shard(tmp_path, ROWS)
    assert job.count(job.run(0)) == {"images": 2, "asked": 6}


def test_an_image_must_get_its_budget_or_all_it_has(tmp_path):
    rows = [*ROWS[:4], scored("b", 0, 0, 0.5, 0, [(0, 0, 1.0)], pixels=2)]
    with pytest.raises(LabelError, match=r"b: 1 queries were chosen, expected 2 \(budget 3"):
        query_shard(tmp_path, rows).run(0)
    queries = query_shard(tmp_path / "regions", rows, unit="superpixel").run(0)["queries"]
    assert queries["image_id"].to_pylist() == ["a", "a", "a", "b"]
    check_exact("a", 2, 2, 3)
    check_exact("a", 2, 3, 2)
    with pytest.raises(LabelError, match="expected 2"):
        check_exact("a", 3, 2, 3)


def test_candidates_become_queries_as_they_are(tmp_path):
    row = {"image_id": "a", "y": 1, "x": 2, "superpixel_id": 3, "cluster_id": 4, "rank": 5}
    score = write_stage(
        tmp_path,
        "score",
        {7: [row | {"score": 0.5, "predicted_class": 1}]},
        table="pixel_candidates",
    )
    job = QueryCandidates(output=planned(tmp_path, "select"), score=score, round_index=2)
    assert job.run(7)["queries"].to_pylist() == [row | {"round": 2, "unit": "pixel", "score": 0.5}]


TWO = np.array([[0, 0, 1], [0, 1, 1]], np.uint16)
MASK = np.array([[0, 255, 0], [1, 1, 255]], np.uint8)


def random_job(tmp_path, *, count=2, round_index=3, labels=(), skip_void=False, names="ab"):
    pool = write_pool(
        tmp_path,
        {0: [pool_image(name) for name in names]},
        label_maps=dict.fromkeys(names, TWO),
        clusters={name: [4, 7] for name in names},
        reader=FromArrays(masks=dict.fromkeys(names, MASK)),
    )
    return DrawRandomPixels(
        output=planned(tmp_path, "select"),
        pool=pool,
        labels=labels,
        round_index=round_index,
        count_per_image=count,
        skip_void=skip_void,
        seed=5,
    )


@pytest.mark.parametrize("round_index", [0, 3])
def test_random_pixels_are_keyed_by_seed_round_and_image(tmp_path, round_index):
    queries = random_job(tmp_path, round_index=round_index).run(0)["queries"].to_pylist()
    expected = []
    for name in "ab":
        stream = rng.stream(5, "initial_pool", round_index, name)
        for rank, pixel in enumerate(stream.choice(np.arange(6), size=2, replace=False).tolist()):
            y, x = divmod(pixel, 3)
            superpixel = int(TWO[y, x])
            expected.append(
                {
                    "round": round_index,
                    "image_id": name,
                    "y": y,
                    "x": x,
                    "unit": "pixel",
                    "superpixel_id": superpixel,
                    "cluster_id": [4, 7][superpixel],
                    "score": None,
                    "rank": rank,
                }
            )
    assert queries == expected


def pixels(table):
    return {(row["image_id"], row["y"], row["x"]) for row in table.to_pylist()}


def test_what_was_asked_is_not_drawn_again_and_void_only_where_it_may_be(tmp_path):
    labels = write_labels(tmp_path, {0: [{"image_id": "a", "y": 0, "x": 0}]})
    everything = {(name, y, x) for name in "ab" for y in range(2) for x in range(3)}
    job = random_job(tmp_path, count=9, labels=(labels,))
    assert pixels(job.run(0)["queries"]) == everything - {("a", 0, 0)}
    job = random_job(tmp_path, count=9, labels=(labels,), skip_void=True)
    assert pixels(job.run(0)["queries"]) == everything - {("a", 0, 0)} - {
        (name, y, x) for name in "ab" for y, x in ((0, 1), (1, 2))
    }


def test_full_supervision_asks_every_image_as_a_whole(tmp_path):
    pool = random_job(tmp_path).pool
    queries = AskWholeImages(output=planned(tmp_path, "select"), pool=pool).run(0)["queries"]
    assert queries.to_pylist() == [
        {
            "round": 0,
            "image_id": name,
            "y": 0,
            "x": 0,
            "unit": "image",
            "superpixel_id": None,
            "cluster_id": None,
            "score": None,
            "rank": 0,
        }
        for name in "ab"
    ]
