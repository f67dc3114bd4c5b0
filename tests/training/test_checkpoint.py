"""A checkpoint gives back the epoch, the network, the optimizer and the best epoch."""

import pytest
import torch
from torch import nn

from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from madbal_ray.training.checkpoint import CHECKPOINT_NAME, BestEpoch, Checkpoint
from tests.hand_made import Worker


def parts(tmp_path, start):
    network = nn.Linear(1, 1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(start)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5, momentum=0.5)
    stage = StageDir(Folder(tmp_path), "phase1", "key")
    return network, optimizer, Checkpoint(stage, network, optimizer, BestEpoch()), stage


def one_step(network, optimizer):
    """Take a step along the gradient (1, 1)."""
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def test_restore_gives_back_epoch_network_optimizer_and_best_epoch(tmp_path):
    network, optimizer, checkpoint, stage = parts(tmp_path, 2.0)
    one_step(network, optimizer)
    checkpoint.best.offer(3, 0.25, network)
    one_step(network, optimizer)
    checkpoint.save(4)
    assert network.weight.item() == 2.0 - 0.5 - 0.75

    network, optimizer, checkpoint, _ = parts(tmp_path, 9.0)
    best = checkpoint.best
    assert checkpoint.restore(Worker()) == 4
    assert network.weight.item() == 0.75
    assert (best.epoch, best.miou) == (3, 0.25)
    assert {name: value.item() for name, value in best.state.items()} == {
        "weight": 1.5,
        "bias": 1.5,
    }
    one_step(network, optimizer)  # velocities 1, 1.5, 1.75
    assert network.weight.item() == 0.75 - 0.5 * 1.75
    Checkpoint.delete(stage)
    assert not stage.folder.exists(CHECKPOINT_NAME)


def test_without_a_checkpoint_training_starts_at_epoch_0(tmp_path):
    network, _, checkpoint, _ = parts(tmp_path, 2.0)
    assert checkpoint.restore(Worker()) == 0
    assert network.weight.item() == 2.0
    assert checkpoint.best == BestEpoch(0, -1.0, {})


def test_a_checkpoint_that_another_writer_removes_meanwhile_is_none(tmp_path, monkeypatch):
    """Two runs train one phase on a store: the faster one commits and deletes."""
    _, _, checkpoint, stage = parts(tmp_path, 2.0)
    checkpoint.save(4)
    read = Folder.read

    def too_late(folder, name):
        Checkpoint.delete(stage)
        return read(folder, name)

    monkeypatch.setattr(Folder, "read", too_late)
    network, _, checkpoint, _ = parts(tmp_path, 9.0)
    assert checkpoint.restore(Worker()) == 0
    assert network.weight.item() == 9.0


def test_an_epoch_is_best_when_it_is_better_than_all_before(tmp_path):
    network, optimizer, checkpoint, _ = parts(tmp_path, 2.0)
    best = checkpoint.best
    kept = []
    for epoch, miou in enumerate((0.0, 0.5, 0.5, 0.4, 0.6), 1):
        one_step(network, optimizer)
        weight = network.weight.item()
        best.offer(epoch, miou, network)
        kept.append((best.epoch, best.miou, best.state["weight"].item() == weight))
    assert kept == [
        (1, 0.0, True),
        (2, 0.5, True),
        (2, 0.5, False),
        (2, 0.5, False),
        (5, 0.6, True),
    ]
    assert best.state["weight"].item() == pytest.approx(network.weight.item())
