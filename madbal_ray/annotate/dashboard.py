"""Numbers of a run's people, for the page."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from madbal_ray.labels.agreement import (
    every_kappa,
    krippendorffs_alpha,
    opinions,
)
from madbal_ray.labels.answer_rows import seconds_per_click
from madbal_ray.labels.answer_store import AnswerStore

LATELY_SECONDS = 600.0


def dashboard(store: AnswerStore) -> dict[str, Any]:
    """Return progress, speed, agreement and class shares, as JSON values."""
    states, answers = store.states(), store.answers()
    progress = store.progress(states)
    pixels = [opinions(state.votes) for state in states.values()]
    since = time.time() - LATELY_SECONDS
    recent = [one.time for one in answers if one.status != "undone" and one.time >= since]
    minutes = max((time.time() - min(recent)) / 60, 1.0) if recent else 1.0
    settled = Counter(
        state.settled.class_name
        for state in states.values()
        if state.settled is not None and state.settled.class_name is not None
    )
    speed = seconds_per_click(answers, "annotator")
    return {
        "rounds": [
            {"round": index, "asked": one.asked, "answered": one.answered, "disputed": one.disputed}
            for index, one in progress.rounds.items()
        ],
        "annotators": [
            {
                "name": name,
                "answered": one.answered,
                "waiting": one.waiting,
                "median_seconds": speed.get(name),
            }
            for name, one in progress.annotators.items()
        ],
        "answers_per_minute": len(recent) / minutes,
        "class_seconds": seconds_per_click(answers, "class_name"),
        "class_shares": {
            name: settled[name] / settled.total() for name in store.class_names if settled.total()
        },
        "kappa": [
            {"annotators": list(pair), "pixels": count, "kappa": kappa}
            for pair, (count, kappa) in every_kappa(pixels).items()
        ],
        "alpha": krippendorffs_alpha(pixels),
    }
