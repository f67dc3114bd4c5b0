"""What enters a stage's key, and what its marker, manifest and pointers promise."""

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from madbal_ray.config.schema import Config
from madbal_ray.errors import ConfigError, IntegrityError
from madbal_ray.state import stage_dir as stage_dir_module
from madbal_ray.state import tables
from madbal_ray.state.marker import FileRecord, Marker, canonical_json
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stage_dir import MARKER_NAME, StageDir, digests, table_path, total_of
from madbal_ray.state.stages import STAGES
from madbal_ray.state.storage import Folder

SETTINGS, INPUTS = {"b": [1, 2.5, None], "a": "x"}, {"score": "d1"}


def plan(folder, stage="allocate", settings=SETTINGS, inputs=INPUTS):
    return StageDir.plan(Folder(folder), stage, settings, inputs)


def rows(*cluster_ids):
    return tables.from_rows("cluster_budgets", [{"cluster_id": k} for k in cluster_ids])


def finished(folder, **summary):
    stage = plan(folder)
    stage.commit([stage.write_table("cluster_budgets", 0, rows(1, 0))], summary)
    return stage


class TestKey:
    def test_a_key_is_the_hash_of_all_that_a_result_depends_on(self, tmp_path, monkeypatch):
        monkeypatch.setitem(STAGES, "allocate", replace(STAGES["allocate"], revision=7))
        text = (
            '{"inputs":{"score":"d1"},"revision":7,"schema_version":2,'
            '"settings":{"a":"x","b":[1,2.5,null]},"stage":"allocate"}'
        )
        stage = plan(tmp_path)
        assert tables.SCHEMA_VERSION == 2
        assert stage.key == hashlib.sha256(text.encode()).hexdigest()[:12]
        assert stage.folder.uri == f"{tmp_path}/allocate/{stage.key}"

    @pytest.mark.parametrize(
        "change",
        [
            {"stage": "select"},
            {"settings": {**SETTINGS, "a": "y"}},
            {"settings": {"a": "x"}},
            {"inputs": {"score": "d2"}},
            {"inputs": {"scores": "d1"}},
            {"inputs": {}},
        ],
    )
    def test_each_part_counts_alone(self, tmp_path, change):
        assert plan(tmp_path, **change).key != plan(tmp_path).key

    def test_the_schema_version_counts(self, tmp_path, monkeypatch):
        before = plan(tmp_path).key
        monkeypatch.setattr(tables, "SCHEMA_VERSION", 3)
        assert plan(tmp_path).key != before

    def test_the_revision_counts_and_stands_in_the_marker(self, tmp_path, monkeypatch):
        before = plan(tmp_path).key
        assert finished(tmp_path).marker().revision == 1
        monkeypatch.setitem(STAGES, "allocate", replace(STAGES["allocate"], revision=2))
        assert plan(tmp_path).key != before
        assert finished(tmp_path).marker().revision == 2

    def test_a_marker_without_a_revision_keeps_its_digest(self, tmp_path):
        values = {"stage": "score", "key": "k", "settings": {}, "inputs": {}, "summary": {}}
        text = json.dumps({**values, "files": []}, sort_keys=True, separators=(",", ":"))
        older = Marker.from_json(text.encode())
        assert older.revision == 0
        assert older.digest == hashlib.sha256(text.encode()).hexdigest()
        assert "revision" not in json.loads(older.to_json())

    def test_a_stage_that_the_catalogue_does_not_know_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match=r"stage 'mine' is not in the catalogue"):
            plan(tmp_path, stage="mine")

    def test_the_order_of_settings_does_not_count(self, tmp_path):
        turned = {"a": "x", "b": [1, 2.5, None]}
        assert plan(tmp_path, settings=turned).key == plan(tmp_path).key
        assert plan(tmp_path, settings={**turned, "b": [2.5, 1, None]}).key != plan(tmp_path).key
        with pytest.raises(ValueError, match="JSON compliant"):
            canonical_json({"a": float("nan")})

    def test_inputs_are_named_by_the_digest_of_their_marker(self, tmp_path):
        one, other = finished(tmp_path / "a", who=1), finished(tmp_path / "b", who=2)
        assert digests(one) == {"allocate": one.marker().digest}
        assert one.marker().digest != other.marker().digest


class TestMarker:
    def test_a_marker_holds_what_was_promised(self, tmp_path):
        stage = plan(tmp_path)
        written = [
            stage.write_file("z.bin", b"abc"),
            stage.write_table("cluster_budgets", 7, rows(3)),
        ]
        stage.commit(written, {"seen": 4})
        found = json.loads(stage.folder.read(MARKER_NAME))
        assert (found["stage"], found["key"], found["summary"]) == (
            "allocate",
            stage.key,
            {"seen": 4},
        )
        assert (found["settings"], found["inputs"]) == (SETTINGS, INPUTS)
        table, plain = found["files"]  # by path
        assert (table["path"], table["rows"]) == ("cluster_budgets/00007.parquet", 1)
        assert plain == {
            "path": "z.bin",
            "rows": -1,
            "bytes": 3,
            "sha256": hashlib.sha256(b"abc").hexdigest(),
        }

    def test_every_field_of_a_marker_enters_its_digest(self):
        record = FileRecord("a", 1, 2, "f")
        base = Marker("s", "k", {"a": 1}, {"i": "d"}, (record,), {"n": 1})
        others = [
            Marker("t", "k", {"a": 1}, {"i": "d"}, (record,), {"n": 1}),
            Marker("s", "l", {"a": 1}, {"i": "d"}, (record,), {"n": 1}),
            Marker("s", "k", {"a": 2}, {"i": "d"}, (record,), {"n": 1}),
            Marker("s", "k", {"a": 1}, {"i": "e"}, (record,), {"n": 1}),
            Marker("s", "k", {"a": 1}, {"i": "d"}, (FileRecord("a", 1, 2, "g"),), {"n": 1}),
            Marker("s", "k", {"a": 1}, {"i": "d"}, (record,), {"n": 2}),
        ]
        assert len({marker.digest for marker in [base, *others]}) == 7
        assert Marker.from_json(base.to_json()).digest == base.digest

    def test_the_first_marker_stays_on_disk(self, tmp_path):
        stage = finished(tmp_path, who=1)
        first = stage.folder.read(MARKER_NAME)
        found = stage.commit([stage.write_table("cluster_budgets", 0, rows(5))], {"who": 2})
        assert stage.folder.read(MARKER_NAME) == first
        assert found.summary == {"who": 1}

    def test_of_two_that_commit_at_once_one_marker_stays(self, tmp_path, monkeypatch):
        stage = plan(tmp_path)
        written = [stage.write_file("a", b"x")]
        plain = Folder.exists

        def exists(folder, name):  # both look before either writes
            there = plain(folder, name)
            if name == MARKER_NAME and not there:
                meeting.wait(5)
            return there

        monkeypatch.setattr(Folder, "exists", exists)
        meeting = threading.Barrier(2)  # at `is_done`, and again in `write_first`
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda who: stage.commit(written, {"who": who}), (1, 2)))
        monkeypatch.undo()
        on_disk = Marker.from_json(stage.folder.read(MARKER_NAME))
        assert [marker.digest for marker in found] == [on_disk.digest] * 2
        assert not [path for path, _ in stage.folder.walk() if path.startswith("_tmp")]

    def test_one_vanished_file_of_several_is_enough(self, tmp_path):
        stage = plan(tmp_path)
        records = [stage.write_file(name, b"x") for name in ("a", "b", "c")]
        stage.folder.delete("b")
        with pytest.raises(IntegrityError, match=r"/b vanished before the commit"):
            stage.commit(records, {})
        assert not stage.is_done

    def test_the_marker_of_another_key_is_refused(self, tmp_path):
        one, other = finished(tmp_path), plan(tmp_path, settings={})
        other.folder.write(MARKER_NAME, one.folder.read(MARKER_NAME))
        with pytest.raises(IntegrityError, match=f"has key {one.key}, expected {other.key}"):
            other.marker()

    def test_a_file_of_another_key_is_not_adopted(self, tmp_path):
        stage = plan(tmp_path)
        path = table_path("cluster_budgets", 0)
        data = tables.encode("cluster_budgets", rows(1, 2, 3), key=stage.key)
        stage.folder.write(path, data)
        digest = hashlib.sha256(data).hexdigest()
        assert stage.adopt(path) == FileRecord(path, 3, len(data), digest)
        stage.folder.write(path, tables.encode("cluster_budgets", rows(1), key="0" * 12))
        assert stage.adopt(path) is None

    def test_only_shards_that_the_marker_names_are_read(self, tmp_path):
        stage = plan(tmp_path)
        records = [stage.write_table("cluster_budgets", i, rows(i)) for i in (2, 0)]
        stage.write_table("cluster_budgets", 1, rows(9))
        stage.commit(records, {"shards": {"0": {"n": 3}, "2": {"n": 4}}})
        assert stage.read_table("cluster_budgets")["cluster_id"].to_pylist() == [0, 2]
        assert stage.read_table("cluster_budgets", [2, 1])["cluster_id"].to_pylist() == [2]
        none = stage.read_table("cluster_budgets", [1], columns=["budget"])
        assert (none.num_rows, none.column_names) == (0, ["budget"])
        assert total_of(stage, "n") == 7

    def test_torn_lines_of_the_manifest_are_skipped_wherever_they_are(self, tmp_path):
        stage = plan(tmp_path)
        stage.folder.write("_manifest.jsonl", b'{"shard_id": 0}\n{"sha\n{"shard_id": 1}\n{"x"')
        assert [row["shard_id"] for row in stage.read_manifest()] == [0, 1]


class TestPointers:
    @pytest.fixture
    def run_dir(self, tmp_path):
        run_dir = RunDir(tmp_path / "run")
        run_dir.store_config(Config(num_rounds=3))
        return run_dir

    def test_pointers_lie_where_readers_look(self, run_dir, tmp_path):
        stage = finished(tmp_path / "pool")
        run_dir.point(stage, None)
        run_dir.point(stage, 12)
        for name in ("pool/allocate.json", "rounds/012/allocate/_CURRENT.json"):
            assert json.loads(run_dir.folder.read(name)) == {
                "folder": f"../pool/allocate/{stage.key}",
                "key": stage.key,
                "digest": stage.marker().digest,
            }
        assert run_dir.find("allocate", 12) == stage
        assert run_dir.find("allocate", 11) is None
        assert run_dir.round_folder(12).uri == f"{tmp_path}/run/rounds/012"
        assert run_dir.pool_folder(Config()).uri == f"{tmp_path}/pool"
        elsewhere = Config.model_validate({"pool": {"dir": str(tmp_path / "p")}})
        assert run_dir.pool_folder(elsewhere).uri == f"{tmp_path}/p"

    def test_another_key_is_refused_and_the_pointer_stays(self, run_dir, tmp_path):
        stage = finished(tmp_path / "pool")
        run_dir.point(stage, None)
        other = plan(tmp_path / "pool", settings={})
        other.commit([], {})
        with pytest.raises(ConfigError, match=f"key {stage.key} and would now be {other.key}"):
            run_dir.point(other, None)
        assert run_dir.find("allocate") == stage

    def test_a_marker_that_changed_after_it_was_pointed_to_is_refused(self, run_dir, tmp_path):
        stage = finished(tmp_path / "pool", who=1)
        run_dir.point(stage, None)
        stage.folder.delete(MARKER_NAME)
        stage_dir_module._markers.clear()  # as in another process
        stage.commit([], {"who": 2})
        with pytest.raises(IntegrityError, match="its marker is not the one that"):
            run_dir.find("allocate")

    def test_a_pointer_to_a_stage_that_is_gone_is_an_error(self, run_dir, tmp_path):
        stage = finished(tmp_path / "pool")
        run_dir.point(stage, None)
        stage.folder.delete(MARKER_NAME)
        stage_dir_module._markers.clear()
        with pytest.raises(IntegrityError, match="the stage is not finished"):
            run_dir.find("allocate")

    def test_markers_are_parsed_once_and_of_many_files_the_last_are_kept(
        self, tmp_path, monkeypatch
    ):
        stages = []
        for index in range(4):
            stage = plan(tmp_path / "pool", settings={"index": index})
            stage.commit([stage.write_file(name, b"1") for name in ("a", "b")], {"index": index})
            stages.append(stage)
        parsed, parse = [], stage_dir_module._parse_marker

        def noted(stage):
            parsed.append(stages.index(stage))
            return parse(stage)

        monkeypatch.setattr(stage_dir_module, "_parse_marker", noted)
        monkeypatch.setattr(stage_dir_module, "KEPT_FILES", 4)  # two of these markers
        stage_dir_module._markers.clear()
        for index in (0, 1, 0, 1, 2, 1, 2, 0, 3, 0, 3):
            assert stages[index].marker().summary == {"index": index}
        assert parsed == [0, 1, 2, 0, 3]

    @pytest.mark.parametrize(("has_phase2", "rounds"), [(False, 2), (True, 1)])
    def test_rounds_are_finished_up_to_the_first_gap(self, run_dir, tmp_path, has_phase2, rounds):
        def done(stage_name, round_index):
            stage = plan(run_dir.round_folder(round_index).uri, stage=stage_name)
            stage.commit([], {})
            run_dir.point(stage, round_index)

        for round_index in (0, 1):
            done("metrics", round_index)
        for round_index in (0, 2):
            done("phase2", round_index)
        found = run_dir.finished_rounds(run_dir.config(), has_phase2=has_phase2)
        assert found == rounds
