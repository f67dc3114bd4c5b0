"""What may be concluded and what to mind: sentences that follow from the runs."""

from dataclasses import replace

import pandas as pd
import pytest

from madbal_ray.report.conclusions import doubts, short_trainings, unfinished, verdict
from madbal_ray.report.headline import answer
from madbal_ray.report.results import Results
from madbal_ray.report.run_result import RunFacts, RunResult
from tests.report.test_results import run


def test_a_run_that_ended_before_others_of_its_member_is_left_out_and_named():
    ends = {("a", 0): 3, ("a", 1): 3, ("b", 0): 3, ("b", 1): 2}
    runs = [
        run(member, seed, [5, 10, 15][:count], [0.2, 0.3, 0.4][:count])
        for (member, seed), count in ends.items()
    ]
    images = run("images", 0, [5, 900], [0.2, 0.5])
    results = Results([*runs, images], baseline="a")
    said = (
        "test: 1 of 5 runs have fewer rounds than the others of their member (b, seed 1: 2) and "
        "are left out until they finish."
    )
    assert unfinished(results, "test") == [said]
    assert doubts(results, "test")[0] == said
    (one,) = results.comparisons("test")
    assert (one.first, one.difference.count) == ("b", 1)
    assert results.shared_clicks(["a", "b"], "test") == [5, 10, 15]
    assert unfinished(Results([*runs[:3], images]), "test") == []
    assert unfinished(Results([]), "test") == []


def test_members_that_end_before_others_cut_the_range_of_all():
    runs = [run("a", s, [5, 10, 15], [0.2, 0.3, 0.9 + s / 100]) for s in range(3)]
    runs += [run("c", s, [5, 10], [0.2, 0.31]) for s in range(6)]
    runs += [run("b", s, [5, 10, 15], [0.2, 0.4, 0.5 + s / 100]) for s in range(3)]
    results = Results(runs, baseline="a")
    assert unfinished(results, "test") == [
        "test: 1 of 3 members have fewer than 3 rounds (c: 2), so all are compared over the first "
        "2 alone: finish them, or leave them out."
    ]
    assert [(one.first, round(one.difference.mean, 4)) for one in results.comparisons("test")] == [
        ("c", 0.005),
        ("b", 0.05),  # of two rounds, as ranks and areas; of three it would be -0.075
    ]


def test_a_member_of_one_round_is_compared_with_nobody_and_said_to_be():
    runs = [run("a", s, [5, 10], [0.2, 0.3]) for s in range(6)] + [run("b", 0, [5], [0.2])]
    (line,) = unfinished(Results(runs, baseline="a"), "test")
    assert line == ("test: b: fewer than two rounds that were measured, so no curve to compare.")


@pytest.mark.parametrize(
    ("baseline", "seeds", "clicks", "reason"),
    [
        (None, (0, 1), (15, 15), "No member is the baseline"),
        ("a", (0, 1), (15, 15), "No member has a seed that a, the baseline, has as well"),
        ("a", (0, 0), (15, 900), "They share no range of clicks"),
    ],
)
def test_why_there_is_no_comparison(baseline, seeds, clicks, reason):
    runs = [
        run(name, seed, [5, last], [0.2, 0.3])
        for name, seed, last in zip("ab", seeds, clicks, strict=True)
    ]
    assert answer(Results(runs, baseline=baseline), "test")[-1] == (
        f"{reason}, so their curves are not compared."
    )


def test_heads_that_saw_their_labels_too_seldom_are_named():
    passes = {("a", 0): 9.96, ("a", 1): 10.0, ("b", 0): 10.0, ("c", 0): None}
    runs = [
        run(member, seed, [5, 10], [0.2, 0.3], facts=RunFacts(passes=seen))
        for (member, seed), seen in passes.items()
    ]
    full = replace(run("full", 0, [900], [0.5], facts=RunFacts(passes=0.372)), is_reference=True)
    results = Results([*runs, full], baseline="a")
    (said,) = short_trainings(results)
    assert said == (
        "train.phase1.steps saw the labels of the last round less than 10 times (a: 9.96; full: "
        "0.372), often too seldom for what they are worth: mIoU there, or the full supervision "
        "that shares refer to, may be too low. Take more steps, or train.phase1.epochs in "
        "their place."
    )
    assert said in doubts(results, "test")
    assert doubts(Results([runs[0]]), "test") == [said.replace("; full: 0.372", "")]  # alone, too
    assert short_trainings(Results(runs[2:], baseline="b")) == []


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ([0.02] * 3, "[+1.00, +1.00], ahead in 3 of 3 seeds, hardly chance; 3 seeds find 0.00 in"),
        ([0.0] * 3, "[+0.00, +0.00], ahead in 0 of 3 seeds, may be chance; 3 seeds find 0.00 in"),
        # areas differ by 0.25, 0.5 and 1.5: mean 0.75, deviation 0.6614, half of it 1.643
        ([0.005, 0.01, 0.03], "[-0.89, +2.39], ahead in 3 of 3 seeds, may be chance; 3 seeds"),
        ([0.02], "+1.00 mIoU points over the curve, from one seed: how much of it is chance is"),
        # areas differ by 1 point, deviation 0.7746: t = 1 / (0.7746 / sqrt(6)) = 3.162
        (
            [0.0, 0.01, 0.01, 0.03, 0.03, 0.04],
            "ahead in 5 of 6 seeds, hardly chance: p = 0.025 (paired t-test, Holm); 6 seeds find",
        ),
        # by 0.25, deviation 0.9874: t = 0.25 / (0.9874 / sqrt(6)) = 0.620
        (
            [0.0, 0.01, 0.01, 0.03, -0.03, 0.01],
            "ahead in 4 of 6 seeds, may be chance: p = 0.56 (paired t-test, Holm); 6 seeds find",
        ),
    ],
)
def test_a_difference_is_judged_by_its_test_not_by_what_seeds_could_find(gains, said):
    runs = [run("a", s, [5, 10], [0.25, 0.25]) for s in range(len(gains))]
    runs += [run("b", s, [5, 10], [0.25, 0.25 + gain]) for s, gain in enumerate(gains)]
    (line,) = verdict(Results(runs, baseline="a"), "test")
    assert said in line


def test_a_seed_that_went_on_counts_as_far_as_the_others():
    runs = [
        run("a", 0, [10, 20], [0.2, 0.4]),
        run("a", 1, [10, 20, 30], [0.2, 0.4, 0.52]),
        run("a", 2, [10, 20], [0.2, 0.43]),
    ]
    results = Results(runs)
    row = results.summary_table("test").iloc[0]
    assert (row["seeds"], row["clicks_per_image"]) == (3, 20)
    assert row["miou"] == pytest.approx((0.4 + 0.4 + 0.43) / 3)
    assert row["miou_low"] < row["miou_high"]
    assert unfinished(results, "test") == [
        "test: 1 of 3 runs have more rounds than the others of their member (a, seed 1: 3) and "
        "count as far as the others."
    ]


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
    (headline,) = verdict(results, results.splits[-1])
    few, disagreement = doubts(results, results.splits[-1])
    assert few.startswith("3 seeds are too few for a test (6 are needed)")
    assert headline.startswith("test, 3 seeds: madbal − random is +5.00 mIoU points")
    assert disagreement == (
        "The splits disagree on madbal − random: +5.00 mIoU points on test, -5.00 on val."
    )
