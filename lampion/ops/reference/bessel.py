"""Bessel functions of order 0 and 1 in NumPy, to about double rounding.

Power series near 0, Miller's backward recurrence or the trapezoid rule in between, asymptotic
series far out; formulas by their numbers in the NIST Digital Library of Mathematical Functions
(DLMF). All take and return float64 arrays.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .gamma import horner

Array = Any

_FAR = 25.0
_TOP = 72  # where the backward recurrence starts, for arguments up to _FAR
_ROOT_HALF = math.sqrt(0.5)


def _series(n: int, sign: int, count: int) -> tuple[float, ...]:
    """Coefficients in x^2/4 of J_n (sign -1) or I_n over (x/2)^n (DLMF 10.2.2, 10.25.2)."""
    return tuple(sign ** k / (math.factorial(k) * math.factorial(k + n)) for k in range(count))


def _asymptotic(n: int, count: int) -> tuple[float, ...]:
    """a_k(n) of DLMF 10.17.1."""
    found = [1.0]
    for k in range(1, count):
        found.append(found[-1] * (4 * n * n - (2 * k - 1) ** 2) / (8 * k))
    return tuple(found)


# --- modified, first kind -------------------------------------------------------------------------


def scaled_i(n: int, x: Array) -> Array:
    """exp(-|x|) I_n(x)."""
    size = np.abs(x)
    near = np.minimum(size, _FAR)
    power = near * near / 4
    small = horner(_series(n, 1, 60), power) * (near / 2) ** n * np.exp(-near)
    far = np.maximum(size, _FAR)
    terms = tuple((-1) ** k * a for k, a in enumerate(_asymptotic(n, 30)))
    large = horner(terms, 1 / far) / np.sqrt(2 * np.pi * far)
    out = np.where(size <= _FAR, small, large)
    return np.copysign(out, x) if n else out


def i(n: int, x: Array) -> Array:
    """The modified Bessel function of the first kind."""
    with np.errstate(all="ignore"):
        return scaled_i(n, x) * np.exp(np.abs(x))


# --- modified, second kind ------------------------------------------------------------------------


def scaled_k(n: int, x: Array) -> Array:
    """exp(x) K_n(x): inf at 0, NaN below."""
    with np.errstate(all="ignore"):
        near = np.clip(x, 1e-300, 1.0)
        out = np.where(x <= 1, _k_small(n, near) * np.exp(near), _k_integral(n, np.maximum(x, 1)))
    return np.where(x == 0, np.inf, np.where(x < 0, np.nan, np.where(np.isnan(x), x, out)))


def k(n: int, x: Array) -> Array:
    """The modified Bessel function of the second kind."""
    with np.errstate(all="ignore"):
        return scaled_k(n, x) * np.exp(-np.minimum(x, 800))


def _harmonic(m: int) -> float:
    return sum(1 / j for j in range(1, m + 1))


def _k_small(n: int, x: Array) -> Array:
    """DLMF 10.31.2 and 10.31.1."""
    power, log = x * x / 4, np.log(x / 2)
    if n == 0:
        sums = tuple(c * _harmonic(m) for m, c in enumerate(_series(0, 1, 14)))
        return -(log + np.euler_gamma) * i(0, x) + horner(sums, power)
    sums = tuple(c * (_harmonic(m) + _harmonic(m + 1) - 2 * np.euler_gamma)
                 for m, c in enumerate(_series(1, 1, 14)))
    return 1 / x + log * i(1, x) - x / 4 * horner(sums, power)


def _k_integral(n: int, x: Array) -> Array:
    """The trapezoid rule on DLMF 10.32.9, whose integrand falls doubly exponentially."""
    step = np.arccosh(1 + 40 / x) / 48
    total = 0.5 * np.ones_like(x)
    for m in range(1, 49):
        t = m * step
        half = np.sinh(t / 2)
        total = total + np.exp(-2 * x * half * half) * (np.cosh(t) if n else 1)
    return total * step


# --- first and second kind ------------------------------------------------------------------------


def _far(n: int, x: Array, second: bool) -> Array:
    """Hankel's expansions (DLMF 10.17.3, 10.17.4); the phase by the sum formulas."""
    a, u = _asymptotic(n, 26), 1 / (x * x)
    p = horner(tuple((-1) ** m * c for m, c in enumerate(a[0::2])), u)
    q = horner(tuple((-1) ** m * c for m, c in enumerate(a[1::2])), u) / x
    sin: Array = np.sin(x)
    cos: Array = np.cos(x)
    c, s = (cos + sin, sin - cos) if n == 0 else (sin - cos, -(cos + sin))
    pair = p * s + q * c if second else p * c - q * s
    return pair * _ROOT_HALF * np.sqrt(2 / (np.pi * x))


def _orders(x: Array) -> list[Array]:
    """J_0, J_1, ... by Miller's backward recurrence (DLMF 3.6(iii)), for 1 <= x <= _FAR."""
    later, now = np.zeros_like(x), np.full_like(x, 1e-250)
    found = [now]
    for m in range(_TOP, 0, -1):
        later, now = now, 2 * m / x * now - later
        found.append(now)
    found.reverse()
    total = found[0] + 2 * sum(found[2::2])
    return [f / total for f in found]


def _j_near(n: int, x: Array) -> Array:
    """|x| <= _FAR."""
    small = np.minimum(x, 1)
    series = horner(_series(n, -1, 14), small * small / 4) * (small / 2) ** n
    return np.where(x < 1, series, _orders(np.clip(x, 1, _FAR))[n])


def j(n: int, x: Array) -> Array:
    """The Bessel function of the first kind."""
    size = np.abs(x)
    with np.errstate(all="ignore"):
        out: Array = np.where(size <= _FAR, _j_near(n, np.minimum(size, _FAR)),
                       _far(n, np.maximum(size, _FAR), False))
    out = np.where(np.isinf(x), 0.0, np.where(np.isnan(x), x, out))
    return np.where(x < 0, -out, out) if n else out


def _y_small(n: int, x: Array) -> Array:
    """DLMF 10.8.2 and 10.8.1, for x < 1."""
    power, log = x * x / 4, np.log(x / 2)
    if n == 0:
        sums = tuple(-c * _harmonic(m) for m, c in enumerate(_series(0, -1, 14)))
        return 2 / np.pi * ((log + np.euler_gamma) * _j_near(0, x) + horner(sums, power))
    sums = tuple(c * (_harmonic(m) + _harmonic(m + 1) - 2 * np.euler_gamma)
                 for m, c in enumerate(_series(1, -1, 14)))
    return (2 * log * _j_near(1, x) - 2 / x - x / 2 * horner(sums, power)) / np.pi


def _y_middle(n: int, x: Array) -> Array:
    """Neumann's series (DLMF 10.23.17), and its derivative for n = 1."""
    orders = _orders(x)
    log = np.log(x / 2) + np.euler_gamma
    if n == 0:
        terms = sum((-1) ** m * orders[2 * m] / m for m in range(1, _TOP // 2))
        return 2 / np.pi * (log * orders[0] - 2 * terms)
    slopes = sum((-1) ** m * (orders[2 * m - 1] - orders[2 * m + 1]) / m
                 for m in range(1, _TOP // 2))
    return 2 / np.pi * (log * orders[1] - orders[0] / x + slopes)


def y(n: int, x: Array) -> Array:
    """The Bessel function of the second kind: -inf at 0, NaN below."""
    with np.errstate(all="ignore"):
        out = np.where(x < 1, _y_small(n, np.clip(x, 1e-300, 1)), np.where(
            x <= _FAR, _y_middle(n, np.clip(x, 1, _FAR)), _far(n, np.maximum(x, _FAR), True)))
    out = np.where(x == np.inf, 0.0, np.where(np.isnan(x), x, out))
    return np.where(x == 0, -np.inf, np.where(x < 0, np.nan, out))


def airy_ai(x: Array) -> Array:
    """Airy's function: Maclaurin (DLMF 9.4.1), then the asymptotic forms (9.7.5, 9.7.9)."""
    size = np.abs(x)
    with np.errstate(all="ignore"):
        near = _airy_series(np.clip(x, -8, 6))
        z = np.maximum(size, 5) ** 1.5 * (2 / 3)
        out = np.where(x > 6, _airy_right(x, z), np.where(x < -8, _airy_left(size, z), near))
    return np.where(np.isinf(x), 0.0, np.where(np.isnan(x), x, out))


def _airy_series(x: Array) -> Array:
    cube = x * x * x
    f = term_f = np.ones_like(x)
    g = term_g = x
    for m in range(1, 45):
        term_f = term_f * cube / ((3 * m - 1) * (3 * m))
        term_g = term_g * cube / ((3 * m) * (3 * m + 1))
        f, g = f + term_f, g + term_g
    value, slope = 0.3550280538878172, 0.2588194037928068
    # For x > 2 the two series cancel: the integral of DLMF 9.5.8 takes over.
    return np.where(x > 2, _airy_integral(np.maximum(x, 2)), value * f - slope * g)


def _airy_integral(x: Array) -> Array:
    """Ai = sqrt(x/3)/pi K_1/3(z) (DLMF 9.6.2), K by the trapezoid rule."""
    z = x ** 1.5 * (2 / 3)
    step = np.arccosh(1 + 40 / z) / 48
    total = 0.5 * np.ones_like(x)
    for m in range(1, 49):
        t = m * step
        half = np.sinh(t / 2)
        total = total + np.exp(-2 * z * half * half) * np.cosh(t / 3)
    return np.sqrt(x / 3) / np.pi * total * step * np.exp(-z)


def _airy_right(x: Array, z: Array) -> Array:
    return _airy_integral(np.clip(x, 2, 200))


def _airy_terms() -> list[float]:
    found = [1.0]
    for m in range(1, 16):
        found.append(found[-1] * (6 * m - 5) * (6 * m - 3) * (6 * m - 1) / (
            216 * m * (2 * m - 1)))
    return found


def _airy_left(size: Array, z: Array) -> Array:
    u = _airy_terms()
    p = horner(tuple((-1) ** m * c for m, c in enumerate(u[0::2])), 1 / (z * z))
    q = horner(tuple((-1) ** m * c for m, c in enumerate(u[1::2])), 1 / (z * z)) / z
    angle = z - np.pi / 4
    return (np.cos(angle) * p + np.sin(angle) * q) / (np.sqrt(np.pi) * size ** 0.25)
