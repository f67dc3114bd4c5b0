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
from madbal_ray.errors import ConfigError, LabelError
from madbal_ray.models.trained import TrainedPhases, load_network
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.pool.reader import read_images
from madbal_ray.runs.run import Run
from madbal_ray.scoring.explain_image import explain_image
from madbal_ray.scoring.registry import ScoreOptions
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from madbal_ray.strategies.strategy import resolve
from madbal_ray.studies.held_out_round import Fold, HeldOut

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
        train = config.train.model_copy(update={"keep_epoch": "last"})
        return config.model_copy(update={"train": train})

    def prepare(self, fold: int) -> None:
        """Train phase I of one fold, if it is not trained yet."""
        self._phase1(fold)

    def result(self, overrides: dict[str, Any], fold: int) -> FoldResult:
        """Return how phase II does under some settings on one fold; computed once.

        Args:
            overrides: keys of ``train.phase2`` -> values.
        """
        config = load_config(
            self.config, [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
        )
        phase1 = self._phase1(fold)
        settings = {
            "phase2": config.train.phase2.result_settings(),
            "strategy": config.strategy.result_settings(),
        }
        if self.objective == "miou":
            settings["next_round"] = {
                name: getattr(config, name).result_settings()
                for name in ("budget", "score", "oracle", "evaluation")
            }
        output = StageDir.plan(self._folder(fold), "trial", settings, {"phase1": phase1.digest()})
        if not output.is_done:
            held_out = self._held_out(fold)
            history = held_out.train(config, self.device)
            assert history.network is not None
            result = self._measure(config, fold, history.network)
            if self.objective == "miou":
                result = replace(result, miou=held_out.next_miou(config, history, self.device))
            output.commit([output.write_file(RESULT_NAME, json.dumps(vars(result)).encode())], {})
        return FoldResult(**json.loads(output.folder.read(RESULT_NAME)))

    def _folder(self, fold: int) -> Folder:
        return self.folder / f"fold-{fold}"

    def _fold(self, fold: int) -> Fold:
        held_out = frozenset(name for name, number in self._fold_of.items() if number == fold)
        settings = {"fold": fold, "folds": self.num_folds, "seed": self.run.config.seed}
        return Fold(held_out, settings)

    def _held_out(self, fold: int) -> HeldOut:
        return HeldOut(self.run, self._folder(fold), self._fold(fold), self.weights)

    def _phase1(self, fold: int) -> StageDir:
        """Return phase I of a fold, trained; all trials share it."""
        history = self._held_out(fold).train(self.config, self.device, only_phase1=True)
        assert history.network is not None
        return history.network.phase1

    def _measure(self, config: Config, fold: int, network: TrainedPhases) -> FoldResult:
        """Look at every labelled pixel of the held-out images."""
        run, device = self.run, torch.device(self.device)
        supports = resolve(config.strategy).supports
        trained = load_network(config.model, len(run.class_names), network, supports).to(device)
        trained.set_phase("eval")
        options = ScoreOptions(config.strategy.normalize_terms, config.strategy.uncertainty)
        pool, parts = run.pool(), []
        for shard_id in self._shard_ids:
            labels = run.stage("labels", 0).read_table("labels", [shard_id])
            labels = labels.filter(pc.field("status") == "labelled").to_pandas()
            by_image = dict(iter(labels.groupby("image_id")))
            for image in read_images(run.stage("images"), shard_id):
                rows = by_image.get(image.image_id)
                if rows is None or self._fold_of[image.image_id] != fold:
                    continue
                explanation = explain_image(
                    trained, *pool.input_and_boundary(image), options=options, device=device
                )
                y, x = rows["y"].to_numpy(), rows["x"].to_numpy()
                wrong = (
                    explanation.predictions["final"].numpy()[y, x] != rows["class_id"].to_numpy()
                )
                parts.append(
                    (
                        wrong,
                        explanation.signals["score"].numpy()[y, x],
                        explanation.signals["predicted_error"].numpy()[y, x],
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
