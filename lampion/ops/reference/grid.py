"""Sampling an image at given positions (grid_sample), with gradients to image and positions.

Input (N, C, *S), grid (N, *O, D) with coordinates in [-1, 1], the last spatial axis first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from .pool import gather_planes, scatter_planes
from .resample import cubic_weights

Array = Any


def _unnormalize(c: Array, size: int, align: bool) -> tuple[Array, float]:
    """Positions in cells and how fast they move with the coordinate."""
    if align:
        return (c + 1) / 2 * (size - 1), (size - 1) / 2
    return ((c + 1) * size - 1) / 2, size / 2


def _reflect(c: Array, low: float, high: float) -> tuple[Array, Array]:
    """Reflect at the borders [low, high]; also the sign of the slope."""
    span = high - low
    if span == 0:
        return np.zeros_like(c), np.zeros_like(c)
    moved = np.abs(c - low)
    sign = np.where(c - low < 0, -1.0, 1.0).astype(c.dtype)
    extra, flips = np.fmod(moved, span), np.floor(moved / span)
    odd = flips % 2 == 1
    return np.where(odd, span - extra, extra) + low, np.where(odd, -sign, sign)


def _bounded(c: Array, size: int) -> Array:
    """Within [0, size - 1]; NaN is 0."""
    return np.where(c > 0, np.where(c < size - 1, c, size - 1), 0).astype(c.dtype)


def _place(c: Array, size: int, padding: str, align: bool) -> tuple[Array, Array]:
    """Positions after the padding rule, with their slope for the position before it."""
    slope: Array = np.ones_like(c)
    if padding == "reflection":
        low, high = (0, size - 1) if align else (-0.5, size - 0.5)
        c, slope = _reflect(c, low, high)
    if padding != "zeros":
        slope = slope * ((c > 0) & (c < size - 1))
        c = _bounded(c, size)
    return c, slope


class Rule(NamedTuple):
    """What is fixed when positions are taken apart."""

    spatial: tuple[int, ...]
    mode: str
    padding: str
    align: bool


class Corner(NamedTuple):
    """One of the cells that a position sees; arrays are (N, *O)."""

    place: Array  # flat, within the image, in float64: whole numbers that a kernel can trace
    inside: Array
    weights: list[Array]  # by axis
    slopes: list[Array]


Axis = tuple[list[Array], list[Array], list[Array]]  # cells, weights and their slopes, by tap


def _axis(c: Array, size: int, rule: Rule) -> Axis:
    if rule.mode == "bicubic":
        return _cubic(c, size, rule)
    c, slope = _place(c, size, rule.padding, rule.align)
    if rule.mode == "nearest":
        return [np.rint(c)], [np.ones_like(c)], [np.zeros_like(c)]
    low = np.floor(c)
    part = c - low
    return [low, low + 1], [1 - part, part], [-slope, slope]


def _cubic(c: Array, size: int, rule: Rule) -> Axis:
    """The padding rule applies to every tap, not to the position."""
    low = np.floor(c)
    t = c - low
    cells = [_place(low + k, size, rule.padding, rule.align)[0] for k in range(-1, 3)]
    a = -0.75
    near = [(3 * (a + 2) * d - 2 * (a + 3)) * d for d in (t, 1 - t)]
    far = [(3 * a * d - 10 * a) * d + 8 * a for d in (t + 1, 2 - t)]
    return cells, cubic_weights(t), [far[0], near[0], -near[1], -far[1]]


def corners(coords: Sequence[Array], rule: Rule) -> Iterator[Corner]:
    """The cells that positions see; coords (N, *O), one for each axis of the image in order."""
    taken = [_axis(_unnormalize(c, s, rule.align)[0], s, rule)
             for c, s in zip(coords, rule.spatial, strict=True)]
    for choice in product(*(range(len(cells)) for cells, *_ in taken)):
        place, inside = 0, True
        for (cells, *_), tap, s in zip(taken, choice, rule.spatial, strict=True):
            cell = cells[tap]
            inside = (cell >= 0) & (cell <= s - 1) & inside
            place = place * s + _bounded(cell, s).astype(np.float64)
        yield Corner(place, inside,
                     [weights[tap] for (_, weights, _), tap in zip(taken, choice, strict=True)],
                     [slopes[tap] for (*_, slopes), tap in zip(taken, choice, strict=True)])


def places_and_weights(coords: Sequence[Array], rule: Rule) -> tuple[Array, ...]:
    """The places of all corners, then their weights, which are 0 outside."""
    found = list(corners(coords, rule))
    return (*(c.place for c in found),
            *(np.where(c.inside, _product(c.weights), 0) for c in found))


def moves(dots: Sequence[Array], coords: Sequence[Array], rule: Rule) -> list[Array]:
    """Gradients for the coordinates, from the gradient for the weight of each corner."""
    totals: list[Any] = [0] * len(coords)
    for dot, corner in zip(dots, corners(coords, rule), strict=True):
        held = np.where(corner.inside, dot, 0)
        for axis, slope in enumerate(corner.slopes):
            others = corner.weights[:axis] + corner.weights[axis + 1 :]
            totals[axis] = totals[axis] + held * slope * _product(others)
    return [t * _unnormalize(c, s, rule.align)[1]
            for t, c, s in zip(totals, coords, rule.spatial, strict=True)]


def coordinates(grid: Array) -> list[Array]:
    """Of each axis of the image; a grid has the last axis first."""
    return [grid[..., d] for d in reversed(range(grid.shape[-1]))]


def sample(x: Array, grid: Array, rule: Rule) -> Array:
    """The sampled image (N, C, *out)."""
    total = np.zeros((*x.shape[:2], *grid.shape[1:-1]), x.dtype)
    found = places_and_weights(coordinates(grid), rule)
    half = len(found) // 2
    for place, w in zip(found[:half], found[half:], strict=True):
        total += _gather(x, place) * w.astype(x.dtype)[:, None]
    return total


def _gather(x: Array, place: Array) -> Array:
    """x at the flat cells: (N, C, *out)."""
    return gather_planes(x, _spread_over(place, (*x.shape[:2], *place.shape[1:])))


def _spread_over(place: Array, shape: tuple[int, ...]) -> Array:
    """Places of all channels."""
    return np.broadcast_to(place[:, None].astype(np.int64), shape)


def gradients(gy: Array, x: Array, grid: Array, rule: Rule) -> tuple[Array, Array]:
    """Gradients for the image and for the grid."""
    coords = coordinates(grid)
    found = places_and_weights(coords, rule)
    half = len(found) // 2
    gx, dots = np.zeros(x.shape, x.dtype), []
    for place, w in zip(found[:half], found[half:], strict=True):
        places = _spread_over(place, gy.shape)
        gx += scatter_planes(gy * w.astype(gy.dtype)[:, None], places, rule.spatial)
        dots.append((_gather(x, place) * gy).sum(1))
    parts = moves(dots, coords, rule)[::-1]
    return gx, np.stack(parts, -1).astype(gy.dtype, copy=False)


def _product(weights: list[Array]) -> Any:
    total: Any = 1
    for w in weights:
        total = total * w
    return total
