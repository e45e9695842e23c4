"""A line search for the strong Wolfe conditions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ..tensor import Tensor

__all__ = ["strong_wolfe"]

_ENOUGH, _CURVATURE = 1e-4, 0.9  # the usual constants of the two conditions
_SMALLEST = 1e-9
_MOST = 25  # evaluations while bracketing and zooming


class Point(NamedTuple):
    """A step size, the loss there, its gradient and its slope along the direction."""

    size: float
    loss: float
    grad: Tensor
    slope: float


def strong_wolfe(
    evaluate: Callable[[float], tuple[float, Tensor]],
    size: float,
    direction: Tensor,
    loss: float,
    grad: Tensor,
    slope: float,
) -> tuple[float, Tensor, float, int]:
    """Loss, gradient and size of a good step, and how many evaluations it took."""
    search = _Search(evaluate, direction, Point(0.0, loss, grad, slope))
    best = search.run(size)
    return best.loss, best.grad, best.size, search.evals


class _Search:
    def __init__(self, evaluate: Any, direction: Tensor, origin: Point) -> None:
        self._evaluate, self._direction, self._origin = evaluate, direction, origin
        self._longest = float(direction.abs().max())
        self.evals = 0
        self._rounds = 0

    def run(self, size: float) -> Point:
        bracket, done = self._bracket(size)
        if not done:
            bracket = self._zoom(bracket)
        return min(bracket, key=lambda point: point.loss) if len(bracket) > 1 else bracket[0]

    def _at(self, size: float) -> Point:
        loss, grad = self._evaluate(size)
        self.evals += 1
        return Point(size, loss, grad.clone(), float(grad.dot(self._direction)))

    def _too_high(self, point: Point) -> bool:
        origin = self._origin
        return point.loss > origin.loss + _ENOUGH * point.size * origin.slope

    def _flat_enough(self, point: Point) -> bool:
        return abs(point.slope) <= -_CURVATURE * self._origin.slope

    def _bracket(self, size: float) -> tuple[list[Point], bool]:
        """Two sizes around a good one, or one good size (and True)."""
        previous, now = self._origin, self._at(size)
        while self._rounds < _MOST:
            if self._too_high(now) or (self._rounds > 1 and now.loss >= previous.loss):
                return [previous, now], False
            if self._flat_enough(now):
                return [now], True
            if now.slope >= 0:
                return [previous, now], False
            low = now.size + 0.01 * (now.size - previous.size)
            following = _cubic_minimum(previous, now, low, now.size * 10)
            previous, now = now, self._at(following)
            self._rounds += 1
        return [self._origin, now], False

    def _zoom(self, bracket: list[Point]) -> list[Point]:
        """Narrow the bracket until one of its ends is good."""
        stuck = False
        low, high = sorted(bracket, key=lambda point: point.loss)
        while self._rounds < _MOST:
            width = abs(high.size - low.size)
            if width * self._longest < _SMALLEST:
                break
            ends = sorted((low.size, high.size))
            size = _cubic_minimum(low, high, *ends)
            size, stuck = _away_from_ends(size, ends, stuck)
            now = self._at(size)
            self._rounds += 1
            if self._too_high(now) or now.loss >= low.loss:
                high = now
                low, high = sorted((low, high), key=lambda point: point.loss)
                continue
            if self._flat_enough(now):
                return [now]
            if now.slope * (high.size - low.size) >= 0:
                high = low
            low = now
        return [low, high]


def _away_from_ends(size: float, ends: list[float], stuck: bool) -> tuple[float, bool]:
    """Keep steps that hug an end of the bracket from doing so twice."""
    low, high = ends
    margin = 0.1 * (high - low)
    if min(high - size, size - low) >= margin:
        return size, False
    if stuck or size >= high or size <= low:
        nearer_high = abs(size - high) < abs(size - low)
        return (high - margin if nearer_high else low + margin), False
    return size, True


def _cubic_minimum(a: Point, b: Point, low: float, high: float) -> float:
    """The minimum of the cubic through both points and slopes, kept within the bounds."""
    first, second = (a, b) if a.size <= b.size else (b, a)
    mixed = first.slope + second.slope - 3 * (first.loss - second.loss) / (first.size - second.size)
    square = mixed**2 - first.slope * second.slope
    if square < 0:
        return (low + high) / 2.0
    root = math.sqrt(square)
    part = (second.slope + root - mixed) / (second.slope - first.slope + 2 * root)
    return min(max(second.size - (second.size - first.size) * part, low), high)
