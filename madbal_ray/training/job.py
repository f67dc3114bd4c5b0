"""Training of one round: phase I, evaluation, thresholds, phase II.

Every training worker calls `TrainRound.run` with its own context; rank 0 writes. The
engines differ only in the context: the local engine's has one worker, Ray Train's talks
to the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from madbal_ray import rng
from madbal_ray.config.schema import Config, Supports
from madbal_ray.engine.workers import TrainContext
from madbal_ray.evaluation.evaluate import EvaluateSplits
from madbal_ray.labels.labeled_points import LabeledPoints, read_labeled_points
from madbal_ray.models.network import SegmentationNetwork, build_network
from madbal_ray.models.trained import PHASE1_WEIGHTS, PHASE2_WEIGHTS
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.pool.reader import ImageReader
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import FileRecord, StageDir
from madbal_ray.training.batches import BatchMaker
from madbal_ray.training.checkpoint import BestEpoch, Checkpoint
from madbal_ray.training.image_cache import ImageCache
from madbal_ray.training.loss_prediction import ClassLossThresholds
from madbal_ray.training.phase import PhaseTrainer
from madbal_ray.training.target_pass import record_points

BEST_WEIGHTS = "best.safetensors"
FEW_LABELS = 5
"""A class with fewer labels than this is reported (method 2)."""


@dataclass
class TrainRound:
    """One round of training, phase I and phase II in one job.

    Attributes:
        labels: label stages of this round and all before it.
        previous: phase stages of the round before, for `train.init: previous`.
        phase2: None for a strategy whose network has no supports.
    """

    config: Config
    round_index: int
    supports: Supports
    weights: PublishedWeights
    num_classes: int
    reader: ImageReader
    images: StageDir
    superpixels: StageDir
    shard_ids: list[int]
    labels: tuple[StageDir, ...]
    previous: tuple[StageDir, StageDir | None] | None
    phase1: StageDir
    phase2: StageDir | None
    evaluation: EvaluateSplits

    @property
    def name(self) -> str:
        """Return a name that is the same at every start."""
        return f"round-{self.round_index:03d}-{(self.phase2 or self.phase1).key}"

    @property
    def num_workers(self) -> int:
        """Return the training world size."""
        return self.config.train.num_workers

    def run(self, context: TrainContext) -> None:
        """Train, evaluate and commit what is not committed yet."""
        torch.set_num_threads(self.config.train.threads_per_worker)
        devices = [context.device] if context.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            network = self._initial_network().to(context.device)
            points = read_labeled_points(
                self.reader, self.images, self.superpixels, self.shard_ids, self.labels
            )
            maker = self._batch_maker(points)
            if self.config.train.compile:
                network.compile()
            if not self.phase1.is_done:
                self._train_phase1(network, maker, context)
            _load(network, self.phase1, PHASE1_WEIGHTS)
            if not self.evaluation.output.is_done:
                self._evaluate(network, context)
            if self.phase2 is not None and not self.phase2.is_done:
                self._train_phase2(network, maker, context, self.phase2)

    def _initial_network(self) -> SegmentationNetwork:
        network = build_network(
            self.config.model,
            self.num_classes,
            weights=self.weights.load(),
            seed=rng.derive_seed(self.config.seed, "network", self.round_index),
            supports=self.supports,
        )
        if self.previous is not None:
            _load(network, self.previous[0], PHASE1_WEIGHTS)
            if self.previous[1] is not None:
                _load(network, self.previous[1], PHASE2_WEIGHTS)
        return network

    def _batch_maker(self, points: LabeledPoints) -> BatchMaker:
        resources = self.config.resources
        return BatchMaker(
            points,
            ImageCache(
                self.reader,
                memory_gib=resources.image_cache_gib,
                disk_gib=resources.image_cache_disk_gib,
            ),
            self.config.train,
            self.config.seed,
            self.round_index,
            resources.decode_threads,
        )

    def _train_phase1(
        self, network: SegmentationNetwork, maker: BatchMaker, context: TrainContext
    ) -> None:
        train = self.config.train
        trainer = PhaseTrainer(self.config, self.round_index, "phase1", self.phase1, maker, context)
        if train.select == "best":
            trainer.measure = lambda current: self.evaluation.miou(
                current, context, train.select_split
            )
        best = trainer.train(network)
        if context.rank == 0:
            self._commit_phase1(network, len(maker.points.y), best)
        context.barrier()

    def _commit_phase1(
        self, network: SegmentationNetwork, num_points: int, best: BestEpoch
    ) -> None:
        files = [_save(network.state_of("phase1"), self.phase1, PHASE1_WEIGHTS)]
        if best.state:
            state = network.state_of("phase1", best.state)
            files.append(_save(state, self.phase1, BEST_WEIGHTS))
        self.phase1.commit(files, {"labelled_pixels": num_points, "best_epoch": best.epoch})
        Checkpoint.delete(self.phase1)

    def _evaluate(self, network: SegmentationNetwork, context: TrainContext) -> None:
        """Measure the last epoch, and the best one where it was asked for."""
        measured = [("last", self.config.train.phase1.epochs, PHASE1_WEIGHTS)]
        best_epoch = self.phase1.marker().summary["best_epoch"]
        if best_epoch:
            measured.append(("best", best_epoch, BEST_WEIGHTS))
        for selection, epoch, name in measured:
            _load(network, self.phase1, name)
            self.evaluation.measure(network, context, selection, epoch)
        if context.rank == 0:
            self.evaluation.commit()
        _load(network, self.phase1, PHASE1_WEIGHTS)

    def _train_phase2(
        self,
        network: SegmentationNetwork,
        maker: BatchMaker,
        context: TrainContext,
        phase2: StageDir,
    ) -> None:
        thresholds = record_points(
            network,
            maker.points,
            self.reader,
            context,
            num_classes=self.num_classes,
            use_bf16=self.config.train.precision == "bf16",
            threads=self.config.resources.decode_threads,
        )
        PhaseTrainer(self.config, self.round_index, "phase2", phase2, maker, context).train(network)
        if context.rank == 0:
            self._commit_phase2(network, thresholds, phase2)
        context.barrier()

    def _commit_phase2(
        self, network: SegmentationNetwork, thresholds: ClassLossThresholds, phase2: StageDir
    ) -> None:
        record = _save(network.state_of("phase2"), phase2, PHASE2_WEIGHTS)
        pairs = zip(thresholds.num_labels, thresholds.threshold, strict=True)
        rows = [
            {
                "round": self.round_index,
                "class_id": class_id,
                "num_labels": int(count),
                "threshold": None if np.isnan(threshold) else float(threshold),
            }
            for class_id, (count, threshold) in enumerate(pairs)
        ]
        table = tables.from_rows("class_loss_thresholds", rows)
        few = [row["class_id"] for row in rows if row["num_labels"] < FEW_LABELS]
        phase2.commit(
            [record, phase2.write_table("class_loss_thresholds", 0, table)],
            {"classes_with_few_labels": few},
        )
        Checkpoint.delete(phase2)


def _save(state: dict[str, Tensor], stage: StageDir, name: str) -> FileRecord:
    contiguous = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    return stage.write_file(name, save_safetensors(contiguous))


def _load(network: nn.Module, stage: StageDir, name: str) -> None:
    state: dict[str, Any] = load_safetensors(stage.folder.read(name))
    network.load_state_dict(state, strict=False)
