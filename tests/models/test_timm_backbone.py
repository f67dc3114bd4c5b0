"""Networks of timm as backbones, with random weights: taps, heads, and what is refused."""

import pytest
import torch
from safetensors.torch import save_file

from madbal_ray.config.training import ModelConfig
from madbal_ray.errors import ConfigError
from madbal_ray.models.backbones import Backbone, check_backbone, frozen_backbone
from madbal_ray.models.network import build_network
from madbal_ray.models.weights import load_weights

pytest.importorskip("timm")

FAMILIES = {
    # name -> (channels, strides) of its four taps, at output stride 16 where it can be dilated
    "mobilenetv3_small_100": ((16, 24, 48, 576), (4, 8, 16, 32)),
    "resnet18": ((64, 128, 256, 512), (4, 8, 16, 16)),
    "convnext_atto": ((40, 80, 160, 320), (4, 8, 16, 16)),
    "efficientnet_lite0": ((24, 40, 112, 320), (4, 8, 16, 16)),
    "vit_tiny_patch16_224": ((192,) * 4, (16,) * 4),
    "vit_small_patch14_reg4_dinov2": ((384,) * 4, (14,) * 4),
    "swin_tiny_patch4_window7_224": ((96, 192, 384, 768), (4, 8, 16, 32)),
}


@pytest.mark.parametrize(("name", "expected"), FAMILIES.items())
def test_taps_have_the_channels_and_strides_of_the_model(name, expected):
    channels, strides = expected
    backbone = frozen_backbone(ModelConfig(backbone=f"timm:{name}"), None)
    assert backbone.channels == channels
    with torch.no_grad():
        taps = backbone(torch.randn(1, 3, 112, 224))
    assert [tap.shape[1] for tap in taps] == list(channels)
    assert [tap.shape[2:] for tap in taps] == [
        (-(-112 // stride), -(-224 // stride)) for stride in strides
    ]
    assert all(torch.isfinite(tap).all() for tap in taps)


@pytest.mark.parametrize("head", ["hypercolumn", "lraspp", "deeplabv3plus"])
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_every_head_sits_on_them(name, head):
    config = ModelConfig(backbone=f"timm:{name}", head=head, hidden=8)
    network = build_network(config, 5, weights=None, seed=0)
    network.set_phase("eval")
    with torch.no_grad():
        output = network(torch.randn(1, 3, 64, 96), supports=True)
    assert output.logits.shape[:2] == (1, 5)
    assert output.error_logits.shape[:2] == (1, 2)


def test_plain_transformers_are_tapped_at_even_depths():
    backbone = Backbone("timm:vit_tiny_patch16_224", output_stride=16, weights=None)
    assert backbone.body.indices == (2, 5, 8, 11)


def test_images_are_normalised_as_the_network_was_trained():
    body = Backbone("timm:vit_tiny_patch16_224", output_stride=16, weights=None).body
    seen = []
    body.network.forward_intermediates = lambda images, **options: seen.append(images) or []
    # pixel 0.485 of red is ImageNet's mean, 0 here; this network has mean and deviation 0.5
    body(torch.zeros(1, 3, 32, 32))
    assert seen[0][0, 0, 0, 0].item() == pytest.approx((0.485 - 0.5) / 0.5)
    body(torch.ones(1, 3, 32, 32))
    assert seen[1][0, 2, 0, 0].item() == pytest.approx((0.406 + 0.225 - 0.5) / 0.5)


def test_weights_come_from_a_file_of_the_networks_own_state(tmp_path):
    source = Backbone("timm:resnet18", output_stride=32, weights=None).body.network
    path = tmp_path / "resnet.safetensors"
    save_file({key: value.contiguous() for key, value in source.state_dict().items()}, path)
    weights = load_weights(str(path), "timm:resnet18", option="model.weights")
    loaded = Backbone("timm:resnet18", output_stride=32, weights=weights).body.network
    assert torch.equal(loaded.conv1.weight, source.conv1.weight)
    with pytest.raises(ConfigError, match=r"do not fit timm:resnet34: \d+ of \d+ entries are"):
        Backbone("timm:resnet34", output_stride=32, weights=weights)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet18x", r"timm cannot make it \(Unknown model.*it has: .*resnet18"),
        ("timm:zzz", r"timm cannot make it \(Unknown model \(zzz\)\); see timm.list_models"),
        ("nonsense", "is no backbone; there are: mobilenet_v2"),
    ],
)
def test_a_name_that_does_not_exist_is_one_sentence(name, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check_backbone(ModelConfig.model_construct(**(vars(ModelConfig()) | {"backbone": name})))
    assert "\n" not in str(caught.value)


def test_a_size_that_the_network_refuses_is_one_sentence():
    backbone = frozen_backbone(ModelConfig(backbone="timm:vit_small_patch14_reg4_dinov2"), None)
    with pytest.raises(ConfigError, match=r"refuses images of 100 x 140 \(.*14.*grids.input"):
        backbone(torch.zeros(1, 3, 100, 140))


def test_another_word_for_weights_is_refused():
    with pytest.raises(ConfigError, match=r"neither a file .* nor pretrained \(timm's own\)"):
        load_weights("IMAGENET1K_V2", "timm:resnet18", option="model.weights")
