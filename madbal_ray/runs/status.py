"""Where a run is, read from its events and its lock."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from madbal_ray.config.file import changed_keys
from madbal_ray.config.schema import Config
from madbal_ray.errors import ConfigError
from madbal_ray.labels.agreement import (
    Opinions,
    every_kappa,
    krippendorffs_alpha,
    opinions,
)
from madbal_ray.labels.answer_rows import how_to_settle, seconds_per_click
from madbal_ray.labels.answer_store import AnswerStore, store_place
from madbal_ray.seams import ORACLES
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stages import LAST_POOL_STAGE
from madbal_ray.state.storage import Folder
from madbal_ray.strategies.strategy import resolve

Step = Literal["prepare", "select", "train"]


@dataclass(frozen=True)
class Status:
    """State of a run.

    Attributes:
        stopped: why a stop rule ended the run.
        stage: the stage that runs or was last begun.
        seconds_left: estimate for the whole run; None before a round is known to have taken
            some time.
        is_forecast: it comes from a probe on this machine (`madbal_ray.loop.time_left`).
        holder: owner of the lock; None: no process works on the run.
        people: lines about who was asked; none where nobody is.
        command: that works here on a network of another folder (`madbal score`, `madbal predict`),
            empty where Python called; None: this folder is a run.
        is_done: the last start of such a command came to its end.
    """

    finished_rounds: int
    num_rounds: int
    round_index: int | None
    stage: str
    epoch: str
    stopped: str | None
    seconds_left: float | None
    holder: Mapping[str, Any] | None
    people: Sequence[str] = ()
    command: str | None = None
    is_done: bool = False
    is_forecast: bool = False

    @property
    def is_finished(self) -> bool:
        """Tell whether all rounds are done, or a stop rule ended the run."""
        if self.command is not None:
            return self.is_done
        return self.stopped is not None or self.finished_rounds >= self.num_rounds

    def lines(self) -> list[str]:
        """Return what a person reads."""
        lines = [f"rounds   {self.finished_rounds} of {self.num_rounds} finished"]
        again = "`madbal run` command"
        if self.command is not None:
            lines = [f"work     {self.command or 'called from Python'}"]
            again = "command" if self.command else "call"
        if self.is_finished:
            reason = f": {self.stopped}" if self.stopped else ""
            return [*lines, *self.people, f"state    finished{reason}"]
        where = "pool" if self.round_index is None else f"round {self.round_index}"
        lines.append(f"stage    {where}, {self.stage}{self.epoch}")
        if self.seconds_left is not None:
            source = ", as a probe on this machine says" if self.is_forecast else ""
            lines.append(f"left     about {format_seconds(self.seconds_left)}{source}")
        lines += self.people
        if self.holder is None:
            return [*lines, f"state    stopped; the same {again} carries on"]
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.holder["since"]))
        holder = f"process {self.holder['pid']} on {self.holder['host']} since {since}"
        return [*lines, f"state    running: {holder}"]


def format_seconds(seconds: float) -> str:
    """Return a duration for people.

    >>> format_seconds(3725), format_seconds(95)
    ('1 h 02 min', '95 s')
    """
    minutes = round(seconds / 60) if seconds >= 120 else 0
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes else f"{round(seconds)} s"


def is_finished(config: Config, run_dir: RunDir) -> bool:
    """Tell whether a run with these settings is complete in this folder."""
    if not run_dir.exists or changed_keys(run_dir.config(), config):
        return False
    if run_dir.stopped() is not None and run_dir.config().stop == config.stop:
        return True
    has_phase2 = resolve(config.strategy).has_phase2
    return run_dir.finished_rounds(config, has_phase2=has_phase2) == config.num_rounds


def end_of_step(step: Step, config: Config, run_dir: RunDir) -> tuple[str, int | None]:
    """Return the stage and round after which a step of a run is done.

    Raises:
        ConfigError: all rounds are trained or a stop rule ended the run, so there is nothing to
            select or train.
    """
    if step == "prepare":
        return LAST_POOL_STAGE, None
    has_phase2 = resolve(config.strategy).has_phase2
    done = run_dir.finished_rounds(config, has_phase2=has_phase2) if run_dir.exists else 0
    stopped = run_dir.stopped() if run_dir.exists else None
    if stopped is not None and run_dir.config().stop == config.stop:
        raise ConfigError(
            f"{run_dir} was ended by its stop rule ({stopped['reason']}), so nothing is left to "
            f"{step}; to go on, change stop.*"
        )
    if done >= config.num_rounds:
        raise ConfigError(
            f"{run_dir}: all {done} rounds are trained, nothing is left to {step}; for one more "
            f"say --set num_rounds={done + 1}"
        )
    return step, done


def read_status(run_dir: RunDir) -> Status:
    """Read the state of a run."""
    config = run_dir.config()
    events = run_dir.events()
    has_phase2 = resolve(config.strategy).has_phase2
    finished = run_dir.finished_rounds(config, has_phase2=has_phase2)
    stopped = run_dir.stopped()
    processes = [event for event in events if event["event"].startswith("process_")]
    commands = [event["command"] for event in processes if "command" in event]
    is_run = any(event["event"] == "run_started" for event in events)
    started = [event for event in events if event["event"] == "stage_started"]
    last = started[-1] if started else {"round": None, "stage": "not started"}
    epochs = [
        event
        for event in events
        if event["event"] == "epoch" and event["time"] >= last.get("time", 0)
    ]
    epoch = ""
    if epochs and last["stage"] == "train":
        latest = epochs[-1]
        epoch = f" ({latest['phase']}, epoch {latest['epoch']} of {latest['epochs']})"
    return Status(
        finished_rounds=finished,
        num_rounds=config.num_rounds,
        round_index=last["round"],
        stage=last["stage"],
        epoch=epoch,
        stopped=None if stopped is None else stopped["reason"],
        seconds_left=_seconds_left(events, finished, config.num_rounds),
        holder=run_dir.holder(),
        people=_people(config, run_dir),
        command=commands[-1] if commands and not is_run else None,
        is_done=bool(processes and processes[-1].get("is_done")),
    )


def _people(config: Config, run_dir: RunDir) -> list[str]:
    """Return how many queries are answered and wait, by round and by annotator."""
    place = store_place(config.oracle.store, run_dir)
    if not Folder(".").exists(place):  # `madbal score` makes one when its pixels are handed out
        asks = ORACLES[config.oracle.kind].asks_people
        return ["people   nobody was asked yet"] if asks else []
    with AnswerStore.open(place) as store:
        states, answers = store.states(), store.answers()
        progress = store.progress(states)
    speed = seconds_per_click(answers, "annotator")
    lines = []
    for round_index, counts in progress.rounds.items():
        name = f"round {round_index}" if round_index >= 0 else "evaluation points"
        third = f", {counts.disputed} of them for a third opinion" if counts.disputed else ""
        lines.append(
            f"people   {name}: {counts.answered} of {counts.asked} answered, "
            f"{counts.asked - counts.answered} waiting{third}"
        )
    if any(counts.disputed for counts in progress.rounds.values()):
        lines.append(f"         where two differ, {how_to_settle(str(run_dir))}")
    for name, spoken in progress.annotators.items():
        spent = f", {format_seconds(spoken.seconds)}" if spoken.seconds else ""
        spent += f", median {speed[name]:.1f} s a click" if name in speed else ""
        lines.append(
            f"         {name}: answered {spoken.answered}, waiting {spoken.waiting}{spent}"
        )
    return lines + _agreement([opinions(state.votes) for state in states.values()])


def _agreement(pixels: Sequence[Opinions]) -> list[str]:
    """Return how far people agree on pixels that several of them answered."""
    lines = [
        f"         {first} and {second}: {count} pixels in common, "
        + ("κ is not defined" if kappa is None else f"Cohen's κ {kappa:.2f}")
        for (first, second), (count, kappa) in every_kappa(pixels).items()
    ]
    alpha = krippendorffs_alpha(pixels)
    return lines if alpha is None else [*lines, f"         Krippendorff's α {alpha:.2f}"]


def _seconds_left(events: list[dict[str, Any]], finished: int, num_rounds: int) -> float | None:
    """Estimate from the slowest finished round; what the current one has used is taken off."""
    by_round: dict[int, float] = {}
    for event in events:
        if event["event"] == "stage_finished" and event["round"] is not None:
            by_round[event["round"]] = by_round.get(event["round"], 0.0) + event["seconds"]
    complete = [seconds for index, seconds in by_round.items() if index < finished]
    if not complete:
        return None
    used = by_round.get(finished, 0.0)
    return max(0.0, max(complete) * (num_rounds - finished) - used)
