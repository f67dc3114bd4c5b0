"""Pointwise heads: the layer by literal loops, on maps and at points."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from madbal_ray.config.training import ModelConfig
from madbal_ray.models.hypercolumn import (
    Hypercolumn,
    Pointwise,
    PointwiseLossPrediction,
    PointwiseMaturityHeads,
    QuickDropout,
)
from madbal_ray.models.network import TapNorm, build_network
from madbal_ray.vision.points import sample_points

CHANNELS = (2, 3, 4, 5)
SIZES = ((8, 12), (4, 6), (2, 3), (2, 3))


def settled(module):
    """Give every batch norm statistics and weights of its own, and switch to eval mode."""
    generator = torch.Generator().manual_seed(3)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            part.running_mean.copy_(torch.randn(part.num_features, generator=generator))
            part.running_var.copy_(torch.rand(part.num_features, generator=generator) + 0.5)
    return module.eval()


def taps():
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(2, width, *size, generator=generator)
        for width, size in zip(CHANNELS, SIZES, strict=True)
    )


def literal(layer, column):
    """The perceptron at one place, from the taps' values there."""
    hidden = np.zeros(len(layer.norm.running_mean))
    for projection, values in zip(layer.projections, column, strict=True):
        for unit, weights in enumerate(projection.weight.detach().numpy()):
            hidden[unit] += sum(float(w) * float(v) for w, v in zip(weights, values, strict=True))
    norm = layer.norm
    scale = norm.weight.detach().numpy() / np.sqrt(norm.running_var.numpy() + norm.eps)
    hidden = (hidden - norm.running_mean.numpy()) * scale + norm.bias.detach().numpy()
    hidden = np.maximum(hidden, 0)
    return layer.out.weight.detach().numpy() @ hidden + layer.out.bias.detach().numpy()


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_the_main_head_is_the_perceptron_on_resized_taps(stride):
    torch.manual_seed(0)
    head = settled(Hypercolumn(CHANNELS, 3, ModelConfig(head_stride=stride, hidden=7)))
    features = taps()
    size = SIZES[{4: 0, 8: 1, 16: 2}[stride]]
    with torch.no_grad():
        logits = head(features)
    assert logits.shape == (2, 3, *size)
    resized = [F.interpolate(t, size, mode="bilinear", align_corners=False) for t in features]
    for image, y, x in ((0, 0, 0), (1, size[0] - 1, 1), (0, 1, size[1] - 1)):
        column = [tap[image, :, y, x].tolist() for tap in resized]
        assert logits[image, :, y, x].tolist() == pytest.approx(
            literal(head.layer, column).tolist(), abs=1e-4
        )


def test_at_a_point_the_head_is_a_matrix_product_on_sampled_taps():
    torch.manual_seed(0)
    head = settled(Hypercolumn(CHANNELS, 3, ModelConfig(hidden=7)))
    where = {
        "point_batch": torch.tensor([0, 1, 1]),
        "point_y": torch.tensor([0.0, 13.0, 31.0]),
        "point_x": torch.tensor([5.0, 40.0, 47.0]),
    }
    sampled = [sample_points(tap, **where, height=32, width=48) for tap in taps()]
    with torch.no_grad():
        found = head(tuple(values[:, :, None, None] for values in sampled))
    assert found.shape == (3, 3, 1, 1)
    for point in range(3):
        expected = literal(head.layer, [values[point].tolist() for values in sampled])
        assert found[point, :, 0, 0].tolist() == pytest.approx(expected.tolist(), abs=1e-4)


def test_maturity_head_k_sees_taps_up_to_k():
    torch.manual_seed(0)
    heads = settled(PointwiseMaturityHeads(CHANNELS, 3, ModelConfig()))
    features = taps()
    with torch.no_grad():
        before = heads(features)
        for changed in range(4):
            other = [tap.clone() for tap in features]
            other[changed] += 1.0
            after = heads(tuple(other))
            same = [torch.equal(one, two) for one, two in zip(before, after, strict=True)]
            assert same == [depth < changed for depth in range(3)]
    assert {maps.shape for maps in before} == {(2, 3, 4, 6)}


def test_loss_prediction_sees_all_taps_and_the_weighted_logits():
    torch.manual_seed(0)
    module = settled(PointwiseLossPrediction(CHANNELS, 3, ModelConfig()))
    features, logits = taps(), torch.randn(2, 3, 4, 6)
    with torch.no_grad():
        before = module(features, logits)
        assert before.shape == (2, 2, 4, 6)
        assert not torch.equal(before, module(features, logits + 1))
        for changed in range(4):
            other = [tap + (index == changed) for index, tap in enumerate(features)]
            assert not torch.equal(before, module(tuple(other), logits))


def test_dropout_is_on_the_hidden_layer():
    torch.manual_seed(0)
    layer = Pointwise((2,), 1, hidden=64, dropout=0.5)
    torch.nn.init.ones_(layer.out.weight)
    layer.train()
    tap = torch.randn(500, 2, 1, 1)
    assert not torch.equal(layer([tap], torch.Size((1, 1))), layer([tap], torch.Size((1, 1))))
    layer.eval()
    assert torch.equal(layer([tap], torch.Size((1, 1))), layer([tap], torch.Size((1, 1))))


def test_taps_are_normalised_by_channel_and_a_constant_one_stays():
    norm = TapNorm((2,))
    norm.set_statistics([torch.tensor([1.0, 5.0])], [torch.tensor([2.0, 0.0])])
    (found,) = norm([torch.tensor([3.0, 5.0]).half()[None, :, None, None]])
    assert found.dtype == torch.float32
    assert found[0, :, 0, 0].tolist() == [1.0, 0.0]


FROZEN = ModelConfig(train_backbone=False, head="hypercolumn", hidden=8)


def test_a_frozen_network_takes_images_or_their_taps():
    network = build_network(FROZEN, 3, weights=None, seed=0)
    network.set_phase("eval")
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        kept = network.taps(images)
        assert {tap.dtype for tap in kept} == {torch.float16}
        from_images, from_taps = network(images, supports=True), network(kept, supports=True)
    assert torch.equal(from_images.logits, from_taps.logits)
    assert torch.equal(from_images.error_logits, from_taps.error_logits)
    assert from_images.logits.shape == (2, 3, 8, 12)


@pytest.mark.parametrize("head", ["hypercolumn", "lraspp"])
def test_training_leaves_a_frozen_backbone_alone(head):
    network = build_network(FROZEN.model_copy(update={"head": head}), 3, weights=None, seed=0)
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    for phase in ("phase1", "phase2"):
        network.set_phase(phase)
        assert not any(module.training for module in network.backbone.modules())
        assert not any(p.requires_grad for p in network.backbone.parameters())
        output = network(torch.randn(2, 3, 64, 64), supports=phase == "phase2")
        target = output.logits if phase == "phase1" else output.error_logits
        target.square().mean().backward()
    after = network.backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_seed_draws_the_heads_and_not_the_frozen_backbone():
    one, two = (build_network(FROZEN, 3, weights=None, seed=seed) for seed in (0, 1))
    backbones = one.backbone.state_dict(), two.backbone.state_dict()
    assert all(torch.equal(backbones[0][name], backbones[1][name]) for name in backbones[0])
    weights = [network.main_head.layer.out.weight for network in (one, two)]
    assert not torch.equal(*weights)


def test_phase1_keeps_the_whole_network_but_what_phase2_trains():
    network = build_network(FROZEN, 3, weights=None, seed=0)
    first, second = network.state_of("phase1"), network.state_of("phase2")
    parts = {name.split(".")[0] for name in first}
    assert parts == {"backbone", "tap_norm", "main_head"}
    assert set(first) | set(second) == set(network.state_dict())


def test_random_features_do_not_die_away():
    network = build_network(FROZEN, 3, weights=None, seed=0)
    with torch.no_grad():
        deepest = network.taps(torch.randn(2, 3, 96, 96))[3].float()
    assert float(deepest.std()) > 0.1


def test_quick_dropout_drops_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    dropout = QuickDropout(0.3)
    found = dropout(torch.ones(1001, 301))
    assert float((found == 0).float().mean()) == pytest.approx(0.3, abs=0.003)
    assert float(found.max()) == pytest.approx(1 / 0.7, rel=1e-4)
    assert float(found.mean()) == pytest.approx(1.0, abs=0.005)
    assert sorted(set(found.flatten().tolist())) == [0.0, float(found.max())]
    torch.manual_seed(0)
    assert torch.equal(dropout(torch.ones(1001, 301)), found)
    assert torch.equal(dropout.eval()(found), found)


def test_dropout_of_nearly_all_units_leaves_finite_ones():
    found = QuickDropout(0.999999)(torch.ones(1001, 301))
    assert set(found.flatten().tolist()) <= {0.0, 2.0**16}
