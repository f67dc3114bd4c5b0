"""Images through the rounds: every number stands beside the pixel that it was said of."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import madbal_ray
from madbal_ray.arrays import IGNORE_INDEX
from madbal_ray.errors import RunDirError
from madbal_ray.pool.reader import ImageReader, PoolImage, pool_images, read_images, read_label_maps
from madbal_ray.runs.image_stories import (
    Candidate,
    Networks,
    accuracies,
    choose,
    outline,
    tell_stories,
)
from madbal_ray.runs.insight import look_inside
from madbal_ray.runs.superpixel_map import superpixel_map

IMAGE = PoolImage("", "", None, 1, 1, 1, 1, 1, 1)


def candidate(name, gained, wrong, *, has_truth=True):
    return Candidate(replace(IMAGE, image_id=name), gained, wrong, has_truth)


@pytest.fixture(scope="module")
def stories(tiny_run):
    images = [image for _, image in tiny_run.pool_sample(6)][:2]
    networks = Networks(tiny_run, torch.device("cpu"))
    return tell_stories(tiny_run, [(image, "typical") for image in images], networks)


def test_images_are_chosen_in_turn_and_never_twice():
    given = [
        candidate("dull", 0.1, 0.4),
        candidate("gain", 0.5, 0.5),
        candidate("bad", 0.0, 0.9),
        candidate("empty", math.nan, math.nan),
        candidate("also", 0.2, 0.1),
    ]
    chosen = [(image.image_id, reason) for image, reason in choose(given, 9)]
    assert chosen == [
        ("gain", "most gained"),
        ("bad", "most wrong"),
        ("dull", "typical"),
        ("also", "most gained"),
    ]
    assert len(choose(given, 2)) == 2
    assert choose([given[3]], 2) == []


def test_without_masks_change_and_doubt_choose():
    given = [candidate(name, 0.1, 0.3, has_truth=False) for name in "abc"]
    reasons = [reason for _, reason in choose(given, 3)]
    assert reasons == ["most changed", "most doubtful", "typical"]


def test_gain_and_errors_count_pixels_with_a_class():
    first, last = np.array([[0, 0, 0, 0]], np.uint8), np.array([[1, 1, 0, 0]], np.uint8)
    truth = np.array([[1, 1, 1, IGNORE_INDEX]], np.uint8)
    score = np.array([[0.5, 0.5, 0.5, 2.5]], np.float32)
    counts = truth != IGNORE_INDEX
    found = accuracies(first, last, score, truth, counts)
    assert found == pytest.approx({"gained": 2 / 3, "wrong": 1 / 3})
    assert accuracies(first, last, score, None, None) == {"gained": 0.5, "wrong": 1.0}
    assert math.isnan(accuracies(first, last, score, truth, ~counts & counts)["wrong"])


def test_an_outline_runs_along_the_edges_of_its_pixels():
    label_map = np.zeros((6, 8), np.uint16)
    label_map[1:4, 2:7] = 5
    (line,) = outline(label_map, 5)
    x, y = np.array(line[::2]), np.array(line[1::2])
    assert (x.min(), x.max(), y.min(), y.max()) == (2, 7, 1, 4)
    assert (x[0], y[0]) == (x[-1], y[-1])
    assert len(outline(np.array([[1, 0, 1]], np.uint16), 1)) == 2


def test_the_network_that_asked_says_the_scores_that_were_stored(stories):
    for story in stories:
        asked = story.queries[story.queries["round"] == 1]
        assert len(asked) == 5
        assert asked["term_score"].to_numpy() == pytest.approx(asked["score"].to_numpy(), rel=1e-4)
        first = story.views[0].prediction
        assert asked["predicted"].tolist() == first[asked["y"], asked["x"]].tolist()
        random = story.queries[story.queries["round"] == 0]
        assert random["predicted"].isna().all()
        assert random["term_score"].isna().all()
        assert [view.round_index for view in story.views] == [0, 1]


def test_one_network_is_filled_with_the_round_that_is_asked_for(frozen_run):
    device = torch.device("cpu")
    _, image = frozen_run.pool_sample(1)[0]
    networks = Networks(frozen_run, device)
    seen = networks.pool.input_and_boundary(image)
    alone = {index: Networks(frozen_run, device).explain(index, *seen) for index in (0, 1)}
    assert not torch.equal(alone[0].signals["entropy"], alone[1].signals["entropy"])
    for index in (1, 0, 0, 1):
        found = networks.explain(index, *seen)
        assert torch.equal(found.signals["entropy"], alone[index].signals["entropy"])
    with pytest.raises(RunDirError):
        networks.explain(9, *seen)
    networks._network.main_head.layer.out.bias.data.zero_()  # as if half filled by then
    found = networks.explain(1, *seen)
    assert torch.equal(found.signals["entropy"], alone[1].signals["entropy"])


def test_kept_features_are_looked_at_and_where_they_are_gone_pictures(
    frozen_run, tmp_path, monkeypatch
):
    images = [(image, "typical") for _, image in frozen_run.pool_sample(2)]
    device, decoded = torch.device("cpu"), []
    usual = ImageReader.on_both_grids

    def counted(reader, image, data=None):
        decoded.append(image.image_id)
        return usual(reader, image, data)

    monkeypatch.setattr(ImageReader, "on_both_grids", counted)
    kept = tell_stories(frozen_run, images, Networks(frozen_run, device))
    assert decoded == []
    run_dir = Path(str(frozen_run.run_dir))
    shutil.copytree(run_dir.parent, tmp_path / "copy")
    copy = madbal_ray.open_run(tmp_path / "copy" / run_dir.name)
    features = Path(str(copy.stage("backbone_features").folder))
    next((features / "backbone_features").glob("*.parquet")).unlink()
    again = tell_stories(copy, images, Networks(copy, device))
    assert decoded == [image.image_id for image, _ in images]
    shutil.rmtree(features)
    assert copy.pool().features is None
    for one, other in zip(kept, again, strict=True):
        assert [view.round_index for view in one.views] == [0, 1]
        for here, there in zip(one.views, other.views, strict=True):
            np.testing.assert_array_equal(here.prediction, there.prediction)
            np.testing.assert_allclose(here.score, there.score, atol=1e-4)


def test_answers_budgets_and_superpixels_are_those_of_the_tables(stories, tiny_run):
    labels = tiny_run.table("labels").to_pandas().set_index(["round", "image_id", "y", "x"])
    budgets = tiny_run.table("cluster_budgets").to_pandas().set_index("cluster_id")
    scores = tiny_run.table("superpixel_scores").to_pandas()
    scores = scores.set_index(["image_id", "superpixel_id"])
    for row in pd.concat([story.queries for story in stories]).to_dict("records"):
        label = labels.loc[(row["round"], row["image_id"], row["y"], row["x"])]
        assert row["status"] == label["status"]
        assert row["class_id"] == label["class_id"] or math.isnan(row["class_id"])
        if row["round"] == 1:
            assert row["budget"] == budgets.loc[row["cluster_id"], "budget"]
            score = scores.loc[(row["image_id"], row["superpixel_id"])]
            assert row["mean_score"] == score["mean_score"]
            assert row["dominant_class"] == score["dominant_class"]
        else:
            assert math.isnan(row["budget"])


def test_another_run_is_asked_for_the_same_images(tiny_run):
    chosen = {"train/00004.png": "typical", "train/00001.png": "most wrong"}
    insight = look_inside(tiny_run, device="cpu", num_images=3, chosen=chosen)
    assert [(one.image_id, one.reason) for one in insight.stories] == list(chosen.items())
    assert insight.superpixels.empty
    own = look_inside(tiny_run, device="cpu", num_images=3)
    assert len(own.stories) == 3
    assert len(own.superpixels) > 50


def test_the_map_is_the_plane_of_the_features_that_were_clustered(tiny_run):
    image = pool_images(tiny_run.table("images"))[1]
    shard = read_images(tiny_run.stage("images"), image.shard_id)
    maps = read_label_maps(tiny_run.stage("superpixels"), image.shard_id, shard)
    label_map = maps[image.image_id]
    everywhere = np.ones(label_map.shape, bool)
    shards = {one.image_id: one.shard_id for one in pool_images(tiny_run.table("images"))}
    errors = {image.image_id: (label_map, everywhere, label_map == 2)}
    rows = superpixel_map(tiny_run, {k: v for k, v in shards.items() if "train" in k}, errors)
    keys = ["image_id", "superpixel_id"]
    features = tiny_run.table("superpixel_features").to_pandas().set_index(keys)["feature"]
    matrix = np.stack([features[key] for key in rows[keys].itertuples(index=False, name=None)])
    centred = matrix.astype(float) - matrix.astype(float).mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    for axis, name in enumerate(("x", "y")):
        expected = left[:, axis] * singular[axis]
        assert np.abs(rows[name].to_numpy()) == pytest.approx(np.abs(expected), abs=1e-3)
    mine = rows[rows["image_id"] == image.image_id].set_index("superpixel_id")["error"]
    assert mine[2] == 1.0
    assert (mine.drop(2) == 0.0).all()
    assert rows.loc[rows["image_id"] != image.image_id, "error"].isna().all()
    asked = tiny_run.table("queries").to_pandas().groupby(keys)["round"].min()
    expected = asked.reindex(pd.MultiIndex.from_frame(rows[keys])).to_numpy(float)
    np.testing.assert_array_equal(rows["asked_in_round"].to_numpy(), expected)
    clusters = tiny_run.table("superpixel_clusters").to_pandas().set_index(keys)["cluster_id"]
    found = clusters.reindex(pd.MultiIndex.from_frame(rows[keys])).tolist()
    assert rows["cluster_id"].tolist() == found
