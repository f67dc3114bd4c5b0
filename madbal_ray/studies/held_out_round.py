"""Rounds inside a fold: round 0 on the images that are kept, and one more to measure the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import torch

from madbal_ray.config.schema import Config
from madbal_ray.engine.contract import CallJob, ShardJob, TrainingJob
from madbal_ray.engine.local import LocalEngine
from madbal_ray.engine.progress import LogProgress, Progress
from madbal_ray.engine.shards import complete_stage
from madbal_ray.engine.workers import SingleWorker
from madbal_ray.errors import LabelError
from madbal_ray.loop.history import History
from madbal_ray.loop.round import Round
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.pool.prepared import Pool
from madbal_ray.runs.run import Run
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir, digests
from madbal_ray.state.storage import Folder

HELD_OUT = "held_out"


@dataclass(frozen=True)
class Fold:
    """The images that a fold leaves out.

    Attributes:
        settings: what decides them, for keys.
    """

    held_out: frozenset[str]
    settings: Mapping[str, int]


class InPlace:
    """Completes stages in this process, without a run to point to."""

    plan = staticmethod(StageDir.plan)

    def __init__(self, device: str) -> None:
        self.engine = LocalEngine(device)
        self.progress: Progress = LogProgress()

    def map(self, job: ShardJob, shard_ids: Sequence[int], *, total: int | None) -> None:
        """Complete a shard-wise stage."""
        if not job.output.is_done:
            complete_stage(self.engine, job, shard_ids, on_row=lambda row: None)

    def call(self, job: CallJob) -> None:
        """Complete a whole-pool stage."""
        if not job.output.is_done:
            job.run()

    def train(self, job: TrainingJob, outputs: Sequence[StageDir]) -> None:
        """Complete the training of a round; the search has a progress of its own."""
        if not all(output.is_done for output in outputs):
            job.run(SingleWorker(torch.device(self.engine.device), lambda progress: None))

    def point(self, stage: StageDir) -> None:
        """There is no run to point."""


@dataclass(frozen=True)
class HeldOut:
    """Training and asking on the images that a fold keeps.

    Attributes:
        run: with a labelled round 0.
        folder: of the fold.
    """

    run: Run
    folder: Folder
    fold: Fold
    weights: PublishedWeights

    def train(self, config: Config, device: str, *, only_phase1: bool = False) -> History:
        """Return round 0: its labels without the fold's, and the network trained on them."""
        current = self._round(config, 0, self._pool(), device)
        history = replace(History.before(current.pool), labels=(self.labels(),))
        return current.train(history, only_phase1=only_phase1)[0]

    def next_miou(self, config: Config, history: History, device: str) -> float:
        """Return the mIoU on the held-out images (every pixel) after one round of queries.

        Args:
            history: of round 0; its network asks.

        Raises:
            LabelError: no class occurs in the held-out images or their predictions.
        """
        pool = self._pool()
        held_out = self._images(keeps=lambda name: name in self.fold.held_out)
        pool = replace(
            pool, evaluation_images=held_out, evaluation_shards={HELD_OUT: pool.shard_ids}
        )
        following = self._round(config, 1, pool, device)
        history = following.label(following.ask(history), history)
        _, measured = following.train(history, only_phase1=True)
        miou = measured.read_table("metrics")["miou"].to_pylist()[0]
        if miou is None:
            raise LabelError(
                f"{self.run.run_dir}: the mIoU on held-out images is undefined; use fewer folds"
            )
        return miou

    def labels(self) -> StageDir:
        """Return the labels of round 0 without those of the fold's images."""
        return self._filtered(self.run.stage("labels", 0), "labels", self._is_kept)

    def _is_kept(self, image_id: str) -> bool:
        return image_id not in self.fold.held_out

    def _images(self, keeps: Callable[[str], bool]) -> StageDir:
        return self._filtered(self.run.stage("images"), "images", keeps)

    def _filtered(self, source: StageDir, table: str, keeps: Callable[[str], bool]) -> StageDir:
        """Return the rows of a table whose images are kept, as a stage of the fold."""
        settings: dict[str, Any] = {**self.fold.settings, "keeps_fold": keeps != self._is_kept}
        output = StageDir.plan(self.folder, f"fold_{table}", settings, digests(source))
        if not output.is_done:
            files = []
            for shard_id in self._shard_ids:
                rows = source.read_table(table, [shard_id])
                kept = [keeps(name) for name in rows["image_id"].to_pylist()]
                part = rows.filter(pa.array(kept, pa.bool_()))
                files.append(output.write_table(table, shard_id, part))
            output.commit(files, {})
        return output

    @property
    def _shard_ids(self) -> list[int]:
        shards = self.run.stage("index").marker().summary["shards_of_split"]
        return shards[self.run.config.data.pool_split]

    def _pool(self) -> Pool:
        images = self._images(keeps=self._is_kept)
        table = pa.concat_tables(
            [tables.empty("images"), *(images.read_table("images", [i]) for i in self._shard_ids)]
        ).to_pandas()
        return replace(
            self.run.pool(),
            images=images,
            num_images=len(table),
            num_pixels=int((table["work_height"].astype("int64") * table["work_width"]).sum()),
        )

    def _round(self, config: Config, index: int, pool: Pool, device: str) -> Round:
        folder = self.folder / f"round-{index}"
        return Round(
            config=config,
            pool=pool,
            index=index,
            runner=InPlace(device),
            folder=folder,
            own_folder=folder,
            weights=self.weights,
            device=device,
        )
