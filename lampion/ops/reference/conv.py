"""Convolution of any number of spatial dimensions, and its two gradients.

Layouts: input (N, C, *S), weight (O, C/groups, *K), output (N, O, *L). The products are done by
BLAS on unrolled windows (im2col), a few samples at a time so the unrolled block stays in cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

Array = Any  # an ndarray; NumPy's stubs do not take mixed index tuples
Ints = Sequence[int]

_BLOCK = 1 << 21  # elements of one unrolled block: 8 MB of float32


def output_size(size: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints) -> list[int]:
    """Spatial sizes of a convolution's output."""
    return [
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, k, t, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    ]


def pad_spatial(x: Array, padding: Ints, value: float = 0) -> Array:
    """`x` with `padding` cells of `value` on both sides of every spatial axis."""
    if not any(padding):
        return x
    spatial = x.shape[2:]
    sizes = [s + 2 * p for s, p in zip(spatial, padding, strict=True)]
    out: Array = np.full(x.shape[:2] + tuple(sizes), value, x.dtype)
    out[(..., *inner(spatial, padding))] = x
    return out


def inner(size: Ints, padding: Ints) -> tuple[slice, ...]:
    """Slices that cut the padding off again."""
    return tuple(slice(p, p + s) for s, p in zip(size, padding, strict=True))


def taps(
    kernel: Ints, out: Ints, stride: Ints, dilation: Ints
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Each kernel position, with the slices of the padded input that it meets."""
    for position in product(*(range(k) for k in kernel)):
        yield (
            position,
            tuple(
                slice(q * d, q * d + (n - 1) * t + 1, t)
                for q, n, t, d in zip(position, out, stride, dilation, strict=True)
            ),
        )


def windows(x: Array, kernel: Ints, out: Ints, stride: Ints, dilation: Ints) -> Array:
    """A read-only view (N, C, *kernel, *out) of the padded `x`."""
    spatial = x.strides[2:]
    strides = (
        x.strides[:2]
        + tuple(s * d for s, d in zip(spatial, dilation, strict=True))
        + tuple(s * t for s, t in zip(spatial, stride, strict=True))
    )
    return as_strided(x, x.shape[:2] + tuple(kernel) + tuple(out), strides, writeable=False)


def _block(total: int, per_sample: int, cells: int) -> int:
    """How many samples to unroll at once: one when a sample alone makes a good matrix."""
    if cells >= 512:
        return 1
    return max(1, min(total, _BLOCK // max(per_sample, 1)))


def _columns(view: Array, group: slice) -> Array:
    """Windows of one channel group as the matrix (C/groups * kernel, samples * cells)."""
    part = view[:, group]
    dims = (view.ndim - 2) // 2
    axes = (1, *range(2, 2 + dims), 0, *range(2 + dims, view.ndim))
    rows = part.shape[1] * int(np.prod(part.shape[2 : 2 + dims]))
    return part.transpose(axes).reshape(rows, -1)


def _rows(y: Array) -> Array:
    """(samples, channels, *cells) as the matrix (channels, samples * cells)."""
    return y.reshape(y.shape[0], y.shape[1], -1).swapaxes(0, 1).reshape(y.shape[1], -1)


def _group(index: int, size: int) -> slice:
    return slice(index * size, (index + 1) * size)


def convolve(
    x: Array, w: Array, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Array:
    """Cross-correlation of `x` with `w`; no bias."""
    kernel = w.shape[2:]
    size = output_size(x.shape[2:], kernel, stride, padding, dilation)
    out = np.empty((x.shape[0], w.shape[0], *size), x.dtype)
    if out.size == 0:
        return out
    if x.size == 0:
        out.fill(0)
        return out
    x = pad_spatial(x, padding)
    if w.shape[1] == 1 and groups > 1:
        return _depthwise(x, w, out, stride, dilation)
    cells = int(np.prod(size))
    step = _block(x.shape[0], int(np.prod(w.shape[1:])) * cells * groups, cells)
    flat = w.reshape(w.shape[0], -1)
    cin, cout = w.shape[1], w.shape[0] // groups
    for n in range(0, x.shape[0], step):
        view = windows(x[n : n + step], kernel, size, stride, dilation)
        for g in range(groups):
            rows = flat[_group(g, cout)] @ _columns(view, _group(g, cin))
            part = rows.reshape(cout, view.shape[0], *size)
            out[n : n + step, _group(g, cout)] = part.swapaxes(0, 1)
    return out


def _depthwise(x: Array, w: Array, out: Array, stride: Ints, dilation: Ints) -> Array:
    """One input channel per group: a sum of shifted, scaled copies beats many thin products."""
    size, ones = out.shape[2:], (1,) * (out.ndim - 2)
    out.fill(0)
    grouped = out.reshape(out.shape[0], x.shape[1], -1, *size)
    per_group = w.reshape(x.shape[1], -1, *w.shape[2:])
    for position, cut in taps(w.shape[2:], size, stride, dilation):
        scale = per_group[(..., *position)].reshape(x.shape[1], -1, *ones)
        grouped += x[(..., *cut)][:, :, None] * scale
    return out


def _depthwise_input(gx: Array, gy: Array, w: Array, stride: Ints, dilation: Ints) -> None:
    """Add the gradient for the padded input of a depthwise convolution to `gx`."""
    channels, ones = gx.shape[1], (1,) * (gx.ndim - 2)
    grouped = gy.reshape(gy.shape[0], channels, gy.shape[1] // channels, *gy.shape[2:])
    per_group = w.reshape(channels, -1, *w.shape[2:])
    for position, cut in taps(w.shape[2:], gy.shape[2:], stride, dilation):
        scale = per_group[(..., *position)].reshape(channels, -1, *ones)
        gx[(..., *cut)] += (grouped * scale).sum(2)


def _depthwise_weight(gy: Array, x: Array, kernel: Ints, stride: Ints, dilation: Ints) -> Array:
    """Gradient for the weight of a depthwise convolution of the padded `x`."""
    n, channels = x.shape[:2]
    size = gy.shape[2:]
    grouped = gy.reshape(n, channels, gy.shape[1] // channels, int(np.prod(size)))
    out: Array = np.zeros((channels, grouped.shape[2], *kernel), gy.dtype)
    for position, cut in taps(kernel, size, stride, dilation):
        part = x[(..., *cut)].reshape(n, channels, grouped.shape[3])
        out[(..., *position)] = np.einsum("ncml,ncl->cm", grouped, part)
    return out.reshape(gy.shape[1], 1, *kernel)


def input_gradient(
    gy: Array,
    w: Array,
    input_size: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> Array:
    """Gradient of `convolve` for its input of spatial size `input_size`.

    This is also the transposed convolution.
    """
    size = gy.shape[2:]
    padded = [s + 2 * p for s, p in zip(input_size, padding, strict=True)]
    channels = w.shape[1] * groups
    gx: Array = np.zeros((gy.shape[0], channels, *padded), gy.dtype)
    if w.shape[1] == 1 and groups > 1:
        _depthwise_input(gx, gy, w, stride, dilation)
    elif gy.size and gx.size:
        cells = int(np.prod(size))
        step = _block(gy.shape[0], int(np.prod(w.shape[1:])) * cells * groups, cells)
        for n in range(0, gy.shape[0], step):
            for g in range(groups):
                _fold_group(gx[n : n + step], gy[n : n + step], w, g, groups, stride, dilation)
    return gx[(..., *inner(input_size, padding))] if any(padding) else gx


def _fold_group(
    gx: Array, gy: Array, w: Array, g: int, groups: int, stride: Ints, dilation: Ints
) -> None:
    """Add one group's share: unrolled gradient columns, laid back over the input (col2im)."""
    cout, cin, kernel, size = w.shape[0] // groups, w.shape[1], w.shape[2:], gy.shape[2:]
    flat = w[_group(g, cout)].reshape(cout, -1)
    columns = flat.T @ _rows(gy[:, _group(g, cout)])
    columns = columns.reshape(cin, *kernel, gy.shape[0], *size)
    target = gx[:, _group(g, cin)].swapaxes(0, 1)
    for position, cut in taps(kernel, size, stride, dilation):
        target[(..., *cut)] += columns[(slice(None), *position)]


def weight_gradient(
    gy: Array,
    x: Array,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> Array:
    """Gradient of `convolve` for its weight of spatial size `kernel`."""
    size = gy.shape[2:]
    cin, cout = x.shape[1] // groups, gy.shape[1] // groups
    if cin == 1 and groups > 1:
        return _depthwise_weight(gy, pad_spatial(x, padding), kernel, stride, dilation)
    gw = np.zeros((gy.shape[1], cin * int(np.prod(kernel))), gy.dtype)
    if gy.size and x.size:
        x = pad_spatial(x, padding)
        cells = int(np.prod(size))
        step = _block(x.shape[0], cin * int(np.prod(kernel)) * cells * groups, cells)
        for n in range(0, x.shape[0], step):
            view = windows(x[n : n + step], kernel, size, stride, dilation)
            for g in range(groups):
                part = _rows(gy[n : n + step, _group(g, cout)])
                gw[_group(g, cout)] += part @ _columns(view, _group(g, cin)).T
    return gw.reshape(gy.shape[1], cin, *kernel)


def unfold(x: Array, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints) -> Array:
    """Sliding blocks (N, C * kernel, cells)."""
    size = output_size(x.shape[2:], kernel, stride, padding, dilation)
    view = windows(pad_spatial(x, padding), kernel, size, stride, dilation)
    return view.reshape(x.shape[0], x.shape[1] * int(np.prod(kernel)), int(np.prod(size)))


def fold(
    blocks: Array, target: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints
) -> Array:
    """Sum of sliding blocks (N, C * kernel, cells) laid over an image of size `target`."""
    size = output_size(target, kernel, stride, padding, dilation)
    channels = blocks.shape[1] // int(np.prod(kernel))
    view = blocks.reshape(blocks.shape[0], channels, *kernel, *size)
    padded = [s + 2 * p for s, p in zip(target, padding, strict=True)]
    out: Array = np.zeros((blocks.shape[0], channels, *padded), blocks.dtype)
    for position, cut in taps(kernel, size, stride, dilation):
        out[(..., *cut)] += view[(slice(None), slice(None), *position)]
    return out[(..., *inner(target, padding))]
