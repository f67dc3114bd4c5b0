"""The store of answers: append-only, idempotent, whole, on a local disk, one run's."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from madbal_ray.errors import LabelError, RunDirError
from madbal_ray.labels.answer_rows import NewAnswer, StoredQuery, seconds_per_click
from madbal_ray.labels.answer_store import AnswerStore
from madbal_ray.labels.settle import Settled, Vote, settle
from madbal_ray.state.local_disk import check_local_disk, filesystem_of

CLASSES = ("sky", "road")


def query(name, *, round=0, rank=0):
    return StoredQuery(
        query_id=name,
        round=round,
        purpose="training",
        image_id="a.png",
        image_uri="images/a.png",
        y=1,
        x=2,
        image_y=3,
        image_x=4,
        unit="pixel",
        superpixel_id=None,
        rank=rank,
    )


def said(name, class_name="sky", *, by="ada", **more):
    status = more.pop("status", "labelled" if class_name else "void")
    return NewAnswer(
        query_id=name, annotator=by, status=status, class_name=class_name, source="test", **more
    )


@pytest.fixture
def store(tmp_path):
    with AnswerStore.create(
        str(tmp_path / "answers.sqlite"), run_id="r1", class_names=CLASSES
    ) as store:
        store.post([query("q1"), query("q2", rank=1), query("q3", round=1)])
        yield store


def test_what_is_stored_comes_back_with_revisions_and_seconds(store):
    first = said("q1", milliseconds=1500, prediction="road", uuid="u1")
    assert store.append([first, said("q2", None, by="bob")]) == [1, 1]
    assert store.append([said("q1", "road", milliseconds=500)]) == [2]
    rows = store.answers("q1")
    assert [(r.class_name, r.revision, r.milliseconds) for r in rows] == [
        ("sky", 1, 1500),
        ("road", 2, 500),
    ]
    assert (rows[0].prediction, rows[0].uuid, rows[0].source) == ("road", "u1", "test")
    states = store.states()
    assert states["q1"].settled == Settled("labelled", "road", ("ada",))
    assert (states["q1"].revision, states["q1"].seconds) == (2, 2.0)
    assert states["q2"].settled == Settled("void", None, ("bob",))
    assert states["q2"].seconds is None
    assert states["q3"].settled is None
    assert list(store.states(1)) == ["q3"]
    assert [one.query_id for one in store.queries(0)] == ["q1", "q2"]
    assert store.queries()[0] == query("q1")


def test_the_same_uuid_again_changes_nothing_and_other_words_under_it_are_refused(store):
    answer = said("q1", uuid="u1")
    assert store.append([answer, answer]) == [1, 1]
    assert store.append([answer]) == [1]
    with pytest.raises(LabelError, match=r"u1 says .*'road'"):
        store.append([said("q1", "road", uuid="u1")])
    assert len(store.answers()) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (said("q9"), "query 'q9' was never asked by this run"),
        (said("q1", "tree"), "class 'tree' is none of the run's: road, sky"),
        (said("q1", status="void"), "status 'void' with class 'sky'"),
        (said("q1", None, status="labelled"), "status 'labelled' with class None"),
        (said("q1", None, status="maybe"), "status 'maybe'; expected one of labelled"),
        (said("q1", by=""), "annotator ''"),
        (said("q1", by="a\nb"), "annotator 'a"),
        (said("q1", by="a" * 201), "expected 1 to 200 printable"),
        (said("q1", milliseconds=-1), "-1 milliseconds"),
        (said("q1", prediction="tree"), "class 'tree' is none"),
    ],
)
def test_a_bad_answer_takes_those_beside_it_along(store, answer, message):
    with pytest.raises(LabelError, match=message):
        store.append([said("q2"), answer])
    assert store.answers() == []


def test_rows_are_never_changed_nor_deleted(store):
    store.append([said("q1")])
    for statement in ("UPDATE answers SET class_name = 'road'", "DELETE FROM answers"):
        with (
            pytest.raises(sqlite3.IntegrityError, match="add a revision"),
            store.transaction() as c,
        ):
            c.execute(statement)
    assert [row.class_name for row in store.answers()] == ["sky"]


def test_an_undone_answer_waits_again(store):
    store.append([said("q1")])
    store.append([said("q1", None, status="undone")])
    state = store.states()["q1"]
    assert (state.settled, state.revision) == (None, 2)


def test_posting_again_adds_only_what_is_new(store):
    assert store.post([query("q1"), query("q4")]) == 1
    assert len(store.queries()) == 4


def test_progress_by_round_and_annotator(store):
    store.append([said("q1", milliseconds=2000), said("q1", "road", by="bob", milliseconds=500)])
    store.append([said("q2"), said("q3", None, by="bob", status="undone")])
    progress = store.progress()
    first = progress.rounds[0]
    assert (first.asked, first.answered, first.disputed) == (2, 1, 1)
    assert (progress.rounds[1].asked, progress.rounds[1].answered) == (1, 0)
    ada, bob = progress.annotators["ada"], progress.annotators["bob"]
    assert (ada.answered, ada.waiting, ada.seconds) == (2, 1, 2.0)
    assert (bob.answered, bob.waiting, bob.seconds) == (1, 1, 0.5)


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([], None),
        ([("ada", "undone", None)], None),
        ([("ada", "labelled", "sky")], ("labelled", "sky", ("ada",))),
        ([("ada", "labelled", "sky"), ("bob", "labelled", "road")], None),
        (
            [("ada", "labelled", "sky"), ("bob", "void", None), ("eve", "labelled", "sky")],
            ("labelled", "sky", ("ada", "eve")),
        ),
        (
            [("eve", "labelled", "sky"), ("bob", "void", None), ("ada", "labelled", "road")],
            ("unsure", None, ("ada", "bob", "eve")),
        ),
        ([("ada", "skipped", None), ("bob", "void", None)], ("void", None, ("bob",))),
        ([("ada", "skipped", None), ("bob", "unsure", None)], ("unsure", None, ("bob",))),
        ([("ada", "skipped", None)], ("skipped", None, ("ada",))),
    ],
)
def test_what_votes_come_to(votes, expected):
    found = settle([Vote(*vote) for vote in votes])
    assert found == (None if expected is None else Settled(*expected))


def test_another_run_and_changed_classes_are_refused(store):
    place = str(store.path)
    with pytest.raises(LabelError, match="holds the answers of run r1, not of r2"):
        AnswerStore.create(place, run_id="r2", class_names=CLASSES)
    with pytest.raises(LabelError, match=r'asked about the classes \["sky", "road"\]'):
        AnswerStore.create(place, run_id="r1", class_names=("road", "sky"))


def test_what_is_no_store_is_told_so(tmp_path):
    with pytest.raises(RunDirError, match="nobody was asked yet"):
        AnswerStore.open(str(tmp_path / "none.sqlite"))
    (tmp_path / "text.sqlite").write_text("not a database, but longer than a header " * 50)
    with pytest.raises(RunDirError, match="cannot be opened as a store of answers"):
        AnswerStore.open(str(tmp_path / "text.sqlite"))
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(RunDirError, match="is no store of answers"):
        AnswerStore.open(str(tmp_path / "empty.sqlite"))


MOUNTS = r"""
21 1 8:1 / / rw - ext4 /dev/sda rw
22 21 0:30 / /home rw shared:1 - nfs4 server:/home rw
23 22 8:2 / /home/fast\040disk rw - xfs /dev/sdb rw
24 21 0:31 / /bucket rw - fuse.s3fs s3fs rw
a torn line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/tmp/x", "ext4"),
        ("/home/ada/run", "nfs4"),
        ("/home/fast disk/run", "xfs"),
        ("/homes", "ext4"),
        ("/bucket/run", "fuse.s3fs"),
    ],
)
def test_the_deepest_mount_holds_a_path(path, kind):
    assert filesystem_of(Path(path), MOUNTS) == kind


def test_network_file_systems_and_object_stores_are_refused_in_a_sentence(tmp_path):
    told = {"what": "the store", "instead": "move it"}
    assert check_local_disk("/srv/a.sqlite", mounts=MOUNTS, **told) == Path("/srv/a.sqlite")
    with pytest.raises(
        RunDirError, match=r"/home/a.sqlite, on a network file system \(nfs4\).*move"
    ):
        check_local_disk("/home/a.sqlite", mounts=MOUNTS, **told)
    with pytest.raises(RunDirError, match=r"\(fuse.s3fs\)"):
        check_local_disk("/bucket/run/a.sqlite", mounts=MOUNTS, **told)
    with pytest.raises(RunDirError, match=r"s3://bucket/a.sqlite, an object store.*move it"):
        check_local_disk("s3://bucket/a.sqlite", **told)


WRITER = """
import sys
from madbal_ray.labels.answer_rows import NewAnswer
from madbal_ray.labels.answer_store import AnswerStore
store = AnswerStore.open(sys.argv[1])
for index in range(100_000):
    store.append([NewAnswer(query_id="q1", annotator="ada", status="void", source="t",
                            uuid=f"{sys.argv[2]}-{index}")])
    print(index, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(store):
    """A writer is killed in the middle, three times; nothing it told of is lost or doubled."""
    acknowledged = []
    for attempt in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(store.path), str(attempt)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert process.stdout is not None
        for line in process.stdout:
            acknowledged.append(f"{attempt}-{int(line)}")
            if int(line) == 20:
                process.send_signal(signal.SIGKILL)
                break
        acknowledged += [f"{attempt}-{int(rest)}" for rest in process.stdout if rest.endswith("\n")]
        process.wait()
    rows = store.answers()
    stored = [row.uuid for row in rows]
    assert len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored)
    assert len(acknowledged) >= 3 * 21
    assert len(stored) - len(acknowledged) <= 3  # committed, and killed before it could tell
    assert [row.revision for row in rows] == list(range(1, len(rows) + 1))


def test_writers_side_by_side_give_every_answer_a_revision_of_its_own(store):
    place = str(store.path)

    def write(name):
        with AnswerStore.open(place) as own:
            for _ in range(25):
                own.append([said("q1", by=name)])

    threads = [threading.Thread(target=write, args=(name,)) for name in ("ada", "bob", "eve")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row.revision for row in store.answers()) == list(range(1, 76))


def test_seconds_per_click_by_annotator_and_by_class():
    answers = [
        NewAnswer(
            query_id="q",
            annotator=who,
            status=status,
            class_name=word,
            milliseconds=spent,
            source="",
        )
        for who, status, word, spent in (
            ("b", "labelled", "sky", 1000),
            ("a", "void", None, 500),
            ("b", "labelled", "road", 3000),
            ("b", "labelled", "sky", 60_000),
            ("b", "undone", None, 0),
            ("c", "skipped", None, None),
        )
    ]
    assert seconds_per_click(answers, "annotator") == {"a": 0.5, "b": 3.0}
    assert seconds_per_click(answers, "class_name") == {"road": 3.0, "sky": 30.5}
