"""The error function in NumPy, which has none.

float64: Chebyshev series of erf(x)/x below 1 and of the scaled erfc above (error under 1e-15).
float32: one rational function over the whole range (error under 4e-7), much faster.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .gamma import horner

Array = Any

_NEAR = (
    0.9754769393826541, -0.14226120510371365, 0.010035582187599796, -0.0005768764699767485,
    2.741993125219606e-05, -1.1043175507344507e-06, 3.8488755420345036e-08,
    -1.1808582533875466e-09, 3.2334215826050907e-11, -7.991015947004549e-13,
    1.799072511396137e-14, -3.7186354877527125e-16, 7.103598527027531e-18,
)
_FAR = (
    1.214373361609205, -0.08560693623397121, -0.005999640519915682, 0.007801951554945334,
    -0.002715651717391105, 0.0006115494911330234, -9.340626641960768e-05, 7.818816898966098e-06,
    2.7197258578141963e-07, -1.6637239214622205e-07, 1.3133701262289988e-08,
    2.0754203597909473e-09, -4.4148718962068737e-10, -1.796735176514085e-11,
    1.1481428873007298e-11, -2.8074606840541898e-14, -3.012251024442522e-13,
    7.106503401941263e-15, 8.542035875615259e-15, -2.3292977504044383e-16, -2.6466793810280806e-16,
)
_P = (
    1.1283791691415348, 2.962157200140213, 13.886175813324611, 15.722366723374446,
    24.688250501599953, 4.8318382192692475, -0.2146358513520677,
)
_Q = (
    1.0, 7.95847796583455, 29.151396142077875, 63.199547541997426, 85.2906301052256,
    65.41807520435066,
)
_ONE_FROM = 3.919206  # erf is 1 in float32 from here on


def erf(x: Array) -> Array:
    """The error function of a float32 or float64 array."""
    if hasattr(x, "special"):  # a symbol: kernels have their own
        return x.special("erf")
    return _erf64(x) if x.dtype == np.float64 else _erf32(x)


def _erf32(x: Array) -> Array:
    x = np.clip(x, np.float32(-_ONE_FROM), np.float32(_ONE_FROM))
    u = x * x * np.float32(1 / 16)
    result = x * (_horner32(_P, u) / _horner32(_Q, u))
    return np.clip(result, np.float32(-1), np.float32(1), out=result if result.ndim else None)


def _horner32(coefficients: tuple[float, ...], u: Array) -> Array:
    total = u * np.float32(coefficients[-1]) + np.float32(coefficients[-2])
    for c in coefficients[-3::-1]:
        total = total * u + np.float32(c)
    return total


def _chebyshev(t: Array, coefficients: tuple[float, ...]) -> Array:
    """Clenshaw's recurrence."""
    last, before = 2 * t * coefficients[-1] + coefficients[-2], coefficients[-1]
    for c in coefficients[-3:0:-1]:
        last, before = 2 * t * last - before + c, last
    return t * last - before + coefficients[0]


def _erf64(x: Array) -> Array:
    size = np.abs(x)
    near = x * _chebyshev(2 * np.minimum(size * size, 1) - 1, _NEAR)
    far = np.copysign(1 - scaled_erfc(size) * np.exp(-size * size), x)
    return np.where(size < 1, near, far)


def scaled_erfc(x: Array) -> Array:
    """exp(x*x) * erfc(x) for x >= 1."""
    x = np.minimum(np.maximum(x, 1), 1e154)
    t = (x - 3) / (x + 3)
    return _chebyshev((4 * t - 1) / 3, _FAR) / (1 + 2 * x)


# --- the complement and the inverse ---------------------------------------------------------------


def _decay(x: Array) -> Array:
    """exp(-x*x) with the rounding of the square made good."""
    head = x.astype(np.float32).astype(np.float64)
    with np.errstate(all="ignore"):
        return np.exp(-head * head) * np.exp(-(x - head) * (x + head))


def erfc(x: Array) -> Array:
    """1 - erf(x), without cancellation for large x; float64."""
    if hasattr(x, "special"):
        return x.special("erfc")
    far = scaled_erfc(x) * _decay(np.minimum(np.maximum(x, 1), 40))
    return np.where(x >= 1, far, 1 - _erf64(np.minimum(x, 1)))


def erfcx(x: Array) -> Array:
    """exp(x*x) * erfc(x); float64."""
    inner = np.maximum(np.minimum(x, 1), -30)  # it is infinite from -27 down
    with np.errstate(all="ignore"):
        near = erfc(inner) / _decay(inner)
    return np.where(x == np.inf, 0.0, np.where(x >= 1, scaled_erfc(x), near))


# Giles, "Approximating the erfinv function" (2010), single precision: where Newton's steps start,
# by the logarithm w of 1 - x*x below 5, and by its root s up to 4; beyond that by a parabola.
_START = (1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.00021858087,
          -4.39150654e-06, -3.5233877e-06, 3.43273939e-07, 2.81022636e-08)
_TAIL = (2.83297682, 1.00167406, 0.00943887047, -0.0076224613, 0.00573950773, -0.00367342844,
         0.00134934322, 0.000100950558, -0.000200214257)
_BEYOND = (0.0, 1.01011, -2.77261e-06)
_ROOT_PI = 1.7724538509055160273


def _near_inverse(size: Array, rest: Array) -> Array:
    """About erfinv(size) for 0 <= size < 1 and rest = 1 - size."""
    w = -np.log(rest * (1 + size))
    s = np.sqrt(np.maximum(w, 5))
    tail = horner(_TAIL, np.minimum(s, 4) - 3) + horner(_BEYOND, np.maximum(s - 4, 0))
    return size * np.where(w < 5, horner(_START, np.minimum(w, 5) - 2.5), tail)


def erfinv(x: Array) -> Array:
    """The inverse of erf, by two of Halley's steps; float64."""
    size = np.abs(x)
    rest = 1 - size
    with np.errstate(all="ignore"):
        y = _near_inverse(size, rest)
        for _ in range(2):
            miss = np.where(size < 0.5, erf(y) - size, rest - erfc(y))
            step = miss * np.exp(y * y) * (_ROOT_PI / 2)
            y = y - step / (1 + y * step)
    return np.copysign(np.where(rest == 0, np.inf, y), x)


def erfcinv(q: Array) -> Array:
    """The inverse of erfc for 0 <= q <= 1, by Newton's steps on its logarithm; float64."""
    with np.errstate(all="ignore"):
        target = np.log(np.clip(q, 5e-324, 1))
        y = np.sqrt(np.maximum(-target - 0.5 * np.log(np.maximum(-3 * target, 1)), 0.05))
        for _ in range(7):
            scaled = erfcx(y)
            y = np.maximum(y + (np.log(scaled) - y * y - target) * scaled * (_ROOT_PI / 2), 0)
    return np.where(q == 0, np.inf, np.where((q < 0) | np.isnan(q), np.nan, y))


def log_ndtr(x: Array) -> Array:
    """The logarithm of the normal distribution function; float64."""
    z = x * np.sqrt(0.5)
    with np.errstate(all="ignore"):
        tail = np.log(erfcx(np.maximum(-z, 0)) / 2) - z * z
        return np.where(x < -1, tail, np.log1p(-erfc(z) / 2))


def ndtri(p: Array) -> Array:
    """The inverse of the normal distribution function; float64."""
    low = np.minimum(p, 1 - p)
    tail = -np.sqrt(2.0) * erfcinv(2 * low)
    tail = np.where(p > 0.5, -tail, tail)
    middle = np.sqrt(2.0) * erfinv(np.clip(2 * p - 1, -1, 1))
    return np.where(np.abs(p - 0.5) < 0.3, middle, np.where((p < 0) | (p > 1), np.nan, tail))
