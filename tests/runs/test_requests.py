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
from madbal_ray.cli.options import account_name
from madbal_ray.errors import ConfigError, DataError, RunDirError
from madbal_ray.labels.answer_rows import NewAnswer, StoredQuery
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
        ({"annotator": "a\0b"}, "row 3: got annotator 'a\\x00b'; expected 1 to 200 printable "
         "characters, none of the ends blank"),
        ({"seconds": "-1"}, "row 3: got -1 seconds; expected 0 or more"),
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
    if not change.keys() <= rows[1].keys():
        rows = [row | dict.fromkeys(change, "") for row in rows]
    rows[1].update(change)
    report = take(asked, write_rows(tmp_path / "back.csv", rows))
    assert report.taken == 5
    (refusal,) = report.refused
    assert str(refusal).startswith(message)
    assert asked.answers("q1") == []


def test_a_class_alone_is_an_answer_and_both_spellings_are_one(asked, tmp_path):
    rows = exported(asked, tmp_path / "out.csv")
    for row, status, name in zip(rows, ("", "labeled", "Labeled"), ("sky",) * 3, strict=False):
        row.update({"status": status, "class": name})
    report = take(asked, write_rows(tmp_path / "back.csv", rows))
    assert (report.taken, report.unanswered, report.refused) == (3, 3, ())
    assert [(one.status, one.class_name) for one in asked.answers()] == [("labelled", "sky")] * 3


def test_a_time_of_more_than_a_day_is_unknown(asked, tmp_path):
    rows = exported(asked, tmp_path / "out.csv")[:3]
    for row, seconds in zip(rows, ("86400", "86400.01", "1e300"), strict=True):
        row.update({"status": "void", "seconds": seconds})
    report = take(asked, write_rows(tmp_path / "back.csv", rows))
    assert (report.taken, report.refused) == (3, ())
    assert [one.milliseconds for one in asked.answers()] == [86_400_000, None, None]


def test_the_report_says_whose_answers_took_the_place_of_which(asked, tmp_path):
    rows = [row | {"annotator": ""} for row in exported(asked, tmp_path / "out.csv")]
    for row in rows[:4]:
        row.update({"status": "labelled", "class": "sky"})
    rows[3]["annotator"] = "bob"
    path = write_rows(tmp_path / "back.csv", rows)
    report = take(asked, path)
    assert (report.replaced, report.unnamed, report.annotators) == (0, 3, ("ada", "bob"))
    assert report.lines() == [
        "4 answers taken (ada, bob), 0 known already, 2 rows without an answer, 0 refused"
    ]
    asked.append(
        [NewAnswer(query_id="q2", annotator="ada", status="undone", source="page")]
    )  # who takes an answer back has none to be replaced
    for row in rows[:3]:
        row.update({"status": "void", "class": ""})
    rows[0].update({"status": "maybe"})
    rows[4].update({"status": "maybe"})
    rows[5].update({"status": "maybe"})
    assert take(asked, write_rows(path, rows)).lines() == [
        "2 answers taken (ada), 1 of them in place of an earlier one of the same annotator, "
        "1 known already, 0 rows without an answer, 3 refused",
        "refused: row 2: got status 'maybe'; expected labelled, void, skipped, unsure, or nothing; "
        "and 2 more rows alike",
    ]


@pytest.mark.parametrize("class_name", ["sky", "Straße"])
def test_a_table_with_more_than_ascii_is_marked_as_utf_8(tmp_path, class_name):
    """Excel takes it for its own code page without the mark."""
    with AnswerStore.create(str(tmp_path / "a"), run_id="r", class_names=[class_name]) as store:
        given = replace(made_query(), image_id=f"{class_name}.png", image_uri="a.png")
        store.post([given])
        CSV.write(book(store), tmp_path / "out.csv")
        data = (tmp_path / "out.csv").read_bytes()
        assert data.startswith(b"\xef\xbb\xbfquery_id,") == (class_name == "Straße")
        assert data.startswith(b"query_id,") == (class_name == "sky")
        said = data.decode("utf-8-sig").replace(",,\n", f",labelled,{class_name}\n")
        (tmp_path / "back.csv").write_bytes(said.encode("utf-8-sig"))
        assert take(store, tmp_path / "back.csv").taken == 1
        (tmp_path / "back.csv").write_bytes(said.encode("utf-16"))
        with pytest.raises(DataError, match=r"is not UTF-8; .*\(in Excel: save as CSV UTF-8\)"):
            take(store, tmp_path / "back.csv")


def made_query():
    return StoredQuery(
        query_id="q0", round=0, purpose="training", image_id="a.png", image_uri="a.png",
        y=0, x=0, image_y=0, image_x=0, unit="pixel", superpixel_id=None, rank=0,
    )  # fmt: skip


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
    assert taken.output.startswith(
        "29 answers taken (ada), 0 known already, 0 rows without an answer, 1 refused\n"
    )
    assert "refused: row 6: got a point at" in taken.output
    rows[4]["x"] = str(float(rows[4]["x"]) - 1)
    again = madbal("requests", "import", run, write_rows(out, rows), "--annotator", "ada")
    assert again.exit_code == 0
    assert "1 answers taken (ada), 29 known already" in again.output
    me = account_name()
    mine = madbal("requests", "import", run, out)
    assert mine.output == (
        f"30 answers taken ({me}), 0 known already, 0 rows without an answer, 0 refused; the file "
        "names nobody for 30 of them: --annotator NAME where several people answered\n"
    )
    assert "30 of 30 answered" in madbal("status", run).output
    refused = madbal("requests", "export", run, "--out", out)
    assert refused.exit_code == 2
    told = f"{out} exists: import its answers first, or choose another name; --overwrite writes"
    assert told in refused.output
    assert rows_of(out) == rows
    again = madbal("requests", "export", run, "--out", out, "--overwrite")
    assert again.output.endswith("0 pixels that wait\n")
    again = madbal("requests", "export", run, "--out", tmp_path / "all.csv", "--all")
    assert again.output.endswith(" 30 pixels\n")
    assert len(rows_of(tmp_path / "all.csv")) == 60  # a row a vote


def test_a_file_of_the_run_is_never_written_over(waiting, tmp_path):
    run = tmp_path / "copy" / "run"
    shutil.copytree(waiting[0].parent, run.parent)
    (tmp_path / "link").symlink_to(run)
    for name in ("answers.sqlite", "config.json"):
        file = next(run.rglob(name))
        before = file.read_bytes()
        for out in (file, tmp_path / "link" / file.relative_to(run)):
            with pytest.raises(ConfigError, match=r"is a file of the run .*: choose another name"):
                api.export_requests(run, out=out, overwrite=True)
        assert file.read_bytes() == before
    assert api.export_requests(run, out=run / "new.csv") == 30


def test_a_picture_that_changed_since_it_was_inspected_is_not_handed_out(waiting, tmp_path):
    first, other, *_ = sorted((waiting[0].parent / "pictures" / "images").iterdir())
    before = first.read_bytes()
    try:
        first.write_bytes(other.read_bytes())
        with pytest.raises(DataError, match=f"images/{first.name}: .*it holds something else"):
            api.export_requests(waiting[0], out=tmp_path / "ask.json", form="label-studio")
    finally:
        first.write_bytes(before)
    assert not (tmp_path / "ask.json").exists()
    assert api.export_requests(waiting[0], out=tmp_path / "ask.json", form="label-studio") == 30


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
    assert api.export_requests(run, out=out, overwrite=True) == 32


def test_what_cannot_be_exported_is_told(tiny_run, waiting, tmp_path):
    with pytest.raises(RunDirError, match="asks nobody \\(oracle: simulated\\)"):
        api.export_requests(tiny_run.run_dir.folder.uri, out=tmp_path / "x.csv")
    with pytest.raises(ConfigError, match="'xls' is no request format; there are: csv"):
        api.export_requests(waiting[0], out=tmp_path / "x", form="xls")
    path = tmp_path / "x.csv"
    api.export_requests(waiting[0], out=path)
    with pytest.raises(ConfigError, match="annotator ''"):
        api.import_requests(waiting[0], path, annotator="")
