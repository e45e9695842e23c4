"""Pooling of any number of spatial dimensions: maxima with their places, and window sums.

All arrays are (N, C, *S). An index is the flat position of an element in its (N, C) plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .conv import taps

Array = Any  # an ndarray; NumPy's stubs do not take mixed index tuples
Ints = Sequence[int]


def pool_size(
    size: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool
) -> list[int]:
    """Output sizes; with `ceil_mode` the last window must still start inside input or left pad."""
    out = []
    for s, k, t, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        span = s + 2 * p - d * (k - 1) - 1
        n = span // t + 1
        if ceil_mode and span % t:
            n += (n * t) < s + p
        out.append(n)
    return out


def _lowest(dtype: Any) -> Any:
    if dtype.kind in "iu":
        return np.iinfo(dtype).min
    return False if dtype.kind == "b" else -np.inf


def _framed(x: Array, reach: Ints, padding: Ints, value: Any) -> Array:
    """`x` padded left by `padding` and right as far as the windows `reach`."""
    spatial = x.shape[2:]
    if not any(padding) and all(r <= s for r, s in zip(reach, spatial, strict=True)):
        return x
    sizes = [max(r, p + s) for r, p, s in zip(reach, padding, spatial, strict=True)]
    out: Array = np.full((*x.shape[:2], *sizes), value, x.dtype)
    cut = tuple(slice(p, p + s) for p, s in zip(padding, spatial, strict=True))
    out[(..., *cut)] = x
    return out


def _reach(out: Ints, kernel: Ints, stride: Ints, dilation: Ints) -> list[int]:
    return [
        (n - 1) * t + d * (k - 1) + 1
        for n, k, t, d in zip(out, kernel, stride, dilation, strict=True)
    ]


def max_pool(
    x: Array, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool
) -> tuple[Array, Array]:
    """The maximum of each window and its index; a NaN wins, the first of equals wins."""
    size = pool_size(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    framed = _framed(x, _reach(size, kernel, stride, dilation), padding, _lowest(x.dtype))
    best = np.full((*x.shape[:2], *size), _lowest(x.dtype), x.dtype)
    tap = np.full(best.shape, -1, np.int32)
    for number, (_, cut) in enumerate(taps(kernel, size, stride, dilation)):
        value = framed[(..., *cut)]
        better = value > best
        if x.dtype.kind not in "iub":
            better |= value != value
        np.copyto(best, value, where=better)
        tap[better] = number
    return best, _tap_index(tap, x.shape[2:], kernel, stride, padding, dilation)


def _tap_index(
    tap: Array, spatial: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints
) -> Array:
    """Flat input positions from winning kernel positions (an all -inf window gives its first)."""
    index = np.zeros(tap.shape, np.int64)
    positions = np.unravel_index(np.maximum(tap, 0), tuple(kernel))
    for axis, position in enumerate(positions):
        start = np.arange(tap.shape[2 + axis]) * stride[axis] - padding[axis]
        shape = [1] * tap.ndim
        shape[2 + axis] = -1
        place = start.reshape(shape) + position * dilation[axis]
        if (tap < 0).any():
            first = start + -(-np.maximum(-start, 0) // dilation[axis]) * dilation[axis]
            place = np.where(tap < 0, first.reshape(shape), place)
        index = index * spatial[axis] + place
    return index


def scatter_planes(values: Array, index: Array, spatial: Ints) -> Array:
    """Zeros of spatial size `spatial` with `values` added at `index` of their plane."""
    planes, cells = values.shape[0] * values.shape[1], int(np.prod(spatial))
    shape = (*values.shape[:2], *spatial)
    if not values.size:
        return np.zeros(shape, values.dtype)
    where = index.reshape(planes, -1) + np.arange(planes)[:, None] * cells
    if values.dtype.kind == "c":
        out = np.zeros(planes * cells, values.dtype)
        np.add.at(out, where.ravel(), values.ravel())
    else:
        out = np.bincount(where.ravel(), values.ravel().astype(np.float64), planes * cells)
    return out.astype(values.dtype, copy=False).reshape(shape)


def gather_planes(x: Array, index: Array) -> Array:
    """The elements of each plane of `x` at `index`."""
    flat = x.reshape(*x.shape[:2], -1)
    places = index.reshape(*index.shape[:2], -1)
    return np.take_along_axis(flat, places, 2).reshape(index.shape)


def place_planes(values: Array, index: Array, spatial: Ints) -> Array:
    """Zeros with `values` written (not added) at `index`: the meaning of max_unpool."""
    out = np.zeros((*values.shape[:2], int(np.prod(spatial))), values.dtype)
    places = index.reshape(*index.shape[:2], -1)
    np.put_along_axis(out, places, values.reshape(places.shape), 2)
    return out.reshape(*values.shape[:2], *spatial)


def window_sums(
    x: Array, kernel: Ints, stride: Ints, padding: Ints, ceil_mode: bool
) -> Array:
    """The sum of each window; one axis after the other, so a k*k window costs 2k additions."""
    ones = [1] * len(kernel)
    size = pool_size(x.shape[2:], kernel, stride, padding, ones, ceil_mode)
    out = _framed(x, _reach(size, kernel, stride, ones), padding, 0)
    for axis, (k, n, t) in enumerate(zip(kernel, size, stride, strict=True)):
        lead = (slice(None),) * (2 + axis)
        total = out[(*lead, slice(0, (n - 1) * t + 1, t))]
        total = total.copy() if k > 1 else total
        for j in range(1, k):
            total += out[(*lead, slice(j, j + (n - 1) * t + 1, t))]
        out = total
    return out if out is not x else x.copy()


def window_sums_transpose(
    gy: Array, spatial: Ints, kernel: Ints, stride: Ints, padding: Ints
) -> Array:
    """Transpose of `window_sums`: every cell receives the values of the windows it is in."""
    out = gy
    for axis, (k, t) in enumerate(zip(kernel, stride, strict=True)):
        lead = (slice(None),) * (2 + axis)
        n = out.shape[2 + axis]
        length = max((n - 1) * t + k, spatial[axis] + padding[axis])
        wide = np.zeros((*out.shape[: 2 + axis], length, *out.shape[3 + axis :]), gy.dtype)
        for j in range(k):
            wide[(*lead, slice(j, j + (n - 1) * t + 1, t))] += out
        out = wide[(*lead, slice(padding[axis], padding[axis] + spatial[axis]))]
    return np.ascontiguousarray(out)


def window_counts(
    spatial: Ints,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    ceil_mode: bool,
    count_include_pad: bool,
) -> Array:
    """How many cells each window averages over, as an array of the output's spatial size."""
    size = pool_size(spatial, kernel, stride, padding, [1] * len(kernel), ceil_mode)
    counts = np.ones((), np.int64)
    for s, k, t, p, n in zip(spatial, kernel, stride, padding, size, strict=True):
        start = np.arange(n) * t - p
        stop = np.minimum(start + k, s + p)
        if not count_include_pad:
            start, stop = np.maximum(start, 0), np.minimum(stop, s)
        counts = np.multiply.outer(counts, stop - start)
    return counts


def adaptive_bounds(size: int, out: int) -> tuple[Array, Array]:
    """Start and stop of each adaptive window along one axis."""
    step = np.arange(out)
    return step * size // out, -(-(step + 1) * size // out)


def adaptive_max_pool(x: Array, out: Ints) -> tuple[Array, Array]:
    """Adaptive maximum with indices: one axis of windows after the other, by gathered taps."""
    bounds = [adaptive_bounds(s, n) for s, n in zip(x.shape[2:], out, strict=True)]
    widths = [int((stop - start).max(initial=0)) for start, stop in bounds]
    best = np.full((*x.shape[:2], *out), _lowest(x.dtype), x.dtype)
    index = np.zeros(best.shape, np.int64)
    for number, position in enumerate(np.ndindex(*widths)):
        places = [
            np.minimum(start + q, stop - 1)
            for q, (start, stop) in zip(position, bounds, strict=True)
        ]
        value = x[(slice(None), slice(None), *np.ix_(*places))]
        better = value > best
        if x.dtype.kind not in "iub":
            better |= value != value
        if number == 0:
            better[...] = True
        flat = np.ravel_multi_index(np.ix_(*places), x.shape[2:])
        np.copyto(best, value, where=better)
        np.copyto(index, flat, where=better)
    return best, index


def fractional_starts(samples: Array, spatial: Ints, out: Ints, kernel: Ints) -> list[Array]:
    """Window starts along each axis, (planes, cells), from one uniform sample each (N, C, D)."""
    flat = samples.reshape(-1, len(out))
    # PyTorch takes samples of 3-d pooling in the order of the axes, of 2-d in reverse.
    columns = flat.T if len(out) == 3 else flat.T[::-1]
    return [_starts(c[:, None], s, n, k)
            for c, s, n, k in zip(columns, spatial, out, kernel, strict=True)]


def _starts(sample: Array, size: int, out: int, kernel: int) -> Array:
    """Starts of one axis, computed in the dtype of the samples; the last window ends it."""
    alpha = sample.dtype.type(size - kernel) / sample.dtype.type(max(out - 1, 1))
    steps = np.arange(out).astype(sample.dtype)
    starts = ((steps + sample) * alpha).astype(np.int64) - (sample * alpha).astype(np.int64)
    starts[:, -1:] = size - kernel
    return starts


def fractional_max_pool(
    x: Array, samples: Array, out: Ints, kernel: Ints
) -> tuple[Array, Array]:
    """Maxima of windows at pseudo-random starts; samples (N, C, D), the last axis first."""
    best = np.empty((*x.shape[:2], *out), x.dtype)
    index = np.empty(best.shape, np.int64)
    starts = fractional_starts(samples, x.shape[2:], out, kernel)
    for number, plane in enumerate(np.ndindex(*x.shape[:2])):
        best[plane], index[plane] = _windows_max(x[plane], [s[number] for s in starts], kernel)
    return best, index


def _windows_max(plane: Array, starts: Sequence[Array], kernel: Ints) -> tuple[Array, Array]:
    values, places = [], []
    for position in np.ndindex(*kernel):
        cells = np.ix_(*(s + q for s, q in zip(starts, position, strict=True)))
        values.append(plane[cells])
        places.append(np.ravel_multi_index(cells, plane.shape))
    stacked = np.stack(values)
    last = len(values) - 1 - (stacked != stacked)[::-1].argmax(0)  # of the NaNs of a window
    chosen = np.where((stacked != stacked).any(0), last, stacked.argmax(0))[None]
    return (
        np.take_along_axis(stacked, chosen, 0)[0],
        np.take_along_axis(np.stack(places), chosen, 0)[0],
    )
