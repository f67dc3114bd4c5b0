"""What a phase trains, how the supports are wired, and where grids meet, by hand."""

import pytest
import torch
from torch import nn

from madbal_ray.config.training import ModelConfig
from madbal_ray.errors import ConfigError
from madbal_ray.models.backbones import limit_stride
from madbal_ray.models.heads import LossPredictionModule, MaturityHeads, resize
from madbal_ray.models.network import build_network

PARTS = {
    "phase1": {"backbone", "dropout", "main_head"},
    "phase2": {"maturity_heads", "weight_block", "loss_module"},
    "eval": set(),
}


def build(supports="full", **options):
    config = ModelConfig.model_validate({"dropout": 0.5, "head": "deeplabv3"} | options)
    return build_network(config, 3, weights=None, seed=0, supports=supports)


@pytest.fixture(scope="module")
def network():
    return build()


@pytest.mark.parametrize("phase", ["phase1", "phase2", "eval"])
def test_a_phase_trains_its_parts_and_freezes_the_rest_in_eval_mode(network, phase):
    network.set_phase("phase2" if phase == "phase1" else "phase1")
    network.set_phase(phase)
    kinds = set()
    for name, module in network.named_modules():
        if name:
            is_trained = name.split(".")[0] in PARTS[phase]
            assert module.training == is_trained, name
            kinds.add((type(module), is_trained))
    if phase != "eval":
        for kind in (nn.BatchNorm2d, nn.Dropout):
            assert {(kind, True), (kind, False)} <= kinds
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (name.split(".")[0] in PARTS[phase]), name


@pytest.mark.parametrize(
    ("supports", "of_phase2"),
    [
        ("full", {"maturity_heads", "weight_block", "loss_module"}),
        ("averaging", {"maturity_heads", "loss_module"}),
        ("no_maturity", {"loss_module"}),
        ("none", set()),
    ],
)
def test_states_of_the_phases_are_apart_and_together_whole(supports, of_phase2):
    network = build(supports, head="lraspp")
    first, second = network.state_of("phase1"), network.state_of("phase2")
    assert {key.split(".")[0] for key in first} == {"backbone", "main_head"}
    assert {key.split(".")[0] for key in second} == of_phase2
    assert not set(first) & set(second)
    assert set(first) | set(second) == set(network.state_dict())
    given = {"main_head.x": torch.ones(1), "loss_module.y": torch.ones(2)}
    assert network.state_of("phase1", given).keys() == {"main_head.x"}
    expected = {"loss_module.y"} if "loss_module" in of_phase2 else set()
    assert network.state_of("phase2", given).keys() == expected


class Recorder(nn.Module):
    """Stands for the loss prediction module and keeps what it was given."""

    def forward(self, features, weighted_logits):
        self.features, self.weighted = features, weighted_logits
        return torch.zeros(1, 2, 1, 1)


def run(network):
    network.set_phase("eval")
    network.loss_module = Recorder()
    with torch.no_grad():
        output = network(torch.randn(1, 3, 64, 96), supports=True)
    return output, network.loss_module


def test_averaging_weighs_every_head_by_a_third():
    network = build("averaging")
    assert network.weight_block is None
    output, given = run(network)
    shallow = output.head_logits[0].shape[-2:]
    assert torch.equal(output.maturity_weights, torch.full((1, 3, *shallow), 1 / 3))
    mean = (output.head_logits[0] + output.head_logits[1] + output.head_logits[2]) / 3
    torch.testing.assert_close(given.weighted, mean, atol=1e-5, rtol=1e-5)


def test_the_loss_module_sees_head_logits_weighted_by_maturity():
    network = build()
    network.weight_block = nn.Module()
    weights = torch.tensor([0.5, 0.25, 0.25])
    network.weight_block.forward = lambda features: weights.log()[None, :, None, None] + 7
    output, given = run(network)
    assert output.maturity_weights[0, :, 0, 0].tolist() == pytest.approx(weights.tolist())
    heads = output.head_logits
    expected = 0.5 * heads[0] + 0.25 * heads[1] + 0.25 * heads[2]
    torch.testing.assert_close(given.weighted, expected, atol=1e-5, rtol=1e-5)
    pooled = torch.stack([one.mean() for one in given.features[3][0]])
    torch.testing.assert_close(output.pooled[0], pooled, atol=1e-5, rtol=1e-5)


def test_without_maturity_the_loss_module_sees_features_alone():
    output, given = run(build("no_maturity"))
    assert given.weighted is None
    assert output.head_logits == ()
    assert output.maturity_weights is None
    assert build("none").loss_module is None


def test_dropout_acts_on_the_deepest_features_alone():
    network = build(head="lraspp")
    network.set_phase("eval")
    network.dropout = nn.Module()
    network.dropout.forward = torch.zeros_like
    seen = []
    network.main_head.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        network(torch.randn(1, 3, 64, 64), supports=False)
    assert [bool(feature.abs().sum() > 0) for feature in seen[0]] == [True, True, True, False]


def test_dropout_for_monte_carlo_acts_in_the_main_path_alone(network):
    network.set_phase("eval")
    network.switch_dropout_on()
    for name, module in network.named_modules():
        expected = isinstance(module, nn.Dropout) and name.startswith(("dropout", "main_head"))
        if name:
            assert module.training == expected, name
    with pytest.raises(ConfigError, match="no dropout"):
        build(dropout=0, head="lraspp").switch_dropout_on()


def test_maturity_heads_read_taps_1_to_3_in_order():
    heads = MaturityHeads((2, 3, 4, 5), 6)
    for head in heads.heads:
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        head.weight.data[:, 0, 1, 1] = 1.0
    sizes = [(8, 12), (4, 6), (2, 3), (1, 1)]
    features = tuple(
        torch.full((1, channels, *size), float(tap))
        for tap, (channels, size) in enumerate(zip((2, 3, 4, 5), sizes, strict=True), start=1)
    )
    found = heads(features)
    assert [one.shape for one in found] == [(1, 6, 8, 12)] * 3
    for tap, one in enumerate(found, start=1):
        assert (one == tap).all()


def test_the_loss_module_reads_the_logits_the_deepest_and_the_shallowest_tap():
    module = LossPredictionModule((2, 3, 4, 5), 6).eval()
    sizes = [(8, 12), (4, 6), (2, 3), (2, 2)]
    features = tuple(
        torch.randn(1, channels, *size, requires_grad=True)
        for channels, size in zip((2, 3, 4, 5), sizes, strict=True)
    )
    weighted = torch.randn(1, 6, 8, 12, requires_grad=True)
    found = module(features, weighted)
    assert found.shape == (1, 2, 8, 12)
    (found**2).sum().backward()
    assert [feature.grad is not None for feature in features] == [True, False, False, True]
    assert weighted.grad.abs().sum() > 0  # no detach: L_L trains the heads and the weights


def test_maps_are_resized_by_pixel_centres():
    found = resize(torch.tensor([[[[0.0, 1.0]]]]), (1, 4))
    assert found[0, 0, 0].tolist() == pytest.approx([0.0, 0.25, 0.75, 1.0])


def geometry_of(limit, *, kernels=(3, 3, 3, 1, 5, 3), strides=(2, 2, 2, 1, 1, 2)):
    layers = nn.Sequential(
        *(
            nn.Conv2d(1, 1, kernel, stride=stride, padding=kernel // 2)
            for kernel, stride in zip(kernels, strides, strict=True)
        )
    )
    limit_stride(layers, limit)
    return [(one.stride[0], one.dilation[0], one.padding[0]) for one in layers], layers


def test_strides_beyond_the_limit_become_dilation():
    found, layers = geometry_of(4)
    assert found == [
        (2, 1, 1),
        (2, 1, 1),
        (1, 1, 1),  # loses its stride, keeps the dilation before it
        (1, 1, 0),  # 1 x 1: nothing to dilate
        (1, 2, 4),
        (1, 2, 2),  # loses its stride too
    ]
    assert layers(torch.zeros(1, 1, 32, 32)).shape[-1] == 8
    assert [one[0] for one in geometry_of(16)[0]] == [2, 2, 2, 1, 1, 2]
    # two strides lost: what follows is dilated four times
    assert geometry_of(2, kernels=(3, 3, 3, 3), strides=(2, 2, 2, 1))[0][-1] == (1, 4, 4)
