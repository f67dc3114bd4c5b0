"""The trials of a search that ended, kept so that a search that is started again learns of them.

Ray Tune's own record of a search is a pickle, written now and then; this is a line of JSON a trial.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ray import tune

from madbal_ray.state.marker import digest
from madbal_ray.state.storage import Folder
from madbal_ray.studies.cross_validation import CrossValidation
from madbal_ray.studies.search_space import Range

NAME = "finished.jsonl"


class FinishedTrials(tune.Callback):
    """Notes trials as they end, on the driver.

    Args:
        folder: of the search.
        measured: the metrics to keep.
    """

    def __init__(
        self,
        folder: Folder,
        validation: CrossValidation,
        space: Mapping[str, Range],
        measured: tuple[str, ...],
    ) -> None:
        self.folder, self.measured = folder, measured
        self.search = digest(
            {
                "config": validation.config.result_settings(),
                "weights": validation.weights.identity,
                "labels": validation.run.stage("labels", 0).key,
                "folds": validation.num_folds,
                "objective": validation.objective,
                "space": {key: [values.kind, *values.values] for key, values in space.items()},
            }
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note a trial, one that was given up early too."""
        metrics = {name: trial.last_result[name] for name in self.measured}
        line = {"search": self.search, "settings": trial.config, "metrics": metrics}
        self.folder.append_line(NAME, json.dumps(line))

    def read(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Return (settings, metrics) of the trials of this very search that ended before.

        What ended twice, as when a search was killed and begun again, comes once.
        """
        ended = {
            json.dumps(line["settings"], sort_keys=True): (line["settings"], line["metrics"])
            for line in self.folder.read_json_lines(NAME)
            if line.get("search") == self.search
        }
        return list(ended.values())
