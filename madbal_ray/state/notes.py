"""Notes of finished shards in a stage's manifest, so that a resume knows them without a look."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from madbal_ray.state.stage_dir import StageDir

NOTED_ROWS, NOTED_SECONDS = 4000, 900.0
"""An object store's manifest grows by so many finished shards at a time, or after so long.

A resume asks twice for each piece of it, and once for a thousand files.
"""


class Notes:
    """Notes finished shards in a stage's manifest: on a disk at once, else many together.

    What a crash takes from the notes is adopted from the files.
    """

    def __init__(self, stage: StageDir) -> None:
        self.stage = stage
        self._waiting: list[Mapping[str, Any]] = []
        self._since = time.monotonic()

    def add(self, row: Mapping[str, Any]) -> None:
        """Note one shard."""
        self._waiting.append(row)
        is_due = len(self._waiting) >= NOTED_ROWS or time.monotonic() > self._since + NOTED_SECONDS
        if self.stage.folder.is_local or is_due:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            self.stage.append_manifest(*self._waiting)
        self._waiting, self._since = [], time.monotonic()
