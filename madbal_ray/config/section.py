"""Groups of options: frozen, no unknown keys, and which of them may change a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
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


AUTO = 0
"""What a `Count` holds while it says ``auto``; nothing computes with it."""


def _count(value: Any) -> Any:
    if value == "auto":
        return AUTO
    if value == AUTO:
        raise ValueError("expected auto, or a number of 1 or more")
    return value


Count = Annotated[
    int,
    Field(ge=0),
    BeforeValidator(_count, json_schema_input_type=int | Literal["auto"]),
    PlainSerializer(lambda count: count or "auto", return_type=int | Literal["auto"]),
]
"""A number, or ``auto``: what the machines have when a run begins (`madbal_ray.config.counts`)."""


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


SECRET_WORDS = ("secret", "password", "token", "sig", "key")
"""What the name of a query parameter that holds a credential has in it."""


def holds_credentials(address: str) -> bool:
    """Tell whether an address names a password, a key or a token.

    >>> holds_credentials("s3://KEY:SECRET@bucket/x"), holds_credentials("s3://bucket/a@b")
    (True, False)
    """
    if "://" not in address:
        return False
    try:
        parts = urlsplit(address)
        named = [name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    except ValueError:  # no address at all; whoever opens it says so
        return False
    user, separator, _ = parts.netloc.rpartition("@")
    is_known = bool(separator) and (":" in user or parts.scheme in ("s3", "gs", "gcs"))
    return is_known or any(word in name for name in named for word in SECRET_WORDS)


def check_address(address: str | None) -> str | None:
    """Refuse an address that holds credentials; `config.json` would keep it.

    Raises:
        ValueError: without the credentials in it.
    """
    if address is not None and holds_credentials(address):
        raise ValueError(
            "the address holds a key, a password or a token, and config.json would keep it: leave "
            "it out, and put credentials into the environment (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS)"
        )
    return address


def without_credentials(address: str) -> str:
    """Return an address without user, password and query where it holds credentials.

    >>> without_credentials("s3://KEY:SECRET@bucket/x")
    's3://bucket/x'
    """
    if not holds_credentials(address):
        return address
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


Address = Annotated[str, AfterValidator(check_address)]
"""A path or a URI without credentials."""

MAX_NAME = 100


def check_name(name: str) -> str:
    """Refuse a name that cannot be the name of a folder.

    Raises:
        ValueError: it is empty, leads elsewhere, or holds what is no part of a name.
    """
    is_plain = name.isprintable() and not any(letter in name for letter in "/\\:")
    if not is_plain or not name.strip() or name.startswith(".") or len(name) > MAX_NAME:
        raise ValueError(
            f"{name[:MAX_NAME]!r} cannot name a folder: use up to {MAX_NAME} printable characters "
            "without / \\ and :, and no dot in front"
        )
    return name


def folder_name(name: str) -> str:
    """Return a name that `check_name` accepts: itself, or with what it refuses replaced.

    >>> folder_name("a b"), folder_name("../up")
    ('a b', '___up')
    """
    try:
        return check_name(name)
    except ValueError:
        kept = (letter if letter.isalnum() or letter in "-_ " else "_" for letter in name)
        return "".join(kept)[:MAX_NAME].strip() or "run"


FolderName = Annotated[str, AfterValidator(check_name)]


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
