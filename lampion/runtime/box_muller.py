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

_ONE, _HALF = np.float32(1), np.float32(0.5)
_TWO_PI = np.float32(2 * math.pi)
_SQRT_HALF = np.float32(math.sqrt(0.5))
# ln 2 in two parts, the first with few enough bits that a multiple of it is exact.
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
_PI_QUARTER_PARTS = (-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8)
_SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)


def normal32(uniforms: Array, mean: np.float32, std: np.float32) -> Array:
    """Turn float32 ``uniforms``, whole groups of 16, into normal values."""
    groups = uniforms.reshape(-1, 2, 8)
    radius = np.sqrt(np.float32(-2) * _log(_ONE - groups[:, 0]))
    sin, cos = _sin_cos(_TWO_PI * groups[:, 1])
    out = np.empty_like(groups)
    np.multiply(radius, cos, out=out[:, 0])
    np.multiply(radius, sin, out=out[:, 1])
    flat = out.reshape(-1)
    return flat if mean == 0 and std == 1 else fma32(flat, std, mean)


def _polynomial(x: Array, coefficients: tuple[float, ...]) -> Array:
    """Horner's rule, fused; highest power first."""
    wide = x.astype(np.float64)
    total: Any = np.float32(coefficients[0])
    for coefficient in coefficients[1:]:
        step = wide * total
        step += np.float32(coefficient)
        total = step.astype(np.float32)
    return np.asarray(total)


def _log(x: Array) -> Array:
    """The natural logarithm of values in (0, 1]."""
    bits = x.view(np.int32)
    fraction = ((bits & 0x7FFFFF) | 0x3F000000).view(np.float32)  # in [0.5, 1)
    small = fraction < _SQRT_HALF
    exponent = ((bits >> 23) - 126 - small).astype(np.float32)
    y = (fraction - _ONE) + fraction * small
    square = y * y
    series = _polynomial(y, _LOG) * y
    series = fma32(series, square, exponent * _LN2_LOW)
    series = fma32(square, -_HALF, series)
    return fma32(exponent, _LN2_HIGH, y + series)


def _sin_cos(x: Array) -> tuple[Array, Array]:
    """Sine and cosine of angles in [0, 2 pi]."""
    octant = (x * np.float32(4 / math.pi)).astype(np.int32)
    octant += octant & 1
    turns = octant.astype(np.float32)
    for part in _PI_QUARTER_PARTS:
        x = fma32(turns, np.float32(part), x)
    square = x * x
    near_sin = fma32(_polynomial(square, _SIN) * square, x, x)
    near_cos = _polynomial(square, _COS) * square
    near_cos = fma32(near_cos, square, square * -_HALF) + _ONE
    swap = (octant & 2) != 0
    sin, cos = np.where(swap, near_cos, near_sin), np.where(swap, near_sin, near_cos)
    np.negative(sin, out=sin, where=(octant & 4) != 0)
    np.negative(cos, out=cos, where=((octant + 2) & 4) != 0)
    return sin, cos
