"""Kernels that go where an index says: rows taken and put, elements gathered, both added.

Indices are int64 or int32. They must lie in [0, size), or with `wraps` in [-size, size), where
negative ones count from the end. Every task looks at its indices before it touches memory, and
raises a flag instead where one is wrong. What is added is added in the order of the indices, by
one task for each part of the other axes, so repeated indices race with nobody and every number of
threads gives the same bits.

Arrays are seen as three axes: what lies before the indexed axis, that axis, what lies after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..runtime import memory
from ..runtime.recording import RecordingError, raised, recording_here
from . import service
from .fused import copy, fill
from .ir import Kernel, Value
from .target import Target
from .types import F32, F64, I8, I16, I32, I64, Type, dtype_name, of_numpy

__all__ = ["add_along", "add_rows", "build_add_along", "build_add_rows", "build_put_rows",
           "build_take", "build_take_along", "build_take_single", "put_rows", "sum_along",
           "sum_rows", "take", "take_along"]

Array = np.ndarray[Any, Any]

_BY_SIZE = {1: I8, 2: I16, 4: I32, 8: I64}  # a copy does not look into its elements
_ADDED = {"float32": F32, "float64": F64, "int64": I64, "int32": I32}
_INDICES = ("int64", "int32")
_TASK_BYTES = 1 << 16
_NEAR = 1 << 14  # bytes that stay in the first-level cache
_ELEMENTS = 1 << 13  # of a task that goes element by element
_COLUMNS = 128  # of a task that adds rows, at least: memory is read in runs of several lines
_CACHED = 1 << 20  # bytes that stay in a nearer cache
_AT_ONCE = 4  # steps in one turn of a loop
_MOST_PLANS = 1 << 12  # then all are made anew


# --- bounds -----------------------------------------------------------------------------------


class _Listed:
    """Indices in a kernel, how many places they may point to, and the flag of a wrong one."""

    def __init__(self, k: Kernel, target: Target, index: Type, wraps: bool = False) -> None:
        self.k, self.target, self.wraps = k, target, wraps
        self.ptr, self.found = k.array("index", index).ptr, k.array("found", I64).ptr
        self.size = k.integer("size")

    def checked(self, listed: Value, start: Value | int, end: Value) -> Value:
        """`end`, or `start` where not all between them are within bounds, and the flag up."""
        k, start = self.k, self.k.index(start)
        wrong = self._sign(listed, start, end) < 0
        with k.when(wrong):
            k.store(self.found, 0, k.const(1, I64))
        return k.select(wrong, start, end)

    def _sign(self, listed: Value, start: Value, end: Value) -> Value:
        """Negative if what is left of an index on either side is."""
        k, lanes = self.k, self.target.lanes(I64)
        last = self.size - 1

        def room(at: Value, many: int) -> Value:
            low = at + (k.splat(self.size, many) if many > 1 else self.size) if self.wraps else at
            return low | ((k.splat(last, many) if many > 1 else last) - at)
        whole = end - (end - start) % lanes
        loop = k.loop(start, whole, lanes, [k.const(0, I64.vector(lanes))])
        with loop as (i, signs):
            loop.next(signs | room(k.load(listed, i, lanes).cast(I64), lanes))
        tail = k.loop(whole, end, 1, [k.reduce("or", loop.results[0])])
        with tail as (i, sign):
            tail.next(sign | room(k.load(listed, i).cast(I64), 1))
        return tail.results[0]

    def place(self, listed: Value, i: Value) -> Value:
        """Where the index points."""
        at = self.k.load(listed, i).cast(I64)
        return at + self.k.select(at < 0, self.size, 0) if self.wraps else at


# --- reading ----------------------------------------------------------------------------------


class _Rows:
    """Rows of one array beside a list of indices, and rows of another that these point to.

    Elements of a row are neighbours. Parameters: both arrays, index (contiguous), found (int64;
    found[0] = 1 where a task's indices are out of bounds, and nothing is done for it), size: rows
    that are pointed to, count: indices, outer: how often all that is there, inner: elements of a
    row; then steps of the arrays in elements.
    """

    def __init__(self, k: Kernel, target: Target, arrays: tuple[str, str],
                 kinds: tuple[Type, Type], wraps: bool) -> None:
        self.k = k
        self.beside, self.far = (k.array(name, kinds[0]).ptr for name in arrays)
        self.listed = _Listed(k, target, kinds[1], wraps)
        self.count, self.outer, self.inner = (k.integer(n) for n in ("count", "outer", "inner"))
        self.steps = [k.integer(f"{name}_{axis}") for name in arrays for axis in ("outer", "row")]

    def part(self, o: Value, first: Value | int = 0) -> tuple[Value, Value]:
        """Both arrays at one `o`, from an element of the rows on."""
        at = self.k.offset
        return (at(self.beside, o * self.steps[0] + first), at(self.far, o * self.steps[2] + first))

    def each(self, first: Value | int, last: Value, beside: Value, far: Value,
             run: Callable[[Value, Value], None]) -> None:
        """run(row, row that its index points to) for some indices, in order; for none if wrong."""
        k, listed = self.k, self.listed
        with k.loop(first, listed.checked(listed.ptr, first, last)) as i:
            run(k.offset(beside, i * self.steps[1]),
                k.offset(far, listed.place(listed.ptr, i) * self.steps[3]))


def build_take(target: Target, element: Type, index: Type, wraps: bool = False) -> Kernel:
    """out[o, i] = x[o, index[i]] for rows of neighbouring elements.

    Arguments: as in `_Rows` of out and x; task_rows: rows in a task.
    """
    k = Kernel("take")
    rows = _Rows(k, target, ("out", "x"), (element, index), wraps)
    task_rows = k.integer("task_rows")
    chunks = (rows.count + task_rows - 1) / task_rows
    with k.parallel(rows.outer * chunks) as (task, _):
        first = (task % chunks) * task_rows
        rows.each(first, k.min(first + task_rows, rows.count), *rows.part(task / chunks),
                  lambda to, start: _copy(k, target, to, start, rows.inner))
    return k


def build_take_single(target: Target, element: Type, index: Type, wraps: bool = False,
                      together: int = 1) -> Kernel:
    """out[o, i] = x[o, index[i]], for `together` o with one look at the index.

    Arguments: out (contiguous), x, index (contiguous), found (as in `_Rows`), size: of x, outer,
    count: sizes of out, x_outer, x_step: steps of x, task_rows: how many `o` a task has; with one
    `o` in all, elements of `index` are shared out instead.
    """
    k = Kernel("take_single")
    out, x = k.array("out", element).ptr, k.array("x", element).ptr
    listed = _Listed(k, target, index, wraps)
    outer, count, x_outer, x_step, task_rows = (
        k.integer(n) for n in ("outer", "count", "x_outer", "x_step", "task_rows"))
    one = outer.eq(1)
    extent = k.select(one, k.const(_ELEMENTS, I64), task_rows)
    with k.parallel((k.select(one, count, outer) + extent - 1) / extent) as (task, _):
        first = task * extent
        o0, o1 = k.select(one, 0, first), k.select(one, 1, k.min(first + extent, outer))
        i0, i1 = k.select(one, first, 0), k.select(one, k.min(first + extent, count), count)
        i1 = listed.checked(listed.ptr, i0, i1)
        with k.loop(o0, o1, together) as o:
            places = [k.min(o + r, o1 - 1) for r in range(together)]
            pairs = [(k.offset(x, p * x_outer), k.offset(out, p * count)) for p in places]
            _several(k, i0, i1, partial(_take_place, listed, pairs, x_step))
    return k


def _take_place(listed: _Listed, pairs: list[tuple[Value, Value]], step: Value, i: Value) -> None:
    k, place = listed.k, listed.place(listed.ptr, i) * step
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

    Arguments: as in `_Grid` of out and x. Elements are read one by one: processors gather no
    faster.
    """
    k = Kernel("take_along")
    grid = _Grid(k, target, ("out", "x"), (element, index), near)

    def taken(base: Value, row: Value, place: Value, c: Value) -> None:
        k.store(row, c, k.load(base, place))
    grid.run(taken)
    return k


class _Grid:
    """A contiguous array, an index beside it, and a strided array that the index points into.

    Parameters: both arrays, index (contiguous), found (int64; found[0] = 1 where a row of indices
    is out of bounds, and the row is left out), size: places that an index may point to, n0, n1,
    n2: sizes of the contiguous array, index_outer: n1 * n2, or 0 where all share one index;
    outer, axis, inner: steps in the strided array in elements, task_outer, task_rows,
    task_columns: extent of one task. near: axis is 1 and inner 0.
    """

    def __init__(self, k: Kernel, target: Target, arrays: tuple[str, str], kinds: tuple[Type, Type],
                 near: bool, wraps: bool = False) -> None:
        self.k, self.target, self.near = k, target, near
        self.first, self.strided = (k.array(name, kinds[0]).ptr for name in arrays)
        self.listed = _Listed(k, target, kinds[1], wraps)
        self.sizes = [k.integer(f"n{axis}") for axis in range(3)]
        self.index_outer = k.integer("index_outer")
        self.outer, self.axis, self.inner = (k.integer(n) for n in ("outer", "axis", "inner"))
        self.extents = [k.integer(f"task_{n}") for n in ("outer", "rows", "columns")]

    def run(self, write: Callable[[Value, Value, Value, Value], None],
            start: _Start | None = None) -> None:
        """write(base, row, place, column): base + place is where the index of row[column] points.

        In order of rows and columns within a task; a task is a box of the grid. start: what a task
        may point to is set to that before; without `near`, inner is 1 then.
        """
        k = self.k
        parts = [(n + t - 1) / t for n, t in zip(self.sizes, self.extents, strict=True)]
        with k.parallel(parts[0] * parts[1] * parts[2]) as (task, _):
            places = task / (parts[1] * parts[2]), (task / parts[2]) % parts[1], task % parts[2]
            starts = [p * t for p, t in zip(places, self.extents, strict=True)]
            ends = [k.min(s + t, n)
                    for s, t, n in zip(starts, self.extents, self.sizes, strict=True)]
            with k.loop(starts[0], ends[0]) as o:
                base = k.offset(self.strided, o * self.outer)
                if start is not None:
                    self.begin(start, o, starts[2], ends[2])
                with k.loop(starts[1], ends[1]) as r:
                    self.row(base, o, r * self.sizes[2], starts[2], ends[2], write)

    def begin(self, start: _Start, o: Value, first: Value, end: Value) -> None:
        """Sets what the task adds to."""
        if self.near:
            start.set(self.strided, o * self.outer, self.listed.size)
            return
        with self.k.loop(0, self.listed.size) as place:
            start.set(self.strided, o * self.outer + place * self.axis + first, end - first)

    def row(self, base: Value, o: Value, at: Value, start: Value, end: Value, write: Any) -> None:
        k, listed = self.k, self.k.offset(self.listed.ptr, o * self.index_outer + at)
        row = k.offset(self.first, o * (self.sizes[1] * self.sizes[2]) + at)
        end = self.listed.checked(listed, start, end)

        def one(c: Value) -> None:
            place = self.listed.place(listed, c)
            write(base, row, place if self.near else place * self.axis + c * self.inner, c)

        _several(k, start, end, one)


# --- adding -----------------------------------------------------------------------------------

KEPT, ZEROS, COPY = "kept", "zeros", "copy"  # what is added to: what is there, 0, another array


class _Start:
    """What an array that is added to begins with; a copy comes from one more array, like it."""

    def __init__(self, k: Kernel, target: Target, element: Type, kind: str) -> None:
        self.k, self.target, self.element = k, target, element
        self.before = k.array("start", element).ptr if kind == COPY else None

    def set(self, out: Value, at: Value, count: Value) -> None:
        """`count` neighbouring elements from a place on."""
        k, to = self.k, self.k.offset(out, at)
        if self.before is not None:
            _copy(k, self.target, to, k.offset(self.before, at), count)
            return

        def cleared(c: Value, lanes: int, mask: Value | None = None) -> None:
            k.store(to, c, k.const(0, self.element.vector(lanes)), mask)
        _spans(k, self.target, self.element, count, cleared)


def _start(k: Kernel, target: Target, element: Type, kind: str) -> _Start | None:
    return None if kind == KEPT else _Start(k, target, element, kind)


def build_add_rows(target: Target, element: Type, index: Type, wraps: bool = False,
                   start: str = KEPT) -> Kernel:
    """out[o, index[i]] += source[o, i], for i in order.

    Arguments: as in `_Rows` of source and out; task_columns; start, laid out as out, for COPY. A
    task is some columns of one `o`.
    """
    k = Kernel("add_rows")
    rows = _Rows(k, target, ("source", "out"), (element, index), wraps)
    task_columns = k.integer("task_columns")
    begin = _start(k, target, element, start)
    chunks = (rows.inner + task_columns - 1) / task_columns
    with k.parallel(rows.outer * chunks) as (task, _):
        first = (task % chunks) * task_columns
        count = k.min(task_columns, rows.inner - first)
        source, out = rows.part(task / chunks, first)
        if begin is not None:
            with k.loop(0, rows.listed.size) as place:
                begin.set(rows.far, task / chunks * rows.steps[2] + place * rows.steps[3] + first,
                          count)
        rows.each(0, rows.count, source, out,
                  lambda start, to: _add(k, target, to, start, count))
    return k


def build_put_rows(target: Target, element: Type, index: Type) -> Kernel:
    """out[o, index[i]] = source[o, i], for i in order: of equal indices the last stays.

    Arguments: as in `_Rows` of source and out. A task is one `o`.
    """
    k = Kernel("put_rows")
    rows = _Rows(k, target, ("source", "out"), (element, index), False)
    with k.parallel(rows.outer) as (o, _):
        rows.each(0, rows.count, *rows.part(o),
                  lambda start, to: _copy(k, target, to, start, rows.inner))
    return k


def _add(k: Kernel, target: Target, to: Value, start: Value, count: Value) -> None:
    """to += start, `count` neighbouring elements."""
    def added(c: Value, lanes: int, mask: Value | None = None) -> None:
        k.store(to, c, k.load(to, c, lanes, mask) + k.load(start, c, lanes, mask), mask)
    _spans(k, target, to.type.pointee, count, added)


def build_add_along(target: Target, element: Type, index: Type, near: bool = False,
                    start: str = KEPT, wraps: bool = False) -> Kernel:
    """out[o * outer + index[o, r, c] * axis + c * inner] += source[o, r, c], for r, c in order.

    Arguments: as in `_Grid` of source and out; start, laid out as out, for COPY. No two tasks may
    add to the same element.
    """
    k = Kernel("add_along")
    grid = _Grid(k, target, ("source", "out"), (element, index), near, wraps)

    def added(base: Value, row: Value, place: Value, c: Value) -> None:
        k.store(base, place, k.load(base, place) + k.load(row, c))
    grid.run(added, _start(k, target, element, start))
    return k


# --- launchers --------------------------------------------------------------------------------


def take(x: Array, index: Array, axis: int, wraps: bool = False) -> Array | None:
    """x with `axis` replaced by those of an index into it; None without a kernel (yet).

    index: contiguous. IndexError where an index is out of bounds.

    >>> take(np.arange(4000.0), np.array([[3, 1]]), 0).tolist()
    [[3.0, 1.0]]
    """
    return _read("take", _take_plan, x, index, axis, wraps)


def take_along(x: Array, index: Array, axis: int) -> Array | None:
    """x[.., index[.., i, ..], ..] along `axis`, of the index's shape; None without a kernel (yet).

    index: contiguous, its shape that of x but for `axis`. IndexError where one is out of bounds.
    """
    return _read("take_along", _take_along_plan, x, index, axis)


def add_rows(out: Array, index: Array, source: Array, axis: int) -> bool:
    """out[.., index[i], ..] += source[.., i, ..], for i in order; False without a kernel (yet).

    index: 1-D. IndexError where an index is out of bounds.
    """
    return _write("add_rows", _add_rows_plan, source, out, index, axis)


def sum_rows(out: Array, index: Array, source: Array, axis: int, wraps: bool = False,
             start: Array | None = None) -> bool:
    """`add_rows` to an `out` of zeros, or of what `start` holds; what it held is lost.

    out, start: contiguous.
    """
    if _begins_apart(out, index, math.prod(out.shape[axis + 1:])):
        _begin(out, start)
        return _write("add_rows", _add_rows_plan, source, out, index, axis, wraps)
    return _write("sum_rows", _sum_rows_plan if start is None else _sum_rows_to_plan, source, out,
                  index, axis, wraps, start)


def _begins_apart(out: Array, index: Array, columns: int) -> bool:
    """Whether runs of columns, too short for the memory, are better set whole before."""
    return not index.size or (columns > _COLUMNS and out.nbytes > _CACHED)


def _begin(out: Array, start: Array | None) -> None:
    if start is None:
        fill(out, 0)
    else:
        copy(out, start)


def put_rows(out: Array, index: Array, source: Array, axis: int) -> bool:
    """out[.., index[i], ..] = source[.., i, ..], for i in order; False without a kernel (yet).

    index: 1-D. IndexError where an index is out of bounds.
    """
    return _write("put_rows", _put_rows_plan, source, out, index, axis)


def add_along(out: Array, index: Array, source: Array, axis: int) -> bool:
    """out[.., index[.., i, ..], ..] += source[.., i, ..] along `axis`, for i in order.

    source and index have one shape, contiguous; out the same but for `axis`. IndexError where an
    index is out of bounds; out then holds anything. False without a kernel (yet).
    """
    return _write("add_along", _add_along_plan, source, out, index, axis)


def sum_along(out: Array, index: Array, source: Array, axis: int, start: Array | None = None
              ) -> bool:
    """`add_along` to an `out` of zeros, or of what `start` holds; what it held is lost.

    out, start: contiguous.
    """
    if _begins_apart(out, index, math.prod(out.shape[axis + 1:])):
        _begin(out, start)
        return _write("add_along", _add_along_plan, source, out, index, axis)
    return _write("sum_along", _sum_along_plan if start is None else _sum_along_to_plan, source,
                  out, index, axis, False, start)


class _Plan(NamedTuple):
    """How arrays of given shapes, strides and dtypes are launched."""

    key: tuple[Any, ...]
    build: Callable[[Target], Kernel]
    rest: tuple[int, ...]  # arguments after the arrays
    empty: bool  # nothing to do
    shape: tuple[int, ...] = ()  # of what is read


_plans: dict[Any, _Plan | None] = {}


def _planned(key: Any, make: Any, *args: Any) -> _Plan | None:
    """The plan for arrays like these, made where they come first."""
    if len(_plans) >= _MOST_PLANS:
        _plans.clear()
    plan: _Plan | None = make(*args)
    _plans[key] = plan
    return plan


def _read(name: str, make: Any, x: Array, index: Array, axis: int, wraps: bool = False
          ) -> Array | None:
    """What a plan's kernel reads, as a new array."""
    key = (name, axis, wraps, x.shape, x.strides, x.dtype, index.shape, index.strides, index.dtype)
    try:
        plan = _plans[key]
    except KeyError:
        plan = _planned(key, make, x, index, axis, *[wraps] * wraps)
    kernel = None if plan is None else service.kernel(plan.key, plan.build)
    if plan is None or kernel is None:
        return None
    out = memory.empty(plan.shape, x.dtype)
    _run(name, plan, kernel, out, x, index, x.shape[axis], wraps)
    return out


def _write(name: str, make: Any, source: Array, out: Array, index: Array, axis: int,
           wraps: bool = False, start: Array | None = None) -> bool:
    """Runs a plan's kernel, which writes to `out`."""
    if start is not None:
        _fit(name, start, out.shape, start.dtype == out.dtype and start.flags.c_contiguous)
    key = (name, axis, wraps, start is None, source.shape, source.strides, source.dtype,
           out.shape, out.strides, out.dtype, index.shape, index.strides, index.dtype)
    try:
        plan = _plans[key]
    except KeyError:
        plan = _planned(key, make, source, out, index, axis, *[wraps] * wraps)
    kernel = None if plan is None else service.kernel(plan.key, plan.build)
    if plan is None or kernel is None:
        return False
    _run(name, plan, kernel, source, out, index, out.shape[axis], wraps,
         () if start is None else (start,))
    return True


def _run(name: str, plan: _Plan, kernel: Any, a: Array, b: Array, index: Array, size: int,
         wraps: bool, more: tuple[Array, ...] = ()) -> None:
    if plan.empty:
        _check_unused(name, index, size, wraps)
    elif raised(lambda found: kernel(a, b, index, found, *plan.rest, *more), index, "index",
                size, wraps):
        raise _out_of_bounds(name, index, size, wraps)


def _check_unused(name: str, index: Array, size: int, wraps: bool) -> None:
    """Of indices that no element depends on."""
    if index.size and recording_here() is not None:
        raise RecordingError(f"{name}: indices that no kernel checks")
    if _wrong(index, size, wraps).any():
        raise _out_of_bounds(name, index, size, wraps)


def _wrong(index: Array, size: int, wraps: bool) -> Array:
    return (index < (-size if wraps else 0)) | (index >= size)


def _out_of_bounds(name: str, index: Array, size: int, wraps: bool) -> IndexError:
    place = np.unravel_index(int(np.argmax(_wrong(index, size, wraps))), index.shape)
    at = tuple(int(i) for i in place)
    return IndexError(f"{name}: index {index[at]} at {at} is out of bounds for an axis of size "
                      f"{size}")


# --- plans ------------------------------------------------------------------------------------


def _take_plan(x: Array, index: Array, axis: int, wraps: bool = False) -> _Plan | None:
    start, shape = _three(x, axis), (*x.shape[:axis], *index.shape, *x.shape[axis + 1:])
    if start is None or not _listed(index) or x.itemsize not in _BY_SIZE:
        return None
    outer, size, inner = start.shape
    if inner == 1:
        return _take_single_plan(start, index, wraps)._replace(shape=shape)
    if start.strides[2] != x.itemsize:
        return None
    steps = index.size * inner, inner, *_steps(start)[:2]
    rest = size, index.size, outer, inner, *steps, max(1, _TASK_BYTES // max(1, inner * x.itemsize))
    return _plan("take", build_take, _BY_SIZE[x.itemsize], index, rest, not math.prod(shape),
                 wraps)._replace(shape=shape)


def _take_single_plan(x: Array, index: Array, wraps: bool) -> _Plan:
    outer, size, _ = x.shape
    few = outer < _AT_ONCE or size * x.itemsize > _NEAR // _AT_ONCE
    rows = max(1, _TASK_BYTES // max(1, index.size * x.itemsize),
               min(_AT_ONCE, outer // 8))  # so many share one look for wrong indices
    rest = size, outer, index.size, *_steps(x)[:2], rows
    return _plan("take_single", build_take_single, _BY_SIZE[x.itemsize], index, rest,
                 not (outer and index.size), wraps, 1 if few else _AT_ONCE)


def _take_along_plan(x: Array, index: Array, axis: int) -> _Plan | None:
    if not _same_but(x, index, axis):
        raise ValueError(f"take_along: shapes do not fit: {x.shape}, index {index.shape}")
    start = _three(x, axis)
    if start is None or not _listed(index) or x.itemsize not in _BY_SIZE:
        return None
    grid = _grid(index.shape, start, axis)
    return _along("take_along", build_take_along, _BY_SIZE[x.itemsize], index, grid, start,
                  _box(grid))._replace(shape=index.shape)


def _add_rows_plan(source: Array, out: Array, index: Array, axis: int, wraps: bool = False,
                   start: str = KEPT) -> _Plan | None:
    rest, kind = _rows("add_rows", out, index, source, axis), _ADDED.get(dtype_name(out.dtype))
    if kind is None or rest is None or not (start == KEPT or out.flags.c_contiguous):
        return None
    outer, inner = rest[2:4]
    if inner == 1 and source.flags.c_contiguous:
        grid, box = (outer, 1, index.size), (_box((outer, 1, index.size))[0], 1, index.size)
        return _along("add_along", build_add_along, kind, index, grid, _three(out, axis), box,
                      start, wraps, shared=True)
    columns = max(_COLUMNS, -(-inner // 64) * 16)
    return _plan("add_rows", build_add_rows, kind, index, (*rest, columns), not out.size, wraps,
                 start)


_sum_rows_plan = partial(_add_rows_plan, start=ZEROS)
_sum_rows_to_plan = partial(_add_rows_plan, start=COPY)


def _put_rows_plan(source: Array, out: Array, index: Array, axis: int) -> _Plan | None:
    rest = _rows("put_rows", out, index, source, axis)
    if rest is None or out.itemsize not in _BY_SIZE:
        return None
    return _plan("put_rows", build_put_rows, _BY_SIZE[out.itemsize], index, rest, not source.size)


def _rows(name: str, out: Array, index: Array, source: Array, axis: int) -> tuple[int, ...] | None:
    """The numbers of `_Rows`; None where rows are not neighbouring elements without a copy."""
    shape = (*out.shape[:axis], index.size, *out.shape[axis + 1:])
    _fit(name, source, shape, index.ndim == 1 and out.dtype == source.dtype)
    to, start = _three(out, axis), _three(source, axis)
    if to is None or start is None or not _listed(index) or any(
            a.shape[2] > 1 and a.strides[2] != a.itemsize for a in (to, start)):
        return None
    outer, size, inner = to.shape
    return size, index.size, outer, inner, *_steps(start)[:2], *_steps(to)[:2]


def _add_along_plan(source: Array, out: Array, index: Array, axis: int, start: str = KEPT
                    ) -> _Plan | None:
    _fit("add_along", source, index.shape, _same_but(out, index, axis)
         and out.dtype == source.dtype)
    to, kind = _three(out, axis), _ADDED.get(dtype_name(out.dtype))
    if kind is None or to is None or not _plain(source, index) or not (
            start == KEPT or out.flags.c_contiguous):
        return None
    grid = _grid(index.shape, to, axis)
    box = _box(grid)[0], grid[1], grid[2] if to.shape[2] == 1 else min(_COLUMNS, grid[2])
    return _along("add_along", build_add_along, kind, index, grid, to, box, start, False)


_sum_along_plan = partial(_add_along_plan, start=ZEROS)
_sum_along_to_plan = partial(_add_along_plan, start=COPY)


def _along(name: str, build: Any, kind: Type, index: Array, grid: tuple[int, int, int],
           strided: Any, box: tuple[int, int, int], *more: Any, shared: bool = False) -> _Plan:
    outer, axis, inner = _steps(strided)
    alone = strided.shape[2] == 1  # all columns of the grid share the axis
    between = 0 if shared else grid[1] * grid[2]
    rest = strided.shape[1], *grid, between, outer, axis, 0 if alone else inner, *box
    return _plan(name, build, kind, index, rest, not math.prod(grid),
                 alone and (axis == 1 or strided.shape[1] == 1), *more)


def _plan(name: str, build: Any, kind: Type, index: Array, rest: tuple[int, ...], empty: bool,
          *more: Any) -> _Plan:
    kinds = kind, of_numpy(dtype_name(index.dtype))
    return _Plan((name, *(kind.name for kind in kinds), *more),
                 lambda target: build(target, *kinds, *more), rest, empty)


def _steps(x: Array) -> tuple[int, ...]:
    return tuple([s // x.itemsize for s in x.strides])


def _box(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """The extent of a task: about `_ELEMENTS` that lie together."""
    columns = max(1, min(shape[2], _ELEMENTS))
    rows = max(1, min(shape[1], _ELEMENTS // columns))
    return max(1, _ELEMENTS // max(1, shape[1] * shape[2])), rows, columns


def _grid(shape: tuple[int, ...], strided: Array, axis: int) -> tuple[int, int, int]:
    """The shape of what lies beside the index, as a grid of rows and columns."""
    outer, _, inner = strided.shape
    return (outer, 1, shape[axis]) if inner == 1 else (outer, shape[axis], inner)


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
    return grid.flags.c_contiguous and _listed(index)


def _listed(index: Array) -> bool:
    return index.flags.c_contiguous and dtype_name(index.dtype) in _INDICES


def _fit(name: str, grid: Array, shape: tuple[int, ...], holds: bool) -> None:
    if not holds or grid.shape != shape:
        raise ValueError(f"{name}: shapes or dtypes do not fit: {grid.shape}, expected {shape}")
