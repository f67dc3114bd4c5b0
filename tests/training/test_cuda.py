"""Training steps on a CUDA device: the host gives work and never waits for it."""

import numpy as np
import pytest
import torch

from madbal_ray.config.training import AugmentConfig, ModelConfig, Phase2Config, PhaseConfig
from madbal_ray.engine.workers import SingleWorker
from madbal_ray.models.network import build_network
from madbal_ray.training.augment import draw_augmentation
from madbal_ray.training.batches import ImageBatch
from madbal_ray.training.objectives import CrossEntropy, LossPrediction, View
from madbal_ray.training.optimizer import build_optimizer
from madbal_ray.transfer import to_device
from tests.cuda import never_waiting

SIZE = (64, 96)
AUGMENT = AugmentConfig(
    scale=(0.5, 2.0), color_jitter=0.4, grayscale_probability=0.5, blur_probability=1.0
)


def batch_of(generator):
    images = [generator.integers(0, 255, (*SIZE, 3), dtype=np.uint8) for _ in range(4)]
    points = 40
    return ImageBatch(
        images=images,
        augmentations=[draw_augmentation(AUGMENT, generator, size=SIZE, crop=SIZE) for _ in images],
        crop=SIZE,
        batch=torch.arange(points) % 4,
        y=torch.rand(points) * 60,
        x=torch.rand(points) * 90,
        class_id=torch.arange(points) % 5,
        is_target=torch.arange(points) % 3 == 0,
        is_boundary=torch.arange(points) % 2 == 0,
    )


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("objective", "config", "phase"),
    [(CrossEntropy, PhaseConfig(), "phase1"), (LossPrediction, Phase2Config(), "phase2")],
    ids=["phase1", "phase2"],
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_step_never_waits_for_the_device(objective, config, phase, optimizer):
    device, generator = torch.device("cuda"), np.random.default_rng(0)
    model = ModelConfig.model_validate({"head": "deeplabv3plus"})
    network = build_network(model, 5, weights=None, seed=0, supports="full").to(device)
    network.set_phase(phase)
    config = config.model_copy(update={"optimizer": optimizer})
    trained = build_optimizer(network, config)
    aim = objective(config, SingleWorker(device, lambda _: None))

    def step():
        batch = batch_of(generator)
        output = network(batch.inputs(device), supports=aim.needs_supports())
        loss = aim.loss([View(output, batch)], progress=0.0)
        trained.zero_grad(set_to_none=True)
        loss.backward()
        trained.step()
        return loss.detach()

    step()
    with never_waiting():
        loss = step()
    assert torch.isfinite(loss).item()


@pytest.mark.gpu
def test_values_reach_the_device_whole():
    values = np.arange(10_000_000, dtype=np.int32)
    with never_waiting():
        moved = to_device(values, "cuda")
    np.testing.assert_array_equal(moved.cpu().numpy(), values)
    assert to_device(moved, "cuda") is moved


def test_on_the_cpu_nothing_is_copied():
    values = np.zeros(3, np.float32)
    moved = to_device(values, "cpu")
    values[0] = 1.0
    assert moved.tolist() == [1.0, 0.0, 0.0]
