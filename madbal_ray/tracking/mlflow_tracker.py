"""MLflow behind the interface of `madbal_ray.tracking.trackers`; needs the extra ``mlflow``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from madbal_ray.state.run_dir import RunDir

EXPERIMENT = "madbal_ray"
"""Where $MLFLOW_EXPERIMENT_NAME is not set."""

DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Where a user has not set them. MLflow's own hold a run up for minutes at every number once
the server is gone, and print into our progress view."""

RETRY_SECONDS = 300.0
TAG = "madbal.run"
MAX_METRICS, MAX_PARAMS = 1000, 100
"""Most that a server takes in one request."""


class MLflow:
    """One run on a tracking server, found again by a tag when the run is resumed.

    Numbers that the server does not take wait and are sent with later ones.

    Args:
        uri: of the server; credentials come from the environment.
        settings: become the run's parameters.
    """

    name = "MLflow"

    def __init__(self, uri: str, run_dir: RunDir, settings: Mapping[str, Any]) -> None:
        import mlflow  # pyright: ignore[reportMissingImports]

        for variable, value in DEFAULTS.items():
            os.environ.setdefault(variable, value)
        self.mlflow: Any = mlflow
        self.client: Any = mlflow.MlflowClient(tracking_uri=uri)
        self.waiting: list[Any] = []
        self.retry_at = 0.0
        self.run_id = self._open(run_dir)
        params = [self.mlflow.entities.Param(key, _text(value)) for key, value in settings.items()]
        for start in range(0, len(params), MAX_PARAMS):
            self.client.log_batch(self.run_id, params=params[start : start + MAX_PARAMS])

    def _open(self, run_dir: RunDir) -> str:
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)
        tags = {TAG: run_dir.identity()}
        known = self.client.search_runs(
            [experiment], filter_string=f"tags.`{TAG}` = '{tags[TAG]}'", max_results=1
        )
        if known:
            self.client.update_run(known[0].info.run_id, status="RUNNING")
            return known[0].info.run_id
        return self.client.create_run(experiment, tags=tags, run_name=run_dir.name).info.run_id

    def _experiment(self, name: str) -> str:
        known = self.client.get_experiment_by_name(name)
        if known is not None:
            return known.experiment_id
        try:
            return self.client.create_experiment(name)
        except self.mlflow.exceptions.MlflowException:  # another run of the same suite was faster
            known = self.client.get_experiment_by_name(name)
            if known is None:
                raise
            return known.experiment_id

    def scalar(self, name: str, value: float, step: int) -> None:
        """Send one number, and those that wait; raise where the server does not take them."""
        metric = self.mlflow.entities.Metric(name, value, int(time.time() * 1000), step)
        self.waiting.append(metric)
        if time.monotonic() >= self.retry_at:
            self._send()

    def close(self, *, is_finished: bool) -> None:
        """Send what waits and set the run's state."""
        self._send()
        self.client.set_terminated(self.run_id, "FINISHED" if is_finished else "KILLED")

    def _send(self) -> None:
        self.retry_at = time.monotonic() + RETRY_SECONDS
        while self.waiting:
            part = self.waiting[:MAX_METRICS]
            self.client.log_batch(self.run_id, metrics=part)
            del self.waiting[: len(part)]
        self.retry_at = 0.0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
