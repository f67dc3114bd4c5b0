"""Batch norm over several workers: where it is shared, what stays, and what is refused."""

import copy

import pytest
import torch
from torch import nn

from madbal_ray.config.training import ModelConfig
from madbal_ray.errors import ConfigError
from madbal_ray.models.batch_norm import check_own_batch_norm, share_batch_norm
from madbal_ray.models.network import build_network

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def network_of(backbone):
    config = ModelConfig(backbone=backbone, output_stride=32)
    network = build_network(config, 3, weights=None, seed=0).train()
    with torch.no_grad():
        network(torch.rand(2, 3, 64, 64), supports=True)  # statistics that are not 0 and 1
    return network


def norms_of(network):
    return [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "timm:efficientnet_lite0"])
def test_shared_norms_change_nothing_but_whose_images_they_see(backbone):
    network = network_of(backbone)
    before, count = copy.deepcopy(network), len(norms_of(network))
    shared = network
    share_batch_norm(shared, workers=2, device=CUDA)
    assert len(norms_of(shared)) == count > 20
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms_of(shared))
    assert all(norm.training for norm in norms_of(shared))
    assert shared.phase1_modules[0] is shared.backbone
    assert list(shared.state_dict()) == list(before.state_dict())
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():  # activations that timm keeps inside its norms act too
        torch.testing.assert_close(
            shared.eval()(images, supports=False).logits,
            before.eval()(images, supports=False).logits,
        )


@pytest.mark.parametrize(("workers", "device"), [(1, CUDA), (2, CPU)])
def test_one_worker_and_cpus_keep_their_norms(workers, device):
    network = nn.Sequential(nn.BatchNorm2d(3))
    share_batch_norm(network, workers=workers, device=device)
    assert type(network[0]) is nn.BatchNorm2d


def test_one_image_a_worker_is_refused_where_norms_learn_from_it():
    def check(network, batch_size):
        check_own_batch_norm(
            network, option="train.phase1.batch_size", batch_size=batch_size, workers=4
        )

    network = nn.Sequential(nn.BatchNorm2d(3)).train()
    with pytest.raises(
        ConfigError,
        match=r"phase1.batch_size = 6 over 4 workers .* train.num_workers=3 or .*batch_size=8;",
    ):
        check(network, 6)
    check(network, 8)
    check(network.eval(), 4)
    check(nn.Sequential(nn.Conv2d(3, 3, 1)), 4)
