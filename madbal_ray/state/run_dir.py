"""The run folder: configuration, pointers to finished stages, events, the lock.

Longer than others: what a run may hold, and who may write into it, in one place.

::

    <run>/config.json                    resolved configuration of the run
    <run>/pool/<stage>.json              pointers into the shared pool
    <run>/rounds/000/<stage>/<key12>/    what a stage of a round wrote
    <run>/rounds/000/<stage>/_CURRENT.json   pointer to the finished key
    <run>/events.jsonl                   what happened when (never hashed)
    <run>/stopped.json                   where a stop rule ended the run
    <run>/signature.json                 over all of it, where a key was given (state/signature.py)
    <run>/tracking.json                  the run's identity: MLflow and W&B know it by it, and the
                                         ids of its queries are made of it
    <run>/answers.sqlite                 what people were asked and said (labels/answer_store.py)
    <run>/report/  <run>/tensorboard/  <run>/wandb/    for people

Only this module (with `stage_dir` and `storage`) touches paths of a run folder.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from madbal_ray.config.file import changed_keys, stored_config
from madbal_ray.config.schema import Config
from madbal_ray.errors import ConfigError, IntegrityError, RunDirError
from madbal_ray.state import lock
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.stages import STAGES, stages_of
from madbal_ray.state.storage import Folder

CONFIG_NAME = "config.json"
EVENTS_NAME = "events.jsonl"
STOPPED_NAME = "stopped.json"
TRACKING_NAME = "tracking.json"
MENDED = ("backbone_features", "mirrored_features")
"""Stages that are computed anew where files are lost, by another machine perhaps."""
POINTER = re.compile(
    r"pool/(?P<pool>\w+)\.json|rounds/(?P<round>\d{3,})/(?P<stage>\w+)/_CURRENT\.json"
)
SUITE_NAME = "suite.json"
"""File of a suite folder that names its runs and its baseline."""

OURS = (
    "answers.sqlite",
    "events.jsonl",
    "evaluation",
    "pool",
    "rounds",
    STOPPED_NAME,
    TRACKING_NAME,
)
"""What a run may have written before its configuration."""

MAX_SHOWN = 200


class RunDir:
    """Paths and state of one run.

    Attributes:
        option: of the command line that named the folder, for messages.
    """

    def __init__(self, uri: str | os.PathLike[str], *, option: str = "--run-dir") -> None:
        self.folder, self.option = Folder(uri), option

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def name(self) -> str:
        """Return the last part of the folder's address."""
        return self.folder.uri.rpartition("/")[2]

    @property
    def exists(self) -> bool:
        """Tell whether a run was ever started here."""
        return self.folder.exists(CONFIG_NAME)

    def config(self) -> Config:
        """Read the run's resolved configuration."""
        if not self.exists:
            self._refuse_suite()
            raise RunDirError(
                f"{self.folder} is not a run folder: no {CONFIG_NAME}; start one with `madbal run`"
            )
        try:
            return stored_config(self.folder.read_json(CONFIG_NAME))
        except ConfigError as error:
            raise ConfigError(f"{self.folder}/{CONFIG_NAME}: {error}") from None

    def _refuse_suite(self) -> None:
        if self.folder.exists(SUITE_NAME):
            runs = ", ".join(map(str, self.folder.read_json(SUITE_NAME).get("runs", ())))
            raise RunDirError(
                f"{self.folder} is the folder of a suite and not of a run; give one of its runs "
                f"({runs[:MAX_SHOWN]}), or `madbal report {self.folder}`"
            )

    def check_ours(self) -> None:
        """Refuse to start a run in a folder that holds somebody's other things.

        Raises:
            RunDirError: naming one of them.
        """
        if self.exists or not self.folder.is_local or not self.folder.local_path.is_dir():
            return
        self._refuse_suite()
        found = sorted(path.name for path in self.folder.local_path.iterdir())
        others = [name for name in found if name not in OURS and not name.startswith("_")]
        if others:
            raise RunDirError(
                f"{self.folder} holds {len(others)} other things, such as {others[0]!r}; a run "
                f"wants a folder of its own: choose another {self.option}"
            )

    def store_config(self, config: Config) -> None:
        """Store the configuration, after checking that a resume may use it.

        Raises:
            ConfigError: result settings differ from those the run was started with, or
                stages were made by an earlier version that writes other bytes.
        """
        if self.exists:
            self._check_revisions()
            changes = changed_keys(self.config(), config)
            # Without an index nothing was made: a mistake in the settings may be mended.
            if changes and self.folder.exists(self._pointer_name("index", None)):
                lines = "\n".join(f"  {change}" for change in changes)
                raise ConfigError(
                    f"{self.folder} was started with other settings:\n{lines}\n"
                    f"resume with the same settings, or choose another {self.option}"
                )
        data = json.dumps(config.model_dump(mode="json"), indent=1).encode()
        if not (self.exists and self.folder.read(CONFIG_NAME) == data):
            self.folder.write(CONFIG_NAME, data)

    def _check_revisions(self) -> None:
        config = self.config()
        places = [(name, None) for name in stages_of("pool")]
        places += [(name, i) for i in range(config.num_rounds) for name in stages_of("round")]
        old = {}
        for name, round_index in places:
            stage = self.find(name, round_index)
            if stage is not None and stage.marker().revision != STAGES[name].revision:
                now = STAGES[name].revision
                old[name] = f"{name} (revision {stage.marker().revision}, now {now})"
        if old:
            raise ConfigError(
                f"{self.folder} was made by an earlier version of madbal_ray and cannot be carried "
                f"on, since these stages would now write other bytes: {', '.join(old.values())}; "
                f"it still opens, reports and verifies: choose another {self.option}, or carry on "
                "with the version that made it"
            )

    def pool_folder(self, config: Config) -> Folder:
        """Return the pool's folder: `pool.dir`, or the folder `pool` beside the run."""
        if config.pool.dir is not None:
            return Folder(config.pool.dir)
        return Folder(f"{self.folder.uri.rpartition('/')[0]}/pool")

    def round_folder(self, round_index: int) -> Folder:
        """Return the folder of one round."""
        return self.folder / f"rounds/{round_index:03d}"

    def _pointer_name(self, stage: str, round_index: int | None) -> str:
        if round_index is None:
            return f"pool/{stage}.json"
        return f"rounds/{round_index:03d}/{stage}/_CURRENT.json"

    def point(self, stage_dir: StageDir, round_index: int | None) -> None:
        """Record that this run uses a finished stage folder.

        Raises:
            ConfigError: the run already uses another one; its data or weights have changed.
            IntegrityError: it is the same one, with another marker.
        """
        uri = stage_dir.folder.uri
        if self.folder.is_local and stage_dir.folder.is_local:
            uri = os.path.relpath(uri, self.folder.uri)
        pointer = {"folder": uri, "key": stage_dir.key, "digest": stage_dir.digest()}
        known = self.check(stage_dir, round_index)
        name = self._pointer_name(stage_dir.stage, round_index)
        if known is not None and known["digest"] != pointer["digest"]:
            if stage_dir.stage not in MENDED:
                raise _another_marker(stage_dir, f"{self.folder}/{name}")
            known = None
        if known != pointer:
            self.folder.write(name, json.dumps(pointer).encode())

    def check(self, stage_dir: StageDir, round_index: int | None) -> dict[str, str] | None:
        """Return the pointer to a stage, None before there is one.

        Raises:
            ConfigError: the run already uses another folder of this stage.
        """
        name = self._pointer_name(stage_dir.stage, round_index)
        if not self.folder.exists(name):
            return None
        known = self._pointer(name)
        if known["key"] != stage_dir.key:
            raise ConfigError(
                f"{self.folder}: stage {stage_dir.stage} was run with key {known['key']} and "
                f"would now be {stage_dir.key}: images, masks or weights have changed since "
                f"the run was started; restore them, or choose another {self.option}"
            )
        return known

    def find(self, stage: str, round_index: int | None = None) -> StageDir | None:
        """Return the finished folder of a stage that this run uses, None before it is done.

        Raises:
            IntegrityError: the marker is not the one the run was pointed to.
        """
        name = self._pointer_name(stage, round_index)
        if not self.folder.exists(name):
            return None
        pointer = self._pointer(name)
        uri = pointer["folder"]
        if self.folder.is_local and "://" not in uri:
            uri = os.path.normpath(os.path.join(self.folder.uri, uri))
        stage_dir = StageDir(Folder(uri), stage, pointer["key"])
        if stage_dir.digest() != pointer["digest"]:
            raise _another_marker(stage_dir, f"{self.folder}/{name}")
        return stage_dir

    def pointers(self) -> Iterator[tuple[str, int | None]]:
        """Yield (stage, round) of everything that this run points to; round None: of the pool."""
        for path, _ in self.folder.walk():
            found = POINTER.fullmatch(path)
            if found is not None:
                of_pool, number = found["pool"], found["round"]
                yield of_pool or found["stage"], None if of_pool else int(number)

    def _pointer(self, name: str) -> dict[str, str]:
        """Read a pointer; IntegrityError where it is damaged."""
        pointer = self.folder.read_json(name)
        if not all(isinstance(pointer.get(part), str) for part in ("folder", "key", "digest")):
            raise IntegrityError(
                f"{self.folder}/{name} is damaged; remove it, and the same `madbal run` command "
                "finds the finished stage again"
            )
        return pointer

    def mark_stopped(self, round_index: int, reason: str) -> None:
        """Record that a stop rule ended the run after a round."""
        data = json.dumps({"round": round_index, "reason": reason}).encode()
        self.folder.write(STOPPED_NAME, data)

    def clear_stopped(self) -> None:
        """Forget an earlier stop; the rules are asked again."""
        self.folder.delete(STOPPED_NAME)

    def stopped(self) -> Mapping[str, Any] | None:
        """Return the round after which a stop rule ended the run, and why."""
        if not self.folder.exists(STOPPED_NAME):
            return None
        return self.folder.read_json(STOPPED_NAME)

    def finished_rounds(self, config: Config, *, has_phase2: bool) -> int:
        """Return how many rounds are trained and measured, from the first without a gap."""
        last_stage = "phase2" if has_phase2 else "metrics"
        count = 0
        while count < config.num_rounds and self.find(last_stage, count) is not None:
            count += 1
        return count

    def append_event(self, event: str, **values: Any) -> None:
        """Note something for `status`, timings and people; never read by a computation."""
        row = {"time": round(time.time(), 3), "event": event, **values}
        self.folder.append_line(EVENTS_NAME, json.dumps(row))

    def events(self) -> list[dict[str, Any]]:
        """Return all events; torn lines are skipped."""
        rows = self.folder.read_json_lines(EVENTS_NAME)
        return [row for row in rows if "event" in row and "time" in row]

    def identity(self) -> str:
        """Return what trackers and people's answers know this run by: drawn once, kept with it."""
        if not self.folder.exists(TRACKING_NAME):
            drawn = json.dumps({"id": secrets.token_hex(8)})
            self.folder.write(TRACKING_NAME, drawn.encode())
        drawn = self.folder.read_json(TRACKING_NAME).get("id")
        if not isinstance(drawn, str) or not drawn:
            raise IntegrityError(f"{self.folder}/{TRACKING_NAME} is damaged (no id)")
        return drawn

    def lock(self, *, take_over: bool = False) -> AbstractContextManager[None]:
        """Hold the run folder (`madbal_ray.state.lock`).

        Raises:
            LockedError: another process holds it; the message says which.
        """
        return lock.hold(self.folder, take_over=take_over, option=self.option)

    def holder(self) -> Mapping[str, Any] | None:
        """Return the owner of the process that holds the lock, None when it is free."""
        return lock.holder(self.folder)


def _another_marker(stage_dir: StageDir, pointer: str) -> IntegrityError:
    return IntegrityError(
        f"{stage_dir.folder}: its marker is not the one that {pointer} points to: it was changed, "
        "or made anew; restore it from a copy, or start another run"
    )
