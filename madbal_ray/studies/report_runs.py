"""From run folders to a report: reads tables, looks into networks, hands arrays over."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from madbal_ray.config.documents import listed
from madbal_ray.config.file import settings_of
from madbal_ray.errors import ConfigError, DataError, IntegrityError, RunDirError
from madbal_ray.labels.asked_classes import asked_classes
from madbal_ray.labels.ledger import latest_revisions
from madbal_ray.report.page import write_report
from madbal_ray.report.pictures import RunInsight
from madbal_ray.report.results import Results
from madbal_ray.report.run_result import RunFacts, RunResult
from madbal_ray.report.viewer import num_images
from madbal_ray.runs.image_stories import shown_rounds
from madbal_ray.runs.insight import cluster_galleries, look_inside
from madbal_ray.runs.run import Run, open_run
from madbal_ray.state.run_dir import SUITE_NAME
from madbal_ray.state.storage import Folder
from madbal_ray.studies.suite_config import is_reference, protocol_differences


@dataclass(frozen=True)
class Opened:
    """Runs to be reported together.

    Attributes:
        runs: with at least one finished round.
        title: names of the experiments.
        baseline, command: of the (only) suite; None: no suite, or several.
        varies: what suites compare beside strategies, as `SuiteFile.varies`.
    """

    runs: list[Run]
    title: str
    baseline: str | None
    command: str | None
    varies: tuple[str, ...] = ()


def open_runs(paths: Sequence[str]) -> Opened:
    """Open run folders, and all runs of suite folders.

    Raises:
        RunDirError: a folder is neither a run nor a suite, or no round is finished.
    """
    runs: list[Run] = []
    suites: list[dict[str, Any]] = []
    titles: list[str] = []
    for path in paths:
        folder = Folder(path)
        if folder.exists(SUITE_NAME):
            suite = folder.read_json(SUITE_NAME)
            if not {"baseline", "runs"} <= suite.keys():
                raise IntegrityError(f"{folder}/{SUITE_NAME} is damaged; run the suite again")
            suites.append(suite)
            titles.append(str(suite.get("name", folder.uri.rpartition("/")[2])))
            runs += [
                open_run((folder / name).uri)
                for name in suite["runs"]
                if (folder / name).exists("config.json")
            ]
        else:
            runs.append(open_run(path))
            titles.append(runs[-1].config.name)
    runs = [run for run in runs if run.num_rounds]
    if not runs:
        raise RunDirError(
            f"{', '.join(paths)}: no round is finished yet (`madbal score` writes none), so "
            "nothing was measured that could be reported"
        )
    only = suites[0] if len(suites) == 1 else {}
    return Opened(
        runs,
        " · ".join(dict.fromkeys(titles)),
        suites[0]["baseline"] if len({suite["baseline"] for suite in suites}) == 1 else None,
        only.get("command") if len(paths) == 1 else None,
        tuple(dict.fromkeys(key for suite in suites for key in suite.get("varies", ()))),
    )


def report_runs(
    opened: Opened,
    out: Path,
    *,
    baseline: str | None,
    device: str,
    warn: Callable[[str], None],
) -> tuple[Results, list[Path]]:
    """Write the report of some runs on one axis.

    Args:
        baseline: member that the others are compared with, as the user named it; None: the
            suite's where it is there, else the first one.
        warn: told what could not be shown, and why.

    Raises:
        ConfigError: the runs are of different data sets or protocols, or the baseline is
            none of them.
    """
    runs = opened.runs
    is_known = baseline is None and opened.baseline is not None
    results = compare(
        runs,
        baseline=baseline or opened.baseline,
        is_known=is_known,
        varies=opened.varies,
    )
    if not results.splits:
        raise RunDirError("nothing was measured (evaluation.splits is empty), so nothing to report")
    insights: dict[str, RunInsight] = {}
    chosen: dict[str, str] | None = None
    num_views = len(shown_rounds(max(run.num_rounds for run in runs)))
    for member in results.members:
        first = results.of(member)[0]
        run = next(run for run in runs if str(run.run_dir) == first.folder)
        try:
            insight = look_inside(
                run,
                device=device,
                num_images=num_images(len(results.members), num_views),
                chosen=chosen,
            )
        except (DataError, RunDirError) as error:
            warn(f"no pictures of {member}: {error}")
            continue
        if insight is not None:
            insights[member] = insight
            chosen = {story.image_id: story.reason for story in insight.stories}
    galleries = []
    try:
        galleries = cluster_galleries(runs[0])
    except (DataError, RunDirError) as error:
        warn(f"no pictures of clusters: {error}")
    written = write_report(
        results, insights, galleries, out, title=opened.title, command=opened.command
    )
    return results, written


def compare(
    runs: Sequence[Run],
    *,
    baseline: str | None = None,
    is_known: bool = False,
    varies: Sequence[str] = (),
) -> Results:
    """Return runs on one axis.

    Args:
        is_known: the baseline is a suite's and not the user's; where it is none of the
            runs, the first member stands in for it.
        varies: what they may differ in beside strategies, as `SuiteFile.varies`.

    Raises:
        ConfigError: see `report_runs`.
    """
    problems = protocol_differences({str(run.run_dir): run.config for run in runs}, varies)
    problems += _other_bytes(runs)
    if problems:
        raise ConfigError(
            f"these runs cannot be put on one axis:{listed(problems)}"
            "\nreport them apart, each with its like"
        )
    labels, own = _labels(runs), _varied(runs, varies)
    results = Results(
        [_result(*of_run) for of_run in zip(runs, labels, own, strict=True)], baseline
    )
    if baseline is not None and baseline not in results.members and not is_known:
        raise ConfigError(
            f"baseline {baseline!r} is none of the runs: {', '.join(results.members)}"
        )
    if results.baseline not in results.members and len(results.members) > 1:
        results = Results(results.runs, results.members[0])
    return results


def _other_bytes(runs: Sequence[Run]) -> list[str]:
    """Return where runs saw other images or began with other pretrained weights.

    Their paths may differ from machine to machine; what counts is what the run recorded.
    """
    differences = []
    first = runs[0]
    for run in runs[1:]:
        if run.stage("index").key != first.stage("index").key:
            differences.append(f"{run.run_dir} has other images or masks than {first.run_dir}")
        if run.weights_identity() != first.weights_identity():
            differences.append(
                f"{run.run_dir} began with other pretrained weights than {first.run_dir}"
            )
    return differences


def _labels(runs: Sequence[Run]) -> list[str]:
    """Name the members: by configuration name where that tells seeds from strategies."""
    seen: dict[tuple[str, int], int] = {}
    settings: dict[str, set[str]] = {}
    for run in runs:
        key = (run.config.name, run.config.seed)
        seen[key] = seen.get(key, 0) + 1
        alike = run.config.model_copy(update={"seed": 0}).result_settings()
        settings.setdefault(run.config.name, set()).add(json.dumps(alike, sort_keys=True))
    if max(seen.values()) == 1 and all(len(variants) == 1 for variants in settings.values()):
        return [run.config.name for run in runs]
    parts = [str(run.run_dir).rstrip("/").split("/") for run in runs]
    depth = 1
    while len({tuple(path[-depth:]) for path in parts}) < len({tuple(path) for path in parts}):
        depth += 1
    return ["/".join(path[-depth:]) for path in parts]


def _varied(runs: Sequence[Run], varies: Sequence[str]) -> list[list[str]]:
    """Return for each run what it was set to of what they vary, as lines of its protocol."""
    settings = [settings_of(run.config, tuple(varies)) for run in runs]
    names = sorted({name for one in settings for name in one})
    differing = [name for name in names if len({repr(one.get(name)) for one in settings}) > 1]
    return [
        [f"differs     {name} {one[name]}" for name in differing if name in one] for one in settings
    ]


def _result(run: Run, member: str, own: Sequence[str]) -> RunResult:
    last = range(run.num_rounds)
    labels = latest_revisions(pa.concat_tables([run.table("labels", i) for i in last]))
    queries = pa.concat_tables([run.table("queries", i) for i in last])
    budgets = run.table("cluster_budgets").to_pandas()
    budget = run.config.budget
    per_image: float = budget.pixels_per_image
    if budget.total_pixels is not None:
        per_image = budget.total_pixels / run.pool(reads_images=False).num_images
    total = budgets.groupby("round")["budget"].transform("sum")  # the pool's in scope pool
    budgets["budget"] *= per_image / total
    return RunResult(
        member=member,
        seed=run.config.seed,
        folder=str(run.run_dir),
        is_reference=is_reference(run.config),
        metrics=run.metrics(),
        class_names=run.class_names,
        colors=run.colors,
        asked_classes=asked_classes(labels),
        asked_clusters=_counts(queries, "cluster_id"),
        cluster_budgets=budgets,
        point_metrics=run.point_metrics(),
        minutes=run.minutes_of_people(),
        timings=run.table("timings").to_pandas(),
        protocol=(*run.protocol(), *own),
        versions=run.versions(),
        facts=_facts(run),
    )


def _facts(run: Run) -> RunFacts:
    events = run.run_dir.events()
    starts = [event for event in events if event["event"] == "run_started"]
    data = run.protocol()[0].removeprefix("data").strip()
    if run.config.data.root is not None:
        data += f"; at {run.config.data.root}"
    return RunFacts(
        strategy=run.config.strategy.name,
        data=data,
        command=next((one["command"] for one in starts if one.get("command")), ""),
        started=starts[0]["time"] if starts else None,
        ended=events[-1]["time"] if starts else None,
        scope=run.config.budget.scope,
        oracle=run.config.oracle.kind,
        passes=_passes(run),
    )


def _passes(run: Run) -> float | None:
    phase = run.config.train.phase1
    if phase.steps is None or run.num_rounds == 0:
        return None
    labels = run.stage("phase1", run.num_rounds - 1).marker().summary["labelled_pixels"]
    return phase.steps * phase.batch_points / labels


def _counts(table: pa.Table, key: str) -> pd.DataFrame:
    counts = table.group_by(["round", key]).aggregate([([], "count_all")]).to_pandas()
    return counts.rename(columns={"count_all": "count"})
