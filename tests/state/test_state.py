"""Folders, tables, markers, pointers, locks: state that survives a crash."""

import json
import multiprocessing
import os
import signal

import numpy as np
import pyarrow as pa
import pytest

from madbal_ray.config.file import load_config
from madbal_ray.config.schema import Config
from madbal_ray.errors import ConfigError, IntegrityError, LockedError, RunDirError
from madbal_ray.state import tables
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stage_dir import MARKER_NAME, StageDir, table_path
from madbal_ray.state.storage import Folder


def budgets(round_index=0):
    rows = [
        {
            "round": round_index,
            "cluster_id": k,
            "num_superpixels": 5,
            "score": 0.5,
            "share": 0.5,
            "budget": 2,
            "class_share": [0.25, 0.75],
        }
        for k in (1, 0)
    ]
    return tables.from_rows("cluster_budgets", rows)


def plan(tmp_path, **settings):
    return StageDir.plan(Folder(tmp_path), "allocate", settings, {})


class TestFolder:
    def test_write_is_whole_and_leaves_no_temporary(self, tmp_path):
        folder = Folder(tmp_path)
        folder.write("a/b.bin", b"old")
        folder.write("a/b.bin", b"new")
        assert folder.read("a/b.bin") == b"new"
        assert [path for path, _ in folder.walk()] == ["a/b.bin"]

    def test_failed_write_keeps_the_old_content_and_says_what_to_do(self, tmp_path, monkeypatch):
        folder = Folder(tmp_path)
        folder.write("x", b"old")

        def no_space(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", no_space)
        with pytest.raises(RunDirError, match=r"No space left on device\); free space"):
            folder.write("x", b"new")
        assert folder.read("x") == b"old"
        assert [path for path, _ in folder.walk()] == ["x"]

    def test_a_torn_line_does_not_swallow_the_next(self, tmp_path):
        folder = Folder(tmp_path)
        (tmp_path / "log").write_bytes(b'{"a": 1}\n{"b"')
        folder.append_line("log", '{"c": 2}')
        assert folder.read("log").decode().splitlines() == ['{"a": 1}', '{"b"', '{"c": 2}']


class TestTables:
    def test_same_rows_give_same_bytes_in_key_order(self):
        first = tables.encode("cluster_budgets", budgets(), key="k")
        assert first == tables.encode("cluster_budgets", budgets().take([1, 0]), key="k")
        back = tables.decode("cluster_budgets", pa.BufferReader(first))
        assert back["cluster_id"].to_pylist() == [0, 1]
        assert back.schema.equals(tables.schema("cluster_budgets"))

    def test_pandas_opens_a_table_folder(self, tmp_path):
        import pandas as pd

        stage = plan(tmp_path)
        stage.commit([stage.write_table("cluster_budgets", 0, budgets())], {})
        frame = pd.read_parquet(stage.folder.local_path / "cluster_budgets")
        assert frame["budget"].sum() == 4

    def test_newer_versions_and_other_tables_are_refused(self, monkeypatch):
        data = tables.encode("cluster_budgets", budgets(), key="k")
        with pytest.raises(IntegrityError, match="expected a file of table 'queries'"):
            tables.decode("queries", pa.BufferReader(data))
        monkeypatch.setattr(tables, "SCHEMA_VERSION", 0)
        with pytest.raises(IntegrityError, match="install a newer"):
            tables.decode("cluster_budgets", pa.BufferReader(data))

    def test_columns_an_older_file_lacks_are_null(self):
        import pyarrow.parquet as pq

        old = (
            budgets()
            .drop_columns(["share"])
            .replace_schema_metadata(
                {"madbal.table": "cluster_budgets", "madbal.schema_version": "1"}
            )
        )
        sink = pa.BufferOutputStream()
        pq.write_table(old, sink)
        back = tables.decode("cluster_budgets", pa.BufferReader(sink.getvalue()))
        assert back["share"].null_count == 2

    @pytest.mark.parametrize("name", list(tables.SCHEMAS))
    def test_every_table_round_trips_empty(self, name):
        data = tables.encode(name, tables.empty(name), key="k")
        assert tables.decode(name, pa.BufferReader(data)).num_rows == 0

    def test_feature_arrays_round_trip(self):
        features = np.arange(6, dtype=np.float16).reshape(3, 2)
        table = tables.from_columns(
            "superpixel_features",
            {"image_id": ["a"] * 3, "superpixel_id": [0, 1, 2], "feature": features},
        )
        data = tables.encode("superpixel_features", table, key="k")
        back = tables.decode("superpixel_features", pa.BufferReader(data))
        assert back["feature"].to_pylist() == features.tolist()


class TestStageDir:
    def test_key_depends_on_settings_and_inputs_only(self, tmp_path):
        assert plan(tmp_path, a=1).key == plan(tmp_path / "elsewhere", a=1).key
        assert plan(tmp_path, a=1).key != plan(tmp_path, a=2).key
        with_input = StageDir.plan(Folder(tmp_path), "allocate", {"a": 1}, {"score": "x"})
        assert with_input.key != plan(tmp_path, a=1).key

    def test_readers_need_the_marker_and_the_first_marker_wins(self, tmp_path):
        stage = plan(tmp_path)
        record = stage.write_table("cluster_budgets", 0, budgets())
        with pytest.raises(IntegrityError, match="not finished"):
            stage.read_table("cluster_budgets")
        first = stage.commit([record], {"who": 1})
        assert stage.commit([record], {"who": 2}) == first
        assert stage.read_table("cluster_budgets").num_rows == 2

    def test_a_marker_never_promises_a_missing_file(self, tmp_path):
        stage = plan(tmp_path)
        record = stage.write_table("cluster_budgets", 0, budgets())
        stage.folder.delete(record.path)
        with pytest.raises(IntegrityError, match="vanished"):
            stage.commit([record], {})
        assert not stage.is_done

    def test_verify_names_the_changed_and_the_missing_file(self, tmp_path):
        stage = plan(tmp_path)
        stage.commit([stage.write_table("cluster_budgets", 0, budgets())], {})
        assert stage.verify_files() is None
        path = stage.folder.local_path / table_path("cluster_budgets", 0)
        path.write_bytes(path.read_bytes() + b"x")
        assert "sha256" in str(stage.verify_files())
        path.unlink()
        assert "is missing" in str(stage.verify_files())

    def test_whole_files_are_adopted_and_torn_or_foreign_ones_are_not(self, tmp_path):
        stage = plan(tmp_path)
        path = table_path("cluster_budgets", 0)
        assert stage.adopt(path) is None
        record = stage.write_table("cluster_budgets", 0, budgets())
        assert stage.adopt(path) == record
        whole = stage.folder.read(path)
        stage.folder.write(path, whole[:-7])
        assert stage.adopt(path) is None
        stage.folder.write(path, tables.encode("cluster_budgets", budgets(), key="other"))
        assert stage.adopt(path) is None

    def test_a_torn_manifest_line_is_skipped(self, tmp_path):
        stage = plan(tmp_path)
        stage.append_manifest({"shard_id": 0})
        with open(stage.folder.local_path / "_manifest.jsonl", "ab") as handle:
            handle.write(b'{"shard_id": 1, "fi')
        stage.append_manifest({"shard_id": 2})
        assert [row["shard_id"] for row in stage.read_manifest()] == [0, 2]

    def test_a_page_that_was_damaged_after_it_was_hashed_is_named(self, tmp_path):
        stage = plan(tmp_path)
        stage.commit([stage.write_table("cluster_budgets", 0, budgets())], {})
        assert stage.read_table("cluster_budgets").num_rows == 2
        path = tmp_path / stage.folder.uri / table_path("cluster_budgets", 0)
        content = bytearray(path.read_bytes())
        content[4:60] = bytes(56)  # the first column's page, behind the magic number
        path.write_bytes(content)
        # Arrow says so by an OSError, which is no disk's that could be read from again.
        with pytest.raises(IntegrityError, match=r"cluster_budgets/00000\.parquet is damaged \("):
            stage.read_table("cluster_budgets")

    def test_a_damaged_marker_is_named(self, tmp_path):
        stage = plan(tmp_path)
        stage.folder.write(MARKER_NAME, b"{not json")
        with pytest.raises(IntegrityError, match="damaged"):
            stage.marker()


class TestRunDir:
    def test_resume_refuses_changed_results_and_lists_them(self, tmp_path):
        run_dir = RunDir(tmp_path / "run")
        run_dir.store_config(load_config({"num_rounds": 5, "seed": 9}))
        run_dir.store_config(load_config({"num_rounds": 2}))  # nothing was made: it may be mended
        index = StageDir.plan(Folder(tmp_path / "pool"), "index", {}, {})
        index.commit([], {})
        run_dir.point(index, None)
        run_dir.store_config(load_config({"num_rounds": 3, "resources": {"scoring_workers": 2}}))
        assert run_dir.config().num_rounds == 3
        with pytest.raises(ConfigError) as caught:
            run_dir.store_config(
                load_config({"num_rounds": 2, "seed": 5, "train": {"phase1": {"epochs": 1}}})
            )
        text = str(caught.value)
        assert "seed: 0 -> 5" in text
        assert "train.phase1.epochs: 150 -> 1" in text
        assert "num_rounds: 3 -> 2 (it may only grow)" in text

    def test_stored_configuration_repeats_the_run(self, tmp_path):
        config = load_config({"seed": 3, "grids": {"working": {"long_side": 64}}})
        run_dir = RunDir(tmp_path)
        run_dir.store_config(config)
        assert load_config(tmp_path / "config.json") == config
        assert run_dir.config() == config

    def test_pointer_survives_moving_run_and_pool_together(self, tmp_path):
        run_dir = RunDir(tmp_path / "a" / "run")
        run_dir.store_config(Config())
        stage = plan(tmp_path / "a" / "pool")
        stage.commit([stage.write_table("cluster_budgets", 0, budgets())], {})
        run_dir.point(stage, None)
        (tmp_path / "a").rename(tmp_path / "b")
        moved = RunDir(tmp_path / "b" / "run").find("allocate")
        assert moved is not None
        assert moved.read_table("cluster_budgets").num_rows == 2

    def test_changed_inputs_are_refused_at_resume(self, tmp_path):
        run_dir = RunDir(tmp_path / "run")
        run_dir.store_config(Config())
        for settings, is_first in (({"a": 1}, True), ({"a": 2}, False)):
            stage = plan(tmp_path / "pool", **settings)
            stage.commit([stage.write_table("cluster_budgets", 0, budgets())], {})
            if is_first:
                run_dir.point(stage, 1)
            else:
                with pytest.raises(ConfigError, match="have changed since the run was started"):
                    run_dir.point(stage, 1)

    def test_no_run_here_is_a_sentence(self, tmp_path):
        with pytest.raises(RunDirError, match="is not a run folder"):
            RunDir(tmp_path).config()

    def test_lock_names_its_holder_and_dies_with_it(self, tmp_path):
        context = multiprocessing.get_context("spawn")
        is_held = context.Event()
        other = context.Process(target=hold, args=(str(tmp_path), is_held))
        other.start()
        assert is_held.wait(60)
        run_dir = RunDir(tmp_path)
        with pytest.raises(LockedError, match=f"held by process {other.pid}"), run_dir.lock():
            pass
        holder = run_dir.holder()
        assert holder is not None
        assert holder["pid"] == other.pid
        os.kill(other.pid, signal.SIGKILL)
        other.join()
        with run_dir.lock():
            assert json.loads((tmp_path / "_owner.json").read_text())["pid"] == os.getpid()
        assert run_dir.holder() is None


def hold(path, is_held):
    with RunDir(path).lock():
        is_held.set()
        signal.pause()
