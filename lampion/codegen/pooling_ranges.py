"""The largest element of windows that are any ranges of each axis: adaptive, fractional, 3-D.

As in `pooling.py` the rows of a window are first combined element by element, whole rows of the
input at a time, into one row in memory of the task; along it each window is then a short loop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from . import service
from .ir import Kernel, Value
from .target import Target
from .types import I32, I64, Type, dtype_name, of_numpy

__all__ = ["build_max_ranges", "max_of_ranges"]

Array = np.ndarray[Any, Any]

_ROW = 4096  # elements of a row of the input, at most
_TASK_ELEMENTS = 1 << 14
_MOST = 2**31 - 1  # elements of a plane: places are int32 in the kernel


def build_max_ranges(target: Target, element: Type) -> Kernel:
    """out = the largest of each window, index = its place in its plane; of equals the first.

    A NaN beats all, the last one wins. Arguments: out, x (planes, D, H, W), index (int64) as out,
    all contiguous; for each axis start and stop, (planes or 1, cells) int64 arrays whose ranges are
    not empty and lie inside; planes of a task.
    """
    return _Ranges(target, element).build()


class _Ranges:
    def __init__(self, target: Target, element: Type) -> None:
        self.k = k = Kernel("max_ranges")
        self.lanes = target.lanes(element)
        self.element = element
        self.out, self.x, self.index = (k.array("out", element), k.array("x", element),
                                        k.array("index", I64))
        self.bounds = [(k.array(f"start{a}", I64), k.array(f"stop{a}", I64)) for a in range(3)]
        self.planes = k.integer("planes")

    def build(self) -> Kernel:
        k, count, width = self.k, self.x.size(0), self.planes
        with k.parallel((count + width - 1) / width) as (task, _):
            self.values, self.places = k.scratch(self.element, _ROW), k.scratch(I32, _ROW)
            with (k.loop(task * width, k.min((task + 1) * width, count)) as plane,
                  k.loop(0, self.out.size(1)) as d, k.loop(0, self.out.size(2)) as h):
                self.row(plane, d, h)
        return k

    def span(self, axis: int, plane: Value, cell: Value) -> tuple[Value, Value]:
        """The range of an axis that a cell of the output sees."""
        start, stop = self.bounds[axis]
        at = self.k.select(start.size(0).eq(1), 0, plane) * start.size(1) + cell
        return self.k.load(start.ptr, at), self.k.load(stop.ptr, at)

    def row(self, plane: Value, d: Value, h: Value) -> None:
        k, out = self.k, self.out
        x = k.offset(self.x.ptr, plane * self.x.stride(0))
        deep, high = self.span(0, plane, d), self.span(1, plane, h)
        width = self.x.size(3)
        whole = width - width % self.lanes
        with k.loop(0, whole, self.lanes) as c:
            self.down(x, deep, high, c, None)
        with k.when(whole < width):
            self.down(x, deep, high, whole, k.mask(width - whole, self.lanes))
        to = ((plane * out.size(1) + d) * out.size(2) + h) * out.size(3)
        with k.loop(0, out.size(3)) as w:
            best, place = self.across(*self.span(2, plane, w))
            k.store(out.ptr, to + w, best)
            k.store(self.index.ptr, to + w, place.cast(I64))

    def down(self, x: Value, deep: tuple[Value, Value], high: tuple[Value, Value],
             c: Value, mask: Value | None) -> None:
        """The largest of the rows of a window, column by column, into the row of the task."""
        k = self.k
        first = self.seen(x, deep[0], high[0], c, mask)
        outer = k.loop(deep[0], deep[1], 1, first)
        with outer as (d, *best):
            inner = k.loop(high[0], high[1], 1, best)
            with inner as (h, *best):
                inner.next(*self.larger(*best, *self.seen(x, d, h, c, mask)))
            outer.next(*inner.results)
        k.store(self.values, c, outer.results[0], mask)
        k.store(self.places, c, outer.results[1], mask)

    def seen(self, x: Value, d: Value, h: Value, c: Value, mask: Value | None) -> list[Value]:
        """A vector of a row, and the places of its elements."""
        k, lanes = self.k, self.lanes
        at = (d * self.x.size(2) + h) * self.x.size(3) + c
        return [k.load(x, at, lanes, mask), k.splat(at.cast(I32), lanes) + k.iota(lanes, I32)]

    def larger(self, best: Value, place: Value, value: Value, at: Value) -> tuple[Value, Value]:
        """Of two that come in this order."""
        better = (best < value) | value.ne(value)
        return self.k.select(better, value, best), self.k.select(better, at, place)

    def across(self, start: Value, stop: Value) -> tuple[Value, ...]:
        """The largest of the row's range; of equals the one that comes first in the plane."""
        k = self.k
        first = [k.load(self.values, start), k.load(self.places, start)]
        loop = k.loop(start + 1, stop, 1, first)
        with loop as (at, best, place):
            value, where = k.load(self.values, at), k.load(self.places, at)
            nan = value.ne(value) & (best.eq(best) | (place < where))
            better = (best < value) | (value.eq(best) & (where < place)) | nan
            loop.next(k.select(better, value, best), k.select(better, where, place))
        return loop.results


def max_of_ranges(out: Array, index: Array, x: Array,
                  bounds: Sequence[tuple[Array, Array]]) -> bool:
    """The largest of each window and its place in its plane; False without a kernel (yet).

    x (N, C, *S), out and index (int64) (N, C, *O), contiguous; bounds: for each spatial axis the
    starts and stops of its ranges, (cells,) or (N * C, cells). ValueError for other shapes, and for
    ranges that are empty or not inside.
    """
    planes, spatial = math.prod(x.shape[:2]), x.shape[2:]
    _check(planes, out, index, x, bounds)
    if (dtype_name(x.dtype) not in ("float32", "float64") or not 0 < x.shape[-1] <= _ROW
            or math.prod(spatial) > _MOST or not _contiguous(out, index, x)):
        return False
    element = of_numpy(dtype_name(x.dtype))
    kernel = service.kernel(("max_ranges", element.name),
                            partial(build_max_ranges, element=element))
    if kernel is None:
        return False
    more = (1,) * (3 - len(spatial))
    whole = [(np.zeros((1, 1), np.int64), np.ones((1, 1), np.int64))] * len(more)
    arrays = [a.reshape(planes, *more, *a.shape[2:]) for a in (out, x, index)]
    flat = [b.reshape(-1, b.shape[-1]) for pair in (*whole, *bounds) for b in pair]
    kernel(*arrays, *flat, max(1, _TASK_ELEMENTS // max(1, math.prod(spatial))))
    return True


def _contiguous(*arrays: Array) -> bool:
    return all(a.flags.c_contiguous for a in arrays)


def _check(planes: int, out: Array, index: Array, x: Array,
           bounds: Sequence[tuple[Array, Array]]) -> None:
    fits = (out.shape == index.shape and out.shape[:2] == x.shape[:2] and out.dtype == x.dtype
            and index.dtype == np.int64 and len(bounds) == x.ndim - 2 == out.ndim - 2 <= 3)
    for (start, stop), n, size in zip(bounds, out.shape[2:], x.shape[2:], strict=False):
        fits = fits and _inside(start, stop, size) and start.shape in ((n,), (planes, n))
    if not fits:
        raise ValueError(f"max_of_ranges: ranges of {x.shape} inside of it for {out.shape}")


def _inside(start: Array, stop: Array, size: int) -> bool:
    return (start.shape == stop.shape and start.dtype == stop.dtype == np.int64
            and _contiguous(start, stop)
            and bool(((start >= 0) & (start < stop) & (stop <= size)).all()))
