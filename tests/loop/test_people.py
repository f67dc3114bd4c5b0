"""Oracle `people`: a run on pictures without masks waits, carries on, and learns what was said."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

import madbal_ray
from madbal_ray import api
from madbal_ray.cli import main
from madbal_ray.config.file import load_config
from madbal_ray.errors import AnswersPending, ConfigError, LabelError
from madbal_ray.labels.answer_rows import NewAnswer
from madbal_ray.labels.answer_store import AnswerStore
from tests.conftest import tiny_config
from tests.people import answer_waiting, people_config, picture_folder, truth


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return picture_folder(tmp_path_factory.mktemp("pictures"))


def run(config, folder, **launching):
    return madbal_ray.run(config, run_dir=folder, engine="local", **launching)


def store_of(folder):
    return AnswerStore.open(str(folder / "answers.sqlite"))


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    """A run of two rounds that people answered; do not change it."""
    folder = tmp_path_factory.mktemp("people") / "run"
    root, masks, names = pictures
    for round_index in range(2):
        with pytest.raises(AnswersPending) as waited:
            run(people_config(root), folder)
        assert waited.value.count == 30
        assert f"round {round_index}: 0 of 30 pixels are answered" in str(waited.value)
        assert answer_waiting(folder, masks, names) == 30
    return run(people_config(root), folder)


def test_the_command_waits_with_exit_code_3_and_one_line(pictures, tmp_path):
    root, masks, names = pictures
    path = tmp_path / "people.json"
    path.write_text(json.dumps(people_config(root, num_rounds=1)))
    command = ["run", str(path), "--run-dir", str(tmp_path / "run"), "--engine", "local"]
    waited = CliRunner().invoke(main, command)
    assert waited.exit_code == 3
    (line,) = [row for row in waited.output.splitlines() if "waiting for" in row]
    assert line.startswith("waiting for 30 answers: round 0: 0 of 30 pixels are answered.")
    assert f"madbal requests export {tmp_path / 'run'} --format csv" in line
    answer_waiting(tmp_path / "run", masks, names, most=12)
    status = CliRunner().invoke(main, ["status", str(tmp_path / "run")]).output
    assert "people   round 0: 12 of 30 answered, 18 waiting" in status
    assert "         ada: answered 12, waiting 18, 24 s, median 2.0 s a click" in status
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 3
    assert "waiting for 18 answers" in again.output
    answer_waiting(tmp_path / "run", masks, names, by="bob")
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert "labels: 30 in round 0; nothing was measured, for want of masks" in done.output


def test_labels_are_what_people_said(finished, pictures):
    _, masks, names = pictures
    labels = finished.table("labels").to_pandas()
    assert labels.groupby("round").size().tolist() == [30, 30]
    for row in labels.to_dict("records"):
        value = masks[row["image_id"]][row["image_y"], row["image_x"]]
        if value == 255:
            assert (np.isnan(row["class_id"]), row["status"]) == (True, "void")
        else:
            assert (row["class_id"], row["status"]) == (value, "labelled")
    assert set(labels["oracle"]) == {"people"}
    assert set(labels["annotator"]) == {"ada"}
    assert set(labels["seconds"]) == {2.0}
    assert set(labels["revision"]) == {1}
    assert finished.class_names == names
    assert finished.colors[0] == (70, 130, 180)
    marker = finished.stage("answers", 1).marker().summary
    assert marker == {"round": 1, "asked": 30, "answered": 30, "share": 1.0}


def test_a_run_of_people_verifies_and_stays_its_own(finished):
    lines = list(api.verify(finished.run_dir.folder.uri))
    assert "round 1: 30 labels answer the queries; 60 pixels and 60 clicks in all" in lines
    assert finished.stage("labels", 0).folder.uri.startswith(str(finished.run_dir))
    assert finished.minutes_of_people() == {0: 1.0, 1: 2.0}


def test_the_same_run_with_masks_asks_and_learns_the_same(finished, pictures, tmp_path):
    """People who answer as the masks say give the labels and weights that the masks give."""
    from PIL import Image

    root, masks, _ = pictures
    shutil.copytree(root, tmp_path / "masked")
    for name, mask in masks.items():
        target = tmp_path / "masked" / name.replace("images/", "masks/", 1)
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(mask).save(target.with_suffix(".png"))
    config = people_config(tmp_path / "masked") | {"oracle": "simulated"}
    masked = run(config, tmp_path / "run")
    columns = ["image_id", "y", "x", "class_id", "status"]
    assert masked.table("labels").select(columns) == finished.table("labels").select(columns)


def test_a_share_is_enough_and_what_comes_later_enters_the_next_round(pictures, tmp_path):
    root, masks, names = pictures
    folder, config = tmp_path / "run", people_config(root)
    share = ["oracle.share=0.5"]
    with pytest.raises(AnswersPending, match="15 are enough") as waited:
        run(config, folder, overrides=share)
    assert waited.value.count == 15
    answer_waiting(folder, masks, names, most=16)
    with pytest.raises(AnswersPending, match="round 1: 0 of 30"):
        run(config, folder, overrides=share)
    opened = madbal_ray.open_run(folder)
    assert opened.stage("answers", 0).marker().summary["share"] == 0.5
    assert opened.stage("answers", 0).marker().summary["answered"] == 16
    first = opened.table("labels", 0).to_pandas()
    assert (first["status"] == "waiting").sum() == 14
    asked = opened.table("queries").to_pandas()
    assert not asked.duplicated(["image_id", "y", "x"]).any()
    with store_of(folder) as store:  # one changes their mind, one takes an answer back
        changed, undone = [answer.query_id for answer in store.answers()][:2]
        where = {query.query_id: query for query in store.queries()}
        other = names[1] if truth(where[changed], masks, names)[1] == names[0] else names[0]
        store.append(
            [
                NewAnswer(query_id=changed, annotator="ada", status="labelled", class_name=other,
                          milliseconds=500, source="test"),
                NewAnswer(query_id=undone, annotator="ada", status="undone", source="test"),
            ]
        )  # fmt: skip
        waits = [query for query in store.queries(0) if not store.states()[query.query_id].votes]
    assert len(waits) == 14
    answer_waiting(folder, masks, names, most=10)  # of round 0: the undone one is among them
    with pytest.raises(AnswersPending, match="round 1: 0 of 30"):
        run(config, folder, overrides=share)
    with store_of(folder) as store:
        states = store.states()
        late = sum(states[query.query_id].settled is not None for query in waits)
        own = store.queries(1)[:20]
        store.append(
            [
                NewAnswer(query_id=query.query_id, annotator="ada", status="unsure", source="test")
                for query in own
            ]
        )
    done = run(config, folder, overrides=share)
    second = done.table("labels", 1).to_pandas()
    came_late = second[second["round"] == 0]
    is_undone_again = states[undone].settled is not None
    assert len(came_late) == late + 1  # the undone one was answered again, with the same class
    assert is_undone_again
    row = came_late[came_late["num_pixels"] == 0].iloc[0]
    assert (names[int(row["class_id"])], row["revision"]) == (other, 2)
    assert row["seconds"] == pytest.approx(0.5)
    own_rows = second[second["round"] == 1]
    assert own_rows["status"].value_counts().to_dict() == {"unsure": 20, "waiting": 10}
    lines = list(api.verify(folder))
    paid = 16 + late + 20
    assert any(f"; {paid} pixels and {paid + 1} clicks in all" in line for line in lines)
    assert done.table("labels", 1).num_rows == 30 + late + 1


def test_a_crash_after_the_freeze_learns_from_the_same_answers(pictures, tmp_path):
    root, masks, names = pictures
    folder, config = tmp_path / "run", people_config(root, num_rounds=1)
    with pytest.raises(AnswersPending):
        run(config, folder)
    answer_waiting(folder, masks, names)
    from madbal_ray.engine.stages import StopRequested

    with pytest.raises(StopRequested):
        run(config, folder, stop_after=("answers", 0))
    with store_of(folder) as store:
        query = store.queries()[0]
        store.append(
            [NewAnswer(query_id=query.query_id, annotator="ada", status="void", source="test")]
        )
    done = run(config, folder)
    labels = done.table("labels", 0).to_pandas()
    row = labels[
        (labels["image_id"] == query.image_id) & (labels["y"] == query.y) & (labels["x"] == query.x)
    ]
    assert row["status"].tolist() == ["labelled"]


def test_nobody_knows_anything_is_told_in_a_sentence(pictures, tmp_path):
    root, *_ = pictures
    folder, config = tmp_path / "run", people_config(root, num_rounds=1)
    with pytest.raises(AnswersPending):
        run(config, folder)
    with store_of(folder) as store:
        store.append(
            [
                NewAnswer(query_id=query.query_id, annotator="ada", status="skipped", source="test")
                for query in store.queries()
            ]
        )
    with pytest.raises(LabelError, match="every answer was void, skipped or unsure"):
        run(config, folder)


def test_classes_that_change_under_way_are_refused(pictures, tmp_path):
    root, _, names = pictures
    shutil.copytree(root, tmp_path / "pictures")
    folder, config = tmp_path / "run", people_config(tmp_path / "pictures", num_rounds=1)
    with pytest.raises(AnswersPending):
        run(config, folder)
    listed = tmp_path / "pictures" / "classes.yaml"
    listed.write_text(listed.read_text().replace(names[1], "dragon"))
    with pytest.raises(LabelError, match="dragon"):
        run(config, folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"oracle": {"kind": "people", "skip_void": True}}, "oracle.skip_void looks at masks"),
        ({"oracle": {"kind": "people", "noise": {"share": 0.1}}}, "oracle.noise is for simulated"),
        ({"budget": {"initial_pixels_per_image": "all"}, "num_rounds": 1}, "not whole images"),
        ({"strategy": "core_set"}, "strategy core_set asks for whole images"),
        ({"oracle": {"kind": "simulated", "share": 0.5}}, "oracle.share and oracle.store are for"),
        ({"oracle": {"kind": "people", "share": 0}}, "oracle.share"),
    ],
)
def test_what_people_cannot_be_asked_is_refused_at_the_start(changes, message):
    with pytest.raises(ConfigError, match=message):
        load_config(tiny_config() | {"oracle": "people"} | changes)


def test_a_store_on_an_object_store_is_refused(pictures, tmp_path):
    root, *_ = pictures
    with pytest.raises(madbal_ray.errors.RunDirError, match=r"object store.*oracle.store=/a/local"):
        run(people_config(root), tmp_path / "run", overrides=["oracle.store=s3://bucket/a.sqlite"])


def test_the_experiment_file_is_ready_for_a_folder(pictures):
    root, *_ = pictures
    config = load_config("experiments/people-cpu.yaml", [f"data.root={root}"])
    assert (config.oracle.kind, config.model.weights) == ("people", "none")
    assert np.prod(config.grids.input.long_side) == 480


def test_points_of_a_held_out_split_measure_a_run_without_masks(tmp_path):
    root, masks, names = picture_folder(tmp_path, splits=True)
    config = people_config(root, num_rounds=1, evaluation={"points": 200})
    folder = tmp_path / "run"
    with pytest.raises(AnswersPending, match="round 0: 0 of 30"):
        run(config, folder)
    with store_of(folder) as store:
        points = store.queries(-1)
        assert len(store.queries()) == 230
    assert {point.purpose for point in points} == {"evaluation"}
    assert {point.image_id.split("/")[1] for point in points} == {"val"}
    assert len({(point.image_id, point.y, point.x) for point in points}) == 200
    answer_waiting(folder, masks, names)
    done = run(config, folder)
    assert done.table("labels").num_rows == 30
    (row,) = done.metrics().to_dict("records")
    assert row["split"] == "val_points"
    found = done.point_metrics().set_index("measure")
    assert found.loc["miou", "value"] == pytest.approx(row["miou"])
    assert found.loc["pixel_accuracy", "value"] == pytest.approx(row["pixel_accuracy"])
    assert (found["low"].dropna() <= found["value"].dropna()).all()
    labelled = sum(truth(point, masks, names)[0] == "labelled" for point in points)
    assert found.loc["miou", "num_points"] == labelled
    assert len(list(api.verify(folder))) == 7
    assert CliRunner().invoke(main, ["report", str(folder)]).exit_code == 0
    page = (folder / "report" / "index.html").read_text()
    assert "Measured on points" in page


def test_points_of_the_pool_are_never_asked_nor_trained_on(pictures, tmp_path):
    root, masks, names = pictures
    config = people_config(
        root,
        evaluation={"points": 3000},
        budget={"initial_pixels_per_image": 100, "pixels_per_image": 5},
    )
    folder = tmp_path / "run"
    for _ in range(2):
        with pytest.raises(AnswersPending):
            run(config, folder)
        answer_waiting(folder, masks, names)
    done = run(config, folder)
    held = done.stage("evaluation_points").read_table("queries").to_pandas()
    asked = done.table("queries").to_pandas()
    assert (len(held), len(asked)) == (3000, 6 * 105)
    pixels = ["image_id", "y", "x"]
    assert held.merge(asked, on=pixels).empty
    assert "round 1: selection replayed from the stored scores" in list(api.verify(folder))


def test_points_are_measured_as_whole_masks_measure_them(tmp_path):
    """All pixels as points give the confusion that the masks give."""
    config = tiny_config(num_rounds=1, evaluation={"points": 3 * 48 * 64, "points_split": "val"})
    done = run(config, tmp_path / "run")
    confusion = done.table("confusion").to_pandas()
    of_masks = confusion[confusion["split"] == "val"]["counts"].tolist()
    of_points = confusion[confusion["split"] == "val_points"]["counts"].tolist()
    assert np.array_equal(np.stack(of_masks), np.stack(of_points))


def test_points_inside_superpixels_that_are_trained_on_are_refused(pictures, tmp_path):
    root, *_ = pictures
    config = people_config(root, evaluation={"points": 10}, strategy="class_balanced_superpixel")
    with pytest.raises(ConfigError, match="would lie in superpixels that class_balanced"):
        run(config, tmp_path / "run")
