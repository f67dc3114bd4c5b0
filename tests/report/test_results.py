"""Runs on one axis: shared ranges, ends of their own, and runs of unusual shape."""

import math

import pandas as pd
import pytest

from madbal_ray.report import plots
from madbal_ray.report.conclusions import doubts, unfinished, verdict
from madbal_ray.report.figures import curve_figure, minutes_figure
from madbal_ray.report.headline import answer
from madbal_ray.report.page import as_json
from madbal_ray.report.results import Results
from madbal_ray.report.run_result import RunResult


def run(member, seed, clicks, miou, **options):
    rows = {
        "round": range(len(clicks)),
        "split": "test",
        "clicks_per_image": [float(one) for one in clicks],
        "miou": miou,
    }
    return RunResult(member, seed, f"{member}-{seed}", False, pd.DataFrame(rows), **options)


def test_areas_are_compared_over_shared_clicks_only():
    long = [run("long", s, [10, 20, 30], [0.3, 0.4, 0.6 + s / 100]) for s in range(3)]
    short = [run("short", s, [10, 20], [0.31, 0.41 + s / 100]) for s in range(3)]
    results = Results([*long, *short], baseline="long")
    (one,) = results.comparisons("test")
    assert one.difference.mean == pytest.approx((0.01 + 0.02) / 2)  # not the 0.3 of the third round
    areas = results.areas(["long", "short"], "test")
    assert areas["long"] == {seed: pytest.approx(0.35) for seed in range(3)}


def test_round_0_of_seeds_to_come_does_not_end_comparisons():
    """A suite that was stopped: round 0 of all seeds, by the first member, comes first."""
    runs = [run("random", s, [5, 10, 15], [0.3, 0.4, 0.45 + s / 100]) for s in range(3)]
    runs += [run("random", s, [5], [0.3]) for s in range(3, 10)]
    runs += [run("margin", s, [5, 10, 15], [0.3, 0.44, 0.5 + s / 100]) for s in range(3)]
    runs += [run("margin", 3, [5], [0.3])]
    results = Results(runs, baseline="random")
    (one,) = results.comparisons("test")
    assert (one.difference.count, one.wins) == (3, 3)
    assert one.difference.mean == pytest.approx((0.04 + 0.025) / 2)
    row = results.summary_table("test").set_index("member").loc["random"]
    assert (row["seeds"], row["clicks_per_image"]) == (3, 15)
    assert row["miou"] == pytest.approx(0.46)
    assert unfinished(results, "test") == [
        "test: 8 of 14 runs have fewer rounds than the others of their member (random, seed 3: 1; "
        "random, seed 4: 1; random, seed 5: 1; random, seed 6: 1; random, seed 7: 1; …) and are "
        "left out until they finish."
    ]


def test_the_order_of_members_changes_no_number():
    pixels = {"random": [0.3, 0.4, 0.45], "margin": [0.3, 0.44, 0.5]}
    runs = [run(name, s, [5, 10, 15], miou) for name, miou in pixels.items() for s in range(2)]
    images = [run("images", s, [5, 900, 1800], [0.3, 0.43, 0.46]) for s in range(2)]
    for ordered in ([*runs, *images], [*images, *runs]):
        results = Results(ordered, baseline="random")
        assert results.on_one_range("test") == ["random", "margin"]
        assert results.wins("test").to_dict() == {
            "random": {"random": 0, "margin": 2},
            "margin": {"random": 0, "margin": 0},
        }
        first = answer(results, "test")[0]
        assert "the best of 2 members over the curve: margin ends at mIoU 0.5000" in first


def test_a_round_without_anything_new_counts_once():
    runs = [run("a", s, [5, 10, 10, 15], [0.3, 0.4, 0.41, 0.5]) for s in range(2)]
    runs += [run("b", s, [5, 10, 15], [0.3, 0.4, 0.5]) for s in range(2)]
    results = Results(runs, baseline="b")
    assert results.curve_table("test").query("member == 'a'")["mean"].tolist() == [0.3, 0.41, 0.5]
    assert results.comparisons("test")[0].difference.mean == pytest.approx(0.005)
    assert results.label_efficiency("test")["seeds"].tolist() == [2]


def test_rounds_of_whole_images_are_means_over_seeds_though_images_differ_in_size():
    runs = [
        run("images", seed, [5, 900 + 3 * seed], [0.3, 0.5 - seed / 10], class_names=("sky",))
        for seed in range(3)
    ]
    for one in runs:
        one.metrics["class_iou"] = [[0.1], [0.2 + one.seed / 10]]
    results = Results(runs)
    table = results.curve_table("test")
    assert table["clicks_per_image"].tolist() == [5, 903]
    assert table["mean"].tolist() == pytest.approx([0.3, 0.4])
    assert table["seeds"].tolist() == [3, 3]
    classes = results.class_iou("images", "test")
    assert classes.index.tolist() == [5, 903]
    assert classes["sky"].tolist() == pytest.approx([0.1, 0.3])


def test_rounds_without_a_miou_are_no_points():
    """Nothing with a class was measured on, as early rounds of points that people answer."""
    runs = [run("a", s, [5, 10, 15], [math.nan, 0.3, 0.4]) for s in range(6)]
    runs += [run("b", s, [5, 10, 15], [math.nan, 0.31, 0.42]) for s in range(6)]
    runs += [run("c", s, [5, 10, 15], [math.nan] * 3) for s in range(6)]
    results = Results(runs, baseline="a")
    (one,) = results.comparisons("test")
    assert one.difference.mean == pytest.approx(0.015)
    assert one.p_value == 0
    assert [row for row in unfinished(results, "test") if "c: fewer than two rounds" in row]
    assert results.summary_table("test").set_index("member").loc["c"].isna()["miou"]
    nothing = Results(runs[12:], baseline="c")
    assert answer(nothing, "test") == [
        "Nothing that was measured on test has a class, so there is no mIoU."
    ]
    as_json(plots.curves(nothing, "test"))


def test_members_without_a_shared_range_are_not_compared():
    pixels = [run("pixels", s, [10, 20, 30], [0.3, 0.4, 0.5]) for s in range(6)]
    images = [run("images", s, [10, 17_000], [0.3, 0.6]) for s in range(6)]
    results = Results([*pixels, *images], baseline="pixels")
    assert results.comparisons("test") == []
    assert verdict(results, "test") == doubts(results, "test") == []
    summary = results.summary_table("test").set_index("member")
    assert pd.isna(summary.loc["images", "area"])
    assert summary.loc["images", "miou"] == pytest.approx(0.6)
    assert summary.loc["pixels", "area"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("ends", "is_log"),
    [((60, 1903), True), ((60, 601), True), ((60, 600), False), ((1903, 1903), False)],
)
def test_pixels_beside_whole_images_can_be_told_apart(ends, is_log):
    runs = [run(f"member {index}", 0, [20, end], [0.1, 0.2]) for index, end in enumerate(ends)]
    results = Results(runs, baseline=None)
    axis = plots.curves(results, "test")["layout"]["xaxis"]
    assert (axis.get("type") == "log") == is_log
    assert (curve_figure(results, "test").axes[0].get_xscale() == "log") == is_log


def test_curves_over_minutes_of_people_are_those_of_the_runs_that_know_them():
    timed = [run("a", s, [10, 20], [0.2, 0.4], minutes={0: 3.0 + s, 1: 7.5 + s}) for s in range(2)]
    half = run("a", 2, [10, 20], [0.2, 0.45], minutes={1: 9.0})  # round 0 came with masks
    results = Results([*timed, half, run("b", 0, [10, 20], [0.3, 0.5])])
    lines = [
        (member, curve["minutes"].tolist(), curve["miou"].tolist())
        for member, curve in results.minute_curves("test")
    ]
    assert lines == [
        ("a", [3.0, 7.5], [0.2, 0.4]),
        ("a", [4.0, 8.5], [0.2, 0.4]),
        ("a", [9.0], [0.45]),
    ]
    (axes,) = minutes_figure(results, "test").axes
    assert [line.get_xdata().tolist() for line in axes.lines] == [[3.0, 7.5], [4.0, 8.5], [9.0]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a"]
    assert Results([run("b", 0, [10, 20], [0.3, 0.5])]).minute_curves("test") == []


def test_a_budget_of_one_cluster_is_no_share_of_clusters():
    def of(member, clusters):
        rows = {"round": 1, "cluster_id": clusters}
        return run(
            member,
            0,
            [5, 10],
            [0.2, 0.3],
            asked_clusters=pd.DataFrame({**rows, "count": 3}),
            cluster_budgets=pd.DataFrame({**rows, "budget": 1.0}),
        )

    chance = run("chance", 0, [5, 10], [0.2, 0.3], asked_clusters=of("", [0]).asked_clusters)
    results = Results([of("shared", [0, 1]), of("alone", [0]), chance])
    assert [one.shares_out for one in results.runs] == [True, False, False]
    shares = results.asked_cluster_shares()
    assert shares.index.tolist() == ["shared", "chance"]  # chance has no budgets to share
    assert shares.loc["shared"].tolist() == [0.5, 0.5]
