"""Order: sort, topk, unique, searchsorted, histograms, median, quantile, mode."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor.dtype import COMPLEX, FLOAT, bool_, int32, int64
from ..tensor.tensor import Tensor, wrap
from .errors import not_implemented_for, wrap_dim
from .families import Array, OptArray
from .promotion import cast
from .record import data_dependent, leaf, not_differentiable, op
from .reduce import _check_not_empty, _pair_shape, _value_selecting_grad
from .reference.along import take_along
from .results import result_tuple


def _sort_grad(g: Any, out1: Any, dim: int, input_shape: Any) -> Any:
    if not input_shape:
        return g[0]
    return g[0].new_zeros(input_shape).scatter(dim, out1, g[0])


def _sort_shape(a: Any, *_: Any) -> Any:
    return [(a.shape, a.dtype), (a.shape, np.dtype(np.int64))]


def _order(a: Any, dim: int, descending: bool) -> Any:
    """Stable order; NaN counts as the largest."""
    if not descending:
        return np.argsort(a, dim, kind="stable")
    # Reversing twice keeps equal elements in their order.
    turned = (slice(None),) * (dim % a.ndim) + (slice(None, None, -1),)
    back = np.argsort(a[turned], dim, kind="stable")
    return (a.shape[dim] - 1 - back)[turned]


@leaf({"input": _sort_grad}, name="sort", shape=_sort_shape, exact=True)
def _sort(input: Array, dim: int, descending: bool) -> Any:
    if input.ndim == 0:
        return input.copy(), np.zeros((), np.int64)
    key = input.astype(np.float32) if input.dtype.num > 255 else input
    order = _order(key, dim, descending).astype(np.int64)
    return take_along(input, order, dim), order


_NO_BOOLS = ("median", "nanmedian")


def _check_order(name: str, input: Tensor) -> None:
    if input._dtype.kind == COMPLEX or (input._dtype is bool_ and name in _NO_BOOLS):
        raise not_implemented_for(name, input._dtype)


_SORT = result_tuple("sort", "values indices")


@op(out=True)
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """The elements in order along `dim`, with their old indices; always stable."""
    _check_order("sort", input)
    return _SORT(*_sort(input, wrap_dim(dim, input._a.ndim, "sort"), descending))


@op("torch Tensor")
def argsort(input: Tensor, dim: int = -1, descending: bool = False,
            stable: bool = False) -> Tensor:
    """The indices that would sort `input` along `dim`."""
    return sort(input, dim, descending)[1]


@op(out=True)
def msort(input: Tensor) -> Tensor:
    """The elements in order along the first dimension."""
    return sort(input, 0)[0]


def _topk_shape(a: Any, k: int, dim: int, *_: Any) -> Any:
    shape = (*a.shape[:dim], k, *a.shape[dim + 1:]) if a.shape else ()
    return [(shape, a.dtype), (shape, np.dtype(np.int64))]


@leaf({"input": lambda g, out1, k, dim, input_shape: _sort_grad(g, out1, dim, input_shape)},
      name="topk", shape=_topk_shape, exact=True)
def _topk(input: Array, k: int, dim: int, largest: bool) -> Any:
    if input.ndim == 0:
        return input.copy(), np.zeros((), np.int64)
    key = input.astype(np.float32) if input.dtype.num > 255 else input
    first = (slice(None),) * dim + (slice(k),)
    order = np.ascontiguousarray(_order(key, dim, largest)[first], np.int64)
    return take_along(input, order, dim), order


_TOPK = result_tuple("topk", "values indices")


@op(out=True)
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The `k` largest (or smallest) elements along `dim`, in order, with their indices."""
    _check_order("topk", input)
    d = wrap_dim(dim, input._a.ndim, "topk")
    n = input._a.shape[d] if input._a.ndim else 1
    if not 0 <= k <= n:
        raise RuntimeError(f"selected index k out of range: topk() received k={k} for dimension "
                           f"{d} of size {n}")
    return _TOPK(*_topk(input, int(k), d, largest))


@leaf({"input": lambda g, out1, k, dim, keepdim, input_shape: _value_selecting_grad(
    g, out1, input_shape, dim, keepdim)}, name="kthvalue", exact=True,
    shape=lambda a, k, dim, keep: _pair_shape(a, dim, keep))
def _kthvalue(input: Array, k: int, dim: int, keepdim: bool) -> Any:
    if input.ndim == 0:
        return input.copy(), np.zeros((), np.int64)
    order = _place_of(input, k - 1, dim)
    value = take_along(input, order, dim)
    return (value, order) if keepdim else (value.squeeze(dim), order.squeeze(dim))


def _place_of(a: Array, k: int, dim: int) -> Array:
    """Where the element lies that a stable sort would put at `k`, NaN last."""
    value = np.take(np.partition(a, k, dim), [k], dim)
    before, same = a < value, a == value
    if (value != value).any():
        missing = a != a
        before, same = before | (~missing & (value != value)), same | (missing & (value != value))
    turn = k - before.sum(dim, keepdims=True)  # among equal elements the first come first
    if turn.any():
        same = np.cumsum(same, dim) > turn
    found: Array = np.expand_dims(same.argmax(dim), dim).astype(np.int64)
    return found


_KTH = result_tuple("kthvalue", "values indices")


@op(out=True)
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The k-th smallest element along `dim`, with its index."""
    d = wrap_dim(dim, input._a.ndim, "kthvalue")
    _check_not_empty(input, (d,), "kthvalue")
    n = input._a.shape[d] if input._a.ndim else 1
    if not 1 <= k <= n:
        raise RuntimeError(f"kthvalue(): selected number k out of range for dimension {d}: "
                           f"received {k} for size {n}")
    return _KTH(*_kthvalue(input, k, d, keepdim))


def _median_index(a: Any, dim: int, skip_nan: bool) -> Any:
    """Index of the lower median along `dim`; NaN wins unless skipped."""
    n = a.shape[dim]
    bad = a != a
    if not bad.any():
        return _place_of(a, (n - 1) // 2, dim)
    order = np.argsort(a, dim, kind="stable")
    good = n - bad.sum(dim, keepdims=True)
    middle = np.take_along_axis(order, np.maximum(good - 1, 0) // 2, dim)
    if skip_nan:
        return middle
    first_bad = np.expand_dims(np.argmax(bad, dim), dim)
    return np.where(good < n, first_bad, middle)


def _median_op(name: str, skip_nan: bool) -> Any:
    def reference(input: Array, dim: int, keepdim: bool) -> Any:
        if input.ndim == 0:
            return input.copy(), np.zeros((), np.int64)
        index = _median_index(input, dim, skip_nan).astype(np.int64)
        value = take_along(input, index, dim)
        return (value, index) if keepdim else (value.squeeze(dim), index.squeeze(dim))
    reference.__name__ = name
    label = "Nanmedian" if skip_nan else "Median"
    median_leaf = leaf({"input": _value_selecting_grad}, shape=_pair_shape, exact=True,
                       node=f"{label}Backward1")(reference)
    names = result_tuple(name, "values indices")

    def call(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
        _check_order(name, input)
        if dim is None:
            if input._a.size == 0:
                return input.new_full((), float("nan")) if input._dtype.kind >= FLOAT else (
                    input.new_full((), -2 ** 63 if input._dtype is int64 else 0))
            return median_leaf(input.reshape(-1), 0, False)[0]
        d = wrap_dim(dim, input._a.ndim, name)
        _check_not_empty(input, (d,), name)
        return names(*median_leaf(input, d, keepdim))
    call.__name__ = call.__qualname__ = name
    call.__doc__ = "The lower median, altogether or along `dim` with its index."
    return op(out=True)(call)


median, nanmedian = _median_op("median", False), _median_op("nanmedian", True)


@leaf({"input": _value_selecting_grad}, name="mode", shape=_pair_shape, exact=True)
def _mode(input: Array, dim: int, keepdim: bool) -> Any:
    if input.ndim == 0:
        return input.copy(), np.zeros((), np.int64)
    rows = np.moveaxis(input, dim, -1)
    values = np.empty(rows.shape[:-1], input.dtype)
    index = np.empty(rows.shape[:-1], np.int64)
    for place in np.ndindex(rows.shape[:-1]):
        row = rows[place]
        found, counts = np.unique(row, return_counts=True)
        values[place] = found[np.argmax(counts)]
        index[place] = np.flatnonzero(row == values[place])[-1]
    if keepdim:
        return np.expand_dims(values, dim), np.expand_dims(index, dim)
    return values, index


_MODE = result_tuple("mode", "values indices")


@op(out=True)
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """The most frequent element along `dim` (the smallest of several), with its last index."""
    _check_order("mode", input)
    d = wrap_dim(dim, input._a.ndim, "mode")
    _check_not_empty(input, (d,), "mode")
    return _MODE(*_mode(input, d, keepdim))


# --- sets -----------------------------------------------------------------------------------------


def _as_rows(a: Any) -> Any:
    """Each slice of the first dimension as one row."""
    return a.reshape(a.shape[0], int(np.prod(a.shape[1:])))


def _unique_along(a: Any, dim: int) -> tuple[Any, Any, Any]:
    rows = np.moveaxis(a, dim, 0)
    flat = _as_rows(rows)
    if flat.shape[1] == 0:
        return np.moveaxis(rows[:1], 0, dim), np.zeros(len(flat), np.int64), np.array([len(flat)])
    found, inverse, counts = np.unique(flat, axis=0, return_inverse=True, return_counts=True)
    return np.moveaxis(found.reshape(-1, *rows.shape[1:]), 0, dim), inverse.reshape(-1), counts


def _answers(values: Any, inverse: Any, counts: Any, with_inverse: bool, with_counts: bool) -> Any:
    found = [wrap(np.ascontiguousarray(values))]
    if with_inverse:
        found.append(wrap(inverse.astype(np.int64)))
    if with_counts:
        found.append(wrap(counts.astype(np.int64)))
    return found[0] if len(found) == 1 else tuple(found)


@op()
def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False,
           return_counts: bool = False, dim: int | None = None) -> Any:
    """The different elements (or slices along `dim`), in order."""
    from ..tensor.interop import concrete

    _check_order("unique", input)
    a = concrete(input, "unique()")
    if dim is not None:
        return _answers(*_unique_along(a, wrap_dim(dim, a.ndim, "unique")), return_inverse,
                        return_counts)
    values, inverse, counts = np.unique(a, return_inverse=True, return_counts=True,
                                        equal_nan=False)
    return _answers(values, inverse.reshape(a.shape), counts, return_inverse, return_counts)


@op()
def unique_consecutive(input: Tensor, return_inverse: bool = False, return_counts: bool = False,
                       dim: int | None = None) -> Any:
    """The elements (or slices along `dim`) without repetitions of the one before."""
    a = input._a.reshape(-1) if dim is None else input._a
    d = 0 if dim is None else wrap_dim(dim, a.ndim, "unique_consecutive")
    rows = np.moveaxis(a, d, 0)
    flat = _as_rows(rows)
    new = np.ones(len(flat), bool)
    if len(flat):
        new[1:] = (flat[1:] != flat[:-1]).any(1)
    inverse = np.cumsum(new) - 1
    counts = np.bincount(inverse) if len(flat) else np.zeros(0, np.int64)
    shaped = inverse.reshape(input._a.shape) if dim is None else inverse
    return _answers(np.moveaxis(rows[new], 0, d), shaped, counts, return_inverse, return_counts)


@op("torch", out=True)
def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False,
         invert: bool = False) -> Tensor:
    """Which elements are among `test_elements`."""
    a, b = (x._a if isinstance(x, Tensor) else np.asarray(x) for x in (elements, test_elements))
    return wrap(np.asarray(np.isin(a, b, invert=invert)))


# --- bins -----------------------------------------------------------------------------------------


@leaf(not_differentiable("the result is an index"), exact=True,
      shape=lambda sequence, values, sorter, side, d: (values.shape, d.np))
def _search(sequence: Array, values: Array, sorter: OptArray, side: Any, d: Any) -> Array:
    if sequence.ndim == 1:
        return np.searchsorted(sequence, values, side, sorter).astype(d.np)
    out = np.empty(values.shape, d.np)
    for place in np.ndindex(sequence.shape[:-1]):
        order = None if sorter is None else sorter[place]
        out[place] = np.searchsorted(sequence[place], values[place], side, order)
    return out


@op("torch", out=True)
def searchsorted(sorted_sequence: Tensor, input: Any, *, out_int32: bool = False,
                 right: bool = False, side: str | None = None, sorter: Any = None) -> Tensor:
    """Where values would be inserted to keep the last dimension sorted."""
    if side not in (None, "left", "right"):
        raise RuntimeError("torch.searchsorted(): side can only be 'left' or 'right' but got "
                           f"{side}")
    if right and side == "left":
        raise RuntimeError("torch.searchsorted(): side and right can't be set to opposites, got "
                           "side of left while right was True")
    values = input if isinstance(input, Tensor) else wrap(np.asarray(input))
    s, v = sorted_sequence._a.shape, values._a.shape
    if len(s) != 1 and (len(s) != len(v) or s[:-1] != v[:-1]):
        raise RuntimeError(
            "torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 "
            "dimensions of boundaries tensor and input value tensor must match, but we got "
            f"boundaries tensor {list(s)} and input value tensor {list(v)}")
    where = side or ("right" if right else "left")
    return _search(sorted_sequence, values, sorter, where, int32 if out_int32 else int64)


@op("torch", out=True)
def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False,
              right: bool = False) -> Tensor:
    """The index of the bucket of every element."""
    if boundaries._a.ndim != 1:
        raise RuntimeError("bucketize(): boundaries tensor must be 1 dimension, but got dim("
                           f"{boundaries._a.ndim})")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


@leaf(not_differentiable("the result is a count"), name="bincount", exact=True,
      shape=data_dependent)
def _bincount(input: Array, weights: OptArray, minlength: int) -> Array:
    out = np.bincount(input, weights, minlength)
    return out.astype(np.int64) if weights is None else out.astype(
        weights.dtype if weights.dtype == np.float32 else np.float64)


@op()
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each non-negative integer occurs (or the sums of `weights`)."""
    if input._a.ndim != 1 or input._dtype.kind != 1 or (
            input._a.size and type(input._a) is np.ndarray and input._a.min() < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    if minlength < 0:
        raise RuntimeError(f"minlength should be >= 0, received {minlength}")
    if weights is not None and weights._a.shape != input._a.shape:
        raise RuntimeError("weights should be 1-d and have the same length as input, received "
                           f"{list(weights._a.shape)} for {list(input._a.shape)}")
    return _bincount(cast(input, int64), weights, minlength)


def _range(a: Any, low: float, high: float, name: str) -> tuple[float, float]:
    if low == high and a.size:
        low, high = float(a.min()), float(a.max())
    if low == high:
        low, high = low - 1, high + 1
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RuntimeError(f"range of [{low}, {high}] is not finite")
    if low > high:
        raise RuntimeError(f"{name}: max must be larger than min")
    return low, high


@op(out=True)
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """Counts of the elements in equal bins between `min` and `max` (default: of the data)."""
    if bins <= 0:
        raise RuntimeError("bins must be > 0")
    a = input._a
    counts, _ = np.histogram(a.reshape(-1), bins, _range(a, min, max, "torch.histc"))
    return wrap(counts.astype(a.dtype))


_HIST = result_tuple("histogram", "hist bin_edges")


@op(out=True)
def histogram(input: Tensor, bins: Any, *, range: Any = None, weight: Any = None,
              density: bool = False) -> Any:
    """Counts of the elements in bins, with the edges of the bins."""
    a = input._a.reshape(-1)
    edges = bins._a if isinstance(bins, Tensor) else bins
    low, high = range or ((float(a.min()), float(a.max())) if a.size else (0.0, 0.0))
    if low == high:
        low, high = low - 0.5, high + 0.5
    limits = None if isinstance(bins, Tensor) else (low, high)
    counts, found = np.histogram(a, edges, limits, density=density,
                                 weights=None if weight is None else weight._a.reshape(-1))
    return _HIST(wrap(counts.astype(a.dtype)), wrap(found.astype(a.dtype)))


# --- quantiles ------------------------------------------------------------------------------------


def _interpolated(x: Tensor, position: Any, how: str, dim: int) -> Tensor:
    """Sorted `x` read at fractional positions along `dim` (the last)."""
    low = position.floor()
    if how == "lower":
        return x.gather(dim, low.long())
    high = position.ceil()
    if how == "higher":
        return x.gather(dim, high.long())
    if how == "nearest":
        return x.gather(dim, position.round().long())
    a, b = x.gather(dim, low.long()), x.gather(dim, high.long())
    return (a + b) / 2 if how == "midpoint" else a.lerp(b, position - low)


def _quantile(name: str, input: Tensor, q: Any, dim: Any, keepdim: bool, how: str,
              skip_nan: bool) -> Tensor:
    if how not in ("linear", "lower", "higher", "midpoint", "nearest"):
        raise RuntimeError(f"{name}() interpolation must be one of linear, lower, higher, midpoint "
                           f"or nearest, but got {how}")
    if input._dtype.kind != FLOAT:
        raise RuntimeError(f"{name}() input tensor must be either float or double dtype")
    if input._a.size == 0:
        raise RuntimeError(f"{name}() input tensor must be non-empty")
    scalar = not isinstance(q, Tensor)
    qs = Tensor._scalar(float(q), input._dtype) if scalar else q
    if qs._a.ndim > 1:
        raise RuntimeError(f"{name}() q must be a scalar or 1D tensor")
    if qs._dtype is not input._dtype:
        raise RuntimeError(f"{name}() q tensor must be same dtype as the input tensor")
    if qs._a.size and (qs._a.min() < 0 or qs._a.max() > 1):
        raise RuntimeError(f"{name}() q values must be in the range [0, 1]")
    n = input._a.ndim
    x = input.reshape(-1) if dim is None else input.movedim(wrap_dim(dim, n, name), -1)
    x = sort(x.unsqueeze(0) if x._a.ndim == 0 else x, -1)[0]
    last = x._a.ndim - 1
    bad = x.isnan()
    count = (~bad).sum(-1, keepdim=True) if skip_nan else x._a.shape[-1]
    top = (count - 1).clamp(min=0).to(x._dtype) if skip_nan else float(count - 1)
    position = (qs.reshape(-1) * top).expand((*x._a.shape[:-1], qs._a.size))
    if not skip_nan:
        # One NaN makes the whole result NaN: it sorts last.
        position = position.where(~bad.any(-1, keepdim=True), position * 0 + top)
    out = _interpolated(x, position, how, last).movedim(-1, 0)
    if keepdim:
        out = out.reshape((out._a.shape[0], *((1,) * n))) if dim is None else out.unsqueeze(
            wrap_dim(dim, n, name) + 1)
    return out.squeeze(0) if qs._a.ndim == 0 else out


@op(out=True)
def quantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
             interpolation: str = "linear") -> Tensor:
    """The q-quantiles of all elements, or along `dim`."""
    return _quantile("quantile", input, q, dim, keepdim, interpolation, False)


@op(out=True)
def nanquantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
                interpolation: str = "linear") -> Tensor:
    """The q-quantiles, NaN left out."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, True)


