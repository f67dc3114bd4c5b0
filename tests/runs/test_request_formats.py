"""Queries out to other tools and answers back: by query_id, row by row, and once."""

import base64
import csv
import io
import itertools
import json
import random
import zipfile
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from madbal_ray import api
from madbal_ray.cli import main
from madbal_ray.errors import ConfigError, DataError
from madbal_ray.labels.answer_rows import NewAnswer
from madbal_ray.report.spreadsheet import safe_cell
from madbal_ray.seams import REQUEST_FORMATS
from tests.runs.hand_made import (
    CLASSES,
    HEIGHT,
    WIDTH,
    file_of,
    mutated,
    picture,
    pictured,
    six_queries,
    take,
    written,
)

READABLE = [name for name in REQUEST_FORMATS if REQUEST_FORMATS[name].read]
SAID = [("labelled", name) for name in CLASSES] + [("void", None), ("skipped", None)]
OPEN = "__undefined__"
WORDS = [*CLASSES, "void", "skip"]


def say(path, name, words, *, skip="skip", undefined=OPEN):
    """Put a word for every query into an exported file, as people do in the tool."""
    if name == "csv":
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        for row, word in zip(rows, words, strict=True):
            status = {"void": "void", skip: "skipped", undefined: ""}.get(word, "labelled")
            row.update(status=status)
            row["class"] = safe_cell(word) if status == "labelled" else ""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(text.getvalue())
    elif name == "cvat":
        document = ElementTree.parse(path)
        marks = [mark for mark in document.iter("attribute") if mark.get("name") == "class"]
        for mark, word in zip(marks, words, strict=True):
            mark.text = word
        document.write(path, encoding="utf-8")
    elif name == "fiftyone":
        document = json.loads(path.read_text())
        points = [sample["queries"]["keypoints"] for sample in document["samples"]]
        for keypoint, word in zip(itertools.chain(*points), words, strict=True):
            keypoint["label"] = word
        path.write_text(json.dumps(document))
    else:
        _say_in_label_studio(path, words, skip, undefined)
    return path


def _say_in_label_studio(path, words, skip, undefined):
    """Annotate crops; or copy the predicted points and label them, which gives them other ids."""
    tasks = json.loads(path.read_text())
    if "predictions" in tasks[0]:
        points = [task.pop("predictions")[0]["result"] for task in tasks]
        for index, (result, word) in enumerate(zip(itertools.chain(*points), words, strict=True)):
            result["id"] = f"copied{index}"
            result["value"]["keypointlabels"] = [word]
        for task, results in zip(tasks, points, strict=True):
            task["annotations"] = [{"result": results, "completed_by": None, "lead_time": None}]
    else:
        for task, word in zip(tasks, words, strict=True):
            said = picked(word, completed_by=None, lead_time=None)
            if word == skip:
                said.update(result=[], was_cancelled=True)
            task["annotations"] = [] if word == undefined else [said]
    path.write_text(json.dumps(tasks))


@pytest.mark.parametrize("name", READABLE)
def test_what_went_out_comes_back_and_only_once(asked, tmp_path, name):
    path = written(asked, tmp_path / "ask", name)
    report = take(asked, say(path, name, [OPEN] * 6), name)
    assert (report.taken, report.unchanged, report.unanswered, report.refused) == (0, 0, 6, ())
    path = say(written(asked, tmp_path / "back", name), name, [*WORDS, OPEN])
    with six_queries(tmp_path / "b.sqlite") as other:
        report = take(other, path, name)
        assert (report.taken, report.unanswered, report.refused) == (5, 1, ())
        states = [other.states()[f"q{index}"].settled for index in range(6)]
        assert [(s.status, s.class_name) for s in states[:5]] == SAID
        assert states[5] is None
        again = take(other, path, name)
        assert (again.taken, again.unchanged) == (0, 5)
        assert {(row.annotator, row.source) for row in other.answers()} == {("ada", name)}


@pytest.mark.parametrize("name", ["csv", "fiftyone"])
def test_answers_that_went_out_are_known_when_they_come_back(asked, tmp_path, name):
    """A row a vote, with who gave it: nobody's vote is counted twice, or as somebody else's."""
    votes = {
        "q0": [("ada", "labelled", "sky"), ("bob", "labelled", "sky")],
        "q1": [("=1+1", "void", None), ("bob", "undone", None)],
        "q2": [("ada", "labelled", "sky"), ("bob", "labelled", "'road"), ("cy", "void", None)],
        "q3": [("ada", "labelled", "sky"), ("bob", "void", None)],
    }
    asked.append(
        [
            NewAnswer(query_id=q, annotator=who, status=status, class_name=said, source="page")
            for q, given in votes.items()
            for who, status, said in given
        ]
    )
    before = asked.states()
    assert before["q2"].settled.status == "unsure"
    path = written(asked, tmp_path / "all", name)
    report = take(asked, path, name, annotator="dee")
    assert (report.taken, report.unchanged, report.unanswered, report.refused) == (0, 6, 3, ())
    assert asked.states() == before
    with six_queries(tmp_path / "b.sqlite") as other:
        assert take(other, path, name, annotator="dee").taken == 6
        said = {(row.query_id, row.annotator, row.class_name) for row in other.answers()}
    assert said == {
        *((q, who, c) for q in ("q0", "q2") for who, _, c in votes[q]),
        ("q1", "=1+1", None),
    }
    if name == "csv":
        assert ",'=1+1\n" in path.read_text()  # no formula to a spreadsheet


def test_formats_that_cannot_say_who_answered_hold_only_what_waits(waiting, tmp_path):
    for name in ("cvat", "label-studio", "label-studio-keypoints"):
        with pytest.raises(ConfigError, match=f"format {name} cannot say who answered.* csv or fi"):
            api.export_requests(waiting[0], out=tmp_path / "no", form=name, with_answered=True)
    assert list(tmp_path.iterdir()) == []
    for name in ("csv", "fiftyone", "coco"):
        out = tmp_path / name
        assert api.export_requests(waiting[0], out=out, form=name, with_answered=True) == 30
    with pytest.raises(ConfigError, match="format coco is written only; answers come back in csv"):
        api.import_requests(waiting[0], tmp_path / "coco", form="coco", annotator="ada")


# ---- CVAT ----


def test_cvat_holds_centres_frames_and_labels(asked, tmp_path):
    text = written(asked, tmp_path / "ask.xml", "cvat").read_text()
    root = ElementTree.fromstring(text)
    (image,) = root.iter("image")
    assert image.attrib == {"id": "0", "name": "=1+1.png", "width": "7", "height": "12"}
    points = list(image)
    assert [point.get("points") for point in points[:2]] == ["3.50,0.50", "3.50,2.50"]
    assert points[0].get("label") == "query"
    found = {child.get("name"): child.text for child in points[1]}
    assert found == {"query_id": "q1", "class": "__undefined__"}
    (label,) = json.loads((tmp_path / "ask.labels.json").read_text())
    assert (label["name"], label["type"]) == ("query", "points")
    by_name = {item["name"]: item for item in label["attributes"]}
    assert by_name["class"]["values"] == ["__undefined__", *CLASSES, "void", "skip"]
    assert (by_name["class"]["mutable"], by_name["query_id"]["mutable"]) == (True, False)


def cvat_answers(store, path):
    return say(written(store, path, "cvat"), "cvat", ["sky"] * 6).read_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("3.50,2.50", "4.00,2.50", "a point at x 4, y 2.5; expected x 3.5, y 2.5: it was moved"),
        ("3.50,2.50", "3.50,2.50;1,1", "points '3.50,2.50;1,1'; expected one point, x,y"),
        ("3.50,2.50", "nan,2.50", "points 'nan,2.50'; expected one point"),
        (">q1<", ">q77<", "query 'q77'; expected one that this run asks"),
        ('>q1</attribute>\n      <attribute name="class">sky<',
         '>q1</attribute>\n      <attribute name="class">dragon<',
         "class 'dragon'; expected one of sky"),
        ('<attribute name="query_id">q1</attribute>', "", "no attribute query_id"),
        ('points="3.50,2.50"', 'points="3.50,2.50" label2=""', None),
    ],
)  # fmt: skip
def test_a_shape_that_does_not_fit_is_refused_and_the_rest_taken(
    asked, tmp_path, old, new, message
):
    text = cvat_answers(asked, tmp_path / "good.xml")
    assert text.count(old) == 1
    (tmp_path / "back.xml").write_text(text.replace(old, new))
    with six_queries(tmp_path / "b.sqlite") as other:
        report = take(other, tmp_path / "back.xml", "cvat")
        assert report.taken == (6 if message is None else 5)
        if message is not None:
            (refusal,) = report.refused
            assert str(refusal).startswith(f"image 1 ('=1+1.png'), shape 2: got {message}")
            assert other.answers("q1") == []


def test_cvat_shapes_of_others_and_images_that_are_not_ours(asked, tmp_path):
    text = cvat_answers(asked, tmp_path / "good.xml").replace('name="=1+1.png"', 'name="b.png"')
    text = text.replace("</image>", '<box label="car" xtl="1"/></image><track id="0"/>')
    (tmp_path / "back.xml").write_text(text)
    with six_queries(tmp_path / "b.sqlite") as other:
        report = take(other, tmp_path / "back.xml", "cvat")
    assert report.taken == 0
    lines = [str(refusal) for refusal in report.refused]
    assert lines[0].endswith("got image 'b.png'; expected '=1+1.png'")
    assert lines[6].endswith("got <box> with label 'car'; expected <points> with label 'query'")
    assert lines[7].startswith("element 2: got <track>; expected <image>")


def test_cvat_gives_a_zip_and_cuts_folders_off(tmp_path):
    with six_queries(tmp_path / "b.sqlite") as store:
        usual = pictured(store)
        deep = [replace(query, image_uri="images/a/=1+1.png") for query in usual.queries]
        usual = replace(usual, queries=deep)
        form = REQUEST_FORMATS["cvat"]
        form.write(usual, tmp_path / "out.xml")
        data = say(tmp_path / "out.xml", "cvat", ["void"] * 6).read_text()
        with zipfile.ZipFile(tmp_path / "back.zip", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("annotations.xml", data.replace("images/a/=1", "=1"))
        replies = list(form.read(tmp_path / "back.zip", usual))
        assert [(reply.image_id, reply.status) for reply in replies] == [("=1+1.png", "void")] * 6


BOMB = """<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;">]>
<annotations><image id="0" name="&b;"/></annotations>"""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (BOMB.encode(), "a document type \\(lolz\\) in it; CVAT writes none"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotations/>', "a document type"),
        (BOMB.encode("utf-16"), "a document type"),
        (b"<annotations>&b;</annotations>", "no XML \\(undefined entity"),
        (b"<a><b></a>", "no XML \\(mismatched tag"),
        (b"", "no XML"),
        (b'<?xml version="1.0" encoding="klingon"?><annotations/>', "no XML"),
        (b"<svg/>", "the document is <svg>; expected <annotations>"),
        (b"PK\3\4 no zip", "a zip that cannot be unpacked"),
    ],
)
def test_cvat_documents_that_are_none(asked, tmp_path, data, message):
    (tmp_path / "back.xml").write_bytes(data)
    with pytest.raises(DataError, match=message):
        take(asked, tmp_path / "back.xml", "cvat")
    with pytest.raises(DataError, match="cannot be read"):
        take(asked, tmp_path / "none.xml", "cvat")


@pytest.mark.parametrize("name", [name for name in READABLE if name != "csv"])
def test_a_class_called_like_a_word_of_ours(asked, tmp_path, name):
    usual = replace(pictured(asked), class_names=("void", "skip", OPEN))
    REQUEST_FORMATS[name].write(usual, tmp_path / name)
    words = ["void", "skip", OPEN, "__void__", f"__{OPEN}__", "__skip__"]
    path = file_of(tmp_path / name, name)
    say(path, name, words, skip="__skip__", undefined=f"__{OPEN}__")
    said = [(reply.status, reply.class_name) for reply in REQUEST_FORMATS[name].read(path, usual)]
    classes = [("labelled", word) for word in ("void", "skip", OPEN)]
    assert said[:5] == [*classes, ("void", ""), ("", "")]
    assert said[5] == ("skipped", "")


# ---- FiftyOne, COCO ----


def test_fiftyone_points_are_relative_and_files_lie_below_the_data_root(asked, tmp_path):
    (sample,) = json.loads(written(asked, tmp_path / "ask", "fiftyone").read_text())["samples"]
    assert (sample["filepath"], sample["image_id"], sample["tags"]) == ("=1+1.png", "=1+1.png", [])
    assert sample["queries"]["_cls"] == "Keypoints"
    keypoint = sample["queries"]["keypoints"][1]
    ((x, y),) = keypoint.pop("points")
    assert (x, y) == pytest.approx((3.5 / 7, 2.5 / 12))
    assert keypoint == {"_cls": "Keypoint", "label": OPEN, "query_id": "q1", "annotator": None}


def test_fiftyone_opens_no_archive(asked, tmp_path):
    inside = [replace(query, image_uri="a.tar#offset=512&length=9") for query in asked.queries()]
    with pytest.raises(DataError, match=r"a\.tar#offset=512&length=9 lies inside an archive"):
        REQUEST_FORMATS["fiftyone"].write(replace(pictured(asked), queries=inside), tmp_path / "no")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda k: k.update(points=[[0.6, 2.5 / 12]]), ", keypoint 2: got a point at x 4.2, y 2.5"),
        (lambda k: k.update(points=[[0.5, 0.2], [0, 0]]), ", keypoint 2: got points [[0.5, 0.2]"),
        (lambda k: k.update(points=[[0.5]]), ", keypoint 2: got points [[0.5]]; expected one"),
        (lambda k: k.update(points=[[0.5, float("nan")]]), ", keypoint 2: got points [[0.5, nan]]"),
        (lambda k: k.pop("query_id"), ", keypoint 2: got query_id None; expected text"),
        (lambda k: k.update(query_id="q77"), ", keypoint 2: got query 'q77'"),
        (lambda k: k.update(label=["sky"]), ", keypoint 2: got label ['sky']; expected text"),
        (lambda k: k.update(label="dragon"), ", keypoint 2: got class 'dragon'"),
        (lambda k: k.update(annotator=3), ", keypoint 2: got annotator 3; expected text"),
        (lambda k: k.update(annotator="a\nb"), ", keypoint 2: got annotator 'a\\nb'"),
    ],
)
def test_a_fiftyone_keypoint_that_does_not_fit_is_refused(asked, tmp_path, change, message):
    path = say(written(asked, tmp_path / "ask", "fiftyone"), "fiftyone", ["sky"] * 6)
    document = json.loads(path.read_text())
    change(document["samples"][0]["queries"]["keypoints"][1])
    path.write_text(json.dumps(document))
    report = take(asked, path.parent, "fiftyone")
    assert report.taken == 5
    (refusal,) = report.refused
    assert str(refusal).startswith(f"sample 1{message}")


def test_fiftyone_samples_of_others_and_documents_that_are_none(asked, tmp_path):
    path = say(written(asked, tmp_path / "ask", "fiftyone"), "fiftyone", ["sky"] * 6)
    document = json.loads(path.read_text())
    (sample,) = document["samples"]
    others = [None, {"filepath": "b.png"}, sample | {"image_id": None}]
    path.write_text(json.dumps({"samples": [*others, sample | {"image_id": "b.png"}]}))
    report = take(asked, path, "fiftyone")
    lines = [str(refusal) for refusal in report.refused]
    assert (report.taken, len(lines)) == (0, 9)
    assert lines[0].startswith("sample 1: got queries None; expected keypoints")
    assert lines[1].startswith("sample 2: got queries None; expected keypoints")
    assert lines[2].startswith("sample 3: got image_id None; expected image_id as")
    assert lines[8].startswith("sample 4, keypoint 6: got image 'b.png'; expected '=1+1.png'")
    for data in (b"[]", b'{"samples": 3}'):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"samples\.json: no list of samples; export the data"):
            take(asked, path.parent, "fiftyone")


def test_coco_holds_a_point_and_its_pixel(asked, tmp_path):
    answers = dict(zip(("q0", "q2"), (("labelled", CLASSES[2]), ("void", None)), strict=True))
    asked.append(
        [
            NewAnswer(query_id=q, annotator="ada", status=status, class_name=said, source="page")
            for q, (status, said) in answers.items()
        ]
    )
    document = json.loads(written(asked, tmp_path / "ask.json", "coco").read_text())
    image = {"id": 1, "file_name": "=1+1.png", "width": 7, "height": 12}
    assert document["images"] == [image]
    names = {category["id"]: category["name"] for category in document["categories"]}
    assert names == dict(enumerate([*CLASSES, "void", "skip", OPEN], 1))
    assert document["annotations"][1] == {
        **{"id": 2, "image_id": 1, "category_id": 6, "keypoints": [3.5, 2.5, 2]},
        **{"num_keypoints": 1, "bbox": [3, 2, 1, 1], "area": 1, "iscrowd": 0, "query_id": "q1"},
    }
    given = [annotation["category_id"] for annotation in document["annotations"]]
    assert given == [3, 6, 4, 6, 6, 6]
    assert [annotation["id"] for annotation in document["annotations"]] == [1, 2, 3, 4, 5, 6]


# ---- Label Studio ----


def test_label_studio_tasks_hold_the_crop_and_its_pixel_untouched(asked, tmp_path):
    tasks = json.loads(written(asked, tmp_path / "ask.json", "label-studio").read_text())
    data = tasks[2]["data"]
    assert (data["query_id"], data["x"], data["y"]) == ("q2", 3.5, 4.5)
    kind, text = data["image"].split(",")
    assert kind == "data:image/png;base64"
    crop = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
    assert crop.shape == (HEIGHT, WIDTH, 3)
    assert (crop[4, 3] == np.asarray(Image.open(io.BytesIO(picture())))[4, 3]).all()
    config = ElementTree.parse(tmp_path / "ask.config.xml")
    choices = [(c.get("value"), c.get("hotkey")) for c in config.iter("Choice")]
    assert choices == [*zip(CLASSES, "123", strict=True), ("void", "v")]


def test_label_studio_keypoints_are_percent(asked, tmp_path):
    path = written(asked, tmp_path / "ask.json", "label-studio-keypoints")
    (task,) = json.loads(path.read_text())
    result = task["predictions"][0]["result"][1]
    assert (result["original_width"], result["original_height"]) == (7, 12)
    assert result["value"]["x"] == pytest.approx(50.0)
    assert result["value"]["y"] == pytest.approx(100 * 2.5 / 12)
    assert result["meta"] == {"text": ["q1"]}
    assert task["data"]["image"] == "/data/local-files/?d=%3D1%2B1.png"
    config = ElementTree.parse(tmp_path / "ask.config.xml")
    assert len(list(config.iter("Label"))) == 6


def picked(word, **more):
    result = {"type": "choices", "value": {"choices": [word]}}
    return {"result": [result], "was_cancelled": False, "completed_by": 4, "lead_time": 2.5, **more}


def studio_tasks(store, path):
    tasks = json.loads(written(store, path, "label-studio").read_text())
    for task in tasks:
        task["annotations"] = [picked("sky")]
    return tasks


def test_label_studio_says_who_how_long_and_skipped(asked, tmp_path):
    tasks = studio_tasks(asked, tmp_path / "ask.json")
    tasks[1]["annotations"][0]["completed_by"] = {"id": 7, "email": "bob@example.org"}
    tasks[2]["annotations"][0].update({"was_cancelled": True, "result": []})
    tasks[3]["annotations"].append(picked("'road", completed_by=5))
    (tmp_path / "back.json").write_text(json.dumps(tasks))
    report = take(asked, tmp_path / "back.json", "label-studio")
    assert (report.taken, report.refused) == (7, ())
    rows = {(row.query_id, row.annotator): row for row in asked.answers()}
    assert rows["q0", "user 4"].milliseconds == 2500
    assert rows["q1", "bob@example.org"].class_name == "sky"
    assert (rows["q2", "user 4"].status, rows["q2", "user 4"].class_name) == ("skipped", None)
    assert rows["q3", "user 5"].class_name == "'road"
    assert asked.states()["q3"].settled is None


def test_label_studio_cancelled_image_and_shared_seconds(asked, tmp_path):
    name = "label-studio-keypoints"
    path = say(written(asked, tmp_path / "ask.json", name), name, ["sky"] * 6)
    (task,) = json.loads(path.read_text())
    task["annotations"][0].update(was_cancelled=True, result=[], lead_time=12, completed_by=1)
    path.write_text(json.dumps([task]))
    assert take(asked, path, name).taken == 6
    assert {(row.status, row.milliseconds) for row in asked.answers()} == {("skipped", 2000)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["data"].update(x=4.0), "task 2: got a point at x 4, y 2.5"),
        (lambda t: t["data"].update(y="2.5"), "task 2: got x 3.5, y '2.5'; expected two numbers"),
        (lambda t: t["data"].update(query_id="q77"), "task 2: got query 'q77'"),
        (lambda t: t["data"].update(query_id=[1]), "task 2: got query_id [1]"),
        (lambda t: t["data"].update(image_id="b.png"), "task 2: got image 'b.png'"),
        (lambda t: t.update(data=None), "task 2: got no data"),
        (lambda t: t.pop("annotations"), "task 2: got annotations None; expected a list"),
        (lambda t: t.update(annotations=[picked("dragon")]), "task 2: got class 'dragon'"),
        (lambda t: t.update(annotations=[picked(3)]), "task 2: got choices"),
        (lambda t: t.update(annotations=[7]), "task 2: got annotation 7"),
        (lambda t: t.update(annotations=[picked("sky", lead_time=-1)]), "task 2: got -1 seconds"),
        (lambda t: t.update(annotations=[picked("sky", lead_time="1")]), "task 2: got lead_time"),
        (lambda t: t.update(annotations=[picked("sky", completed_by="\n")]),
         "task 2: got annotator"),
        (lambda t: t.update(annotations=[picked("sky", completed_by=[])]),
         "task 2: got completed_by"),
        (lambda t: t.update(annotations=[picked("sky", was_cancelled="no")]),
         "task 2: got was_cancelled 'no'"),
    ],
)  # fmt: skip
def test_a_task_that_does_not_fit_is_refused_and_the_rest_taken(asked, tmp_path, change, message):
    tasks = studio_tasks(asked, tmp_path / "ask.json")
    change(tasks[1])
    (tmp_path / "back.json").write_text(json.dumps(tasks))
    report = take(asked, tmp_path / "back.json", "label-studio")
    assert report.taken == 5
    (refusal,) = report.refused
    assert str(refusal).startswith(message)
    assert asked.answers("q1") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["value"].update(x=60.0), "got a point at x 4.2, y 2.5"),
        (lambda r: r["value"].update(x=None), "got x None"),
        (lambda r: r.update(original_width=14), "got a point on an image of 14 x 12; expected 7 x"),
        (lambda r: r.pop("meta"), "got query 'copied1'; expected one that this run asks"),
        (lambda r: r.update(meta={"text": [["q1"]]}), "got a point without a query_id"),
        (lambda r: r["value"].update(keypointlabels=["sky", "void"]), "got result"),
        (lambda r: r["value"].update(keypointlabels=["dragon"]), "got class 'dragon'"),
    ],
)
def test_a_keypoint_that_does_not_fit_is_refused(asked, tmp_path, change, message):
    name = "label-studio-keypoints"
    path = say(written(asked, tmp_path / "ask.json", name), name, ["sky"] * 6)
    tasks = json.loads(path.read_text())
    change(tasks[0]["annotations"][0]["result"][1])
    path.write_text(json.dumps(tasks))
    report = take(asked, path, name)
    assert report.taken == 5
    (refusal,) = report.refused
    assert str(refusal).startswith(f"task 1, point 2: {message}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{}", "no list of tasks"),
        (b"[", "no JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'["\xff"]', "byte 2 is not UTF-8"),
        (b"9" * 5000, "no JSON"),
    ],
)
def test_label_studio_documents_that_are_none(asked, tmp_path, data, message):
    (tmp_path / "back.json").write_bytes(data)
    with pytest.raises(DataError, match=message):
        take(asked, tmp_path / "back.json", "label-studio")


# ---- all ----

PARTS = {"csv": "row ", "cvat": ("image ", "element "), "fiftyone": "sample "}
PARTS |= dict.fromkeys(("label-studio", "label-studio-keypoints"), "task ")
"""What a refusal names, as a file's parts are called."""


@pytest.mark.parametrize("name", READABLE)
def test_a_thousand_mutated_files_lose_nothing_and_take_nothing_wrong(asked, tmp_path, name):
    """What is stored is what the file says; the rest is named; no file raises anything else."""
    data = say(written(asked, tmp_path / "good", name), name, ["sky"] * 6).read_bytes()
    path, generator = tmp_path / "mutated", random.Random(0)
    taken = refused = whole = 0
    for index in range(1000):
        if index % 25 == 0:  # or everybody's words are read a thousand times
            asked = six_queries(tmp_path / f"{index}.sqlite")
        path.write_bytes(mutated(data, generator))
        before = len(asked.answers())
        try:
            replies = list(REQUEST_FORMATS[name].read(path, pictured(asked)))
            report = take(asked, path, name, annotator=f"ada {index}")
        except DataError:
            whole += 1
            assert len(asked.answers()) == before
            continue
        stored = asked.answers()[before:]
        assert len(stored) == report.taken <= 6
        others = report.unchanged + report.unanswered + len(report.refused)
        assert report.taken + others == len(replies)
        assert all(refusal.where.startswith(PARTS[name]) for refusal in report.refused)
        assert all(str(refusal).isprintable() for refusal in report.refused)
        assert {(row.status, row.class_name) for row in stored} <= {("labelled", "sky")}
        taken += report.taken
        refused += len(report.refused)
    least = (2000, 200, 50) if name == "csv" else (500, 20, 50)
    found = (taken, refused, whole)
    assert all(count > few for count, few in zip(found, least, strict=True)), found


@pytest.mark.parametrize("name", READABLE)
def test_from_the_command_line_and_back(waiting, tmp_path, name):
    import shutil

    shutil.copytree(waiting[0].parent, tmp_path / "copy")
    run, out = tmp_path / "copy" / "run", tmp_path / "ask"

    def madbal(*words):
        return CliRunner().invoke(main, [str(word) for word in words])

    asked = madbal("requests", "export", run, "--format", name, "--out", out)
    assert asked.output == f"wrote {out}: 30 pixels that wait\n"
    say(file_of(out, name), name, [waiting[2][0]] * 30)
    back = madbal("requests", "import", run, out, "--format", name, "--annotator", "ada")
    assert back.exit_code == 0, back.output
    assert back.output == (
        "30 answers taken (ada), 0 known already, 0 rows without an answer, 0 refused\n"
    )
