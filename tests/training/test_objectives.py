"""What the phases minimise: each term of Eq. 3 alone, by the formula, on maps of a few values."""

import math

import numpy as np
import pytest
import torch

from madbal_ray.config.file import load_config
from madbal_ray.config.training import LossWeights, Phase2Config, PhaseConfig
from madbal_ray.errors import ConfigError
from madbal_ray.models.network import NetworkOutput
from madbal_ray.training.batches import ImageBatch
from madbal_ray.training.objectives import (
    CrossEntropy,
    LossPrediction,
    Objective,
    View,
    WeightedCrossEntropy,
)
from tests.conftest import tiny_config
from tests.hand_made import Worker

BOUNDARY_LOGIT, CENTER_LOGIT = 0.7, -1.2
HEADS = ((0.0, 1.0, 3.0), (2.0, 0.0, -1.0), (1.0, 4.0, 0.0))
NOTHING = {"center": 0.0, "boundary": 0.0, "shallow": 0.0, "semi": 0.0, "almost": 0.0}


def constant(*values):
    """Return a map [1, C, 1, 1]."""
    return torch.tensor(values)[None, :, None, None]


def batch(points, crop=(2, 2)):
    """Make a batch of one image from (y, x, class, is_target, is_boundary)."""
    columns = list(zip(*points, strict=True)) or [()] * 5
    return ImageBatch(
        images=[],
        augmentations=[],
        crop=crop,
        batch=torch.zeros(len(points), dtype=torch.int64),
        y=torch.tensor(columns[0], dtype=torch.float32),
        x=torch.tensor(columns[1], dtype=torch.float32),
        class_id=torch.tensor(columns[2], dtype=torch.int64),
        is_target=torch.tensor(columns[3], dtype=torch.bool),
        is_boundary=torch.tensor(columns[4], dtype=torch.bool),
    )


POINTS = [(0, 0, 0, True, True), (1, 1, 2, False, True), (0, 1, 1, True, False)]


def output(**changes):
    maps = {
        "logits": constant(1.0, 0.0, 2.0),
        "pooled": torch.zeros(1, 1),
        "head_logits": tuple(constant(*values) for values in HEADS),
        "error_logits": constant(BOUNDARY_LOGIT, CENTER_LOGIT),
    }
    return NetworkOutput(**(maps | changes))


def loss_of(weights, points=POINTS, *, factor=2, said=None, crop=(2, 2)):
    config = Phase2Config(loss_weights=LossWeights(**(NOTHING | weights)))
    objective = LossPrediction(config, Worker(factor=factor, world_size=factor))
    view = View(said if said is not None else output(), batch(points, crop))
    return float(objective.loss([view], progress=0.0))


def bce(logit, target):
    return -math.log(1 / (1 + math.exp(-(logit if target else -logit))))


def cross_entropy(logits, class_id):
    return math.log(sum(math.exp(v) for v in logits)) - logits[class_id]


def test_lambda_0_weighs_the_center_channel_over_the_center_points_of_all_workers():
    assert loss_of({"center": 3.0}) == pytest.approx(3 * bce(CENTER_LOGIT, True) / 2)


def test_lambda_1_weighs_the_boundary_channel_over_the_boundary_points_of_all_workers():
    expected = (bce(BOUNDARY_LOGIT, True) + bce(BOUNDARY_LOGIT, False)) / 4
    assert loss_of({"boundary": 3.0}) == pytest.approx(3 * expected)


@pytest.mark.parametrize(("head", "name"), enumerate(["shallow", "semi", "almost"]))
def test_lambda_2_to_4_weigh_the_heads_from_shallow_to_almost_mature(head, name):
    expected = sum(cross_entropy(HEADS[head], class_id) for class_id in (0, 2, 1)) / 6
    assert loss_of({name: 3.0}) == pytest.approx(3 * expected)


def test_the_terms_of_eq_3_add_up():
    weights = {"center": 1.0, "boundary": 2.0, "shallow": 0.3, "semi": 0.4, "almost": 0.5}
    parts = sum(loss_of({name: value}) for name, value in weights.items())
    assert loss_of(weights) == pytest.approx(parts)


def test_the_default_weights_are_the_reference_codes():
    assert LossWeights().model_dump() == {
        "center": 1.0,
        "boundary": 1.0,
        "shallow": 0.05,
        "semi": 0.1,
        "almost": 0.15,
    }


def test_a_batch_without_points_costs_nothing():
    assert loss_of(dict.fromkeys(NOTHING, 1.0), [], factor=1) == 0.0


def test_a_batch_without_center_points_costs_only_its_boundary_points():
    points = [(0, 0, 0, True, True)]
    assert loss_of({"center": 1.0}, points) == 0.0
    assert loss_of({"boundary": 1.0}, points) == pytest.approx(bce(BOUNDARY_LOGIT, True) / 2)


def test_a_network_without_heads_learns_from_its_loss_prediction_alone():
    said = output(head_logits=())
    assert loss_of(dict.fromkeys(NOTHING, 1.0), said=said) == pytest.approx(
        bce(CENTER_LOGIT, True) / 2 + (bce(BOUNDARY_LOGIT, True) + bce(BOUNDARY_LOGIT, False)) / 4
    )


def test_maps_are_read_where_the_points_lie_on_a_crop_that_is_not_square():
    values = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    errors = torch.stack([values, -values])[None]
    head = torch.stack([values, 2 * values, 0 * values])[None]
    said = output(error_logits=errors, head_logits=(head, head, head))
    points = [(1, 2, 1, True, True), (0, 1, 0, False, False)]
    assert loss_of({"boundary": 1.0}, points, said=said, crop=(2, 3)) == pytest.approx(
        bce(0.6, True) / 2
    )
    assert loss_of({"center": 1.0}, points, said=said, crop=(2, 3)) == pytest.approx(
        bce(-0.2, False) / 2
    )
    expected = cross_entropy((0.6, 1.2, 0.0), 1) + cross_entropy((0.2, 0.4, 0.0), 0)
    assert loss_of({"semi": 1.0}, points, said=said, crop=(2, 3)) == pytest.approx(expected / 4)


def test_cross_entropy_is_the_sum_over_own_points_by_the_points_of_all_workers():
    objective = CrossEntropy(PhaseConfig(), Worker(factor=2))
    found = float(objective.loss([View(output(), batch(POINTS))], progress=0.0))
    expected = sum(cross_entropy((1.0, 0.0, 2.0), class_id) for class_id in (0, 2, 1)) / 6
    assert found == pytest.approx(expected)


def test_cross_entropy_of_no_points_is_zero():
    objective = CrossEntropy(PhaseConfig(), Worker())
    assert float(objective.loss([View(output(), batch([]))], progress=0.0)) == 0.0


def test_an_objective_needs_the_supports_when_it_reads_one_of_their_maps():
    class Mixed(CrossEntropy):
        maps = ("logits", "error_logits")

    assert not CrossEntropy.needs_supports()
    assert LossPrediction.needs_supports()
    assert Mixed.needs_supports()
    assert LossPrediction.needs_targets
    assert not Objective.needs_targets


def weighted(class_ids, points=POINTS, *, factor=1, **options):
    objective = WeightedCrossEntropy(PhaseConfig(objective_options=options), Worker(factor=factor))
    objective.begin(np.array(class_ids))
    return float(objective.loss([View(output(), batch(points))], progress=0.0))


def test_rare_classes_weigh_more_and_the_mean_weight_is_one():
    losses = [cross_entropy((1.0, 0.0, 2.0), one) for one in (0, 2, 1)]  # as POINTS has them
    # 9 points of class 0, 4 of class 1, 1 of class 2: 1/3, 1/2, 1 by the square root, 6 in all
    weights = [14 / 6 / 3, 14 / 6, 14 / 6 / 2]
    expected = sum(w * one for w, one in zip(weights, losses, strict=True)) / 3
    classes = [0] * 9 + [1] * 4 + [2]
    assert weighted(classes) == pytest.approx(expected)
    assert weighted(classes, factor=2) == pytest.approx(expected / 2)
    assert weighted(classes, exponent=0) == pytest.approx(sum(losses) / 3)
    # 1/9, 1/4, 1 by the count itself, 3 in all: each class counts a third of 14
    weights = [14 / 3 / 9, 14 / 3, 14 / 3 / 4]
    expected = sum(w * one for w, one in zip(weights, losses, strict=True)) / 3
    assert weighted(classes, exponent=1) == pytest.approx(expected)


def test_a_class_without_points_disturbs_nothing():
    points = [POINTS[1]]  # of class 2; nothing was labelled 0 or 1
    assert weighted([2, 2], points) == pytest.approx(cross_entropy((1.0, 0.0, 2.0), 2))


def test_options_of_an_objective_are_refused_before_anything_runs():
    phase = {"objective": "weighted_cross_entropy", "objective_options": {"exponent": -1}}
    with pytest.raises(ConfigError, match=r"train.phase1.objective_options of weighted_cross_ent"):
        load_config(tiny_config(train__phase1=phase))
    phase["objective_options"] = {"gamma": 1}
    with pytest.raises(ConfigError, match=r"(?s)phase2.objective_options .*gamma"):
        load_config(tiny_config(train__phase2=phase))
