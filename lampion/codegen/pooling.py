"""Pooling over planes, (planes, H, W): maxima with their places, means, and their gradients.

A window is taken apart into its columns and its row: for each row of the output, the rows of the
input that it sees are first combined element by element into one padded row in memory of the task,
whose windows are then combined along it. Both steps work on vectors whatever the stride.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from . import service
from .fused import as_contiguous
from .gather import sum_along
from .ir import ArrayParam, Kernel, Value
from .target import Target
from .types import I32, I64, Type, dtype_name, of_numpy

__all__ = ["Window", "avg_pool2d", "avg_pool2d_backward", "build_avg", "build_avg_backward",
           "build_max", "max_pool2d", "max_pool2d_backward"]

Array = np.ndarray[Any, Any]

_ROW = 4096  # elements of the padded row, at most
_TASK_ELEMENTS = 1 << 14
_NOWHERE = 2**31 - 1  # the place of padding: every real one comes before it


class Window(NamedTuple):
    """What is fixed when a kernel is compiled: (down, across)."""

    element: Type
    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)


class _Pool:
    """Planes, rows of the output, and the padded row."""

    def __init__(self, target: Target, window: Window, name: str, arrays: str) -> None:
        self.k, self.window = Kernel(name), window
        self.lanes = target.lanes(window.element)
        self.arrays = [self.k.array(n, window.element) for n in arrays.split()]
        self.out, self.x = self.arrays[:2]

    def integers(self) -> None:
        """Parameters: padding, elements of the padded row in use, planes of a task."""
        names = ("top", "left", "reach", "planes")
        self.top, self.left, self.reach, self.planes = (self.k.integer(n) for n in names)

    def run(self, start: Callable[[], None]) -> Kernel:
        """The kernel: tasks of `planes` planes, each with memory that `start` makes."""
        k, count, width = self.k, self.x.size(0), self.planes
        with k.parallel((count + width - 1) / width) as (task, _):
            start()
            with k.loop(task * width, k.min((task + 1) * width, count)) as plane:
                self.each_row(plane)
        return k

    def each_row(self, plane: Value) -> None:
        raise NotImplementedError

    def padded(self, kind: Type, filling: float) -> Value:
        """A padded row in memory of the task."""
        row = self.k.scratch(kind, _ROW)
        self._fill(row, filling)
        return row

    def _fill(self, row: Value, filling: float) -> None:
        kind = row.type.pointee.vector(self.lanes)
        with self.k.loop(0, self.reach, self.lanes) as c:
            self.k.store(row, c, self.k.const(filling, kind))

    def plane(self, array: ArrayParam, plane: Value) -> Value:
        return self.k.offset(array.ptr, plane * array.stride(0))

    def rows(self, oh: Value) -> tuple[list[Value], Value, Value]:
        """The rows of the input under row `oh` of the output, and the first and last + 1 inside.

        A tap outside stands for the nearest one inside.
        """
        k, (size, _), step = self.k, self.window.size, self.window.dilation[0]
        start = oh * self.window.stride[0] - self.top
        first = k.max((step - 1 - start) / step, 0)
        last = k.min((self.x.size(1) - 1 - start) / step + 1, size)
        taps = [k.min(k.max(k.index(r), first), last - 1) for r in range(size)]
        return [start + tap * step for tap in taps], first, last

    def spread(self, ptr: Value, at: Value) -> Value:
        """Every stride-th element from ptr[at] on."""
        k, stride, lanes = self.k, self.window.stride[1], self.lanes
        if stride == 1:
            return k.load(ptr, at, lanes)
        if stride == 2:
            low, high = k.load(ptr, at, lanes), k.load(ptr, at + lanes, lanes)
            return k.shuffle(low, high, range(0, 2 * lanes, 2))
        return k.gather(k.offset(ptr, at), k.iota(lanes) * stride)

    def columns(self, size: Value) -> Iterator[tuple[Value, Value | None]]:
        """(first, mask) of the vectors of a row, the last one masked."""
        k = self.k
        whole = size - size % self.lanes
        with k.loop(0, whole, self.lanes) as c:
            yield c, None
        with k.when(whole < size):
            yield whole, k.mask(size - whole, self.lanes)


# --- maxima -----------------------------------------------------------------------------------


def build_max(target: Target, window: Window) -> Kernel:
    """out = the largest of each window, index = its place in the plane, H * W counted along W.

    The first of equals; a NaN beats all, the last one wins. Arguments: out, x, index (int64), all
    (planes, height, width) with contiguous rows; top, left: padding; reach, planes.
    """
    return _Max(target, window).build()


class _Max(_Pool):
    def __init__(self, target: Target, window: Window) -> None:
        super().__init__(target, window, "max_pool", "out x")
        self.index = self.k.array("index", I64)
        self.integers()

    def build(self) -> Kernel:
        return self.run(self.start)

    def start(self) -> None:
        self.values = self.padded(self.window.element, -np.inf)
        self.places = self.padded(I32, _NOWHERE)

    def each_row(self, plane: Value) -> None:
        k = self.k
        x = self.plane(self.x, plane)
        with k.loop(0, self.out.size(1)) as oh:
            rows, *_ = self.rows(oh)
            for c, mask in self.columns(self.x.size(2)):
                self.down(x, rows, c, mask)
            at = plane * self.out.stride(0) + oh * self.out.stride(1)
            found = plane * self.index.stride(0) + oh * self.index.stride(1)
            for c, mask in self.columns(self.out.size(2)):
                best, place = self.across(c)
                k.store(self.out.ptr, at + c, best, mask)
                k.store(self.index.ptr, found + c, place.cast(I64), mask)

    def down(self, x: Value, rows: Sequence[Value], c: Value, mask: Value | None) -> None:
        """The largest of the rows, column by column, into the padded row."""
        k = self.k
        best = place = None
        for row in rows:
            value = k.load(x, row * self.x.stride(1) + c, self.lanes, mask)
            at = k.splat((row * self.x.size(2) + c).cast(I32), self.lanes) + k.iota(self.lanes, I32)
            if best is None or place is None:
                best, place = value, at
                continue
            better = (best < value) | value.ne(value)
            best, place = k.select(better, value, best), k.select(better, at, place)
        assert best is not None and place is not None
        k.store(self.values, self.left + c, best, mask)
        k.store(self.places, self.left + c, place, mask)

    def across(self, c: Value) -> tuple[Value, Value]:
        """The largest along the padded row; of equals the one that comes first in the plane."""
        k, start = self.k, c * self.window.stride[1]
        best, place = (self.spread(p, start) for p in (self.values, self.places))
        for s in range(1, self.window.size[1]):
            at = start + s * self.window.dilation[1]
            value, where = self.spread(self.values, at), self.spread(self.places, at)
            nan = value.ne(value) & (best.eq(best) | (place < where))
            better = (best < value) | (value.eq(best) & (where < place)) | nan
            best, place = k.select(better, value, best), k.select(better, where, place)
        return best, place


# --- means ------------------------------------------------------------------------------------


def build_avg(target: Target, window: Window) -> Kernel:
    """out = the sums of the windows / divisor, which is (height, width) of the output.

    Arguments: out, x, divisor, then as `build_max`.
    """
    return _Avg(target, window).build()


class _Avg(_Pool):
    def __init__(self, target: Target, window: Window) -> None:
        super().__init__(target, window, "avg_pool", "out x divisor")
        self.divisor = self.arrays[2]
        self.integers()

    def build(self) -> Kernel:
        return self.run(self.start)

    def start(self) -> None:
        self.sums = self.padded(self.window.element, 0.0)

    def each_row(self, plane: Value) -> None:
        k = self.k
        x = self.plane(self.x, plane)
        with k.loop(0, self.out.size(1)) as oh:
            rows, first, last = self.rows(oh)
            inside = [(k.index(r) < last) & (first <= r) for r in range(len(rows))]
            for c, mask in self.columns(self.x.size(2)):
                total = k.const(0.0, self.window.element.vector(self.lanes))
                for row, holds in zip(rows, inside, strict=True):
                    value = k.load(x, row * self.x.stride(1) + c, self.lanes, mask)
                    total = total + k.select(holds, value, 0.0)
                k.store(self.sums, self.left + c, total, mask)
            at = plane * self.out.stride(0) + oh * self.out.stride(1)
            for c, mask in self.columns(self.out.size(2)):
                start = c * self.window.stride[1]
                total = self.spread(self.sums, start)
                for s in range(1, self.window.size[1]):
                    total = total + self.spread(self.sums, start + s)
                divisor = k.load(self.divisor.ptr, oh * self.divisor.stride(0) + c, self.lanes,
                                 mask)
                k.store(self.out.ptr, at + c, total / divisor, mask)


def build_avg_backward(target: Target, window: Window) -> Kernel:
    """dx = each element's sum of dout / divisor over the windows that it is in.

    Arguments: dx, dout, divisor; top, left, reach, planes as in `build_max`.
    """
    return _AvgBackward(target, window).build()


class _AvgBackward(_Pool):
    def __init__(self, target: Target, window: Window) -> None:
        super().__init__(target, window, "avg_pool_backward", "dx dout divisor")
        self.divisor = self.arrays[2]
        self.integers()

    def build(self) -> Kernel:
        return self.run(self.start)

    def start(self) -> None:
        self.row, self.sums = (self.k.scratch(self.window.element, _ROW) for _ in range(2))

    def each_row(self, plane: Value) -> None:
        """Rows of dx: the rows of the output that see it, summed; then spread along the row."""
        k, (size, _), (stride, _) = self.k, self.window.size, self.window.stride
        dout = self.plane(self.x, plane)
        with k.loop(0, self.out.size(1)) as h:
            at = h + self.top
            first = k.max((at - size + stride) / stride, 0)
            first = k.select(at < size, 0, first)
            last = k.min(at / stride + 1, self.x.size(1))
            for c, mask in self.columns(self.x.size(2)):
                loop = k.loop(first, last, 1,
                              [k.const(0.0, self.window.element.vector(self.lanes))])
                with loop as (oh, total):
                    value = k.load(dout, oh * self.x.stride(1) + c, self.lanes, mask)
                    by = k.load(self.divisor.ptr, oh * self.divisor.stride(0) + c, self.lanes,
                                mask)
                    loop.next(total + value / by)
                k.store(self.sums, c, loop.results[0])
            self._fill(self.row, 0.0)
            self.spread_row()
            to = plane * self.out.stride(0) + h * self.out.stride(1)
            for c, mask in self.columns(self.out.size(2)):
                k.store(self.out.ptr, to + c, k.load(self.row, self.left + c, self.lanes), mask)

    def spread_row(self) -> None:
        k = self.k
        with k.loop(0, self.x.size(2)) as ow:
            value, start = k.load(self.sums, ow), ow * self.window.stride[1]
            for s in range(self.window.size[1]):
                k.store(self.row, start + s, k.load(self.row, start + s) + value)


# --- launchers --------------------------------------------------------------------------------


def max_pool2d(out: Array, index: Array, x: Array, size: tuple[int, int], stride: tuple[int, int],
               padding: tuple[int, int], dilation: tuple[int, int] = (1, 1)) -> bool:
    """The largest of each window and its place in its plane; False without a kernel (yet).

    x (.., H, W), out and index (int64) (.., height, width), contiguous rows. The output's size
    says how many windows there are; ValueError where one of them lies outside.
    """
    _fit("max_pool2d", out, x, index.shape == out.shape and index.dtype == np.int64)
    problem = _problem(x, out, size, stride, padding, dilation)
    planes = [_planes(a) for a in (out, x, index)]
    if problem is None or any(p is None for p in planes):
        return False
    return _run("max_pool2d", build_max, problem, planes)


def max_pool2d_backward(dx: Array, dout: Array, index: Array) -> bool:
    """dx = zeros with dout added at the places that `max_pool2d` found; False without a kernel."""
    cells = dx.shape[-2] * dx.shape[-1]
    if dout.shape != index.shape or dout.shape[:-2] != dx.shape[:-2]:
        raise ValueError(f"max_pool2d_backward: dout {dout.shape} does not fit dx {dx.shape}")
    if not dx.flags.c_contiguous:
        return False
    planes = math.prod(dx.shape[:-2])
    places, values = (as_contiguous(a).reshape(planes, dout.shape[-2] * dout.shape[-1])
                      for a in (index, dout))
    return sum_along(dx.reshape(planes, cells), places, values, 1)


def avg_pool2d(out: Array, x: Array, divisor: Array, size: tuple[int, int],
               stride: tuple[int, int], padding: tuple[int, int]) -> bool:
    """out = the sum of each window of x / divisor (height, width); False without a kernel (yet).

    Arrays and errors as in `max_pool2d`; what lies outside counts as 0.
    """
    _fit("avg_pool2d", out, x, divisor.shape == out.shape[-2:] and divisor.dtype == x.dtype)
    return _averaged("avg_pool2d", build_avg, (out, x), divisor, _problem(
        x, out, size, stride, padding, (1, 1)))


def avg_pool2d_backward(dx: Array, dout: Array, divisor: Array, size: tuple[int, int],
                        stride: tuple[int, int], padding: tuple[int, int]) -> bool:
    """dx from the gradient of `avg_pool2d`'s output; False without a kernel (yet)."""
    _fit("avg_pool2d_backward", dout, dx,
         divisor.shape == dout.shape[-2:] and divisor.dtype == dx.dtype)
    return _averaged("avg_pool2d_backward", build_avg_backward, (dx, dout), divisor, _problem(
        dx, dout, size, stride, padding, (1, 1)))


def _averaged(name: str, build: Any, arrays: tuple[Array, Array], divisor: Array,
              problem: _Problem | None) -> bool:
    planes = [_planes(a) for a in arrays]
    if problem is None or any(p is None for p in planes) or not divisor.flags.c_contiguous:
        return False
    return _run(name, build, problem, [*planes, divisor])


class _Problem(NamedTuple):
    window: Window
    padding: tuple[int, int]
    reach: int
    planes: int  # of a task


def _problem(x: Array, out: Array, size: tuple[int, int], stride: tuple[int, int],
             padding: tuple[int, int], dilation: tuple[int, int]) -> _Problem | None:
    """None where no kernel serves; ValueError for windows that see nothing of x."""
    height, width = x.shape[-2:]
    for axis in range(2):
        if not _all_inside(x.shape[axis - 2], out.shape[axis - 2], size[axis], stride[axis],
                           padding[axis], dilation[axis]):
            raise ValueError(f"pooling: {out.shape[-2:]} windows of {size} do not fit an input of "
                             f"{x.shape[-2:]} padded by {padding}")
    widest = 16  # lanes, whatever the target
    reach = max((out.shape[-1] + widest) * stride[1] + size[1] * dilation[1] + widest,
                padding[1] + width + widest)
    if (dtype_name(x.dtype) not in ("float32", "float64") or reach > _ROW - 2 * widest
            or height * width >= _NOWHERE):
        return None
    window = Window(of_numpy(dtype_name(x.dtype)), size, stride, dilation)
    return _Problem(window, padding, reach, max(1, _TASK_ELEMENTS // max(1, height * width)))


@cache
def _all_inside(length: int, count: int, size: int, stride: int, padding: int, dilation: int
                ) -> bool:
    """Whether every window has an element inside."""
    starts = np.arange(count) * stride - padding
    starts += -(-np.maximum(-starts, 0) // dilation) * dilation
    ends = np.arange(count) * stride - padding + (size - 1) * dilation
    return bool(((starts < length) & (starts <= ends)).all())


def _fit(name: str, out: Array, x: Array, holds: bool) -> None:
    if not holds or out.shape[:-2] != x.shape[:-2] or out.dtype != x.dtype:
        raise ValueError(f"{name}: {out.dtype} {out.shape} does not fit {x.dtype} {x.shape}")


def _planes(x: Array) -> Array | None:
    """Three axes, the last one contiguous; None where that needs a copy."""
    if any(s % x.itemsize for s in x.strides) or (x.shape[-1] > 1 and x.strides[-1] != x.itemsize):
        return None
    try:
        return x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:], copy=False)
    except ValueError:
        return None


def _run(name: str, build: Callable[[Target, Window], Kernel], problem: _Problem,
         arrays: Sequence[Array | None]) -> bool:
    window = problem.window
    kernel = service.kernel((name, window.element.name, *window[1:]),
                            lambda target: build(target, window))
    if kernel is None:
        return False
    kernel(*arrays, *problem.padding, problem.reach, problem.planes)
    return True
