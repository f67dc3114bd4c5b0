"""Class maps and their key wear the data set's colours; void wears none of them."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from madbal_ray import api
from madbal_ray.arrays import IGNORE_INDEX
from madbal_ray.data import camvid, cityscapes, synthetic
from madbal_ray.data.dataset import spread_colors
from madbal_ray.report.pictures import LONGEST_SIDE, class_map, class_palette

SKY, ROAD, POLE = (90, 170, 255), (85, 85, 95), (240, 220, 60)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def pixels(uri):
    kind, data = uri.split(",", 1)
    assert kind == "data:image/png;base64"
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))))


def test_a_class_map_is_drawn_in_the_colors_it_is_given():
    classes = np.array([[0, 1, 1, IGNORE_INDEX], [2, 1, 0, IGNORE_INDEX]], np.uint8)
    drawn = pixels(class_map(classes, ((1, 2, 3), (40, 50, 60), (250, 0, 250))))
    assert drawn.shape == (LONGEST_SIDE // 2, LONGEST_SIDE, 3)
    centers = drawn[60::120, 60::120].tolist()
    assert centers == [
        [[1, 2, 3], [40, 50, 60], [40, 50, 60], [255, 255, 255]],
        [[250, 0, 250], [40, 50, 60], [1, 2, 3], [255, 255, 255]],
    ]


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
    truths = re.findall(r'<img src="(data:image/png[^"]*)" alt="ground truth">', page)
    assert len(truths) == 3
    truth = pixels(truths[0])
    assert tuple(truth[0, 0]) == SKY  # the bonnet is void, the road ends above it
    assert tuple(truth[-1, LONGEST_SIDE // 2]) == BLACK
    assert tuple(truth[int(0.9 * len(truth)), LONGEST_SIDE // 2]) == ROAD
