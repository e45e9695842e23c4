"""Scans, what stands at each place made of all before it, and the k largest elements of rows.

Across the last axis the columns lie in the lanes and the scan walks down. Along the last axis a
vector is scanned in itself, by steps of 1, 2, 4, ... lanes (W. D. Hillis and G. L. Steele, "Data
parallel algorithms", CACM 29, 1986), and then joined with the last element of the vector before.
Sums and products of floats are made in float64, as PyTorch makes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from . import service
from .fused import as_contiguous, copy
from .ir import Kernel, Value
from .math import exp, log1p
from .target import Target
from .types import F32, F64, I1, I32, I64, Type, dtype_name, of_numpy

__all__ = ["FEW", "MOST", "SCANS", "build_scan", "build_topk", "scan", "topk"]

Array = np.ndarray[Any, Any]
State = tuple[Value, ...]

MOST = 128
"""The most elements that `topk` finds: they are inserted one by one."""

FEW = 16
"""Up to as many, they are kept in a vector."""

_TASK_ELEMENTS = 1 << 14
_SCANNED = frozenset(map(np.dtype, ("float32", "float64", "int64")))
_TOGETHER = 2  # vectors of columns that one task walks down


class _Scan(NamedTuple):
    """An associative operation on states of one or two vectors."""

    state: Callable[[Type], tuple[Type, ...]]  # of an element type
    identity: tuple[float, ...]
    combine: Callable[[Kernel, State, State], State]  # of an earlier and a later one


def _wide(kind: Type) -> tuple[Type, ...]:
    return (F64,) if kind.is_float else (I64,)


def _placed(kind: Type) -> tuple[Type, ...]:
    return kind, I32 if kind.bits == 32 else I64


def _log_of_sum(k: Kernel, a: State, b: State) -> State:
    """log(e**a + e**b); exact where both are one infinity."""
    x, y = a[0], b[0]
    apart = k.select(x.eq(y), 0.0, k.abs(x - y))
    return (k.max(x, y) + log1p(exp(-apart)),)


def _larger(k: Kernel, a: State, b: State) -> State:
    """The larger, the later of equals; a NaN beats all, the last one wins."""
    (x, _), (y, _) = a, b
    return _picked(k, (x <= y) & x.eq(x) | y.ne(y), a, b)


def _smaller(k: Kernel, a: State, b: State) -> State:
    (x, _), (y, _) = a, b
    return _picked(k, (y <= x) & x.eq(x) | y.ne(y), a, b)


def _picked(k: Kernel, later: Value, a: State, b: State) -> State:
    return tuple(k.select(later, y, x) for x, y in zip(a, b, strict=True))


SCANS: dict[str, _Scan] = {
    "cumsum": _Scan(_wide, (0,), lambda k, a, b: (a[0] + b[0],)),
    "cumprod": _Scan(_wide, (1,), lambda k, a, b: (a[0] * b[0],)),
    "cummax": _Scan(_placed, (-math.inf, 0), _larger),
    "cummin": _Scan(_placed, (math.inf, 0), _smaller),
    "logcumsumexp": _Scan(lambda kind: (kind,), (-math.inf,), _log_of_sum),
}


def build_scan(target: Target, name: str, element: Type, across: bool, reverse: bool = False
               ) -> Kernel:
    """out[o, i, c] = the scan of x[o, :i + 1, c]; places (int64) of it for cummax and cummin.

    Arguments: out, x, (places): (outer, n, inner), contiguous; task: how many `o` one task has.
    across: the lanes are columns; otherwise inner is 1. reverse: of x[o, i:, c], from the end.
    """
    return (_Backwards if reverse else _Build)(target, name, element).build(across)


class _Build:
    def __init__(self, target: Target, name: str, element: Type) -> None:
        self.k = k = Kernel(name)
        self.scan, self.element = SCANS[name], element
        self.kinds = self.scan.state(element)
        self.lanes = target.lanes(element)
        self.out, self.x = k.array("out", element), k.array("x", element)
        self.places = k.array("places", I64) if len(self.kinds) == 2 else None
        self.task = k.integer("task")

    def build(self, across: bool) -> Kernel:
        k = self.k
        if across:
            width = _TOGETHER * self.lanes
            blocks = (self.x.size(2) + width - 1) / width
            with k.parallel(self.x.size(0) * blocks) as (task, _):
                self.columns(task / blocks, (task % blocks) * width)
            return k
        rows = self.x.size(0)
        with (k.parallel((rows + self.task - 1) / self.task) as (task, _),
              k.loop(task * self.task, k.min((task + 1) * self.task, rows)) as row):
            self.row(row)
        return k

    def identity(self) -> State:
        return tuple(self.k.const(n, kind.vector(self.lanes))
                     for n, kind in zip(self.scan.identity, self.kinds, strict=True))

    def load(self, at: Value, place: Value, mask: Value | None) -> State:
        """The states of a vector of elements, whose places are given."""
        value = self.k.load(self.x.ptr, at, self.lanes, mask)
        if len(self.kinds) == 2:
            return value, place
        return (value.cast(self.kinds[0].scalar),)

    def store(self, at: Value, state: State, mask: Value | None) -> None:
        self.k.store(self.out.ptr, at, state[0].cast(self.element), mask)
        if self.places is not None:
            self.k.store(self.places.ptr, at, state[1].cast(I64), mask)

    def columns(self, o: Value, c0: Value) -> None:
        """Down the rows, some vectors of columns side by side."""
        k, inner, rows = self.k, self.x.size(2), self.x.size(1)
        start = o * rows * inner + c0
        whole = k.choose(c0 + _TOGETHER * self.lanes <= inner)
        with whole.then:
            self.walk(start, [None] * _TOGETHER)
        with whole.otherwise:
            self.walk(start, [k.mask(inner - c0 - v * self.lanes, self.lanes)
                              for v in range(_TOGETHER)])

    def walk(self, start: Value, masks: Sequence[Value | None]) -> None:
        k, count = self.k, len(self.kinds)
        loop = k.loop(0, self.x.size(1), 1, [*self.identity()] * len(masks))
        with loop as (step, *carried):
            i = self.nth(step, 1)
            new: list[Value] = []
            for v, mask in enumerate(masks):
                at = start + i * self.x.size(2) + v * self.lanes
                place = k.splat(i.cast(self.kinds[-1].scalar), self.lanes) if count == 2 else i
                before = tuple(carried[v * count:(v + 1) * count])
                state = self.scan.combine(k, before, self.load(at, place, mask))
                self.store(at, state, mask)
                new += state
            loop.next(*new)

    def nth(self, step: Value, width: int) -> Value:
        """Where the next `width` of a row start, after so many steps."""
        return step

    def row(self, row: Value) -> None:
        """Along one row, vector after vector."""
        k, n = self.k, self.x.size(1)
        start, whole = row * n, n - n % self.lanes
        loop = k.loop(0, whole, self.lanes, self.identity())
        with loop as (step, *carry):
            loop.next(*self.vector(start, self.nth(step, self.lanes), tuple(carry), None))
        with k.when(whole < n):
            self.vector(start, self.rest(whole), loop.results, k.mask(n - whole, self.lanes))

    def rest(self, whole: Value) -> Value:
        """Where the elements after all whole vectors start."""
        return whole

    def before(self, lane: int, step: int) -> int:
        """The lane that the scan met so many lanes earlier, or one of the identity."""
        return lane - step if lane >= step else self.lanes + lane

    last = -1  # the lane that the scan meets last

    def vector(self, start: Value, i: Value, carry: State, mask: Value | None) -> State:
        """Scans one vector; the carry of the next."""
        k, lanes = self.k, self.lanes
        kind = self.kinds[-1].scalar
        place = k.splat(i.cast(kind), lanes) + k.iota(lanes, kind) if len(self.kinds) == 2 else i
        state, none = self.load(start + i, place, mask), self.identity()
        step = 1
        while step < lanes:
            moved = [self.before(lane, step) for lane in range(lanes)]
            shifted = tuple(k.shuffle(s, n, moved) for s, n in zip(state, none, strict=True))
            state = self.scan.combine(k, shifted, state)
            step *= 2
        state = self.scan.combine(k, carry, state)
        self.store(start + i, state, mask)
        return tuple(k.shuffle(s, s, [self.last % lanes] * lanes) for s in state)


class _Backwards(_Build):
    """The same from the end of each row to its start."""

    last = 0

    def nth(self, step: Value, width: int) -> Value:
        return self.x.size(1) - step - width

    def rest(self, whole: Value) -> Value:
        return self.k.index(0)

    def before(self, lane: int, step: int) -> int:
        return lane + step if lane + step < self.lanes else self.lanes + lane

    def load(self, at: Value, place: Value, mask: Value | None) -> State:
        """Lanes that are masked out come before the others here."""
        state = super().load(at, place, mask)
        return state if mask is None else tuple(
            self.k.select(mask, s, n) for s, n in zip(state, self.identity(), strict=True))


# --- the k largest ----------------------------------------------------------------------------


def build_topk(target: Target, element: Type, largest: bool, few: int = 0) -> Kernel:
    """out, places[row] = the k largest (or smallest) of x[row], in order, and where they are.

    The first of equals comes first; NaN is larger than all. Arguments: out, places (int64)
    (rows, k), x (rows, n), all contiguous, k <= MOST and k <= n; task: rows of one task. few: k,
    where it is fixed and at most `FEW`: the best so far then stay in registers.
    """
    return _Few(target, element, largest, few).build() if few else _Top(
        target, element, largest).build()


class _Top:
    """A sorted list of the best so far; a vector of elements is looked at one by one only where
    one of them is better than the last of the list."""

    def __init__(self, target: Target, element: Type, largest: bool) -> None:
        self.k = k = Kernel("topk")
        self.largest, self.lanes = largest, target.lanes(element)
        self.out, self.places = k.array("out", element), k.array("places", I64)
        self.x, self.task = k.array("x", element), k.integer("task")
        self.element = element

    def build(self) -> Kernel:
        k, rows = self.k, self.x.size(0)
        with k.parallel((rows + self.task - 1) / self.task) as (task, _):
            self.start()
            with k.loop(task * self.task, k.min((task + 1) * self.task, rows)) as row:
                self.row(row)
        return k

    def start(self) -> None:
        """The list lies in memory of the task."""
        self.best, self.found = self.k.scratch(self.element, MOST), self.k.scratch(I64, MOST)

    def row(self, row: Value) -> None:
        k, n, most = self.k, self.x.size(1), self.out.size(1)
        x = k.offset(self.x.ptr, row * n)
        with k.loop(0, most) as i:
            self.insert(k.load(x, i), i, i)
        whole = n - (n - most) % self.lanes
        with k.loop(most, whole, self.lanes) as i:
            last = k.splat(k.load(self.best, most - 1), self.lanes)
            some = self.better(k.load(x, i, self.lanes), last)
            with k.when(k.reduce("or", some) if self.lanes > 1 else some):
                self.each(x, i, i + self.lanes)
        self.each(x, whole, n)
        with k.loop(0, most) as j:
            k.store(self.out.ptr, row * most + j, k.load(self.best, j))
            k.store(self.places.ptr, row * most + j, k.load(self.found, j))

    def better(self, a: Value, b: Value) -> Value:
        """Whether a comes before an earlier b."""
        before = b < a if self.largest else a < b
        if not self.element.is_float:
            return before
        a_nan, b_nan = a.ne(a), b.ne(b)
        return before | (a_nan & ~b_nan if self.largest else b_nan & ~a_nan)

    def each(self, x: Value, start: Value, end: Value) -> None:
        k, most = self.k, self.out.size(1)
        with k.loop(start, end) as i:
            value = k.load(x, i)
            with k.when(self.better(value, k.load(self.best, most - 1))):
                self.insert(value, i, most - 1)

    def insert(self, value: Value, place: Value, last: Value) -> None:
        """Puts an element into the list, whose end is `last`; what is worse moves on by one."""
        k = self.k
        loop = k.loop(0, last + 1, 1, [value, place, k.const(False, I1)])
        with loop as (j, v, p, moving):
            old, at = k.load(self.best, j), k.load(self.found, j)
            here = moving | self.better(v, old) | j.eq(last)
            k.store(self.best, j, k.select(here, v, old))
            k.store(self.found, j, k.select(here, p, at))
            loop.next(k.select(here, old, v), k.select(here, at, p), here)


class _Few(_Top):
    """The list of the best is a vector, sorted; one instruction compares an element with all."""

    def __init__(self, target: Target, element: Type, largest: bool, few: int) -> None:
        super().__init__(target, element, largest)
        self.few, self.place = few, I32 if element.bits == 32 else I64

    def start(self) -> None:
        """No memory is needed."""

    def row(self, row: Value) -> None:
        k, n = self.k, self.x.size(1)
        x = k.offset(self.x.ptr, row * n)
        whole = n - n % self.lanes
        nothing = [k.const(0, self.element.vector(FEW)), k.const(-1, self.place.vector(FEW))]
        loop = k.loop(0, whole, self.lanes, nothing)
        with loop as (i, best, found):
            last, full = self.last(best, found)
            some = k.reduce("or", self.better(k.load(x, i, self.lanes), k.splat(last, self.lanes)))
            loop.next(*self.where(some | ~full, best, found, lambda: self.each_of(
                x, i, i + self.lanes, best, found)))
        best, found = self.each_of(x, whole, n, *loop.results)
        mask = k.mask(k.const(self.few, I64), FEW)
        k.store(self.out.ptr, row * self.few, best, mask)
        k.store(self.places.ptr, row * self.few, found.cast(I64), mask)

    def where(self, holds: Value, best: Value, found: Value,
              changed: Callable[[], Sequence[Value]]) -> Sequence[Value]:
        """The list after `changed` where the condition holds."""
        branch = self.k.choose(holds)
        with branch.then:
            branch.give(*changed())
        with branch.otherwise:
            branch.give(best, found)
        return branch.results

    def last(self, best: Value, found: Value) -> tuple[Value, Value]:
        """The last of the list, and whether there is one."""
        at = self.few - 1
        return self.k.extract(best, at), self.k.extract(found, at) >= 0

    def each_of(self, x: Value, start: Value, end: Value, best: Value, found: Value
                ) -> Sequence[Value]:
        k = self.k
        loop = k.loop(start, end, 1, [best, found])
        with loop as (i, b, f):
            value, (last, full) = k.load(x, i), self.last(b, f)
            loop.next(*self.where(self.better(value, last) | ~full, b, f,
                                  lambda: self.joined(value, i, b, f)))
        return loop.results

    def joined(self, value: Value, place: Value, best: Value, found: Value) -> Sequence[Value]:
        """The list with one element more, before those that it is better than."""
        k, before = self.k, [max(lane - 1, 0) for lane in range(FEW)]
        new, at = k.splat(value, FEW), k.splat(place.cast(self.place), FEW)
        moved, came = k.shuffle(best, best, before), k.shuffle(found, found, before)
        kept = (found >= 0) & ~self.better(new, best)
        after = k.iota(FEW, self.place).eq(0) | ((came >= 0) & ~self.better(new, moved))
        return (k.select(kept, best, k.select(after, new, moved)),
                k.select(kept, found, k.select(after, at, came)))


# --- launchers --------------------------------------------------------------------------------


def scan(name: str, out: Array, x: Array, axis: int, places: Array | None = None,
         reverse: bool = False) -> bool:
    """out = the scan `name` of x along `axis`; False where there is no kernel (yet).

    name: of `SCANS`. x, out and places (int64, for cummax and cummin: where the extremes are) have
    one shape and are contiguous. float32, float64; cumsum and cumprod of int64 too. reverse: from
    the end to the start.

    >>> x, out = np.arange(4.0), np.empty(4)
    >>> scan("cumsum", out, x, 0) and out.tolist()
    [0.0, 1.0, 3.0, 6.0]
    >>> scan("cumsum", out, x, 0, reverse=True) and out.tolist()
    [6.0, 6.0, 5.0, 3.0]
    """
    _fit(name, x, out, places)
    kinds = (F32, F64, I64) if name in ("cumsum", "cumprod") else (F32, F64)
    kind = of_numpy(dtype_name(x.dtype)) if x.dtype in _SCANNED else None
    arrays = [x, out] if places is None else [x, out, places]
    if kind is None or kind not in kinds or not all(a.flags.c_contiguous for a in arrays):
        return False
    shape = (math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1:]))
    across = shape[2] > 1
    kernel = service.kernel(
        (name, kind.name, across, reverse),
        partial(build_scan, name=name, element=kind, across=across, reverse=reverse))
    if kernel is None:
        return False
    if x.size:
        three = [a.reshape(shape) for a in (out, x, *arrays[2:])]
        kernel(*three, max(1, _TASK_ELEMENTS // shape[1]))
    return True


def topk(out: Array, places: Array, x: Array, axis: int, largest: bool = True) -> bool:
    """The largest (or smallest) elements along `axis`, in order; False without a kernel (yet).

    out and places (int64): x's shape with k in the place of the axis, k <= MOST. The first of
    equals comes first, NaN counts as larger than all.
    """
    k = out.shape[axis]
    shape = (*x.shape[:axis], k, *x.shape[axis + 1:])
    if out.shape != shape or places.shape != shape or places.dtype != np.int64 or (
            out.dtype != x.dtype or k > x.shape[axis]):
        raise ValueError(f"topk: out {out.shape} and places {places.shape} do not fit x {x.shape}")
    if dtype_name(x.dtype) not in ("float32", "float64", "int32", "int64") or not 0 < k <= MOST:
        return False
    kind = of_numpy(dtype_name(x.dtype))
    few = k if k <= FEW else 0
    kernel = service.kernel(("topk", kind.name, largest, few),
                            partial(build_topk, element=kind, largest=largest, few=few))
    if kernel is None:
        return False
    if out.size:
        _by_rows(kernel, out, places, x, axis)
    return True


def _by_rows(kernel: Any, out: Array, places: Array, x: Array, axis: int) -> None:
    """Launches on rows; what is no row in memory goes through one."""
    moved = [np.moveaxis(a, axis, -1) for a in (out, places, x)]
    rows = [as_contiguous(a).reshape(-1, a.shape[-1]) for a in moved]
    kernel(*rows, max(1, _TASK_ELEMENTS // x.shape[axis]))
    for whole, row in zip(moved[:2], rows[:2], strict=True):
        if not np.may_share_memory(whole, row):
            copy(whole, row.reshape(whole.shape))


def _fit(name: str, x: Array, out: Array, places: Array | None) -> None:
    with_places = len(SCANS[name].identity) == 2
    holds = out.shape == x.shape and out.dtype == x.dtype and (places is not None) == with_places
    if not holds or (places is not None and (places.shape != x.shape or places.dtype != np.int64)):
        raise ValueError(f"{name}: out {out.dtype} {out.shape} does not fit x {x.dtype} {x.shape}, "
                         "or places are missing or not int64")
