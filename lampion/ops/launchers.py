"""Launchers of kernels that are no plain loop nests: convolutions, attention, indices, scans.

Each takes the arguments of its operator's reference and returns the result, or None where the
reference must serve (another dtype, a layout that a kernel does not read, a kernel still being
made).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from math import prod
from typing import Any

import numpy as np

from ..runtime import memory
from ..runtime.later import Later
from ..runtime.recording import recording_here
from ..runtime.recording import result as place
from ..tensor.formats import contiguous_format
from .activation import glu_gradients
from .native import Launcher, launch, template
from .pool import divisors
from .record import LEAVES
from .reference import grid as sampling
from .reference import resample as resampling
from .reference import rnn
from .reference.pool import adaptive_bounds, fractional_starts, pool_size
from .resize import RESAMPLE
from .streamed import Streamed

Array = Any

_CODEGEN = __package__.removesuffix("ops") + "codegen."
attention_kernels = Later(_CODEGEN + "attention")
conv_kernels = Later(_CODEGEN + "conv")
fused_kernels = Later(_CODEGEN + "fused")
gather_kernels = Later(_CODEGEN + "gather")
gemm_kernels = Later(_CODEGEN + "gemm")
pick_kernels = Later(_CODEGEN + "pick")
pooling_kernels = Later(_CODEGEN + "pooling")
ranges_kernels = Later(_CODEGEN + "pooling_ranges")
resample_kernels = Later(_CODEGEN + "resample")
sample_kernels = Later(_CODEGEN + "sample")
scan_kernels = Later(_CODEGEN + "scan")
sort_kernels = Later(_CODEGEN + "sort")

_INDEX = np.dtype(np.int64)
_PLACES = np.dtype(np.float64)
_FLOATS = frozenset((np.dtype(np.float32), np.dtype(np.float64)))


def _same_floats(*arrays: Array) -> bool:
    first = arrays[0].dtype
    return first in _FLOATS and all(a is None or a.dtype == first for a in arrays)


def aligned(*arrays: Array) -> bool:
    """Whether all strides are whole elements (a field of a structured array's is not)."""
    for a in arrays:
        size = a.itemsize
        for step in a.strides:
            if step % size:
                return False
    return True


# --- narrow floats ----------------------------------------------------------------------------


def _single(a: Array) -> Any:
    return (a.astype(np.float32),)


@cache
def fused(function: Callable[..., Any]) -> Any:
    """A NumPy function as a kernel, see `codegen/fused.py`."""
    return fused_kernels.Fused(function)


_NARROW: dict[Any, Any] = {}


@cache
def _is_narrow(dtype: Any) -> bool:
    return dtype.name in _NARROW_NAMES


def _wide(a: Any, narrow: Any) -> Any:
    """An array of the narrow dtype in float32; others as they are."""
    if not isinstance(a, np.ndarray) or a.dtype != narrow:
        return a
    out = memory.empty(a.shape, _F32)
    fused(_single)([a], [out])
    return out


def _rounded(a: Any, narrow: Any) -> Any:
    if a.dtype != _F32:
        return a
    found = _NARROW.get(narrow)
    if found is None:
        def rounding(x: Array) -> Any:
            return (x.astype(narrow),)
        found = _NARROW[narrow] = fused(rounding)
    out = memory.empty(a.shape, narrow)
    found([a], [out])
    return out


def by_single(name: str, quick: bool = False) -> Callable[[Launcher], Launcher]:
    """Declares a launcher of float32 and float64 kernels; quick: as for `template`.

    bfloat16 and float16 are computed in float32 and the results rounded.
    """
    def add(launcher: Launcher) -> Launcher:
        def launched(*args: Any) -> Any:
            narrow = next((a.dtype for a in args if isinstance(a, np.ndarray)
                           and _is_narrow(a.dtype)), None)
            if narrow is None:
                return launcher(*args)
            result = launcher(*[_wide(a, narrow) for a in args])
            if result is None:
                return None
            if isinstance(result, tuple):
                return tuple(_rounded(r, narrow) for r in result)
            return _rounded(result, narrow)
        template(name, quick)(launched)
        return launcher
    return add


_F32, _F64 = np.dtype(np.float32), np.dtype(np.float64)
_NARROW_NAMES = frozenset(("bfloat16", "float16"))


# --- copies -----------------------------------------------------------------------------------


_COPIED = frozenset(map(np.dtype, ("float32", "float64", "int32", "int64")))


@template("clone")
def _clone(a: Array, order: Any) -> Any:
    plain = order is contiguous_format
    if a.dtype not in _COPIED or not (plain or order is None) or not aligned(a):
        return None
    dense = plain or a.flags.c_contiguous
    out = memory.empty(a.shape, a.dtype) if dense else np.empty_like(a)
    fused_kernels.copy(out, a)
    return out


@template("cat")
def _cat(parts: Any, dim: int) -> Any:
    first = parts[0]
    if first.dtype not in _COPIED or any(a.dtype != first.dtype for a in parts) or not aligned(
            *parts):
        return None
    shape = list(first.shape)
    shape[dim] = sum(a.shape[dim] for a in parts)
    out, start = memory.empty(tuple(shape), first.dtype), 0
    before = (slice(None),) * (dim % first.ndim)
    for a in parts:
        stop = start + a.shape[dim]
        fused_kernels.copy(out[(*before, slice(start, stop))], a)
        start = stop
    return out


@template("flip")
def _flip(a: Array, dims: Any) -> Any:
    if a.ndim - 1 in dims or not aligned(a):  # NumPy turns rows around as quickly
        return None
    out = memory.empty(a.shape, a.dtype)
    fused_kernels.copy(out, np.flip(a, dims))
    return out


@template("repeat")
def _repeat(a: Array, repeats: Any) -> Any:
    if not aligned(a):
        return None
    shape = (1,) * (len(repeats) - a.ndim) + a.shape
    split = [n for pair in zip(repeats, shape, strict=True) for n in pair]  # copies, then elements
    out = memory.empty(tuple(r * n for r, n in zip(repeats, shape, strict=True)), a.dtype)
    once = a.reshape([n for m in shape for n in (1, m)])
    fused_kernels.copy(out.reshape(split), np.broadcast_to(once, split))
    return out


@lru_cache(64)
def _below(rows: int, columns: int, diagonal: int) -> Array:
    """Which elements lie on or below a diagonal."""
    return np.tri(rows, columns, diagonal, dtype=bool)


def _kept(a: Array, mask: Array) -> Any:
    return (np.where(mask, a, a.dtype.type(0)),)


def _dropped(a: Array, mask: Array) -> Any:
    return (np.where(mask, a.dtype.type(0), a),)


def _triangle(kernel: Any, above: int) -> Launcher:
    def launcher(a: Array, diagonal: int) -> Any:
        if a.dtype not in _COPIED or not aligned(a):
            return None
        out = memory.empty(a.shape, a.dtype)
        fused(kernel)([a, _below(*a.shape[-2:], diagonal - above)], [out])
        return out
    return launcher


template("tril", quick=True)(_triangle(_kept, 0))
template("triu", quick=True)(_triangle(_dropped, 1))


@template("stack")
def _stack(parts: Any, dim: int) -> Any:
    return _cat([np.expand_dims(a, dim) for a in parts], dim)


# --- convolution ------------------------------------------------------------------------------


@by_single("convolution", quick=True)
def _convolution(x: Array, weight: Array, bias: Array, stride: Any, padding: Any, dilation: Any,
                 groups: int) -> Any:
    if not (_same_floats(x, weight, bias) and aligned(x, weight)):
        return None
    sizes = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(
        x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)]
    out = memory.empty((x.shape[0], weight.shape[0], *sizes), x.dtype)
    ok = conv_kernels.conv_forward(out, x, weight, bias, stride, padding, dilation, groups)
    return out if ok else None


@by_single("correlate_input", quick=True)
def _correlate_input(grad: Array, weight: Array, bias: Array, size: Any, stride: Any,
                     padding: Any, dilation: Any, groups: int) -> Any:
    if not (_same_floats(grad, weight, bias) and aligned(grad, weight)):
        return None
    out = memory.empty((grad.shape[0], weight.shape[1] * groups, *size), grad.dtype)
    ok = conv_kernels.conv_grad_input(out, grad, weight, bias, stride, padding, dilation, groups)
    return out if ok else None


@by_single("correlate_weight", quick=True)
def _correlate_weight(grad: Array, x: Array, kernel: Any, stride: Any, padding: Any,
                      dilation: Any, groups: int) -> Any:
    if not (_same_floats(grad, x) and aligned(grad, x)):
        return None
    out = memory.empty((grad.shape[1], x.shape[1] // groups, *kernel), grad.dtype)
    ok = conv_kernels.conv_grad_weight(out, x, grad, stride, padding, dilation, groups)
    return out if ok else None


# --- pooling ----------------------------------------------------------------------------------


@template("max_pool2d_with_indices", quick=True)
def _max_pool(x: Array, kernel: Any, stride: Any, padding: Any, dilation: Any,
              ceil_mode: bool) -> Any:
    if not _same_floats(x):
        return None
    size = pool_size(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    out = memory.empty((*x.shape[:2], *size), x.dtype)
    index = memory.empty(out.shape, _INDEX)
    ok = pooling_kernels.max_pool2d(out, index, x, kernel, stride, padding, dilation)
    return (out, index) if ok else None


@template("max_pool1d_with_indices", quick=True)
def _max_pool1d(x: Array, kernel: Any, stride: Any, padding: Any, dilation: Any,
                ceil_mode: bool) -> Any:
    found = _max_pool(x[:, :, None], (1, *kernel), (1, *stride), (0, *padding), (1, *dilation),
                      ceil_mode)
    return found and tuple(a[:, :, 0] for a in found)


@template("max_pool3d_with_indices", quick=True)
def _max_pool3d(x: Array, kernel: Any, stride: Any, padding: Any, dilation: Any,
                ceil_mode: bool) -> Any:
    if max(dilation) > 1:
        return None
    size = pool_size(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    return _max_of_ranges(x, size, _strided_bounds(x.shape[2:], tuple(size), kernel, stride,
                                                   padding))


@lru_cache(256)
def _strided_bounds(spatial: Any, size: Any, kernel: Any, stride: Any, padding: Any) -> Any:
    starts = [np.arange(n) * t - p for n, t, p in zip(size, stride, padding, strict=True)]
    return [(np.maximum(start, 0), np.minimum(start + k, s))
            for start, k, s in zip(starts, kernel, spatial, strict=True)]


@lru_cache(256)
def _adaptive_bounds(spatial: Any, size: Any) -> Any:
    return [adaptive_bounds(s, n) for s, n in zip(spatial, size, strict=True)]


def _adaptive_max(x: Array, size: Any) -> Any:
    return _max_of_ranges(x, size, _adaptive_bounds(x.shape[2:], tuple(size)))


def _fractional_max(x: Array, samples: Array, size: Any, kernel: Any) -> Any:
    if recording_here() is not None:  # the windows are looked up once, here
        return None
    starts = fractional_starts(samples, x.shape[2:], size, kernel)
    return _max_of_ranges(x, size, [(s, s + k) for s, k in zip(starts, kernel, strict=True)])


for _dims in (1, 2, 3):
    template(f"adaptive_max_pool{_dims}d_with_indices")(_adaptive_max)
    if _dims > 1:
        template(f"fractional_max_pool{_dims}d_with_indices")(_fractional_max)


def _max_of_ranges(x: Array, size: Any, bounds: Any) -> Any:
    if not _same_floats(x) or not x.size:
        return None
    out = memory.empty((*x.shape[:2], *size), x.dtype)
    index = memory.empty(out.shape, _INDEX)
    x = fused_kernels.as_contiguous(x)
    return (out, index) if ranges_kernels.max_of_ranges(out, index, x, bounds) else None


@template("scatter_planes")
def _scatter_planes(values: Array, index: Array, spatial: Any) -> Any:
    if not _same_floats(values):
        return None
    out = memory.empty((*values.shape[:2], *spatial), values.dtype)
    planes = *values.shape[:2], 1
    cells = *planes, prod(values.shape[2:])
    found = _found(pooling_kernels.max_pool2d_backward, out.reshape(*planes, prod(spatial)),
                   fused_kernels.reshaped(values, cells), fused_kernels.reshaped(index, cells))
    return None if found is None else out


@template("avg_pool2d")
def _avg_pool(x: Array, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, include: bool,
              override: int | None) -> Any:
    if not _same_floats(x):
        return None
    size = pool_size(x.shape[2:], kernel, stride, padding, (1, 1), ceil_mode)
    divisor = divisors(x.shape[2:], kernel, stride, padding, ceil_mode, include, override)
    out = memory.empty((*x.shape[:2], *size), x.dtype)
    full = np.full(size, divisor, x.dtype)
    return out if pooling_kernels.avg_pool2d(out, x, full, kernel, stride, padding) else None


@template("avg_pool_backward")
def _avg_pool_backward(grad: Array, spatial: Any, kernel: Any, stride: Any, padding: Any,
                       ceil_mode: bool, include: bool, override: int | None) -> Any:
    if not _same_floats(grad) or len(spatial) != 2:
        return None
    divisor = divisors(spatial, kernel, stride, padding, ceil_mode, include, override)
    out = memory.empty((*grad.shape[:2], *spatial), grad.dtype)
    full = np.full(grad.shape[2:], divisor, grad.dtype)
    ok = pooling_kernels.avg_pool2d_backward(out, grad, full, kernel, stride, padding)
    return out if ok else None


# --- gates ------------------------------------------------------------------------------------


@by_single("glu_backward")
def _glu_backward(grad: Array, x: Array, dim: int) -> Any:
    if not _same_floats(grad, x) or not aligned(grad, x):
        return None
    out = memory.empty(x.shape, x.dtype)
    fused(glu_gradients)([grad, *np.split(x, 2, dim)], np.split(out, 2, dim))
    return out


# --- resampling -------------------------------------------------------------------------------


@lru_cache(256)
def _taps(kind: str, spatial: Any, size: Any, align: bool, factors: Any, dtype: Any,
          turned: bool) -> Any:
    tables = resampling.tables(kind, spatial, size, align, factors, dtype)
    make = resample_kernels.turned_taps if turned else resample_kernels.taps
    return tuple(make(*table, n, dtype) for table, n in zip(tables, spatial, strict=True))


def _resample(x: Array, kind: str, size: Any, align: bool, factors: Any) -> Any:
    return _resampled(x, size, (kind, x.shape[2:], tuple(size), align, tuple(factors)), False)


for _kind, _dims in RESAMPLE:
    if _kind != "mean":  # a mean of equal blocks is a plain loop nest
        template(RESAMPLE[_kind, _dims].name, quick=True)(_resample)


@template("resample_transpose")
def _resample_transpose(grad: Array, kind: str, spatial: Any, align: bool, factors: Any) -> Any:
    key = kind, tuple(spatial), grad.shape[2:], align, tuple(factors)
    return _resampled(grad, spatial, key, True)


def _resampled(x: Array, size: Any, key: Any, turned: bool) -> Any:
    if x.dtype not in _FLOATS or not x.size:
        return None
    out = memory.empty((*x.shape[:2], *size), x.dtype)
    taken = _taps(*key, x.dtype, turned)
    return out if resample_kernels.resample(out, fused_kernels.as_contiguous(x), taken) else None


@template("own_pad_backward")
def _own_pad_backward(grad: Array, pad: Any, mode: str) -> Any:
    axes = len(pad) // 2
    amounts = tuple((pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2))
    spatial = tuple(n - sum(p) for n, p in zip(grad.shape[-axes:], amounts, strict=True))
    if grad.dtype not in _FLOATS or not grad.size or min(spatial) < 1:
        return None
    out = memory.empty((*grad.shape[:-axes], *spatial), grad.dtype)
    taken = _pad_taps(amounts, spatial, mode, grad.dtype)
    return out if resample_kernels.resample(out, fused_kernels.as_contiguous(grad), taken) else None


@lru_cache(256)
def _pad_taps(amounts: Any, spatial: Any, mode: str, dtype: Any) -> Any:
    tables = [resampling.pad_table(before, after, n, mode)[:, None]
              for (before, after), n in zip(amounts, spatial, strict=True)]
    return tuple(resample_kernels.turned_taps(t, np.ones(t.shape), n, dtype)
                 for t, n in zip(tables, spatial, strict=True))


def _grid_sample(x: Array, grid: Array, *rule: Any) -> Any:
    found = _corners(x, grid, rule)
    if found is None:
        return None
    out = memory.empty((*x.shape[:2], *grid.shape[1:-1]), x.dtype)
    x = fused_kernels.as_contiguous(x)
    return out if sample_kernels.read(_planes(out), _planes(x), *found) else None


template("grid_sampler_2d")(_grid_sample)
template("grid_sampler_3d")(_grid_sample)


@template("grid_sampler_backward")
def _grid_backward(grad: Array, x: Array, grid: Array, *rule: Any) -> Any:
    found = _corners(x, grid, rule)
    if found is None or grad.dtype != x.dtype:
        return None
    places, weights = found
    values = _planes(fused_kernels.as_contiguous(grad))
    gx, dot = memory.empty(x.shape, x.dtype), memory.empty(weights.shape, x.dtype)
    fused_kernels.fill(gx, 0)
    if not (sample_kernels.spread(_planes(gx), values, places, weights)
            and sample_kernels.dots(dot, values, _planes(fused_kernels.as_contiguous(x)), places)):
        return None
    moved = memory.empty(grid.shape, grid.dtype)
    split = [d.reshape(grid.shape[:-1]) for d in dot]
    _moves(sampling.Rule(x.shape[2:], *rule), len(split))(
        [*split, *sampling.coordinates(grid)], sampling.coordinates(moved))
    return gx, moved


def _planes(x: Array) -> Array:
    return x.reshape(*x.shape[:2], prod(x.shape[2:]))


def _corners(x: Array, grid: Array, rule: Any) -> Any:
    """Places and weights, (corners, N, positions)."""
    if not _same_floats(x, grid) or not aligned(grid) or "reflection" in rule or (
            not x.size or not grid.size):
        return None
    each = {"nearest": 1, "bilinear": 2, "bicubic": 4}[rule[0]]
    shape = (each ** (x.ndim - 2), *grid.shape[:-1])
    places, weights = memory.empty(shape, _PLACES), memory.empty(shape, x.dtype)
    _positions(sampling.Rule(x.shape[2:], *rule))(sampling.coordinates(grid), [*places, *weights])
    flat = (*shape[:2], prod(shape[2:]))
    return places.reshape(flat), weights.reshape(flat)


@lru_cache(64)
def _positions(rule: sampling.Rule) -> Any:
    return fused_kernels.Fused(lambda *coords: sampling.places_and_weights(coords, rule),
                               f"positions {rule}")


@lru_cache(64)
def _moves(rule: sampling.Rule, corners: int) -> Any:
    return fused_kernels.Fused(lambda *a: sampling.moves(a[:corners], a[corners:], rule),
                               f"moves {rule}")


# --- indices ----------------------------------------------------------------------------------


def _found(run: Any, out: Array, *args: Any) -> Any:
    """`out` after a kernel with indices; None for bad ones too: the reference tells which."""
    try:
        return out if run(out, *args) else None
    except IndexError:
        return None


@template("embedding")
def _embedding(weight: Array, indices: Array, padding_idx: int, by_frequency: bool) -> Any:
    return _taken(weight, indices, 0)


def _taken(x: Array, index: Array, dim: int, wraps: bool = False) -> Any:
    """`x` with an axis replaced by those of an index to it."""
    try:
        return gather_kernels.take(x, fused_kernels.as_contiguous(index), dim, wraps)
    except IndexError:
        return None


def _summed(grad: Array, shape: Any, index: Array, dim: int, wraps: bool = False) -> Any:
    """The gradient of `_taken` to an `x` of that shape."""
    line = index if index.ndim == 1 else fused_kernels.reshaped(index, (index.size,))
    rows = fused_kernels.as_contiguous(grad)
    if line is not index:
        rows = rows.reshape(*shape[:dim], index.size, *shape[dim + 1:])
    out = memory.empty(tuple(shape), grad.dtype)
    return _found(gather_kernels.sum_rows, out, line, rows, dim, wraps)


@template("embedding_dense_backward", quick=True)
def _embedding_backward(grad: Array, indices: Array, rows: int, padding_idx: int,
                        by_frequency: bool) -> Any:
    if padding_idx >= 0 or by_frequency or not _same_floats(grad):
        return None
    return _summed(grad, (rows, grad.shape[-1]), indices, 0)


@template("index_select")
def _index_select(x: Array, dim: int, index: Any) -> Any:
    places = index._a
    return None if places.ndim != 1 or x.ndim == 0 else _taken(x, places, dim)


@by_single("index_select_backward")
def _index_select_backward(grad: Array, shape: Any, dim: int, index: Any) -> Any:
    places = index._a
    if places.ndim != 1 or not shape or not _same_floats(grad):
        return None
    return _summed(grad, shape, places, dim)


@template("index")
def _index(x: Array, indices: Any) -> Any:
    dim = _only_one(indices)
    return None if dim is None else _taken(x, indices[dim]._a, dim, True)


@by_single("index_backward")
def _index_backward(grad: Array, shape: Any, indices: Any) -> Any:
    dim = _only_one(indices)
    if dim is None or not _same_floats(grad):
        return None
    return _summed(grad, shape, indices[dim]._a, dim, True)


def _only_one(indices: Any) -> Any:
    """The dimension of the only index tensor of `x[:, i]`; None where there are more."""
    given = [d for d, index in enumerate(indices) if index is not None]
    return given[0] if len(given) == 1 else None


@template("gather")
def _gather(x: Array, dim: int, index: Any) -> Any:
    places = index._a
    if not _along(x.shape, places, dim):
        return None
    line = _line(places, dim)
    try:
        return (gather_kernels.take_along(x, fused_kernels.as_contiguous(places), dim)
                if line is None else _taken(x, line, dim))
    except IndexError:
        return None


@by_single("gather_backward")
def _gather_backward(grad: Array, shape: Any, dim: int, index: Any) -> Any:
    places = index._a
    if not _along(shape, places, dim) or not _same_floats(grad):
        return None
    line = _line(places, dim)
    if line is not None:
        return _summed(grad, shape, line, dim)
    out = memory.empty(tuple(shape), grad.dtype)
    return _found(gather_kernels.sum_along, out, fused_kernels.as_contiguous(places),
                  fused_kernels.as_contiguous(grad), dim)


@template("scatter_add")
def _scatter_add(x: Array, src: Array, dim: int, index: Any) -> Any:
    places = index._a
    if not _along(x.shape, places, dim) or src.shape != places.shape or not _same_floats(x, src):
        return None
    line, out = _line(places, dim), memory.empty(x.shape, x.dtype)
    x, src = fused_kernels.as_contiguous(x), fused_kernels.as_contiguous(src)
    if line is not None:
        return _found(gather_kernels.sum_rows, out, line, src, dim, False, x)
    return _found(gather_kernels.sum_along, out, fused_kernels.as_contiguous(places), src, dim, x)


@template("index_add")
def _index_add(x: Array, source: Array, dim: int, index: Any) -> Any:
    places = index._a
    if places.ndim != 1 or x.ndim == 0 or not _same_floats(x, source) or (
            source.shape != (*x.shape[:dim], places.size, *x.shape[dim + 1:])):
        return None
    out, x = memory.empty(x.shape, x.dtype), fused_kernels.as_contiguous(x)
    source = fused_kernels.as_contiguous(source)
    return _found(gather_kernels.sum_rows, out, places, source, dim, False, x)


@template("index_copy")
def _index_copy(x: Array, source: Array, dim: int, index: Any) -> Any:
    return _put(x, source, dim, index._a)


@template("index_put")
def _index_put(x: Array, values: Array, indices: Any, accumulate: bool) -> Any:
    dim = _only_one(indices)
    if accumulate or dim is None or indices[dim]._a.ndim != 1:
        return None
    places = indices[dim]._a
    shape = (*x.shape[:dim], places.size, *x.shape[dim + 1:])
    return _put(x, np.broadcast_to(values, shape), dim, places)


def _put(x: Array, source: Array, dim: int, places: Array) -> Any:
    """A copy of `x`, or itself where it may be changed, with rows of `source`."""
    if places.ndim != 1 or x.ndim == 0 or x.dtype != source.dtype or not aligned(x, source) or (
            source.shape != (*x.shape[:dim], places.size, *x.shape[dim + 1:])):
        return None
    out = place(0, x.shape, x.dtype)
    if out is not x and not x.flags.c_contiguous:
        return None
    if out is not x:
        fused_kernels.copy(out, x)
    return _found(gather_kernels.put_rows, out, places, source, dim)


def _line(places: Array, dim: int) -> Any:
    """An index that is one line, expanded along all other axes, as that line; else None."""
    others = zip(places.strides[:dim] + places.strides[dim + 1:],
                 places.shape[:dim] + places.shape[dim + 1:], strict=True)
    if places.ndim < 2 or not places.size or any(step and n > 1 for step, n in others):
        return None
    return places[(0,) * dim + (slice(None),) + (0,) * (places.ndim - dim - 1)]


def _along(shape: Any, places: Array, dim: int) -> bool:
    """Whether an array of that shape and the indices differ in that axis alone."""
    return (len(shape) == places.ndim > 0
            and shape[:dim] == places.shape[:dim] and shape[dim + 1:] == places.shape[dim + 1:])


# --- scans, the largest elements --------------------------------------------------------------


def _scan(name: str, places: bool, quick: bool) -> None:
    """The launcher of a cumulative operator; with places also where the extremes are."""
    def launcher(x: Array, dim: int, reverse: bool = False) -> Any:
        if x.ndim == 0 or x.dtype not in _SCANNED:
            return None
        out = memory.empty(x.shape, x.dtype)
        index = memory.empty(x.shape, _INDEX) if places else None
        x = fused_kernels.as_contiguous(x)
        if not scan_kernels.scan(name, out, x, dim, index, reverse):
            return None
        return (out, index) if places else out
    by_single(name, quick)(launcher)


_SCANNED = frozenset(map(np.dtype, ("float32", "float64", "int64")))
_scan("cumsum", False, quick=False)
_scan("cumprod", False, quick=False)
_scan("logcumsumexp", False, quick=True)
_scan("cummax", True, quick=True)
_scan("cummin", True, quick=True)


@template("topk")
def _topk(x: Array, k: int, dim: int, largest: bool) -> Any:
    if x.ndim == 0 or not 0 < k <= x.shape[dim] or not aligned(x):
        return None
    shape = (*x.shape[:dim], k, *x.shape[dim + 1:])
    out, places = memory.empty(shape, x.dtype), memory.empty(shape, _INDEX)
    return (out, places) if scan_kernels.topk(out, places, x, dim, largest) else None


@template("argmax")
def _argmax(x: Array, dim: int, keepdim: bool) -> Any:
    found = None if x.ndim == 0 else _topk(x, 1, dim, True)
    if found is None:
        return None
    return found[1] if keepdim else found[1].squeeze(dim)


_SORTED = frozenset(map(np.dtype, ("float32", "int32")))


@template("sort")
def _sort(x: Array, dim: int, descending: bool) -> Any:
    if x.dtype not in _SORTED or x.ndim == 0 or not 1 < x.shape[dim] < 1 << 32:
        return None
    moved = np.moveaxis(x, dim, -1)
    rows = fused_kernels.as_contiguous(moved).reshape(-1, x.shape[dim])
    out, places = memory.empty(rows.shape, x.dtype), memory.empty(rows.shape, _INDEX)
    if not sort_kernels.sort(out, places, rows, descending):
        return None
    found = [np.moveaxis(a.reshape(moved.shape), -1, dim) for a in (out, places)]
    return tuple(fused_kernels.as_contiguous(a) for a in found)


# --- negative log likelihood ------------------------------------------------------------------


def _three_axes(x: Array) -> Array | None:
    """(N, C, L): one row for each target; None where that needs a copy."""
    if x.ndim == 2:
        return x[:, :, None]
    return x.reshape(*x.shape[:2], -1) if x.flags.c_contiguous and x.size else None


def _nll(x: Array, target: Array, weight: Array, reduction: str, ignore: int) -> Any:
    rows = _three_axes(x)
    if rows is None or not _same_floats(x, weight) or not target.flags.c_contiguous:
        return None
    each = reduction == "none"
    out = memory.empty(target.shape if each else (), x.dtype)
    flat = target.reshape(rows.shape[0], rows.shape[2])
    into = out.reshape(flat.shape if each else (1, 1))
    return out if pick_kernels.nll(into, rows, flat, weight, reduction, ignore) else None


template("nll_loss", quick=True)(_nll)
template("nll_loss2d", quick=True)(_nll)


LEAVES["nll_backward"].least = 0  # few targets can mean a large gradient


@template("nll_backward", quick=True)
def _nll_backward(grad: Array, target: Array, weight: Array, shape: Any, reduction: str,
                  ignore: int) -> Any:
    if not _same_floats(grad, weight) or not target.flags.c_contiguous:
        return None
    out = memory.empty(tuple(shape), grad.dtype)
    rows = _three_axes(out)
    if rows is None:
        return None
    flat = target.reshape(rows.shape[0], rows.shape[2])
    each = grad.reshape(flat.shape if reduction == "none" else (1, 1))
    return out if pick_kernels.nll_backward(rows, each, flat, weight, reduction, ignore) else None


# --- attention --------------------------------------------------------------------------------


def _four(a: Array) -> Array:
    """With leading axes of size 1 up to (batch, heads, length, size)."""
    return a[(None,) * (4 - a.ndim)]


def _attention_fits(query: Array, key: Array, value: Array, mask: Array) -> bool:
    return (_same_floats(query, key, value) and 2 <= query.ndim <= 4
            and query.ndim == key.ndim == value.ndim and query.shape[:-2] == value.shape[:-2]
            and query.shape[:-2] == key.shape[:-2] and (mask is None or mask.ndim <= 4)
            and all(a.strides[-1] == a.itemsize for a in (query, key, value)))


@by_single("scaled_dot_product_attention", quick=True)
def _attention(query: Array, key: Array, value: Array, mask: Array, causal: bool,
               scale: float) -> Any:
    if not _attention_fits(query, key, value, mask):
        return None
    out = place(0, (*query.shape[:-1], value.shape[-1]), query.dtype)
    logarithm = memory.empty(query.shape[:-1], query.dtype)
    ok = attention_kernels.attention_forward(
        _four(out), _four(logarithm[..., None])[..., 0], _four(query), _four(key), _four(value),
        mask, causal, scale)
    return (out, logarithm) if ok else None


@by_single("scaled_dot_product_attention_backward", quick=True)
def _attention_backward(grad: Array, out: Array, logarithm: Array, query: Array, key: Array,
                        value: Array, mask: Array, causal: bool, scale: float) -> Any:
    if not _attention_fits(query, key, value, mask) or (
            mask is not None and mask.dtype != np.bool_):
        return None  # an additive mask may want a gradient
    grad = grad if grad.strides[-1] == grad.itemsize else fused_kernels.copied(grad)
    dq, dk, dv = (place(i, a.shape, a.dtype) for i, a in enumerate((query, key, value)))
    ok = attention_kernels.attention_backward(
        _four(dq), _four(dk), _four(dv), _four(grad), _four(out),
        _four(logarithm[..., None])[..., 0], _four(query), _four(key), _four(value), mask, causal,
        scale)
    return (dq, dk, dv, memory.empty((0,), _F64)) if ok else None


# --- recurrent layers -------------------------------------------------------------------------


class _Kernels(rnn.Plain):
    """Computes the steps of a recurrent layer, in one direction, by kernels."""

    def __init__(self) -> None:
        self.plans: dict[Any, Any] = {}  # by cell and first result: steps are alike in all else

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        return memory.empty(shape, like.dtype)

    def copy(self, into: Array, a: Array) -> None:
        from ..codegen.fused import copy

        copy(into, a)

    def contiguous(self, a: Array) -> Array:
        from ..codegen.fused import as_contiguous

        return as_contiguous(a)

    def sum_rows(self, a: Array) -> Array:
        found = launch(LEAVES["sum"], [a], ((0,), False))
        return super().sum_rows(a) if found is None else found

    def repeated(self, b: Array) -> Any:
        from ..codegen.gemm import Repeated

        return Repeated(b)

    def product(self, a: Array, b: Any, out: Array, add: bool = False) -> None:
        from ..codegen.gemm import Repeated, gemm

        done = b.launch(out, a, add) if isinstance(b, Repeated) else gemm(
            out, a, b, accumulate=add)
        if not done:
            super().product(a, b.b if isinstance(b, Repeated) else b, out, add)

    def apply(self, cell: Any, arrays: Any, into: Any) -> None:
        kernel, key = fused(cell), (cell, into[0].shape, into[0].strides)
        plan = self.plans.get(key)
        if plan is None:
            plan = self.plans[key] = kernel.plan(arrays, into)
        kernel.run(plan, arrays, into)


def _recurrent(name: str, layer: Any) -> None:
    """The launcher of a layer or its gradient: the reference, computed by kernels."""
    def launcher(*args: Any) -> Any:
        arrays = [a for a in args if isinstance(a, np.ndarray)]
        return layer(*args, run=_Kernels()) if _same_floats(*arrays) else None
    template(name, quick=True)(Streamed(launcher))


def _streamed(name: str) -> Callable[[Callable[..., Any]], Any]:
    return lambda launcher: template(name, quick=True)(Streamed(launcher))


_recurrent("lstm_layer", rnn.lstm)
_recurrent("gru_layer", rnn.gru)
_recurrent("rnn_layer", rnn.simple)


@_streamed("lstm_backward")
def _lstm_backward(gy: Array, gh: Array, gc: Array, data: Array, w_ih: Array, w_hh: Array,
                   w_hr: Array, gates: Array, before_h: Array, cells: Array, before_c: Array,
                   sizes: Any, reverse: bool, asks: bool) -> Any:
    if not _same_floats(gy, gh, gc, data, w_ih, w_hh, w_hr):
        return None
    saved = (gates, before_h, cells, before_c)
    return rnn.lstm_backward((gy, gh, gc), data, w_ih, w_hh, w_hr, saved, sizes, reverse,
                             asks, _Kernels())


@_streamed("gru_backward")
def _gru_backward(gy: Array, gh: Array, data: Array, w_ih: Array, w_hh: Array, gates: Array,
                  before: Array, inner: Array, sizes: Any, reverse: bool, asks: bool) -> Any:
    if not _same_floats(gy, gh, data, w_ih, w_hh):
        return None
    saved = (gates, before, inner)
    return rnn.gru_backward((gy, gh), data, w_ih, w_hh, saved, sizes, reverse, asks,
                            _Kernels())


@_streamed("rnn_backward")
def _rnn_backward(gy: Array, gh: Array, data: Array, w_ih: Array, w_hh: Array, out: Array,
                  before: Array, sizes: Any, reverse: bool, relu: bool, asks: bool) -> Any:
    if not _same_floats(gy, gh, data, w_ih, w_hh):
        return None
    return rnn.simple_backward((gy, gh), data, w_ih, w_hh, (out, before), sizes, reverse, relu,
                               asks, _Kernels())
