"""Recomputing what a run promises: files, keys, ledger, selection, answers, metrics.

The run is walked through as `active_loop` walks, on a runner that checks (`replay`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from madbal_ray.config.schema import Config
from madbal_ray.errors import IntegrityError, MadbalError, one_line
from madbal_ray.labels.ledger import Cost
from madbal_ray.labels.requests import request_pixels
from madbal_ray.loop.evaluation_points import EvaluationPoints
from madbal_ray.loop.history import History
from madbal_ray.loop.launch import local_device
from madbal_ray.loop.recall import recall_data_set, recall_index, recall_weights
from madbal_ray.loop.replay import NotFinished, Replay, place
from madbal_ray.loop.round import Round
from madbal_ray.loop.spent import check_costs, cost_of_answers
from madbal_ray.loop.stop_rules import reason_to_stop
from madbal_ray.models.trained import TrainedPhases
from madbal_ray.models.weights import NONE, PublishedWeights
from madbal_ray.pool.prepare import prepare_inspected
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import ImageReader
from madbal_ray.seams import ORACLES
from madbal_ray.state.run_dir import STOPPED_NAME, RunDir
from madbal_ray.state.signature import check_signature
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder


def verify_run(run_dir: RunDir, *, deep: bool = False, key: bytes | None = None) -> Iterator[str]:
    """Check a run part by part; yield one line for each part that holds, the result last.

    Args:
        deep: also run the networks again, over some shards and the evaluation splits.
        key: that the run was signed with; None: a signature is not looked at.

    Raises:
        IntegrityError: names the first mismatch.
        LabelError: labels and queries disagree.
    """
    config = run_dir.config()
    pointers = sorted(run_dir.pointers(), key=lambda one: (one[1] is not None, one[1] or 0, one[0]))
    yield f"files: {_verify_files(run_dir, pointers)} match their markers"
    if key is not None:
        yield _signed(run_dir, key)
    walk = _Walk(config, run_dir, deep=deep)
    missing = None
    try:
        yield from walk.lines()
    except NotFinished as stopped:
        missing = str(stopped)
    except MadbalError:
        raise
    except Exception as error:  # of any kernel: it was given what no stage writes
        raise IntegrityError(
            f"{run_dir}: what is stored does not fit together, so nothing can be computed from it "
            f"({type(error).__name__}: {one_line(error)})"
        ) from error
    left = [pointer for pointer in pointers if pointer not in walk.replay.visited]
    if left:
        name, round_index = left[0]
        raise IntegrityError(
            f"{run_dir}: {missing or 'the configuration asks for no such stage'}, but {name} of "
            f"{place(round_index)} is there: something was removed, or the configuration changed"
        )
    told = [event["round"] for event in run_dir.events() if event["event"] == "round_finished"]
    if told and max(told) >= walk.finished:
        raise IntegrityError(
            f"{run_dir}: {missing or 'it ends earlier'}, but its events say that round {max(told)} "
            "was finished: something was removed"
        )
    if run_dir.stopped() not in (None, walk.stopped):
        raise IntegrityError(
            f"{run_dir.folder}/{STOPPED_NAME} says {run_dir.stopped()}, the metrics and the "
            f"configuration give {walk.stopped or 'no stop'}"
        )
    kept = ", ".join(walk.replay.kept)
    whole = "verified" if walk.is_whole else "verified as far as the run goes"
    yield f"{whole}: {walk.finished} of {config.num_rounds} rounds; taken as stored: {kept}"


def _signed(run_dir: RunDir, key: bytes) -> str:
    rounds = check_signature(run_dir, key)
    if rounds is None:
        raise IntegrityError(
            f"{run_dir} is not signed: `madbal run` signs with --key-file, after every round"
        )
    return f"signature: the pool and the first {rounds} rounds are those that were signed"


def _verify_files(run_dir: RunDir, pointers: list[tuple[str, int | None]]) -> int:
    count = 0
    for name, round_index in pointers:
        stage = _stored(run_dir, name, round_index)
        problem = stage.verify_files()
        if problem is not None:
            raise IntegrityError(problem)
        count += len(stage.marker().files)
    return count


def _stored(run_dir: RunDir, name: str, round_index: int | None) -> StageDir:
    stage = run_dir.find(name, round_index)
    if stage is None:
        raise NotFinished(name, round_index)
    return stage


class _Walk:
    """From the pool to the last round, as far as the run has come.

    Attributes:
        finished: rounds that were walked through.
        is_whole: all of them, or all up to where a stop rule ended the run.
        stopped: where that is, and why.
    """

    def __init__(self, config: Config, run_dir: RunDir, *, deep: bool) -> None:
        self.config, self.run_dir, self.deep = config, run_dir, deep
        self.device = local_device(config.resources.device)
        self.replay = Replay(run_dir=run_dir, device=self.device, deep=deep, has_images=False)
        self.replay.kept.update({"index": None, "images": None})
        self.finished, self.is_whole = 0, False
        self.stopped: dict[str, Any] | None = None

    def lines(self) -> Iterator[str]:
        """Check everything in order; yield what held.

        Raises:
            NotFinished: the run goes no further.
            IntegrityError, LabelError: the first mismatch.
        """
        config, run_dir = self.config, self.run_dir
        index, images = (_stored(run_dir, name, None) for name in ("index", "images"))
        shared = Folder(index.folder.uri.rsplit("/", 2)[0])
        reader, how = recall_data_set(config, shared, index)
        yield how
        self.replay = replace(self.replay, has_images=reader is not None)
        recall_index(config, self.replay, shared, index, images)
        if run_dir.find("predictions", 0) is not None:  # by `madbal predict`: taken as stored
            names = [name for name, index in run_dir.pointers() if index == 0]
            self.replay.visited.update((name, 0) for name in names)
            self.replay.kept.update(dict.fromkeys(names))
            self.finished, self.is_whole = 1, True
            return
        has_no_masks = config.data.name == "images" and ORACLES[config.oracle.kind].needs_masks
        is_scored = has_no_masks or run_dir.find("score", 0) is not None  # by `madbal score`
        weights = self._weights(shared)
        pool = prepare_inspected(
            config,
            shared,
            self.replay,
            reader or ImageReader(shared, {}, config.data.max_pixels, config.data.max_bytes),
            index,
            images,
            self.device,
            class_names=tuple(index.marker().summary["class_names"]),
            weights=None if is_scored else weights,
            needs_masks=not is_scored,
            publish=self._features_weights,
        )
        yield from self._sampled(self.replay)
        points = None
        if pool.points_split is not None:
            points = EvaluationPoints(
                config=config, run_dir=run_dir, folder=shared, runner=self.replay
            )
            pool = points.drawn(pool)
            self._requests(self.replay, pool, "evaluation_points")
        if is_scored:
            yield from self._scored(pool)
            return
        yield from self._rounds(pool, points, weights, shared)

    def _rounds(
        self, pool: Pool, points: EvaluationPoints | None, weights: PublishedWeights, shared: Folder
    ) -> Iterator[str]:
        config, run_dir = self.config, self.run_dir
        history, metrics, spent = History.before(pool), (), Cost()
        for index in range(config.num_rounds):
            replay = self.replay.of_round(index)
            current = Round(
                config=config,
                pool=pool,
                index=index,
                runner=replay,
                folder=shared,
                own_folder=shared,
                weights=weights,
                device=self.device,
                run_dir=run_dir,
            )
            answers = cost_of_answers(run_dir, index, history.labels, pool)
            if answers is not None:
                spent += answers
                check_costs(run_dir, index, spent)
                yield (
                    f"round {index}: {answers.regions} labels answer the queries; {spent.pixels} "
                    f"pixels and {spent.clicks} clicks in all"
                )
            queries = current.ask(history)
            yield self._selection(replay, index)
            self._requests(replay, pool, "select")
            history = current.label(queries, history)
            yield f"round {index}: {self._answered(replay)}"
            if points is not None and pool.evaluation_points is None:
                pool = points.answered(pool)
                current = replace(current, pool=pool)
            history, measured = current.train(history)
            yield f"round {index}: {replay.told['metrics']}"
            yield from self._sampled(replay)
            self.finished = index + 1
            rows = measured.read_table("metrics").to_pylist()
            metrics += tuple(row for row in rows if row["selection"] == config.train.keep_epoch)
            reason = reason_to_stop(config.stop, metrics)
            if reason is not None:
                self.stopped = {"round": index, "reason": reason}
                break
        self.is_whole = True

    def _scored(self, pool: Pool) -> Iterator[str]:
        """Check what `madbal score` wrote: one round without labels."""
        replay = self.replay.of_round(0)
        current = Round(
            config=self.config,
            pool=pool,
            index=0,
            runner=replay,
            folder=pool.images.folder,
            own_folder=pool.images.folder,
            weights=PublishedWeights(NONE, None),
            device=self.device,
        )
        found = {
            name: self.run_dir.find(name, 0)
            for name in ("phase1", "phase2", "known_labels", "select")
        }
        replay.visited.update((name, 0) for name, stage in found.items() if stage is not None)
        known, phase1 = found["known_labels"], _stored(self.run_dir, "phase1", 0)
        history = replace(
            History.before(pool),
            network=TrainedPhases(phase1, found["phase2"]),
            labels=() if known is None else (known,),
        )
        if found["select"] is None:
            current.score(history)
        else:
            current.ask(history)
            self._requests(replay, pool, "select")
            yield self._selection(replay, 0)
        yield from self._sampled(replay)
        self.finished, self.is_whole = 1, True

    def _features_weights(
        self, spec: str, network: str, folder: Folder, *, option: str
    ) -> PublishedWeights:
        stage = _stored(self.run_dir, "superpixel_features", None)
        return recall_weights(spec, network, folder, stage.marker().settings["weights"])

    def _weights(self, shared: Folder) -> PublishedWeights:
        model, phase1 = self.config.model, self.run_dir.find("phase1", 0)
        stored = NONE if phase1 is None else phase1.marker().settings.get("weights", NONE)
        return recall_weights(model.weights, model.backbone, shared, stored)

    def _selection(self, replay: Replay, index: int) -> str:
        why_not = replay.told.get("select") or replay.told.get("chances")
        if why_not is not None:
            return f"round {index}: selection not replayed: {why_not}"
        is_scored = any(self.run_dir.find(stage, index) for stage in ("score", "familiarity"))
        source = "stored scores" if is_scored else "seed"
        return f"round {index}: selection replayed from the {source}"

    def _answered(self, replay: Replay) -> str:
        why_not = replay.told.get("labels")
        if why_not is not None:
            return f"labels not answered again: {why_not}"
        if ORACLES[self.config.oracle.kind].asks_people:
            return "labels follow from the answers as they were noted"
        return "labels answered again"

    def _requests(self, replay: Replay, pool: Pool, source: str) -> None:
        """Check stage `requests`, where somebody was asked."""
        queries = self.run_dir.find(source, replay.round_index)
        asked = self.run_dir.find("requests", replay.round_index)
        if queries is not None and asked is not None:
            run_id = self.run_dir.identity()
            request_pixels(replay, asked.folder, pool, queries, run_id=run_id)

    def _sampled(self, replay: Replay) -> Iterator[str]:
        """Yield what was computed again in part."""
        for stage, how in replay.told.items():
            if "computed again" in how:
                yield f"{place(replay.round_index)}: {stage}: {how}"
