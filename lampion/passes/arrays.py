"""Copies of arrays by kernels, and the memory that arrays cover."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from ..codegen.expression import Trace
from ..codegen.plan import Given, Program, Split, assemble
from ..runtime import memory
from ..tensor.storage import address
from .body import Body, trace_body

__all__ = ["Extents", "copy_into", "dense_like", "launch_body", "overlap",
           "store_number"]

Array = np.ndarray[Any, Any]

_BITS = {1: np.dtype(np.uint8), 2: np.dtype(np.uint16), 4: np.dtype(np.int32),
         8: np.dtype(np.int64)}
_plans: OrderedDict[Any, Program] = OrderedDict()
_MOST_PLANS = 1 << 12


def _facts(a: Any) -> Any:
    return None if a is None else (a.shape, a.strides, a.dtype.num)


def _kept(key: Any, make: Any) -> Program:
    """The program of this key, made where it is not known."""
    found = _plans.get(key)
    if found is None:
        found = _plans[key] = make()
        if len(_plans) > _MOST_PLANS:
            _plans.popitem(last=False)
    return found


def launch_body(body: Body, arrays: Sequence[Array], numbers: Sequence[float],
                into: Sequence[Array | None], together: bool) -> list[Array] | None:
    """The roots of a body by its kernel; None where it cannot be made.

    into: where results go that have a place already. Untraceable where there is no expression.
    """
    key = (body.key, together, *map(_facts, arrays), "", *map(_facts, into))
    program = _kept(key, lambda: _program(body, arrays, into, together))
    found: list[Any] = [None] * len(into)
    for part, places in program.parts:
        outputs = (part.second if isinstance(part, Split) else part).outputs
        outs = [o.make() if into[p] is None else into[p]
                for o, p in zip(outputs, places, strict=True)]
        if part.run([*arrays, *numbers], outs) is None:
            return None
        for p, out in zip(places, outs, strict=True):
            found[p] = out
    return found


def _program(body: Body, arrays: Sequence[Array], into: Sequence[Array | None],
             together: bool) -> Program:
    trace = Trace()
    roots = trace_body(body, trace)
    return assemble(body.name, trace, roots, arrays, False, into, together)


def copy_into(out: Array, source: Array) -> bool:
    """Copies by a kernel, bit by bit; False where there is none."""
    if not out.size:
        return True
    if out.itemsize == 16:
        out, source = (a[..., None].view(np.int64) for a in (out, source))
    bits = _BITS[out.itemsize]
    out, source = out.view(bits), source.view(bits)
    program = _kept(("copy", _facts(out), _facts(source)), lambda: _copying(out, source))
    (part, _), = program.parts
    return part.run([source], [out]) is not None


def _copying(out: Array, source: Array) -> Program:
    trace = Trace()
    return assemble("copy", trace, [trace.input(source, 0)], [source], False, [out])


def store_number(out: Array, number: float) -> None:
    """Puts a number that is given at each run, a double, into an array of one element."""
    if out.dtype.kind in "iu":
        held = memory.empty((), np.dtype(np.float64))
        _store(held, number, _MAGIC)
        bits = held.view(np.int64)
        (part, _), = _kept(("whole", out.dtype.num), lambda: _whole(out, bits)).parts
        if part.run([bits], [out]) is None:
            raise RuntimeError("there is no kernel to store a number with")
    else:
        _store(out, number, 0.0)


# Sums of this and a whole number below 2**51 have the number in their last bits.
_MAGIC = 6755399441055744.0  # 1.5 * 2**52


def _whole(out: Array, bits: Array) -> Program:
    trace = Trace()
    found = trace.input(bits, 0) - np.array(_MAGIC).view(np.int64)[()]
    return assemble("number", trace, [found.astype(out.dtype)], [bits], False, [out])


def _store(out: Array, number: float, added: float) -> None:
    def make() -> Program:
        trace = Trace()
        given = Given(trace, 0, float)
        value = (given + np.float64(added) if added else given).astype(out.dtype)
        return assemble("number", trace, [value], [], False, [out])
    (part, _), = _kept(("number", out.dtype.num, added), make).parts
    if part.run([number], [out]) is None:
        raise RuntimeError("there is no kernel to store a number with")


def dense_like(shape: tuple[int, ...], dtype: Any, strides: Sequence[int]) -> Array:
    """A new array whose axes lie in memory in the order of these strides."""
    order = sorted(range(len(shape)), key=lambda d: (-abs(strides[d]), d))
    made = memory.empty(tuple(shape[d] for d in order), dtype)
    return made.transpose(np.argsort(order)) if len(shape) > 1 else made


def bounds(a: Array) -> tuple[int, int]:
    """The addresses of the first byte and the one after the last; of nothing (0, 0)."""
    if not a.size:
        return 0, 0
    if a.flags.c_contiguous:
        start = address(a)
        return start, start + a.nbytes
    return np.lib.array_utils.byte_bounds(a)


def overlap(a: Array, b: Array) -> bool:
    """Whether two arrays may share memory."""
    low, high = bounds(a)
    other_low, other_high = bounds(b)
    return low < other_high and other_low < high


class Extents:
    """Where arrays lie."""

    def __init__(self, arrays: Sequence[Array]) -> None:
        found = sorted((*bounds(a), i) for i, a in enumerate(arrays) if a.size)
        self.lows = [low for low, _, _ in found]
        self.highs = [(high, i) for _, high, i in found]
        self.reach = list(accumulate((high for high, _ in self.highs), max))

    def shared(self, a: Array) -> list[int]:
        """Which of the arrays may share memory with this one."""
        low, high = bounds(a)
        found: list[int] = []
        place = bisect_left(self.lows, high)  # those before it begin before the end
        while place and self.reach[place - 1] > low:
            place -= 1
            end, i = self.highs[place]
            if end > low:
                found.append(i)
        return sorted(found)
