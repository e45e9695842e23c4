"""The float32 Box-Muller transform to the last bit of PyTorch's.

PyTorch evaluates it with Cephes' single-precision polynomials and fused multiply-adds. The same
steps are taken here on whole arrays: a fused step is one float64 multiply and add, in which the
product of two float32 values is exact, rounded to float32.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .random import fma32

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def _single(*values: float) -> tuple[float, ...]:
    """Constants rounded to float32."""
    return tuple(float(np.float32(value)) for value in values)


_ONE, _HALF = np.float32(1), np.float32(0.5)
_TWO_PI = np.float32(2 * math.pi)
_SQRT_HALF = np.float32(math.sqrt(0.5))
# ln 2 in two parts, the first with few enough bits that a multiple of it is exact.
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LOG = _single(
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
_PI_QUARTER_PARTS = _single(-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8)
_SIN = _single(-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS = _single(2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)


def normal32(uniforms: Array, mean: np.float32, std: np.float32) -> Array:
    """Turn float32 ``uniforms``, whole groups of 16, into normal values."""
    groups = uniforms.reshape(-1, 2, 8)
    radius = np.sqrt(np.float32(-2) * _log((_ONE - groups[:, 0]).reshape(-1)))
    sin, cos = _sin_cos((_TWO_PI * groups[:, 1]).reshape(-1))
    out = np.empty_like(groups)
    out[:, 0] = (radius * cos).reshape(-1, 8)
    out[:, 1] = (radius * sin).reshape(-1, 8)
    flat = out.reshape(-1)
    return flat if mean == 0 and std == 1 else fma32(flat, std, mean)


def _polynomial(x: Array, coefficients: tuple[float, ...]) -> Array:
    """Horner's rule, fused; highest power first."""
    wide = x.astype(np.float64)
    step, total = wide * coefficients[0], np.empty_like(x)
    for coefficient in coefficients[1:-1]:
        step += coefficient
        total[...] = step
        step[...] = total
        step *= wide
    step += coefficients[-1]
    total[...] = step
    return total


def _log(x: Array) -> Array:
    """The natural logarithm of values in (0, 1]."""
    bits = x.view(np.int32)
    fraction = ((bits & 0x7FFFFF) | 0x3F000000).view(np.float32)  # in [0.5, 1)
    small = (fraction < _SQRT_HALF).astype(np.float32)
    exponent = (bits >> 23).astype(np.float32)
    exponent -= np.float32(126)
    exponent -= small
    y = fraction - _ONE
    y += fraction * small
    square = y * y
    series = _polynomial(y, _LOG) * y
    series = fma32(series, square, exponent * _LN2_LOW)
    series = fma32(square, -_HALF, series)
    y += series
    return fma32(exponent, _LN2_HIGH, y)


def _sin_cos(x: Array) -> tuple[Array, Array]:
    """Sine and cosine of angles in [0, 2 pi]."""
    octant = (x * np.float32(4 / math.pi)).astype(np.int32)
    octant += octant & 1
    turns = octant.astype(np.float32)
    for part in _PI_QUARTER_PARTS:
        x = fma32(turns, part, x)
    square = x * x
    near_sin = fma32(_polynomial(square, _SIN) * square, x, x)
    near_cos = _polynomial(square, _COS) * square
    near_cos = fma32(near_cos, square, square * -_HALF)
    near_cos += _ONE
    swap = (octant & 2).astype(np.bool_)
    sin, cos = np.where(swap, near_cos, near_sin), np.where(swap, near_sin, near_cos)
    sign = np.int32(-(2**31))
    np.bitwise_xor(sin.view(np.int32), (octant << 29) & sign, out=sin.view(np.int32))
    np.bitwise_xor(cos.view(np.int32), ((octant + 2) << 29) & sign, out=cos.view(np.int32))
    return sin, cos
