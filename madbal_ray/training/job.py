"""Training of one round: phase I, evaluation, thresholds, phase II.

With `train.init: frozen_head` the main head is trained before phase I, on the frozen backbone.

Every training worker calls `TrainRound.run` with its own context. Rank 0 alone writes, and looks
at what is there: what is done, the checkpoint to go on from, the weights of a finished phase reach
the others through the context. The engines differ only in that: the local engine's has one worker,
Ray Train's talks to the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from madbal_ray import rng
from madbal_ray.config.schema import Config
from madbal_ray.config.training import Supports
from madbal_ray.engine.workers import TrainContext
from madbal_ray.errors import ConfigError
from madbal_ray.evaluation.evaluate import EvaluateSplits
from madbal_ray.labels.labeled_points import LabeledPoints, read_labeled_points
from madbal_ray.models.batch_norm import share_batch_norm
from madbal_ray.models.network import SegmentationNetwork, build_network
from madbal_ray.models.trained import FROZEN_HEAD, PHASE1, PhaseSpec, TrainedPhases
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import PoolImage
from madbal_ray.seams import OBJECTIVES
from madbal_ray.state import tables
from madbal_ray.state.marker import FileRecord
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.training.batches import Batches, BatchMaker
from madbal_ray.training.checkpoint import BestEpoch, Checkpoint
from madbal_ray.training.image_cache import ImageCache
from madbal_ray.training.input_batches import InputBatchMaker
from madbal_ray.training.loss_prediction import ClassLossThresholds
from madbal_ray.training.phase import PhaseTrainer, num_epochs
from madbal_ray.training.point_matrix import PointBatchMaker, read_point_matrix, record_matrix
from madbal_ray.training.target_pass import record_points

BEST_WEIGHTS = "best.safetensors"
FEW_LABELS = 5
"""A class with fewer labels than this is reported (method 2)."""


@dataclass(kw_only=True)
class TrainRound:
    """One round of training, phase I and phase II in one job.

    Attributes:
        labels: label stages of this round and all before it.
        points: their stages `point_features`, where the head learns from points.
        previous: network of the round before, for `train.init: previous`.
        head: where the head goes that `train.init: frozen_head` trains before phase I.
        phases: where this round's network goes.
    """

    config: Config
    round_index: int
    supports: Supports
    weights: PublishedWeights
    pool: Pool
    labels: tuple[StageDir, ...]
    points: tuple[StageDir, ...]
    previous: TrainedPhases | None
    head: StageDir | None
    phases: TrainedPhases
    evaluation: EvaluateSplits

    @property
    def name(self) -> str:
        """Return a name that is the same at every start."""
        return f"round-{self.round_index:03d}-{self.phases.stages[-1].key}"

    @property
    def num_workers(self) -> int:
        """Return the training world size."""
        return self.config.train.num_workers

    @property
    def min_workers(self) -> int:
        """Return the world size that will do while nodes are missing."""
        return self.config.train.min_workers or self.num_workers

    def run(self, context: TrainContext) -> None:
        """Train, evaluate and commit what is not committed yet."""
        torch.set_num_threads(self.config.train.threads_per_worker)
        devices = [context.device] if context.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            network = self._initial_network(context).to(context.device)
            share_batch_norm(network, workers=context.world_size, device=context.device)
            maker = self._batches(read_labeled_points(self.pool, self.labels), network)
            if self.config.train.compile:
                network.compile()
            if self.head is not None and not _is_done(self.phases.phase1, context):
                if not _is_done(self.head, context):
                    self._train(FROZEN_HEAD, self.head, network, maker, context)
                _load(network, self.head, FROZEN_HEAD.weights, context)
            for phase, stage in self.phases:
                if not _is_done(stage, context):
                    self._train(phase, stage, network, maker, context)
                _load(network, stage, phase.weights, context)
                if phase is PHASE1 and not _is_done(self.evaluation.output, context):
                    self._evaluate(network, maker, context)

    def _initial_network(self, context: TrainContext) -> SegmentationNetwork:
        network = build_network(
            self.config.model,
            self.pool.num_classes,
            weights=self.weights.load(),
            seed=rng.derive_seed(self.config.seed, "network", self.round_index),
            supports=self.supports,
        )
        if network.tap_norm is not None:
            assert self.pool.tap_statistics is not None
            rows = self.pool.tap_statistics.read_table("tap_statistics").to_pylist()
            network.tap_norm.set_statistics(
                *([torch.tensor(row[name]) for row in rows] for name in ("mean", "deviation"))
            )
        for phase, stage in self.previous or ():
            _load(network, stage, phase.weights, context)
        return network

    def _batches(self, points: LabeledPoints, network: SegmentationNetwork) -> Batches:
        """Return what cuts the labels into batches: of images, of whole inputs, or of points."""
        resources = self.config.resources
        if self.config.model.learns_from_points:
            matrix = read_point_matrix(
                self.pool,
                points,
                self.points,
                network.backbone.channels,
                memory_gib=resources.image_cache_gib,
                mirrored=self.config.train.mirrored_points,
            )
            return PointBatchMaker(
                matrix=matrix, seed=self.config.seed, round_index=self.round_index
            )
        self._check_sizes(points.images)
        if not self.config.model.train_backbone:
            return InputBatchMaker(
                points=points,
                pool=self.pool,
                seed=self.config.seed,
                round_index=self.round_index,
            )
        return BatchMaker(
            points=points,
            cache=ImageCache(
                self.pool.reader,
                memory_gib=resources.image_cache_gib,
                disk_gib=resources.image_cache_disk_gib,
            ),
            config=self.config.train,
            seed=self.config.seed,
            round_index=self.round_index,
            threads=resources.decode_threads,
        )

    def _check_sizes(self, images: Sequence[PoolImage]) -> None:
        """See that the inputs of labelled images can form batches.

        Raises:
            ConfigError: they have several sizes, and nothing crops them to one.
        """
        of_size = {(one.input_height, one.input_width): one.image_id for one in reversed(images)}
        crops = self.config.model.train_backbone
        if len(of_size) < 2 or (crops and self.config.train.crop is not None):
            return
        (one, first), (other, second), *_ = sorted(of_size.items())
        raise ConfigError(
            f"images of different sizes cannot form a batch: {first} is {one[0]} x {one[1]} to the "
            f"network, {second} is {other[0]} x {other[1]}; set grids.input = [height, width]"
            + (" or train.crop" if crops else " or model.head = hypercolumn")
        )

    def _train(
        self,
        phase: PhaseSpec,
        stage: StageDir,
        network: SegmentationNetwork,
        maker: Batches,
        context: TrainContext,
    ) -> None:
        """Train one phase and commit it (rank 0)."""
        train = self.config.train
        thresholds = None
        if OBJECTIVES[phase.settings(train).objective].needs_targets:
            thresholds = self._record(network, maker, context)
        trainer = PhaseTrainer(
            config=self.config,
            round_index=self.round_index,
            phase=phase,
            stage=stage,
            maker=maker,
            context=context,
        )
        if phase is PHASE1 and train.keep_epoch == "best":
            trainer.measure = lambda current: self.evaluation.miou(
                current, context, train.select_split
            )
        best = trainer.train(network)
        if context.rank == 0:
            self._commit(phase, stage, network, maker.num_points, best, thresholds)
        context.barrier()

    def _record(
        self, network: SegmentationNetwork, maker: Batches, context: TrainContext
    ) -> ClassLossThresholds:
        """Record Y_L and delta of every labelled pixel; return tau."""
        use_bf16 = self.config.train.precision == "bf16"
        if isinstance(maker, PointBatchMaker):
            return record_matrix(
                network, maker, context, num_classes=self.pool.num_classes, use_bf16=use_bf16
            )
        assert isinstance(maker, (BatchMaker, InputBatchMaker))
        return record_points(network, maker.points, self.pool, context, use_bf16=use_bf16)

    def _commit(
        self,
        phase: PhaseSpec,
        stage: StageDir,
        network: SegmentationNetwork,
        num_points: int,
        best: BestEpoch,
        thresholds: ClassLossThresholds | None,
    ) -> None:
        if stage.is_done:  # by a run beside this one; on GPUs its weights differ from ours
            return
        files = [_save(network.state_of(phase.name), stage, phase.weights)]
        summary: dict[str, Any] = {"labelled_pixels": num_points, "best_epoch": best.epoch}
        if best.state:
            files.append(_save(network.state_of(phase.name, best.state), stage, BEST_WEIGHTS))
        if thresholds is not None:
            rows = self._threshold_rows(thresholds)
            table = tables.from_rows("class_loss_thresholds", rows)
            files.append(stage.write_table("class_loss_thresholds", 0, table))
            summary["classes_with_few_labels"] = [
                row["class_id"] for row in rows if row["num_labels"] < FEW_LABELS
            ]
        stage.commit(files, summary)
        Checkpoint.delete(stage)

    def _threshold_rows(self, thresholds: ClassLossThresholds) -> list[dict[str, Any]]:
        pairs = zip(thresholds.num_labels, thresholds.threshold, strict=True)
        return [
            {
                "round": self.round_index,
                "class_id": class_id,
                "num_labels": int(count),
                "threshold": None if np.isnan(threshold) else float(threshold),
            }
            for class_id, (count, threshold) in enumerate(pairs)
        ]

    def _evaluate(
        self, network: SegmentationNetwork, maker: Batches, context: TrainContext
    ) -> None:
        """Measure the last epoch of phase I, and the best one where it was asked for."""
        stage = self.phases.phase1
        last_epoch = num_epochs(maker, self.config.train.phase1)
        measured = [("last", last_epoch, PHASE1.weights)]
        best_epoch = context.decide(lambda: stage.marker().summary["best_epoch"])
        if best_epoch:
            measured.append(("best", best_epoch, BEST_WEIGHTS))
        for selection, epoch, name in measured:
            _load(network, stage, name, context)
            self.evaluation.measure(network, context, selection, epoch)
        if context.rank == 0:
            self.evaluation.commit()
        _load(network, stage, PHASE1.weights, context)


def _save(state: dict[str, Tensor], stage: StageDir, name: str) -> FileRecord:
    contiguous = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    return stage.write_file(name, save_safetensors(contiguous))


def _load(network: nn.Module, stage: StageDir, name: str, context: TrainContext) -> None:
    """Load weights as rank 0 reads them, so that all workers go on with the same network."""
    state: dict[str, Any] = context.decide(lambda: load_safetensors(stage.read_file(name)))
    network.load_state_dict(state, strict=False)


def _is_done(stage: StageDir, context: TrainContext) -> bool:
    return context.decide(lambda: stage.is_done)
