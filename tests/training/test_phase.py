"""Epochs and steps: learning rates, progress, seeds, sums over workers, the best epoch."""

import numpy as np
import pytest
import torch

from madbal_ray import rng
from madbal_ray.config.file import load_config
from madbal_ray.errors import NumericalError
from madbal_ray.labels.labeled_points import LabeledPoints
from madbal_ray.models.trained import PHASE1, PHASE2
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from madbal_ray.training.batches import BatchMaker
from madbal_ray.training.checkpoint import CHECKPOINT_NAME
from madbal_ray.training.image_cache import ImageCache
from madbal_ray.training.objectives import Objective
from madbal_ray.training.phase import PhaseTrainer
from tests.conftest import tiny_config
from tests.hand_made import ByHand, FromArrays, Worker, colours_are_logits, pool_image

ROUND = 2
EPOCHS = 4
RATE = 0.125


class Noted(Objective):
    """Loss = what is given for the step times the network's one weight; notes each step."""

    def __init__(self, config, context, network, losses):
        super().__init__(config, context)
        self.network, self.losses, self.steps = network, losses, []

    def loss(self, views, *, progress):
        (view,) = views
        self.steps.append(
            {
                "progress": progress,
                "seed": torch.initial_seed(),
                "images": [int(picture[0, 0, 0]) for picture in view.batch.images],
                "shown": [round(float(v)) for v in self.network.shown[-1][:, 0, 0, 0]],
                "weight": self.network.weight.item(),
                "phase": self.network.phases[-1],
            }
        )
        return self.losses[len(self.steps) - 1] * self.network.weight.sum()


def trainer_of(
    tmp_path, monkeypatch, *, losses=(0.0,) * 8, worker=None, phase=PHASE1, measured=(), **changes
):
    """Train four images in batches of two, so two steps an epoch; every step is noted."""
    settings = {"epochs": EPOCHS, "batch_size": 2, "learning_rate": RATE, "momentum": 0.0}
    settings |= {"weight_decay": 0.0}
    config = load_config(
        tiny_config(
            seed=5,
            train__phase1=settings,
            train__phase2=settings,
            train__augment={"flip": False, "rotation_degrees": 0, "blur_probability": 0},
            resources=changes,
        )
    )
    images = [pool_image(str(index)) for index in range(4)]
    pictures = {str(index): np.full((2, 3, 3), index, np.uint8) for index in range(4)}
    maker = BatchMaker(
        points=LabeledPoints(
            images=images,
            start=np.arange(5),
            y=np.zeros(4, np.int16),
            x=np.zeros(4, np.int16),
            class_id=np.zeros(4, np.uint8),
        ),
        cache=ImageCache(FromArrays(inputs=pictures), memory_gib=1.0, disk_gib=0.0),
        config=config.train,
        seed=config.seed,
        round_index=ROUND,
        threads=1,
    )
    network, worker = ByHand(colours_are_logits), worker or Worker()
    objective = Noted(phase.settings(config.train), worker, network, losses)
    monkeypatch.setattr(PhaseTrainer, "_objective", lambda self: objective)
    given = iter(measured)
    trainer = PhaseTrainer(
        config=config,
        round_index=ROUND,
        phase=phase,
        stage=StageDir(Folder(tmp_path), phase.name, "key"),
        maker=maker,
        context=worker,
        measure=(lambda network: next(given)) if measured else None,
    )
    return trainer, network, objective


def test_every_step_has_its_learning_rate_and_progress(tmp_path, monkeypatch):
    trainer, network, objective = trainer_of(tmp_path, monkeypatch, losses=(1.0,) * 8)
    trainer.train(network)
    assert [step["progress"] for step in objective.steps] == [i / 8 for i in range(8)]
    weight = 1.0
    for index, step in enumerate(objective.steps):
        assert step["weight"] == pytest.approx(weight)
        weight -= RATE * (1 - index / 8)
    assert network.weight.item() == pytest.approx(weight)
    assert [one["learning_rate"] for one in trainer.context.reports] == pytest.approx(
        [RATE * (1 - index / 8) for index in (1, 3, 5, 7)]
    )


def test_an_epoch_reports_the_mean_of_its_steps_over_all_workers(tmp_path, monkeypatch):
    losses = (1.0, 2.0, 3.0, 5.0, 0.0, 0.0, 4.0, 8.0)
    worker = Worker(rank=1, world_size=2, factor=3)
    trainer, network, _ = trainer_of(
        tmp_path, monkeypatch, losses=losses, worker=worker, phase=PHASE2
    )
    trainer.train(network)
    weight, expected = 1.0, []
    for epoch in range(EPOCHS):
        sums = []
        for step in (2 * epoch, 2 * epoch + 1):
            sums.append(3 * losses[step] * weight)
            weight -= RATE * (1 - step / 8) * 2 * losses[step]
        expected.append(sum(sums) / 2)
    assert [one["loss"] for one in worker.reports] == pytest.approx(expected)
    assert network.weight.item() == pytest.approx(weight)
    assert [
        (one["round"], one["phase"], one["epoch"], one["epochs"]) for one in worker.reports
    ] == [(ROUND, "phase2", epoch, EPOCHS) for epoch in (1, 2, 3, 4)]


def test_a_step_sees_the_images_of_its_batch(tmp_path, monkeypatch):
    trainer, network, objective = trainer_of(tmp_path, monkeypatch)
    trainer.train(network)
    assert network.asked_for_supports == [False] * 8
    for epoch in range(EPOCHS):
        first, second = objective.steps[2 * epoch : 2 * epoch + 2]
        order = rng.stream(5, "shuffle", ROUND, "phase1", epoch).permutation(4).tolist()
        assert first["images"] + second["images"] == order
        assert first["shown"] + second["shown"] == order


@pytest.mark.parametrize("rank", [0, 1])
def test_torch_is_seeded_anew_by_round_phase_epoch_and_rank(tmp_path, monkeypatch, rank):
    worker = Worker(rank=rank, world_size=2)
    trainer, network, objective = trainer_of(tmp_path, monkeypatch, worker=worker)
    with torch.random.fork_rng(devices=[]):
        trainer.train(network)
    expected = [
        rng.derive_seed(5, "torch", ROUND, "phase1", epoch, rank)
        for epoch in range(EPOCHS)
        for _ in range(2)
    ]
    assert [step["seed"] for step in objective.steps] == expected


def test_every_epoch_is_offered_as_the_best_one(tmp_path, monkeypatch):
    trainer, network, objective = trainer_of(
        tmp_path, monkeypatch, losses=(1.0,) * 8, measured=(0.3, 0.5, 0.5, 0.2)
    )
    best = trainer.train(network)
    assert (best.epoch, best.miou) == (2, 0.5)
    assert best.state["weight"].item() == pytest.approx(objective.steps[4]["weight"])
    assert trainer.context.agreed == [network] * 4  # all workers measure one network
    # training mode is switched on again after each measurement
    assert network.phases == ["phase1"] * 5


def test_without_a_measure_no_epoch_is_best(tmp_path, monkeypatch):
    trainer, network, _ = trainer_of(tmp_path, monkeypatch)
    best = trainer.train(network)
    assert (best.epoch, best.state) == (0, {})


def test_training_that_diverges_names_round_phase_and_epoch(tmp_path, monkeypatch):
    losses = (0.0, 0.0, 0.0, float("nan"))
    trainer, network, _ = trainer_of(tmp_path, monkeypatch, losses=losses)
    with pytest.raises(NumericalError, match=r"round 2, phase1, epoch 2: the loss is nan") as error:
        trainer.train(network)
    assert "train.phase1.learning_rate" in str(error.value)
    assert len(trainer.context.reports) == 1


def test_a_checkpoint_is_written_after_an_epoch_and_carried_on_from(tmp_path, monkeypatch):
    trainer, network, objective = trainer_of(
        tmp_path, monkeypatch, losses=(1.0, 1.0, 1.0, 1.0, 1.0, float("nan")), checkpoint_seconds=0
    )
    with pytest.raises(NumericalError):
        trainer.train(network)
    again, fresh, noted = trainer_of(tmp_path, monkeypatch, losses=(1.0,) * 4)
    again.train(fresh)
    assert [step["progress"] for step in noted.steps] == [4 / 8, 5 / 8, 6 / 8, 7 / 8]
    assert noted.steps[0]["weight"] == pytest.approx(objective.steps[4]["weight"])
    assert [one["epoch"] for one in again.context.reports] == [3, 4]


def test_checkpoints_are_rank_0s_and_none_follows_the_last_epoch(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(
        "madbal_ray.training.phase.Checkpoint.save", lambda self, epoch: saved.append(epoch)
    )
    for rank in (0, 1):
        worker = Worker(rank=rank, world_size=2)
        trainer, network, _ = trainer_of(tmp_path, monkeypatch, worker=worker, checkpoint_seconds=0)
        trainer.train(network)
    assert saved == [1, 2, 3]
    trainer, network, _ = trainer_of(tmp_path, monkeypatch, checkpoint_seconds=1e9)
    trainer.train(network)
    assert saved == [1, 2, 3]
    assert not trainer.stage.folder.exists(CHECKPOINT_NAME)
