"""The rounds: the one place where the end of the loop is joined to its start.

round 0      random queries -> labels -> train
round r >= 1 ask with the network of round r - 1 -> labels -> train
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from madbal_ray.config.schema import Config
from madbal_ray.engine.contract import Engine
from madbal_ray.engine.progress import Progress
from madbal_ray.engine.stages import StageRunner
from madbal_ray.loop.evaluation_points import EvaluationPoints
from madbal_ray.loop.history import History
from madbal_ray.loop.round import Round
from madbal_ray.loop.stop_rules import check_stop_split, reason_to_stop
from madbal_ray.loop.versions import command_line, package_versions
from madbal_ray.models.backbones import check_backbone
from madbal_ray.models.trained import TrainedPhases
from madbal_ray.models.weights import publish_weights
from madbal_ray.pool.prepare import prepare_pool
from madbal_ray.pool.prepared import Pool
from madbal_ray.seams import ORACLES
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.signature import sign
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.strategies.strategy import resolve
from madbal_ray.tracking.trackers import Trackers
from madbal_ray.training.job import FEW_LABELS


def run_loop(
    config: Config,
    run_dir: RunDir,
    engine: Engine,
    progress: Progress,
    *,
    stop_after: tuple[str, int | None] | None = None,
    key: bytes | None = None,
) -> None:
    """Do everything of a run that is not done yet, from the pool to the last round's metrics.

    Args:
        key: that every finished round is signed with.
    """
    started = time.perf_counter()
    run_dir.append_event(
        "run_started",
        num_rounds=config.num_rounds,
        versions=package_versions(),
        device=engine.device,
        command=command_line(),
    )
    trackers = Trackers(config, run_dir, progress.say)
    runner = StageRunner(run_dir, engine, progress, trackers, stop_after)
    is_finished = False
    try:
        told = _Told(config, run_dir, trackers)
        _run_rounds(config, run_dir, runner, engine.device, told, key)
        is_finished = True
    finally:
        trackers.close(is_finished=is_finished)
    run_dir.append_event("run_finished", seconds=round(time.perf_counter() - started, 3))


def _run_rounds(
    config: Config,
    run_dir: RunDir,
    runner: StageRunner,
    device: str,
    told: _Told,
    key: bytes | None,
) -> None:
    run_dir.clear_stopped()
    for remark in resolve(config.strategy).remarks(config):
        runner.progress.say(f"warning: {remark}")
    check_backbone(config.model)
    shared = run_dir.pool_folder(config)
    weights = publish_weights(
        config.model.weights, config.model.backbone, shared, option="model.weights"
    )
    pool = prepare_pool(config, shared, runner, device, weights=weights)
    check_stop_split(config.stop, pool.evaluation_shards)
    points = None
    if pool.points_split is not None:
        points = EvaluationPoints(
            config=config, run_dir=run_dir, folder=run_dir.folder / "evaluation", runner=runner
        )
        pool = points.hold(pool)
    # Held points are the run's own too: another run may ask for them.
    shares_start = not ORACLES[config.oracle.kind].asks_people and pool.points_split is None
    history, metrics = History.before(pool), ()
    for index in range(config.num_rounds):
        own, at_round = run_dir.round_folder(index), runner.of_round(index)
        current = Round(
            config=config,
            pool=pool,
            index=index,
            runner=at_round,
            # Round 0 depends on the seed and not on the strategy: it lies in the pool, so that
            # all strategies of a seed start from the same labels and weights, computed once. What
            # people say is said to one run.
            folder=shared / "round0" if index == 0 and shares_start else own,
            own_folder=own,
            weights=weights,
            device=device,
            run_dir=run_dir,
        )
        queries = current.ask(history)
        history = current.label(queries, history)
        if points is not None and pool.evaluation_points is None:
            pool = points.answered(pool)
            current = replace(current, pool=pool)
        history, measured = current.train(history)

        if key is not None:
            sign(run_dir, key, index + 1)
        metrics = (*metrics, *told.of_round(index, pool, history.network, measured))
        reason = reason_to_stop(config.stop, metrics)
        if reason is not None:
            run_dir.mark_stopped(index, reason)
            runner.progress.say(f"stopped after round {index}: {reason}")
            return
        if index + 1 < config.num_rounds:
            at_round.stop_where_asked("train")


class _Told:
    """Tells people and trackers how a round ended, trackers once in the life of a run."""

    def __init__(self, config: Config, run_dir: RunDir, trackers: Trackers) -> None:
        self.config, self.run_dir, self.trackers = config, run_dir, trackers
        self.known = {
            event["round"] for event in run_dir.events() if event["event"] == "round_finished"
        }

    def of_round(
        self, index: int, pool: Pool, network: TrainedPhases | None, measured: StageDir
    ) -> Sequence[Mapping[str, Any]]:
        """Return the rows of table `metrics` that count."""
        say = self.trackers.say
        for stage in network.stages if network is not None else ():
            few = stage.marker().summary.get("classes_with_few_labels")
            if few:
                names = ", ".join(pool.class_names[class_id] for class_id in few)
                say(f"round {index}: fewer than {FEW_LABELS} labels of: {names}")
        rows = measured.read_table("metrics").to_pylist()
        rows = [row for row in rows if row["selection"] == self.config.train.keep_epoch]
        if index not in self.known:
            self.trackers.on_metrics(rows)
        for row in rows:
            miou = "undefined" if row["miou"] is None else f"{row['miou']:.4f}"
            void = row["num_void"] / max(1, row["num_clicks"])
            say(
                f"round {index}: {row['labels_per_image']:g} labels per image, "
                f"{void:.1%} of them void, mIoU on {row['split']} {miou}"
            )
        self.run_dir.append_event("round_finished", round=index)
        return rows
