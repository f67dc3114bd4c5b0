"""How long a run will still take before a round has shown it: its forecast, less what is done."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from madbal_ray.errors import MadbalError
from madbal_ray.loop.forecast import forecast
from madbal_ray.state.run_dir import RunDir

FORECAST_NAME = "_forecast.json"
"""In the run's folder: the forecast that `madbal status` made, so that it is made once."""
FEWEST_SECONDS = 1.0
"""Of forecast work that must be done before its pace says anything."""
MOST_OFF = 4.0


def time_left(run_dir: RunDir, *, device: str) -> float | None:
    """Return seconds until the run ends, on this machine; None where they cannot be told.

    A probe of a few images the first time.
    """
    try:
        planned = _planned(run_dir, device)
    except (MadbalError, OSError):
        return None  # the run itself says what is wrong with its data
    return corrected(planned, run_dir.events(), run_dir.config().num_rounds, time.time())


def corrected(
    planned: Mapping[str, Any], events: Sequence[Mapping[str, Any]], num_rounds: int, now: float
) -> float:
    """Return the seconds left of a plan, at the pace of the stages that have ended.

    Args:
        planned: ``pool``: stage -> seconds, once; ``round``: seconds of each round.
        events: of the run, before its first round has ended.
        now: as `time.time`.
    """
    pool: dict[str, float] = dict(planned["pool"])
    each_round = float(planned["round"])
    ended = {e["stage"]: e["seconds"] for e in events if e["event"] == "stage_finished"}
    done = [name for name in pool if name in ended]
    due = sum(pool[name] for name in done)
    pace = 1.0
    if due >= FEWEST_SECONDS:
        pace = sum(ended[name] for name in done) / due
        pace = min(max(pace, 1 / MOST_OFF), MOST_OFF)
    started = [event for event in events if event["event"] == "stage_started"]
    in_rounds = [event["time"] for event in started if event["round"] is not None]
    if in_rounds:
        # The first round is not over, so that a rest of it is left whatever the forecast says.
        rest = max(pace * each_round - (now - in_rounds[0]), 0.1 * pace * each_round)
        return rest + pace * each_round * (num_rounds - 1)
    left = {name: pace * seconds for name, seconds in pool.items() if name not in ended}
    if started and started[-1]["stage"] in left:
        spent = now - started[-1]["time"]
        left[started[-1]["stage"]] = max(left[started[-1]["stage"]] - spent, 0.0)
    return sum(left.values()) + pace * each_round * num_rounds


def _planned(run_dir: RunDir, device: str) -> Mapping[str, Any]:
    if run_dir.folder.exists(FORECAST_NAME):
        planned: Mapping[str, Any] = run_dir.folder.read_json(FORECAST_NAME)
        return planned
    found = forecast(run_dir.config(), device=device)
    planned = {
        "pool": {stage.stage: stage.seconds for stage in found.stages if not stage.rounds},
        "round": found.round_seconds,
    }
    with contextlib.suppress(OSError, MadbalError):  # whoever looks may not be allowed to write
        run_dir.folder.write(FORECAST_NAME, json.dumps(planned).encode())
    return planned
