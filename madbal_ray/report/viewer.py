"""Queries in place: what the page's viewer shows, within a limit of bytes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from madbal_ray.report import pictures
from madbal_ray.report.pictures import Color, ImageStory, RunInsight

PICTURE_CHARACTERS = 3_300_000
"""All pictures of the viewer, as the page holds them; with all the rest it stays below 6 MB."""

SIDES = ((1600, 768), (1280, 512), (960, 384), (720, 256), (480, 192), (320, 128), (160, 96))
"""Longest sides of photographs and maps: the first pair that the limit allows."""

MAX_PICTURES = 96
MAX_IMAGES = 6
MAX_MEMBERS = 12
"""Members whose networks can be looked at; the first ones of a suite."""


def num_images(num_members: int, num_views: int) -> int:
    """Return how many images are shown, so that pictures of all members and rounds fit.

    >>> num_images(1, 3), num_images(5, 8)
    (6, 2)
    """
    return max(2, min(MAX_IMAGES, MAX_PICTURES // max(1, num_members * num_views)))


def viewer(
    insights: Mapping[str, RunInsight], class_names: Sequence[str], colors: Sequence[Color]
) -> dict[str, Any] | None:
    """Return what page.js shows; None where no image can be seen.

    Args:
        insights: member -> its stories, all of the same images.
    """
    seen = {member: one.stories for member, one in insights.items() if one.stories}
    stories = dict(itertools.islice(seen.items(), MAX_MEMBERS))
    if not stories:
        return None
    drawn: dict[str, Any] = {}
    for photo_side, map_side in SIDES:
        drawn = _draw(stories, colors, photo_side, map_side)
        if _characters(drawn) <= PICTURE_CHARACTERS:
            break
    return {
        "classes": list(class_names),
        "members": [_member(member, told) for member, told in stories.items()],
        **drawn,
    }


def _draw(
    stories: Mapping[str, Sequence[ImageStory]],
    colors: Sequence[Color],
    photo_side: int,
    map_side: int,
) -> dict[str, Any]:
    first = next(iter(stories.values()))
    return {
        "images": [
            {
                "id": story.image_id,
                "reason": story.reason,
                "height": story.views[0].prediction.shape[0],
                "width": story.views[0].prediction.shape[1],
                "original": [story.photo.shape[0], story.photo.shape[1]],
                "photo": pictures.photograph(story.photo, photo_side),
                "truth": None
                if story.truth is None
                else pictures.class_map(story.truth, colors, map_side),
            }
            for story in first
        ],
        "maps": [
            [_maps(story, colors, map_side) for story in told]  # member x image x view
            for told in stories.values()
        ],
    }


def _maps(story: ImageStory, colors: Sequence[Color], side: int) -> list[dict[str, Any]]:
    return [
        {
            "round": view.round_index,
            "prediction": pictures.class_map(view.prediction, colors, side),
            "errors": None
            if story.truth is None
            else pictures.error_map(view.prediction, story.truth, side),
            "score": pictures.score_map(view.score, side // 2),
        }
        for view in story.views
    ]


def _characters(drawn: Any) -> int:
    if isinstance(drawn, str):
        return len(drawn)
    if isinstance(drawn, Mapping):
        return sum(map(_characters, drawn.values()))
    return sum(map(_characters, drawn)) if isinstance(drawn, list) else 0


def _member(member: str, stories: Sequence[ImageStory]) -> dict[str, Any]:
    return {
        "name": member,
        "score": stories[0].score_name.replace("_", " "),
        "queries": [_queries(story) for story in stories],
        "outlines": [story.outlines for story in stories],
    }


def _queries(story: ImageStory) -> list[dict[str, Any]]:
    """Return the queries of an image by round, numbered from 1 in each."""
    terms = [name for name in story.queries.columns if name.startswith("term_")]
    shown = []
    for row in story.queries.to_dict("records"):
        whole = {
            name: _whole(row[name])
            for name in ("round", "rank", "cluster_id", "budget", "num_superpixels")
        }
        shown.append(
            {
                **whole,
                "y": row["y"] + 0.5,
                "x": row["x"] + 0.5,
                "unit": row["unit"],
                "superpixel": row["superpixel_id"],
                "predicted": _whole(row["predicted"]),
                "answered": _whole(row["class_id"]),
                "status": row["status"] if isinstance(row["status"], str) else "waiting",
                "dominant": _whole(row["dominant_class"]),
                **{name: _rounded(row[name]) for name in ("score", "mean_score", "share")},
                "terms": {
                    name.removeprefix("term_").replace("_", " "): _rounded(row[name])
                    for name in terms
                    if not _is_missing(row[name])
                },
            }
        )
    return shown


def _is_missing(value: Any) -> bool:
    return value is None or bool(pd.isna(value))


def _whole(value: Any) -> int | None:
    return None if _is_missing(value) else int(value)


def _rounded(value: Any) -> float | None:
    return None if _is_missing(value) or math.isinf(value) else float(f"{value:.4g}")
