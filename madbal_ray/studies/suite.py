"""Running a suite: the pool once, round 0 once per seed, then whole runs side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from madbal_ray.config.documents import listed
from madbal_ray.config.file import changed_keys
from madbal_ray.errors import ConfigError
from madbal_ray.loop.versions import command_line
from madbal_ray.runs.status import format_seconds, is_finished
from madbal_ray.state.run_dir import SUITE_NAME, RunDir
from madbal_ray.state.storage import Folder
from madbal_ray.studies.suite_config import Suite, SuiteRun
from madbal_ray.studies.tasks import RunTask, TaskPool, TaskResult


@dataclass
class SuiteRunner:
    """Runs what is missing of a suite.

    Attributes:
        say: takes lines for people.
    """

    suite: Suite
    folder: Folder
    pool: TaskPool
    say: Callable[[str], None]
    failed: list[TaskResult] = field(default_factory=list)

    def run(self) -> list[TaskResult]:
        """Run everything; return the runs that failed.

        Raises:
            ConfigError: the folder holds runs with other settings.
        """
        self._check_settings()
        listing = {
            "name": self.suite.name,
            "baseline": self.suite.baseline,
            "varies": self.suite.varies,
            "runs": [run.name for run in self.suite.runs],
            "command": command_line(),
        }
        self.folder.write(SUITE_NAME, json.dumps(listing, indent=1).encode())
        missing = [run for run in self.suite.runs if not self._is_finished(run)]
        done = len(self.suite.runs) - len(missing)
        self.say(f"{len(self.suite.runs)} runs, {done} finished")
        if missing:
            self._share(missing)
            self._finish(missing)
        return self.failed

    def run_dir(self, run: SuiteRun) -> str:
        """Return the folder of one run."""
        return (self.folder / run.name).uri

    def _is_finished(self, run: SuiteRun) -> bool:
        run_dir = RunDir(self.run_dir(run))
        return run_dir.exists and is_finished(run.config, run_dir)

    def _check_settings(self) -> None:
        """Refuse a folder whose runs were made with other settings, before anything runs."""
        problems = []
        for run in self.suite.runs:
            state = RunDir(self.run_dir(run))
            if state.exists and (changes := changed_keys(state.config(), run.config)):
                problems.append(f"{run.name}: {'; '.join(changes)}")
        if problems:
            raise ConfigError(
                f"{self.folder} holds runs with other settings:{listed(problems)}"
                "\nrestore the suite's YAML, or choose another --folder"
            )

    def _share(self, missing: Sequence[SuiteRun]) -> None:
        """Prepare the pool once, then round 0 once per seed and way of training."""
        first = missing[0]
        self._all([RunTask(first, self.run_dir(first), ("superpixel_clusters", None))], "pool")
        starts = {
            (
                run.seed,
                run.config.train.model_dump_json(exclude={"phase2"}),
                run.config.model.model_dump_json(),
            ): run
            for run in reversed(missing)
            if run.config.num_rounds > 1
        }
        tasks = [RunTask(run, self.run_dir(run), ("metrics", 0)) for run in starts.values()]
        self._all(tasks, "round 0")

    def _all(self, tasks: Sequence[RunTask], what: str) -> None:
        for result in self.pool.map(tasks):
            if result.error is not None:
                self.say(f"{what}, seed {result.task.run.seed}: {result.error}")
            else:
                self.say(f"{what}, seed {result.task.run.seed}: {format_seconds(result.seconds)}")

    def _finish(self, missing: Sequence[SuiteRun]) -> None:
        started = time.monotonic()
        # Seed by seed, so that whoever stops has all strategies of the seeds that are done.
        by_seed = sorted(missing, key=lambda run: self.suite.seeds.index(run.seed))
        tasks = [RunTask(run, self.run_dir(run)) for run in by_seed]
        for done, result in enumerate(self.pool.map(tasks), start=1):
            if result.error is not None:
                self.failed.append(result)
            spent = time.monotonic() - started
            left = spent / done * (len(missing) - done)
            state = "failed" if result.error else format_seconds(result.seconds)
            self.say(
                f"{done} of {len(missing)}: {result.task.run.name} {state}; "
                f"about {format_seconds(left)} left"
            )
