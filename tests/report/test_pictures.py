"""Class maps and their key wear the data set's colours; void wears none of them."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from madbal_ray import api
from madbal_ray.arrays import IGNORE_INDEX
from madbal_ray.data import camvid, cityscapes, synthetic
from madbal_ray.data.dataset import spread_colors
from madbal_ray.report.pictures import class_map, class_palette, error_map, photograph

SKY, ROAD, POLE = (90, 170, 255), (85, 85, 95), (240, 220, 60)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def pixels(uri):
    kind, data = uri.split(",", 1)
    assert kind == "data:image/png;base64"
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))


def test_a_class_map_is_drawn_in_the_colors_it_is_given():
    classes = np.array([[0, 1, 1, IGNORE_INDEX], [2, 1, 0, IGNORE_INDEX]], np.uint8)
    drawn = pixels(class_map(classes, ((1, 2, 3), (40, 50, 60), (250, 0, 250)), 100))
    assert drawn[..., :3].tolist() == [
        [[1, 2, 3], [40, 50, 60], [40, 50, 60], [255, 255, 255]],
        [[250, 0, 250], [40, 50, 60], [1, 2, 3], [255, 255, 255]],
    ]


def test_a_large_map_loses_rows_and_no_colour():
    classes = np.repeat(np.array([[0, 1]], np.uint8), 100, axis=1)
    drawn = pixels(class_map(classes, ((1, 2, 3), (40, 50, 60)), 50))
    assert drawn.shape == (1, 50, 4)
    assert np.unique(drawn[..., :3], axis=1).tolist() == [[[1, 2, 3], [40, 50, 60]]]


def test_errors_are_red_where_wrong_and_clear_where_right():
    truth = np.array([[0, 1, IGNORE_INDEX]], np.uint8)
    drawn = pixels(error_map(np.array([[0, 0, 0]], np.uint8), truth, 10))
    assert drawn[0, 0, 3] == 0
    assert drawn[0, 1].tolist() == [225, 0, 40, 255]
    assert drawn[0, 2].tolist() == [128, 128, 128, 255]


def test_a_photograph_is_the_original_up_to_a_side():
    image = np.zeros((30, 40, 3), np.uint8)
    image[:, 20:] = 250
    for side, shape in ((40, (30, 40)), (20, (15, 20))):
        kind, data = photograph(image, side).split(",", 1)
        drawn = np.array(Image.open(io.BytesIO(base64.b64decode(data))))
        assert kind == "data:image/jpeg;base64"
        assert drawn.shape == (*shape, 3)
        assert drawn[:, : shape[1] // 4].mean() < 10
        assert drawn[:, -shape[1] // 4 :].mean() > 240


@pytest.mark.parametrize(
    ("colors", "void"),
    [
        (tuple(synthetic.COLORS.values()), BLACK),
        (tuple(camvid.CLASSES.values()), WHITE),
        (tuple(color for _, color in cityscapes.CLASSES.values()), WHITE),
        (((0, 0, 0), (255, 255, 255)), (128, 128, 128)),
        (((250, 250, 250), (200, 200, 200)), (0, 0, 0)),
        (((0, 0, 0), (0, 0, 0)), WHITE),
    ],
    ids=["synthetic", "camvid", "cityscapes", "black and white", "light", "twice the same"],
)
def test_void_is_the_grey_farthest_from_all_classes(colors, void):
    palette = class_palette(colors)
    assert [tuple(row) for row in palette.tolist()] == [*colors, void]


@pytest.mark.parametrize(
    "colors",
    [
        spread_colors(255),
        tuple((i, i, i) for i in range(255)),
        tuple((i, i, i) for i in range(1, 256)),
    ],
    ids=["spread", "all greys but white", "all greys but black"],
)
def test_of_255_classes_none_has_the_color_of_void(colors):
    assert tuple(class_palette(colors)[-1].tolist()) not in colors


def test_a_report_shows_the_colors_of_the_data_set(tiny_run, tmp_path):
    assert tiny_run.colors == tuple(synthetic.COLORS.values())
    assert tiny_run.colors[0] == SKY
    assert tiny_run.colors[6] == POLE
    warnings: list[str] = []
    _, written = api.report([str(tiny_run.run_dir)], out=tmp_path, warn=warnings.append)
    assert warnings == []
    page = written[0].read_text()
    key = re.findall(r'<i style="background:(#[0-9a-f]{6})"></i>(\w+)</span>', page)
    assert {name: color for color, name in key} == {
        "sky": "#5aaaff",
        "building": "#a0503c",
        "road": "#55555f",
        "pavement": "#e1aacd",
        "tree": "#288c32",
        "car": "#3c1ea0",
        "pole": "#f0dc3c",
        "sign": "#ff8200",
        "person": "#dc143c",
        "void": "#000000",
    }
    data = re.search(r'<script type="application/json" id="viewer">(.*?)</script>', page)
    assert data is not None
    images = json.loads(data[1])["images"]
    assert len(images) == 6
    truth = pixels(images[0]["truth"])[..., :3]
    assert truth.shape == (48, 64, 3)
    assert tuple(truth[0, 0]) == SKY  # the bonnet is void, the road ends above it
    assert tuple(truth[-1, 32]) == BLACK
    assert tuple(truth[int(0.9 * len(truth)), 32]) == ROAD
