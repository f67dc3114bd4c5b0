"""Stages `thumbnails` and `familiarity`: which images of a pool look like none that is labelled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from madbal_ray import rng
from madbal_ray.labels.asked_pixels import asked_images
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import ImageShardJob, PoolImage
from madbal_ray.state import tables
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.training.adversarial import THUMBNAIL, Judge, learn_to_tell
from madbal_ray.vision.decode import resize_image

MOST = 20_000
"""Labelled and unlabelled images, each, that are learned from; a random choice where there are
more. A thumbnail takes 12 KiB."""


@dataclass(kw_only=True)
class ShrinkImages(ImageShardJob):
    """Thumbnails of every image, whatever its proportions."""

    pool: Pool
    table_names = ("thumbnails",)

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the thumbnails of one shard."""
        images = self.pool.images_of(shard_id)
        shrunk = map_ahead(self._shrink, images, threads=self.threads, ahead=2 * self.threads)
        columns = {
            "image_id": [image.image_id for image in images],
            "pixels": [thumbnail.tobytes() for thumbnail in shrunk],
        }
        return {"thumbnails": tables.from_columns("thumbnails", columns)}

    def _shrink(self, image: PoolImage) -> np.ndarray:
        return resize_image(self.reader.original(image), THUMBNAIL, THUMBNAIL)


@dataclass(kw_only=True)
class LearnFamiliarity:
    """Scores of every image: how likely it is none of the labelled ones (table `image_scores`).

    Labelled are images that were asked as a whole; before any was, those with an answer. Where
    that is all of them or none there is nothing to tell apart: scores are lots, and the marker
    says so.

    Attributes:
        output: folder of the stage.
        thumbnails: stage `thumbnails`.
        labels: of earlier rounds.
        steps: of training.
    """

    output: StageDir
    thumbnails: StageDir
    labels: tuple[StageDir, ...]
    shard_ids: Sequence[int]
    steps: int
    round_index: int
    seed: int

    def run(self) -> None:
        """Learn, judge shard by shard, commit."""
        some, whole = asked_images(self.labels, self.shard_ids)
        labelled = whole or some
        ids = {shard_id: self._ids(shard_id) for shard_id in self.shard_ids}
        is_labelled = np.array([name in labelled for of in ids.values() for name in of], bool)
        is_learned = bool(is_labelled.any() and not is_labelled.all())
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # so that sums do not depend on the machine's cores
        try:
            judge = (
                self._learned(is_labelled, [len(of) for of in ids.values()]) if is_learned else None
            )
            records = [
                self.output.write_table("image_scores", shard_id, self._scores(judge, shard_id, of))
                for shard_id, of in ids.items()
            ]
        finally:
            torch.set_num_threads(threads)
        summary = {"labelled_images": int(is_labelled.sum()), "is_learned": is_learned}
        self.output.commit(records, summary)

    def _ids(self, shard_id: int) -> list[str]:
        table = self.thumbnails.read_table("thumbnails", [shard_id], columns=["image_id"])
        return table["image_id"].to_pylist()

    def _images(self, shard_id: int) -> np.ndarray:
        column = self.thumbnails.read_table("thumbnails", [shard_id])["pixels"].to_pylist()
        return np.frombuffer(b"".join(column), np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL, 3)

    def _learned(self, is_labelled: np.ndarray, counts: Sequence[int]) -> Judge:
        generator = rng.stream(self.seed, "familiarity", self.round_index)
        chosen = np.zeros((2, len(is_labelled)), bool)
        for row, members in enumerate((np.flatnonzero(is_labelled), np.flatnonzero(~is_labelled))):
            if len(members) > MOST:
                members = generator.choice(members, MOST, replace=False)
            chosen[row, members] = True
        sides = [np.concatenate(list(self._chosen(side, counts))) for side in chosen]
        return learn_to_tell(*sides, steps=self.steps, generator=generator)

    def _chosen(self, is_chosen: np.ndarray, counts: Sequence[int]) -> Iterator[np.ndarray]:
        of_shards = np.split(is_chosen, np.cumsum(counts)[:-1])
        for shard_id, mine in zip(self.shard_ids, of_shards, strict=True):
            if mine.any():
                yield self._images(shard_id)[mine]

    def _scores(self, judge: Judge | None, shard_id: int, ids: Sequence[str]) -> pa.Table:
        if judge is None:
            purpose = (self.seed, "unfamiliar", self.round_index)
            score = np.array([rng.stream(*purpose, name).random() for name in ids])
            codes = np.zeros((len(ids), 0), np.float32)
        else:
            score, codes = judge.judged(self._images(shard_id))
        columns = {"image_id": ids, "score": score, "feature": codes}
        return tables.from_columns("image_scores", columns)
