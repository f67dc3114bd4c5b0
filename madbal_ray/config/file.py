"""Reading configurations: files, overrides, and errors that list every finding at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from madbal_ray.config.asking import SHORT
from madbal_ray.config.counts import kept_counts
from madbal_ray.config.documents import SHOWN, listed, parse_yaml, preset_or_path, read_yaml
from madbal_ray.config.schema import Config
from madbal_ray.config.section import folder_name, without_credentials
from madbal_ray.errors import ConfigError


def load_config(
    source: Config | Mapping[str, Any] | str | Path, overrides: Sequence[str] = ()
) -> Config:
    """Read a configuration from a YAML or JSON file, a mapping, or another Config.

    Args:
        overrides: strings ``section.key=value``; the value is read as YAML.

    Raises:
        ConfigError: with every finding: file, key, what was given, what is allowed.
    """
    where = "configuration"
    if isinstance(source, Config):
        if not overrides:
            return source
        values: Any = source.model_dump(mode="json")
    elif isinstance(source, Mapping):
        values = _deep_copy(source)
    else:
        where = str(source)
        values = read_yaml(
            preset_or_path(source), "an experiment; `madbal presets` lists those by name"
        )
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected keys and values, got {type(values).__name__}")
    if {"members", "base"} <= values.keys():
        raise ConfigError(f"{where} is a suite and not an experiment: `madbal suite {where}`")
    for override in overrides:
        _apply_override(values, override)
    findings = _old_names(values)
    is_open = True
    while is_open:
        try:
            config = Config.model_validate(values)
            if not findings:
                return config
            is_open = False
        except ValidationError as error:
            findings += _explain(error)
            is_open = _drop_offending(values, error)
    given = [override.partition("=")[0].strip() for override in overrides]
    found = [_of_override(line, given) for line in dict.fromkeys(findings)]
    raise ConfigError(f"{where} cannot be used:{listed(found)}")


def _of_override(line: str, keys: Sequence[str]) -> str:
    """Say of a finding that --set is to blame and not the file."""
    key, _, message = line.partition(":")
    is_set = any(key == one or key.startswith(f"{one}.") for one in keys)
    # A section that --set made by naming a key below it; checks across a section say other things.
    is_made = any(one.startswith(f"{key}.") for one in keys)
    is_made &= message.startswith((" unknown key", " Input should be a valid"))
    return f"--set {line}" if is_set or is_made else line


def changed_keys(old: Config, new: Config) -> list[str]:
    """Return the keys whose change forbids a resume, as ``key: old -> new``.

    A count that is ``auto`` now is the one that the run began with.
    """
    new = kept_counts(new, old)
    changes = [
        f"{key}: {_shown(before)} -> {_shown(after)}"
        for key, before, after in _differences(old.result_settings(), new.result_settings())
    ]
    if new.num_rounds < old.num_rounds:
        changes.append(f"num_rounds: {old.num_rounds} -> {new.num_rounds} (it may only grow)")
    return changes


def settings_of(config: Config, beginnings: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings that results depend on, by key; of keys with one of the beginnings."""

    def flat(node: Any, key: str) -> Iterator[tuple[str, Any]]:
        if isinstance(node, dict) and node:
            for name, value in node.items():
                yield from flat(value, f"{key}.{name}" if key else name)
        else:
            yield key, node

    found = flat(config.result_settings(), "")
    return {key: value for key, value in found if key.startswith(beginnings)}


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(
                old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key
            )
    elif old != new:
        yield prefix, old, new


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings with changes laid over them.

    >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}})
    {'a': {'b': 3, 'c': 2}}
    >>> merged({"oracle": "people"}, {"oracle": {"share": 0.5}})
    {'oracle': {'kind': 'people', 'share': 0.5}}
    """
    result = _deep_copy(base)
    for key, value in changes.items():
        section = _written_out(key, result.get(key))
        if isinstance(value, Mapping) and isinstance(section, dict):
            result[key] = merged(section, value)
        else:
            result[key] = _deep_copy(value)
    return result


def _written_out(key: str, value: Any) -> Any:
    """Return a section as a mapping where a bare name stands for it."""
    return {SHORT[key]: value} if isinstance(value, str) and key in SHORT else value


def _shown(value: Any) -> str:
    """Return a value in one short line, as it would stand in YAML."""
    try:
        text = yaml.safe_dump(value, default_flow_style=True, width=math.inf)
    except (yaml.YAMLError, ValueError, RecursionError):  # of a caller's mapping: no YAML value
        text = type(value).__name__
    text = text.removesuffix("\n...\n").strip()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _deep_copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _deep_copy(item) for key, item in value.items()}
    return value


RENAMED = {("train", "select"): "keep_epoch"}
"""Keys that have another name now: path -> last part of the new one."""


def _old_names(values: dict[str, Any]) -> list[str]:
    """Take keys out that have another name now; return a line for each."""
    findings = []
    for (section, key), new in RENAMED.items():
        node = values.get(section)
        if isinstance(node, dict) and key in node:
            findings.append(f"{section}.{key}: this option is called {section}.{new} now")
            del node[key]
    return findings


def stored_config(values: dict[str, Any]) -> Config:
    """Return the configuration that a run stored, whatever its keys were called then."""
    for (section, key), new in RENAMED.items():
        node = values.get(section)
        if isinstance(node, dict) and key in node:
            node[new] = node.pop(key)
    name, data, pool = values.get("name"), values.get("data"), values.get("pool")
    if isinstance(name, str):  # a run is found by its folder, whatever its name was
        values["name"] = folder_name(name)
    for section, key in ((data, "root"), (pool, "dir")):
        if isinstance(section, dict) and isinstance(section.get(key), str):
            section[key] = without_credentials(section[key])
    return load_config(values)


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {override!r}: expected section.key=value")
    *parents, last = key.strip().split(".")
    node: Any = values
    for parent in parents:
        child: Any = node.setdefault(parent, {})
        if node is values:
            child = node[parent] = _written_out(parent, child)
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override!r}: {parent} is a value, not a section")
        node = child
    node[last] = parse_yaml(text, f"--set {override[:SHOWN]!r}")


def _explain(error: ValidationError) -> list[str]:
    lines = []
    for finding in error.errors():
        key = ".".join(str(part) for part in finding["loc"])
        message = finding["msg"].removeprefix("Value error, ")
        if finding["type"] == "extra_forbidden":
            message = f"unknown key; allowed here: {_allowed_keys(finding['loc'][:-1])}"
        elif finding["type"] == "tuple_type" and isinstance(finding["input"], str):
            names = ", ".join(part.strip() for part in finding["input"].split(","))
            message = f"expected a list, as in [{names[:SHOWN]}]"
        elif finding["type"] != "value_error":
            message = f"{message}; given: {_shown(finding['input'])}"
        lines += [f"{key}: {line}" if key else line for line in message.splitlines()]
    return lines


def _drop_offending(values: dict[str, Any], error: ValidationError) -> bool:
    """Take the keys with findings out, so that the checks across sections run as well."""
    dropped = False
    for finding in error.errors():
        path = [part for part in finding["loc"] if isinstance(part, str)]
        node: Any = values
        for part in path[:-1]:
            node = node.get(part, {}) if isinstance(node, dict) else {}
        if path and isinstance(node, dict) and path[-1] in node:
            del node[path[-1]]
            dropped = True
    return dropped


def _allowed_keys(location: Sequence[int | str]) -> str:
    section: Any = Config
    for part in location:
        section = section.model_fields[str(part)].annotation
    return ", ".join(section.model_fields)
