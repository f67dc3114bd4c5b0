"""Eq. 4 in one pass over tiles of a row of the working grid, a Triton kernel for CUDA devices.

The counterpart of `fused_cpu`: a program interpolates the logits of a few neighbouring pixels,
head by head, and uses them up in registers, so no full-resolution map with C channels ever
exists. Same results as the plain torch code in `pixel_scores`, to what float32 leaves. Only
`pixel_scores` imports this module, where tensors are on a GPU: Triton comes with torch's CUDA
builds alone.
"""

# Kernels are Python in form only: operators and loops mean what Triton makes of them.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import inspect
import math
import subprocess
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.errors import TritonError

from madbal_ray.errors import ResourceError

# Padded classes x pixels of a program, and of a warp: 16 values a thread, so that nothing spills
# to memory.
VALUES_PER_PROGRAM = 2048
VALUES_PER_WARP = 512
FEWEST_PIXELS, MOST_PIXELS = 32, 128

MOST_CELLS = 2**31 - 1
"""Of one image's maps: places in them are 32 bits wide. With 64, as general strides would ask
for, the kernel needs all registers of the card and memory beside them."""

MOST_SIDE = 2**15 - 1
"""Of the grid and of maps: the product of two positions, doubled, has 31 bits."""

CANNOT_COMPILE = (TritonError, subprocess.CalledProcessError, OSError)
"""What a kernel raises that cannot be built here: no `Python.h`, an assembler that is too old."""


def _jit(function: Any, **options: Any) -> Any:
    # without the shape checks of the tests
    return triton.jit(inspect.unwrap(function), **options)


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
            `pixel_scores`, on one CUDA device; any strides, but maps that are not contiguous
            (channels-last ones of networks) are copied, at their own low resolution.

    Raises:
        ResourceError: tensors are not on a CUDA device, and Triton's interpreter is off; or a
            map is larger than the kernel can address.
        Exception: one of `CANNOT_COMPILE`.
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
    heads = head_logits if has_heads else ()
    given = (logits, *heads, maturity_weights if has_heads else None, error_logits)
    maps = tuple(None if one is None else one.detach().contiguous() for one in given)
    sizes = tuple(None if one is None else tuple(map(_plain, one.shape[-2:])) for one in maps)
    _check_sizes(maps, height, width)
    with torch.cuda.device_of(logits):
        _score[(triton.cdiv(width, pixels), height, batch)](
            maps,
            sizes,
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
            NUM_HEADS=len(heads),
            HAS_ERRORS=error_logits is not None,
            USE_MARGIN=use_margin,
            num_warps=min(max(block_classes * pixels // VALUES_PER_WARP, 4), 32),
            enable_fp_fusion=True,  # said, because Triton's own default changes with 3.10
        )
    return score, prediction


def _plain(size: int) -> int:
    """Return a size as the kernel takes it: 16 n + 3, whose upper bits are n.

    Triton compiles anew for numbers that are 1 or divisible by 16, and for those in tuples does
    not let itself be told otherwise: a pool with images of many sizes would compile 2**10 kernels.
    """
    return 16 * size + 3


def _check_sizes(maps: tuple[Tensor | None, ...], height: int, width: int) -> None:
    for one in maps:
        if one is None:
            continue
        sides = (*one.shape[-2:], height, width)
        if one[0].numel() > MOST_CELLS or max(sides) > MOST_SIDE:
            raise ResourceError(
                f"maps of shape {tuple(one.shape)} for a grid of {height} x {width}; the kernel "
                f"takes sides up to {MOST_SIDE} and {MOST_CELLS} values an image: score smaller "
                "images (pool.working_resolution)"
            )


def _taps(place, old, new):
    """Return the two sources and the weight of the second, as `fused_cpu._taps` does.

    In integers, in units of 1 / (2 new): no rounding moves a source.
    """
    units = tl.maximum((2 * place + 1) * old - new, 0)
    first = units // (2 * new)
    share = (units - first * (2 * new)).to(tl.float32) / (2.0 * new)
    second = tl.minimum(first + 1, old - 1)
    return first, second, share


_tap = _jit(_taps)


def _interpolated(maps, size, channel, y, x, height, width, is_real):
    """Return maps[channel] of one image at (y, x) in float32; 0 where not `is_real`."""
    old_height, old_width = size[0] >> 4, size[1] >> 4
    top, bottom, down = _tap(y, old_height, height)
    left, right, across = _tap(x, old_width, width)
    start = channel * (old_height * old_width)
    upper, lower = start + top * old_width, start + bottom * old_width
    a = tl.load(maps + (upper + left), mask=is_real, other=0.0).to(tl.float32)
    b = tl.load(maps + (lower + left), mask=is_real, other=0.0).to(tl.float32)
    c = tl.load(maps + (upper + right), mask=is_real, other=0.0).to(tl.float32)
    d = tl.load(maps + (lower + right), mask=is_real, other=0.0).to(tl.float32)
    on_left, on_right = a + down * (b - a), c + down * (d - c)
    return on_left + across * (on_right - on_left)


_interpolate = _jit(_interpolated)


def _image(maps, size, channels, image):
    """Return where an image's maps begin; the one place that needs 64 bits."""
    return maps + image * channels * (size[0] >> 4) * (size[1] >> 4)


_image_of = _jit(_image)


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
    maps, sizes, is_boundary, score, prediction,
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

    logits = _image_of(maps[0], sizes[0], NUM_CLASSES, image)
    full = _interpolate(logits, sizes[0], classes, y, columns, height, width, is_class)
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
        head = _image_of(maps[index + 1], sizes[index + 1], NUM_CLASSES, image)
        full = _interpolate(head, sizes[index + 1], classes, y, columns, height, width, is_class)
        other, other_entropy = _softmax(tl.where(is_class, full, -float("inf")))
        other_entropy = _clamp(other_entropy, 0.0, most_entropy)
        mixed = 0.5 * (main + other)
        terms = mixed * tl.log(tl.maximum(mixed, 1e-37))  # 0 log 0 is 0
        divergence = -tl.sum(terms, axis=0) - 0.5 * (main_entropy + other_entropy)
        weights = _image_of(maps[NUM_HEADS + 1], sizes[NUM_HEADS + 1], NUM_HEADS, image)
        weight = _interpolate(weights, sizes[NUM_HEADS + 1], index, y, x, height, width, is_inside)
        result += disagreement_factor * weight * _clamp(divergence, 0.0, LN2)
    if HAS_ERRORS:
        channel = tl.where(tl.load(is_boundary + pixel), 0, 1)
        errors = _image_of(maps[NUM_HEADS + 2], sizes[NUM_HEADS + 2], 2, image)
        error = _interpolate(errors, sizes[NUM_HEADS + 2], channel, y, x, height, width, is_inside)
        result *= tl.exp(tl.sigmoid(error))
    tl.store(score + pixel, result, mask=is_inside)


_score = _jit(_kernel, do_not_specialize=["height", "width"])
