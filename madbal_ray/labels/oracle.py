"""Who answers queries: the protocol, by name (`madbal_ray.seams.ORACLES`)."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int64

from madbal_ray.arrays import BoolMap, Mask
from madbal_ray.config.schema import Config
from madbal_ray.pool.reader import ImageReader, PoolImage

AnswerStatus = Literal["labelled", "void", "skipped"]


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
        annotator: who answered; None: nobody in particular.
        seconds: that each answer took; None: not known.
    """

    class_id: Int64[np.ndarray, "Q"]
    status: Sequence[AnswerStatus]
    class_map: Mask | None = None
    annotator: str | None = None
    seconds: Sequence[float] | None = None


@dataclass(frozen=True)
class Pending:
    """Nobody has answered yet.

    Attributes:
        count: queries of the image that wait.
        awaited: what is waited for and what to do, in a few words.
    """

    count: int
    awaited: str


class Oracle(abc.ABC):
    """Answers queries image by image, on any worker; picklable.

    Attributes:
        needs_masks: it reads ground truth, so that a pool without masks is refused at the start.
    """

    needs_masks: ClassVar[bool] = False

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

    @abc.abstractmethod
    def answer(self, questions: Questions) -> Answers | Pending:
        """Return the answers for one image, or that somebody is awaited.

        The same questions must give the same answers, whoever asks and when; after `Pending`
        the run stops with exit code 3 and the same command asks again.
        """
