"""The first screen: sentences and advice follow from the numbers, and only from them."""

import pandas as pd
import pytest

from madbal_ray.report.advice import advice
from madbal_ray.report.headline import answer, facts
from madbal_ray.report.results import Results
from madbal_ray.report.run_result import RunFacts, RunResult

NAMES = ("sky", "road", "pole")


def run(
    member, seed, miou, *, split="test", iou=(0.9, 0.8, 0.5), void=0, classes=(0, 1, 2), **more
):
    rows = [
        {
            "round": index,
            "split": split,
            "clicks_per_image": 10.0 * (index + 1),
            "num_clicks": 100 * (index + 1),
            "num_void": void,
            "miou": value,
            "class_iou": list(iou),
        }
        for index, value in enumerate(miou)
    ]
    return RunResult(
        member,
        seed,
        f"runs/{member}-{seed}",
        False,
        pd.DataFrame(rows),
        class_names=NAMES,
        asked_classes=pd.DataFrame({"round": 0, "class_id": [-1, *classes], "count": 5}),
        **more,
    )


def findings(*runs, **options):
    return [one.finding for one in advice(Results(runs, **options), "test")]


def budgets(*amounts):
    rows = {"round": 1, "cluster_id": range(len(amounts)), "num_superpixels": 9, "budget": amounts}
    return pd.DataFrame(rows)


def test_one_run_says_what_it_reached_and_that_chance_is_not_known():
    assert answer(Results([run("own", 0, [0.3, 0.41234])]), "test") == [
        "After 2 rounds and 20 clicks per image, mIoU on test is 0.4123, +11.2 points on the "
        "random start.",
        "It is one seed: how much of it is chance is not known.",
    ]


def test_points_give_one_run_an_interval():
    points = pd.DataFrame(
        [
            {"round": 1, "split": "test", "measure": "miou", "low": 0.31, "high": 0.5},
            {"round": 0, "split": "test", "measure": "miou", "low": 0.1, "high": 0.2},
            {"round": 1, "split": "test", "measure": "class_iou", "low": 0.0, "high": 1.0},
        ]
    ).assign(num_points=240)
    results = Results([run("own", 0, [0.3, 0.4], point_metrics=points)])
    assert answer(results, "test")[1] == (
        "It was measured on 240 points: with 95 % confidence it lies between 0.3100 and 0.5000."
    )


def test_a_suite_names_split_seeds_both_members_and_what_the_seeds_can_show():
    good = [run("good", seed, [0.3, end]) for seed, end in enumerate((0.5, 0.52, 0.53))]
    plain = [run("plain", seed, [0.3, 0.4 + seed / 100]) for seed in range(3)]
    first, second = answer(Results([*plain, *good], baseline="plain"), "test")
    assert first == (
        "On test (3 seeds, 95 % interval of the mean), the best of 2 members over the curve: good "
        "ends at mIoU 0.5167 [0.4787, 0.5546] after 20 clicks per image; plain, the baseline, ends "
        "at mIoU 0.4100 [0.3852, 0.4348] after 20 clicks per image."
    )
    assert second == (
        "good − plain is +5.33 mIoU points over the curve [+4.62, +6.05], ahead in 3 of 3 seeds, "
        "hardly chance; 3 seeds find 0.94 in 80 % of trials."
    )


def test_enough_seeds_give_the_headline_a_p_value():
    good = [run("good", seed, [0.3, 0.5 + seed / 100]) for seed in range(6)]
    plain = [run("plain", seed, [0.3, 0.4 + seed / 200]) for seed in range(6)]
    last = answer(Results([*plain, *good], baseline="plain"), "test")[1]
    # Areas differ by 5 to 6.25 points in steps of 0.25: t = 5.625 / (0.4677 / sqrt(6)) = 29.46.
    p = float(last.partition("hardly chance: p = ")[2].partition(" (paired t-test, Holm);")[0])
    assert p == pytest.approx(8.45e-07, rel=0.01)


def test_splits_that_disagree_are_named():
    def both(member, seed, test, val):
        one, other = run(member, seed, [0.3, test]), run(member, seed, [0.3, val], split="val")
        metrics = pd.concat([one.metrics, other.metrics])
        return RunResult(member, seed, "", False, metrics, class_names=NAMES)

    runs = [both("a", 0, 0.5, 0.3), both("b", 0, 0.4, 0.4)]
    assert answer(Results(runs, baseline="b"), "test")[1] == (
        "a − b is +5.00 mIoU points over the curve, from one seed: how much of it is chance is not "
        "known; but -5.00 on val."
    )


def test_the_facts_of_a_suite_are_those_of_all_its_runs():
    when = {"started": 1_795_675_422.0, "ended": 1_795_675_722.0}
    later = {"started": 1_795_675_500.0, "ended": 1_795_764_222.0}
    runs = [
        run("a", 0, [0.3, 0.4], facts=RunFacts("madbal", "camvid: train 3; at /data", **when)),
        run("b", 1, [0.3, 0.4], facts=RunFacts("random", "camvid: train 3; at /data", **later)),
    ]
    assert facts(Results(runs), "madbal suite s.yaml") == [
        ("Run", "a, b; 2 rounds, seeds 0, 1"),
        ("Data", "camvid: train 3; at /data"),
        ("When", "26 November 2026, 06:43 to 27 November 2026, 07:23 UTC"),
        ("Command", "madbal suite s.yaml"),
    ]
    assert facts(Results(runs), None)[-1] == ("Repeats it", "madbal run runs/a-0/config.json")


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"void": 16}, "8 % of clicks were void (16 of 200)."),
        ({"classes": (0, 1)}, "Classes without labels: pole."),
        ({"iou": (0.9, 0.8, 0.04)}, "Hardly recognised on test: pole."),
        (
            {"cluster_budgets": budgets(2, 2, 1)},
            "5 pixels per image are shared out over 3 clusters.",
        ),
    ],
    ids=["void", "unlabelled", "weak", "narrow"],
)
def test_what_stands_out_is_said_first(changes, finding):
    rising = "The curve still rises (last round, mIoU points: own +10.00)."
    seed = "One seed tells nothing of chance."
    assert findings(run("own", 0, [0.3, 0.4], **changes)) == [finding, rising, seed]


@pytest.mark.parametrize(
    "changes",
    [
        {"void": 9},
        {"iou": (0.9, 0.8, float("nan"))},
        {"cluster_budgets": budgets(2, 2, 2)},
        {"cluster_budgets": budgets(2, 1, 1), "facts": RunFacts(scope="pool")},
    ],
    ids=["few void", "absent", "wide enough", "whole pool"],
)
def test_what_is_in_order_is_not_mentioned(changes):
    assert len(findings(run("own", 0, [0.3, 0.4], **changes))) == 2


def test_a_flat_curve_says_stop():
    assert findings(run("own", 0, [0.3, 0.3049])) == [
        "The curve is flat (last round, mIoU points: own +0.49).",
        "One seed tells nothing of chance.",
    ]


def test_a_falling_curve_is_not_called_flat():
    assert findings(run("own", 0, [0.3, 0.2949])) == [
        "The curve falls (last round, mIoU points: own -0.51).",
        "One seed tells nothing of chance.",
    ]
    assert findings(run("own", 0, [0.3, 0.2951]))[0].startswith("The curve is flat")


def test_near_a_full_supervision_that_was_trained_too_short_nobody_is_told_to_stop():
    facts = RunFacts(passes=0.4)
    full = run("full", 0, [0.42], facts=facts)
    full = RunResult("full", 0, "", True, full.metrics, class_names=NAMES, facts=facts)
    first = advice(Results([run("own", 0, [0.3, 0.4]), full]), "test")[0]
    assert first.finding == "Close to full supervision: own 95 %."
    assert first.action.endswith("saw its labels too seldom: train it longer.")
    trained = RunResult("full", 0, "", True, full.metrics, class_names=NAMES)
    first = advice(Results([run("own", 0, [0.3, 0.4]), trained]), "test")[0]
    assert first.action.startswith("Little is left to gain from labels: stop")


def test_near_full_supervision_there_is_little_left():
    full = RunResult("full", 0, "", True, run("full", 0, [0.42]).metrics, class_names=NAMES)
    assert findings(run("own", 0, [0.3, 0.4]), full)[0] == "Close to full supervision: own 95 %."
    both = findings(run("a", 0, [0.3, 0.4]), run("b", 0, [0.3, 0.42]), full)
    assert both[0] == "Close to full supervision: a 95 %, b 100 %."
    assert "supervision" not in "".join(both[1:])


def test_a_finding_of_some_members_names_them():
    runs = [run("a", 0, [0.3, 0.4], classes=(0, 1)), run("b", 0, [0.3, 0.4])]
    assert findings(*runs)[0] == "Classes without labels in a: pole."
    assert findings(*runs)[-1] == "1 seed a member is too few for a test (6 are needed)."
