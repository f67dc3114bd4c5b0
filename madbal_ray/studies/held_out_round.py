"""One more round inside a fold: ask, answer, train phase I again, measure what was held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch

from madbal_ray.config.schema import Config
from madbal_ray.engine.contract import CallJob, ShardJob
from madbal_ray.engine.local import LocalEngine
from madbal_ray.engine.progress import LogProgress, Progress
from madbal_ray.engine.shards import complete_stage
from madbal_ray.engine.workers import SingleWorker
from madbal_ray.errors import LabelError
from madbal_ray.evaluation.evaluate import EvaluateSplits
from madbal_ray.labels.answer_job import SimulateAnswers, annotator_noise
from madbal_ray.labels.ledger import Ledger
from madbal_ray.loop.ask import Acquisition
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.pool.prepare import Pool
from madbal_ray.runs.run import Run
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir, digests
from madbal_ray.state.storage import Folder
from madbal_ray.strategies.registry import resolve
from madbal_ray.training.job import TrainRound

ROUND = 1
HELD_OUT = "held_out"


class InPlace:
    """Completes stages in this process, without a run to point to."""

    def __init__(self, device: str) -> None:
        self.engine = LocalEngine(device)
        self.progress: Progress = LogProgress()
        self.round_index: int | None = ROUND

    def map(self, job: ShardJob, shard_ids: Sequence[int], *, total: int | None) -> None:
        """Complete a shard-wise stage."""
        if not job.output.is_done:
            complete_stage(self.engine, job, shard_ids, on_row=lambda row: None)

    def call(self, job: CallJob) -> None:
        """Complete a whole-pool stage."""
        if not job.output.is_done:
            job.run()


@dataclass
class NextRound:
    """The round after a trial of a search, on the images that its fold trains on.

    Attributes:
        run: with a labelled round 0.
        folder: of the fold.
        fold: what cuts the fold, for the keys of its image lists.
        is_held_out: tells the fold's images by id.
    """

    run: Run
    folder: Folder
    weights: PublishedWeights
    shard_ids: list[int]
    fold: dict[str, int]
    is_held_out: Callable[[str], bool]
    device: str

    def miou(self, config: Config, labels: StageDir, phase1: StageDir, phase2: StageDir) -> float:
        """Return the mIoU on the held-out images (every pixel) after one round of queries.

        Args:
            config: with the trial's settings.
            labels: of round 0, the held-out images left out.
            phase1, phase2: what asks.

        Raises:
            LabelError: no class occurs in the held-out images or their predictions.
        """
        run, runner = self.run, InPlace(self.device)
        train_images = self._images("images_asked", held_out=False)
        pool = self._pool(train_images)
        strategy = resolve(config.strategy)
        acquisition = Acquisition(config, strategy, pool, runner, self.device)
        queries = acquisition.ask(self.folder, ROUND, (labels,), (phase1, phase2))
        answers = StageDir.plan(
            self.folder,
            "answers",
            config.oracle.result_settings() | {"seed": config.seed},
            digests(queries, labels),
        )
        runner.map(
            SimulateAnswers(
                answers,
                pool.reader,
                config.resources.decode_threads,
                train_images,
                pool.superpixels,
                queries,
                (labels,),
                annotator_noise(config.oracle.noise, pool.num_classes),
                config.seed,
                ROUND,
            ),
            self.shard_ids,
            total=None,
        )
        settings = {"train": config.train.result_settings()}
        inputs = digests(phase1, phase2, labels, answers)
        again = StageDir.plan(self.folder, "next_phase1", settings, inputs)
        held_out = self._images("images_held_out", held_out=True)
        measured = StageDir.plan(
            self.folder,
            "next_metrics",
            config.evaluation.result_settings(),
            inputs | digests(held_out) | {"next_phase1": again.key},
        )
        job = TrainRound(
            config,
            ROUND,
            strategy.supports,
            self.weights,
            pool.num_classes,
            pool.reader,
            train_images,
            pool.superpixels,
            self.shard_ids,
            (labels, answers),
            (phase1, phase2) if config.train.init == "previous" else None,
            again,
            None,
            EvaluateSplits(
                measured,
                held_out,
                {HELD_OUT: self.shard_ids},
                pool.reader,
                config.evaluation,
                num_classes=pool.num_classes,
                round_index=ROUND,
                ledger=Ledger(num_images=pool.num_images, num_pixels=pool.num_pixels),
                use_bf16=config.train.precision == "bf16",
                threads=config.resources.decode_threads,
            ),
        )
        if not measured.is_done:
            job.run(SingleWorker(torch.device(self.device), _say_nothing))
        found = measured.read_table("metrics")["miou"].to_pylist()[0]
        if found is None:
            raise LabelError(
                f"{run.run_dir}: the mIoU on held-out images is undefined; use fewer folds"
            )
        return found

    def _images(self, name: str, *, held_out: bool) -> StageDir:
        """Return the part of table `images` that is held out, or that is not."""
        source = self.run.stage("images")
        output = StageDir.plan(self.folder, name, self.fold, digests(source))
        if not output.is_done:
            files = []
            for shard_id in self.shard_ids:
                table = source.read_table("images", [shard_id])
                kept = [self.is_held_out(one) == held_out for one in table["image_id"].to_pylist()]
                files.append(output.write_table("images", shard_id, table.filter(pa.array(kept))))
            output.commit(files, {})
        return output

    def _pool(self, images: StageDir) -> Pool:
        table = pa.concat_tables(
            [tables.empty("images"), *(images.read_table("images", [i]) for i in self.shard_ids)]
        ).to_pandas()
        return Pool(
            reader=self.run.reader(),
            class_names=tuple(self.run.class_names),
            images=images,
            superpixels=self.run.stage("superpixels"),
            clusters=self.run.stage("superpixel_clusters"),
            shard_ids=self.shard_ids,
            evaluation_shards={},
            num_images=len(table),
            num_pixels=int((table["work_height"].astype("int64") * table["work_width"]).sum()),
        )


def _say_nothing(progress: dict[str, Any]) -> None:
    """Leave progress to Ray Tune."""
