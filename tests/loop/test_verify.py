"""`madbal verify` finds each thing that can be changed in a finished run, and names it.

Every test changes one thing of a copy and mends all hashes above it, so that the check under test
is the one that fires.
"""

import contextlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import madbal_ray
from madbal_ray.engine.stages import StopRequested
from madbal_ray.errors import ConfigError, IntegrityError, LabelError
from madbal_ray.evaluation.metrics import summarize_confusion
from madbal_ray.loop.compare import compare
from madbal_ray.state import stage_dir
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.signature import check_signature, read_key, sign
from madbal_ray.state.stage_dir import MARKER_NAME
from tests.conftest import tiny_config
from tests.edited_runs import Copy


@pytest.fixture
def copy(tiny_run, tmp_path):
    return Copy(tiny_run.run_dir, tmp_path / "copy")


AS_STORED = "index, images, superpixels, superpixel_features, centroids, phase1, phase2, score"


def scenes(copy):
    (folder,) = (copy.path.parent / "pool/synthetic").iterdir()
    return f"synthetic/{folder.name}"


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
        f"data set: {copy.path.parent}/pool/{scenes(copy)} lists the files that were indexed",
        "round 0: 30 labels answer the queries; 30 pixels and 30 clicks in all",
        "round 0: selection replayed from the seed",
        "round 0: labels answered again",
        "round 0: mIoU follows from the confusion matrices",
        "round 1: 30 labels answer the queries; 60 pixels and 60 clicks in all",
        "round 1: selection replayed from the stored scores",
        "round 1: labels answered again",
        "round 1: mIoU follows from the confusion matrices",
        f"verified: 2 of 2 rounds; taken as stored: {AS_STORED}",
    ]


def test_a_run_without_its_images_holds_as_far_as_tables_go(copy):
    shutil.rmtree(copy.path.parent / "pool/synthetic")
    lines = copy.verify()
    assert lines[1].startswith("data set: not here, so nothing is read from it (no scenes are in ")
    assert "round 0: selection replayed from the seed" in lines
    assert lines[4] == "round 0: labels not answered again: the images are not here"
    assert lines[-1].startswith("verified: 2 of 2 rounds; taken as stored: index, images, ")
    assert "labels" in lines[-1]
    assert not (copy.path.parent / "pool/synthetic").exists()  # nothing is drawn anew


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
    copy.change_marker("images", None, inputs={"index": "0" * 64})
    with pytest.raises(IntegrityError, match=r"stage images of the pool has key .*\(inputs: index"):
        copy.verify()


def test_keys_of_an_earlier_revision_are_not_compared(copy):
    copy.change_config("budget", images_per_round=11)
    for stage in ("allocate", "select", "labels", "phase1", "metrics", "phase2"):
        copy.change_marker(stage, 1, revision=0)
    lines = copy.verify()
    assert len(lines) == 11
    assert lines[7] == "round 1: selection replayed from the stored scores"


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


def forget(copy, round_index, *stages):
    """Take a run back to before it finished some stages of a round."""
    for stage in stages:
        copy.pointer(stage, round_index).unlink()
    path = copy.path / "events.jsonl"
    lines = path.read_text().splitlines()
    wanted = [line for line in lines if json.loads(line)["event"] != "round_finished"]
    path.write_text("".join(f"{line}\n" for line in wanted))


TRAINED = ("phase1", "metrics", "phase2")


def test_a_run_that_is_not_finished_holds_as_far_as_it_goes(copy):
    forget(copy, 1, "phase2")
    assert copy.verify()[-1].startswith("verified as far as the run goes: 1 of 2 rounds; ")
    forget(copy, 1, "phase1", "metrics", "labels")
    lines = copy.verify()
    assert lines[-2] == "round 1: selection replayed from the stored scores"
    assert lines[-1].startswith("verified as far as the run goes: 1 of 2 rounds; ")


@pytest.mark.parametrize(
    ("stages", "found"),
    [
        (["labels"], "stage labels of round 1 is not finished, but metrics of round 1 is there"),
        (["phase1"], "stage phase1 of round 1 is not finished, but metrics of round 1 is there"),
        (["metrics"], "stage metrics of round 1 is not finished, but phase2 of round 1 is there"),
        (["phase2"], "stage phase2 of round 1 is not finished, but its events say that round 1"),
        (["score", "allocate", "select", "labels", *TRAINED], "events say that round 1 was finish"),
    ],
)
def test_what_was_removed_from_the_last_round_is_missed(copy, stages, found):
    for stage in stages:
        copy.pointer(stage, 1).unlink()
    with pytest.raises(IntegrityError, match=found):
        copy.verify()


@pytest.mark.parametrize(
    ("section", "values", "found"),
    [
        ("", {"seed": 1}, "stage select of round 0 has key .*settings: seed"),
        ("", {"num_rounds": 1}, "asks for no such stage, but allocate of round 1 is there"),
        (
            "train.phase1",
            {"learning_rate": 0.5},
            "stage phase1 of round 0 has key .*settings: train",
        ),
        ("strategy", {"name": "averaging"}, "stage score of round 1 has key|stage phase2 of round"),
        ("strategy", {"name": "random"}, "stage select of round 1 has key"),
        ("budget", {"pixels_per_image": 6}, "stage score of round 1 has key .*settings: budget"),
        ("grids", {"working": [24, 32]}, "stage images of the pool has key"),
        ("superpixels", {"pixels": 65}, "stage superpixels of the pool has key"),
        ("clustering", {"seed": 3}, "stage centroids of the pool has key"),
        ("pool", {"shard_images": 4}, "stage index of the pool has key .*settings: pool"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_configuration_that_leads_elsewhere(copy, section, values, found):
    copy.change_config(section, **values)
    with pytest.raises(IntegrityError, match=found):
        copy.verify()


def test_more_rounds_than_there_are_is_no_whole_run(copy):
    copy.change_config("", num_rounds=3)
    assert copy.verify()[-1].startswith("verified as far as the run goes: 2 of 3 rounds; ")


def test_forged_labels_are_asked_again(copy):
    def change(rows):
        rows[3]["class_id"] = (rows[3]["class_id"] + 1) % 9

    copy.change_table("labels", 1, "labels", change, shard=2)
    with pytest.raises(
        IntegrityError, match=r"round 1, shard 2: labels: column class_id differs .* row 3"
    ):
        copy.verify()


def flip_a_weight(data):
    changed = bytearray(data)
    changed[-2] ^= 0x7F  # of the last float: not its last bits
    return bytes(changed)


def test_forged_weights_are_not_those_that_scored(copy):
    copy.change_file("phase1", 0, "phase1.safetensors", flip_a_weight)
    with pytest.raises(IntegrityError, match=r"stage score of round 1 .*inputs: phase1\)"):
        copy.verify()


def test_a_forged_miou_does_not_follow_from_the_confusion_matrix(copy):
    def change(rows):
        rows[0]["miou"] += 0.1

    copy.change_table("metrics", 1, "metrics", change)
    with pytest.raises(IntegrityError, match="round 1, metrics: metrics: column miou differs"):
        copy.verify()


def test_measurements_that_are_missing(copy):
    copy.change_table("metrics", 1, "metrics", lambda rows: rows[:0] or [rows[0] | {"split": "v"}])
    copy.change_table(
        "metrics", 1, "confusion", lambda rows: [row | {"split": "v"} for row in rows]
    )
    with pytest.raises(IntegrityError, match=r"measured were {\('v', 'last'\): 3} .*'val'"):
        copy.verify()


def test_a_confusion_matrix_with_a_class_twice(copy):
    def change(rows):
        rows[2]["class_id"] = 3

    copy.change_table("metrics", 0, "confusion", change)
    with pytest.raises(IntegrityError, match=r"rows of classes \[0, 1, 3, 3, 4, .* in each"):
        copy.verify()


def test_a_marker_that_says_more_than_its_stage(copy):
    copy.change_marker("metrics", 0, summary={"more": 1})
    with pytest.raises(IntegrityError, match="its marker says more than the stage does"):
        copy.verify()


def test_tables_that_nothing_can_be_computed_from(copy):
    def change(rows):
        rows[1]["epoch"] += 1

    copy.change_table("metrics", 0, "confusion", change)
    with pytest.raises(IntegrityError, match="what is stored does not fit together"):
        copy.verify()


def test_a_marker_that_leaves_a_shard_out(copy):
    path = copy.folder("score", 1) / MARKER_NAME
    files = [one for one in json.loads(path.read_text())["files"] if "00002" not in one["path"]]
    copy.change_marker("score", 1, files=files)
    with pytest.raises(
        IntegrityError, match=r"round 1, score: .* cluster_statistics/00002.parquet is missing"
    ):
        copy.verify()


def test_counts_that_the_tables_do_not_give(copy):
    path = copy.folder("labels", 1) / MARKER_NAME
    summary = json.loads(path.read_text())["summary"]
    summary["shards"]["1"]["void"] += 1
    copy.change_marker("labels", 1, summary=summary)
    with pytest.raises(IntegrityError, match=r"round 1, labels: the marker counts .* in shard 1"):
        copy.verify()


def test_a_stop_that_no_rule_gave(copy):
    (copy.path / "stopped.json").write_text('{"round": 1, "reason": "enough"}')
    with pytest.raises(IntegrityError, match=r"stopped.json says .*enough.* give no stop"):
        copy.verify()


def test_deep_runs_the_networks_again(copy):
    lines = copy.verify(deep=True)
    assert sum("computed again, equal to the bit" in line for line in lines) == 3
    assert lines[-2].startswith("round 1: score: shards ")
    assert (
        "round 1: mIoU follows from the confusion matrices; measured again from the weights: equal "
        "to the bit" in lines
    )


def test_deep_finds_matrices_that_the_weights_do_not_give(copy):
    """The forgery is whole: metrics follow from it, and all hashes are mended."""

    def move(rows):
        for row in rows:
            row["counts"] = row["counts"][::-1]

    copy.change_table("metrics", 1, "confusion", move)
    stage = copy.folder("metrics", 1)
    confusion = pq.read_table(stage / "confusion/00000.parquet")
    counts = np.array(confusion["counts"].to_pylist())
    measured = summarize_confusion(counts)

    def follow(rows):
        rows[0].update(
            miou=measured.miou,
            pixel_accuracy=measured.pixel_accuracy,
            class_iou=[None if np.isnan(one) else one for one in measured.class_iou.tolist()],
        )

    copy.change_table("metrics", 1, "metrics", follow)
    assert copy.verify()[-1].startswith("verified: 2 of 2 rounds")
    with pytest.raises(IntegrityError, match=r"round 1, metrics: the weights class .*% of the pix"):
        copy.verify(deep=True)


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """A run that drew where masks know a class, and was stopped before its answers."""
    folder = tmp_path_factory.mktemp("masked")
    config = tiny_config(oracle__skip_void=True)
    with contextlib.suppress(StopRequested):
        madbal_ray.run(config, run_dir=folder / "run", engine="local", stop_after=("select", 0))
    return madbal_ray.open_run(folder / "run")


def test_a_draw_that_looked_at_the_masks_is_replayed_with_them_and_not_without(masked, tmp_path):
    copy = Copy(masked.run_dir, tmp_path / "copy")
    lines = copy.verify()
    assert lines[2] == "round 0: selection replayed from the seed"
    assert lines[-1].startswith("verified as far as the run goes: 0 of 2 rounds")
    shutil.rmtree(copy.path.parent / "pool/synthetic")
    assert copy.verify()[2] == "round 0: selection not replayed: the images are not here"


def test_a_signed_run_is_what_was_signed(copy, tmp_path):
    key = b"0123456789abcdef"
    with pytest.raises(IntegrityError, match="is not signed: `madbal run` signs with --key-file"):
        copy.verify(key=key)
    sign(RunDir(copy.path), key, 2)
    assert copy.verify(key=key)[1] == (
        "signature: the pool and the first 2 rounds are those that were signed"
    )
    with pytest.raises(IntegrityError, match="was not written with this key"):
        copy.verify(key=key[::-1])
    path = copy.path / "signature.json"
    signed = path.read_text()
    path.write_text(signed.replace('"rounds":2', '"rounds":1'))
    with pytest.raises(IntegrityError, match="was not written with this key, or was changed"):
        copy.verify(key=key)
    path.write_text(signed)


def test_a_signature_closes_what_nothing_else_depends_on(copy):
    """The last round's phase II: forged with its hashes mended, only a key tells."""
    key = b"0123456789abcdef"
    sign(RunDir(copy.path), key, 2)
    stage_dir._markers.clear()  # another process edits
    copy.change_file("phase2", 1, "phase2.safetensors", flip_a_weight)
    assert copy.verify()[-1].startswith("verified: 2 of 2 rounds")
    with pytest.raises(IntegrityError, match="one of the first 2 rounds are not those"):
        copy.verify(key=key)


def test_a_signature_knows_settings_and_removed_rounds(copy):
    key = b"0123456789abcdef"
    sign(RunDir(copy.path), key, 1)
    assert check_signature(RunDir(copy.path), key) == 1
    copy.change_config("", num_rounds=9)  # it may grow
    assert check_signature(RunDir(copy.path), key) == 1
    copy.pointer("phase2", 1).unlink()  # not signed yet
    assert check_signature(RunDir(copy.path), key) == 1
    copy.change_config("strategy", balance_exponent=3.0)
    with pytest.raises(IntegrityError, match="are not those that were signed"):
        check_signature(RunDir(copy.path), key)


def test_a_key_is_a_file_with_a_secret(tmp_path):
    (tmp_path / "key").write_bytes(b"  0123456789abcdef\n")
    assert read_key(tmp_path / "key") == b"0123456789abcdef"
    (tmp_path / "short").write_bytes(b"0123456789abcde\n")
    with pytest.raises(ConfigError, match="holds 15 bytes, expected at least 16"):
        read_key(tmp_path / "short")
    with pytest.raises(ConfigError, match=r"--key-file .*none: cannot be read \(No such file"):
        read_key(tmp_path / "none")


def test_tables_are_compared_row_by_row():
    stored = pa.table({"a": [1, 2, 3], "b": [[1.0], [2.0], [3.0]]})
    compare(stored, stored.slice(0), "queries")
    compare(stored, pa.table({"a": pa.array([1, 2, 3], pa.int32()), "b": stored["b"]}), "queries")
    unknown = pa.table({"a": [float("nan")]})
    compare(unknown, pa.table({"a": [float("nan")]}), "queries")
    with pytest.raises(IntegrityError, match=r"^queries: column a differs"):
        compare(unknown, pa.table({"a": [0.5]}), "queries")
    with pytest.raises(IntegrityError, match=r"^queries: 3 rows are stored, the replay gives 2$"):
        compare(stored, stored.slice(0, 2), "queries")
    other = pa.table({"a": [1, 2, 3], "b": [[1.0], [2.5], [3.5]]})
    with pytest.raises(
        IntegrityError, match=r"^queries: column b differs from the replay, first in row 1$"
    ):
        compare(stored, other, "queries")
