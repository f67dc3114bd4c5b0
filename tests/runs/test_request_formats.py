"""Queries out to CVAT and Label Studio and answers back: by query_id, row by row, and once."""

import base64
import io
import json
import random
import zipfile
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from madbal_ray.cli import main
from madbal_ray.errors import DataError
from madbal_ray.labels.answer_rows import NewAnswer
from madbal_ray.labels.import_answers import import_replies
from madbal_ray.seams import REQUEST_FORMATS
from tests.runs import hand_made as by_hand
from tests.runs.hand_made import CLASSES, mutated, six_queries

HEIGHT, WIDTH = 12, 7
READABLE = [name for name in REQUEST_FORMATS if REQUEST_FORMATS[name].read and name != "csv"]
SAID = [("labelled", name) for name in CLASSES] + [("void", None), ("skipped", None)]


def picture():
    file = io.BytesIO()
    pixels = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def book(store):
    return by_hand.book(store, picture=picture(), sizes={"=1+1.png": (HEIGHT, WIDTH)})


def take(store, path, name, annotator="ada"):
    replies = REQUEST_FORMATS[name].read(path, book(store))
    return import_replies(store, replies, annotator=annotator, source=name)


def written(store, path, name):
    REQUEST_FORMATS[name].write(book(store), path)
    return path


def answer(store, said):
    store.append(
        [
            NewAnswer(query_id=f"q{i}", annotator="hid", status=s, class_name=c, source="page")
            for i, (s, c) in enumerate(said)
        ]
    )


def copied(path, name):
    """Do what a person does in the tool: in Label Studio, copy predicted points."""
    if name != "label-studio-keypoints":
        return path
    tasks = json.loads(path.read_text())
    for task in tasks:
        results = task.pop("predictions")[0]["result"]
        for index, result in enumerate(results):
            result["id"] = f"copied{index}"
        task["annotations"] = [{"result": results, "completed_by": None, "lead_time": None}]
    path.write_text(json.dumps(tasks))
    return path


@pytest.mark.parametrize("name", READABLE)
def test_what_went_out_comes_back_and_only_once(asked, tmp_path, name):
    report = take(asked, copied(written(asked, tmp_path / "ask", name), name), name)
    assert (report.taken, report.unchanged, report.unanswered, report.refused) == (0, 0, 6, ())
    answer(asked, SAID)
    path = copied(written(asked, tmp_path / "back", name), name)
    with six_queries(tmp_path / "b.sqlite") as other:
        report = take(other, path, name)
        assert (report.taken, report.unanswered, report.refused) == (5, 1, ())
        states = [other.states()[f"q{index}"].settled for index in range(6)]
        assert [(s.status, s.class_name) for s in states[:5]] == SAID
        assert states[5] is None
        again = take(other, path, name)
        assert (again.taken, again.unchanged) == (0, 5)
        assert {(row.annotator, row.source) for row in other.answers()} == {("ada", name)}


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


def test_cvat_is_read_by_datumaro(asked, tmp_path):
    datumaro = pytest.importorskip("datumaro")
    answer(asked, SAID[:1])
    (tmp_path / "cvat" / "images").mkdir(parents=True)
    (tmp_path / "cvat" / "images" / "=1+1.png").write_bytes(picture())
    written(asked, tmp_path / "cvat" / "annotations.xml", "cvat")
    (tmp_path / "cvat" / "annotations.labels.json").unlink()
    (item,) = datumaro.Dataset.import_from(str(tmp_path / "cvat"), "cvat")
    found = {mark.attributes["query_id"]: mark for mark in item.annotations}
    assert sorted(found) == [f"q{index}" for index in range(6)]
    assert [list(found[f"q{index}"].points) for index in (0, 5)] == [[3.5, 0.5], [3.5, 10.5]]
    assert [found[f"q{index}"].attributes["class"] for index in (0, 1)] == ["sky", "__undefined__"]


def cvat_answers(store, path):
    answer(store, [("labelled", "sky")] * 6)
    return written(store, path, "cvat").read_text()


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
    from dataclasses import replace

    with six_queries(tmp_path / "b.sqlite") as store:
        usual = book(store)
        deep = [replace(query, image_uri="images/a/=1+1.png") for query in usual.queries]
        usual = replace(usual, queries=deep)
        answer(store, [("void", None)] * 6)
        usual = replace(usual, states=store.states())
        form = REQUEST_FORMATS["cvat"]
        form.write(usual, tmp_path / "out.xml")
        data = (tmp_path / "out.xml").read_text()
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


def test_a_class_called_like_a_word_of_ours(tmp_path):
    from dataclasses import replace

    for name in READABLE:
        with six_queries(tmp_path / f"{name}.sqlite") as store:
            answer(store, SAID)
            known = dict(store.states())
            usual = replace(book(store), class_names=("void", "skip", "__undefined__"))
            settled = replace(known["q0"].settled, class_name="void")
            known["q0"] = replace(known["q0"], settled=settled)
            usual = replace(usual, states=known, queries=usual.queries[:1] + usual.queries[3:])
            form = REQUEST_FORMATS[name]
            form.write(usual, tmp_path / name)
            replies = list(form.read(copied(tmp_path / name, name), usual))
            said = [(reply.status, reply.class_name) for reply in replies]
            assert said == [("labelled", "void"), ("void", ""), ("skipped", ""), ("", "")]


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
    path = copied(written(asked, tmp_path / "ask.json", name), name)
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
    path = copied(written(asked, tmp_path / "ask.json", name), name)
    tasks = json.loads(path.read_text())
    for result in tasks[0]["annotations"][0]["result"]:
        result["value"]["keypointlabels"] = ["sky"]
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


@pytest.mark.parametrize("name", READABLE)
def test_a_thousand_mutated_files_lose_nothing_and_take_nothing_wrong(asked, tmp_path, name):
    """What is stored is what the file says; the rest is named; no file raises anything else."""
    answer(asked, [("labelled", "sky")] * 6)
    data = copied(written(asked, tmp_path / "good", name), name).read_bytes()
    path, generator = tmp_path / "mutated", random.Random(0)
    taken = refused = whole = 0
    for index in range(1000):
        if index % 25 == 0:
            asked = six_queries(tmp_path / f"{index}.sqlite")
        path.write_bytes(mutated(data, generator))
        before = len(asked.answers())
        try:
            replies = list(REQUEST_FORMATS[name].read(path, book(asked)))
            report = take(asked, path, name, annotator=f"ada {index}")
        except DataError:
            whole += 1
            assert len(asked.answers()) == before
            continue
        stored = asked.answers()[before:]
        assert len(stored) == report.taken <= 6
        others = report.unchanged + report.unanswered + len(report.refused)
        assert report.taken + others == len(replies)
        assert all(refusal.where and str(refusal).isprintable() for refusal in report.refused)
        assert {(row.status, row.class_name) for row in stored} <= {("labelled", "sky")}
        taken += report.taken
        refused += len(report.refused)
    assert (taken > 500, refused > 20, whole > 50) == (True, True, True), (taken, refused, whole)


@pytest.mark.parametrize("name", READABLE)
def test_from_the_command_line_and_back(waiting, tmp_path, name):
    import shutil

    shutil.copytree(waiting[0].parent, tmp_path / "copy")
    run, out = tmp_path / "copy" / "run", tmp_path / "ask"

    def madbal(*words):
        return CliRunner().invoke(main, [str(word) for word in words])

    asked = madbal("requests", "export", run, "--format", name, "--out", out)
    assert asked.output == f"wrote {out}: 30 pixels that wait\n"
    word = waiting[2][0]
    text = copied(out, name).read_text().replace(">__undefined__<", f">{word}<")
    text = text.replace('["__undefined__"]', json.dumps([word]))
    out.write_text(
        text.replace('"annotations": []', f'"annotations": [{json.dumps(picked(word))}]')
    )
    back = madbal("requests", "import", run, out, "--format", name, "--annotator", "ada")
    assert back.exit_code == 0, back.output
    assert back.output == (
        "30 answers taken, 0 known already, 0 rows without an answer, 0 refused\n"
    )
