"""The catalogue of stages: what each writes, where it belongs, and its revision.

A revision enters the key of its stage. Raise it whenever a stage would write other bytes from
the same inputs (another kernel, another default inside the code, another column), so that a
run never mixes versions: a run made before is refused for carrying on, and still opens, reports
and verifies. Golden files (tests/golden) tell when that is due.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from madbal_ray.errors import ConfigError

Scope = Literal["data", "pool", "round", "study"]
"""Whose stage it is: a data set's, the pool's, a round's, or that of a study over several runs."""

PASSES = 4
"""Passes of a cut over the whole pool at most: 64 bits of u(s), 16 at a time."""


@dataclass(frozen=True)
class StageSpec:
    """One stage.

    Attributes:
        tables: that readers find in its folder.
        drafts: tables written there of which another stage has the final one.
        revision: from 1; 0 stands for what was made before there were revisions.
        is_interim: no run points to it: a later stage keeps all that is needed of it.
    """

    name: str
    scope: Scope
    tables: tuple[str, ...] = ()
    drafts: tuple[str, ...] = ()
    revision: int = 1
    is_interim: bool = False


STAGES: dict[str, StageSpec] = {}
"""By name, in the order in which a run completes them."""


def add_stage(stage: StageSpec) -> None:
    """Enter a stage into the catalogue; a plug-in's strategy may bring stages of its own.

    Raises:
        ConfigError: another stage has its name.
    """
    if STAGES.get(stage.name, stage) != stage:
        raise ConfigError(f"stage {stage.name!r} is in the catalogue already; name it otherwise")
    STAGES[stage.name] = stage


for _stage in (
    StageSpec("synthetic", "data"),
    StageSpec("index", "pool", drafts=("images",), revision=2),
    StageSpec("images", "pool", ("images", "quarantine"), revision=2),
    StageSpec("evaluation_points", "pool", drafts=("queries",)),
    StageSpec("evaluation_labels", "pool", drafts=("labels",)),
    StageSpec("backbone_features", "pool", ("backbone_features",), drafts=("tap_sums",)),
    StageSpec("mirrored_features", "pool", drafts=("backbone_features", "tap_sums")),
    StageSpec("tap_statistics", "pool", ("tap_statistics",)),
    StageSpec("superpixels", "pool", ("superpixels",), revision=3),
    StageSpec("superpixel_features", "pool", ("superpixel_features",)),
    StageSpec("kmeans_sample", "pool", drafts=("superpixel_features",), is_interim=True),
    StageSpec("kmeans_fit", "pool", drafts=("centroids",), is_interim=True),
    StageSpec("kmeans_inertia", "pool", drafts=("kmeans_inertia",), is_interim=True),
    StageSpec("centroids", "pool", ("centroids",)),
    StageSpec("superpixel_clusters", "pool", ("superpixel_clusters",)),
    StageSpec("random_clusters", "round", drafts=("superpixel_clusters",)),
    StageSpec("thumbnails", "round", ("thumbnails",)),
    StageSpec("familiarity", "round", drafts=("image_scores",)),
    StageSpec(
        "score",
        "round",
        ("superpixel_scores", "pixel_candidates", "image_scores", "cluster_statistics"),
        revision=3,
    ),
    StageSpec("allocate", "round", ("cluster_budgets",)),
    *(
        StageSpec(f"{name}_{level}", "round", drafts=(table,))
        for level in range(PASSES)
        for name, table in (("digits", "score_digits"), ("cuts", "pool_cuts"))
    ),
    StageSpec("image_chances", "round", drafts=("superpixel_scores",)),
    StageSpec("image_shares", "round", drafts=("cluster_budgets",)),
    *(
        StageSpec(f"image_{name}_{level}", "round", drafts=(table,))
        for level in range(PASSES)
        for name, table in (("digits", "score_digits"), ("cuts", "pool_cuts"))
    ),
    StageSpec("first_images", "round", drafts=("queries",)),
    StageSpec("chances", "round", drafts=("superpixel_scores",)),
    StageSpec("shares", "round", drafts=("cluster_budgets",)),
    StageSpec("select", "round", ("queries",)),
    StageSpec("requests", "round", ("pixel_requests",), revision=2),
    StageSpec("answers", "round", ("answers",)),
    StageSpec("known_labels", "round", drafts=("labels",)),
    StageSpec("labels", "round", ("labels",)),
    StageSpec("point_features", "round", ("point_features",)),
    StageSpec("frozen_head", "round"),
    StageSpec("phase1", "round", drafts=("class_loss_thresholds",)),
    StageSpec("metrics", "round", ("confusion", "metrics", "point_metrics"), revision=2),
    StageSpec("phase2", "round", ("class_loss_thresholds",)),
    StageSpec("predictions", "round", ("predictions",)),
    StageSpec("fold_images", "study", drafts=("images",), revision=2),
    StageSpec("fold_labels", "study", drafts=("labels",)),
    StageSpec("trial", "study"),
):
    add_stage(_stage)


def stages_of(scope: Scope) -> list[str]:
    """Return the names of the stages of one scope, in order."""
    return [stage.name for stage in STAGES.values() if stage.scope == scope]


LAST_POOL_STAGE = stages_of("pool")[-1]


def writer_of(table: str) -> StageSpec:
    """Return the stage in which readers find a table.

    Raises:
        KeyError: there is none.
    """
    for stage in STAGES.values():
        if table in stage.tables:
            return stage
    raise KeyError(f"no stage writes table {table!r}")
