"""The simulated annotator: which mask is read, and which stream decides its mistakes."""

import numpy as np
import pytest

from madbal_ray import rng
from madbal_ray.config.asking import NoiseConfig
from madbal_ray.config.file import load_config
from madbal_ray.errors import ConfigError
from madbal_ray.labels.oracle import Questions
from madbal_ray.labels.simulated_oracle import SimulatedOracle, annotator_noise
from tests.conftest import tiny_config
from tests.hand_made import FromArrays, pool_image

COUNT = 12
MASK = np.repeat([0, 1, 2], 8)[None, :].repeat(6, axis=0).astype(np.uint8)
"""6 x 24, classes in three broad columns; the pixels two from a change are on a boundary."""


def questions(round_index, *, name="a", unit="pixel", regions=()):
    image = pool_image(name, original=MASK.shape, work=MASK.shape)
    x = np.arange(COUNT) * 2
    y = np.full(COUNT, 3)
    if regions:
        x, y = x[: len(regions)], y[: len(regions)]
    return Questions(
        image=image,
        round_index=round_index,
        unit=unit,
        y=y,
        x=x,
        image_y=y,
        image_x=x,
        regions=list(regions),
        reader=FromArrays(masks={name: MASK}),
    )


def oracle(seed=5, **noise):
    return SimulatedOracle(load_config(tiny_config(seed=seed, oracle__noise=noise)), 3)


def expected(true, on_boundary, round_index, name="a", *, share, boundary_share, seed=5):
    """Answer by the rule: wrong where a value is below the share; others alike likely."""
    chance, choice = rng.stream(seed, "annotator", round_index, name).random((2, len(true)))
    said = []
    for index, class_id in enumerate(true):
        limit = boundary_share if on_boundary[index] else share
        others = [c for c in range(3) if c != class_id]
        said.append(others[int(choice[index] * 2)] if chance[index] < limit else class_id)
    return said


TRUE = [x // 8 for x in range(0, 24, 2)]
BOUNDARY = [min(abs(x - 7.5), abs(x - 15.5)) < 2 for x in range(0, 24, 2)]


@pytest.mark.parametrize("round_index", [0, 1, 2])
@pytest.mark.parametrize("name", ["a", "b"])
def test_mistakes_are_keyed_by_seed_round_and_image(round_index, name):
    for seed in (5, 6):
        found = oracle(seed, share=0.5).answer(questions(round_index, name=name))
        wanted = expected(
            TRUE, BOUNDARY, round_index, name, share=0.5, boundary_share=0.5, seed=seed
        )
        assert found.class_id.tolist() == wanted
        assert found.status == ["labelled"] * COUNT
        assert wanted != TRUE


def test_pixels_on_a_boundary_have_a_share_of_their_own():
    found = oracle(share=0.0, boundary_share=1.0).answer(questions(1)).class_id.tolist()
    assert [a != b for a, b in zip(found, TRUE, strict=True)] == BOUNDARY
    assert sum(BOUNDARY) == 4
    found = oracle(share=1.0, boundary_share=0.0).answer(questions(1)).class_id.tolist()
    assert [a == b for a, b in zip(found, TRUE, strict=True)] == BOUNDARY


def test_superpixels_lie_on_no_boundary():
    regions = [MASK == 0, MASK == 1, MASK == 2]
    asked = questions(1, unit="superpixel", regions=regions)
    assert oracle(share=0.0, boundary_share=1.0).answer(asked).class_id.tolist() == [0, 1, 2]
    found = oracle(share=0.7, boundary_share=0.0).answer(asked).class_id.tolist()
    assert found == expected([0, 1, 2], [False] * 3, 1, share=0.7, boundary_share=0.0)
    assert found != [0, 1, 2]


def test_a_whole_image_is_answered_without_mistakes_where_it_is_unasked():
    unasked = np.ones(MASK.shape, bool)
    unasked[0] = False
    asked = questions(1, unit="image", regions=[unasked])
    found = oracle(share=1.0).answer(asked)
    assert found.status == ["labelled"]
    assert (found.class_map[0] == 255).all()
    assert np.array_equal(found.class_map[1:], MASK[1:])


def test_the_annotator_is_the_one_of_the_configuration():
    noise = annotator_noise(NoiseConfig(share=0.2), 3)
    assert (noise.share, noise.boundary_share) == (0.2, 0.2)
    assert noise.confusion.tolist() == np.ones((3, 3)).tolist()
    given = ((0.0, 1.0), (2.0, 0.0))
    noise = annotator_noise(NoiseConfig(share=0.2, boundary_share=0.0, confusion=given), 2)
    assert (noise.share, noise.boundary_share) == (0.2, 0.0)
    assert noise.confusion.tolist() == [[0.0, 1.0], [2.0, 0.0]]
    with pytest.raises(ConfigError, match="has 2 rows of \\[2\\] entries; the data set has 3"):
        annotator_noise(NoiseConfig(confusion=given), 3)
