"""Eq. 4 in one pass over tiles of a row of the working grid, a Triton kernel for CUDA devices.

The counterpart of `fused_cpu`: a program interpolates the logits of a few neighbouring pixels,
head by head, and uses them up in registers, so no full-resolution map with C channels ever
exists. Same results as the plain torch code in `pixel_scores`, to about 1e-6. Only
`pixel_scores` imports this module, where tensors are on a GPU: Triton comes with torch's CUDA
builds alone.
"""

# Kernels are Python in form only: operators and loops mean what Triton makes of them.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from madbal_ray.errors import ResourceError

# Padded classes x pixels of a program: 16 values a thread, so that nothing spills to memory.
VALUES_PER_PROGRAM = 2048
FEWEST_PIXELS, MOST_PIXELS = 32, 128
MOST_CLASSES_OF_FOUR_WARPS = 64


def _jit(function: Any) -> Any:
    return triton.jit(inspect.unwrap(function))  # without the shape checks of the tests


def fused_scores(
    *,
    logits: Tensor,
    head_logits: tuple[Tensor, ...],
    maturity_weights: Tensor | None,
    error_logits: Tensor | None,
    is_boundary: Tensor,
    entropy_factor: float,
    disagreement_factor: float,
    use_margin: bool,
) -> tuple[Tensor, Tensor]:
    """Return u(x) float32 [B, H, W] and the predicted class int64 [B, H, W].

    u = (entropy_factor H + disagreement_factor sum W JS) exp(predicted error), with the
    margin in place of the first term where `use_margin`. u is not finite wherever plain
    torch's is not: bad logits are found.

    Args:
        logits, head_logits, maturity_weights, error_logits, is_boundary: as in
            `pixel_scores`, on one CUDA device; any strides.

    Raises:
        ResourceError: tensors are not on a CUDA device, and Triton's interpreter is off.
    """
    if not logits.is_cuda and isinstance(_score, triton.JITFunction):
        raise ResourceError(
            f"logits are on {logits.device}; expected a CUDA device: call pixel_scores, which "
            "takes the kernel of the device, or set TRITON_INTERPRET=1 before Python starts"
        )
    batch, num_classes = logits.shape[:2]
    height, width = is_boundary.shape[-2:]
    score = torch.empty((batch, height, width), dtype=torch.float32, device=logits.device)
    prediction = torch.empty_like(score, dtype=torch.int64)
    has_heads = bool(head_logits) and maturity_weights is not None
    block_classes = triton.next_power_of_2(num_classes)
    pixels = min(max(VALUES_PER_PROGRAM // block_classes, FEWEST_PIXELS), MOST_PIXELS)
    with torch.cuda.device_of(logits):
        _score[(triton.cdiv(width, pixels), height, batch)](
            _argument(logits),
            tuple(_argument(head) for head in head_logits) if has_heads else (),
            _argument(maturity_weights if has_heads else None),
            _argument(error_logits),
            is_boundary.contiguous(),
            score,
            prediction,
            height,
            width,
            float(entropy_factor),
            float(disagreement_factor),
            math.log(num_classes),
            NUM_CLASSES=num_classes,
            BLOCK_CLASSES=block_classes,
            BLOCK_PIXELS=pixels,
            NUM_HEADS=len(head_logits) if has_heads else 0,
            HAS_ERRORS=error_logits is not None,
            USE_MARGIN=use_margin,
            num_warps=4 if block_classes <= MOST_CLASSES_OF_FOUR_WARPS else 8,
            enable_fp_fusion=True,  # said, because Triton's own default changes with 3.10
        )
    return score, prediction


def _argument(maps: Tensor | None) -> tuple[Any, ...] | None:
    """Return what the kernel needs of maps [B, C, h, w]: pointer, sizes, strides."""
    if maps is None:
        return None
    return (maps.detach(), *maps.shape[-2:], *maps.stride())


def _taps(place, old, new):
    """Return the two sources and the weight of the second, as `fused_cpu._taps` does.

    In integers, in units of 1 / (2 new): no rounding moves a source.
    """
    units = tl.maximum((2 * place.to(tl.int64) + 1) * old - new, 0)
    first = units // (2 * new)
    share = (units - first * (2 * new)).to(tl.float32) / (2.0 * new)
    second = tl.minimum(first + 1, old - 1)
    return first, second, share


_tap = _jit(_taps)


def _interpolated(maps, image, channel, y, x, height, width, is_real):
    """Return maps[image, channel] at (y, x) in float32; 0 where not `is_real`."""
    pointer, old_height, old_width, of_image, of_channel, of_y, of_x = maps
    top, bottom, down = _tap(y, old_height, height)
    left, right, across = _tap(x, old_width, width)
    start = pointer + image * of_image + channel * of_channel
    upper, lower = start + top * of_y, start + bottom * of_y
    a = tl.load(upper + left * of_x, mask=is_real, other=0.0).to(tl.float32)
    b = tl.load(lower + left * of_x, mask=is_real, other=0.0).to(tl.float32)
    c = tl.load(upper + right * of_x, mask=is_real, other=0.0).to(tl.float32)
    d = tl.load(lower + right * of_x, mask=is_real, other=0.0).to(tl.float32)
    on_left, on_right = a + down * (b - a), c + down * (d - c)
    return on_left + across * (on_right - on_left)


_interpolate = _jit(_interpolated)


def _clamped(values, low, high):
    """Return values between low and high, NaN as NaN, which tl.clamp would hide."""
    return tl.where(values < low, low, tl.where(values > high, high, values))


_clamp = _jit(_clamped)


def _probabilities(logits):
    """Return softmax over axis 0 and its entropy in nats, of logits [C, X]; -inf where padded."""
    shifted = logits - tl.max(logits, axis=0)[None, :]
    exps = tl.exp(shifted)
    total = tl.sum(exps, axis=0)
    terms = exps * tl.maximum(shifted, -200.0)  # exp is 0 below, and 0 * -inf would be NaN
    entropy = tl.log(total) - tl.sum(terms, axis=0) / total
    return exps / total[None, :], entropy


_softmax = _jit(_probabilities)


def _kernel(
    logits, head_logits, maturity_weights, error_logits, is_boundary, score, prediction,
    height, width, entropy_factor, disagreement_factor, most_entropy,
    NUM_CLASSES: tl.constexpr, BLOCK_CLASSES: tl.constexpr, BLOCK_PIXELS: tl.constexpr,
    NUM_HEADS: tl.constexpr, HAS_ERRORS: tl.constexpr, USE_MARGIN: tl.constexpr,
):  # fmt: skip
    LN2: tl.constexpr = 0.6931471805599453
    x = tl.program_id(0) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    is_inside = x < width
    x = tl.minimum(x, width - 1)
    y = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    pixel = (image * height + y) * width + x
    classes = tl.arange(0, BLOCK_CLASSES)[:, None]
    is_class = classes < NUM_CLASSES
    columns = x[None, :]

    full = _interpolate(logits, image, classes, y, columns, height, width, is_class)
    full = tl.where(is_class, full, -float("inf"))
    best = tl.argmax(full, axis=0)
    best = tl.minimum(best, NUM_CLASSES - 1)  # among NaN, a padded class may win
    tl.store(prediction + pixel, best.to(tl.int64), mask=is_inside)
    main, main_entropy = _softmax(full)
    main_entropy = _clamp(main_entropy, 0.0, most_entropy)
    if USE_MARGIN:
        highest = tl.max(main, axis=0)
        second = tl.max(tl.where(classes == best[None, :], 0.0, main), axis=0)
        result = _clamp(1.0 - (highest - second), 0.0, 1.0)
    else:
        result = entropy_factor * main_entropy
    for index in tl.static_range(NUM_HEADS):
        full = _interpolate(head_logits[index], image, classes, y, columns, height, width, is_class)
        other, other_entropy = _softmax(tl.where(is_class, full, -float("inf")))
        other_entropy = _clamp(other_entropy, 0.0, most_entropy)
        mixed = 0.5 * (main + other)
        terms = mixed * tl.log(tl.maximum(mixed, 1e-37))  # 0 log 0 is 0
        divergence = -tl.sum(terms, axis=0) - 0.5 * (main_entropy + other_entropy)
        weight = _interpolate(maturity_weights, image, index, y, x, height, width, is_inside)
        result += disagreement_factor * weight * _clamp(divergence, 0.0, LN2)
    if HAS_ERRORS:
        channel = tl.where(tl.load(is_boundary + pixel), 0, 1)
        error = _interpolate(error_logits, image, channel, y, x, height, width, is_inside)
        result *= tl.exp(tl.sigmoid(error))
    tl.store(score + pixel, result, mask=is_inside)


_score = _jit(_kernel)
