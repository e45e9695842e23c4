"""Separable resampling: every output cell along an axis is a weighted sum of a few input cells.

Interpolation (all modes), antialiasing and adaptive average pooling are all this, with different
tables. A table is (index, weight), both of shape (out, taps).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .pool import adaptive_bounds

Array = Any
Table = tuple[Array, Array]


def resample(x: Array, tables: Sequence[Table]) -> Array:
    """Apply one table per spatial axis of (N, C, *S)."""
    for axis, (index, weight) in enumerate(tables):
        x = _along(x, index, weight, 2 + axis)
    return x


def _along(x: Array, index: Array, weight: Array, axis: int) -> Array:
    shape = [1] * x.ndim
    shape[axis] = -1
    total = None
    for t in range(index.shape[1]):
        part = x.take(index[:, t], axis)
        w = weight[:, t].astype(x.dtype, copy=False)
        if not (w == 1).all():
            part *= w.reshape(shape)
        total = part if total is None else np.add(total, part, out=total)
    return x if total is None else total


def resample_transpose(gy: Array, tables: Sequence[Table], spatial: Sequence[int]) -> Array:
    """Transpose of `resample`: gradient for its input of size `spatial`."""
    for axis, (index, weight) in enumerate(tables):
        gy = _along_transpose(gy, index, weight, spatial[axis], 2 + axis)
    return gy


def _along_transpose(gy: Array, index: Array, weight: Array, size: int, axis: int) -> Array:
    matrix = np.zeros((index.shape[0], size), gy.dtype)
    np.add.at(matrix, (np.arange(index.shape[0])[:, None], index), weight.astype(gy.dtype))
    moved = np.moveaxis(gy, axis, -1) @ matrix
    return np.ascontiguousarray(np.moveaxis(moved, -1, axis))


def _scale(size: int, out: int, align: bool, factor: float | None) -> float:
    """Input cells per output cell; a `factor` the caller gave is used as it is."""
    if align:
        return (size - 1) / (out - 1) if out > 1 else 0.0
    return 1.0 / factor if factor else size / out


def _source(size: int, out: int, align: bool, factor: float | None, real: Any) -> Array:
    step = real(_scale(size, out, align, factor))
    cells = np.arange(out, dtype=real)
    return cells * step if align else (cells + real(0.5)) * step - real(0.5)


def nearest_table(size: int, out: int, factor: float | None, exact: bool) -> Table:
    """Nearest input cell: of the cell's corner, or (`exact`) of its centre."""
    step = np.float32(_scale(size, out, False, factor))
    cells = np.arange(out, dtype=np.float32) + np.float32(0.5 if exact else 0)
    index = np.minimum(np.floor(cells * step).astype(np.int64), size - 1)
    return index[:, None], np.ones((out, 1))


def linear_table(size: int, out: int, align: bool, factor: float | None, real: Any) -> Table:
    """The two neighbours of each output cell's source position."""
    source = np.maximum(_source(size, out, align, factor, real), 0)
    low = np.minimum(source.astype(np.int64), size - 1)
    high = np.minimum(low + 1, size - 1)
    frac = np.clip(source - low, 0, 1)
    return np.stack([low, high], 1), np.stack([1 - frac, frac], 1)


def cubic_weights(t: Array, a: float = -0.75) -> list[Array]:
    """Weights of the four neighbours at distance t in [0, 1) from the second."""
    near = [((a + 2) * d - (a + 3)) * d * d + 1 for d in (t, 1 - t)]
    far = [((a * d - 5 * a) * d + 8 * a) * d - 4 * a for d in (t + 1, 2 - t)]
    return [far[0], near[0], near[1], far[1]]


def cubic_table(size: int, out: int, align: bool, factor: float | None, real: Any) -> Table:
    """Cubic convolution over four neighbours; the border repeats."""
    source = _source(size, out, align, factor, real)
    low = np.floor(source)
    index = low.astype(np.int64)[:, None] + np.arange(-1, 3)
    return np.clip(index, 0, size - 1), np.stack(cubic_weights(source - low), -1)


def _triangle(d: Array) -> Array:
    return np.maximum(1 - np.abs(d), 0)


def _keys(d: Array) -> Array:
    """Cubic filter with a = -0.5, the one used for antialiasing."""
    a, d = -0.5, np.abs(d)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d < 1, near, np.where(d < 2, far, 0))


def _lanczos(d: Array) -> Array:
    return np.where(np.abs(d) < 3, np.sinc(d) * np.sinc(d / 3), 0)


def antialias_table(size: int, out: int, align: bool, factor: float | None, kind: str) -> Table:
    """Filter stretched by the reduction factor, weights normalised per output cell."""
    support, window = {"linear": (1, _triangle), "cubic": (2, _keys), "lanczos": (3, _lanczos)}[
        kind
    ]
    step = _scale(size, out, align, factor)
    stretch = max(step, 1.0)
    centre = step * (np.arange(out) + 0.5)
    start = np.maximum((centre - support * stretch + 0.5).astype(np.int64), 0)
    stop = np.minimum((centre + support * stretch + 0.5).astype(np.int64), size)
    taps = np.arange(int((stop - start).max()))
    index = start[:, None] + taps
    weight = window((index - centre[:, None] + 0.5) / stretch)
    weight = np.where(index < stop[:, None], weight, 0)
    return np.minimum(index, size - 1), weight / weight.sum(1, keepdims=True)


def mean_table(start: Array, stop: Array) -> Table:
    """Plain mean over [start, stop) per output cell."""
    taps = np.arange(int((stop - start).max(initial=1)))
    index = start[:, None] + taps
    inside = index < stop[:, None]
    return np.minimum(index, stop[:, None] - 1), inside / inside.sum(1, keepdims=True)


def tables(
    kind: str,
    spatial: Sequence[int],
    size: Sequence[int],
    align: bool,
    factors: Sequence[float | None],
    dtype: Any,
) -> list[Table]:
    """One table per axis for the resampling called `kind`."""
    real = np.float64 if dtype == np.float64 else np.float32
    found = []
    for s, n, f in zip(spatial, size, factors, strict=True):
        if kind == "mean":
            found.append(mean_table(*adaptive_bounds(s, n)))
        elif kind.startswith("nearest"):
            found.append(nearest_table(s, n, f, kind == "nearest-exact"))
        elif kind.endswith("-aa"):
            found.append(antialias_table(s, n, align, f, kind[:-3]))
        else:
            make = cubic_table if kind == "cubic" else linear_table
            found.append(make(s, n, align, f, real))
    return found


def block_mean(x: Array, size: Sequence[int]) -> Array | None:
    """Adaptive mean where every window has the same length; None where it has not."""
    shape: list[int] = list(x.shape[:2])
    for s, n in zip(x.shape[2:], size, strict=True):
        if n == 0 or s % n:
            return None
        shape += [n, s // n]
    return np.asarray(x.reshape(shape).mean(tuple(range(3, len(shape), 2))), x.dtype)


def pad_table(before: int, after: int, size: int, mode: str) -> Array:
    """Input cell of every output cell when one axis is padded by reflect, replicate, circular."""
    if mode == "circular":
        cut = max(-before, 0)  # negative amounts crop first; what is left repeats
        kept = size - cut - max(-after, 0)
        return cut + np.arange(-max(before, 0), kept + max(after, 0)) % max(kept, 1)
    cells = np.arange(-before, size + after)
    if mode == "replicate":
        return np.clip(cells, 0, size - 1)
    cells = np.abs(cells)
    return np.where(cells >= size, 2 * (size - 1) - cells, cells)
