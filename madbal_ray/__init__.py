"""madbal_ray: active learning for semantic segmentation at cluster scale.

``run`` and ``open_run`` are what a notebook needs; the kernels of a round stand in
`madbal_ray.kernels`. Nothing is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from madbal_ray.api import (
        Run,
        check_data,
        export,
        open_run,
        predict,
        run,
        run_suite,
        score,
        status,
        tune,
        verify,
    )

__version__ = "0.1.0"
__all__ = [
    "Run",
    "check_data",
    "export",
    "open_run",
    "predict",
    "run",
    "run_suite",
    "score",
    "status",
    "tune",
    "verify",
]  # `report` is a room of this name: `madbal_ray.api.report`


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("madbal_ray.api"), name)
    try:
        return importlib.import_module(f"madbal_ray.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"madbal_ray.{name}":
            raise
        raise AttributeError(f"module 'madbal_ray' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
