"""One image -> everything the network says of it, term by term; for reports, not for queries."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from madbal_ray.arrays import BoolMap
from madbal_ray.models.inputs import stack_inputs
from madbal_ray.models.network import SegmentationNetwork
from madbal_ray.pool.features.stored_taps import NetworkInput
from madbal_ray.scoring.pixel_scores import (
    entropy,
    margin,
    maturity_disagreement,
    predicted_error,
    to_size,
)
from madbal_ray.scoring.registry import ScoreOptions, Views
from madbal_ray.seams import SCORES


@dataclass(frozen=True)
class Explanation:
    """Maps of one image on the working grid.

    Attributes:
        signals: name -> [H, W], higher = more doubtful: ``entropy``, ``margin``; with
            supports also ``maturity`` (sum of W JS), ``predicted_error`` and ``score``
            (u(x), Eq. 4 with the strategy's options).
        predictions: ``final`` and, with supports, ``head_1``… (shallow first): [H, W] ids.
    """

    signals: dict[str, torch.Tensor]
    predictions: dict[str, torch.Tensor]


def explain_image(
    network: SegmentationNetwork,
    inputs: NetworkInput,
    boundary: BoolMap,
    *,
    options: ScoreOptions,
    device: torch.device,
) -> Explanation:
    """Run the network on one image and take its score apart.

    Args:
        network: in eval mode, on `device`.
        inputs: what the network takes of the image.
        boundary: delta, on the working grid.
    """
    height, width = boundary.shape
    with torch.inference_mode():
        output = network(stack_inputs([inputs], device), supports=True)
        is_boundary = torch.from_numpy(boundary)[None].to(device)
        logs = torch.log_softmax(to_size(output.logits, height, width), dim=1)
        final_entropy = entropy(logs)
        signals = {"entropy": final_entropy, "margin": margin(logs)}
        predictions = {"final": logs.argmax(dim=1)}
        for index, head in enumerate(output.head_logits, start=1):
            predictions[f"head_{index}"] = to_size(head, height, width).argmax(dim=1)
        if output.maturity_weights is not None:
            signals["maturity"] = maturity_disagreement(
                logs, output.head_logits, output.maturity_weights, final_entropy=final_entropy
            )
        if output.error_logits is not None:
            signals["predicted_error"] = predicted_error(output.error_logits, is_boundary)
            views = Views(
                output.logits,
                is_boundary,
                output.head_logits,
                output.maturity_weights,
                output.error_logits,
            )
            signals["score"] = SCORES["madbal"].function(views, options).score
    return Explanation(
        {name: value[0].cpu() for name, value in signals.items()},
        {name: value[0].cpu() for name, value in predictions.items()},
    )
