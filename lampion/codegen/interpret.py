"""The meaning of the loop level: a plain interpreter over NumPy.

Every value is an array of its lanes. Memory is the bytes of the arguments; each access is checked
against the bounds of the array that its pointer came from, so a kernel that reads or writes
outside raises here. Slow on purpose: it defines what emitted code must do.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from .ir import Kernel, Region, Value
from .types import Type

__all__ = ["MemoryError_", "interpret", "numpy_type"]


class MemoryError_(IndexError):
    """A kernel touched memory outside its arguments."""


def numpy_type(kind: Type) -> np.dtype[Any]:
    """The NumPy dtype of a scalar type; one-bit bools are NumPy bools."""
    if kind.is_bool:
        return np.dtype(np.bool_)
    if kind.brain:
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(f"{kind.kind}{kind.bits // 8}")


class Pointer:
    """A place in an argument's memory: its bytes, where they start, an offset into them."""

    __slots__ = ("memory", "offset", "size")

    def __init__(self, memory: np.ndarray[Any, Any], offset: int, size: int) -> None:
        self.memory, self.offset, self.size = memory, offset, size

    def elements(self, indices: Any, mask: Any) -> Any:
        """Byte positions (lanes, size) of elements; out of bounds raises where the mask holds."""
        start = self.offset + indices.astype(np.int64) * self.size
        bad = ((start < 0) | (start + self.size > self.memory.size)) & mask
        if bad.any():
            raise MemoryError_(
                f"element {int(indices[bad][0])} of a pointer at byte {self.offset} lies outside "
                f"its array of {self.memory.size} bytes")
        return np.where(mask, start, 0)[:, None] + np.arange(self.size)


def _memory(array: np.ndarray[Any, Any] | None, element: int) -> Pointer:
    """Where an argument begins, as elements of so many bytes."""
    if array is None:
        return Pointer(np.zeros(0, np.uint8), 0, 1)
    low, high = np.lib.array_utils.byte_bounds(array)
    size = max(high - low, 0) if array.size else 0
    raw = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(low))
    return Pointer(raw if size else np.zeros(0, np.uint8),
                   array.ctypes.data - low if size else 0, element)


def interpret(kernel: Kernel, *args: Any, workers: int = 1) -> None:
    """Runs the kernel on ndarrays, ints and floats, in the order of its parameters."""
    if len(args) != len(kernel.params):
        raise TypeError(f"{kernel.name}() takes {len(kernel.params)} arguments: got {len(args)}")
    given = {name: a for (_, name, _), a in zip(kernel.params, args, strict=True)}
    machine = _Machine(workers)
    for v in kernel.inputs:
        machine.values[id(v)] = _input(v.attr, given[v.attr[2]])
    with np.errstate(all="ignore"):
        machine.region(kernel.body)


def _input(attr: tuple[Any, ...], value: Any) -> Any:
    what, kind = attr[0], attr[1]
    if what == "data":
        return _memory(value, kind.size)
    if what == "size":
        return np.array([value.shape[attr[3]]], np.int64)
    if what == "stride":
        return np.array([value.strides[attr[3]] // attr[4]], np.int64)
    return np.array([value], numpy_type(kind))


class _Machine:
    def __init__(self, workers: int) -> None:
        self.values: dict[int, Any] = {}
        self.workers = workers

    def region(self, region: Region) -> list[Any]:
        for value in region.values:
            self.run(value)
        return [self.values[id(v)] for v in region.gives]

    def run(self, value: Value) -> None:
        args = [self.values[id(a)] for a in value.args]
        control = getattr(self, "_" + value.op, None)
        if control is not None:
            control(value, *args)
            return
        with np.errstate(all="ignore"):
            result = _MEANING[value.op](value, *args)
        if value.kind is not None:
            self.values[id(value)] = result

    def _loop(self, value: Value, start: Any, stop: Any, step: Any, *carried: Any) -> None:
        region, state = value.regions[0], list(carried)
        if int(step[0]) <= 0:
            raise ValueError(f"a loop needs a positive step: got {int(step[0])}")
        for i in range(int(start[0]), int(stop[0]), int(step[0])):
            self._bind(region.params, [np.array([i], np.int64), *state])
            state = self.region(region)
        self._bind(value.results, state)

    def _branch(self, value: Value, condition: Any) -> None:
        self._bind(value.results, self.region(value.regions[0 if condition[0] else 1]))

    def _parallel(self, value: Value, count: Any) -> None:
        """Backwards, and on changing workers: results must not depend on either."""
        for task in reversed(range(int(count[0]))):
            self._bind(value.regions[0].params,
                       [np.array([task]), np.array([task % self.workers])])
            self.region(value.regions[0])

    def _bind(self, names: tuple[Value, ...], values: list[Any]) -> None:
        for name, v in zip(names, values, strict=True):
            self.values[id(name)] = v


# --- the operations ---------------------------------------------------------------------------


def _kind(value: Value) -> np.dtype[Any]:
    return numpy_type(value.type.scalar)


def _const(value: Value) -> Any:
    number, kind = value.attr
    if kind.pointer:
        raw = np.array(number).astype(numpy_type(kind.pointee)).view(np.uint8)
        return Pointer(raw, 0, kind.size)
    return np.full(kind.lanes, number).astype(_kind(value))


def _div(value: Value, a: Any, b: Any) -> Any:
    """Integers towards zero, as processors do."""
    if value.type.is_float:
        return a / b
    if (b == 0).any():
        raise ZeroDivisionError("integer division by zero in a kernel")
    quotient = np.abs(a) // np.abs(b)
    return np.where((a < 0) != (b < 0), -quotient, quotient).astype(_kind(value))


def _fma(value: Value, a: Any, b: Any, c: Any) -> Any:
    """Rounded once for f32; for f64 as the widest type of the platform allows."""
    if value.type.bits == 32:
        return _fma32(a, b, c)
    wide = np.longdouble
    return (a.astype(wide) * b.astype(wide) + c.astype(wide)).astype(np.float64)


def _fma32(a: Any, b: Any, c: Any) -> Any:
    """The product is exact in float64; the sum is rounded to odd, so the last rounding is right."""
    product, addend = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + addend
    back = total - product
    error = (product - (total - back)) + (addend - back)
    bits = total.view(np.int64)
    inexact = (error != 0) & np.isfinite(total) & np.isfinite(error)
    towards = np.where((error > 0) == (total > 0), 0, -1)  # truncate, then make the last bit odd
    odd = np.where(inexact, (bits + towards) | 1, bits)
    return odd.view(np.float64).astype(np.float32)


def _cast(value: Value, a: Any) -> Any:
    to = _kind(value)
    if value.attr.is_bool:
        return a != 0
    if a.dtype.kind == "f" and value.attr.kind in "iu":
        return _to_integer(a, to)
    return a.astype(to)


def _to_integer(a: Any, to: Any) -> Any:
    """Towards zero, clamped to the range, NaN to zero (LLVM's saturating conversion)."""
    info = np.iinfo(to)
    wide = np.nan_to_num(np.trunc(a.astype(np.float64)), nan=0.0, posinf=np.inf, neginf=-np.inf)
    high, low = wide >= float(info.max), wide <= float(info.min)
    middle = np.where(high | low, 0, wide).astype(to)
    return np.where(high, info.max, np.where(low, info.min, middle)).astype(to)


def _bitcast(value: Value, a: Any) -> Any:
    """One-bit bools are the bits of an integer, the lowest first."""
    if value.type.is_bool and value.type.lanes > 1:
        return np.unpackbits(a.view(np.uint8), bitorder="little").astype(np.bool_)
    return a.view(_kind(value))


def _shift(how: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda value, a, b: how(a, b).astype(_kind(value))


def _shuffle(value: Value, a: Any, b: Any) -> Any:
    return np.concatenate([a, b])[list(value.attr)]


_PAIR: dict[str, Callable[..., Any]] = {
    "add": np.add, "mul": np.multiply, "and": np.bitwise_and, "or": np.bitwise_or,
    "min": lambda a, b: np.where(a < b, a, b), "max": lambda a, b: np.where(b < a, a, b),
}


def _same(pair: Callable[..., Any]) -> Callable[..., Any]:
    return lambda value, a, b: pair(a, b).astype(_kind(value))


def _reduce(value: Value, a: Any) -> Any:
    """Upper half onto lower half until one lane is left; an odd lane joins the first."""
    pair = _PAIR[value.attr]
    while a.size > 1:
        half = a.size // 2
        rest = a[2 * half:]
        a = pair(a[:half], a[half:2 * half]).astype(a.dtype)
        if rest.size:
            a[0] = pair(a[:1], rest)[0]
    return a


def _dot(value: Value, acc: Any, a: Any, b: Any) -> Any:
    group = a.size // acc.size
    wide = acc.dtype
    products = a.astype(wide).reshape(-1, group) * b.astype(wide).reshape(-1, group)
    return (acc + products.sum(1)).astype(wide)


def _scale(value: Value, a: Any, n: Any) -> Any:
    return np.ldexp(a, np.nan_to_num(n).clip(-4096, 4096).astype(np.int32))


def _lanes(index: Any, lanes: int) -> Any:
    return index[0] + np.arange(lanes)


def _read(value: Value, ptr: Pointer, indices: Any, mask: Any) -> Any:
    held = np.ones(indices.size, bool) if mask is None else mask
    if not held.any():
        return np.zeros(indices.size, _kind(value))
    raw = ptr.memory[ptr.elements(indices, held)]
    got = np.ascontiguousarray(raw).view(_kind(value)).reshape(-1)
    return np.where(held, got, np.zeros_like(got))


def _write(ptr: Pointer, indices: Any, given: Any, mask: Any) -> None:
    held = np.ones(indices.size, bool) if mask is None else mask
    raw = np.ascontiguousarray(given).view(np.uint8).reshape(indices.size, ptr.size)
    places = ptr.elements(indices, held)
    for lane in np.flatnonzero(held):
        ptr.memory[places[lane]] = raw[lane]


def _offset(value: Value, ptr: Pointer, index: Any) -> Pointer:
    return Pointer(ptr.memory, ptr.offset + int(index[0]) * ptr.size, ptr.size)


def _scratch(value: Value) -> Pointer:
    kind, count = value.attr
    return Pointer(np.full(kind.size * count, 0xA5, np.uint8), 0, kind.size)


_MEANING: dict[str, Callable[..., Any]] = {
    "const": _const,
    "iota": lambda v: np.arange(v.type.lanes, dtype=_kind(v)),
    **{name: _same(pair) for name, pair in _PAIR.items()},
    "sub": lambda v, a, b: (a - b).astype(_kind(v)),
    "div": _div, "fma": _fma, "scale": _scale,
    "xor": lambda v, a, b: a ^ b, "not": lambda v, a: ~a,
    "neg": lambda v, a: -a, "abs": lambda v, a: np.abs(a), "sqrt": lambda v, a: np.sqrt(a),
    "floor": lambda v, a: np.floor(a), "ceil": lambda v, a: np.ceil(a),
    "trunc": lambda v, a: np.trunc(a), "rint": lambda v, a: np.rint(a),
    "shl": _shift(np.left_shift), "shr": _shift(np.right_shift),
    "lt": lambda v, a, b: a < b, "le": lambda v, a, b: a <= b,
    "eq": lambda v, a, b: a == b, "ne": lambda v, a, b: a != b,
    "select": lambda v, c, a, b: np.where(c, a, b),
    "cast": _cast, "bitcast": _bitcast,
    "splat": lambda v, a: np.repeat(a, v.attr),
    "extract": lambda v, a: a[v.attr:v.attr + 1],
    "insert": lambda v, a, b: np.where(np.arange(a.size) == v.attr, b, a),
    "shuffle": _shuffle, "reduce": _reduce, "dot": _dot,
    "offset": _offset, "scratch": _scratch,
    "view": lambda v, p: Pointer(p.memory, p.offset, v.attr.size),
    "prefetch": lambda v, p, i: None,
    "load": lambda v, p, i, m=None: _read(v, p, _lanes(i, v.attr), m),
    "gather": lambda v, p, i, m=None: _read(v, p, i, m),
    "store": lambda v, p, i, x, m=None: _write(p, _lanes(i, x.size), x, m),
    "scatter": lambda v, p, i, x, m=None: _write(p, i, x, m),
}
