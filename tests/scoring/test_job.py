"""Scoring of a shard: what each batch holds, what is masked, and the statistics beside it."""

import shutil
import threading
import time
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from madbal_ray.config.asking import ScoreConfig, StrategyConfig
from madbal_ray.config.training import ModelConfig
from madbal_ray.errors import ResourceError
from madbal_ray.models.trained import TrainedPhases
from madbal_ray.scoring.job import ScoreShards, _cut, shard_statistics
from madbal_ray.scoring.plan import ScoringPlan
from madbal_ray.state import notices, tables
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from tests.hand_made import FromArrays, pool_image, write_labels, write_pool

TWO = np.array([[0, 0, 1], [0, 1, 1]], np.uint16)


class Noted:
    """Stands for `ScoreImages`: notes what it was called with, gives one row an image."""

    def __init__(self, at_once=1):
        self.calls, self.at_once = [], at_once
        self.together = threading.Barrier(at_once)

    def threads(self):
        return nullcontext(self.at_once)

    def __call__(self, **batch):
        self.together.wait(timeout=10)
        if "a" in batch["image_id"]:
            time.sleep(0.2 * (self.at_once - 1))  # the first batch is ready last
        self.calls.append(batch)
        count = len(batch["image_id"])
        return {
            "image_id": batch["image_id"],
            "superpixel_id": np.zeros(count),
            "cluster_id": [one[-1] for one in batch["cluster_id"]],
            "num_pixels": np.ones(count),
            "mean_score": np.full(count, 0.5),
            "dominant_class": np.ones(count),
            "top_y": np.zeros((count, 1)),
            "top_x": np.zeros((count, 1)),
            "top_score": np.zeros((count, 1)),
        }


def job_of(
    tmp_path, sizes, *, labels=(), skip_void=False, num_clusters=9, batch_size=2, masks=None
):
    """Score images a, b, ... of (grid, work) sizes, in shard 3."""
    names = [chr(ord("a") + index) for index in range(len(sizes))]
    images = [
        pool_image(name, grid=grid, work=work)
        for name, (grid, work) in zip(names, sizes, strict=True)
    ]
    reader = FromArrays(
        inputs={
            one.image_id: np.full((one.input_height, one.input_width, 3), index, np.uint8)
            for index, one in enumerate(images)
        },
        works={
            one.image_id: np.full((one.work_height, one.work_width, 3), 100 + index, np.uint8)
            for index, one in enumerate(images)
        },
        masks=masks or {},
    )
    pool = write_pool(
        tmp_path,
        {3: images},
        label_maps={
            one.image_id: TWO for one in images if (one.work_height, one.work_width) == (2, 3)
        },
        clusters={one.image_id: [2, 7] for one in images if one.work_width == 3},
        reader=reader,
    )
    folder = Folder(tmp_path)
    job = ScoreShards(
        output=StageDir.plan(folder, "score", {}, {}),
        pool=pool,
        clusters=pool.clusters,
        phases=TrainedPhases(StageDir.plan(folder, "phase1", {}, {}), None),
        labels=labels,
        model=ModelConfig(),
        config=ScoreConfig(batch_size=batch_size),
        plan=ScoringPlan("entropy", "superpixels", "top", 3, 1, False, StrategyConfig(), 0, 1),
        supports="none",
        num_clusters=num_clusters,
        skip_void=skip_void,
        device="cpu",
    )
    job._stage = Noted()
    return job


USUAL = ((2, 3), (2, 3))


def test_batches_are_scored_at_the_same_time_and_written_in_order(tmp_path):
    job = job_of(tmp_path, [USUAL] * 4, batch_size=1)
    job._stage = Noted(at_once=2)
    found = job.run(3)
    assert found["superpixel_scores"]["image_id"].to_pylist() == ["a", "b", "c", "d"]


def test_a_batch_holds_pictures_delta_superpixels_and_clusters(tmp_path):
    job = job_of(tmp_path, [((4, 6), (2, 3))] * 2)
    job.pool.reader.works["b"][:, 2] = 255
    found = job.run(3)
    (batch,) = job._stage.calls
    assert batch["image_id"] == ["a", "b"]
    assert [one.shape for one in batch["inputs"]] == [(4, 6, 3)] * 2
    assert [one[0, 0, 0] for one in batch["inputs"]] == [0, 1]
    # delta is read off the image on the working grid, whose last column is white in the second: the
    # edge lies before it, and beyond the image its neighbours are repeated
    assert [one.tolist() for one in batch["boundary"]] == [
        [[False] * 3] * 2,
        [[False, True, False]] * 2,
    ]
    assert all(np.array_equal(one, TWO) for one in batch["label_map"])
    assert [one.tolist() for one in batch["cluster_id"]] == [[2, 7], [2, 7]]
    assert not np.any(batch["is_asked"])
    assert list(found) == ["superpixel_scores", "cluster_statistics"]
    assert job.count(found) == {"images": 2}


def test_batches_are_cut_to_size_first_and_then_where_a_size_changes(tmp_path):
    wide, narrow, coarse = USUAL, ((3, 2), (2, 3)), ((2, 3), (3, 2))
    job = job_of(tmp_path, [wide, wide, wide, narrow, wide, coarse, coarse])
    rows = job.run(3)["superpixel_scores"]
    assert ["".join(call["image_id"]) for call in job._stage.calls] == [
        "ab", "c", "d", "e", "f", "g",
    ]  # fmt: skip
    assert rows["image_id"].to_pylist() == list("abcdefg")
    job = job_of(tmp_path / "other", [wide] * 5, batch_size=3)
    job.run(3)
    assert ["".join(call["image_id"]) for call in job._stage.calls] == ["abc", "de"]


def test_pixels_of_earlier_rounds_are_asked(tmp_path):
    labels = tuple(
        write_labels(tmp_path, {3: [{"image_id": "b", "y": 1, "x": x}]}, round_index=x)
        for x in (0, 2)
    )
    job = job_of(tmp_path, [USUAL] * 2, labels=labels)
    job.run(3)
    first, second = job._stage.calls[0]["is_asked"]
    assert not first.any()
    assert second.tolist() == [[False] * 3, [True, False, True]]


@pytest.mark.parametrize("skip_void", [True, False])
def test_void_pixels_count_as_asked_where_the_mask_may_be_peeked_at(tmp_path, skip_void):
    mask = np.array([[255, 0, 0], [1, 2, 255]], np.uint8)
    labels = write_labels(tmp_path, {3: [{"image_id": "a", "y": 0, "x": 1}]})
    job = job_of(tmp_path, [USUAL], labels=(labels,), skip_void=skip_void, masks={"a": mask})
    job.run(3)
    (asked,) = job._stage.calls[0]["is_asked"]
    assert asked.tolist() == [[skip_void, True, False], [False, False, skip_void]]


@pytest.mark.parametrize(("num_clusters", "expected"), [(1, [0, 0]), (8, [2, 7]), (5, [2, 4])])
def test_a_single_cluster_takes_all_superpixels(tmp_path, num_clusters, expected):
    job = job_of(tmp_path, [USUAL], num_clusters=num_clusters)
    found = job.run(3)
    assert job._stage.calls[0]["cluster_id"][0].tolist() == expected
    (row,) = found["cluster_statistics"].to_pylist()
    assert (row["num_clusters"], row["num_classes"]) == (num_clusters, 3)


def test_other_rows_have_no_statistics(tmp_path):
    job = job_of(tmp_path, [USUAL])
    for rows, names in (
        ("superpixels", ("superpixel_scores", "cluster_statistics")),
        ("candidates", ("pixel_candidates",)),
        ("images", ("image_scores",)),
    ):
        job.plan = ScoringPlan("entropy", rows, "top", 3, 1, False, StrategyConfig(), 0, 1)
        assert job.table_names == names


def test_a_shards_statistics_are_one_row_of_k_times_c_integers():
    rows = [
        # cluster, dominant class, mean score
        (0, 1, 0.5),
        (0, 1, 0.25),
        (1, 2, 1.0),
        (1, 0, 2.0 + 3 * 2.0**-33),  # rounds to the nearest unit of 2**-32, ties to even
        (0, -1, 0.0),
    ]
    scores = tables.from_rows(
        "superpixel_scores",
        [
            {"image_id": "a", "superpixel_id": i, "cluster_id": k, "dominant_class": c}
            | {"mean_score": mean}
            for i, (k, c, mean) in enumerate(rows)
        ],
    )
    assert shard_statistics(6, scores, 2, 3).to_pylist() == [
        {
            "shard_id": 6,
            "num_clusters": 2,
            "num_classes": 3,
            "count": [0, 2, 0, 1, 0, 1],
            "score_sum": [0, 3 * 2**30, 0, 2**33 + 2, 0, 2**32],
        }
    ]


class Full(Noted):
    """A GPU on which `fits` images have room."""

    def __init__(self, fits):
        super().__init__()
        self.fits, self.refused = fits, []

    def __call__(self, **batch):
        if len(batch["image_id"]) > self.fits:
            self.refused.append("".join(batch["image_id"]))
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().__call__(**batch)


def test_a_batch_that_does_not_fit_is_halved_said_and_not_tried_again(tmp_path):
    notices.take()
    job = job_of(tmp_path, [USUAL] * 10, batch_size=5)
    job._stage = Full(1)
    found = job.run(3)
    assert job._stage.refused == ["abcde", "ab"]  # and then it is known
    assert ["".join(call["image_id"]) for call in job._stage.calls] == list("abcdefghij")
    assert found["superpixel_scores"]["image_id"].to_pylist() == list("abcdefghij")
    ((kind, (count, text)),) = notices.take().items()
    assert (kind, count) == ("halved batches", 2)
    assert text.startswith("2 images do not fit the GPU's memory (CUDA out of memory. Tried")
    whole = job_of(tmp_path / "whole", [USUAL] * 10, batch_size=5)
    assert found["superpixel_scores"].equals(whole.run(3)["superpixel_scores"])


def test_an_image_that_does_not_fit_is_named(tmp_path):
    job = job_of(tmp_path, [USUAL] * 2)
    job._stage = Full(0)
    with pytest.raises(ResourceError, match=r"^one image, a, does not fit the GPU's memory"):
        job.run(3)
    assert job._stage.refused == ["ab", "a"]


def test_taps_are_cut_like_pictures():
    taps = (np.zeros((4, 1, 2)), np.ones((4, 3, 1)))
    found = _cut({"image_id": list("abcd"), "inputs": taps}, slice(1, 3))
    assert found["image_id"] == ["b", "c"]
    assert [one.shape for one in found["inputs"]] == [(2, 1, 2), (2, 3, 1)]


def test_tables_and_images_are_read_before_a_shard_is_computed(tmp_path):
    job = job_of(tmp_path, [USUAL] * 3)
    loaded = job.load(3)
    assert job._stage.calls == []
    for stage in (job.pool.images, job.pool.superpixels, job.clusters):
        shutil.rmtree(stage.folder.local_path)
    assert job.compute(3, loaded)["superpixel_scores"]["image_id"].to_pylist() == list("abc")
