"""Who answers queries: the protocol, by name (`madbal_ray.seams.ORACLES`)."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from madbal_ray.arrays import BoolMap, Mask
from madbal_ray.config.schema import Config
from madbal_ray.engine.stages import JobRunner
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import ImageReader, PoolImage
from madbal_ray.state import tables
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder

AnswerStatus = Literal["labelled", "void", "skipped", "unsure", "waiting"]
"""``void``: the pixel belongs to no class. ``skipped``, ``unsure``: somebody looked and did not
say. ``waiting``: the round went on without this answer, which may come later (`Oracle.late`)."""


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What one image is asked in one round; Q queries, all of one unit.

    Attributes:
        unit: ``pixel``, ``superpixel`` or ``image``.
        y, x: int64 [Q], on the working grid.
        image_y, image_x: int64 [Q], the same places on the original image.
        regions: for superpixels and whole images: the working-grid pixels of each query that
            were not asked before; empty for pixels.
        reader: decodes the image (`original`) and, where there is one, its mask.
    """

    image: PoolImage
    round_index: int
    unit: str
    y: Int64[np.ndarray, "Q"]
    x: Int64[np.ndarray, "Q"]
    image_y: Int64[np.ndarray, "Q"]
    image_x: Int64[np.ndarray, "Q"]
    regions: Sequence[BoolMap]
    reader: ImageReader

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Answers to the questions of one image, in their order.

    Attributes:
        class_id: int64 [Q]; read only where the status is ``labelled``.
        status: of each query.
        class_map: for unit ``image``: class ids on the working grid, 255 where void.
        annotator: who answered each query, or all of them; None: nobody in particular.
        seconds: that each answer took; None: not known.
        revision: of each answer, the highest of a query wins; None: 0.
    """

    class_id: Int64[np.ndarray, "Q"]
    status: Sequence[AnswerStatus]
    class_map: Mask | None = None
    annotator: str | Sequence[str | None] | None = None
    seconds: Sequence[float | None] | None = None
    revision: Sequence[int] | None = None


@dataclass(frozen=True)
class Pending:
    """Nobody has answered yet.

    Attributes:
        count: queries of the image that wait.
        awaited: what is waited for and what to do, in a few words.
    """

    count: int
    awaited: str


@dataclass(frozen=True, kw_only=True)
class Enquiry:
    """What a round asks, as an oracle sees it that has to ask somebody.

    Attributes:
        run_dir: of the run that asks; None: a study asks, and nobody can be waited for.
        folder: of the round's stages.
        purpose: ``training`` or ``evaluation`` (points that nothing is trained on).
        shard_ids: that this round or an earlier one asked in.
        queries: finished stage `select` of this round.
        earlier: stages `labels` of the rounds before.
        runner: completes stages.
    """

    run_dir: RunDir | None
    folder: Folder
    purpose: Literal["training", "evaluation"]
    round_index: int
    pool: Pool
    shard_ids: Sequence[int]
    queries: StageDir
    earlier: tuple[StageDir, ...]
    runner: JobRunner


class Oracle(abc.ABC):
    """Answers queries image by image, on any worker; picklable.

    Attributes:
        needs_masks: it reads ground truth, so that a pool without masks is refused at the start.
        asks_people: it waits for somebody and reads `oracle.share` and `oracle.store`; its round 0
            is the run's own, since nobody else would be told the same.
        reads: stages that its answers are read from; they enter the keys of labels.
    """

    needs_masks: ClassVar[bool] = False
    asks_people: ClassVar[bool] = False
    reads: tuple[StageDir, ...] = ()

    def __init__(self, config: Config, num_classes: int) -> None:
        self.config = config
        self.num_classes = num_classes

    @classmethod
    def problems(cls, config: Config) -> Iterator[str]:
        """Yield what is wrong with its options, a line each."""
        if config.oracle.options:
            yield (
                f"oracle.options: {config.oracle.kind} has none; given: "
                f"{', '.join(config.oracle.options)}"
            )
        if not cls.asks_people and (config.oracle.share, config.oracle.store) != (1.0, None):
            yield (
                "oracle.share and oracle.store are for oracles that ask people, not for "
                f"{config.oracle.kind}: leave them out"
            )

    def post(self, enquiry: Enquiry) -> None:  # noqa: B027  (most have nothing to do)
        """Ask, in the driver, without waiting; `prepare` will be called for the same enquiry."""

    def prepare(self, enquiry: Enquiry) -> None:  # noqa: B027  (most have nothing to do)
        """Get ready for `answer`, in the driver, before the queries of a round go to workers.

        Raises:
            AnswersPending: somebody is awaited.
        """

    def late_shards(self) -> Sequence[int]:
        """Return the shards in which `late` may find something."""
        return ()

    def late(self, shard_id: int) -> pa.Table:
        """Return what became of queries of earlier rounds since then (table `answers`)."""
        return tables.empty("answers")

    @abc.abstractmethod
    def answer(self, questions: Questions) -> Answers | Pending:
        """Return the answers for one image, or that somebody is awaited.

        The same questions must give the same answers, whoever asks and when; after `Pending`
        the run stops with exit code 3 and the same command asks again.
        """
