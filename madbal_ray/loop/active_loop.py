"""The rounds: the one place where the end of the loop is joined to its start.

round 0      random queries -> labels -> train
round r >= 1 ask with the weights of round r - 1 -> labels -> train
"""

from __future__ import annotations

import time

from madbal_ray.config.schema import Config
from madbal_ray.engine.contract import Engine
from madbal_ray.engine.progress import Progress
from madbal_ray.engine.stages import StageRunner
from madbal_ray.errors import ConfigError
from madbal_ray.evaluation.evaluate import EvaluateSplits
from madbal_ray.labels.answer_job import SimulateAnswers, annotator_noise
from madbal_ray.labels.ledger import Cost, Ledger
from madbal_ray.loop.ask import Acquisition, label_digests
from madbal_ray.loop.stop_rules import reason_to_stop
from madbal_ray.loop.versions import package_versions
from madbal_ray.models.trained import Phases
from madbal_ray.models.weights import publish_weights
from madbal_ray.pool.prepare import Pool, prepare_pool
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stage_dir import StageDir, digests, total_of
from madbal_ray.state.storage import Folder
from madbal_ray.strategies.registry import resolve
from madbal_ray.tracking.trackers import Trackers
from madbal_ray.training.job import FEW_LABELS, TrainRound


class ActiveLoop:
    """One run, from pool preparation to the last round's metrics."""

    def __init__(
        self,
        config: Config,
        run_dir: RunDir,
        engine: Engine,
        progress: Progress,
        *,
        device: str,
        stop_after: tuple[str, int | None] | None = None,
    ) -> None:
        self.config = config
        self.strategy = resolve(config.strategy)
        self.run_dir = run_dir
        self.progress = progress
        self.device = device
        self.trackers = Trackers(config, run_dir, progress.say)
        self.runner = StageRunner(run_dir, engine, progress, self.trackers, stop_after)
        self.labels: tuple[StageDir, ...] = ()
        self.phases: Phases | None = None

    def run(self) -> None:
        """Do everything that is not done yet."""
        started = time.perf_counter()
        self.run_dir.append_event(
            "run_started",
            num_rounds=self.config.num_rounds,
            versions=package_versions(),
            device=self.device,
        )
        self.told_rounds = {
            event["round"] for event in self.run_dir.events() if event["event"] == "round_finished"
        }
        is_finished = False
        try:
            self._run()
            is_finished = True
        finally:
            self.trackers.close(is_finished=is_finished)
        seconds = round(time.perf_counter() - started, 3)
        self.run_dir.append_event("run_finished", seconds=seconds)

    def _run(self) -> None:
        config = self.config
        self.run_dir.clear_stopped()
        self.pool_folder = self.run_dir.pool_folder(config)
        self.weights = publish_weights(
            config.model.weights, config.model.backbone, self.pool_folder, option="model.weights"
        )
        pool = prepare_pool(config, self.pool_folder, self.runner, self.device)
        acquisition = Acquisition(config, self.strategy, pool, self.runner, self.device)
        ledger = Ledger(num_images=pool.num_images, num_pixels=pool.num_pixels)
        history: list[dict] = []
        for round_index in range(config.num_rounds):
            self.runner.round_index = round_index
            folder = self._folder(round_index)
            if self.phases is None:
                queries = acquisition.initial(folder)
            else:
                queries = acquisition.ask(folder, round_index, self.labels, self.phases)
            ledger = self._label(pool, queries, ledger, round_index)
            history += self._train(pool, ledger, round_index)
            self.run_dir.append_event("round_finished", round=round_index)
            reason = reason_to_stop(config.stop, history)
            if reason is not None:
                self.run_dir.mark_stopped(round_index, reason)
                self.progress.say(f"stopped after round {round_index}: {reason}")
                break
            if round_index + 1 < config.num_rounds:
                self.runner.stop_where_asked("train")

    def _folder(self, round_index: int) -> Folder:
        """Return where a round's stages lie.

        What round 0 asks and trains depends on the seed and not on the strategy. It lies in
        the pool, under its keys, so that all strategies of a seed start from the same labels
        and the same weights, computed once.
        """
        return (
            self.pool_folder / "round0"
            if round_index == 0
            else self.run_dir.round_folder(round_index)
        )

    def _label(self, pool: Pool, queries: StageDir, ledger: Ledger, round_index: int) -> Ledger:
        """Ask the oracle; return the ledger after it, asserted against queries and labels."""
        oracle = self.config.oracle
        output = StageDir.plan(
            self._folder(round_index),
            "labels",
            oracle.result_settings() | {"seed": self.config.seed, "round": round_index},
            digests(pool.images, pool.superpixels, queries) | label_digests(self.labels),
        )
        self.runner.map(
            SimulateAnswers(
                output,
                pool.reader,
                self.config.resources.decode_threads,
                pool.images,
                pool.superpixels,
                queries,
                self.labels,
                annotator_noise(oracle.noise, pool.num_classes),
                self.config.seed,
                round_index,
            ),
            pool.shard_ids,
            total=pool.num_images,
        )
        self.labels = (*self.labels, output)
        names = ("pixels", "regions", "clicks", "void")
        answers = Cost(**{name: total_of(output, name) for name in names})
        return ledger.add_round(num_queries=total_of(queries, "asked"), answers=answers)

    def _train(self, pool: Pool, ledger: Ledger, round_index: int) -> list[dict]:
        """Train both phases on all labels so far; return what the result measures."""
        config = self.config
        job = self._training_job(pool, ledger, round_index)
        outputs = [job.phase1, job.evaluation.output]
        if job.phase2 is not None:
            outputs.append(job.phase2)
        self.runner.train(job, outputs)
        self.phases = (job.phase1, job.phase2)
        if job.phase2 is not None:
            few = job.phase2.marker().summary["classes_with_few_labels"]
            if few:
                names = ", ".join(pool.class_names[class_id] for class_id in few)
                self.progress.say(
                    f"round {round_index}: fewer than {FEW_LABELS} labels of: {names}"
                )
        rows = job.evaluation.output.read_table("metrics").to_pylist()
        rows = [row for row in rows if row["selection"] == config.train.select]
        if round_index not in self.told_rounds:
            self.trackers.on_metrics(rows)
        for row in rows:
            miou = "undefined" if row["miou"] is None else f"{row['miou']:.4f}"
            self.progress.say(
                f"round {round_index}: {row['labels_per_image']:g} labels per image, "
                f"mIoU on {row['split']} {miou}"
            )
        return rows

    def _training_job(self, pool: Pool, ledger: Ledger, round_index: int) -> TrainRound:
        config, folder = self.config, self._folder(round_index)
        previous = self.phases if config.train.init == "previous" else None
        settings = {
            "seed": config.seed,
            "round": round_index,
            "model": config.model.result_settings(),
            "weights": self.weights.identity,
            "classes": list(pool.class_names),
            "train": config.train.result_settings(),
        }
        phase2_settings = {
            "phase2": settings["train"].pop("phase2"),
            "supports": self.strategy.supports,
        }
        inputs = digests(pool.images, pool.superpixels) | label_digests(self.labels)
        for stage in previous or ():
            if stage is not None:
                inputs[f"previous_{stage.stage}"] = stage.marker().digest
        measured = config.evaluation.result_settings() | {"splits": sorted(pool.evaluation_shards)}
        if config.train.select == "best":
            self._check_select_split(pool)
            settings["evaluation"] = measured
        phase1 = StageDir.plan(folder / "train", "phase1", settings, inputs)
        keyed = inputs | {"phase1": phase1.key}
        phase2 = None
        if self.strategy.has_phase2:
            phase2 = StageDir.plan(
                self.run_dir.round_folder(round_index) / "train", "phase2", phase2_settings, keyed
            )
        evaluation = EvaluateSplits(
            StageDir.plan(folder, "metrics", measured, keyed),
            pool.images,
            pool.evaluation_shards,
            pool.reader,
            config.evaluation,
            num_classes=pool.num_classes,
            round_index=round_index,
            ledger=ledger,
            use_bf16=config.train.precision == "bf16",
            threads=config.resources.decode_threads,
        )
        return TrainRound(
            config,
            round_index,
            self.strategy.supports,
            self.weights,
            pool.num_classes,
            pool.reader,
            pool.images,
            pool.superpixels,
            pool.shard_ids,
            self.labels,
            previous,
            phase1,
            phase2,
            evaluation,
        )

    def _check_select_split(self, pool: Pool) -> None:
        split = self.config.train.select_split
        if split not in pool.evaluation_shards:
            raise ConfigError(
                f"train.select_split = {split!r} is not measured; splits that are: "
                f"{', '.join(pool.evaluation_shards) or 'none'}"
            )
