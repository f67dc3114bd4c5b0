"""The protocol in words says what was asked of whom, and which options made the strategy."""

import pytest

from madbal_ray.config.file import load_config
from madbal_ray.report.protocol import describe_protocol
from tests.conftest import tiny_config

SPLITS = {"train": (6, 1), "val": (3, 0)}


def protocol(*, unit="pixel", has_phase2=False, **changes):
    config = load_config(tiny_config(**changes), [])
    lines = describe_protocol(
        config, split_sizes=SPLITS, num_classes=4, unit=unit, has_phase2=has_phase2
    )
    return {line.split()[0]: line.partition(" ")[2].strip() for line in lines}


VOID = "; asked pixels that are void cost a click"


@pytest.mark.parametrize(
    ("changes", "unit", "said"),
    [
        ({}, "pixel", "5 random pixels an image, then 1 x 5 pixels an image by madbal"),
        ({"num_rounds": 1}, "pixel", "5 random pixels an image"),
        (
            {"strategy": {"name": "margin", "top_share": 0.05}, "num_rounds": 3},
            "pixel",
            "5 random pixels an image, then 2 x 5 pixels an image by margin (top_share 0.05)",
        ),
        (
            {"strategy": {"name": "vaal", "options": {"steps": 7}}, "budget__images_per_round": 2},
            "image",
            "5 random pixels an image, then 1 x 2 whole images by vaal (steps 7)",
        ),
        (
            {
                "strategy": {"name": "madbal", "pixel_share": 0.25, "normalize_terms": True},
                "budget__scope": "pool",
            },
            "superpixel",
            "5 random pixels an image, then 1 x 5 superpixels an image on average, over the whole "
            "pool, by madbal (normalize_terms True, pixel_share 0.25)",
        ),
        (
            {"budget__scope": "pool", "budget__total_pixels": 9, "budget__max_per_image": 8},
            "pixel",
            "5 random pixels an image, then 1 x 9 pixels over the whole pool, 8 in one image at "
            "most, by madbal",
        ),
        (
            {"budget__initial_pixels_per_image": "all", "num_rounds": 1},
            "pixel",
            "every pixel of all images",
        ),
        (
            {"budget__initial_pixels_per_image": "all", "budget__initial_images": 2},
            "pixel",
            "every pixel of 2 images, then 1 x 5 pixels an image by madbal",
        ),
        (
            {"budget__initial_images": 2, "budget__initial": "spread", "num_rounds": 1},
            "pixel",
            "5 random pixels an image on 2 images, spread over clusters",
        ),
    ],
)
def test_the_budget_says_what_is_asked_by_which_strategy(changes, unit, said):
    assert protocol(unit=unit, **changes)["budget"] == said + VOID


def test_data_and_phases_are_those_of_the_run():
    lines = protocol()
    assert lines["data"] == (
        "synthetic: train 6 (1 quarantined) (pool), val 3; 4 classes, void id 255"
    )
    steps = {"train__phase1__epochs": 3, "train__phase2__epochs": 1}
    assert protocol(**steps)["network"].endswith(
        "; 3 epochs (phase I), the last epoch is measured and asks"
    )
    assert (
        "; 3 epochs + 1 epoch (phase I + II), the last"
        in protocol(has_phase2=True, **steps)["network"]
    )
