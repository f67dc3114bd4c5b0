"""Steps of the optimizers against a literal loop, and learning rates over a phase."""

import math

import pytest
import torch

from madbal_ray.config.training import ModelConfig, PhaseConfig
from madbal_ray.models.network import build_network
from madbal_ray.training.optimizer import build_optimizer, rate_factor, scale_rates


@pytest.fixture(scope="module")
def network():
    network = build_network(ModelConfig(), 3, weights=None, seed=0)
    network.set_phase("phase1")
    return network


def step_all(network, optimizer, gradient):
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, gradient) if parameter.requires_grad else None
    optimizer.step()


def watched(network):
    """One number of the backbone and one of the main head."""
    return [
        next(module.parameters())[0, 0, 0, 0] for module in (network.backbone, network.main_head)
    ]


def test_sgd_has_momentum_and_weight_decay(network):
    config = PhaseConfig(
        learning_rate=0.5, momentum=0.75, weight_decay=0.25, backbone_rate_factor=0.1
    )
    optimizer = build_optimizer(network, config)
    expected = [(float(value.detach()), 0.0) for value in watched(network)]
    for gradient in (1.0, -2.0, 3.0):
        step_all(network, optimizer, gradient)
        moved = []
        for (value, speed), rate in zip(expected, (0.05, 0.5), strict=True):
            speed = 0.75 * speed + gradient + 0.25 * value
            moved.append((value - rate * speed, speed))
        expected = moved
        found = [float(value.detach()) for value in watched(network)]
        assert found == pytest.approx([value for value, _ in expected], rel=1e-5)


@pytest.mark.parametrize(("weight_decay", "step"), [(0.25, 0.125), (0.0, 0.0)])
def test_adam_has_weight_decay(network, weight_decay, step):
    """Without a gradient the first step of Adam is the rate against the weight's sign."""
    config = PhaseConfig(
        optimizer="adam", learning_rate=0.125, weight_decay=weight_decay, backbone_rate_factor=0.5
    )
    before = [float(value.detach()) for value in watched(network)]
    step_all(network, build_optimizer(network, config), 0.0)
    after = [float(value.detach()) for value in watched(network)]
    for old, new, rate in zip(before, after, (step / 2, step), strict=True):
        assert new == pytest.approx(old - rate * (1 if old > 0 else -1), abs=1e-5)


@pytest.mark.parametrize(
    ("power", "step", "factor"),
    [
        (1.0, 0, 1.0),
        (1.0, 3, 0.7),
        (1.0, 9, 0.1),
        (0.9, 3, 0.7**0.9),
        (2.0, 5, 0.25),
        (0.0, 9, 1.0),
        (0.9, 10, 0.0),
    ],
)
def test_poly_raises_what_is_left_of_the_phase_to_a_power(power, step, factor):
    config = PhaseConfig(epochs=5, poly_power=power)
    assert rate_factor(config, step, 2) == pytest.approx(factor)


def test_steps_fall_with_the_first_step_after_an_epoch():
    config = PhaseConfig(epochs=9, schedule="steps", step_epochs=(1, 3), poly_power=0.9)
    factors = [rate_factor(config, step, 2) for step in range(8)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])
    assert rate_factor(PhaseConfig(epochs=9, schedule="steps"), 17, 2) == 1.0


def test_a_factor_is_of_the_base_rate_not_of_the_last(network):
    config = PhaseConfig(learning_rate=0.5, backbone_rate_factor=0.1)
    optimizer = build_optimizer(network, config)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.5])
    for factor in (0.5, 0.25):
        scale_rates(optimizer, factor)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.0125, 0.125])


def test_one_cycle_rises_for_three_tenths_and_falls_to_nothing_by_cosines():
    config = PhaseConfig(schedule="one_cycle")
    factors = [rate_factor(config, step, 7, total=100) for step in range(100)]
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[15] == pytest.approx((1 / 25 + 1) / 2)
    assert factors[30] == pytest.approx(1.0)
    assert factors[65] == pytest.approx(0.5, abs=1e-4)
    end = 1 / 250_000 + (1 - 1 / 250_000) * (1 + math.cos(math.pi * 69 / 70)) / 2
    assert factors[99] == pytest.approx(end)


def test_adamw_decays_weights_apart_from_the_gradient():
    network = build_network(ModelConfig(), 3, weights=None, seed=0)
    network.set_phase("phase1")
    weight = network.main_head.head.high_classifier.weight
    before = weight.detach().clone()
    optimizer = build_optimizer(
        network, PhaseConfig(optimizer="adamw", learning_rate=0.1, weight_decay=0.5)
    )
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert torch.allclose(weight, before * (1 - 0.1 * 0.5))
