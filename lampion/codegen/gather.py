"""Kernels that go where an index says: rows taken and put, elements gathered, both added.

Indices are int64 or int32 and must lie in [0, size): `outside` finds the first that does not, and
every launcher asks it before memory is touched, unless its caller did. What is added is added in
the order of the indices, by one task for each part of the other axes, so repeated indices race
with nobody and every number of threads gives the same bits.

Arrays are seen as three axes: what lies before the indexed axis, that axis, what lies after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..runtime.recording import RecordingError, raised, recording_here
from . import service
from .fused import fill
from .ir import ArrayParam, Kernel, Value
from .target import Target
from .types import F32, F64, I8, I16, I32, I64, Type, dtype_name, of_numpy

__all__ = ["add_along", "add_rows", "build_add_along", "build_add_rows", "build_outside",
           "build_put_rows", "build_take", "build_take_along", "build_take_single", "outside",
           "put_rows", "take", "take_along"]

Array = np.ndarray[Any, Any]

_BY_SIZE = {1: I8, 2: I16, 4: I32, 8: I64}  # a copy does not look into its elements
_ADDED = {"float32": F32, "float64": F64, "int64": I64, "int32": I32}
_INDICES = ("int64", "int32")
_TASK_BYTES = 1 << 16
_NEAR = 1 << 14  # bytes that stay in the first-level cache
_ELEMENTS = 1 << 13  # of a task that goes element by element
_SMALL = 64  # indices that NumPy checks as quickly


# --- bounds -----------------------------------------------------------------------------------


def build_outside(target: Target, index: Type) -> Kernel:
    """found[0] = whether any of index (1-D, contiguous) is not in [0, size). found: int64."""
    k = Kernel("outside")
    found, indices, size = k.array("found", I64), k.array("index", index), k.integer("size")
    sign = _sign(k, target, indices.ptr, k.index(0), indices.size(0), size)
    k.store(found.ptr, 0, (sign < 0).cast(I64))
    return k


def _sign(k: Kernel, target: Target, listed: Value, start: Value, end: Value, size: Value) -> Value:
    """Negative if an index, or what is left between it and the last, is negative."""
    lanes = target.lanes(I64)
    last, whole = k.splat(size - 1, lanes), end - (end - start) % lanes
    loop = k.loop(start, whole, lanes, [k.const(0, I64.vector(lanes))])
    with loop as (i, signs):
        at = k.load(listed, i, lanes).cast(I64)
        loop.next(signs | at | (last - at))
    tail = k.loop(whole, end, 1, [k.reduce("or", loop.results[0])])
    with tail as (i, sign):
        one = k.load(listed, i).cast(I64)
        tail.next(sign | one | (size - 1 - one))
    return tail.results[0]


def outside(index: Array, size: int) -> int:
    """The position, counted along the last axis first, of the first index not in [0, size).

    -1 where there is none. index: int64 or int32 of any shape.

    >>> outside(np.array([[0, 4], [5, 1]]), 5)
    2
    """
    if index.size >= _SMALL:
        kernel = _outside_kernel(index)
        if kernel is not None:
            found = np.empty(1, np.int64)
            kernel(found, index.reshape(-1), size)
            if not found[0]:
                return -1
    if not index.size or (index.min() >= 0 and index.max() < size):
        return -1
    return int(np.argmax((index < 0) | (index >= size)))


def _outside_kernel(index: Array) -> Any:
    if dtype_name(index.dtype) not in _INDICES or not index.flags.c_contiguous:
        return None
    kind = of_numpy(dtype_name(index.dtype))
    return service.kernel(("outside", kind.name), partial(build_outside, index=kind))


def _check(name: str, index: Array, size: int) -> None:
    """IndexError where an index is out of bounds; a recording looks at every run."""
    here = recording_here()
    if here is not None:
        kernel = _outside_kernel(index)
        if kernel is None:
            raise RecordingError(f"{name}: indices that no kernel checks")
        if not here.has_checked(index, "index", size):
            raised(lambda found: kernel(found, index.reshape(-1), size), index, "index", size)
        return
    place = outside(index, size)
    if place >= 0:
        at = tuple(int(i) for i in np.unravel_index(place, index.shape))
        raise IndexError(f"{name}: index {index[at]} at {at} is out of bounds for an axis of size "
                         f"{size}")


# --- reading ----------------------------------------------------------------------------------


def build_take(target: Target, element: Type, index: Type) -> Kernel:
    """out[o, i] = x[o, index[i]] for rows of neighbouring elements.

    Arguments: out, x (3-D, last axis contiguous), index (1-D), task_rows: rows in a task.
    """
    k = Kernel("take")
    out, x = k.array("out", element), k.array("x", element)
    indices, task_rows = k.array("index", index), k.integer("task_rows")
    rows, inner = out.size(1), out.size(2)
    chunks = (rows + task_rows - 1) / task_rows
    with k.parallel(out.size(0) * chunks) as (task, _):
        o, first = task / chunks, (task % chunks) * task_rows
        to, start = k.offset(out.ptr, o * out.stride(0)), k.offset(x.ptr, o * x.stride(0))
        with k.loop(first, k.min(first + task_rows, rows)) as i:
            place = k.load(indices.ptr, i * indices.stride(0)).cast(I64)
            _copy(k, target, k.offset(to, i * out.stride(1)),
                  k.offset(start, place * x.stride(1)), inner)
    return k


def build_take_single(target: Target, element: Type, index: Type, together: int) -> Kernel:
    """out[o, i, 0] = x[o, index[i], 0], for `together` o with one look at the index.

    Arguments: out (contiguous), x (3-D), index (1-D, contiguous), task_rows: how many `o` a task
    has; with one `o` in all, elements of `index` are shared out instead.
    """
    k = Kernel("take_single")
    out, x = k.array("out", element), k.array("x", element)
    indices, task_rows = k.array("index", index), k.integer("task_rows")
    rows, count = out.size(0), out.size(1)
    one = rows.eq(1)
    extent = k.select(one, k.const(_ELEMENTS, I64), task_rows)
    with k.parallel((k.select(one, count, rows) + extent - 1) / extent) as (task, _):
        first = task * extent
        o0, o1 = k.select(one, 0, first), k.select(one, 1, k.min(first + extent, rows))
        i0, i1 = k.select(one, first, 0), k.select(one, k.min(first + extent, count), count)
        with k.loop(o0, o1, together) as o:
            places = [k.min(o + r, o1 - 1) for r in range(together)]
            starts = [k.offset(x.ptr, p * x.stride(0)) for p in places]
            to = [k.offset(out.ptr, p * count) for p in places]

            pairs = list(zip(starts, to, strict=True))
            _several(k, i0, i1, partial(_take_place, k, pairs, indices.ptr, x.stride(1)))
    return k


def _take_place(k: Kernel, pairs: list[tuple[Value, Value]], index: Value, step: Value, i: Value
                ) -> None:
    place = k.load(index, i).cast(I64) * step
    for start, to in pairs:
        k.store(to, i, k.load(start, place))


def _copy(k: Kernel, target: Target, to: Value, start: Value, count: Value) -> None:
    """`count` neighbouring elements."""
    def copied(c: Value, lanes: int, mask: Value | None = None) -> None:
        k.store(to, c, k.load(start, c, lanes, mask), mask)
    _spans(k, target, to.type.pointee, count, copied)


def _several(k: Kernel, start: Value, end: Value, one: Callable[[Value], None]) -> None:
    """one(i) for start <= i < end, a few in each turn of the loop."""
    whole = end - (end - start) % _AT_ONCE
    with k.loop(start, whole, _AT_ONCE) as first:
        for i in range(_AT_ONCE):
            one(first + i)
    with k.loop(whole, end) as i:
        one(i)


_Span = Callable[..., None]
_AT_ONCE = 4


def _spans(k: Kernel, target: Target, element: Type, count: Value, write: _Span) -> None:
    """write(first, lanes, mask) for `count` elements: several vectors a turn, one, the rest."""
    lanes = target.lanes(element)
    step = _AT_ONCE * lanes
    most, whole = count - count % step, count - count % lanes
    with k.loop(0, most, step) as c:
        for v in range(_AT_ONCE):
            write(c + v * lanes, lanes)
    with k.loop(most, whole, lanes) as c:
        write(c, lanes)
    if target.has_masks and element.size >= 4:
        with k.when(whole < count):
            write(whole, lanes, k.mask(count - whole, lanes))
    else:
        with k.loop(whole, count) as c:
            write(c, 1)


def build_take_along(target: Target, element: Type, index: Type, near: bool = False) -> Kernel:
    """out[o, r, c] = x[o * outer + index[o, r, c] * axis + c * inner].

    Arguments: out, x, index (out 3-D and contiguous, index 3-D with a contiguous last axis), found
    (int64; found[0] = 1 where a row of indices is not within [0, size), and the row is left out),
    size, outer, axis, inner: steps in x in elements, task_outer, task_rows, task_columns: extent of
    one task. near: axis is 1 and inner 0. Elements are read one by one: processors gather no
    faster.
    """
    k = Kernel("take_along")
    grid = _Grid(k, target, [k.array("out", element), k.array("x", element),
                             k.array("index", index)], near)

    def taken(base: Value, row: Value, place: Value, c: Value) -> None:
        k.store(row, c, k.load(base, place))
    grid.run(taken)
    return k


class _Grid:
    """A contiguous array and an index beside it, and a strided array that the index points into."""

    def __init__(self, k: Kernel, target: Target, arrays: list[ArrayParam], near: bool,
                 clear: bool = False) -> None:
        self.k, self.target, (self.first, self.strided, index) = k, target, arrays
        self.near, self.clear = near, clear
        self.index, self.found, self.size = index, k.array("found", I64), k.integer("size")
        self.outer, self.axis, self.inner = (k.integer(n) for n in ("outer", "axis", "inner"))
        self.sizes = [index.size(axis) for axis in range(3)]
        self.extents = [k.integer(f"task_{n}") for n in ("outer", "rows", "columns")]

    def run(self, write: Callable[[Value, Value, Value, Value], None]) -> None:
        """write(base, row, place, column): base + place is where the index of row[column] points.

        In order of rows and columns within a task; a task is a box of the grid.
        """
        k = self.k
        parts = [(n + t - 1) / t for n, t in zip(self.sizes, self.extents, strict=True)]
        with k.parallel(parts[0] * parts[1] * parts[2]) as (task, _):
            places = task / (parts[1] * parts[2]), (task / parts[2]) % parts[1], task % parts[2]
            starts = [p * t for p, t in zip(places, self.extents, strict=True)]
            ends = [k.min(s + t, n)
                    for s, t, n in zip(starts, self.extents, self.sizes, strict=True)]
            with k.loop(starts[0], ends[0]) as o, k.loop(starts[1], ends[1]) as r:
                self.row(o, r, starts[2], ends[2], write)

    def row(self, o: Value, r: Value, start: Value, end: Value, write: Any) -> None:
        k, index = self.k, self.index
        base = k.offset(self.strided.ptr, o * self.outer)
        row = k.offset(self.first.ptr, (o * self.sizes[1] + r) * self.sizes[2])
        listed = k.offset(index.ptr, o * index.stride(0) + r * index.stride(1))
        if self.clear:
            _spans(k, self.target, base.type.pointee, self.size, partial(_zero, k, base))
        sign = _sign(k, self.target, listed, start, end, self.size)
        with k.when(sign < 0):
            k.store(self.found.ptr, 0, k.const(1, I64))
        end = k.select(sign < 0, start, end)

        def one(c: Value) -> None:
            place = k.load(listed, c).cast(I64)
            write(base, row, place if self.near else place * self.axis + c * self.inner, c)

        _several(k, start, end, one)


# --- adding -----------------------------------------------------------------------------------


def build_add_rows(target: Target, element: Type, index: Type) -> Kernel:
    """out[o, index[i]] += alpha * source[o, i], for i in order.

    Arguments: out, source (3-D, last axis contiguous), index (1-D), task_columns, alpha (floats
    only). A task is some columns of one `o`.
    """
    k = Kernel("add_rows")
    out, source = k.array("out", element), k.array("source", element)
    indices, task_columns = k.array("index", index), k.integer("task_columns")
    alpha = k.number("alpha", element) if element.is_float else None
    inner = out.size(2)
    chunks = (inner + task_columns - 1) / task_columns
    with k.parallel(out.size(0) * chunks) as (task, _):
        o, c0 = task / chunks, (task % chunks) * task_columns
        to = k.offset(out.ptr, o * out.stride(0) + c0)
        start = k.offset(source.ptr, o * source.stride(0) + c0)
        count = k.min(task_columns, inner - c0)
        with k.loop(0, source.size(1)) as i:
            place = k.load(indices.ptr, i * indices.stride(0)).cast(I64)
            _add(k, target, k.offset(to, place * out.stride(1)),
                 k.offset(start, i * source.stride(1)), count, alpha)
    return k


def build_put_rows(target: Target, element: Type, index: Type) -> Kernel:
    """out[o, index[i]] = source[o, i], for i in order: of equal indices the last stays.

    Arguments: out, source (3-D, last axis contiguous), index (1-D). A task is one `o`.
    """
    k = Kernel("put_rows")
    out, source, indices = k.array("out", element), k.array("source", element), k.array(
        "index", index)
    with k.parallel(out.size(0)) as (o, _):
        to, start = k.offset(out.ptr, o * out.stride(0)), k.offset(source.ptr, o * source.stride(0))
        with k.loop(0, source.size(1)) as i:
            place = k.load(indices.ptr, i * indices.stride(0)).cast(I64)
            _copy(k, target, k.offset(to, place * out.stride(1)),
                  k.offset(start, i * source.stride(1)), out.size(2))
    return k


def _zero(k: Kernel, to: Value, c: Value, lanes: int, mask: Value | None = None) -> None:
    k.store(to, c, k.const(0, to.type.pointee.vector(lanes)), mask)


def _add(k: Kernel, target: Target, to: Value, start: Value, count: Value, alpha: Value | None
         ) -> None:
    """to += alpha * start, `count` neighbouring elements."""
    def added(c: Value, lanes: int, mask: Value | None = None) -> None:
        x, old = k.load(start, c, lanes, mask), k.load(to, c, lanes, mask)
        k.store(to, c, old + (x if alpha is None else x * alpha), mask)
    _spans(k, target, to.type.pointee, count, added)


def build_add_along(target: Target, element: Type, index: Type, near: bool = False,
                    clear: bool = False) -> Kernel:
    """out[o * outer + index[o, r, c] * axis + c * inner] += source[o, r, c], for r, c in order.

    Arguments: source, out, index, then as in `build_take_along`; no two tasks may add to the same
    element. clear: the `size` elements from o * outer on are set to 0 before; for one row of
    columns only.
    """
    k = Kernel("add_along")
    grid = _Grid(k, target, [k.array("source", element), k.array("out", element),
                             k.array("index", index)], near, clear)

    def added(base: Value, row: Value, place: Value, c: Value) -> None:
        k.store(base, place, k.load(base, place) + k.load(row, c))
    grid.run(added)
    return k


# --- launchers --------------------------------------------------------------------------------


def take(out: Array, x: Array, index: Array, axis: int) -> bool:
    """out = x with `axis` replaced by the listed indices of it; False without a kernel (yet).

    index: 1-D; out: contiguous. IndexError where an index is out of bounds.
    """
    shape = (*x.shape[:axis], index.size, *x.shape[axis + 1:])
    _fit("take", out, shape, index.ndim == 1 and out.dtype == x.dtype)
    start = _three(x, axis)
    if start is None or not _plain(out, index) or x.itemsize not in _BY_SIZE:
        return False
    kinds = _BY_SIZE[x.itemsize], of_numpy(dtype_name(index.dtype))
    outer, _, inner = start.shape
    single = inner == 1
    if single:
        few = outer < _AT_ONCE or start.shape[1] * x.itemsize > _NEAR // _AT_ONCE
        kernel = _kernel("take_single", build_take_single, kinds, 1 if few else _AT_ONCE)
    else:
        kernel = _kernel("take", build_take, kinds)
    if kernel is None or not (single or start.strides[2] == x.itemsize):
        return False
    _check("take", index, x.shape[axis])
    if out.size:
        rows = max(1, _TASK_BYTES // ((index.size if single else inner) * x.itemsize))
        kernel(out.reshape(outer, index.size, inner), start, index, rows)
    return True


def take_along(out: Array, x: Array, index: Array, axis: int) -> bool:
    """out[.., i, ..] = x[.., index[.., i, ..], ..] along `axis`; False without a kernel (yet).

    out and index have one shape, contiguous; x the same but for `axis`. IndexError where an index
    is out of bounds; out then holds anything.
    """
    _fit("take_along", out, index.shape, _same_but(x, index, axis) and out.dtype == x.dtype)
    start = _three(x, axis)
    if start is None or not _plain(out, index) or x.itemsize not in _BY_SIZE:
        return False
    kinds = _BY_SIZE[x.itemsize], of_numpy(dtype_name(index.dtype))
    return _run_along("take_along", build_take_along, kinds, *_grids(out, index, start, axis))


def add_rows(out: Array, index: Array, source: Array, axis: int, alpha: float = 1.0) -> bool:
    """out[.., index[i], ..] += alpha * source[.., i, ..], for i in order; False without a kernel.

    index: 1-D. IndexError where an index is out of bounds.
    """
    found, kind = _rows("add_rows", out, index, source, axis), _ADDED.get(dtype_name(out.dtype))
    if kind is None or found is None or (alpha != 1 and not kind.is_float):
        return False
    kernel = _kernel("add_rows", build_add_rows, (kind, of_numpy(dtype_name(index.dtype))))
    if kernel is None:
        return False
    _check("add_rows", index, out.shape[axis])
    columns = max(_COLUMNS, -(-found[0].shape[2] // 64) * 16)
    kernel(*found, index, columns, *[alpha] * kind.is_float)
    return True


def put_rows(out: Array, index: Array, source: Array, axis: int) -> bool:
    """out[.., index[i], ..] = source[.., i, ..], for i in order; False without a kernel (yet).

    index: 1-D. IndexError where an index is out of bounds.
    """
    found = _rows("put_rows", out, index, source, axis)
    if found is None or out.itemsize not in _BY_SIZE:
        return False
    kinds = _BY_SIZE[out.itemsize], of_numpy(dtype_name(index.dtype))
    kernel = _kernel("put_rows", build_put_rows, kinds)
    if kernel is None:
        return False
    _check("put_rows", index, out.shape[axis])
    if source.size:
        kernel(*found, index)
    return True


def _rows(name: str, out: Array, index: Array, source: Array, axis: int
          ) -> tuple[Array, Array] | None:
    """out and source as three axes of neighbouring elements; None where that needs a copy."""
    shape = (*out.shape[:axis], index.size, *out.shape[axis + 1:])
    _fit(name, source, shape, index.ndim == 1 and out.dtype == source.dtype)
    to, start = _three(out, axis), _three(source, axis)
    if to is None or start is None or dtype_name(index.dtype) not in _INDICES:
        return None
    apart = any(a.shape[2] > 1 and a.strides[2] != a.itemsize for a in (to, start))
    return None if apart else (to, start)


_COLUMNS = 128  # of a task that adds rows, at least: memory is read in runs of several lines


def add_along(out: Array, index: Array, source: Array, axis: int) -> bool:
    """out[.., index[.., i, ..], ..] += source[.., i, ..] along `axis`, for i in order.

    source and index have one shape, contiguous; out the same but for `axis`. IndexError where an
    index is out of bounds; out then holds anything. False without a kernel (yet).
    """
    _fit("add_along", source, index.shape, _same_but(out, index, axis)
         and out.dtype == source.dtype)
    start, kind = _three(out, axis), _ADDED.get(dtype_name(out.dtype))
    if kind is None or start is None or not _plain(source, index):
        return False
    return _run_along("add_along", build_add_along, (kind, of_numpy(dtype_name(index.dtype))),
                      *_grids(source, index, start, axis))


def sums_along(out: Array, index: Array, source: Array) -> bool:
    """`add_along` of the last axis to an `out`, contiguous, of zeros; what it held is lost."""
    _fit("sums_along", source, index.shape, _same_but(out, index, out.ndim - 1)
         and out.dtype == source.dtype)
    start, kind = _three(out, out.ndim - 1), _ADDED.get(dtype_name(out.dtype))
    if kind is None or start is None or not (_plain(source, index) and out.flags.c_contiguous):
        return False
    if not source.size:
        fill(out, 0)
    return _run_along("add_along", build_add_along, (kind, of_numpy(dtype_name(index.dtype))),
                      *_grids(source, index, start, out.ndim - 1), clear=True)


def _run_along(name: str, build: _Builder, kinds: tuple[Type, Type], grid: Array, strided: Array,
               index: Array, clear: bool = False) -> bool:
    """Launches a kernel on `grid` and `index`, (outer, rows, columns), and what they point into."""
    outer, axis, inner = (s // strided.itemsize for s in strided.strides)
    alone = strided.shape[2] == 1  # all columns of the grid share the axis
    kernel = _kernel(name, build, kinds, alone and axis == 1, *[True] * clear)
    if kernel is None:
        return False
    if not grid.size:
        return True
    box = _box(grid.shape)
    if name == "add_along":  # all that may meet in one element is one task's
        box = (box[0], grid.shape[1], grid.shape[2] if alone else min(_COLUMNS, grid.shape[2]))
    size = strided.shape[1]
    if raised(lambda found: kernel(grid, strided, index, found, size, outer, axis,
                                   0 if alone else inner, *box), index, "index", size):
        _check(name, index, size)
    return True


def _box(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The extent of a task: about `_ELEMENTS` that lie together."""
    columns = min(shape[2], _ELEMENTS)
    rows = min(shape[1], max(1, _ELEMENTS // columns))
    return max(1, _ELEMENTS // (shape[1] * shape[2])), rows, columns


def _grids(grid: Array, index: Array, strided: Array, axis: int) -> tuple[Array, Array, Array]:
    """(grid, strided, index) as `_run_along` takes them."""
    outer, _, inner = strided.shape
    shape = (outer, 1, grid.shape[axis]) if inner == 1 else (outer, grid.shape[axis], inner)
    return grid.reshape(shape), strided, index.reshape(shape)


def _three(x: Array, axis: int) -> Array | None:
    """`x` with three axes, the middle one being `axis`; None where that needs a copy."""
    before, after = x.shape[:axis], x.shape[axis + 1:]
    shape = (math.prod(before), x.shape[axis], math.prod(after))
    if any(s % x.itemsize for s in x.strides):
        return None
    try:
        return x.reshape(shape, copy=False)
    except ValueError:
        return None


def _same_but(x: Array, index: Array, axis: int) -> bool:
    return x.ndim == index.ndim and all(
        a == b for d, (a, b) in enumerate(zip(x.shape, index.shape, strict=True)) if d != axis)


def _plain(grid: Array, index: Array) -> bool:
    return (grid.flags.c_contiguous and index.flags.c_contiguous
            and dtype_name(index.dtype) in _INDICES)


def _fit(name: str, grid: Array, shape: tuple[int, ...], holds: bool) -> None:
    if not holds or grid.shape != shape:
        raise ValueError(f"{name}: shapes or dtypes do not fit: {grid.shape}, expected {shape}")


_Builder = Callable[..., Kernel]  # of a target, the types of elements and indices, more


def _kernel(name: str, build: _Builder, kinds: tuple[Type, Type], *more: int) -> Any:
    return service.kernel((name, *(kind.name for kind in kinds), *more),
                          lambda target: build(target, *kinds, *more))
