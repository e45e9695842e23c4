"""MT19937 by vectors, and the values that PyTorch makes of its words.

M. Matsumoto and T. Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998). Word j of a stream follows
from words j - 624, j - 623 and j - 227 before tempering, so sixteen can be made at once. The state
is NumPy's own: 624 words and the position, in its memory; what is drawn here and what NumPy draws
stay one stream. `runtime/random.py` and `runtime/box_muller.py` define every value to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..runtime import box_muller, memory
from . import service
from .ir import Kernel, Value
from .target import Target
from .types import F32, F64, I32, I64, U32, U64, Type, dtype_name

__all__ = ["KINDS", "bernoulli", "build_draws", "build_normals", "build_permutation", "integers",
           "normals", "permutation", "uniform", "words"]

Array = np.ndarray[Any, Any]

_SIZE, _MIDDLE = 624, 397
_UPPER, _LOWER, _MATRIX = 0x80000000, 0x7FFFFFFF, 0x9908B0DF
_CHUNK = 2048  # values between two conversions: their words stay in the first-level cache
_LANES = 16  # words, of every target: what lies behind the words leaves room for as many
_TASK = 1 << 12


class _Kind(NamedTuple):
    """What is made of the words."""

    element: Type
    words: int  # of one value
    numbers: tuple[tuple[str, Type], ...]  # parameters
    convert: Callable[[Kernel, Value, Value, dict[str, Value], bool], Value]
    """(kernel, words, first value, parameters, fused) to eight values."""


def _eight(number: Value) -> Value:
    return number.kernel.splat(number, 8)


def _fma(a: Value, b: Value, c: Value, fused: bool) -> Value:
    """`a * b + c` of f32, rounded once on every target: products are exact in f64."""
    if fused:
        return a.kernel.fma(a, b, c)
    return (a.cast(F64) * b.cast(F64) + c.cast(F64)).cast(F32)


def _uniform32(k: Kernel, words: Value, at: Value, given: dict[str, Value], fused: bool) -> Value:
    """24 bits of one word; rounding may reach the open end, which is the closed one then."""
    low, high = _eight(given["low"]), _eight(given["high"])
    unit = (k.load(words, at, 8) & 0xFFFFFF).bits(I32).cast(F32) * 2.0**-24
    value = _fma(unit, high - low, low, fused)
    return k.select(value.eq(high), low, value)


def _pair(k: Kernel, words: Value, at: Value) -> Value:
    """53 bits of two words, the high one first."""
    two = k.load(k.view(words, U64), at, 8)
    return ((two << 32) | (two >> 32)) & ((1 << 53) - 1)


def _uniform64(k: Kernel, words: Value, at: Value, given: dict[str, Value], fused: bool) -> Value:
    low, high = _eight(given["low"]), _eight(given["high"])
    value = k.fma(_pair(k, words, at).cast(F64) * 2.0**-53, high - low, low)
    return k.select(value.eq(high), low, value)


def _bernoulli(k: Kernel, words: Value, at: Value, given: dict[str, Value], fused: bool) -> Value:
    """1 where the word is below the limit, which is p * 2**53."""
    hit = _pair(k, words, at) < _eight(given["limit"]).cast(U64)
    return k.select(hit, k.const(1.0, F32.vector(8)), 0.0)


def _integers(k: Kernel, words: Value, at: Value, given: dict[str, Value], fused: bool) -> Value:
    """low + word % span: the quotient in f64 is off by one at most."""
    span = _eight(given["span"]).cast(F64)
    word = k.load(words, at, 8).cast(F64)
    rest = word - k.emit("trunc", (word / span,)) * span
    rest = k.select(rest < 0.0, rest + span, k.select(rest >= span, rest - span, rest))
    return rest.cast(I64) + _eight(given["low"])


def _words(k: Kernel, words: Value, at: Value, given: dict[str, Value], fused: bool) -> Value:
    return k.load(words, at, 8)


_ENDS32, _ENDS64 = ((("low", kind), ("high", kind)) for kind in (F32, F64))
KINDS = {
    "words": _Kind(U32, 1, (), _words),
    "uniform32": _Kind(F32, 1, _ENDS32, _uniform32),
    "uniform64": _Kind(F64, 2, _ENDS64, _uniform64),
    "bernoulli": _Kind(F32, 2, (("limit", I64),), _bernoulli),
    "integers": _Kind(I64, 1, (("low", I64), ("span", I64)), _integers),
}


def build_draws(target: Target, kind: str) -> Kernel:
    """out = values of a kind; state moves on. Arguments: state (uint32, 625), out, the numbers."""
    return _Draws(target, KINDS[kind], kind).build()


class _Draws:
    def __init__(self, target: Target, kind: _Kind, name: str) -> None:
        self.k = k = Kernel(name)
        self.kind, self.fused = kind, target.has_fma
        self.state, self.out = k.array("state", U32), k.array("out", kind.element)
        self.numbers = {n: k.integer(n) if t == I64 else k.number(n, t) for n, t in kind.numbers}

    def build(self) -> Kernel:
        k, count = self.k, self.out.size(0)
        self.key = k.scratch(U32, 2 * _SIZE + _LANES)
        self.words = k.scratch(U32, _CHUNK * self.kind.words + 2 * _LANES)
        with k.loop(0, _SIZE, _LANES) as i:
            k.store(self.key, i, k.load(self.state.ptr, i, _LANES))
        position = k.load(self.state.ptr, _SIZE).cast(I64)
        chunks = k.loop(0, count, _CHUNK, [position])
        with chunks as (first, position):
            some = k.min(count - first, _CHUNK)
            chunks.next(self.fill(some * self.kind.words, position))
            self.convert(first, some)
        with k.loop(0, _SIZE, _LANES) as i:
            k.store(self.state.ptr, i, k.load(self.key, i, _LANES))
        k.store(self.state.ptr, _SIZE, chunks.results[0].cast(U32))
        return k

    def convert(self, first: Value, some: Value) -> None:
        """The words of a chunk to its values; the last, fewer than eight, one by one."""
        k, whole = self.k, some - some % 8
        with k.loop(0, whole, 8) as i:
            k.store(self.out.ptr, first + i, self.values(i))
        with k.when(whole < some):
            rest = self.values(whole)
            for lane in range(7):
                with k.when(whole + lane < some):
                    k.store(self.out.ptr, first + whole + lane, k.extract(rest, lane))

    def values(self, at: Value) -> Value:
        return self.kind.convert(self.k, self.words, at, self.numbers, self.fused)

    def fill(self, count: Value, position: Value) -> Value:
        """The next `count` words; the position after them."""
        k = self.k
        runs = k.loop(0, (count + _SIZE - 1) / _SIZE + 1, 1, [k.const(0, I64), position])
        with runs as (_, done, position):
            full = k.choose(position.eq(_SIZE) & (done < count))
            with full.then:
                self.next_key()
                full.give(k.const(0, I64))
            with full.otherwise:
                full.give(position)
            start = full.results[0]
            some = k.min(count - done, k.const(_SIZE, I64) - start)
            with k.loop(0, some, _LANES) as i:
                k.store(self.words, done + i, _tempered(k.load(self.key, start + i, _LANES)))
            runs.next(done + some, start + some)
        return runs.results[1]

    def next_key(self) -> None:
        """The 624 words that follow, made behind the old ones and moved to their place."""
        k, key = self.k, self.key
        with k.loop(0, _SIZE, _LANES) as j:
            old, after, middle = (k.load(key, j + d, _LANES) for d in (0, 1, _MIDDLE))
            mixed = ((old & _UPPER) | (after & _LOWER)) >> 1
            odd = k.const(0, U32.vector(_LANES)) - (after & 1)
            k.store(key, j + _SIZE, middle ^ mixed ^ (odd & _MATRIX))
        with k.loop(0, _SIZE, _LANES) as j:
            k.store(key, j, k.load(key, j + _SIZE, _LANES))


def _tempered(y: Value) -> Value:
    y = y ^ (y >> 11)
    y = y ^ ((y << 7) & 0x9D2C5680)
    y = y ^ ((y << 15) & 0xEFC60000)
    return y ^ (y >> 18)


# --- normal values ----------------------------------------------------------------------------


def build_normals(target: Target) -> Kernel:
    """out = the Box-Muller transform of out, groups of 16 uniform f32 values, times std plus mean.

    The steps are those of `runtime/box_muller.py`. Arguments: out, mean, std.
    """
    k = Kernel("normals")
    out = k.array("out", F32)
    mean, std = (_eight(k.number(n, F32)) for n in ("mean", "std"))
    box = _BoxMuller(k, target.has_fma)
    with k.parallel((out.size(0) + _TASK - 1) / _TASK) as (task, _):
        first = task * _TASK
        with k.loop(first, k.min(first + _TASK, out.size(0)), 16) as i:
            radius = k.sqrt(box.log(1.0 - k.load(out.ptr, i, 8)) * -2.0)
            sin, cos = box.sin_cos(k.load(out.ptr, i + 8, 8) * float(box_muller._TWO_PI))
            for at, value in ((i, radius * cos), (i + 8, radius * sin)):
                k.store(out.ptr, at, box.fma(value, std, mean))
    return k


class _BoxMuller:
    """Cephes' single-precision logarithm, sine and cosine, fused, eight at once."""

    def __init__(self, k: Kernel, fused: bool) -> None:
        self.k, self.fused = k, fused

    def fma(self, a: Value, b: Value | float, c: Value | float) -> Value:
        return _fma(a, self.k.like(a, b), self.k.like(a, c), self.fused)

    def polynomial(self, x: Value, coefficients: Sequence[float]) -> Value:
        """Horner's rule; highest power first."""
        total = self.k.like(x, coefficients[0])
        for c in coefficients[1:]:
            total = self.fma(total, x, c)
        return total

    def log(self, x: Value) -> Value:
        """Of values in (0, 1]."""
        k, bits = self.k, x.bits(I32)
        fraction = ((bits & 0x7FFFFF) | 0x3F000000).bits(F32)
        low = fraction < float(box_muller._SQRT_HALF)
        exponent = (bits >> 23).cast(F32) - 126.0 - k.select(low, k.like(x, 1.0), 0.0)
        y = (fraction - 1.0) + k.select(low, fraction, 0.0)
        square = y * y
        series = self.polynomial(y, box_muller._LOG) * y
        series = self.fma(series, square, exponent * float(box_muller._LN2_LOW))
        series = self.fma(square, -0.5, series)
        return self.fma(exponent, float(box_muller._LN2_HIGH), y + series)

    def sin_cos(self, x: Value) -> tuple[Value, Value]:
        """Of angles in [0, 2 pi]."""
        k = self.k
        octant = (x * (4 / math.pi)).cast(I32)
        octant = octant + (octant & 1)
        turns = octant.cast(F32)
        for part in box_muller._PI_QUARTER_PARTS:
            x = self.fma(turns, part, x)
        square = x * x
        near_sin = self.fma(self.polynomial(square, box_muller._SIN) * square, x, x)
        near_cos = self.polynomial(square, box_muller._COS) * square
        near_cos = self.fma(near_cos, square, square * -0.5) + 1.0
        swap = (octant & 2).ne(0)
        sin, cos = k.select(swap, near_cos, near_sin), k.select(swap, near_sin, near_cos)
        return _flipped(sin, octant), _flipped(cos, octant + 2)


def _flipped(x: Value, octant: Value) -> Value:
    """`x`, negative where bit 2 of the octant is set."""
    return (x.bits(I32) ^ ((octant << 29) & -(2**31))).bits(F32)


# --- permutations -----------------------------------------------------------------------------


def build_permutation(target: Target) -> Kernel:
    """Forward Fisher-Yates of 0 .. n - 1: place i trades with place i + words[i] % (n - i).

    Arguments: order (int64, n), words (uint32, n - 1).
    """
    k, lanes = Kernel("permutation"), target.lanes(I64)
    order, words = k.array("order", I64), k.array("words", U32)
    n = order.size(0)
    whole = n - n % lanes
    with k.loop(0, whole, lanes) as i:
        k.store(order.ptr, i, k.splat(i, lanes) + k.iota(lanes))
    with k.loop(whole, n) as i:
        k.store(order.ptr, i, i)
    with k.loop(0, words.size(0)) as i:
        other = i + (k.load(words.ptr, i) % (n - i).cast(U32)).cast(I64)
        a, b = k.load(order.ptr, i), k.load(order.ptr, other)
        k.store(order.ptr, i, b)
        k.store(order.ptr, other, a)
    return k


# --- launchers --------------------------------------------------------------------------------


_U32 = np.dtype(np.uint32)
_BUILDS = {kind: partial(build_draws, kind=kind) for kind in KINDS}


def _draw(kind: str, state: Array, out: Array, *numbers: float) -> bool:
    if state.shape != (_SIZE + 1,) or state.dtype != _U32 or state.item(_SIZE) > _SIZE:
        raise ValueError("mersenne: the state is 624 words and a position up to 624, in uint32")
    if out.ndim != 1 or not out.flags.c_contiguous:
        raise ValueError("mersenne: values are drawn into one-dimensional contiguous arrays")
    kernel = service.kernel(("mersenne", kind), _BUILDS[kind])
    if kernel is None:
        return False
    kernel(state, out, *numbers)
    return True


def words(state: Array, out: Array) -> bool:
    """The next words (uint32). All launchers: False, and nothing drawn, without a kernel (yet).

    state: uint32, 624 words and the position, as NumPy's MT19937 keeps them; it moves on.
    """
    return _typed(out, "uint32") and _draw("words", state, out)


def uniform(state: Array, out: Array, low: float, high: float) -> bool:
    """float32 or float64 values in [low, high)."""
    kind = "uniform32" if out.dtype == _F32 else "uniform64"
    if kind == "uniform64" and not _fused():
        return False  # what is rounded once cannot be had there
    return _typed(out, "float32", "float64") and _draw(kind, state, out, low, high)


def bernoulli(state: Array, out: Array, p: float) -> bool:
    """1.0 with probability p, else 0.0, in float32."""
    return _typed(out, "float32") and _draw("bernoulli", state, out, math.ceil(p * 2.0**53))


def integers(state: Array, out: Array, low: int, span: int) -> bool:
    """int64 values low + word % span, 0 < span < 2**32."""
    if not 0 < span < 1 << 32:
        raise ValueError(f"mersenne: a span of one word, got {span}")
    return _typed(out, "int64") and _draw("integers", state, out, low, span)


def normals(state: Array, out: Array, mean: float, std: float) -> bool:
    """float32 normal values, whole groups of 16, in PyTorch's order."""
    if out.size % 16:
        raise ValueError(f"mersenne: normal values come in groups of 16, got {out.size}")
    transform = service.kernel(("mersenne", "normals"), build_normals)
    first = out[:_RUN] if out.size > _RUN else out
    if transform is None or not uniform(state, first, 0.0, 1.0):
        return False
    transform(first, mean, std)
    for start in range(_RUN, out.size, _RUN):
        run = out[start:start + _RUN]
        uniform(state, run, 0.0, 1.0)
        transform(run, mean, std)
    return True


_F32 = np.dtype(np.float32)
_RUN = 1 << 16  # values that stay in the second-level cache between their two kernels


def permutation(state: Array, out: Array) -> bool:
    """A permutation of range(out.size), int64."""
    step = service.kernel(("mersenne", "permutation"), build_permutation)
    if step is None or not _typed(out, "int64") or out.size >= 1 << 32:
        return False
    drawn = memory.empty((max(out.size - 1, 0),), np.dtype(np.uint32))
    if not words(state, drawn):
        return False
    step(out, drawn)
    return True


def _typed(out: Array, *names: str) -> bool:
    if dtype_name(out.dtype) not in names:
        raise ValueError(f"mersenne: values of {' or '.join(names)}, not {out.dtype}")
    return True


def _fused() -> bool:
    from ..debug.knobs import knobs
    from .target import target

    return target(knobs.target).has_fma
