"""A run that stays while people answer, and goes on by itself when enough of them have."""

from __future__ import annotations

import time
from collections.abc import Callable

from madbal_ray.config.schema import Config
from madbal_ray.errors import AnswersPending, ConfigError
from madbal_ray.labels.answer_store import AnswerStore, store_place
from madbal_ray.seams import ORACLES
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.storage import Folder

POLL_SECONDS = 2.0


def follow(
    config: Config, run_dir: RunDir, work: Callable[[], None], say: Callable[[str], None]
) -> None:
    """Do a run's work, again after each wait for people; return when it is done.

    Nothing is kept between one try and the next but the run folder, so that a process that is
    killed while it waits loses nothing.

    Args:
        work: raises `AnswersPending` where somebody is awaited.
        say: takes a line whenever that is so.

    Raises:
        ConfigError: the run's oracle asks nobody.
    """
    if not ORACLES[config.oracle.kind].asks_people:
        raise ConfigError(
            f"--follow waits while people answer, and oracle {config.oracle.kind} asks nobody: "
            "leave it out, or set oracle=people"
        )
    place = store_place(config.oracle.store, run_dir)
    while True:
        before = _num_answers(place)
        try:
            return work()
        except AnswersPending as pending:
            say(f"waiting for {pending.count} answers: {pending}. The run goes on by itself")
            needed = before + pending.count  # fewer answers settle no more queries than that
        with AnswerStore.open(place) as store:
            while store.num_answers() < needed:
                time.sleep(POLL_SECONDS)


def _num_answers(place: str) -> int:
    if not Folder(".").exists(place):
        return 0
    with AnswerStore.open(place) as store:
        return store.num_answers()
