"""Answers of every unit as pixels: what was asked, and what training is given."""

import numpy as np
import pytest

from madbal_ray.errors import LabelError
from madbal_ray.labels.asked_pixels import AskedPixels
from madbal_ray.labels.class_map import pack_class_map
from madbal_ray.labels.labeled_points import read_labeled_points
from tests.hand_made import pool_image, write_labels, write_pool

TWO = np.array([[0, 0, 1], [0, 1, 1]], np.uint16)


def pool_of(tmp_path, shards):
    """Return a pool of 2 x 3 images of two superpixels; it has no masks to read."""
    names = [name for own in shards.values() for name in own]
    return write_pool(
        tmp_path,
        {shard_id: [pool_image(name) for name in own] for shard_id, own in shards.items()},
        label_maps=dict.fromkeys(names, TWO),
    )


def label(image_id, y, x, class_id=None, unit="pixel", **more):
    return {"image_id": image_id, "y": y, "x": x, "class_id": class_id, "unit": unit} | more


def as_rows(points):
    return [
        (image.image_id, int(points.y[i]), int(points.x[i]), int(points.class_id[i]))
        for index, image in enumerate(points.images)
        for i in range(points.of_image(index).start, points.of_image(index).stop)
    ]


def test_pixels_come_sorted_without_void_and_skipped_ones(tmp_path):
    pool = pool_of(tmp_path, {0: "ab", 3: "c"})
    first = write_labels(
        tmp_path,
        {
            0: [label("b", 1, 0, 2), label("a", 1, 2, 1), label("a", 0, 0, status="void")],
            3: [label("c", 0, 1, status="skipped")],
        },
    )
    second = write_labels(tmp_path, {0: [label("a", 1, 1, 0), label("b", 0, 2, 1)]}, round_index=1)
    points = read_labeled_points(pool, (first, second))
    assert as_rows(points) == [("a", 1, 1, 0), ("a", 1, 2, 1), ("b", 0, 2, 1), ("b", 1, 0, 2)]
    assert points.start.tolist() == [0, 2, 4]
    assert points.is_target is None
    assert points.is_boundary is None


def test_the_highest_revision_of_a_pixel_counts(tmp_path):
    pool = pool_of(tmp_path, {0: "a"})
    rows = [
        label("a", 0, 0, 2, revision=1),
        label("a", 0, 0, 0, revision=0),
        label("a", 0, 1, 1, revision=0),
        label("a", 1, 1, 0, revision=0),
        label("a", 1, 1, None, status="void", revision=2),
        label("a", 1, 1, 1, revision=1),
    ]
    points = read_labeled_points(pool, (write_labels(tmp_path, {0: rows}),))
    assert as_rows(points) == [("a", 0, 0, 2), ("a", 0, 1, 1)]


def test_nothing_but_void_is_nothing_to_train_on(tmp_path):
    pool = pool_of(tmp_path, {0: "a"})
    for version, unit in enumerate(("pixel", "superpixel")):
        row = label("a", 0, 0, unit=unit, status="void", superpixel_id=0)
        labels = write_labels(tmp_path, {0: [row]}, round_index=version)
        with pytest.raises(LabelError, match="every answer was void, skipped or unsure"):
            read_labeled_points(pool, (labels,))


def test_a_superpixel_is_expanded_and_earlier_pixels_keep_their_own_answers(tmp_path):
    pool = pool_of(tmp_path, {0: "b", 1: "a"})
    first = write_labels(
        tmp_path, {0: [label("b", 0, 0, 1), label("b", 0, 1, status="void")], 1: []}
    )
    second = write_labels(
        tmp_path,
        {
            0: [label("b", 1, 0, 2, "superpixel", superpixel_id=0)],
            1: [label("a", 0, 2, 0, "superpixel", superpixel_id=1)],
        },
        round_index=1,
    )
    points = read_labeled_points(pool, (first, second))
    assert as_rows(points) == [
        ("a", 0, 2, 0),
        ("a", 1, 1, 0),
        ("a", 1, 2, 0),
        ("b", 0, 0, 1),
        ("b", 1, 0, 2),
    ]
    assert points.start.tolist() == [0, 3, 5]


def test_a_whole_image_comes_from_the_table_and_leaves_earlier_answers_alone(tmp_path):
    pool = pool_of(tmp_path, {0: "ab"})
    first = write_labels(
        tmp_path,
        {0: [label("a", 1, 1, 1, "superpixel", superpixel_id=1), label("b", 0, 0, 0)]},
    )
    classes = np.array([[2, 0, 2], [255, 2, 2]], np.uint8)
    second = write_labels(
        tmp_path,
        {0: [label("a", 0, 0, unit="image", class_map=pack_class_map(classes))]},
        round_index=1,
    )
    points = read_labeled_points(pool, (first, second))
    assert as_rows(points) == [
        ("a", 0, 0, 2),
        ("a", 0, 1, 0),
        ("a", 0, 2, 1),
        ("a", 1, 1, 1),
        ("a", 1, 2, 1),
        ("b", 0, 0, 0),
    ]


def test_an_image_whose_regions_are_all_void_gives_no_points(tmp_path):
    pool = pool_of(tmp_path, {0: "ab"})
    rows = [
        label("a", 0, 0, None, "superpixel", superpixel_id=0, status="void"),
        label("b", 0, 0, 1, "superpixel", superpixel_id=0),
    ]
    points = read_labeled_points(pool, (write_labels(tmp_path, {0: rows}),))
    assert [image.image_id for image in points.images] == ["b"]
    assert as_rows(points) == [("b", 0, 0, 1), ("b", 0, 1, 1), ("b", 1, 0, 1)]


def test_later_pixels_are_read_beside_earlier_regions(tmp_path):
    pool = pool_of(tmp_path, {0: "a"})
    first = write_labels(tmp_path, {0: [label("a", 0, 0, 0, "superpixel", superpixel_id=0)]})
    second = write_labels(tmp_path, {0: [label("a", 1, 2, 1)]}, round_index=1)
    points = read_labeled_points(pool, (first, second))
    assert as_rows(points) == [("a", 0, 0, 0), ("a", 0, 1, 0), ("a", 1, 0, 0), ("a", 1, 2, 1)]


def asked(tmp_path, *rounds):
    pool_of(tmp_path, {0: "ab"})
    stages = [
        write_labels(tmp_path, {0: rows}, round_index=index) for index, rows in enumerate(rounds)
    ]
    return AskedPixels(stages, 0, dict.fromkeys("ab", TWO))


def test_nothing_is_asked_before_the_first_round(tmp_path):
    assert not asked(tmp_path).map_of(pool_image("a")).any()
    assert not asked(tmp_path, [label("b", 0, 0, 1)]).map_of(pool_image("a")).any()


def test_pixels_of_all_rounds_are_asked_void_and_skipped_ones_too(tmp_path):
    found = asked(
        tmp_path,
        [label("b", 0, 1, 1), label("a", 1, 0, status="void")],
        [label("a", 0, 2, status="skipped")],
    )
    assert found.map_of(pool_image("a")).tolist() == [[False, False, True], [True, False, False]]
    assert found.map_of(pool_image("b")).tolist() == [[False, True, False], [False] * 3]


def test_superpixels_are_asked_as_a_whole(tmp_path):
    rows = [label("a", 0, 2, 1, "superpixel", superpixel_id=1), label("a", 0, 0, 1)]
    found = asked(tmp_path, rows).map_of(pool_image("a"))
    assert found.tolist() == [[True, False, True], [False, True, True]]


def test_a_pixels_superpixel_is_not_asked_with_it(tmp_path):
    rows = [
        label("a", 0, 2, 1, "pixel", superpixel_id=1),
        label("a", 0, 0, 1, "superpixel", superpixel_id=0),
    ]
    found = asked(tmp_path, rows).map_of(pool_image("a"))
    assert found.tolist() == [[True, True, True], [True, False, False]]


def test_images_are_asked_as_a_whole(tmp_path):
    found = asked(tmp_path, [label("a", 0, 0, unit="image"), label("b", 0, 0, 1)])
    assert found.map_of(pool_image("a")).all()
    assert found.map_of(pool_image("b")).sum() == 1


def test_a_revised_pixel_does_not_hide_the_whole_image_that_is_asked_at_the_same_place(tmp_path):
    pool = pool_of(tmp_path, {0: "a"})
    first = write_labels(tmp_path, {0: [label("a", 0, 0, 1, revision=1)]})
    classes = pack_class_map(np.full((2, 3), 2, np.uint8))
    second = write_labels(
        tmp_path, {0: [label("a", 0, 0, unit="image", class_map=classes)]}, round_index=1
    )
    points = read_labeled_points(pool, (first, second))
    assert [row[1:] for row in as_rows(points)] == [
        (0, 0, 1),
        (0, 1, 2),
        (0, 2, 2),
        (1, 0, 2),
        (1, 1, 2),
        (1, 2, 2),
    ]
