"""Every pair of backbone and head: shapes, phases, weights."""

import itertools

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models as tv

from madbal_ray.config.training import ModelConfig
from madbal_ray.errors import ConfigError
from madbal_ray.models.network import build_network
from madbal_ray.models.weights import load_weights, publish_weights
from madbal_ray.seams import BACKBONES, HEADS
from madbal_ray.state.storage import Folder

PAIRS = list(itertools.product(BACKBONES, HEADS))
NUM_CLASSES = 5


def build(backbone, head, seed=0, **options):
    config = ModelConfig.model_validate({"backbone": backbone, "head": head, **options})
    return build_network(config, NUM_CLASSES, weights=None, seed=seed)


@pytest.mark.parametrize(("backbone", "head"), PAIRS)
class TestEveryPair:
    def test_output_shapes_and_weights(self, backbone, head):
        network = build(backbone, head)
        network.set_phase("eval")
        with torch.inference_mode():
            output = network(torch.randn(2, 3, 70, 90), supports=True)
        assert output.logits.shape[:2] == (2, NUM_CLASSES)
        shallow = output.head_logits[0].shape[-2:]
        assert [h.shape[:2] for h in output.head_logits] == [(2, NUM_CLASSES)] * 3
        assert all(h.shape[-2:] == shallow for h in output.head_logits)
        assert output.error_logits is not None
        assert output.error_logits.shape == (2, 2, *shallow)
        assert output.maturity_weights is not None
        torch.testing.assert_close(
            output.maturity_weights.sum(dim=1),
            torch.ones_like(output.maturity_weights[:, 0]),
        )

    def test_same_seed_same_network(self, backbone, head):
        one, two, other = (build(backbone, head, seed=seed) for seed in (3, 3, 4))
        for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
            assert torch.equal(a, b), name
        key = next(k for k in one.state_dict() if k.endswith("weight") and "backbone" in k)
        assert not torch.equal(one.state_dict()[key], other.state_dict()[key])

    def test_phase_one_trains_backbone_and_main_head_only(self, backbone, head):
        network = build(backbone, head)
        before = {k: v.clone() for k, v in network.state_dict().items()}
        network.set_phase("phase1")
        self.step(network, supports=False)
        changed = self.changed(network, before)
        assert changed
        assert all(key.startswith(("backbone.", "main_head.")) for key in changed)

    def test_phase_two_leaves_phase_one_alone_batch_norm_included(self, backbone, head):
        network = build(backbone, head)
        before = {k: v.clone() for k, v in network.state_dict().items()}
        network.set_phase("phase2")
        self.step(network, supports=True)
        changed = self.changed(network, before)
        groups = ("maturity_heads.", "weight_block.", "loss_module.")
        assert all(key.startswith(groups) for key in changed)
        for group in groups:
            assert any(key.startswith(group) for key in changed), group

    def test_loss_prediction_reaches_heads_and_weights(self, backbone, head):
        network = build(backbone, head)
        network.set_phase("phase2")
        output = network(torch.randn(2, 3, 64, 64), supports=True)
        assert output.error_logits is not None
        output.error_logits.sum().backward()
        for group in (network.maturity_heads, network.weight_block):
            assert any(p.grad is not None and p.grad.any() for p in group.parameters())

    @staticmethod
    def step(network, *, supports):
        parameters = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        output = network(torch.randn(2, 3, 64, 64), supports=supports)
        maps = [output.logits] if not supports else [*output.head_logits, output.error_logits]
        sum((m**2).mean() for m in maps).backward()
        optimizer.step()

    @staticmethod
    def changed(network, before):
        return [k for k, v in network.state_dict().items() if not torch.equal(v, before[k])]


@pytest.mark.parametrize("backbone", list(BACKBONES))
class TestEveryBackbone:
    @pytest.mark.parametrize("stride", [8, 16, 32])
    def test_output_stride_is_kept(self, backbone, stride):
        network = build(backbone, next(iter(HEADS)), output_stride=stride)
        network.set_phase("eval")
        with torch.inference_mode():
            maps = network.backbone(torch.zeros(1, 3, 128, 128))
        assert maps[-1].shape[-1] == 128 // stride
        sizes = [m.shape[-1] for m in maps]
        assert sizes == sorted(sizes, reverse=True)

    def test_a_torchvision_state_dict_is_loaded_bit_for_bit(self, backbone, tmp_path):
        torch.manual_seed(1)
        source = getattr(tv, backbone)()
        path = tmp_path / "weights.safetensors"
        save_file(source.state_dict(), path)
        weights = load_weights(str(path), backbone, option="model.weights")
        config = ModelConfig.model_validate({"backbone": backbone, "output_stride": 32})
        network = build_network(config, NUM_CLASSES, weights=weights, seed=0)
        loaded = network.backbone.body.state_dict()
        assert loaded
        for key, value in loaded.items():
            assert torch.equal(value, source.state_dict()[key]), key

    def test_weights_of_another_network_are_refused(self, backbone, tmp_path):
        path = tmp_path / "other.pt"
        torch.save(tv.shufflenet_v2_x0_5().state_dict(), path)
        weights = load_weights(str(path), backbone, option="model.weights")
        config = ModelConfig.model_validate({"backbone": backbone})
        with pytest.raises(ConfigError, match=f"do not fit {backbone}"):
            build_network(config, NUM_CLASSES, weights=weights, seed=0)


def test_real_imagenet_weights_load(data_folder):
    path = data_folder / "weights" / "mobilenet_v2-imagenet.safetensors"
    weights = load_weights(str(path), "mobilenet_v2", option="model.weights")
    network = build_network(ModelConfig(), NUM_CLASSES, weights=weights, seed=0)
    assert next(network.backbone.parameters()).abs().sum() > 0


def test_weights_are_published_once_under_their_content(tmp_path):
    source = {"a": torch.arange(6.0).reshape(2, 3)}
    save_file(source, tmp_path / "one.safetensors")
    torch.save(source, tmp_path / "two.pt")
    pool = Folder(tmp_path / "pool")
    one = publish_weights(str(tmp_path / "one.safetensors"), "x", pool, option="model.weights")
    two = publish_weights(str(tmp_path / "two.pt"), "x", pool, option="model.weights")
    assert one.identity != two.identity
    (tmp_path / "one.safetensors").unlink()
    (tmp_path / "two.pt").unlink()
    for published in (one, two):
        assert torch.equal(published.load()["a"], source["a"])
    nothing = publish_weights("none", "x", pool, option="model.weights")
    assert (nothing.identity, nothing.load()) == ("none", None)


def test_bad_weights_are_sentences(tmp_path):
    with pytest.raises(ConfigError, match=r"IMAGENET1K_V2.*or none"):
        load_weights("IMAGENET9", "mobilenet_v2", option="model.weights")
    with pytest.raises(ConfigError, match=r"model\.weights = .*none\.pt: cannot be read"):
        load_weights(str(tmp_path / "none.pt"), "mobilenet_v2", option="model.weights")
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match="not a weights file"):
        load_weights(str(tmp_path / "x.safetensors"), "mobilenet_v2", option="model.weights")
    import pickle

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(print))
    with pytest.raises(ConfigError, match=r"weights_only|not a weights file"):
        load_weights(str(tmp_path / "evil.pt"), "mobilenet_v2", option="model.weights")
