"""Samplers that take a varying number of uniforms a value: Poisson, binomial, gamma.

They run value by value, as PyTorch's do, so that each uniform goes to the value that it goes to
there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .random import Stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Uniform = Callable[[], float]

_FLOAT_THIRD = float(np.float32(1) / np.float32(3))
_SQUEEZE = float(np.float32(0.0331))
# ln(k!) less Stirling's main terms, for k below 10.
_STIRLING_TAIL = (
    0.0810614667953272, 0.0413406959554092, 0.0276779256849983, 0.02079067210376509,
    0.0166446911898211, 0.0138761288230707, 0.0118967099458917, 0.0104112652619720,
    0.00925546218271273, 0.00833056343336287,
)  # fmt: skip


class _Uniforms:
    """Doubles of a stream one at a time, drawn ahead in blocks; on exit the surplus goes back."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._start, self._used = stream.bits(), 0
        self._ahead: Iterator[float] = iter(())
        self._size = 32

    def __enter__(self) -> _Uniforms:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.rewind_to(self._start, 2 * self._used)

    def __call__(self) -> float:
        self._used += 1
        for value in self._ahead:
            return value
        self._size = min(2 * self._size, 1 << 14)
        self._ahead = iter(self._stream.doubles(self._size).tolist())
        return next(self._ahead)

    def normal(self) -> float:
        """A standard normal; the second of each pair is kept in the stream."""
        kept = self._stream.normal
        if kept is not None:
            self._stream.normal = None
            return kept
        angle = 2.0 * math.pi * self()
        radius = math.sqrt(-2.0 * math.log1p(-self()))
        self._stream.normal = radius * math.sin(angle)
        return radius * math.cos(angle)


def poisson(stream: Stream, rates: Array) -> Array:
    """One Poisson count for each rate of the flat array ``rates``."""
    with _Uniforms(stream) as uniform:
        counts = [_poisson_one(rate, uniform) for rate in rates.astype(np.float64).tolist()]
    return np.array(counts, np.float64).astype(rates.dtype)


def _poisson_one(rate: float, uniform: Uniform) -> int:
    if not rate >= 0:
        raise RuntimeError(
            f"invalid Poisson rate, expected rate to be non-negative: poisson received {rate}"
        )
    if rate >= 10:
        return _poisson_rejection(rate, uniform)
    if rate == 0:
        return 0
    floor, product, count = math.exp(-rate), uniform(), 0
    while product > floor:
        count += 1
        product *= uniform()
    return count


def _poisson_rejection(rate: float, uniform: Uniform) -> int:
    """Hörmann's transformed rejection (1993), for rates of 10 and more."""
    log_rate = math.log(rate)
    b = 0.931 + 2.53 * math.sqrt(rate)
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    accept = 0.9277 - 3.6224 / (b - 2)
    while True:
        u, v = uniform() - 0.5, uniform()
        us = 0.5 - abs(u)
        if us == 0.0:
            continue
        count = math.floor((2 * a / us + b) * u + rate + 0.43)
        if us >= 0.07 and v <= accept:
            return count
        if count < 0 or (us < 0.013 and v > us):
            continue
        bound = -rate + count * log_rate - math.lgamma(count + 1.0)
        if math.log(v) + math.log(inverse_alpha) - math.log(a / (us * us) + b) <= bound:
            return count


def binomial(stream: Stream, counts: Array, probs: Array) -> Array:
    """One number of successes for each pair of the flat arrays ``counts`` and ``probs``."""
    narrow = _rounder(counts.dtype)
    pairs = zip(counts.astype(np.float64).tolist(), probs.astype(np.float64).tolist(), strict=True)
    with _Uniforms(stream) as uniform:
        values = [_binomial_one(count, prob, narrow, uniform) for count, prob in pairs]
    return np.array(values, np.float64).astype(counts.dtype)


def _rounder(dtype: np.dtype[Any]) -> Callable[[float], float]:
    """Rounding to ``dtype``: some of the set-up is done in the tensor's own precision."""
    if dtype == np.float64:
        return float
    return lambda value: float(np.float32(value))


def _binomial_one(
    count: float, prob: float, narrow: Callable[[float], float], uniform: Uniform
) -> float:
    if count <= 0.0 or prob <= 0.0:
        return 0.0
    if prob >= 1.0:
        return count
    if math.isnan(prob):
        return math.nan
    mirrored = prob > 0.5
    chance = narrow(1.0 - prob) if mirrored else prob
    many = narrow(count * chance) >= 10.0
    draw = _binomial_rejection if many else _binomial_inversion
    value = draw(count, chance, narrow, uniform)
    return count - value if mirrored else value


def _binomial_inversion(
    count: float, prob: float, narrow: Callable[[float], float], uniform: Uniform
) -> float:
    """Count the geometric gaps that fit into ``count`` trials."""
    scale = narrow(math.log1p(-prob))
    total, successes = 0.0, 0
    while True:
        u = uniform()
        total += math.ceil(math.log(u) / scale) if u else math.inf
        if total > count:
            return float(successes)
        successes += 1


def _binomial_rejection(
    count: float, prob: float, narrow: Callable[[float], float], uniform: Uniform
) -> float:
    """Hörmann's BTRS with the exact ratio outside the tight box."""
    rest = narrow(1 - prob)
    deviation = narrow(math.sqrt(narrow(narrow(count * prob) * rest)))
    b = 1.15 + 2.53 * deviation
    a = -0.0873 + 0.0248 * b + 0.01 * prob
    centre = narrow(count * prob) + 0.5
    accept = 0.92 - 4.2 / b
    odds = narrow(prob / rest)
    alpha = (2.83 + 5.1 / b) * deviation
    mode = math.floor(narrow(narrow(count + 1) * prob))
    while True:
        u, v = uniform() - 0.5, uniform()
        us = 0.5 - abs(u)
        if us == 0.0:
            continue
        k = float(math.floor((2 * a / us + b) * u + centre))
        if k < 0 or k > count:
            continue
        if us >= 0.07 and v <= accept:
            return k
        v = math.log(v * alpha / (a / (us * us) + b)) if v else -math.inf
        if v <= _binomial_log_ratio(count, k, mode, odds):
            return k


def _binomial_log_ratio(count: float, k: float, mode: float, odds: float) -> float:
    """ln of the probability of ``k`` over that of the mode."""
    terms = (
        (mode + 0.5) * math.log((mode + 1) / (odds * (count - mode + 1)))
        + (count + 1) * math.log((count - mode + 1) / (count - k + 1))
        + (k + 0.5) * math.log(odds * (count - k + 1) / (k + 1))
    )
    tails = _stirling_tail(mode) + _stirling_tail(count - mode)
    return terms + tails - _stirling_tail(k) - _stirling_tail(count - k)


def _stirling_tail(k: float) -> float:
    if k < len(_STIRLING_TAIL):
        return _STIRLING_TAIL[int(k)]
    square = (k + 1) * (k + 1)
    return (1.0 / 12 - (1.0 / 360 - 1.0 / 1260 / square) / square) / (k + 1)


def standard_gamma(stream: Stream, shapes: Array) -> Array:
    """One gamma value of scale 1 for each shape parameter of the flat array ``shapes``."""
    narrow = _rounder(shapes.dtype)
    with _Uniforms(stream) as uniform:
        values = [_gamma_one(shape, narrow, uniform) for shape in shapes.tolist()]
    tiny = np.finfo(shapes.dtype).tiny
    gammas: Array = np.array(values, np.float64).astype(shapes.dtype)
    gammas[gammas < tiny] = tiny
    return gammas


def _gamma_one(shape: float, narrow: Callable[[float], float], uniform: _Uniforms) -> float:
    """Marsaglia and Tsang (2000); a shape below 1 is drawn one higher and scaled down."""
    scale = 1.0
    if shape < 1:
        if shape == 0:
            return 0.0
        scale = math.pow(1 - uniform(), narrow(1 / shape))
        shape = narrow(shape + 1)
    d = narrow(shape - _FLOAT_THIRD)
    c = 1.0 / math.sqrt(9.0 * d)
    while True:
        x = uniform.normal()
        root = 1.0 + c * x
        if root <= 0:
            continue
        v = root * root * root
        u, square = 1 - uniform(), x * x
        if u < 1.0 - _SQUEEZE * square * square:
            return scale * d * v
        if math.log(u) < 0.5 * square + d * (1.0 - v + math.log(v)):
            return scale * d * v


def dirichlet(stream: Stream, concentrations: Array) -> Array:
    """Points of the simplex, one for each row of ``concentrations``."""
    wide = concentrations.astype(np.float64)
    gammas = standard_gamma(stream, wide.reshape(-1)).reshape(wide.shape)
    points: Array = (gammas / gammas.sum(-1, keepdims=True)).astype(concentrations.dtype)
    kind = concentrations.dtype.type
    return points.clip(np.finfo(kind).tiny, np.nextafter(kind(1), kind(0)), out=points)
