"""What a hyper-parameter search may vary: keys of phase II and their ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from madbal_ray.config.documents import SHOWN, listed, preset_or_path, read_yaml
from madbal_ray.errors import ConfigError

PREFIX = "train.phase2."
"""Phase I is trained once per fold and shared, so only phase II may be searched."""

Kind = Literal["uniform", "loguniform", "choice"]
KINDS = ("uniform", "loguniform", "choice")
INNER = 0.3819660112501051
"""Of a range's length: no whole number where its ends are, as no drawn value is."""


@dataclass(frozen=True)
class Range:
    """Values of one key: two bounds, or the values themselves for ``choice``."""

    kind: Kind
    values: tuple[Any, ...]

    def examples(self) -> tuple[Any, ...]:
        """Return all values of a choice; of a range its ends and one between them."""
        if self.kind == "choice":
            return self.values
        low, high = self.values
        return low, low + (high - low) * INNER, high


def load_space(path: str | Path) -> dict[str, Range]:
    """Read a space.

    Raises:
        ConfigError: lists everything that is wrong with it.
    """
    path = preset_or_path(path)
    ranges = read_yaml(path, "a search space, as in spaces/phase2 of `madbal presets`")
    if not isinstance(ranges, Mapping) or not ranges:
        raise ConfigError(f"{path}: expected keys with ranges, such as {PREFIX}learning_rate")
    problems: list[str] = []
    space = {}
    for key, spec in ranges.items():
        if not str(key).startswith(PREFIX):
            problems.append(
                f"{str(key)[:SHOWN]}: only keys of {PREFIX}… can be searched: phase I is shared"
            )
            continue
        problem = _problem(spec)
        if problem:
            problems.append(f"{key[:SHOWN]}: {problem}")
            continue
        ((kind, values),) = spec.items()
        space[key] = Range(kind, tuple(values))
    if problems:
        raise ConfigError(f"{path} is no search space:{listed(problems)}")
    return space


def _problem(spec: Any) -> str | None:
    expected = f"expected one of {', '.join(KINDS)} with a list, got {repr(spec)[:SHOWN]}"
    if not isinstance(spec, Mapping) or len(spec) != 1:
        return expected
    ((kind, values),) = spec.items()
    if kind not in KINDS or not isinstance(values, list) or not values:
        return expected
    if kind == "choice":
        return None
    is_range = len(values) == 2 and all(isinstance(value, (int, float)) for value in values)
    if not is_range or values[0] >= values[1]:
        return f"{kind} needs [low, high] with low < high, got {repr(values)[:SHOWN]}"
    if kind == "loguniform" and values[0] <= 0:
        return f"loguniform needs low > 0, got {values[0]}"
    return None
