"""When a run stops: each rule alone, at its limit and just below it."""

import pytest

from madbal_ray.config.running import StopConfig
from madbal_ray.errors import ConfigError
from madbal_ray.loop.stop_rules import check_stop_split, reason_to_stop


def rounds(*miou, split="val", clicks=10.0):
    return [
        {"split": split, "miou": value, "clicks_per_image": clicks * (index + 1)}
        for index, value in enumerate(miou)
    ]


def test_no_rule_no_stop():
    assert reason_to_stop(StopConfig(), rounds(0.9, 0.9, 0.9)) is None
    assert reason_to_stop(StopConfig(patience=1, clicks_per_image=1.0), []) is None


@pytest.mark.parametrize(
    ("miou", "share", "stops"),
    [(0.45, 0.9, True), (0.4499, 0.9, False), (0.25, 0.5, True), (0.24, 0.5, False)],
)
def test_a_share_of_full_supervision_is_reached(miou, share, stops):
    config = StopConfig(full_supervision_miou=0.5, share=share)
    found = reason_to_stop(config, rounds(0.1, miou))
    expected = f"mIoU {miou:.4f} on val has reached {share:.0%} of full supervision (0.5000)"
    assert found == (expected if stops else None)


def test_the_last_round_counts_for_full_supervision():
    config = StopConfig(full_supervision_miou=0.5)
    assert reason_to_stop(config, rounds(0.6, 0.4)) is None


@pytest.mark.parametrize(("limit", "stops"), [(20.0, True), (19.5, True), (20.5, False)])
def test_clicks_are_spent(limit, stops):
    found = reason_to_stop(StopConfig(clicks_per_image=limit), rounds(0.1, 0.2))
    assert found == (f"20 clicks an image are spent, the limit is {limit:g}" if stops else None)


@pytest.mark.parametrize(
    ("miou", "patience", "stops"),
    [
        ((0.5, 0.4), 1, True),
        ((0.5, 0.5), 1, True),
        ((0.5, 0.51), 1, False),
        ((0.5,), 1, False),
        ((0.5, 0.4, 0.5), 2, True),
        ((0.5, 0.4, 0.6), 2, False),
        ((0.5, 0.6, 0.4), 2, False),
        ((0.5, 0.4), 2, False),
        ((0.4, 0.5, 0.3, 0.3), 2, True),
        ((0.5, None, None), 2, True),
        ((None, 0.1), 1, False),
    ],
)
def test_patience_is_lost_without_a_better_round(miou, patience, stops):
    found = reason_to_stop(StopConfig(patience=patience), rounds(*miou))
    assert found == (f"no better mIoU on val for {patience} rounds" if stops else None)


def test_the_rules_look_at_their_own_split():
    history = rounds(0.9, 0.9, split="val") + rounds(0.1, 0.2, split="test")
    config = StopConfig(full_supervision_miou=0.5, split="test")
    assert reason_to_stop(config, history) is None
    config = StopConfig(full_supervision_miou=0.5, split="val")
    assert reason_to_stop(config, history) is not None
    assert reason_to_stop(StopConfig(patience=1, split="other"), history) is None


def test_clicks_are_counted_whatever_is_measured():
    history = rounds(0.9, 0.9, split="test")
    limit = history[-1]["clicks_per_image"]
    assert reason_to_stop(StopConfig(clicks_per_image=limit), history) is not None
    assert reason_to_stop(StopConfig(clicks_per_image=limit + 0.1), history) is None
    assert reason_to_stop(StopConfig(clicks_per_image=limit), []) is None


def test_a_rule_about_a_split_that_is_not_measured_is_refused():
    for rule in ({"patience": 1}, {"full_supervision_miou": 0.5}):
        with pytest.raises(ConfigError, match=r"'val', which is not measured; .*that is: test"):
            check_stop_split(StopConfig(**rule), {"test": [0]})
        check_stop_split(StopConfig(**rule, split="test"), {"test": [0]})
    check_stop_split(StopConfig(clicks_per_image=3), {})
