"""Groups of options: frozen, no unknown keys, and which of them may change a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
)

from madbal_ray.seams import (
    Registry,
)

RUNTIME: dict[str, Any] = {"kind": "runtime"}


GROWING: dict[str, Any] = {"kind": "growing"}


ADDED: dict[str, Any] = {"kind": "added"}
"""Of an option that came after runs had been made: its default enters no key, so that those runs
are carried on."""


Positive = Annotated[int, Field(ge=1)]


NonNegative = Annotated[int, Field(ge=0)]


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A frozen group of options; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def result_settings(self) -> dict[str, Any]:
        """Return the JSON form of the options that may change a result."""
        settings = {}
        for name, field in type(self).model_fields.items():
            kind, value = _kind(field), getattr(self, name)
            if kind not in ("result", "added") or (kind == "added" and value == field.default):
                continue
            settings[name] = (
                value.result_settings()
                if isinstance(value, Section)
                else self.model_dump(mode="json", include={name})[name]
            )
        return settings


def _kind(field: Any) -> str:
    extra = field.json_schema_extra
    return extra.get("kind", "result") if isinstance(extra, dict) else "result"


def known(registry: Registry) -> AfterValidator:
    """Return the check that a string names a thing of a registry, or is a dotted path to one."""

    def check(value: str) -> str:
        if ":" not in value and value not in registry:
            raise ValueError(registry.unknown(value))
        return value

    return AfterValidator(check)


class LongSide(Section):
    """A grid that keeps each image's proportions and whose longer side is `long_side`."""

    long_side: Annotated[int, Field(ge=16)]


def _grid_size(value: Any, parse: Callable[[Any], Any]) -> Any:
    try:
        return parse(value)
    except ValidationError:
        raise ValueError(
            f"expected original, [height, width] or {{long_side: n}}, each side at least 16 "
            f"pixels; given: {value}"
        ) from None


GridSize = Annotated[
    Literal["original"]
    | LongSide
    | tuple[Annotated[int, Field(ge=16)], Annotated[int, Field(ge=16)]],
    WrapValidator(_grid_size),
]
