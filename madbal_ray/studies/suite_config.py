"""Suites: strategies x seeds x variants that may be put on one axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from madbal_ray.config.counts import check_counts
from madbal_ray.config.documents import listed, preset_or_path, read_yaml
from madbal_ray.config.file import changed_keys, load_config, merged
from madbal_ray.config.schema import Config
from madbal_ray.config.section import FolderName
from madbal_ray.errors import ConfigError

FREE = (
    "strategy",
    "clustering",
    "features",
    "superpixels",
    "train.phase2",
    "budget.images_per_round",
    "budget.scope",
    "budget.max_per_image",
)
"""What members of a suite may differ in, beside `SuiteFile.varies`; all else is the protocol."""

VARIABLE = r"^(train|model)\."
"""What else a suite may compare: what its members train, and how."""

REFERENCE = "full_supervision"


class SuiteFile(BaseModel):
    """What a suite's YAML holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: FolderName
    base: str | dict[str, Any] = Field(description="experiment that all members start from")
    overrides: dict[str, Any] = Field(default_factory=dict, description="on top of it, for all")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    members: dict[FolderName, dict[str, Any]] = Field(min_length=1)
    baseline: str = Field(description="member that the others are compared with")
    varies: tuple[Annotated[str, Field(pattern=VARIABLE)], ...] = Field(
        default=(),
        description="keys or sections of train and model that members differ in beside what a "
        "strategy is made of, as train.phase1.objective: the suite compares them, too",
    )
    reference: dict[str, Any] | None = Field(
        default=None, description="overrides of the fully supervised run; null: none"
    )


@dataclass(frozen=True)
class SuiteRun:
    """One run of a suite."""

    member: str
    seed: int
    config: Config

    @property
    def name(self) -> str:
        """Return the run's folder, flat below the suite's: all share the pool beside them."""
        return f"{self.member}-seed-{self.seed}"


@dataclass(frozen=True)
class Suite:
    """A suite whose members were all found usable and comparable."""

    name: str
    baseline: str
    seeds: tuple[int, ...]
    runs: tuple[SuiteRun, ...]
    has_reference: bool
    varies: tuple[str, ...] = ()

    @property
    def members(self) -> tuple[str, ...]:
        """Return the members in order, the reference not among them."""
        names = dict.fromkeys(run.member for run in self.runs)
        return tuple(name for name in names if name != REFERENCE)


def load_suite(path: str | Path, overrides: tuple[str, ...] = ()) -> Suite:
    """Read a suite and check every member before anything runs.

    Args:
        overrides: strings ``section.key=value``, for all members; rounds and budgets are not
            those of full supervision.

    Raises:
        ConfigError: lists every broken member and every difference in protocol.
    """
    path = preset_or_path(path)
    spec = _read(path)
    base: dict[str, Any] = (
        dict(spec.base)
        if isinstance(spec.base, dict)
        else load_config(path.parent / spec.base, tuple(_roots(overrides))).model_dump(mode="json")
    )
    common = merged(base, spec.overrides)
    runs, problems = [], [*_twice(spec), *_of_members(overrides)]
    for member, changes in _all_members(spec):
        own = _without_budget(overrides) if member == REFERENCE else overrides
        for seed in spec.seeds:
            values = merged(common, changes)
            values |= {"seed": seed, "name": member}
            try:
                config = load_config(values, own)
                check_counts(config, "a suite")
            except ConfigError as error:
                problems.append(f"member {member}: {error}")
                break
            runs.append(SuiteRun(member, seed, config))
    if spec.baseline not in spec.members:
        problems.append(f"baseline {spec.baseline!r} is no member: {', '.join(spec.members)}")
    by_member = {run.member: run.config for run in runs}
    if by_member:
        problems += protocol_differences(by_member, spec.varies) + paths_differences(by_member)
    problems += _other_lengths(runs)
    if problems:
        raise ConfigError(f"{path} cannot be used:{listed(problems)}")
    has_reference = spec.reference is not None
    return Suite(spec.name, spec.baseline, spec.seeds, tuple(runs), has_reference, spec.varies)


def _all_members(spec: SuiteFile) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from spec.members.items()
    if spec.reference is not None:
        full = {
            "strategy": {"name": "random"},
            "num_rounds": 1,
            "budget": {"initial_pixels_per_image": "all"},
        }
        yield REFERENCE, merged(full, spec.reference)


def is_reference(config: Config) -> bool:
    """Tell whether a run is the fully supervised one."""
    budget = config.budget
    return budget.initial_pixels_per_image == "all" and budget.initial_images is None


def paths_differences(configs: Mapping[str, Config]) -> list[str]:
    """Return where members of one suite name other data, weights, machines or stop rules.

    These may change at a resume, or name the same bytes on another machine, so they are no
    result settings; within a suite they must agree: it has one pool, and one cluster to run on.
    """
    names = list(configs)
    first = configs[names[0]]
    differences = []
    for name in names[1:]:
        other = configs[name]
        for key, here, there in (
            ("data.root", first.data.root, other.data.root),
            ("model.weights", first.model.weights, other.model.weights),
            ("stop", first.stop, other.stop),
            ("resources", first.resources, other.resources),
            ("pool.dir", first.pool.dir, other.pool.dir),
            ("data.folder.class_file", first.data.folder.class_file, other.data.folder.class_file),
        ):
            if here != there:
                differences.append(
                    f"{name} is not comparable with {names[0]}: {key}: {here} -> {there}"
                )
    return differences


def protocol_differences(configs: Mapping[str, Config], varies: Sequence[str] = ()) -> list[str]:
    """Return where runs depart from the first run's protocol, a line each.

    Runs may be put on one axis when they differ in seed, number of rounds and what a
    strategy is made of (`FREE`) only. A fully supervised run may differ in its budget too.

    Args:
        configs: name of the run -> its configuration.
        varies: as `SuiteFile.varies`.
    """
    problems: list[str] = []
    always = (*FREE, *varies, "num_rounds")
    names = sorted(configs, key=lambda name: is_reference(configs[name]))
    for name in names[1:]:
        config, first = configs[name], configs[names[0]]
        free = (*always, "budget") if is_reference(config) else always
        first = first.model_copy(update={"seed": config.seed})
        problems += [
            f"{name} is not comparable with {names[0]}: {change}"
            for change in changed_keys(first, config)
            if not change.startswith(free)
        ]
    return list(dict.fromkeys(problems))


def _other_lengths(runs: list[SuiteRun]) -> list[str]:
    members = {run.member: run.config.num_rounds for run in runs if run.member != REFERENCE}
    first = next(iter(members.values()), 0)
    return [
        f"member {member} has {rounds} rounds, others {first}"
        for member, rounds in members.items()
        if rounds != first
    ]


def _twice(spec: SuiteFile) -> Iterator[str]:
    """Yield what would give two runs one folder."""
    if len(set(spec.seeds)) < len(spec.seeds):
        yield f"seeds: {list(spec.seeds)} holds one twice"
    if spec.reference is not None and REFERENCE in spec.members:
        yield f"members: {REFERENCE} is what `reference` runs as; name it otherwise"


def _of_members(overrides: tuple[str, ...]) -> Iterator[str]:
    """Yield which overrides would make all members, or all seeds, the same."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key in ("seed", "name", "strategy", "strategy.name"):
            yield f"--set {override}: members and seeds differ in {key}; write it into the suite"


def _without_budget(overrides: tuple[str, ...]) -> tuple[str, ...]:
    """Return the overrides that full supervision takes: it has one round and all labels."""
    return tuple(
        override
        for override in overrides
        if override.partition("=")[0].strip().split(".")[0] not in ("num_rounds", "budget")
    )


def _roots(overrides: tuple[str, ...]) -> Iterator[str]:
    """Yield the overrides that a base experiment cannot be read without."""
    return (override for override in overrides if override.startswith("data.root="))


def _read(path: Path) -> SuiteFile:
    values = read_yaml(path, "a suite; `madbal presets` lists those by name")
    if isinstance(values, dict) and not {"members", "base"} & values.keys():
        raise ConfigError(f"{path} is an experiment and not a suite: `madbal run {path}`")
    try:
        return SuiteFile.model_validate(values)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, finding['loc']))}: {finding['msg']}" for finding in error.errors()
        ]
        raise ConfigError(f"{path} is not a suite:{listed(lines)}") from None
