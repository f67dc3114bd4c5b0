"""Images -> rows to choose from: the one pass over the pool in each round."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from madbal_ray import rng
from madbal_ray.arrays import BoolMap, LabelMap
from madbal_ray.engine.threads import shared_threads
from madbal_ray.errors import NumericalError
from madbal_ray.models.inputs import Stacked, stack_inputs
from madbal_ray.models.network import NetworkOutput, SegmentationNetwork
from madbal_ray.pool.features.stored_taps import NetworkInput
from madbal_ray.scoring.candidates import (
    Candidates,
    class_balanced_candidates,
    power_candidates,
    random_of_top_candidates,
    top_candidates,
)
from madbal_ray.scoring.class_power import class_power_candidates
from madbal_ray.scoring.pixel_scores import PixelScores, to_size
from madbal_ray.scoring.plan import ClassPowerOptions, PowerOptions, ScoringPlan
from madbal_ray.scoring.reduce import random_top_pixels, reduce_scores
from madbal_ray.scoring.registry import ScoreOptions, Views
from madbal_ray.seams import SCORES
from madbal_ray.selection.laps import laps_needed
from madbal_ray.transfer import to_device


class ScoreImages:
    """Run the network, score pixels (Eq. 4), reduce to rows (Eq. 6's means).

    Args:
        network: in eval mode, on `device`.
        use_bf16: autocast the forward pass.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        plan: ScoringPlan,
        *,
        use_bf16: bool,
        device: torch.device,
    ) -> None:
        self.network = network
        self.plan = plan
        self.spec = SCORES[plan.pixel_score]
        self.score_options = ScoreOptions(plan.options.normalize_terms, plan.options.uncertainty)
        self.use_bf16 = use_bf16
        self.device = device

    def threads(self) -> AbstractContextManager[int]:
        """Share torch's threads out between callers; enter to hear how many there may be.

        One where dropout acts: its random numbers come from the process's generator.
        """
        if self.spec.passes == "dropout":
            return nullcontext(1)
        return shared_threads(self.network, self.device)

    def __call__(
        self,
        *,
        image_id: Sequence[str],
        inputs: Stacked | Sequence[NetworkInput],
        boundary: Sequence[BoolMap],
        label_map: Sequence[LabelMap],
        cluster_id: Sequence[np.ndarray],
        is_asked: Sequence[BoolMap],
    ) -> dict[str, Any]:
        """Return the columns of the plan's rows for images of one size.

        Raises:
            NumericalError: a score is not finite; the image is named.
        """
        with torch.inference_mode():
            scores, output = self.maps(image_id=image_id, inputs=inputs, boundary=boundary)
            parts = []
            for index, name in enumerate(image_id):
                asked = is_asked[index]
                of_image = PixelScores(
                    scores.score[index : index + 1], scores.prediction[index : index + 1]
                )
                if self.plan.rows == "superpixels":
                    columns = self._superpixel_rows(name, of_image, label_map[index], asked)
                    columns["cluster_id"] = cluster_id[index]
                elif self.plan.rows == "candidates":
                    logits = output.logits[index : index + 1]
                    columns = self._candidate_rows(name, of_image, label_map[index], asked, logits)
                    columns["cluster_id"] = cluster_id[index][columns["superpixel_id"]]
                else:
                    columns = self._image_row(of_image, output.pooled[index])
                columns["image_id"] = [name] * len(next(iter(columns.values())))
                parts.append(columns)
            # Only now, when the device has been given all that it is to do: the host waits.
            parts = [{name: _on_host(values) for name, values in part.items()} for part in parts]
        return {name: _join([part[name] for part in parts]) for name in parts[0]}

    def maps(
        self,
        *,
        image_id: Sequence[str],
        inputs: Stacked | Sequence[NetworkInput],
        boundary: Sequence[BoolMap],
    ) -> tuple[PixelScores, NetworkOutput]:
        """Return the scores of all pixels of images of one size, and what the network said.

        Raises:
            NumericalError: a score is not finite; the image is named.
        """
        with torch.inference_mode():
            images = stack_inputs(inputs, self.device)
            output = self._forward(images)
            return self._score(images, output, np.stack(boundary), image_id), output

    def _forward(self, images: Stacked, *, supports: bool = True) -> NetworkOutput:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.use_bf16):
            return self.network(images, supports=supports and self.spec.uses_supports)

    def _score(
        self,
        images: Stacked,
        output: NetworkOutput,
        boundary: np.ndarray,
        image_id: Sequence[str],
    ) -> PixelScores:
        views = Views(
            logits=output.logits,
            is_boundary=to_device(boundary, self.device),
            head_logits=output.head_logits,
            maturity_weights=output.maturity_weights,
            error_logits=output.error_logits,
            more_logits=self._more_passes(images, image_id),
        )
        scores = self.spec.function(views, self.score_options)
        finite = torch.isfinite(scores.score).flatten(1).all(dim=1).tolist()
        if not all(finite):
            bad = [name for name, fine in zip(image_id, finite, strict=True) if not fine]
            raise NumericalError(
                f"the network's output for {bad[0]} is NaN or infinite ({len(bad)} of "
                f"{len(image_id)} images in the batch); training has diverged: lower "
                "train.phase1.learning_rate or use train.precision: fp32"
            )
        return scores

    def _more_passes(self, images: Stacked, image_id: Sequence[str]) -> tuple[torch.Tensor, ...]:
        if self.spec.passes == "flip":
            assert isinstance(images, torch.Tensor)
            return (self._forward(images.flip(-1)).logits.flip(-1),)
        if self.spec.passes == "single":
            return ()
        devices = [self.device] if self.device.type == "cuda" else []
        try:
            self.network.switch_dropout_on()
            with torch.random.fork_rng(devices=devices):
                of_image = [self._samples(images, i, name) for i, name in enumerate(image_id)]
        finally:  # of a batch that does not fit the GPU's memory halves are scored next
            self.network.set_phase("eval")
        return tuple(torch.cat(logits) for logits in zip(*of_image, strict=True))

    def _samples(self, images: Stacked, index: int, image_id: str) -> list[torch.Tensor]:
        """Return an image's dropout passes, drawn for it alone: others may come and go."""
        one = slice(index, index + 1)
        seed = rng.derive_seed(self.plan.seed, "mc_dropout", self.plan.round_index, image_id)
        torch.manual_seed(seed)
        image = images[one] if isinstance(images, torch.Tensor) else tuple(t[one] for t in images)
        return [self._forward(image).logits for _ in range(self.plan.options.mc_samples)]

    def _stream(self, purpose: str, image_id: str) -> np.random.Generator:
        return rng.stream(self.plan.seed, purpose, self.plan.round_index, image_id)

    def _superpixel_rows(
        self, image_id: str, scores: PixelScores, label_map: LabelMap, asked_map: BoolMap
    ) -> dict[str, Any]:
        count = int(label_map.max()) + 1
        ids = to_device(label_map.astype(np.int32), self.device)
        is_asked = to_device(asked_map, self.device)
        unasked = np.bincount(label_map[~asked_map], minlength=count)
        laps = 1 if self.plan.asks_regions else laps_needed(unasked, self.plan.budget)
        reduced = reduce_scores(
            score=scores.score[0],
            prediction=scores.prediction[0],
            is_asked=is_asked,
            superpixel_ids=ids,
            num_superpixels=count,
            num_classes=self.plan.num_classes,
            top=laps,
        )
        columns: dict[str, Any] = dict(vars(reduced))
        if self.plan.options.pixel_share is not None:
            columns |= random_top_pixels(
                score=scores.score[0],
                is_asked=is_asked,
                superpixel_ids=ids,
                num_superpixels=count,
                top=laps,
                share=self.plan.options.pixel_share,
                generator=self._stream("pixel_share", image_id),
            )
        columns["superpixel_id"] = np.arange(count, dtype=np.int32)
        return columns

    def _candidate_rows(
        self,
        image_id: str,
        scores: PixelScores,
        label_map: LabelMap,
        asked_map: BoolMap,
        logits: torch.Tensor,
    ) -> dict[str, Any]:
        is_asked = to_device(asked_map, self.device)
        if self.plan.candidate_rule == "class_power":
            drawn = self._draw_by_class(image_id, scores, label_map, is_asked, logits)
        else:
            drawn = self._draw(image_id, scores, is_asked)
        y, x = np.divmod(drawn.position.cpu().numpy(), label_map.shape[1])
        return {
            "y": y,
            "x": x,
            "superpixel_id": label_map[y, x].astype(np.int32),
            "score": drawn.score.cpu().numpy(),
            "predicted_class": drawn.predicted_class.cpu().numpy(),
            "rank": np.arange(len(y)),
        }

    def _draw(self, image_id: str, scores: PixelScores, is_asked: torch.Tensor) -> Candidates:
        plan = self.plan
        maps: dict[str, Any] = {
            "score": scores.score[0],
            "prediction": scores.prediction[0],
            "is_asked": is_asked,
            "count": plan.budget,
        }
        if plan.candidate_rule == "top":
            return top_candidates(**maps)
        stream = self._stream("candidates", image_id)
        if plan.candidate_rule == "class_balanced":
            return class_balanced_candidates(
                **maps, generator=stream, top_share=plan.options.top_share
            )
        if plan.candidate_rule == "power":
            options = PowerOptions.model_validate(plan.options.options)
            return power_candidates(
                **maps,
                power=options.power,
                radius=options.exclusion_radius,
                generator=stream,
            )
        share = plan.options.top_share
        assert share is not None
        return random_of_top_candidates(**maps, top_share=share, generator=stream)

    def _draw_by_class(
        self,
        image_id: str,
        scores: PixelScores,
        label_map: LabelMap,
        is_asked: torch.Tensor,
        logits: torch.Tensor,
    ) -> Candidates:
        options = ClassPowerOptions.model_validate(self.plan.options.options)
        full = to_size(logits, *label_map.shape)
        return class_power_candidates(
            score=scores.score[0],
            log_probabilities=torch.log_softmax(full, dim=1)[0],
            prediction=scores.prediction[0],
            is_asked=is_asked,
            superpixel_ids=to_device(label_map.astype(np.int32), self.device),
            count=self.plan.budget,
            class_share=options.class_share,
            power=options.power(self.plan.round_index),
            pixel_share=options.pixel_share,
            generator=self._stream("candidates", image_id),
        )

    def _image_row(self, scores: PixelScores, pooled: torch.Tensor) -> dict[str, Any]:
        return {
            "score": np.array([float(scores.score.double().mean())]),
            "feature": pooled.float().cpu().numpy()[None],
        }


def _on_host(values: Any) -> Any:
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else values


def _join(parts: list[Any]) -> Any:
    """Join columns of several images; rows of unequal length become lists."""
    if isinstance(parts[0], list):
        return [value for part in parts for value in part]
    if parts[0].ndim == 2 and len({part.shape[1] for part in parts}) > 1:
        return [row for part in parts for row in part]
    return np.concatenate(parts)
