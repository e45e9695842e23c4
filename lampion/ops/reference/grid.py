"""Sampling an image at given positions (grid_sample), with gradients to image and positions.

Input (N, C, *S), grid (N, *O, D) with coordinates in [-1, 1], the last spatial axis first.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from .pool import scatter_planes
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


def _clip(c: Array, size: int) -> tuple[Array, Array]:
    inside = (c > 0) & (c < size - 1)
    return np.clip(np.nan_to_num(c, nan=0.0), 0, size - 1), inside


def _place(c: Array, size: int, padding: str, align: bool) -> tuple[Array, Array]:
    """Positions after the padding rule, with their slope for the position before it."""
    slope: Array = np.ones_like(c)
    if padding == "reflection":
        low, high = (0, size - 1) if align else (-0.5, size - 0.5)
        c, slope = _reflect(c, low, high)
    if padding != "zeros":
        c, inside = _clip(c, size)
        slope = slope * inside
    return c, slope


class Sampler:
    """The positions of one grid on one image, shared by the forward and both gradients."""

    def __init__(self, x: Array, grid: Array, mode: str, padding: str, align: bool) -> None:
        self.x, self.mode, self.padding, self.align = x, mode, padding, align
        self.spatial = x.shape[2:]
        self.out = grid.shape[1:-1]
        coords = [grid[..., d] for d in range(grid.shape[-1])][::-1]
        pairs = [_unnormalize(c, s, align) for c, s in zip(coords, self.spatial, strict=True)]
        self.raw = [p for p, _ in pairs]
        self.speed = [v for _, v in pairs]
        self.slope: list[Array] = []

    def _axis(self, axis: int) -> tuple[Array, Array, Array]:
        """Tap cells, weights and weight slopes of one axis, each (taps, N, *out)."""
        c, size = self.raw[axis], self.spatial[axis]
        if self.mode == "bicubic":
            return self._cubic(c, size)
        c, slope = _place(c, size, self.padding, self.align)
        if self.mode == "nearest":
            cell = np.rint(c)
            return cell[None], np.ones_like(c)[None], np.zeros_like(c)[None]
        low = np.floor(c)
        frac = c - low
        return (
            np.stack([low, low + 1]),
            np.stack([1 - frac, frac]),
            np.stack([-slope, slope]),
        )

    def _cubic(self, c: Array, size: int) -> tuple[Array, Array, Array]:
        """The padding rule applies to every tap, not to the position."""
        low = np.floor(c)
        t = c - low
        cells = np.stack([low + k for k in range(-1, 3)])
        cells, _ = _place(cells, size, self.padding, self.align)
        a = -0.75
        near = [(3 * (a + 2) * d - 2 * (a + 3)) * d for d in (t, 1 - t)]
        far = [(3 * a * d - 10 * a) * d + 8 * a for d in (t + 1, 2 - t)]
        slopes = np.stack([far[0], near[0], -near[1], -far[1]])
        return cells, np.moveaxis(cubic_weights(t), -1, 0), slopes

    def _tables(self) -> Iterator[tuple[Array, list[Array], list[Array], Array]]:
        """For each corner: flat cell, per-axis weights, per-axis slopes, inside mask."""
        axes = [self._axis(a) for a in range(len(self.spatial))]
        for choice in product(*(range(len(a[0])) for a in axes)):
            cells = [a[0][k] for a, k in zip(axes, choice, strict=True)]
            inside = np.ones(cells[0].shape, bool)
            flat = np.zeros(cells[0].shape, np.int64)
            for c, s in zip(cells, self.spatial, strict=True):
                inside &= (c >= 0) & (c <= s - 1)
                flat = flat * s + np.clip(np.nan_to_num(c, nan=0.0), 0, s - 1).astype(np.int64)
            weights = [a[1][k] for a, k in zip(axes, choice, strict=True)]
            yield flat, weights, [a[2][k] for a, k in zip(axes, choice, strict=True)], inside

    def _gather(self, flat: Array) -> Array:
        """x at the flat cells: (N, C, *out)."""
        n, c = self.x.shape[:2]
        places = np.broadcast_to(flat.reshape(n, 1, -1), (n, c, flat[0].size))
        return np.take_along_axis(self.x.reshape(n, c, -1), places, 2).reshape(n, c, *self.out)

    def sample(self) -> Array:
        """The sampled image (N, C, *out)."""
        total = np.zeros((*self.x.shape[:2], *self.out), self.x.dtype)
        for flat, weights, _, inside in self._tables():
            w = np.where(inside, _product(weights), 0).astype(self.x.dtype)
            total += self._gather(flat) * w[:, None]
        return total

    def gradients(self, gy: Array) -> tuple[Array, Array]:
        """Gradients for the image and for the grid."""
        gx = np.zeros(self.x.shape, self.x.dtype)
        moves = [np.zeros(self.raw[0].shape, gy.dtype) for _ in self.spatial]
        for flat, weights, slopes, inside in self._tables():
            w = np.where(inside, _product(weights), 0).astype(gy.dtype)
            places = np.broadcast_to(flat[:, None], gy.shape)
            gx += scatter_planes(gy * w[:, None], places, self.spatial)
            dot = np.where(inside, (self._gather(flat) * gy).sum(1), 0)
            for axis, slope in enumerate(slopes):
                others = weights[:axis] + weights[axis + 1 :]
                moves[axis] += dot * slope * _product(others)
        parts = [m * v for m, v in zip(moves, self.speed, strict=True)][::-1]
        return gx, np.stack(parts, -1).astype(gy.dtype, copy=False)


def _product(weights: list[Array]) -> Any:
    total: Any = 1
    for w in weights:
        total = total * w
    return total
