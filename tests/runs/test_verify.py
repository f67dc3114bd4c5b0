"""`madbal verify` finds each thing that can be changed in a finished run, and names it.

Every test changes one thing of a copy and mends all hashes above it, so that the check under test
is the one that fires.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from madbal_ray.errors import IntegrityError, LabelError
from madbal_ray.runs.verify import compare, verify_run
from madbal_ray.state import tables
from madbal_ray.state.marker import Marker
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stage_dir import MARKER_NAME


class Copy:
    """A copy of a finished run and its pool, whose files may be changed."""

    def __init__(self, original, folder):
        shutil.copytree(Path(original.folder.uri).parent, folder)
        self.path = folder / Path(original.folder.uri).name

    def verify(self):
        return list(verify_run(RunDir(self.path)))

    def pointer(self, stage, round_index):
        name = f"pool/{stage}.json"
        if round_index is not None:
            name = f"rounds/{round_index:03d}/{stage}/_CURRENT.json"
        return self.path / name

    def folder(self, stage, round_index):
        """Return a stage's folder: pointers are relative to the run's."""
        pointer = json.loads(self.pointer(stage, round_index).read_text())
        return Path(os.path.normpath(self.path / pointer["folder"]))

    def change_marker(self, stage, round_index, **values):
        """Change a marker, and the pointer that names its digest."""
        path = self.folder(stage, round_index) / MARKER_NAME
        content = json.loads(path.read_text()) | values
        path.write_text(json.dumps(content))
        pointer = self.pointer(stage, round_index)
        digest = Marker.from_json(path.read_bytes()).digest
        pointer.write_text(json.dumps(json.loads(pointer.read_text()) | {"digest": digest}))

    def change_table(self, stage, round_index, table, change, *, shard=0):
        """Let a function change the rows of a table's shard, and mend its marker."""
        folder, name = self.folder(stage, round_index), f"{table}/{shard:05d}.parquet"
        rows = pq.read_table(folder / name).to_pylist()
        changed = change(rows) or rows
        marker = json.loads((folder / MARKER_NAME).read_text())
        data = tables.encode(table, tables.from_rows(table, changed), key=marker["key"])
        (folder / name).write_bytes(data)
        for record in marker["files"]:
            if record["path"] == name:
                record |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
                record["rows"] = len(changed)
        self.change_marker(stage, round_index, files=marker["files"])

    def change_config(self, section, **values):
        path = self.path / "config.json"
        content = json.loads(path.read_text())
        (content[section] if section else content).update(values)
        path.write_text(json.dumps(content))


@pytest.fixture
def copy(tiny_run, tmp_path):
    return Copy(tiny_run.run_dir, tmp_path / "copy")


def count_files(copy):
    pointers = [*copy.path.glob("pool/*.json"), *copy.path.glob("rounds/*/*/_CURRENT.json")]
    markers = {
        Path(os.path.normpath(copy.path / json.loads(one.read_text())["folder"])) / MARKER_NAME
        for one in pointers
    }
    assert len(markers) == len(pointers)
    return sum(len(json.loads(one.read_text())["files"]) for one in markers)


def test_a_finished_run_holds_and_says_what_was_checked(copy):
    assert copy.verify() == [
        f"files: {count_files(copy)} match their markers",
        "round 0: 30 labels answer the queries; 30 pixels and 30 clicks in all",
        "round 0: selection replayed from the seed",
        "round 1: 30 labels answer the queries; 60 pixels and 60 clicks in all",
        "round 1: selection replayed from the stored scores",
    ]


@pytest.mark.parametrize(
    ("stage", "round_index", "name"),
    [
        ("superpixels", None, "superpixels/00001.parquet"),
        ("labels", 1, "labels/00002.parquet"),
        ("phase2", 0, "phase2.safetensors"),
    ],
)
def test_a_changed_file_and_a_missing_one_are_named(copy, stage, round_index, name):
    path = copy.folder(stage, round_index) / name
    content = bytearray(path.read_bytes())
    content[9] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=f"{name}: sha256 .*, the marker says"):
        copy.verify()
    path.unlink()
    with pytest.raises(IntegrityError, match=f"{name} is missing"):
        copy.verify()


def test_a_changed_marker_is_not_the_one_that_the_run_points_to(copy):
    pointer = copy.pointer("select", 1).read_text()
    copy.change_marker("select", 1, summary={"shards": {}})
    copy.pointer("select", 1).write_text(pointer)
    with pytest.raises(IntegrityError, match="its marker is not the one that"):
        copy.verify()


def move_first(rows, place=(0, 0)):
    """Move the first row to another pixel."""
    taken = {(row["image_id"], row["y"], row["x"]) for row in rows}
    y, x = place
    while (rows[0]["image_id"], y, x) in taken:
        x += 1
    rows[0].update(y=y, x=x)


def test_a_label_that_answers_no_query(copy):
    copy.change_table("labels", 1, "labels", move_first)
    with pytest.raises(
        LabelError, match=r"2 pixels are in only one of queries \(10\) and labels \(10\)"
    ):
        copy.verify()


def test_a_query_without_an_answer(copy):
    copy.change_table("labels", 0, "labels", lambda rows: rows[1:], shard=2)
    with pytest.raises(
        LabelError, match=r"1 pixels are in only one of queries \(10\) and labels \(9\)"
    ):
        copy.verify()


def test_a_query_answered_twice(copy):
    copy.change_table("labels", 1, "labels", lambda rows: [*rows, rows[3]])
    with pytest.raises(LabelError, match="labels hold a pixel twice"):
        copy.verify()


def test_a_pixel_asked_in_two_rounds(copy):
    path = copy.folder("labels", 0) / "labels/00001.parquet"
    known = pq.read_table(path).to_pylist()[0]

    def again(rows):
        row = min((r for r in rows if r["image_id"] == known["image_id"]), key=lambda r: r["x"])
        row.update(y=known["y"], x=known["x"])

    def same(rows):
        queries = pq.read_table(copy.folder("select", 1) / "queries/00001.parquet").to_pylist()
        places = [(r["image_id"], r["y"], r["x"]) for r in queries]
        odd = next(r for r in rows if (r["image_id"], r["y"], r["x"]) not in places)
        odd.update(y=known["y"], x=known["x"])

    copy.change_table("select", 1, "queries", again, shard=1)
    copy.change_table("labels", 1, "labels", same, shard=1)
    name = f"{known['image_id']} y={known['y']} x={known['x']}"
    with pytest.raises(LabelError, match=f"1 pixels would be asked twice, the first is {name}"):
        copy.verify()


@pytest.mark.parametrize("column", ["num_labels", "num_regions", "num_clicks", "num_void"])
def test_metrics_that_note_another_cost(copy, column):
    def change(rows):
        rows[-1][column] += 1

    copy.change_table("metrics", 1, "metrics", change)
    with pytest.raises(
        IntegrityError, match=r"metrics of round 1, split val note Cost.*, the label store holds"
    ):
        copy.verify()


def test_labels_that_cost_more_than_the_metrics_note(copy):
    def change(rows):
        rows[0]["status"] = "void"

    copy.change_table("labels", 0, "labels", change, shard=1)
    with pytest.raises(IntegrityError, match="metrics of round 0"):
        copy.verify()


@pytest.mark.parametrize("column", ["count", "score_sum"])
def test_changed_statistics_of_clusters(copy, column):
    def change(rows):
        rows[0][column][0] += 1

    copy.change_table("score", 1, "cluster_statistics", change, shard=1)
    with pytest.raises(
        IntegrityError,
        match=f"round 1, shard 1: cluster_statistics: column {column} differs from the replay",
    ):
        copy.verify()


def test_changed_budgets_of_clusters(copy):
    def change(rows):
        rows[1]["budget"] += 1

    copy.change_table("allocate", 1, "cluster_budgets", change)
    with pytest.raises(
        IntegrityError,
        match="round 1, allocate: cluster_budgets: column budget differs from the replay, first in "
        "row 1",
    ):
        copy.verify()


def test_a_changed_summary_of_the_allocation(copy):
    copy.change_marker("allocate", 1, summary={"ceil_excess": 3})
    with pytest.raises(
        IntegrityError,
        match=r"round 1, allocate: the marker says {'ceil_excess': 3}, the replay gives "
        r"{'ceil_excess': 0}",
    ):
        copy.verify()


def test_queries_in_another_order(copy):
    def swap(rows):
        first, second = rows[:2]
        first["rank"], second["rank"] = second["rank"], first["rank"]

    copy.change_table("select", 1, "queries", swap, shard=2)
    with pytest.raises(IntegrityError, match=r"round 1, shard 2: queries: column .* differs from"):
        copy.verify()


def test_queries_with_another_score(copy):
    def change(rows):
        rows[4]["score"] += 0.5

    copy.change_table("select", 1, "queries", change)
    with pytest.raises(
        IntegrityError, match=r"round 1, shard 0: queries: column score differs .* first in row 4"
    ):
        copy.verify()


def test_initial_queries_that_the_seed_does_not_give(copy):
    def change(rows):
        rows[2]["superpixel_id"] += 1

    copy.change_table("select", 0, "queries", change, shard=1)
    with pytest.raises(
        IntegrityError, match="round 0, shard 1: queries: column superpixel_id differs"
    ):
        copy.verify()


def test_a_stage_that_was_made_from_other_settings(copy):
    copy.change_config("budget", images_per_round=11)  # in the key, and read by no other strategy
    with pytest.raises(
        IntegrityError,
        match=r"stage allocate of round 1 has key .*, its settings and inputs give .*: it was made "
        "from something else",
    ):
        copy.verify()


def test_a_stage_that_was_made_from_other_inputs(copy):
    copy.change_marker("images", None, settings={"changed": True})
    with pytest.raises(IntegrityError, match="stage select of round 0 has key"):
        copy.verify()


def test_keys_of_an_earlier_revision_are_not_compared(copy):
    copy.change_config("budget", images_per_round=11)
    copy.change_marker("allocate", 1, revision=0)
    copy.change_marker("select", 1, revision=0)
    assert len(copy.verify()) == 5


@pytest.mark.parametrize(
    ("stage", "round_index", "where"),
    [
        ("index", None, "the pool"),
        ("select", 1, "round 1"),
        ("score", 1, "round 1"),
        ("allocate", 1, "round 1"),
    ],
)
def test_a_missing_stage_is_named(copy, stage, round_index, where):
    copy.pointer(stage, round_index).unlink()
    with pytest.raises(IntegrityError, match=f"stage {stage} of {where} is not finished"):
        copy.verify()


def test_a_run_that_is_not_finished_holds_as_far_as_it_goes(copy):
    copy.pointer("labels", 1).unlink()
    assert len(copy.verify()) == 3
    copy.pointer("metrics", 0).unlink()
    assert len(copy.verify()) == 3


def test_a_draw_that_looked_at_the_masks_is_not_replayed(copy):
    copy.change_config("oracle", skip_void=True)
    assert copy.verify()[2] == (
        "round 0: selection not replayed: it looks at the masks (oracle.skip_void)"
    )


def test_tables_are_compared_row_by_row():
    stored = pa.table({"a": [1, 2, 3], "b": [[1.0], [2.0], [3.0]]})
    compare(stored, stored.slice(0), "queries")
    compare(stored, pa.table({"a": pa.array([1, 2, 3], pa.int32()), "b": stored["b"]}), "queries")
    with pytest.raises(IntegrityError, match=r"^queries: 3 rows are stored, the replay gives 2$"):
        compare(stored, stored.slice(0, 2), "queries")
    other = pa.table({"a": [1, 2, 3], "b": [[1.0], [2.5], [3.5]]})
    with pytest.raises(
        IntegrityError, match=r"^queries: column b differs from the replay, first in row 1$"
    ):
        compare(stored, other, "queries")
