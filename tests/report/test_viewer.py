"""What the viewer is handed: numbers as JSON knows them, pictures within their limit."""

import json
import math

import numpy as np
import pandas as pd

from madbal_ray.report import plots
from madbal_ray.report.page import as_json
from madbal_ray.report.pictures import ImageStory, NetworkView, RunInsight
from madbal_ray.report.viewer import PICTURE_CHARACTERS, num_images, viewer

NAMES, COLORS = ("sky", "road"), ((0, 0, 255), (90, 90, 90))


def story(side=8, **query):
    noise = np.random.default_rng(0)
    row = {
        "round": 1, "image_id": "a", "y": 2, "x": 3, "unit": "pixel", "superpixel_id": 4,
        "cluster_id": 1.0, "score": 0.123456, "rank": 0, "predicted": 1.0, "class_id": 0.0,
        "status": "labelled", "num_superpixels": 7.0, "budget": 2.0, "share": 0.25,
        "mean_score": math.nan, "dominant_class": math.nan, "term_predicted_error": 0.5,
    } | query  # fmt: skip
    return ImageStory(
        image_id="a",
        reason="typical",
        photo=noise.integers(0, 255, (side, 2 * side, 3), np.uint8),
        truth=np.zeros((4, 8), np.uint8),
        score_name="score",
        views=[
            NetworkView(i, np.ones((4, 8), np.uint8), np.ones((4, 8), np.float32)) for i in (0, 1)
        ],
        queries=pd.DataFrame([row]),
        outlines={4: [[0.0, 1.0, 2.0, 3.0]]},
    )


def shown(*stories):
    return viewer({"madbal": RunInsight(0, list(stories))}, NAMES, COLORS)


def test_a_query_is_told_whole():
    data = shown(story())
    assert data["members"][0]["queries"][0] == [
        {
            "round": 1, "rank": 0, "cluster_id": 1, "budget": 2, "num_superpixels": 7,
            "y": 2.5, "x": 3.5, "unit": "pixel", "superpixel": 4, "predicted": 1, "answered": 0,
            "status": "labelled", "dominant": None, "score": 0.1235, "mean_score": None,
            "share": 0.25, "terms": {"predicted error": 0.5},
        }
    ]  # fmt: skip
    image = data["images"][0]
    assert (image["width"], image["height"], image["original"]) == (8, 4, [8, 16])
    assert [one["round"] for one in data["maps"][0][0]] == [0, 1]


def test_an_answer_that_is_awaited_is_said():
    data = shown(story(class_id=math.nan, status=math.nan))
    query = data["members"][0]["queries"][0][0]
    assert (query["answered"], query["status"]) == (None, "waiting")


def test_nothing_seen_is_no_viewer():
    assert viewer({"random": RunInsight(0)}, NAMES, COLORS) is None


def test_pictures_become_smaller_until_they_fit():
    data = shown(*[story(side=1000)] * 4)  # noise is the worst of photographs
    photos = [image["photo"] for image in data["images"]]
    assert 0.2 * PICTURE_CHARACTERS < sum(map(len, photos)) <= PICTURE_CHARACTERS
    assert data["images"][0]["original"] == [1000, 2000]


def test_many_members_and_rounds_show_fewer_images():
    assert [num_images(*shape) for shape in ((1, 3), (3, 8), (5, 8), (40, 8), (0, 1))] == [
        6,
        4,
        2,
        2,
        6,
    ]


def test_no_text_ends_the_script():
    text = as_json({"name": "</script><b>"})
    assert "<" not in text
    assert json.loads(text) == {"name": "</script><b>"}


def test_lines_have_bands_gaps_and_names_as_text():
    series = [
        plots.Series("<b>a</b>", [1, 2], [0.5, math.nan], [0.4, 0.4], [0.6, 0.6]),
        plots.Series("b", [1, 500], [0.1, 0.2]),
    ]
    plot = plots.lines(series, x_label="clicks", y_label="mIoU", level=("full", 0.9))
    band, first, second, level = plot["data"]
    assert band["x"] == [1, 2, 2, 1]
    assert band["y"] == [0.6, 0.6, 0.4, 0.4]
    assert band["legendgroup"] == first["legendgroup"] != second["legendgroup"]
    assert first["name"] == "&lt;b&gt;a&lt;/b&gt;"
    assert first["y"] == [0.5, None]
    assert level["y"] == [0.9, 0.9]
    assert plot["layout"]["xaxis"]["type"] == "log"
    assert "type" not in plots.lines(series[:1], x_label="", y_label="")["layout"]["xaxis"]


def test_a_band_goes_forth_along_its_upper_edge_and_back_along_the_lower():
    rising = plots.Series("a", [1, 2], [0.2, 0.5], [0.1, 0.4], [0.3, 0.6])
    band, _ = plots.lines([rising], x_label="", y_label="")["data"]
    assert list(zip(band["x"], band["y"], strict=True)) == [(1, 0.3), (2, 0.6), (2, 0.4), (1, 0.1)]


def test_superpixels_are_coloured_by_what_is_asked_for():
    table = pd.DataFrame(
        {
            "x": [0.0, 1.0, 2.0], "y": 0.5, "image_id": "a", "superpixel_id": [0, 1, 2],
            "cluster_id": [1, 0, 1], "asked_in_round": [math.nan, 2.0, math.nan],
            "error": [0.25, math.nan, 1.0],
        }
    )  # fmt: skip
    by_cluster = plots.superpixels(table, "cluster_id")["data"]
    assert [(one["name"], one["x"]) for one in by_cluster] == [
        ("cluster 0", [1.0]),
        ("cluster 1", [0.0, 2.0]),
    ]
    by_round = plots.superpixels(table, "asked_in_round")["data"]
    assert [(one["name"], one["x"]) for one in by_round] == [
        ("not asked", [0.0, 2.0]),
        ("round 2", [1.0]),
    ]
    (by_error,) = plots.superpixels(table, "error")["data"]
    assert by_error["marker"]["color"] == [0.25, 1.0]
    assert by_error["text"] == ["a, superpixel 0, cluster 1", "a, superpixel 2, cluster 1"]
