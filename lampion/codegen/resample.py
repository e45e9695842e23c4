"""Resampling along axes: every output cell is a weighted sum of a few input cells.

Interpolation of all kinds, adaptive means and their gradients are this, with different taps. An
axis is resampled at a time; what lies after it is in the lanes, and along the last axis several
rows share one look at the taps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..runtime import memory
from . import service
from .ir import Kernel, Value
from .target import Target
from .types import I64, Type, dtype_name, of_numpy

__all__ = ["Taps", "build_resample", "resample", "taps", "turned_taps"]

Array = np.ndarray[Any, Any]

_TOGETHER = 4  # vectors, or rows, that share one look at the taps
_TASK_ELEMENTS = 1 << 14
_MOST_FIXED = 4  # taps of every cell that a kernel has without a loop


class Taps(NamedTuple):
    """Cell i is the sum of weights[t] * x[places[t]] for starts[i] <= t < starts[i + 1].

    fixed: how many taps every cell has; 0 where they are not equally many, or many.
    """

    starts: Array
    places: Array
    weights: Array
    size: int  # of the axis that places point into
    fixed: int


def taps(index: Array, weight: Array, size: int, dtype: np.dtype[Any]) -> Taps:
    """From tables (cells, taps) of places in an axis of `size` and their weights.

    ValueError where a place lies outside.
    """
    if index.shape != weight.shape or (index.size and not 0 <= index.min() <= index.max() < size):
        raise ValueError(f"resample: places within an axis of {size} and as many weights")
    cells, each = index.shape
    return Taps(np.arange(cells + 1) * each, index.astype(np.int64).ravel(),
                weight.astype(dtype).ravel(), size, each if 0 < each <= _MOST_FIXED else 0)


def turned_taps(index: Array, weight: Array, size: int, dtype: np.dtype[Any]) -> Taps:
    """The taps of the gradient: every input cell sums the outputs that it went into."""
    forward = taps(index, weight, size, dtype)
    order = np.argsort(forward.places, kind="stable")
    starts = np.searchsorted(forward.places[order], np.arange(size + 1))
    return Taps(starts, order // max(index.shape[1], 1), forward.weights[order], index.shape[0], 0)


def build_resample(target: Target, element: Type, across: bool, fixed: int) -> Kernel:
    """One axis: out (outer, cells, inner) from x (outer, size, inner), both contiguous.

    Arguments: out, x, starts, places (int64), weights, task: rows of one task. across: the lanes
    are the inner axis, which otherwise has one element. fixed: as in `Taps`.
    """
    return _Resample(target, element, across, fixed).build()


class _Resample:
    def __init__(self, target: Target, element: Type, across: bool, fixed: int) -> None:
        self.k = k = Kernel("resample")
        self.target, self.element, self.across, self.fixed = target, element, across, fixed
        self.lanes = target.lanes(element)
        self.out, self.x = k.array("out", element), k.array("x", element)
        self.starts, self.places = k.array("starts", I64), k.array("places", I64)
        self.weights, self.task = k.array("weights", element), k.integer("task")

    def build(self) -> Kernel:
        """Tasks are runs of rows: of cells, or of outer positions along the last axis."""
        k = self.k
        cells = self.out.size(1)
        rows = self.out.size(0) * cells if self.across else self.out.size(0)
        with k.parallel((rows + self.task - 1) / self.task) as (task, _):
            first = task * self.task
            last = k.min(first + self.task, rows)
            if self.across:
                with k.loop(first, last) as row:
                    self.cell(row, row / cells, row % cells)
            else:
                with k.loop(first, last, _TOGETHER) as row:
                    self.rows(row, last)
        return k

    def total(self, cell: Value, zeros: Sequence[Value],
              read: Callable[[Value], Sequence[Value]]) -> Sequence[Value]:
        """Sums over the taps of a cell of weight * read(place)."""
        k, fixed = self.k, self.fixed
        if fixed:
            sums = list(zeros)
            for t in range(fixed):
                sums = self.added(sums, cell * fixed + t, read)
            return sums
        start, end = k.load(self.starts.ptr, cell), k.load(self.starts.ptr, cell + 1)
        loop = k.loop(start, end, 1, list(zeros))
        with loop as (t, *carried):
            loop.next(*self.added(carried, t, read))
        return loop.results

    def added(self, sums: Sequence[Value], t: Value,
              read: Callable[[Value], Sequence[Value]]) -> list[Value]:
        k = self.k
        weight, place = k.load(self.weights.ptr, t), k.load(self.places.ptr, t)
        weight = k.splat(weight, sums[0].type.lanes)
        return [k.fma(weight, x, s) for x, s in zip(read(place), sums, strict=True)]

    def cell(self, row: Value, o: Value, cell: Value) -> None:
        """One cell of all inner positions: some vectors at once, one, the rest."""
        k, lanes, inner = self.k, self.lanes, self.x.size(2)
        start = k.offset(self.x.ptr, o * self.x.size(1) * inner)
        out = k.offset(self.out.ptr, row * inner)
        step = _TOGETHER * lanes
        most, whole = inner - inner % step, inner - inner % lanes
        with k.loop(0, most, step) as c:
            self.vectors(start, out, cell, c, _TOGETHER, lanes)
        with k.loop(most, whole, lanes) as c:
            self.vectors(start, out, cell, c, 1, lanes)
        if self.target.has_masks:
            with k.when(whole < inner):
                self.vectors(start, out, cell, whole, 1, lanes, k.mask(inner - whole, lanes))
        else:
            with k.loop(whole, inner) as c:
                self.vectors(start, out, cell, c, 1, 1)

    def vectors(self, start: Value, out: Value, cell: Value, c: Value, count: int, lanes: int,
                mask: Value | None = None) -> None:
        k, inner = self.k, self.x.size(2)

        def read(place: Value) -> list[Value]:
            at = place * inner + c
            return [k.load(start, at + v * lanes, lanes, mask) for v in range(count)]
        zeros = [k.const(0.0, self.element.vector(lanes))] * count
        for v, value in enumerate(self.total(cell, zeros, read)):
            k.store(out, c + v * lanes, value, mask)

    def rows(self, first: Value, end: Value) -> None:
        """All cells of a few rows; past the end the last row again."""
        k, cells = self.k, self.out.size(1)
        places = [k.min(first + r, end - 1) for r in range(_TOGETHER)]
        starts = [k.offset(self.x.ptr, p * self.x.size(1)) for p in places]
        outs = [k.offset(self.out.ptr, p * cells) for p in places]
        zeros = [k.const(0.0, self.element)] * _TOGETHER
        with k.loop(0, cells) as cell:
            found = self.total(cell, zeros, lambda place: [k.load(s, place) for s in starts])
            for out, value in zip(outs, found, strict=True):
                k.store(out, cell, value)


# --- launchers --------------------------------------------------------------------------------


def resample(out: Array, x: Array, axes: Sequence[Taps]) -> bool:
    """out = x with its last axes resampled, the first of them first; False without a kernel (yet).

    x (.., sizes), out (.., cells), contiguous, float32 or float64. ValueError where the taps do
    not fit.
    """
    lead = x.ndim - len(axes)
    cells = tuple(len(a.starts) - 1 for a in axes)
    if (x.shape[lead:] != tuple(a.size for a in axes) or out.shape != (*x.shape[:lead], *cells)
            or any(a.dtype != x.dtype for a in (out, *(t.weights for t in axes)))):
        raise ValueError(f"resample: taps for {[a.size for a in axes]} cells and {out.dtype} "
                         f"{out.shape} do not fit {x.dtype} {x.shape}")
    if dtype_name(x.dtype) not in ("float32", "float64") or not (
            x.flags.c_contiguous and out.flags.c_contiguous):
        return False
    kernels = [_kernel(x, lead + i, a) for i, a in enumerate(axes)]
    if any(kernel is None for kernel in kernels):
        return False
    for i, (axis, kernel) in enumerate(zip(axes, kernels, strict=True)):
        x = _along(kernel, x, lead + i, axis, out if i == len(axes) - 1 else None)
    return True


def _kernel(x: Array, axis: int, along: Taps) -> Any:
    across, element = axis < x.ndim - 1, of_numpy(dtype_name(x.dtype))
    return service.kernel(
        ("resample", element.name, across, along.fixed),
        partial(build_resample, element=element, across=across, fixed=along.fixed))


def _along(kernel: Any, x: Array, axis: int, along: Taps, out: Array | None) -> Array:
    """One axis, into `out` or new memory."""
    cells = len(along.starts) - 1
    if out is None:
        out = memory.empty((*x.shape[:axis], cells, *x.shape[axis + 1:]), x.dtype)
    if out.size:
        outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1:])
        each = inner if axis < x.ndim - 1 else cells
        kernel(out.reshape(outer, cells, inner), x.reshape(outer, x.shape[axis], inner),
               along.starts, along.places, along.weights, max(_TOGETHER, _TASK_ELEMENTS // each))
    return out
