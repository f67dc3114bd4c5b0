"""u(x): entropy, disagreement between maturities, predicted error (paper Eq. 4)."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from torch.nn import functional as F

from madbal_ray.errors import ShapeError

LN2 = math.log(2.0)


@dataclass(frozen=True)
class PixelScores:
    """Per-pixel results on the working grid.

    Attributes:
        score: u(x), 0 <= u <= (ln C + ln 2) e; higher = ask first.
        prediction: predicted class id; ties go to the lower id.
    """

    score: Float32[Tensor, "B H W"]
    prediction: Int64[Tensor, "B H W"]


def pixel_scores(
    *,
    logits: Float[Tensor, "B C h w"],
    head_logits: tuple[Tensor, ...],
    maturity_weights: Float[Tensor, "B num_heads hw ww"] | None,
    error_logits: Float[Tensor, "B 2 he we"] | None,
    is_boundary: Bool[Tensor, "B H W"],
    normalize_terms: bool = False,
    uncertainty: Literal["entropy", "margin"] = "entropy",
) -> PixelScores:
    """Return u(x) and the predicted class of every pixel of the working grid.

    u(x) = (H(Y) + sum_k W^k JS(Y, Y^k)) * exp(sigmoid(error of x's channel)), in float32
    whatever the model's precision. Maps of another size are brought to H x W bilinearly
    (align_corners=False): logits before softmax, error logits before sigmoid, weights as
    they are. An absent input drops its term: no heads or no weights, no JS; no error
    logits, no exponential.

    Args:
        logits: final head, torch, any float precision.
        head_logits: one tensor [B, C, hk, wk] per maturity head, shallow first; may be empty.
        maturity_weights: W, one channel per head, sums to 1 over channels.
        error_logits: loss prediction module; channel 0 boundary, channel 1 center.
        is_boundary: delta of the pixel (`madbal_ray.vision.boundary.boundary_map`).
        normalize_terms: divide H by ln C and JS by ln 2; an option, not the paper's.
        uncertainty: H, or the margin 1 - (p1 - p2) in its place; an option, not the paper's.

    Raises:
        ShapeError: heads and weights do not match, or channels differ.

    Source: MADBAL Eq. 4.
    """
    _check(logits, head_logits, maturity_weights, error_logits)
    maps = {
        "logits": logits,
        "head_logits": head_logits,
        "maturity_weights": maturity_weights,
        "error_logits": error_logits,
        "is_boundary": is_boundary,
    }
    result = _by_kernel(
        maps,
        entropy_factor=1.0 / math.log(logits.shape[1]) if normalize_terms else 1.0,
        disagreement_factor=1.0 / LN2 if normalize_terms else 1.0,
        use_margin=uncertainty == "margin",
    )
    if result is not None:
        return PixelScores(*result)
    return torch_pixel_scores(**maps, normalize_terms=normalize_terms, uncertainty=uncertainty)


def _by_kernel(maps: dict[str, Any], **options: Any) -> tuple[Tensor, Tensor] | None:
    """Return what the fused kernel of the device says; None: plain torch has to do."""
    device = maps["logits"].device
    kernel = _kernel_of(device)
    if kernel is None or device.type in _unbuilt:
        return None
    if device.type == "cpu":
        if not _is_finite(maps):
            return None  # the kernel takes finite numbers; others must stay so, to be found
        return kernel(**maps, **options)
    from madbal_ray.scoring.fused_cuda import CANNOT_COMPILE

    try:
        return kernel(**maps, **options)
    except CANNOT_COMPILE as error:
        _unbuilt.add(device.type)
        warnings.warn(
            f"the kernel for pixel scores cannot be compiled here ({error}): they are computed in "
            "plain torch, with the same results, more memory and more time; Triton needs a C "
            "compiler and Python's headers (Python.h, package python3-dev)",
            RuntimeWarning,
            stacklevel=3,
        )
        return None


_unbuilt: set[str] = set()
"""Types of devices whose kernel could not be compiled in this process."""


def _is_finite(maps: dict[str, Any]) -> bool:
    """Whether all maps are finite, by their sums, which take a fraction of a look at each value.

    A finite sum has finite terms; finite terms whose sum overflows count as not finite, which
    costs time and changes no result.
    """
    given = (maps["logits"], *maps["head_logits"], maps["maturity_weights"], maps["error_logits"])
    return all(math.isfinite(one.sum(dtype=torch.float32)) for one in given if one is not None)


def _kernel_of(device: torch.device) -> Callable[..., tuple[Tensor, Tensor]] | None:
    """Return the fused kernel for a device; None: plain torch has to do."""
    if device.type == "cpu":
        from madbal_ray.scoring.fused_cpu import fused_scores

        return fused_scores
    if device.type == "cuda" and _has_triton():
        from madbal_ray.scoring.fused_cuda import fused_scores

        return fused_scores
    return None


@cache
def _has_triton() -> bool:
    if importlib.util.find_spec("triton") is None:
        lack = "Triton is not installed, which torch's own wheels for Linux bring"
    elif not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        lack = "Triton finds no C compiler (CC, gcc, clang), which it builds its launcher with"
    else:
        return True
    warnings.warn(
        f"{lack}: pixel scores are computed in plain torch, with the same results, more memory "
        "and more time; install what lacks to get the kernel",
        RuntimeWarning,
        stacklevel=2,
    )
    return False


def torch_pixel_scores(
    *,
    logits: Tensor,
    head_logits: tuple[Tensor, ...],
    maturity_weights: Tensor | None,
    error_logits: Tensor | None,
    is_boundary: Tensor,
    normalize_terms: bool = False,
    uncertainty: Literal["entropy", "margin"] = "entropy",
) -> PixelScores:
    """Return what `pixel_scores` returns, in plain torch on any device.

    What the fused kernels are tested against, and what runs on a device that has none.
    """
    height, width = is_boundary.shape[-2:]
    full_logits = to_size(logits, height, width)
    log_probabilities = torch.log_softmax(full_logits, dim=1)
    prediction = full_logits.argmax(dim=1)
    final_entropy = entropy(log_probabilities)
    if uncertainty == "margin":
        score = margin(log_probabilities)
    elif normalize_terms:
        score = final_entropy / math.log(logits.shape[1])
    else:
        score = final_entropy
    if head_logits and maturity_weights is not None:
        disagreement = maturity_disagreement(
            log_probabilities, head_logits, maturity_weights, final_entropy=final_entropy
        )
        score = score + (disagreement / LN2 if normalize_terms else disagreement)
    if error_logits is not None:
        score = score * predicted_error(error_logits, is_boundary).exp()
    return PixelScores(score=score, prediction=prediction)


def maturity_disagreement(
    log_probabilities: Float32[Tensor, "B C H W"],
    head_logits: tuple[Tensor, ...],
    maturity_weights: Float[Tensor, "B num_heads hw ww"],
    *,
    final_entropy: Float32[Tensor, "B H W"],
) -> Float32[Tensor, "B H W"]:
    """Return sum_k W^k JS(Y, Y^k), 0..ln 2: the second term of Eq. 4.

    Args:
        log_probabilities: of the main head, on the working grid.
        final_entropy: H(Y).
    """
    height, width = log_probabilities.shape[-2:]
    weights = to_size(maturity_weights, height, width)
    total = torch.zeros_like(final_entropy)
    for index, one_head in enumerate(head_logits):
        head_log = torch.log_softmax(to_size(one_head, height, width), dim=1)
        divergence = jensen_shannon_divergence(
            log_probabilities, head_log, first_entropy=final_entropy
        )
        total = total + weights[:, index] * divergence
    return total


def predicted_error(
    error_logits: Float[Tensor, "B 2 he we"], is_boundary: Bool[Tensor, "B H W"]
) -> Float32[Tensor, "B H W"]:
    """Return the loss prediction module's probability of an error: the exponent of Eq. 4."""
    errors = to_size(error_logits, *is_boundary.shape[-2:])
    return torch.where(is_boundary, errors[:, 0], errors[:, 1]).sigmoid()


def entropy(log_probabilities: Float32[Tensor, "B C H W"]) -> Float32[Tensor, "B H W"]:
    """Return H(P) in nats, 0 <= H <= ln C; 0 log 0 is 0, so one-hot inputs are finite."""
    probabilities = log_probabilities.exp()
    terms = torch.special.xlogy(probabilities, probabilities)
    return (-terms.sum(dim=1)).clamp(0.0, math.log(log_probabilities.shape[1]))


def margin(log_probabilities: Float32[Tensor, "B C H W"]) -> Float32[Tensor, "B H W"]:
    """Return 1 - (p1 - p2) of the two likeliest classes, 0..1."""
    best, second = log_probabilities.topk(2, dim=1).values.exp().unbind(dim=1)
    return (1.0 - (best - second)).clamp(0.0, 1.0)


def jensen_shannon_divergence(
    first: Float32[Tensor, "B C H W"],
    second: Float32[Tensor, "B C H W"],
    *,
    first_entropy: Float32[Tensor, "B H W"] | None = None,
) -> Float32[Tensor, "B H W"]:
    """Return JS(P, Q) = H((P + Q)/2) - (H(P) + H(Q))/2 in nats, 0 <= JS <= ln 2.

    Args:
        first: log-probabilities of P.
        second: log-probabilities of Q.
        first_entropy: H(P), where the caller has it already.
    """
    mixture = (first.exp() + second.exp()) / 2
    of_mixture = -torch.special.xlogy(mixture, mixture).sum(dim=1)
    of_first = entropy(first) if first_entropy is None else first_entropy
    return (of_mixture - (of_first + entropy(second)) / 2).clamp(0.0, LN2)


def to_size(maps: Tensor, height: int, width: int) -> Tensor:
    """Bring maps to H x W in float32, bilinear, pixel centres at (i + 1/2) / n."""
    maps = maps.float()
    if maps.shape[-2:] == (height, width):
        return maps
    return F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)


def _check(
    logits: Tensor,
    head_logits: tuple[Tensor, ...],
    maturity_weights: Tensor | None,
    error_logits: Tensor | None,
) -> None:
    batch, num_classes = logits.shape[:2]
    for index, one_head in enumerate(head_logits):
        if one_head.shape[:2] != (batch, num_classes):
            raise ShapeError(
                f"head_logits[{index}] has shape {tuple(one_head.shape)}; expected "
                f"[{batch}, {num_classes}, h, w] like logits"
            )
    if head_logits and maturity_weights is not None:
        expected = (batch, len(head_logits))
        if maturity_weights.shape[:2] != expected:
            raise ShapeError(
                f"maturity_weights has shape {tuple(maturity_weights.shape)}; expected "
                f"[{expected[0]}, {expected[1]}, h, w]: one channel per head"
            )
    if error_logits is not None and error_logits.shape[:2] != (batch, 2):
        raise ShapeError(
            f"error_logits has shape {tuple(error_logits.shape)}; expected [{batch}, 2, h, w]: "
            "boundary, center"
        )
