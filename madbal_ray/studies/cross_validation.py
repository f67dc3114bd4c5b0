"""Cross-validation of phase II on the initial labelled pool, as the paper chose its lambdas.

The pool's images are cut into folds. Phase I is trained once per fold, on the labels of the
other folds, and shared by all trials. A trial trains phase II under its settings and is
judged by how well u(x) and the loss prediction find the labelled pixels of the fold that
the network gets wrong.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
import torch
from sklearn.metrics import average_precision_score

from madbal_ray import rng
from madbal_ray.config.file import load_config
from madbal_ray.config.schema import Config
from madbal_ray.engine.workers import SingleWorker
from madbal_ray.errors import ConfigError, LabelError
from madbal_ray.evaluation.evaluate import EvaluateSplits
from madbal_ray.labels.ledger import Ledger
from madbal_ray.models.trained import load_network
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.pool.reader import read_images
from madbal_ray.runs.run import Run
from madbal_ray.scoring.explain_image import explain_image
from madbal_ray.scoring.registry import ScoreOptions
from madbal_ray.state.stage_dir import StageDir, digests
from madbal_ray.state.storage import Folder
from madbal_ray.strategies.registry import resolve
from madbal_ray.studies.held_out_round import NextRound
from madbal_ray.training.job import TrainRound

Objective = Literal["precision", "miou"]
RESULT_NAME = "result.json"


@dataclass(frozen=True)
class FoldResult:
    """How a trial did on one held-out fold.

    Attributes:
        score_precision, error_precision: average precision of u(x) and of the predicted
            error at finding wrongly predicted labelled pixels; NaN where none or all are wrong
            and the mIoU decides.
        error_rate: share of wrong pixels; what chance scores.
        miou: on the held-out images after one more round; None: not asked for.
    """

    score_precision: float
    error_precision: float
    error_rate: float
    num_pixels: int
    miou: float | None = None

    @property
    def objective(self) -> float:
        """Return what a search maximises: the mIoU, or else the mean of the two precisions."""
        if self.miou is not None:
            return self.miou
        return (self.score_precision + self.error_precision) / 2


def _say_nothing(progress: dict[str, Any]) -> None:
    """Leave progress to Ray Tune."""


@dataclass
class CrossValidation:
    """Trials on the folds of one run's round 0; picklable, every worker opens its own.

    Attributes:
        run: with a labelled round 0.
        folder: where folds and trials are kept.
        weights: pretrained, published in the pool.
        objective: ``precision`` of u(x) and the loss prediction on held-out labels, or ``miou``
            on held-out images after one more round, which trains phase I once more per trial.
    """

    run: Run
    folder: Folder
    weights: PublishedWeights
    num_folds: int
    device: str
    objective: Objective = "precision"
    _fold_of: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        strategy = resolve(self.run.config.strategy)
        if not strategy.has_phase2:
            raise ConfigError(
                f"strategy {strategy.name} trains no phase II, so there is nothing to search; "
                "set strategy.name=madbal"
            )
        images = self.run.table("images")
        images = images.filter(pc.field("split") == self.run.config.data.pool_split)
        names = images["image_id"].to_pylist()
        if len(names) < 2 * self.num_folds:
            raise ConfigError(
                f"--folds {self.num_folds}: {len(names)} pool images are too few; use at least "
                "two images a fold"
            )
        order = rng.stream(self.run.config.seed, "folds").permutation(len(names))
        self._fold_of = {names[i]: rank % self.num_folds for rank, i in enumerate(order)}
        self._shard_ids = sorted(set(images["shard_id"].to_pylist()))

    @property
    def config(self) -> Config:
        """Return the run's settings; the last epoch counts, since the fold measures none."""
        config = self.run.config
        train = config.train.model_copy(update={"select": "last"})
        return config.model_copy(update={"train": train})

    def prepare(self, fold: int) -> None:
        """Train phase I of one fold, if it is not trained yet."""
        self._training(self.config, fold, None).run(self._context)

    def result(self, overrides: dict[str, Any], fold: int) -> FoldResult:
        """Return how phase II does under some settings on one fold; computed once.

        Args:
            overrides: keys of ``train.phase2`` -> values.
        """
        config = load_config(
            self.config, [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
        )
        phase1 = self._phase1(fold, self._labels(fold))
        if not phase1.is_done:
            self.prepare(fold)
        settings = {
            "phase2": config.train.phase2.result_settings(),
            "strategy": config.strategy.result_settings(),
        }
        if self.objective == "miou":
            settings["next_round"] = {
                name: getattr(config, name).result_settings()
                for name in ("budget", "score", "oracle", "evaluation")
            }
        output = StageDir.plan(
            self.folder / f"fold-{fold}", "trial", settings, {"phase1": phase1.marker().digest}
        )
        if not output.is_done:
            phase2 = StageDir.plan(
                self.folder / f"fold-{fold}", "phase2", settings, {"phase1": phase1.key}
            )
            self._training(config, fold, phase2).run(self._context)
            found = self._measure(config, fold, phase1, phase2)
            if self.objective == "miou":
                found = replace(found, miou=self._next_miou(config, fold, phase1, phase2))
            output.commit([output.write_file(RESULT_NAME, json.dumps(vars(found)).encode())], {})
        return FoldResult(**json.loads(output.folder.read(RESULT_NAME)))

    def _next_miou(self, config: Config, fold: int, phase1: StageDir, phase2: StageDir) -> float:
        following = NextRound(
            self.run,
            self.folder / f"fold-{fold}",
            self.weights,
            self._shard_ids,
            self._fold_settings(fold),
            lambda image_id: self._fold_of[image_id] == fold,
            self.device,
        )
        return following.miou(config, self._labels(fold), phase1, phase2)

    @property
    def _context(self) -> SingleWorker:
        return SingleWorker(torch.device(self.device), _say_nothing)

    def _fold_settings(self, fold: int) -> dict[str, int]:
        """Return what decides which images a fold holds out."""
        return {"fold": fold, "folds": self.num_folds, "seed": self.run.config.seed}

    def _labels(self, fold: int) -> StageDir:
        """Return the labels of round 0 without those of a fold's images."""
        source = self.run.stage("labels", 0)
        settings = self._fold_settings(fold)
        output = StageDir.plan(self.folder / f"fold-{fold}", "labels", settings, digests(source))
        if not output.is_done:
            files = []
            for shard_id in self._shard_ids:
                table = source.read_table("labels", [shard_id])
                kept = [self._fold_of[name] != fold for name in table["image_id"].to_pylist()]
                files.append(output.write_table("labels", shard_id, table.filter(kept)))
            output.commit(files, {})
        return output

    def _phase1(self, fold: int, labels: StageDir) -> StageDir:
        config = self.config
        train = config.train.result_settings()
        train.pop("phase2")
        settings = {
            "seed": config.seed,
            "model": config.model.result_settings(),
            "weights": self.weights.identity,
            "train": train,
        }
        inputs = digests(self.run.stage("images"), self.run.stage("superpixels"), labels)
        return StageDir.plan(self.folder / f"fold-{fold}", "phase1", settings, inputs)

    def _training(self, config: Config, fold: int, phase2: StageDir | None) -> TrainRound:
        run, labels = self.run, self._labels(fold)
        phase1 = self._phase1(fold, labels)
        unmeasured = EvaluateSplits(
            StageDir.plan(self.folder / f"fold-{fold}", "metrics", {}, {"phase1": phase1.key}),
            run.stage("images"),
            {},
            run.reader(),
            config.evaluation,
            num_classes=len(run.class_names),
            round_index=0,
            ledger=Ledger(num_images=1, num_pixels=1),
            use_bf16=config.train.precision == "bf16",
            threads=config.resources.decode_threads,
        )
        return TrainRound(
            config,
            0,
            resolve(config.strategy).supports,
            self.weights,
            len(run.class_names),
            run.reader(),
            run.stage("images"),
            run.stage("superpixels"),
            self._shard_ids,
            (labels,),
            None,
            phase1,
            phase2,
            unmeasured,
        )

    def _measure(self, config: Config, fold: int, phase1: StageDir, phase2: StageDir) -> FoldResult:
        """Look at every labelled pixel of the held-out images."""
        run, device = self.run, torch.device(self.device)
        network = load_network(
            config.model, len(run.class_names), phase1, phase2, resolve(config.strategy).supports
        ).to(device)
        network.set_phase("eval")
        options = ScoreOptions(config.strategy.normalize_terms, config.strategy.uncertainty)
        reader, parts = run.reader(), []
        for shard_id in self._shard_ids:
            labels = run.stage("labels", 0).read_table("labels", [shard_id])
            labels = labels.filter(pc.field("status") == "labelled").to_pandas()
            by_image = dict(iter(labels.groupby("image_id")))
            for image in read_images(run.stage("images"), shard_id):
                rows = by_image.get(image.image_id)
                if rows is None or self._fold_of[image.image_id] != fold:
                    continue
                input_image, work_image = reader.on_both_grids(image)
                found = explain_image(
                    network, input_image, work_image, options=options, device=device
                )
                y, x = rows["y"].to_numpy(), rows["x"].to_numpy()
                wrong = found.predictions["final"].numpy()[y, x] != rows["class_id"].to_numpy()
                parts.append(
                    (
                        wrong,
                        found.signals["score"].numpy()[y, x],
                        found.signals["predicted_error"].numpy()[y, x],
                    )
                )
        if not parts:
            raise LabelError(f"fold {fold} holds no labelled pixel; use fewer folds")
        wrong, score, error = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        if not wrong.any() or wrong.all():
            if self.objective == "miou":
                return FoldResult(math.nan, math.nan, float(wrong.mean()), len(wrong))
            raise LabelError(
                f"fold {fold}: the network gets {'every' if wrong.all() else 'no'} held-out pixel "
                "wrong, so precision says nothing; use fewer folds, or more labels in round 0"
            )
        return FoldResult(
            float(average_precision_score(wrong, score)),
            float(average_precision_score(wrong, error)),
            float(wrong.mean()),
            len(wrong),
        )
