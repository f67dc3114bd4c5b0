"""One round of training as a job: what it starts from, records, commits and measures."""

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from madbal_ray import rng
from madbal_ray.config.file import load_config
from madbal_ray.config.running import EvaluationConfig
from madbal_ray.errors import ConfigError
from madbal_ray.evaluation.evaluate import EvaluateSplits
from madbal_ray.labels.labeled_points import LabeledPoints
from madbal_ray.labels.ledger import Ledger
from madbal_ray.models.network import NetworkOutput, SegmentationNetwork
from madbal_ray.models.trained import PHASE1, PHASE2, TrainedPhases
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from madbal_ray.training import job as job_module
from madbal_ray.training.checkpoint import BestEpoch
from madbal_ray.training.job import BEST_WEIGHTS, TrainRound
from madbal_ray.training.loss_prediction import ClassLossThresholds
from madbal_ray.training.objectives import LossPrediction
from tests.conftest import tiny_config
from tests.hand_made import Worker, pool_image, write_pool

ROUND = 3


class TwoParts(SegmentationNetwork):
    """One weight of phase I and one of phase II."""

    def __init__(self, first=0.0, second=0.0):
        torch.nn.Module.__init__(self)
        self.tap_norm = None
        self.backbone, self.loss_module = torch.nn.Module(), torch.nn.Module()
        self.backbone.w = torch.nn.Parameter(torch.tensor([first]))
        self.loss_module.w = torch.nn.Parameter(torch.tensor([second]))

    @property
    def phase1_modules(self):
        return (self.backbone,)

    @property
    def phase2_modules(self):
        return (self.loss_module,)

    def forward(self, images, *, supports):
        return NetworkOutput(images, images)

    @property
    def values(self):
        return self.backbone.w.item(), self.loss_module.w.item()


def trained(folder, first, second=None):
    """Return finished phases with given weights, the best epoch's being 100 more."""
    stages = []
    for name, key, value in (("phase1", "backbone.w", first), ("phase2", "loss_module.w", second)):
        if value is None:
            continue
        stage = StageDir.plan(Folder(folder), name, {"value": value}, {})
        files = [
            stage.write_file(path, save({key: torch.tensor([number])}))
            for path, number in ((f"{name}.safetensors", value), (BEST_WEIGHTS, value + 100))
        ]
        stage.commit(files, {"best_epoch": 2})
        stages.append(stage)
    return TrainedPhases(stages[0], stages[1] if len(stages) > 1 else None)


def job_of(tmp_path, *, phases=None, previous=None, **changes):
    folder = Folder(tmp_path)
    pool = write_pool(tmp_path / "pool", {0: [pool_image("a")]})
    planned = TrainedPhases(*(StageDir.plan(folder, name, {}, {}) for name in ("phase1", "phase2")))
    return TrainRound(
        config=load_config(tiny_config(**changes)),
        round_index=ROUND,
        supports="full",
        weights=PublishedWeights("none", None),
        pool=pool,
        labels=(),
        points=(),
        previous=previous,
        head=None,
        phases=phases or planned,
        evaluation=EvaluateSplits(
            output=StageDir.plan(folder, "metrics", {}, {}),
            pool=pool,
            config=EvaluationConfig(),
            round_index=ROUND,
            ledger=Ledger(1, 6),
            use_bf16=False,
        ),
    )


@pytest.fixture
def built(monkeypatch):
    """Networks of one weight in each phase, in place of `build_network`; notes its seeds."""
    seeds = []

    def build(config, num_classes, *, weights, seed, supports):
        seeds.append(seed)
        return TwoParts(1.0, 2.0)

    monkeypatch.setattr(job_module, "build_network", build)
    return seeds


def test_training_starts_from_both_phases_of_the_round_before(tmp_path, built):
    job = job_of(tmp_path, previous=trained(tmp_path, 5.0, 6.0))
    assert job._initial_network(Worker()).values == (5.0, 6.0)


def test_training_starts_afresh_without_a_previous_round(tmp_path, built):
    assert job_of(tmp_path)._initial_network(Worker()).values == (1.0, 2.0)
    assert built == [rng.derive_seed(0, "network", ROUND)]


@pytest.fixture
def calls(monkeypatch):
    """Stand-ins for the pass between the phases and for the trainer; notes who was called."""
    noted = []

    class Trainer:
        measure = None
        best = BestEpoch()

        def __init__(self, *, phase, **arguments):
            self.phase = phase

        def train(self, network):
            noted.append(("train", self.phase.name))
            if self.measure is not None:
                noted.append(("measured", self.measure(network)))
            return Trainer.best

    def record(network, points, pool, context, *, use_bf16):
        noted.append(("record", pool.num_classes))
        return ClassLossThresholds(np.array([0.5, np.nan, 0.25]), np.array([5, 0, 4]))

    monkeypatch.setattr(job_module, "PhaseTrainer", Trainer)
    monkeypatch.setattr(job_module, "record_points", record)
    noted.append(Trainer)
    return noted


def points_of(count):
    return LabeledPoints(
        images=[pool_image("a")],
        start=np.array([0, count]),
        y=np.zeros(count, np.int16),
        x=np.zeros(count, np.int16),
        class_id=np.zeros(count, np.uint8),
    )


def train(job, phase, *, context=None):
    stage = job.phases.phase1 if phase is PHASE1 else job.phases.phase2
    maker = job._batches(points_of(7), TwoParts())
    job._train(phase, stage, TwoParts(1.0, 2.0), maker, context or Worker())
    return stage


def test_phase_1_records_no_targets_and_commits_its_own_weights(tmp_path, calls):
    stage = train(job_of(tmp_path), PHASE1)
    assert calls[1:] == [("train", "phase1")]
    assert stage.marker().summary == {"labelled_pixels": 7, "best_epoch": 0}
    assert list(stage.marker().paths) == ["phase1.safetensors"]
    state = load(stage.folder.read("phase1.safetensors"))
    assert {name: value.item() for name, value in state.items()} == {"backbone.w": 1.0}


def test_phase_2_records_targets_first_and_reports_classes_with_fewer_than_five_labels(
    tmp_path, calls
):
    stage = train(job_of(tmp_path), PHASE2)
    assert calls[1:] == [("record", 3), ("train", "phase2")]
    assert stage.marker().summary == {
        "labelled_pixels": 7,
        "best_epoch": 0,
        "classes_with_few_labels": [1, 2],
    }
    assert stage.read_table("class_loss_thresholds").to_pylist() == [
        {"round": ROUND, "class_id": 0, "num_labels": 5, "threshold": 0.5},
        {"round": ROUND, "class_id": 1, "num_labels": 0, "threshold": None},
        {"round": ROUND, "class_id": 2, "num_labels": 4, "threshold": 0.25},
    ]
    state = load(stage.folder.read("phase2.safetensors"))
    assert {name: value.item() for name, value in state.items()} == {"loss_module.w": 2.0}


def test_a_phase_2_without_targets_records_none(tmp_path, calls, monkeypatch):
    monkeypatch.setattr(LossPrediction, "needs_targets", False)
    train(job_of(tmp_path), PHASE2)
    assert calls[1:] == [("train", "phase2")]


@pytest.mark.parametrize(
    ("changes", "crop", "remedy"),
    [
        ({}, None, "or train.crop$"),
        ({"model__train_backbone": False}, None, "or model.head = hypercolumn$"),
        ({}, [32, 32], None),
    ],
)
def test_inputs_of_several_sizes_form_no_batch(tmp_path, changes, crop, remedy):
    job = job_of(tmp_path, train__crop=crop, **changes)
    images = [pool_image("a", grid=(2, 3)), pool_image("b", grid=(2, 5)), pool_image("c")]
    job._check_sizes([images[0], images[2]])
    if remedy is None:
        job._check_sizes(images)
        return
    message = (
        rf"a is 2 x 3 to the network, b is 2 x 5; set grids.input = \[height, width\] {remedy}"
    )
    with pytest.raises(ConfigError, match=message):
        job._check_sizes(images)


def test_only_rank_0_commits(tmp_path, calls):
    stage = train(job_of(tmp_path), PHASE1, context=Worker(rank=1, world_size=2))
    assert not stage.is_done


def test_the_best_epoch_of_phase_1_is_measured_on_the_split_asked_for_and_kept_apart(
    tmp_path, calls, monkeypatch
):
    monkeypatch.setattr(
        EvaluateSplits, "miou", lambda self, network, context, split: f"mIoU on {split}"
    )
    state = {"backbone.w": torch.tensor([8.0]), "loss_module.w": torch.tensor([9.0])}
    calls[0].best = BestEpoch(4, 0.5, state)
    job = job_of(tmp_path, train__keep_epoch="best", train__select_split="test")
    stage = train(job, PHASE1)
    assert calls[1:] == [("train", "phase1"), ("measured", "mIoU on test")]
    assert stage.marker().summary["best_epoch"] == 4
    best = load(stage.folder.read(BEST_WEIGHTS))
    assert {name: value.item() for name, value in best.items()} == {"backbone.w": 8.0}
    last = load(stage.folder.read(PHASE1.weights))
    assert last["backbone.w"].item() == 1.0
    calls[1:] = []
    train(job, PHASE2)
    assert ("measured", "mIoU on test") not in calls


def test_the_last_epoch_is_measured_and_beside_it_the_best(tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(
        EvaluateSplits,
        "measure",
        lambda self, network, context, selection, epoch: measured.append(
            (selection, epoch, network.values)
        ),
    )
    job = job_of(tmp_path, phases=trained(tmp_path, 5.0, 6.0), train__phase1__epochs=7)
    network = TwoParts(1.0, 2.0)
    maker = job._batches(points_of(7), network)
    job._evaluate(network, maker, Worker(rank=1, world_size=2))
    assert measured == [("last", 7, (5.0, 2.0)), ("best", 2, (105.0, 2.0))]
    assert network.values == (5.0, 2.0)
    assert not job.evaluation.output.is_done
    job._evaluate(network, maker, Worker())
    assert job.evaluation.output.is_done


def test_both_phases_are_trained_in_turn_and_the_evaluation_lies_between(
    tmp_path, built, monkeypatch
):
    steps = []

    def train_one(self, phase, stage, network, maker, context):
        steps.append((phase.name, network.values))
        stage.commit([], {})

    monkeypatch.setattr(TrainRound, "_train", train_one)
    monkeypatch.setattr(
        TrainRound,
        "_evaluate",
        lambda self, network, maker, context: steps.append(("evaluate", network.values)),
    )
    monkeypatch.setattr(job_module, "read_labeled_points", lambda pool, labels: points_of(1))

    def load_weights(network, stage, name, context):
        with torch.no_grad():
            network.get_parameter(
                "backbone.w" if name == PHASE1.weights else "loss_module.w"
            ).fill_(9.0)

    monkeypatch.setattr(job_module, "_load", load_weights)
    job = job_of(tmp_path)
    job.run(Worker())
    assert steps == [("phase1", (1.0, 2.0)), ("evaluate", (9.0, 2.0)), ("phase2", (9.0, 2.0))]
    assert job.name == f"round-003-{job.phases.phase2.key}"
    steps.clear()
    job.run(Worker())  # both are done: only the measuring, which was not committed, is repeated
    assert steps == [("evaluate", (9.0, 2.0))]
