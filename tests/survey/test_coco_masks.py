"""COCO annotations to class masks: literal annotations in, literal pixels out."""

import json

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from madbal_ray.cli import main
from madbal_ray.config.file import load_config
from madbal_ray.data.registry import open_dataset
from madbal_ray.errors import ConfigError, DataError
from madbal_ray.state.storage import Folder
from madbal_ray.survey.coco_masks import write_coco_masks

CATEGORIES = [{"id": 9, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 4, "name": "unseen"}]


def rectangle(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def instance(number, category, segmentation, *, image=1, **more):
    return {
        "id": number, "image_id": image, "category_id": category, "segmentation": segmentation,
        **more,
    }  # fmt: skip


def book(path, annotations, images=("a/b.jpg",), categories=CATEGORIES):
    listed = [
        {"id": number, "file_name": name, "height": 4, "width": 6}
        for number, name in enumerate(images, 1)
    ]
    path.write_text(
        json.dumps({"images": listed, "annotations": annotations, "categories": categories})
    )
    return path


def mask_of(root, name="a/b.png"):
    image = Image.open(root / "masks" / name)
    assert image.mode == "P"
    return np.array(image).tolist()


V = 255


def test_instances_become_classes_and_the_smaller_one_is_in_front(tmp_path):
    runs = {"size": [4, 6], "counts": [20, 4]}  # column by column: the last one
    found = write_coco_masks(
        book(
            tmp_path / "instances.json",
            [
                instance(1, 2, rectangle(0, 0, 1, 2)),
                instance(2, 9, rectangle(0, 0, 4, 3)),
                instance(3, 9, runs, iscrowd=1),
            ],
        ),
        Folder(tmp_path),
    )
    assert (found.class_names, found.written, found.refused) == (("cat", "dog"), 1, {})
    assert mask_of(tmp_path) == [
        [0, 1, 1, 1, V, V],
        [0, 1, 1, 1, V, V],
        [1, 1, 1, 1, V, V],
        [V, V, V, V, V, V],
    ]
    classes = yaml.safe_load((tmp_path / "classes.yaml").read_text())
    assert [(one["name"], one["value"]) for one in classes["classes"]] == [("cat", 0), ("dog", 1)]
    assert classes["void"] == 255


def test_compressed_runs_and_a_class_for_the_rest(tmp_path):
    from pycocotools import mask

    place = np.zeros((4, 6), np.uint8, order="F")
    place[1, 1:3] = 1
    runs = mask.encode(place)
    runs["counts"] = runs["counts"].decode()
    path = book(tmp_path / "instances.json", [instance(1, 9, runs)])
    found = write_coco_masks(path, Folder(tmp_path), rest="ground")
    assert found.class_names == ("dog", "ground")
    assert mask_of(tmp_path) == (1 - place).tolist()
    dataset = open_dataset(
        load_config(
            {"data": {"name": "folder", "root": str(tmp_path)}, "grids": {"input": [16, 24]}}
        ).data,
        _with(tmp_path),
    )
    assert dataset.class_names == ("dog", "ground")
    assert [record.mask_uri for record in dataset.records] == ["masks/a/b.png"]


def _with(root):
    (root / "images/a").mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(root / "images/a/b.jpg")
    return Folder(root)


def test_panoptic_segments_are_read_from_their_pictures(tmp_path):
    ids = np.zeros((4, 6, 3), np.uint8)
    ids[:2] = (7, 1, 0)  # 263
    ids[2] = (0, 0, 2)  # 131072
    folder = tmp_path / "panoptic"
    folder.mkdir()
    Image.fromarray(ids).save(folder / "b.png")
    segments = [
        {"id": 263, "category_id": 9, "iscrowd": 0},
        {"id": 131072, "category_id": 2, "iscrowd": 1},
    ]
    annotation = {"image_id": 1, "file_name": "b.png", "segments_info": segments}
    found = write_coco_masks(book(tmp_path / "panoptic.json", [annotation]), Folder(tmp_path))
    assert found.class_names == ("cat", "dog")
    assert mask_of(tmp_path) == [[1] * 6] * 2 + [[V] * 6] * 2


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[0, 0, 1, 1]], "annotation 1: a polygon is three or more pairs"),
        ([[0, 0, 1, 1, float("nan"), 2]], "annotation 1: a polygon"),
        ([], "annotation 1: a polygon"),
        (None, "annotation 1: it has no segmentation"),
        ({"size": [6, 4], "counts": [24]}, "annotation 1: its mask is of size [6, 4]"),
        ({"size": [4, 6], "counts": [23]}, "annotation 1: its runs are 23 pixels long"),
        ({"size": [4, 6]}, "annotation 1: it has no runs"),
    ],
)
def test_an_image_with_a_broken_annotation_has_no_mask_and_is_named(tmp_path, segmentation, reason):
    annotations = [
        instance(1, 2, segmentation),
        instance(2, 9, rectangle(0, 0, 2, 2), image=2),
    ]
    path = book(tmp_path / "i.json", annotations, images=("bad.jpg", "good.jpg"))
    found = write_coco_masks(path, Folder(tmp_path))
    assert found.written == 1
    assert found.refused["bad.jpg"].startswith(reason)
    assert not (tmp_path / "masks/bad.png").exists()
    assert any(line.startswith("no mask for bad.jpg: annotation 1") for line in found.lines())


@pytest.mark.parametrize("name", ["../up.jpg", "/abs.jpg", "..\\up.jpg", "C:\\a.jpg"])
def test_a_file_name_does_not_lead_out_of_the_folder(tmp_path, name):
    path = book(tmp_path / "i.json", [instance(1, 2, rectangle(0, 0, 2, 2))], images=(name,))
    found = write_coco_masks(path, Folder(tmp_path / "root"))
    assert found.refused == {name: "its file name leads out of the folder"}
    assert [p.name for p in tmp_path.rglob("*")] == ["i.json"]  # no classes without a mask


def test_masks_lie_where_data_set_folder_looks_for_them(tmp_path):
    names = ("images/a.jpg", "c\\d.jpg", "images/e.jpg", "12:30.jpg")
    drawn = [instance(1, 2, rectangle(0, 0, 2, 2))]
    path = book(tmp_path / "i.json", drawn, images=names)
    (tmp_path / "root/images/images").mkdir(parents=True)
    (tmp_path / "root/images/images/e.jpg").write_bytes(b"x")
    assert write_coco_masks(path, Folder(tmp_path / "root")).refused == {}
    found = sorted(p.relative_to(tmp_path / "root").as_posix() for p in tmp_path.rglob("*.png"))
    assert found == ["masks/12:30.png", "masks/a.png", "masks/c/d.png", "masks/images/e.png"]


def test_two_images_never_share_a_mask(tmp_path):
    drawn = [instance(1, 2, rectangle(0, 0, 2, 2))]
    path = book(tmp_path / "i.json", drawn, images=("a.jpg", "a.png"))
    found = write_coco_masks(path, Folder(tmp_path / "root"))
    assert (found.written, found.refused) == (
        1, {"a.png": "a.png is the mask of a.jpg already: rename one"}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no JSON"),
        ("[]", "is no COCO annotation file"),
        ('{"images": [], "annotations": []}', "it needs the lists images"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}',
         "no annotation is of one of its 1 categories"),
    ],
)  # fmt: skip
def test_what_is_no_annotation_file_is_told_in_a_sentence(tmp_path, text, says):
    (tmp_path / "i.json").write_text(text)
    with pytest.raises(DataError, match=says):
        write_coco_masks(tmp_path / "i.json", Folder(tmp_path))


def test_nothing_is_written_over_and_names_are_unique(tmp_path):
    path = book(tmp_path / "i.json", [instance(1, 2, rectangle(0, 0, 2, 2))])
    with pytest.raises(DataError, match=r"'cat' would be two classes: give --rest another"):
        write_coco_masks(path, Folder(tmp_path), rest="cat")
    (tmp_path / "classes.yaml").write_text("classes: []")
    with pytest.raises(ConfigError, match=r"classes.yaml or masks/ already"):
        write_coco_masks(path, Folder(tmp_path))


def test_the_command_says_what_comes_next(tmp_path):
    path = book(tmp_path / "i.json", [instance(1, 2, rectangle(0, 0, 2, 2))])
    done = CliRunner().invoke(main, ["data", "from-coco", str(path), str(tmp_path / "r")])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        "1 classes: cat",
        "1 masks",
        f"next: madbal data check {tmp_path}/r --out experiment.yaml",
    ]
    bad = book(tmp_path / "bad.json", [instance(1, 2, None)])
    assert CliRunner().invoke(main, ["data", "from-coco", str(bad), str(tmp_path / "s")]).exit_code
