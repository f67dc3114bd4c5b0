"""The one door for YAML that people write: bounded, plain values only, no key twice."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from madbal_ray.errors import ConfigError

MAX_BYTES = 4 * 2**20
MAX_VALUES = 20_000
"""Values of a document once its aliases are written out."""
MAX_DEPTH = 32
MAX_INTEGER = 2**63
MAX_PATH = 1000
"""Characters of a path that stands in a message in full."""
SHOWN = 200
"""Characters of a value, a key or a library's remark in a message."""
MAX_FINDINGS = 100
MAX_LINE = 2000
"""Of a message: the longest lists every allowed key of a section."""

PLAIN = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")
)
MERGE = "tag:yaml.org,2002:merge"


PRESETS = Path(__file__).parents[1] / "presets"
"""The experiments that this package brings."""


def preset_or_path(name: str | Path) -> Path:
    """Return the file that is meant: a path, or a preset by its name, as in ``quickstart``.

    A file that exists goes first. ``suites/paper-camvid`` names a preset as well.
    """
    path = Path(name)
    preset = PRESETS / f"{path.as_posix()}.yaml"
    is_name = not path.suffix and not path.is_absolute() and ".." not in path.parts
    return preset if is_name and not path.exists() and preset.is_file() else path


def presets() -> dict[str, str]:
    """Return what `preset_or_path` takes for each experiment and suite -> what its head says."""
    found = {}
    for path in sorted([*PRESETS.glob("*.yaml"), *PRESETS.glob("suites/*.yaml")]):
        lines = takewhile(lambda line: line.strip("# \n"), path.read_text("utf-8").splitlines())
        text = " ".join(line.removeprefix("#").strip() for line in lines)
        sentence = re.split(r"\.\s+(?=[A-Z])", text)[0].rstrip(".")
        found[path.relative_to(PRESETS).with_suffix("").as_posix()] = sentence
    return found


def listed(findings: Sequence[str]) -> str:
    """Return findings as the lines below a message's first one, as many and long as can be read."""
    more = [f"and {len(findings) - MAX_FINDINGS} more"] if len(findings) > MAX_FINDINGS else []
    return "".join(f"\n  {line[:MAX_LINE]}" for line in [*findings[:MAX_FINDINGS], *more])


def read_yaml(path: Path, what: str) -> Any:
    """Return what a YAML file holds; {} where it is empty.

    Args:
        what: the file should be, for messages.

    Raises:
        ConfigError: it cannot be read, or is not valid YAML.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        name = str(path) if len(str(path)) <= MAX_PATH else f"{str(path)[:SHOWN]}…"
        raise ConfigError(
            f"{name}: cannot be read ({reason}); give the path of a YAML file: {what}"
        ) from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: more than {MAX_BYTES} bytes; expected {what}")
    return parse_yaml(text, str(path)) or {}


class _Loader(yaml.SafeLoader):
    """YAML whose numbers may be 1e-4, as in YAML 1.2; of 1.1 that is text, for want of a dot."""


_Loader.yaml_implicit_resolvers = {
    first: list(known) for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, [*"-+0123456789"])


def parse_yaml(text: str, where: str) -> Any:
    """Return the value that YAML text stands for: mappings, lists, text, finite numbers, null.

    Raises:
        ConfigError: it is not valid, too deep or too large, holds a key twice, or another kind of
            value.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _measure(node, {}, ())
            value = loader.construct_document(node)
        finally:
            loader.dispose()
        _check_numbers(value)
        return value
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested more than {MAX_DEPTH} levels deep") from None
    except Exception as error:  # PyYAML raises anything on odd scalars: KeyError, IndexError …
        reason = " ".join(str(error).split())[: 2 * SHOWN] or type(error).__name__
        raise ConfigError(f"{where}: not valid YAML: {reason}") from None


def _measure(node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
    """Return how many values a node stands for; aliases are counted where they are used."""
    if id(node) in above:
        raise ConfigError(f"{_line(node)}: an alias that contains itself")
    if len(above) >= MAX_DEPTH:
        raise ConfigError(f"{_line(node)}: nested more than {MAX_DEPTH} levels deep")
    if id(node) not in known:
        below = (*above, id(node))
        known[id(node)] = 1 + sum(_measure(child, known, below) for child in _children(node))
    if known[id(node)] > MAX_VALUES:
        raise ConfigError(f"{_line(node)}: more than {MAX_VALUES} values once aliases are used")
    return known[id(node)]


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    """Yield keys and values below a node; refuse a key that stands there twice."""
    if node.tag not in (*PLAIN, MERGE):
        kind = node.tag.rpartition(":")[2][:SHOWN]
        raise ConfigError(f"{_line(node)}: a value of kind {kind!r}; write it as text, in quotes")
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    if isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], str] = {}
        for key, value in node.value:
            name = (key.tag, str(key.value))
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if name in lines:
                    raise ConfigError(
                        f"{_line(key)}: key {key.value[:SHOWN]!r} stands there already, in "
                        f"{lines[name]}; leave one of them"
                    )
                lines[name] = _line(key)
            yield key
            yield value


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"


def _check_numbers(value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_numbers(key)
            _check_numbers(item)
    elif isinstance(value, list):
        for item in value:
            _check_numbers(item)
    elif isinstance(value, int) and not -MAX_INTEGER <= value < MAX_INTEGER:
        raise ConfigError(f"a whole number of {value.bit_length()} bits; at most 64 can be used")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"the number {value}; only finite numbers can be used")
