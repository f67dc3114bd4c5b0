"""Evaluation by hand: grids, splits, workers, and the rows that are written."""

import numpy as np
import pytest
import torch

from madbal_ray.config.running import EvaluationConfig
from madbal_ray.errors import ResourceError
from madbal_ray.evaluation.evaluate import EvaluateSplits
from madbal_ray.labels.ledger import Cost, Ledger
from madbal_ray.models.network import NetworkOutput
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from tests.hand_made import ByHand, FromArrays, Worker, colours_are_logits, pool_image, write_pool

LEDGER = Ledger(num_images=8, num_pixels=400, spent=Cost(pixels=50, regions=12, clicks=20, void=3))


def plain(height, width, *colour):
    return np.full((height, width, 3), colour or 0, np.uint8)


def evaluation(tmp_path, reader, shards, splits, *, evaluation_images=None, **config):
    pool = write_pool(
        tmp_path,
        shards,
        reader=reader,
        evaluation_shards=splits,
        evaluation_images=evaluation_images,
    )
    return EvaluateSplits(
        output=StageDir.plan(Folder(tmp_path), "metrics", {}, {}),
        pool=pool,
        config=EvaluationConfig(**config),
        round_index=2,
        ledger=LEDGER,
        use_bf16=False,
    )


def differing(*columns):
    """Say logits on a 2 x 2 grid whose class 1 exceeds class 0 by a value for each column."""

    def say(pixels):
        logits = torch.zeros(len(pixels), 3, 2, 2)
        logits[:, 1] = torch.tensor(columns)
        logits[:, 2] = -9.0
        return NetworkOutput(logits, pixels)

    return ByHand(say)


def test_logits_are_brought_to_the_mask_as_bilinear_without_aligned_corners(tmp_path):
    reader = FromArrays(inputs={"a": plain(2, 2)}, masks={"a": np.zeros((4, 4), np.uint8)})
    image = pool_image("a", original=(4, 4), grid=(2, 2), work=(4, 4))
    job = evaluation(tmp_path, reader, {0: [image]}, {"val": [0]})
    # differences by column: -1, -0.125, 1.625, 2.5; with aligned corners: -1, 0.17, 1.33, 2.5
    counts, num_images = job._confusion(differing(-1.0, 2.5), Worker(), "val")
    assert counts.tolist() == [[8, 8, 0], [0, 0, 0], [0, 0, 0]]
    assert num_images == 1


def test_logits_and_not_predictions_are_resized(tmp_path):
    reader = FromArrays(inputs={"a": plain(2, 2)}, masks={"a": np.zeros((4, 4), np.uint8)})
    image = pool_image("a", original=(4, 4), grid=(2, 2), work=(4, 4))
    job = evaluation(tmp_path, reader, {0: [image]}, {"val": [0]})
    counts, _ = job._confusion(differing(-1.0, 9.0), Worker(), "val")
    assert counts[0].tolist() == [4, 12, 0]


@pytest.mark.parametrize(
    ("size", "expected"), [("original", [[11, 0, 0], [4, 0, 0]]), ("working", [[3, 0, 0], [0] * 3])]
)
def test_the_grid_of_comparison_is_the_original_or_the_working_one(tmp_path, size, expected):
    mask = np.zeros((4, 4), np.uint8)
    mask[:, 0] = 1  # under the centre of no pixel of the working grid
    mask[3, 3] = 255  # under one
    reader = FromArrays(inputs={"a": plain(2, 2, 9, 0, 0)}, masks={"a": mask})
    image = pool_image("a", original=(4, 4), grid=(2, 2), work=(2, 2))
    job = evaluation(tmp_path, reader, {0: [image]}, {"val": [0]}, size=size)
    network = ByHand(colours_are_logits)
    counts, _ = job._confusion(network, Worker(), "val")
    assert counts.tolist() == [*expected, [0, 0, 0]]
    assert network.phases == ["eval"]
    assert network.asked_for_supports == [False]


def masks_and_images(sizes):
    """Return five images: the k-th is predicted class k % 3 throughout, and is class 0."""
    images, inputs, masks = [], {}, {}
    for index, size in enumerate(sizes):
        name = str(index)
        images.append(pool_image(name, original=size, grid=size, work=size))
        inputs[name] = plain(*size, *(90 * (index % 3 == c) for c in range(3)))
        masks[name] = np.zeros(size, np.uint8)
    return images, FromArrays(inputs=inputs, masks=masks)


@pytest.mark.parametrize(
    ("rank", "world_size", "shown", "counts"),
    [
        (0, 1, [0, 1, 2, 3, 4], [12, 12, 6]),
        (0, 2, [0, 2, 4], [6, 6, 6]),
        (1, 2, [1, 3], [6, 6, 0]),
        (2, 3, [2], [0, 0, 6]),
    ],
)
def test_workers_take_every_nth_image_and_none_twice(tmp_path, rank, world_size, shown, counts):
    images, reader = masks_and_images([(2, 3)] * 5)
    job = evaluation(tmp_path, reader, {0: images[:2], 4: images[2:]}, {"val": [0, 4]})
    network = ByHand(colours_are_logits)
    found, num_images = job._confusion(network, Worker(rank=rank, world_size=world_size), "val")
    seen = [int(picture[0, 0].argmax()) for batch in network.shown for picture in batch]
    assert seen == [index % 3 for index in shown]
    assert found[0].tolist() == counts
    assert num_images == 5


class Full(ByHand):
    """A network on a GPU where `fits` images have room."""

    def __init__(self, fits):
        super().__init__(colours_are_logits)
        self.fits, self.sizes = fits, []

    def forward(self, inputs, *, supports):
        self.sizes.append(len(inputs))
        if len(inputs) > self.fits:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().forward(inputs, supports=supports)


def test_a_batch_that_does_not_fit_is_measured_in_halves(tmp_path):
    images, reader = masks_and_images([(2, 3)] * 5)
    job = evaluation(tmp_path, reader, {0: images}, {"val": [0]}, batch_size=5)
    network = Full(2)
    counts, _ = job._confusion(network, Worker(), "val")
    assert counts[0].tolist() == [12, 12, 6]
    assert network.sizes == [5, 2, 3, 1, 2]
    with pytest.raises(ResourceError, match=r"^one image of 2 x 3 pixels does not fit the GPU's"):
        job._confusion(Full(0), Worker(), "val")


def test_counts_of_all_workers_are_added(tmp_path):
    images, reader = masks_and_images([(2, 3)])
    job = evaluation(tmp_path, reader, {0: images}, {"val": [0]})
    found, _ = job._confusion(ByHand(colours_are_logits), Worker(factor=3), "val")
    assert found[0].tolist() == [18, 0, 0]


def test_batches_hold_images_of_one_size_and_as_many_as_asked_for(tmp_path):
    sizes = [(2, 3)] * 3 + [(3, 2)] + [(2, 3)]
    images, reader = masks_and_images(sizes)
    job = evaluation(tmp_path, reader, {0: images}, {"val": [0]}, batch_size=2)
    network = ByHand(colours_are_logits)
    found, _ = job._confusion(network, Worker(), "val")
    assert [tuple(batch.shape[:3]) for batch in network.shown] == [
        (2, 2, 3),
        (1, 2, 3),
        (1, 3, 2),
        (1, 2, 3),
    ]
    assert found.sum() == 30


def test_rows_hold_splits_in_order_identity_ledger_and_measures(tmp_path):
    images, reader = masks_and_images([(1, 4)] * 3)
    reader.masks["0"][0, 0] = 1
    reader.masks["1"][0, :2] = 255
    job = evaluation(tmp_path, reader, {0: images[:2], 1: images[2:]}, {"val": [0], "held": [1]})
    job.measure(ByHand(colours_are_logits), Worker(), "last", 6)
    rows = job._rows
    assert [(row["split"], row["class_id"], row["counts"]) for row in rows["confusion"]] == [
        ("val", 0, [3, 2, 0]),
        ("val", 1, [1, 0, 0]),
        ("val", 2, [0, 0, 0]),
        ("held", 0, [0, 0, 4]),
        ("held", 1, [0, 0, 0]),
        ("held", 2, [0, 0, 0]),
    ]
    first, second = rows["metrics"]
    assert first == {
        "round": 2,
        "split": "val",
        "selection": "last",
        "epoch": 6,
        "num_images": 2,
        "num_labels": 50,
        "num_regions": 12,
        "num_clicks": 20,
        "num_void": 3,
        "labels_per_image": 6.25,
        "clicks_per_image": 2.5,
        "percent_labelled": 12.5,
        "miou": 0.25,  # 3 / 6 of class 0, 0 / 3 of class 1, none of class 2
        "pixel_accuracy": 0.5,
        "class_iou": [0.5, 0.0, None],
    }
    assert (second["split"], second["miou"], second["class_iou"]) == ("held", 0.0, [0.0, None, 0.0])
    job.commit()
    stored = job.output.read_table("metrics").to_pylist()
    assert sorted(row["split"] for row in stored) == ["held", "val"]
    assert job.output.read_table("confusion").num_rows == 6


def test_a_split_of_void_pixels_has_no_measures(tmp_path):
    reader = FromArrays(inputs={"a": plain(2, 2)}, masks={"a": np.full((2, 2), 255, np.uint8)})
    image = pool_image("a", original=(2, 2), grid=(2, 2), work=(2, 2))
    job = evaluation(tmp_path, reader, {0: [image]}, {"val": [0]})
    job.measure(ByHand(colours_are_logits), Worker(), "best", 1)
    row = job._rows["metrics"][0]
    assert (row["miou"], row["pixel_accuracy"], row["class_iou"]) == (None, None, [None] * 3)
    assert row["selection"] == "best"


def test_the_miou_of_a_split_is_its_own(tmp_path):
    images, reader = masks_and_images([(1, 4)] * 2)
    job = evaluation(tmp_path, reader, {0: images[:1], 1: images[1:]}, {"val": [0], "held": [1]})
    assert job.miou(ByHand(colours_are_logits), Worker(), "val") == 1.0
    assert job.miou(ByHand(colours_are_logits), Worker(), "held") == 0.0


def test_images_of_their_own_are_measured_where_there_are_any(tmp_path):
    images, reader = masks_and_images([(1, 4)] * 2)
    other = write_pool(tmp_path / "other", {0: images[1:]}).images
    job = evaluation(tmp_path, reader, {0: images[:1]}, {"val": [0]}, evaluation_images=other)
    counts, _ = job._confusion(ByHand(colours_are_logits), Worker(), "val")
    assert counts[0].tolist() == [0, 4, 0]
