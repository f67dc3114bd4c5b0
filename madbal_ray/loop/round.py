"""One round: ask, label, train. The only place that builds the jobs of a round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from madbal_ray.config.schema import Config
from madbal_ray.engine.stages import JobRunner
from madbal_ray.errors import ConfigError
from madbal_ray.evaluation.evaluate import EvaluateSplits
from madbal_ray.labels.answer_job import AnswerQueries
from madbal_ray.labels.ledger import Cost
from madbal_ray.labels.oracle import Enquiry
from madbal_ray.loop.history import History
from madbal_ray.loop.image_comparison import compare_images
from madbal_ray.loop.round_stages import RoundStages
from madbal_ray.models.trained import TrainedPhases
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.pool.prepared import Pool
from madbal_ray.scoring.job import ScoreShards
from madbal_ray.seams import ORACLES
from madbal_ray.selection.asking import Asking, label_digests
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stage_dir import StageDir, digests, total_of
from madbal_ray.state.storage import Folder
from madbal_ray.strategies.chance import INITIAL_POOL
from madbal_ray.strategies.strategy import Strategy, resolve
from madbal_ray.training.batches import SHARING
from madbal_ray.training.checkpoint import Checkpoint
from madbal_ray.training.job import TrainRound
from madbal_ray.training.point_features_job import GatherPoints


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round on a prepared pool.

    Attributes:
        index: 0 for the round that asks by chance.
        runner: completes stages.
        folder: of stages that only the seed decides (round 0), or of the round.
        own_folder: of what the strategy decides, phase II among it.
        weights: pretrained.
        run_dir: whose round it is; None: that of a study, which can wait for nobody.
    """

    config: Config
    pool: Pool
    index: int
    runner: JobRunner
    folder: Folder
    own_folder: Folder
    weights: PublishedWeights
    device: str
    run_dir: RunDir | None = None

    @property
    def strategy(self) -> Strategy:
        """Return the strategy of the configuration."""
        return resolve(self.config.strategy)

    def ask(self, history: History) -> StageDir:
        """Return stage `select`: by chance before there is a network, else as the strategy says."""
        asking = self._asking(history)
        if history.network is None:
            return INITIAL_POOL.run(asking)
        if self.strategy.scores_pool:
            asking = replace(asking, score=self.score(history))
        if steps := self.strategy.comparing_steps(self.config):
            asking = replace(asking, score=compare_images(asking, self.runner, self.folder, steps))
        return self.strategy.run(asking)

    def score(self, history: History) -> StageDir:
        """Return stage `score`: one pass of the network over the pool."""
        config, pool, strategy = self.config, self.pool, self.strategy
        assert history.network is not None
        clusters = strategy.group(self._asking(history))
        num_clusters = strategy.num_clusters(config)
        settings = {
            "model": config.model.result_settings(),
            "score": config.score.result_settings(),
            "strategy": config.strategy.result_settings(),
            "budget": config.budget.most_per_image,
            "num_clusters": num_clusters,
            "skip_void": config.oracle.skip_void,
            "seed": config.seed,
        }
        used = (pool.images, pool.superpixels, clusters, *history.network.stages)
        output = self.runner.plan(
            self.folder, "score", settings, digests(*used) | label_digests(self._asked(history))
        )
        job = ScoreShards(
            output=output,
            pool=pool,
            clusters=clusters,
            phases=history.network,
            labels=self._asked(history),
            model=config.model,
            config=config.score,
            plan=strategy.plan(config, num_classes=pool.num_classes, round_index=self.index),
            supports=strategy.supports,
            num_clusters=num_clusters,
            skip_void=config.oracle.skip_void,
            device=self.device,
        )
        self.runner.map(job, pool.shard_ids, total=pool.num_images)
        return output

    def label(self, queries: StageDir, history: History) -> History:
        """Put the queries to the oracle; return the history with its answers.

        Raises:
            AnswersPending: somebody has not answered yet.
            LabelError: answers, queries and ledger disagree.
        """
        config, pool = self.config, self.pool
        oracle = ORACLES[config.oracle.kind](config, pool.num_classes)
        asked = set(queries.shards_with("queries"))
        asked.update(*(stage.shards_with("labels") for stage in history.labels))
        oracle.prepare(
            Enquiry(
                run_dir=self.run_dir,
                folder=self.folder,
                purpose="training",
                round_index=self.index,
                pool=pool,
                shard_ids=sorted(asked),
                queries=queries,
                earlier=history.labels,
                runner=self.runner,
            )
        )
        output = self.runner.plan(
            self.folder,
            "labels",
            config.oracle.result_settings() | {"seed": config.seed, "round": self.index},
            digests(pool.images, pool.superpixels, queries, *oracle.reads)
            | label_digests(history.labels),
        )
        job = AnswerQueries(
            output=output,
            pool=pool,
            queries=queries,
            earlier_labels=history.labels,
            oracle=oracle,
            oracle_name=config.oracle.kind,
            round_index=self.index,
        )
        asked_shards = sorted({*queries.shards_with("queries"), *oracle.late_shards()})
        self.runner.map(job, asked_shards, total=total_of(queries, "images"))
        answers = Cost(**{name: total_of(output, name) for name in vars(Cost())})
        ledger = history.ledger.add_round(
            num_queries=total_of(queries, "asked"),
            answers=answers,
            waiting=total_of(output, "waiting"),
            late=total_of(output, "late"),
        )
        return replace(history, labels=(*history.labels, output), ledger=ledger)

    def train(self, history: History, *, only_phase1: bool = False) -> tuple[History, StageDir]:
        """Train on all labels so far; return the history with the network, and `metrics`."""
        config, pool = self.config, self.pool
        if config.model.learns_from_points:
            history = self._gather(history)
        previous = history.network if config.train.init == "previous" else None
        inputs = digests(pool.images, pool.superpixels) | label_digests(history.labels)
        if pool.tap_statistics is not None:
            inputs |= digests(pool.tap_statistics)
        for stage in previous.stages if previous is not None else ():
            inputs[f"previous_{stage.stage}"] = stage.digest()
        head, phases = self._plan_phases(inputs, only_phase1=only_phase1)
        measured = EvaluateSplits(
            output=self.runner.plan(
                self.folder, "metrics", self._measured(), inputs | {"phase1": phases.phase1.key}
            ),
            pool=pool,
            config=config.evaluation,
            round_index=self.index,
            ledger=history.ledger,
            use_bf16=config.train.precision == "bf16",
        )
        job = TrainRound(
            config=config,
            round_index=self.index,
            supports=self.strategy.supports,
            weights=self.weights,
            pool=pool,
            labels=history.labels,
            points=history.points,
            previous=previous,
            head=head,
            phases=phases,
            evaluation=measured,
        )
        heads = [head] if head is not None else []
        fresh = [stage for stage in (*heads, *phases.stages) if not self._is_known(stage)]
        self.runner.train(job, [*heads, phases.phase1, measured.output, *phases.stages[1:]])
        for stage in fresh:  # whoever was killed between a commit and this left it
            Checkpoint.delete(stage)
        return replace(history, network=phases), measured.output

    def _is_known(self, stage: StageDir) -> bool:
        return self.run_dir is None or self.run_dir.check(stage, self.index) is not None

    def _gather(self, history: History) -> History:
        """Complete `point_features` of the labels that have none yet: of this round, as a rule."""
        config, pool = self.config, self.pool
        assert pool.tap_statistics is not None
        for index in range(len(history.points), len(history.labels)):
            labels = history.labels[: index + 1]
            most, mirrored = config.train.points_per_image, config.train.mirrored_points
            settings = {"points_per_image": most, "seed": config.seed, "round": index}
            settings |= {"mirrored": True} if mirrored else {}
            inputs = digests(pool.images, pool.superpixels, pool.tap_statistics)
            inputs |= label_digests(labels)
            output = self.runner.plan(self.folder, "point_features", settings, inputs)
            job = GatherPoints(
                output=output,
                pool=pool,
                labels=labels,
                model=config.model,
                weights=self.weights,
                use_bf16=config.score.precision == "bf16",
                num_threads=config.score.threads_per_worker,
                round_index=index,
                most=most,
                mirrored=mirrored,
                seed=config.seed,
                device=self.device,
            )
            self.runner.map(job, labels[-1].shards_with("labels"), total=None)
            history = replace(history, points=(*history.points, output))
        return history

    def _plan_phases(
        self, inputs: Mapping[str, str], *, only_phase1: bool
    ) -> tuple[StageDir | None, TrainedPhases]:
        """Return the stage that trains the head beforehand, where there is one, and the phases."""
        config, pool, folder = self.config, self.pool, self.folder / "train"
        train = config.train.result_settings()
        second = {"phase2": train.pop("phase2"), "supports": self.strategy.supports}
        first = {
            "seed": config.seed,
            "round": self.index,
            "model": config.model.result_settings(),
            "weights": self.weights.identity,
            "classes": list(pool.class_names),
            "train": train,
        }
        if config.train.num_workers > 1:
            first["sharing"] = SHARING
        head = None
        if config.train.init == "frozen_head":
            alone = {name: value for name, value in train.items() if name != "phase1"}
            head = self.runner.plan(folder, "frozen_head", first | {"train": alone}, inputs)
        if config.train.keep_epoch == "best":
            split, measured = config.train.select_split, pool.evaluation_shards
            if split not in measured:
                raise ConfigError(
                    f"train.select_split = {split!r} is not measured; splits that are: "
                    f"{', '.join(measured) or 'none'}"
                )
            first["evaluation"] = self._measured()
        of_head = {"frozen_head": head.key} if head is not None else {}
        phase1 = self.runner.plan(folder, "phase1", first, {**inputs, **of_head})
        phase2 = None
        if self.strategy.has_phase2 and not only_phase1:
            phase2 = self.runner.plan(
                self.own_folder / "train", "phase2", second, {**inputs, "phase1": phase1.key}
            )
        return head, TrainedPhases(phase1, phase2)

    def _measured(self) -> dict[str, Any]:
        """Return what the metrics depend on beside the network."""
        pool = self.pool
        settings = self.config.evaluation.result_settings()
        settings["splits"] = sorted(pool.evaluation_shards)
        if pool.evaluation_images is not None:
            settings["images"] = pool.evaluation_images.digest()
        if pool.evaluation_points is not None:
            settings["answers"] = pool.evaluation_points.digest()
        return settings

    def _asked(self, history: History) -> tuple[StageDir, ...]:
        """Return what may not be asked again: labels, and points that are only measured on."""
        held = self.pool.held_points
        return history.labels if held is None else (*history.labels, held)

    def _asking(self, history: History) -> Asking:
        return Asking(
            config=self.config,
            pool=self.pool,
            round_index=self.index,
            labels=self._asked(history),
            score=None,
            stages=RoundStages(self.runner, self.folder, self.pool),
        )
