"""Counts that say ``auto``: numbers that a run takes from its machines and keeps from then on."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from madbal_ray.config.combinations import batch_sizes
from madbal_ray.config.schema import Config
from madbal_ray.config.section import AUTO
from madbal_ray.errors import ConfigError

WORKERS = "train.num_workers"
THREADS = ("train.threads_per_worker", "score.threads_per_worker")


def open_counts(config: Config) -> list[str]:
    """Return the keys that still say ``auto``, as ``section.option``."""
    return [key for key in (WORKERS, *THREADS) if _value(config, key) == AUTO]


def with_counts(config: Config, counts: Mapping[str, int]) -> Config:
    """Return the configuration with numbers where it says ``auto``.

    Args:
        counts: key -> number; those that are not open stay as they are.

    Raises:
        ConfigError: another option does not go with such a number.
    """
    values = config.model_dump(mode="json")
    for key in open_counts(config):
        if key in counts:
            section, _, option = key.partition(".")
            values[section][option] = counts[key]
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        found = "; ".join(finding["msg"] for finding in error.errors())
        raise ConfigError(f"auto became {dict(counts)}: {found}") from None


def kept_counts(config: Config, begun: Config) -> Config:
    """Return the configuration with the numbers that a run began with where it says ``auto``."""
    numbers = {key: _value(begun, key) for key in open_counts(config)}
    return with_counts(config, {key: n for key, n in numbers.items() if n != AUTO})


def check_counts(config: Config, what: str) -> None:
    """Refuse ``auto`` where several runs share the machines, and one's numbers are not another's.

    Raises:
        ConfigError: naming the keys.
    """
    if found := open_counts(config):
        raise ConfigError(
            f"{', '.join(found)} = auto, but {what} shares its machines between runs that must "
            "agree: give numbers"
        )


def workers_for(config: Config, most: int) -> int:
    """Return the largest number of training workers that all batch sizes divide by.

    Args:
        most: workers that there is room for.
    """
    sizes = batch_sizes(config).values()
    return max(n for n in range(1, max(1, most) + 1) if not any(size % n for size in sizes))


def _value(config: Config, key: str) -> int:
    section, _, option = key.partition(".")
    return int(getattr(getattr(config, section), option))
