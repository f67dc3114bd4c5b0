"""What a frozen head gains beside its labels: ``python -m benchmarks.few_points CONFIG --folder F WAY ...``.

A way is ``dropout=0.7,teacher=1``: fields of `Way`, comma between them; ``plain`` changes nothing. Labels are
those of one random round of CONFIG for each seed; the unlabelled points are random ones of every pool image
(``--unlabelled``), whose true classes only measure how often a teacher is right. Runs are kept in the folder.
"""  # noqa: E501

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from benchmarks.point_sets import PointSet, head_of
from madbal_ray import api
from madbal_ray.config.section import Section
from madbal_ray.config.training import PhaseConfig
from madbal_ray.engine.workers import SingleWorker
from madbal_ray.evaluation.evaluate import EvaluateSplits
from madbal_ray.labels.ledger import Ledger
from madbal_ray.models.network import SegmentationNetwork
from madbal_ray.runs.run import Run
from madbal_ray.training.objectives import View, WeightedCrossEntropy
from madbal_ray.training.optimizer import build_optimizer, rate_factor, scale_rates
from madbal_ray.training.point_matrix import PointBatch, PointBatchMaker

CPU = torch.device("cpu")
SINGLE = SingleWorker(CPU, lambda progress: None)
UNLABELLED_SEED = 1000
WARM_UP = 0.1
"""Share of the steps that learn from labels alone."""

DECAY = 0.99


class Way(Section):
    """What one head is trained with.

    Attributes:
        dropout: `model.dropout`.
        exponent: gamma of the class weights n_c^-gamma.
        steps: of phase I; None: the configuration's.
        average: measure the averaged weights in place of the last ones.
        teacher: weight of the averaged head's answers about unlabelled points, asked on the other
            side of the mirror and without dropout (Tarvainen & Valpola 2017).
        threshold: answers below this probability count nothing.
        spread: weight of the labels given to other points of their superpixels.
        agree: these count only where the head says the same.
        crf: weight of pairs of neighbours: the mean of 1 - p p', by how alike they look.
    """

    dropout: float = 0.3
    exponent: float = 0.5
    steps: int | None = None
    average: bool = False
    teacher: float = 0.0
    threshold: float = 0.8
    spread: float = 0.0
    agree: bool = True
    crf: float = 0.0


def parse_way(text: str) -> Way:
    """Read ``name=value,...``; ``plain`` is the default."""
    pairs = [part.split("=") for part in text.split(",") if text != "plain"]
    return Way.model_validate(dict(pairs))


class Average:
    """The running average of a head's weights and of its batch norms' statistics."""

    def __init__(self, network: SegmentationNetwork) -> None:
        self.network = copy.deepcopy(network)
        self.network.set_phase("eval")

    @torch.no_grad()
    def follow(self, network: SegmentationNetwork, step: int) -> None:
        """Take in the weights after one step, counted from 0."""
        decay = min(1 - 1 / (step + 1), DECAY)
        state = self.network.state_dict()
        for name, value in network.state_dict().items():
            if value.is_floating_point() and not name.startswith("backbone."):
                state[name].lerp_(value, 1 - decay)


class Trial:
    """Trains one head on the labels of one run, and on what a way takes from unlabelled points."""

    def __init__(self, labelled: PointSet, other: PointSet) -> None:
        self.labelled, self.other = labelled, other
        self.num_classes = len(labelled.run.class_names)
        class_of = dict(zip(labelled.code.tolist(), labelled.matrix.class_id, strict=True))
        given = np.array([class_of.get(code, -1) for code in other.code.tolist()])
        self.spread_rows = np.flatnonzero(given >= 0)
        self.spread_class = torch.from_numpy(given[given >= 0])

    def train(self, way: Way, seed: int) -> tuple[SegmentationNetwork, np.ndarray]:
        """Return the head, and of each class the teacher's answers [kept, right] (last half)."""
        config = self.labelled.run.config.train.phase1
        options = {"exponent": way.exponent}
        steps = way.steps or config.steps
        config = config.model_copy(update={"steps": steps, "objective_options": options})
        assert steps is not None
        torch.manual_seed(seed)
        generator = np.random.default_rng(seed)
        network = head_of(self.labelled.run, dropout=way.dropout, seed=seed)
        network.set_phase("phase1")
        optimizer, average = build_optimizer(network, config), Average(network)
        objective = WeightedCrossEntropy(config, SINGLE)
        maker = PointBatchMaker(matrix=self.labelled.matrix, seed=seed, round_index=0)
        objective.begin(maker.class_ids)
        answers = np.zeros((self.num_classes, 2), np.int64)

        def loss_of(rows: np.ndarray, said: Tensor, mirror: np.ndarray) -> Tensor:
            """Return the weighted loss of each unlabelled point, as if its class were known."""
            batch = replace(self.other.maker.batch_of(rows, mirror), class_id=said)
            return objective.of_points(View(network(batch.inputs(CPU), supports=False), batch))

        for step, batch in enumerate(batches(maker, config)):
            scale_rates(optimizer, rate_factor(config, step, 1, total=steps))
            view = View(network(batch.inputs(CPU), supports=False), batch)
            loss = objective.loss([view], progress=step / steps)
            size, is_warm = len(batch.class_id), step >= WARM_UP * steps
            if way.teacher and is_warm:
                rows = generator.integers(0, len(self.other.code), size)
                mirror = generator.random(size) < 0.5
                sure, said = self.other.ask(average.network, rows, ~mirror).max(dim=1)
                kept = sure >= way.threshold
                loss = loss + way.teacher * (loss_of(rows, said, mirror) * kept).mean()
                if step >= steps / 2:
                    answers += self._counts(rows, said.numpy(), kept.numpy())
            if way.spread and is_warm:
                chosen = generator.integers(0, len(self.spread_rows), size)
                rows, said = self.spread_rows[chosen], self.spread_class[chosen]
                mirror = generator.random(size) < 0.5
                of_point = loss_of(rows, said, mirror)
                if way.agree:
                    of_point = of_point * (self.other.ask(network, rows, mirror).argmax(1) == said)
                loss = loss + way.spread * of_point.mean()
            if way.crf and is_warm:
                chosen = generator.integers(0, len(self.other.pairs), size)
                likeness = torch.from_numpy(self.other.likeness[chosen])
                taps = self.other.matrix.taps(self.other.pairs[chosen].T.ravel())
                output = network(taps, supports=False).logits[:, :, 0, 0]
                first, second = output.softmax(dim=1).chunk(2)
                unlike = 1 - (first * second).sum(dim=1)
                loss = loss + way.crf * (likeness * unlike).sum() / likeness.sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            average.follow(network, step)
        return (average.network if way.average else network), answers

    def _counts(self, rows: np.ndarray, said: np.ndarray, is_kept: np.ndarray) -> np.ndarray:
        is_right = is_kept & (said == self.other.matrix.class_id[rows])
        counts = [np.bincount(said[one], minlength=self.num_classes) for one in (is_kept, is_right)]
        return np.stack(counts, axis=1)


def batches(maker: PointBatchMaker, config: PhaseConfig) -> Iterator[PointBatch]:
    """Yield the phase's batches, over as many epochs as it takes."""
    left, epoch = config.steps or 0, 0
    while left:
        of_epoch = maker.epoch("phase1", epoch, config.batch_points, rank=0, world_size=1)
        for views in islice(of_epoch, left):
            yield views[0]
            left -= 1
        epoch += 1


def measure(run: Run, network: SegmentationNetwork, split: str) -> float:
    """Return the mIoU on a split."""
    shards = run.stage("index").marker().summary["shards_of_split"]
    evaluation = EvaluateSplits(
        output=run.stage("metrics", 0),
        pool=replace(run.pool(), evaluation_shards={split: shards[split]}),
        config=run.config.evaluation,
        round_index=0,
        ledger=Ledger(num_images=1, num_pixels=1),
        use_bf16=False,
    )
    return evaluation.miou(network, SINGLE, split)


def main() -> None:
    """Run what is missing, then print one row for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("ways", nargs="+", type=parse_way, metavar="WAY")
    parser.add_argument("--folder", required=True)
    parser.add_argument("--pixels", type=int, default=20)
    parser.add_argument("--unlabelled", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--split", default="test")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()

    def gathered(pixels: int, seed: int) -> PointSet:
        run = api.run(
            options.config,
            run_dir=f"{options.folder}/{pixels}-px-seed-{seed}",
            engine="local",
            overrides=[
                f"pool.dir={options.folder}/pool",
                *options.overrides,
                *("num_rounds=1", "strategy.name=random", "train.mirrored_points=true"),
                *(f"seed={seed}", f"budget.initial_pixels_per_image={pixels}"),
            ],
        )
        return PointSet(run)

    other = gathered(options.unlabelled, UNLABELLED_SEED)
    if any(way.crf for way in options.ways):
        other.find_pairs()
    trials = [Trial(gathered(options.pixels, seed), other) for seed in range(options.seeds)]
    classes = other.run.class_names
    for way in options.ways:
        miou, answers = [], np.zeros((len(classes), 2), np.int64)
        for seed, trial in enumerate(trials):
            network, counted = trial.train(way, seed)
            miou.append(measure(trial.labelled.run, network, options.split))
            answers += counted
        each = ", ".join(f"{value:.4f}" for value in miou)
        name = ", ".join(
            f"{key} {value}" for key, value in way.model_dump(exclude_defaults=True).items()
        )
        print(f"{name or 'plain'}: {np.mean(miou):.4f} ({each})", flush=True)
        for name, (kept, right) in zip(classes, answers, strict=True):
            if kept:
                print(f"  the teacher said {name} {kept} times, right in {right / kept:.1%}")


if __name__ == "__main__":
    main()
