"""Compiling loops for CPUs (numba): one place for options, and float32 exp and log that vectorise.

Calls into libm keep LLVM from vectorising a loop; these are polynomials over the bits of a
float (after Cephes), exact to about two units in the last place.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# Numba's OpenMP layer would set the number of threads of torch's OpenMP too: torch would then
# add in another order after the first kernel than before it, and results would depend on history.
numba.config.THREADING_LAYER = "workqueue"  # pyright: ignore

LOG2E = np.float32(1.44269504)
LN2_HIGH = np.float32(0.693359375)
LN2_LOW = np.float32(-2.12194440e-4)
LOWEST = np.float32(-87.0)
SMALLEST = np.float32(1.17549435e-38)
SQRT_HALF = np.float32(0.70710678)


def compiled(*, parallel: bool = False, inline: bool = False) -> Callable[[Any], Any]:
    """Return a decorator that compiles a function once and keeps the result on disk.

    Additions may be contracted to fused ones, but never reordered across loop iterations:
    results do not depend on the number of threads.
    """

    def decorate(function: Any) -> Any:
        bare = inspect.unwrap(function)  # without the shape checks that tests put around it
        return numba.njit(
            cache=True,
            nogil=True,
            parallel=parallel,
            inline="always" if inline else "never",
            fastmath={"contract", "nnan", "ninf"},
            error_model="numpy",
            boundscheck=False,
        )(bare)

    return decorate


def _build_float_of_bits(context, bits):
    def build(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), build


def _build_bits_of_float(context, value):
    def build(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), build


_float_of_bits: Any = intrinsic(inspect.unwrap(_build_float_of_bits))
_bits_of_float: Any = intrinsic(inspect.unwrap(_build_bits_of_float))


def _exp(x):
    x = max(x, LOWEST)
    n = np.floor(x * LOG2E + np.float32(0.5))
    r = x - n * LN2_HIGH - n * LN2_LOW
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1.0)
    return p * _float_of_bits((np.int32(n) + np.int32(127)) << np.int32(23))


def _log(x):
    bits = _bits_of_float(max(x, SMALLEST))
    exponent = np.float32((bits >> np.int32(23)) - np.int32(126))
    mantissa = _float_of_bits((bits & np.int32(0x007FFFFF)) | np.int32(0x3F000000))
    is_small = mantissa < SQRT_HALF
    exponent = exponent - (np.float32(1.0) if is_small else np.float32(0.0))
    m = mantissa + (mantissa if is_small else np.float32(0.0)) - np.float32(1.0)
    z = m * m
    p = np.float32(7.0376836292e-2)
    p = p * m + np.float32(-1.1514610310e-1)
    p = p * m + np.float32(1.1676998740e-1)
    p = p * m + np.float32(-1.2420140846e-1)
    p = p * m + np.float32(1.4249322787e-1)
    p = p * m + np.float32(-1.6668057665e-1)
    p = p * m + np.float32(2.0000714765e-1)
    p = p * m + np.float32(-2.4999993993e-1)
    p = p * m + np.float32(3.3333331174e-1)
    y = p * m * z + exponent * LN2_LOW - np.float32(0.5) * z
    return m + y + exponent * LN2_HIGH


exp32 = compiled(inline=True)(_exp)
"""e**x for x <= 0, float32."""

log32 = compiled(inline=True)(_log)
"""ln x for x > 0, float32; 0 counts as the smallest normal number."""
