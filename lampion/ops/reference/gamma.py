"""Gamma and its relatives in NumPy, to about double rounding: series, recurrences, reflections.

Formulas by their numbers in the NIST Digital Library of Mathematical Functions (DLMF). All take
and return float64 arrays.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

Array = Any

# Bernoulli numbers B2, B4, ...
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510,
              43867 / 798, -174611 / 330, 854513 / 138)
_STIRLING = tuple(b / ((2 * k) * (2 * k - 1)) for k, b in enumerate(_BERNOULLI, 1))
_LOG_ROOT_TAU = 0.5 * math.log(2 * math.pi)


def horner(coefficients: Any, u: Array) -> Array:
    """c0 + c1 u + c2 u^2 + ..."""
    total = u * coefficients[-1] + coefficients[-2]
    for c in coefficients[-3::-1]:
        total = total * u + c
    return total


def _broadcast(a: Array, b: Array) -> Any:
    return np.broadcast_arrays(np.asarray(a, np.float64), np.asarray(b, np.float64))


def sin_pi(x: Array) -> Array:
    """sin(pi x), exact at integers."""
    r = x - 2 * np.rint(x / 2)
    r = np.where(np.abs(r) > 0.5, np.copysign(1, r) - r, r)
    return np.sin(np.pi * r)


# --- log gamma ------------------------------------------------------------------------------------


@cache
def _about_two() -> tuple[float, ...]:
    """Taylor coefficients of log gamma at 2 (DLMF 5.7.3 with one factor taken out)."""
    orders = np.arange(2.0, 34.0)
    rest = zeta(orders, np.full_like(orders, 2.0))
    return (0.0, 1 - np.euler_gamma, *((-1) ** k * r / k for k, r in zip(
        range(2, 34), rest.tolist(), strict=True)))


def stirling(x: Array) -> Array:
    """log gamma(x) - (x - 1/2) log x + x - log(2 pi)/2 for x >= 8 (DLMF 5.11.1)."""
    return horner(_STIRLING[:9], 1 / (x * x)) / x


def lgamma(x: Array) -> Array:
    """The logarithm of |gamma(x)|; inf at 0, -1, -2, ..."""
    size = np.where(x < 0, 1 - x, x)
    out: Array = np.where(size >= 8, _lgamma_large(np.maximum(size, 8)),
                   _lgamma_small(np.minimum(size, 8)))
    with np.errstate(all="ignore"):
        reflected = np.log(np.pi / np.abs(sin_pi(x))) - out
    out = np.where(x < 0, reflected, out)
    out = np.where((x <= 0) & (x == np.floor(x)), np.inf, out)
    return np.where(np.isinf(x), np.inf, np.where(np.isnan(x), x, out))


def _lgamma_large(x: Array) -> Array:
    with np.errstate(all="ignore"):
        return (x - 0.5) * (np.log(x) - 1) - 0.5 + _LOG_ROOT_TAU + stirling(x)


def _lgamma_small(x: Array) -> Array:
    """0 < x <= 8: moved next to 2 by the recurrence."""
    steps = np.where(x < 0.5, -2, np.rint(x) - 2)
    moved = x - steps
    factor: Any = 1.0
    for k in range(6):
        factor = np.where(k < steps, factor * (x - 1 - k), factor)
    out = horner(_about_two(), moved - 2)
    with np.errstate(all="ignore"):
        below = out - np.log1p(x - 1)  # one step up, exact next to 1
        tiny = out - np.log1p(x) - np.log(x)
    return np.where(steps == -2, tiny, np.where(steps == -1, below, out + np.log(factor)))


def digamma(x: Array) -> Array:
    """The derivative of log gamma; -inf at 0, NaN at -1, -2, ..."""
    y = np.where(x < 0, 1 - x, x)
    shift: Any = 0.0
    for _ in range(10):
        small = y < 10
        shift = np.where(small, shift - 1 / np.where(small & (y != 0), y, 1), shift)
        y = np.where(small, y + 1, y)
    inverse = 1 / (y * y)
    terms = tuple(b / (2 * k) for k, b in enumerate(_BERNOULLI[:8], 1))
    out = shift + np.log(y) - 0.5 / y - inverse * horner(terms, inverse)
    with np.errstate(all="ignore"):
        reflected = out - np.pi / np.tan(np.pi * (x - np.rint(x)))
    out = np.where(x < 0, np.where(x == np.floor(x), np.nan, reflected), out)
    return np.where(x == 0, np.copysign(np.inf, -x), np.where(x == -np.inf, np.nan, out))


def zeta(s: Array, q: Array) -> Array:
    """Hurwitz's zeta, the sum of (q + n)^-s, by Euler and Maclaurin (DLMF 25.11.5)."""
    s, q = _broadcast(s, q)
    invalid = (s < 1) | ((q < 0) & (q != np.floor(q)) & (s != np.floor(s)))
    pole = (s == 1) | ((q <= 0) & (q == np.floor(q)))
    skip = invalid | pole | np.isnan(s) | np.isnan(q) | np.isinf(q)
    s1, a = np.where(skip, 2.0, s), np.where(skip, 1.0, q)
    total = np.zeros_like(a)
    with np.errstate(all="ignore"):
        while (low := a < 12).any():
            total = np.where(low, total + a ** -s1, total)
            a = np.where(low, a + 1, a)
        power = a ** -s1
        total = total + power * a / (s1 - 1) + 0.5 * power
        factor = power * s1 / a
        for k, b in enumerate(_BERNOULLI[:10], 1):
            total = total + factor * (b / math.factorial(2 * k))
            factor = factor * (s1 + 2 * k - 1) * (s1 + 2 * k) / (a * a)
    total = np.where(np.isinf(q) & (q > 0), 0.0, np.where(np.isnan(s) | np.isnan(q), np.nan, total))
    return np.where(invalid, np.nan, np.where(pole, np.inf, total))


def polygamma(n: int, x: Array) -> Array:
    """The n-th derivative of digamma (DLMF 5.15.1; n = 1 by reflection below 0)."""
    if n == 0:
        return digamma(x)
    if n == 1:
        up = np.where(x < 0.5, 1 - x, x)
        out = zeta(np.float64(2), up)
        with np.errstate(all="ignore"):
            return np.where(x < 0.5, (np.pi / sin_pi(x)) ** 2 - out, out)
    return (-1) ** (n + 1) * math.gamma(n + 1) * zeta(np.float64(n + 1), x)


# --- incomplete gamma -----------------------------------------------------------------------------


def _log1p_minus(u: Array) -> Array:
    """log(1 + u) - u without cancellation near 0."""
    near = np.abs(u) < 0.1
    v = np.where(near, u, 0.0)
    # log(1+u) = 2 atanh(w) with w = u / (2 + u), and u = 2 w / (1 - w).
    w = v / (2 + v)
    series = horner(tuple(1 / (2 * k + 3) for k in range(9)), w * w)
    close = 2 * w ** 3 * series - w * v
    with np.errstate(all="ignore"):
        return np.where(near, close, np.log1p(u) - u)


def _front(a: Array, x: Array) -> Array:
    """x^a e^-x / gamma(a + 1)."""
    with np.errstate(all="ignore"):
        large = np.exp(a * _log1p_minus(x / a - 1) - stirling(np.maximum(a, 8))) / np.sqrt(
            2 * np.pi * a)
        small = np.exp(a * np.log(x) - x - lgamma(a + 1))
    return np.where(a >= 8, large, small)


def _by_series(a: Array, x: Array) -> Array:
    """The lower function (DLMF 8.7.1), for x < a + 1."""
    term = np.ones_like(a)
    total, n = term, a
    while term.size and (term > 1e-17 * total).any():
        n = n + 1
        term = term * x / n
        total = total + term
    return total * _front(a, x)


def _by_fraction(a: Array, x: Array) -> Array:
    """The upper function by its continued fraction (DLMF 8.9.2, modified Lentz), x >= a + 1."""
    b = x + 1 - a
    c, d = np.full_like(x, 1e300), 1 / b
    h = d
    for i in range(1, 100_000):
        an = -i * (i - a)
        b = b + 2
        d = 1 / _nonzero(an * d + b)
        c = _nonzero(b + an / c)
        step = d * c
        h = h * step
        if not (np.abs(step - 1) > 1e-16).any():
            break
    return h * _front(a, x) * a


def _nonzero(x: Array) -> Array:
    return np.where(x == 0, 1e-300, x)


def gammainc(a: Array, x: Array, upper: bool) -> Array:
    """The regularised incomplete gamma functions: P(a, x), or Q = 1 - P."""
    a, x = _broadcast(a, x)
    out = np.full(a.shape, np.nan)
    regular = (a > 0) & (x > 0) & np.isfinite(a) & np.isfinite(x)
    low = regular & (x < a + 1)
    high = regular & ~low
    p = _by_series(a[low], x[low])
    out[low] = np.maximum(1 - p, 0) if upper else p
    q = _by_fraction(a[high], x[high])
    out[high] = q if upper else 1 - q
    zero = (x == 0) & (a > 0) | (np.isposinf(a) & np.isfinite(x) & (x >= 0))
    one = (np.isposinf(x) & np.isfinite(a) & (a >= 0)) | ((a == 0) & (x > 0))
    out[zero], out[one] = float(upper), float(not upper)
    return out
