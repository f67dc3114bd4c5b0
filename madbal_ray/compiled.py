"""Compiling loops for CPUs (numba): one place for options, and float32 exp and log that vectorise.

Calls into libm keep LLVM from vectorising a loop; these are polynomials over the bits of a
float, fitted for the least largest error, exact to about two units in the last place. Their
ranges are reduced by integer arithmetic: no comparison, no rounding instruction.
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

LOG2E = np.float32(1.44269504)
LN2_OF_EXPONENT = np.float32(0.693147181 / 2**23)
LN2_HIGH = np.float32(0.693359375)
LN2_LOW = np.float32(-2.12194440e-4)
LOWEST = np.float32(-87.0)
SMALLEST = np.float32(1.17549435e-38)
ROUNDER = np.float32(12582912.0)
"""1.5 * 2**23: added to a float it leaves the nearest whole number in the lowest bits."""
TWO_THIRDS_BITS = np.int32(0x3F2AAAAB)
EXPONENT_BITS = np.int32(-0x800000)


def compiled(*, inline: bool = False) -> Callable[[Any], Any]:
    """Return a decorator that compiles a function once and keeps the result on disk.

    Additions may be contracted to fused ones, but never reordered across loop iterations. Other
    threads run meanwhile, so callers may share the work out (`fused_cpu.in_parts`).
    """

    def decorate(function: Any) -> Any:
        bare = inspect.unwrap(function)  # without the shape checks that tests put around it
        return numba.njit(
            cache=True,
            nogil=True,
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
    shifted = max(x, LOWEST) * LOG2E + ROUNDER
    n = shifted - ROUNDER
    r = max(x, LOWEST) - n * LN2_HIGH
    r = r - n * LN2_LOW
    p = np.float32(1.3814539e-3)
    p = p * r + np.float32(8.3687454e-3)
    p = p * r + np.float32(4.1668390e-2)
    p = p * r + np.float32(1.6666521e-1)
    p = p * r + np.float32(4.9999994e-1)
    p = p * r * r + r + np.float32(1.0)
    return _float_of_bits(_bits_of_float(p) + (_bits_of_float(shifted) << np.int32(23)))


def _log_of_normal(x):
    bits = _bits_of_float(x)
    exponent = np.int32((bits - TWO_THIRDS_BITS) & EXPONENT_BITS)
    m = _float_of_bits(bits - exponent) - np.float32(1.0)  # -1/3..1/3
    p = np.float32(1.4026265e-1)
    p = p * m + np.float32(-1.5388574e-1)
    p = p * m + np.float32(1.3995825e-1)
    p = p * m + np.float32(-1.6415955e-1)
    p = p * m + np.float32(2.0011167e-1)
    p = p * m + np.float32(-2.5007820e-1)
    p = p * m + np.float32(3.3333197e-1)
    p = p * m + np.float32(-4.9999937e-1)
    return np.float32(exponent) * LN2_OF_EXPONENT + (p * (m * m) + m)


exp32 = compiled(inline=True)(_exp)
"""e**x for x from -87 to 87, float32; less counts as -87."""

log32_of_normal = compiled(inline=True)(_log_of_normal)
"""ln x for x >= `SMALLEST`, float32."""


def _log(x):
    return log32_of_normal(max(x, SMALLEST))


log32 = compiled(inline=True)(_log)
"""ln x for x > 0, float32; 0 counts as the smallest normal number."""
