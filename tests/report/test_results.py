"""Runs on one axis: shared ranges, ends of their own, and runs of unusual shape."""

from dataclasses import replace

import pandas as pd
import pytest

from madbal_ray import api
from madbal_ray.errors import RunDirError
from madbal_ray.report import plots
from madbal_ray.report.figures import curve_figure, minutes_figure
from madbal_ray.report.results import Results
from madbal_ray.report.run_result import RunFacts, RunResult
from tests.conftest import tiny_config


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


def test_runs_that_ended_before_others_are_named_and_how_far_all_are_compared():
    ends = {("a", 0): 3, ("a", 1): 3, ("b", 0): 3, ("b", 1): 2}
    runs = [
        run(member, seed, [5, 10, 15][:count], [0.2, 0.3, 0.4][:count])
        for (member, seed), count in ends.items()
    ]
    images = run("images", 0, [5, 900], [0.2, 0.5])
    results = Results([*runs, images], baseline="a")
    said = (
        "test: 1 of 4 runs have fewer than 3 rounds (b, seed 1: 2), so all are compared over the "
        "first 2 alone: finish them, or leave them out."
    )
    assert results.unfinished("test") == [said]
    assert results.doubts("test")[0] == said
    assert Results([*runs[:3], images]).unfinished("test") == []
    many = [run("c", seed, [5, 10], [0.2, 0.3]) for seed in range(6)]
    (line,) = Results([*runs[:3], *many]).unfinished("test")
    assert line.startswith("test: 6 of 9 runs have fewer than 3 rounds (c, seed 0: 2; ")
    assert "c, seed 4: 2; …), so" in line
    assert Results([]).unfinished("test") == []


def test_heads_that_saw_their_labels_too_seldom_are_named():
    passes = {("a", 0): 9.96, ("a", 1): 10.0, ("b", 0): 10.0, ("c", 0): None}
    runs = [
        run(member, seed, [5, 10], [0.2, 0.3], facts=RunFacts(passes=seen))
        for (member, seed), seen in passes.items()
    ]
    full = replace(run("full", 0, [900], [0.5], facts=RunFacts(passes=0.372)), is_reference=True)
    results = Results([*runs, full], baseline="a")
    (said,) = results.short_trainings()
    assert said == (
        "train.phase1.steps saw the labels of the last round less than 10 times (a: 9.96; full: "
        "0.372), often too seldom for what they are worth: mIoU there, or the full supervision "
        "that shares refer to, may be too low. Take more steps, or train.phase1.epochs in "
        "their place."
    )
    assert said in results.doubts("test")
    assert Results(runs[2:], baseline="b").short_trainings() == []


def test_members_without_a_shared_range_are_not_compared():
    pixels = [run("pixels", s, [10, 20, 30], [0.3, 0.4, 0.5]) for s in range(6)]
    images = [run("images", s, [10, 17_000], [0.3, 0.6]) for s in range(6)]
    results = Results([*pixels, *images], baseline="pixels")
    assert results.comparisons("test") == []
    assert results.verdict("test") == results.doubts("test") == []
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


def test_each_seed_ends_where_it_ended():
    runs = [
        run("a", 0, [10, 20], [0.2, 0.4]),
        run("a", 1, [10, 20, 30], [0.2, 0.4, 0.52]),
        run("a", 2, [10, 20], [0.2, 0.43]),
    ]
    row = Results(runs).summary_table("test").iloc[0]
    assert row["seeds"] == 3
    assert row["miou"] == pytest.approx((0.4 + 0.52 + 0.43) / 3)
    assert row["miou_low"] < row["miou_high"]


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


def test_the_headline_names_split_and_seeds_and_says_where_the_other_disagrees():
    runs = []
    for member, of_split in (
        ("madbal", {"test": [0.3, 0.5], "val": [0.3, 0.2]}),
        ("random", {"test": [0.3, 0.4], "val": [0.3, 0.3]}),
    ):
        for seed in range(3):
            rows = [
                {"round": r, "split": s, "clicks_per_image": 10.0 * (r + 1), "miou": miou}
                for s, curve in of_split.items()
                for r, miou in enumerate(curve)
            ]
            name = f"{member}-{seed}"
            runs.append(RunResult(member, seed, name, False, pd.DataFrame(rows)))
    results = Results(runs, baseline="random")
    (headline,) = results.verdict(results.splits[-1])
    few, disagreement = results.doubts(results.splits[-1])
    assert few.startswith("3 seeds are too few for a test (6 are needed)")
    assert headline.startswith("test, 3 seeds: madbal − random: +5.00 mIoU points")
    assert disagreement == (
        "The splits disagree on madbal − random: +5.00 mIoU points on test, -5.00 on val."
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"budget": {"initial_pixels_per_image": "all"}, "num_rounds": 1},
        {"strategy": {"name": "core_set"}, "budget": {"images_per_round": 2}},
        {"strategy": {"name": "class_balanced_superpixel"}},
    ],
    ids=["full supervision", "images", "superpixels"],
)
def test_every_kind_of_run_has_a_report(tmp_path, changes, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/bin/madbal", "run", "a b.yaml"])
    config = tiny_config(**changes)
    config["budget"] = {"pixels_per_image": 5, "initial_pixels_per_image": 5} | config["budget"]
    api.run(config, run_dir=tmp_path / "run", engine="local")
    warnings: list[str] = []
    _, written = api.report([tmp_path / "run"], warn=warnings.append)
    assert written[0].stat().st_size > 1000
    assert "<code>madbal run &#39;a b.yaml&#39;</code>" in written[0].read_text()
    assert warnings == []


def test_nothing_measured_is_said(tmp_path):
    config = tiny_config(num_rounds=1, evaluation={"splits": []})
    api.run(config, run_dir=tmp_path / "run", engine="local")
    with pytest.raises(RunDirError, match="nothing was measured"):
        api.report([tmp_path / "run"])


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
