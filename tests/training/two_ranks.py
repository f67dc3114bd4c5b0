"""What each of two processes does that gloo joins on the loopback; `test_two_ranks` judges it."""

import datetime
import os
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from madbal_ray.config.file import load_config
from madbal_ray.engine.workers import GroupWorker, SingleWorker
from madbal_ray.labels.labeled_points import LabeledPoints
from madbal_ray.models.network import NetworkOutput, SegmentationNetwork
from madbal_ray.models.trained import PHASE1
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from madbal_ray.training import job as job_module
from madbal_ray.training.batches import BatchMaker
from madbal_ray.training.checkpoint import BestEpoch, Checkpoint
from madbal_ray.training.image_cache import ImageCache
from madbal_ray.training.job import TrainRound
from madbal_ray.training.phase import PhaseTrainer
from tests.conftest import tiny_config
from tests.hand_made import FromArrays, pool_image
from tests.training.test_job import TwoParts, job_of, points_of, trained

COUNT = 8
SIZE = (6, 8)


class Group(GroupWorker):
    """A worker whose reports are kept."""

    def __init__(self):
        super().__init__(torch.device("cpu"))
        self.reports = []

    def report(self, progress, /):
        self.reports.append(progress)


class Convolution(SegmentationNetwork):
    """Three classes from one convolution; no batch norm."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        torch.manual_seed(3)
        self.backbone = torch.nn.Conv2d(3, 3, 3, padding=1)

    def set_phase(self, phase):
        self.phase = phase

    def forward(self, images, *, supports):
        return NetworkOutput(self.backbone(images), images)


class Joint(BatchMaker):
    """Gives one process the batches of two workers, joined."""

    def cut(self, phase, epoch, batch_size, *, rank, world_size):
        assert (rank, world_size) == (0, 1)
        parts = [
            super(Joint, self).cut(phase, epoch, batch_size, rank=r, world_size=2) for r in (0, 1)
        ]
        return np.concatenate(parts, axis=1)


class Counted(FromArrays):
    """Counts what it decodes."""

    decoded = 0

    def on_input_grid(self, image):
        self.decoded += 1
        return super().on_input_grid(image)


def train(folder, context, kind):
    """Train three epochs on images with 1, 2, ... 8 points; return weights, losses, decodings."""
    settings = {"epochs": 3, "batch_size": 4, "learning_rate": 0.5, "momentum": 0.5}
    plain = {"flip": False, "rotation_degrees": 0, "blur_probability": 0}
    config = load_config(tiny_config(train__phase1=settings, train__augment=plain))
    images = [pool_image(str(i), grid=SIZE, work=SIZE) for i in range(COUNT)]
    random = np.random.default_rng(0)
    start = np.cumsum(np.arange(COUNT + 1))
    reader = Counted(
        inputs={str(i): random.integers(0, 256, (*SIZE, 3), np.uint8) for i in range(COUNT)}
    )
    maker = kind(
        points=LabeledPoints(
            images=images,
            start=start,
            y=random.integers(0, SIZE[0], start[-1]).astype(np.int16),
            x=random.integers(0, SIZE[1], start[-1]).astype(np.int16),
            class_id=random.integers(0, 3, start[-1]).astype(np.uint8),
        ),
        cache=ImageCache(reader, memory_gib=1.0, disk_gib=0.0),
        config=config.train,
        seed=config.seed,
        round_index=0,
        threads=1,
    )
    network, reports = Convolution(), []
    if isinstance(context, SingleWorker):
        context.report = reports.append
    PhaseTrainer(
        config=config,
        round_index=0,
        phase=PHASE1,
        stage=StageDir(Folder(folder), "phase1", "key"),
        maker=maker,
        context=context,
    ).train(network)
    reports = reports or context.reports
    return {
        "weights": network.state_dict(),
        "losses": [one["loss"] for one in reports],
        "decoded": reader.decoded,
    }


def resume(folder, context, *, holder):
    """Restore where only one rank's folder holds a checkpoint; return epoch and weight."""
    stage = StageDir(Folder(folder / f"checkpoint-of-{holder}"), "phase1", "key")
    network = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    with torch.no_grad():
        network.weight.fill_(7.0 + context.rank)
    if context.rank == holder:
        Checkpoint(stage, network, optimizer, BestEpoch()).save(3)
    with torch.no_grad():
        network.weight.fill_(1.0)
    epoch = Checkpoint(stage, network, optimizer, BestEpoch()).restore(context)
    return epoch, network.weight.item()


class HalfUsed(torch.nn.Module):
    """Has a weight that no loss depends on, as timm's networks do behind their last tap."""

    has_unused_parameters = True

    def __init__(self):
        super().__init__()
        self.used, self.unused = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))

    def forward(self, value):
        return self.used * value


def descend(context):
    """Take two steps with a network whose half is unused; return the weight that is used."""
    network = HalfUsed()
    module = context.wrap(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.25)
    for _ in range(2):
        optimizer.zero_grad()
        module(torch.tensor(context.rank + 1.0)).sum().backward()
        optimizer.step()
    return network.used.item()


def statistics(context):
    """Return what a batch norm of this rank's own knows once all agree."""
    norm = torch.nn.BatchNorm1d(1)
    norm.running_mean.fill_(5.0 + context.rank)
    norm.num_batches_tracked.fill_(7 + context.rank)
    context.agree_on_buffers(norm)
    return norm.running_mean.item(), norm.num_batches_tracked.item()


def run_round(folder, context):
    """Run a round that rank 0 sees finished and rank 1 does not; return network and trainings."""
    networks, trainings = [], []

    def build(config, num_classes, *, weights, seed, supports):
        networks.append(TwoParts(1.0, 2.0))
        return networks[-1]

    job_module.build_network = build
    job_module.read_labeled_points = lambda pool, labels: points_of(1)
    TrainRound._train = lambda self, phase, *others: trainings.append(phase.name)
    TrainRound._evaluate = lambda self, *others: trainings.append("evaluate")
    phases = trained(folder, 5.0, 6.0) if context.rank == 0 else None
    job_of(folder, phases=phases).run(context)
    return networks[0].values, trainings


def exercise(rank, shared, folder):
    """Do everything as one rank and leave what came of it in a file."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    folder = Path(folder) / f"disk-of-{rank}"
    folder.mkdir()
    dist.init_process_group(
        "gloo",
        init_method=f"file://{shared}/meeting",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=60),
    )
    context, looked = Group(), []
    found = {
        "sum": context.all_reduce(torch.tensor([rank + 1.0])).item(),
        "all": context.all_gather(f"rank {rank}"),
        "decided": context.decide(lambda: looked.append(rank) or f"said by {rank}"),
        "looked": looked,
        "trained": train(folder, context, BatchMaker),
        "resumed": [resume(folder, context, holder=holder) for holder in (0, 1)],
        "descended": descend(context),
        "statistics": statistics(context),
        "round": run_round(folder, context),
    }
    context.barrier()
    torch.save(found, f"{shared}/{rank}.pt")
    dist.destroy_process_group()
