"""The simulated oracle: answers read off the masks, with an annotator's mistakes."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from madbal_ray import rng
from madbal_ray.arrays import IGNORE_INDEX, Mask
from madbal_ray.config.asking import NoiseConfig
from madbal_ray.config.schema import Config
from madbal_ray.errors import ConfigError
from madbal_ray.labels.oracle import Answers, Oracle, Questions
from madbal_ray.labels.simulated import (
    AnnotatorNoise,
    answer_pixels,
    answer_region,
    make_mistakes,
    on_boundary,
)
from madbal_ray.vision.decode import resize_mask


class SimulatedOracle(Oracle):
    """Reads each answer off the image's mask; `oracle.noise` says how it errs."""

    needs_masks: ClassVar[bool] = True

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.noise = annotator_noise(config.oracle.noise, num_classes)

    def answer(self, questions: Questions) -> Answers:
        """Return the true classes, the annotator's mistakes among them."""
        image, mask = questions.image, questions.reader.mask(questions.image)
        if questions.unit == "pixel":
            return self._pixels(questions, mask)
        work_mask = resize_mask(mask, image.work_height, image.work_width)
        if questions.unit == "superpixel":
            return self._superpixels(questions, work_mask)
        (unasked,) = questions.regions
        class_map = np.where(unasked, work_mask, IGNORE_INDEX).astype(np.uint8)
        return Answers(class_id=np.zeros(1, np.int64), status=["labelled"], class_map=class_map)

    def _pixels(self, questions: Questions, mask: Mask) -> Answers:
        y, x = questions.image_y, questions.image_x
        true_class, is_void = answer_pixels(mask=mask, y=y, x=x)
        is_boundary = on_boundary(mask=mask, y=y, x=x)
        return self._erring(questions, true_class, is_void, is_boundary)

    def _superpixels(self, questions: Questions, work_mask: Mask) -> Answers:
        true_class = np.array(
            [answer_region(mask=work_mask, inside=region) for region in questions.regions], np.int64
        )
        nowhere = np.zeros(len(questions), bool)
        return self._erring(questions, true_class, true_class == IGNORE_INDEX, nowhere)

    def _erring(
        self,
        questions: Questions,
        true_class: np.ndarray,
        is_void: np.ndarray,
        is_boundary: np.ndarray,
    ) -> Answers:
        class_id = make_mistakes(
            class_id=true_class,
            is_void=is_void,
            is_boundary=is_boundary,
            noise=self.noise,
            generator=rng.stream(
                self.config.seed, "annotator", questions.round_index, questions.image.image_id
            ),
        )
        status = np.where(is_void, "void", "labelled").tolist()
        return Answers(class_id=class_id, status=status)


def annotator_noise(config: NoiseConfig, num_classes: int) -> AnnotatorNoise:
    """Return the annotator that a configuration describes.

    Raises:
        ConfigError: the confusion matrix is not C x C.
    """
    boundary = config.share if config.boundary_share is None else config.boundary_share
    noise = AnnotatorNoise.uniform(num_classes, config.share, boundary)
    if config.confusion is None:
        return noise
    rows = [len(row) for row in config.confusion]
    if rows != [num_classes] * num_classes:
        raise ConfigError(
            f"oracle.noise.confusion has {len(rows)} rows of {sorted(set(rows))} entries; the data "
            f"set has {num_classes} classes"
        )
    return replace(noise, confusion=np.array(config.confusion, np.float64))
