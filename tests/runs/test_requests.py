"""Queries out as CSV and answers back: row by row, whole, and once."""

import csv
import io
import shutil
from dataclasses import replace

import pytest
from click.testing import CliRunner

import madbal_ray
from madbal_ray import api
from madbal_ray.cli import main
from madbal_ray.errors import ConfigError, DataError, RunDirError
from madbal_ray.labels.answer_store import AnswerStore
from madbal_ray.labels.csv_format import CSV
from madbal_ray.labels.import_answers import import_replies
from tests.people import truth
from tests.runs.hand_made import CLASSES, book


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def write_rows(path, rows, separator=","):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue())
    return path


def take(store, path, annotator="ada"):
    return import_replies(store, CSV.read(path, book(store)), annotator=annotator, source="csv")


def exported(store, path):
    CSV.write(book(store), path)
    return rows_of(path)


def test_the_columns_and_the_centres_of_pixels(asked, tmp_path):
    rows = exported(asked, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines()[:2] == [
        "query_id,image_id,x,y,status,class",
        "q0,'=1+1.png,3.5,0.5,,",
    ]
    assert [(row["x"], row["y"]) for row in rows][5] == ("3.5", "10.5")


def test_what_went_out_comes_back_and_only_once(asked, tmp_path):
    rows = exported(asked, tmp_path / "out.csv")
    said = ["sky", "'=cmd|'/c calc'!A0", "''road", "", "", ""]
    states = ["labelled", "labelled", "labelled", "void", "skipped", ""]
    for row, status, class_name in zip(rows, states, said, strict=True):
        row.update({"status": status, "class": class_name})
    path = write_rows(tmp_path / "back.csv", rows)
    report = take(asked, path)
    assert (report.taken, report.unchanged, report.unanswered, report.refused) == (5, 0, 1, ())
    found = {name: state.settled for name, state in asked.states().items()}
    assert [found[f"q{i}"].class_name for i in range(3)] == list(CLASSES)
    assert [found[f"q{i}"].status for i in (3, 4)] == ["void", "skipped"]
    assert found["q5"] is None
    by = ["ada"] * 5 + [""]
    again = [row | {"annotator": who} for row, who in zip(rows, by, strict=True)]
    assert exported(asked, tmp_path / "again.csv") == again
    report = take(asked, path)
    assert (report.taken, report.unchanged) == (0, 5)
    assert len(asked.answers()) == 5
    assert {(row.annotator, row.source) for row in asked.answers()} == {("ada", "csv")}


def test_a_correction_and_back_again_are_revisions(asked, tmp_path):
    rows = exported(asked, tmp_path / "out.csv")[:1]
    for class_name in ("sky", "''road", "sky"):
        rows[0].update({"status": "labelled", "class": class_name})
        assert take(asked, write_rows(tmp_path / "back.csv", rows)).taken == 1
    assert [row.class_name for row in asked.answers("q0")] == ["sky", "'road", "sky"]


def test_a_spreadsheet_of_another_country(asked, tmp_path):
    rows = exported(asked, tmp_path / "out.csv")
    for row in rows:
        row.update({"status": "Labelled ", "class": "sky", "annotator": "bob", "seconds": "1,5"})
        row.update({"x": row["x"].replace(".", ","), "y": row["y"].replace(".", ",")})
    path = write_rows(tmp_path / "back.csv", rows, ";")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    report = take(asked, path)
    assert (report.taken, report.refused) == (6, ())
    assert {(row.annotator, row.milliseconds) for row in asked.answers()} == {("bob", 1500)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": "4.5"}, "row 3: got a point at x 4.5, y 2.5; expected x 3.5, y 2.5: it was moved"),
        ({"y": "1.99"}, "row 3: got a point at x 3.5, y 1.99"),
        ({"x": "nan"}, "row 3: got x 'nan'; expected a number"),
        ({"y": ""}, "row 3: got y ''; expected a number"),
        ({"class": "dragon"}, "row 3: got class 'dragon'; expected one of sky, "),
        ({"class": ""}, "row 3: got class ''; expected one of sky"),
        ({"class": "Sky"}, "row 3: got class 'Sky'"),
        ({"query_id": "q77"}, "row 3: got query 'q77'; expected one that this run asks"),
        ({"image_id": "b.png"}, "row 3: got image 'b.png'; expected '=1+1.png'"),
        ({"status": "maybe"}, "row 3: got status 'maybe'; expected labelled, void, skipped"),
        ({"status": ""}, "row 3: got class 'sky' with status ''; expected status labelled"),
        ({"status": "void"}, "row 3: got class 'sky' with status 'void'"),
        ({"status": "undone", "class": ""}, "row 3: got status 'undone'"),
        ({"query_id": "q0", "y": "0.5", "class": "''road"}, "row 3: got \"'road\" for a query that "
         "row 2 answers with 'sky'; expected one answer a query and annotator"),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_is_refused_and_the_rest_taken(asked, tmp_path, change, message):
    rows = exported(asked, tmp_path / "out.csv")
    for row in rows:
        row.update({"status": "labelled", "class": "sky"})
    rows[1].update(change)
    report = take(asked, write_rows(tmp_path / "back.csv", rows))
    assert report.taken == 5
    (refusal,) = report.refused
    assert str(refusal).startswith(message)
    assert asked.answers("q1") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must name query_id"),
        ("query_id,image_id,x,y,status\n", "not so: class"),
        ("query_id,image_id,x,x,y,status,class\n", "not so: x"),
    ],
)
def test_a_file_without_its_columns_is_refused_whole(asked, tmp_path, text, message):
    (tmp_path / "back.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        take(asked, tmp_path / "back.csv")


def test_what_is_no_text_and_no_file(asked, tmp_path):
    (tmp_path / "back.csv").write_bytes(b"query_id,\xff\n")
    with pytest.raises(DataError, match="byte 9 is not UTF-8"):
        take(asked, tmp_path / "back.csv")
    with pytest.raises(DataError, match="cannot be read"):
        take(asked, tmp_path / "none.csv")


def test_from_the_command_line_to_a_trained_run(waiting, tmp_path):
    source, masks, names = waiting
    shutil.copytree(source.parent, tmp_path / "copy")
    run, out = tmp_path / "copy" / "run", tmp_path / "ask.csv"

    def madbal(*words):
        return CliRunner().invoke(main, [str(word) for word in words])

    asked = madbal("requests", "export", run, "--format", "csv", "--out", out)
    assert asked.exit_code == 0, asked.output
    assert asked.output == f"wrote {out}: 30 pixels that wait\n"
    rows = rows_of(out)
    with AnswerStore.open(str(run / "answers.sqlite")) as store:
        queries = {query.query_id: query for query in store.queries()}
    for row in rows:
        status, class_name = truth(queries[row["query_id"]], masks, names)
        row.update({"status": status, "class": class_name or ""})
    rows[4]["x"] = str(float(rows[4]["x"]) + 1)
    write_rows(out, rows)
    taken = madbal("requests", "import", run, out, "--annotator", "ada")
    assert taken.exit_code == 1
    assert "29 answers taken, 0 known already, 0 rows without an answer, 1 refused" in taken.output
    assert "refused: row 6: got a point at" in taken.output
    rows[4]["x"] = str(float(rows[4]["x"]) - 1)
    again = madbal("requests", "import", run, write_rows(out, rows), "--annotator", "ada")
    assert again.exit_code == 0
    assert "1 answers taken, 29 known already" in again.output
    assert "30 of 30 answered" in madbal("status", run).output
    assert madbal("requests", "export", run, "--out", out).output.endswith("0 pixels that wait\n")
    assert madbal("requests", "export", run, "--out", out, "--all").output.endswith("30 pixels\n")


def test_what_madbal_score_asked_for_can_be_answered(frozen_run, tmp_path):
    scenes = sorted(frozen_run.run_dir.folder.local_path.parent.rglob("train/*.png"))
    images = scenes[0].parent
    out = tmp_path / "out"
    api.score(images, checkpoint=frozen_run.run_dir.folder.uri, out=out, budget=2, engine="local")
    assert api.export_requests(out, out=tmp_path / "ask.csv") == 12
    rows = rows_of(tmp_path / "ask.csv")
    known = madbal_ray.open_run(out).table("pixel_requests", 0)["query_id"].to_pylist()
    assert sorted(row["query_id"] for row in rows) == sorted(known)
    for row in rows:
        row.update({"status": "labelled", "class": frozen_run.class_names[0]})
    path = write_rows(tmp_path / "back.csv", rows)
    assert api.import_requests(out, path, annotator="ada").taken == 12


def test_a_round_that_is_posted_while_pixels_are_exported_waits_for_the_next_export(
    waiting, tmp_path, monkeypatch
):
    shutil.copytree(waiting[0].parent, tmp_path / "copy")
    run, out = tmp_path / "copy" / "run", tmp_path / "ask.csv"

    def reading_while_somebody_posts(method):
        def read(store, *arguments):
            found = method(store, *arguments)
            with AnswerStore.open(str(run / "answers.sqlite")) as other:
                first = method_of_queries(other)[0]
                other.post([replace(first, query_id=f"late{len(posted)}", round=1)])
            posted.append(1)
            return found

        return read

    posted, method_of_queries = [], AnswerStore.queries
    for name in ("queries", "states"):
        method = getattr(AnswerStore, name)
        monkeypatch.setattr(AnswerStore, name, reading_while_somebody_posts(method))
    assert api.export_requests(run, out=out) == 30
    assert len(posted) == 2
    monkeypatch.undo()
    assert api.export_requests(run, out=out) == 32


def test_what_cannot_be_exported_is_told(tiny_run, waiting, tmp_path):
    with pytest.raises(RunDirError, match="asks nobody \\(oracle: simulated\\)"):
        api.export_requests(tiny_run.run_dir.folder.uri, out=tmp_path / "x.csv")
    with pytest.raises(ConfigError, match="'xls' is no request format; there are: csv"):
        api.export_requests(waiting[0], out=tmp_path / "x", form="xls")
    path = tmp_path / "x.csv"
    api.export_requests(waiting[0], out=path)
    with pytest.raises(ConfigError, match="annotator ''"):
        api.import_requests(waiting[0], path, annotator="")
