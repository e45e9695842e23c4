"""Random streams: PyTorch's CPU generator, its state, and the values drawn from it.

Everything here is NumPy: a :class:`Stream` in, one-dimensional arrays out. The functions consume
the MT19937 words in PyTorch's order, so a seed gives PyTorch's numbers, and mixed calls stay in
step. Integers and uniform values are bit-equal; so is the normal fill of 16 or more elements.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from . import memory

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

DEFAULT_SEED = 67280421310721
STATE_BYTES = 5056
_WORDS = 624
_BLOCK = 1 << 15  # values per pass: a multiple of 16 that keeps temporaries in the L2 cache
_F32, _F64 = np.dtype(np.float32), np.dtype(np.float64)
_MANTISSA = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
# Ranges from here on take two words a value; below, the bias of `%` stays under 5 %.
_WIDE_RANGE = 1 << 28
_FEW = 256  # values of which a kernel's draw pays only where such draws are frequent
_OFTEN = 100  # draws of few values, after which they come by kernels
_LONG_PERMUTATION = (2**32 - 1) // 20
_SHORT_PERMUTATION = 4096  # what one pass over a list does as fast as array swaps

_STATE = np.dtype(
    {
        "names": ["seed", "left", "seeded", "next", "key", "normal", "has_normal",
                  "float_normal", "has_float_normal"],
        "formats": ["<u8", "<i4", "<i4", "<u8", ("<u8", _WORDS), "<f8", "<i4", "<f4", "?"],
        "offsets": [0, 8, 12, 16, 24, 5024, 5040, 5048, 5052],
        "itemsize": STATE_BYTES,
    }
)  # fmt: skip


class Stream:
    """The state of one generator: MT19937 and the normal sample kept for the next call.

    >>> stream = Stream(0)
    >>> stream.floats(2).tolist()
    [0.49625658988952637, 0.7682217955589294]
    """

    __slots__ = ("_bits", "_legacy", "_memory", "_seed", "float_normal", "normal")

    def __init__(self, seed: int = DEFAULT_SEED) -> None:
        from numpy import random  # 15 ms: paid by the first program line that draws

        self._bits = random.MT19937()
        self._legacy = random.RandomState(self._bits)
        self._memory: Array | None = None
        self.manual_seed(seed)

    def manual_seed(self, seed: int) -> None:
        """Start the stream of ``seed``, an integer in [-2**63, 2**64)."""
        if not -(1 << 63) <= seed < 1 << 64:
            raise ValueError(
                f"Overflow when unpacking long long: manual_seed received {seed}, expected a "
                "value in [-2**63, 2**64)"
            )
        self._seed = seed % (1 << 64)
        self._legacy.seed(self._seed & 0xFFFFFFFF)
        self.normal: float | None = None
        self.float_normal: float | None = None

    def seed(self) -> int:
        """Seed from the operating system's entropy and return the seed."""
        import os

        self.manual_seed(int.from_bytes(os.urandom(8), "little"))
        return self._seed

    def initial_seed(self) -> int:
        """The seed last given, as an unsigned 64-bit integer."""
        return self._seed

    def get_state(self) -> Array:
        """The state as PyTorch lays it out: 5,056 bytes."""
        inner = self._bits.state["state"]
        record = np.zeros((), _STATE)
        record["seed"], record["seeded"], record["key"] = self._seed, 1, inner["key"]
        fresh = inner["pos"] == _WORDS and self._is_seed_key(inner["key"])
        record["next"] = 0 if fresh else inner["pos"]
        record["left"] = 1 if fresh else _WORDS + 1 - inner["pos"]
        if self.normal is not None:
            record["normal"], record["has_normal"] = self.normal, 1
        if self.float_normal is not None:
            record["float_normal"], record["has_float_normal"] = self.float_normal, True
        return np.frombuffer(record.tobytes(), np.uint8).copy()

    def _is_seed_key(self, key: Array) -> bool:
        """Whether ``key`` is the seed's own, so that no word has been drawn yet."""
        return int(key[0]) == self._seed & 0xFFFFFFFF and np.array_equal(
            key, Stream(self._seed)._bits.state["state"]["key"]
        )

    def set_state(self, state: Array) -> None:
        """Take over a state written by :meth:`get_state` or by PyTorch."""
        if state.dtype != np.uint8:
            raise TypeError(
                f"RNG state must be a torch.ByteTensor: set_state received {state.dtype}, "
                "expected uint8"
            )
        if state.size != STATE_BYTES:
            raise RuntimeError(
                f"Expected a CPUGeneratorImplState of size {STATE_BYTES} but found the input "
                f"RNG state size to be {state.size}"
            )
        record = np.frombuffer(state.tobytes(), _STATE)[0]
        left, position = int(record["left"]), int(record["next"])
        if record["seeded"] != 1 or not 0 < left <= _WORDS or position > _WORDS:
            raise RuntimeError(
                f"Invalid mt19937 state: set_state received left={left}, next={position}; "
                "pass a state returned by get_state"
            )
        self._seed = int(record["seed"])
        position = _WORDS if left == 1 else position
        inner = {"key": record["key"].astype(np.uint32), "pos": position}
        self.rewind_to({"bit_generator": "MT19937", "state": inner}, 0)
        self.normal = float(record["normal"]) if record["has_normal"] else None
        has_float = bool(record["has_float_normal"])
        self.float_normal = float(record["float_normal"]) if has_float else None

    def clone(self) -> Stream:
        """A second stream in the same state."""
        twin = Stream.__new__(Stream)
        Stream.__init__(twin)
        twin.set_state(self.get_state())
        return twin

    def words(self, n: int) -> Array:
        """The next ``n`` 32-bit words."""
        if n >= _FEW:
            out = np.empty(n, np.uint32)
            if _by_kernel("words", self, out):
                return out
        if n < 2048:  # the quicker of two ways to the same words, by size
            return self._bits.random_raw(n).astype(np.uint32)
        return self._legacy.randint(0, 1 << 32, n, dtype=np.uint32)

    def words64(self, n: int) -> Array:
        """The next ``n`` 64-bit words: two words each, the high half first."""
        pairs = self.words(2 * n)
        return (pairs[0::2].astype(np.uint64) << np.uint64(32)) | pairs[1::2]

    def floats(self, n: int) -> Array:
        """``n`` float32 values in [0, 1) with 24 random bits, one word each."""
        words = self.words(n)
        words &= np.uint32(0xFFFFFF)
        values = words.astype(_F32)
        values *= np.float32(2.0**-24)
        return values

    def doubles(self, n: int) -> Array:
        """``n`` float64 values in [0, 1) with 53 random bits, two words each."""
        words = self.words64(n)
        words &= np.uint64((1 << 53) - 1)
        values = words.astype(_F64)
        values *= 2.0**-53
        return values

    def rewind_to(self, bits: Any, skip: int) -> None:
        """Go back to the words' state ``bits`` and step over ``skip`` words."""
        self._bits.state = bits
        if skip:
            self._bits.random_raw(skip, output=False)

    def bits(self) -> Any:
        """A snapshot of the words' state for :meth:`rewind_to`."""
        return self._bits.state

    def mark(self) -> Any:
        """A snapshot of all that drawing changes, for `back_to`."""
        return self._bits.state, self.normal, self.float_normal

    def back_to(self, mark: Any) -> None:
        """As when the mark was made."""
        self._bits.state, self.normal, self.float_normal = mark

    def memory(self) -> Array:
        """The words' state where NumPy keeps it: 624 words and the position, in uint32.

        Empty where it does not lie as known.
        """
        if self._memory is None:
            self._memory = _memory_of(self._bits)
        return self._memory


def _memory_of(bits: Any) -> Array:
    import ctypes

    place = (ctypes.c_uint32 * (_WORDS + 1)).from_address(bits.ctypes.state_address)
    found, state = np.frombuffer(memoryview(place), np.uint32), bits.state["state"]
    as_known = np.array_equal(found, [*state["key"], state["pos"]])
    return found if as_known else np.empty(0, np.uint32)


_kernels: Callable[[int], Any] | None = None
_few_draws = 0


def draw_by(kernels: Callable[[int], Any]) -> None:
    """So many values are drawn by the functions of what `kernels` gives (or None): the same values.

    Each takes a stream's memory, the array to fill and numbers, and returns whether it did.
    """
    global _kernels
    _kernels = kernels


def _by_kernel(name: str, stream: Stream, out: Array, *numbers: float) -> bool:
    """Fill ``out`` by a kernel; False, and nothing is drawn, where there is none."""
    global _few_draws
    n = out.size
    if n < _FEW:
        _few_draws += 1
        if n < 1 or (_few_draws < _OFTEN and (name != "normals" or n < 16)):
            return False
    kernels = None if _kernels is None else _kernels(n)
    if kernels is None:
        return False
    memory = stream.memory()
    return memory.size > 0 and getattr(kernels, name)(memory, out, *numbers)


_default: Stream | None = None
_thread = threading.local()


def default_stream() -> Stream:
    """The stream that calls without a generator draw from; seeded from entropy at first."""
    global _default
    own: Stream | None = getattr(_thread, "stream", None)
    if own is not None:
        return own
    if _default is None:
        stream = Stream()
        stream.seed()
        _default = stream
    return _default


def use_own_stream(seed: int) -> None:
    """Let this thread's calls without a generator draw from a stream of its own."""
    _thread.stream = Stream(seed)


def _in_blocks(n: int, dtype: np.dtype[Any], draw: Callable[[int], Array]) -> Array:
    """``draw(n)`` made of runs of at most ``_BLOCK`` values."""
    if n <= _BLOCK:
        return draw(n).astype(dtype, copy=False)
    out = np.empty(n, dtype)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        out[start:stop] = draw(stop - start)
    return out


def fma32(a: Any, b: Any, c: Any) -> Array:
    """``a * b + c`` of float32 values, rounded once."""
    product = np.multiply(a, b, dtype=_F64)
    return np.asarray(product + c).astype(_F32)


def fma64(a: Array, b: float, c: float) -> Array:
    """``a * b + c`` of float64 values, rounded once (but for ties beyond 106 bits)."""
    if c == 0.0 or b == 0.0:
        return a * b + c
    product = a * b
    error = _product_error(a, b, product)
    total = product + c
    shift = total - product
    error += (product - (total - shift)) + (c - shift)
    exact = np.isfinite(error)
    return total + np.where(exact, error, 0.0)


def _product_error(a: Array, b: float, product: Array) -> Array:
    """What rounding took from ``a * b``, by Dekker's splitting."""
    split = 134217729.0
    a_big, b_big = a * split, b * split
    a_high, b_high = a_big - (a_big - a), b_big - (b_big - b)
    a_low, b_low = a - a_high, b - b_high
    return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _libm(function: Callable[[float], float], values: Array) -> Array:
    """The C library's ``function``, whose last bit NumPy's vector forms do not always share."""
    flat = map(function, values.ravel().tolist())
    return np.fromiter(flat, _F64, values.size).reshape(values.shape)


def uniform(stream: Stream, n: int, low: float, high: float, dtype: np.dtype[Any]) -> Array:
    """``n`` values in [low, high); 16-bit types are drawn as float32 and rounded."""
    if dtype in (_F32, _F64):
        out = memory.empty((n,), dtype)
        if _by_kernel("uniform", stream, out, low, high):
            return out
    if dtype == _F64:
        return _in_blocks(n, dtype, lambda k: _uniform64(stream, k, low, high))
    return _in_blocks(n, dtype, lambda k: _uniform32(stream, k, low, high, dtype))


def _uniform64(stream: Stream, n: int, low: float, high: float) -> Array:
    values = stream.doubles(n)
    if low == 0.0 and high == 1.0:
        return values
    values = fma64(values, high - low, low)
    values[values == high] = low
    return values


def _uniform32(stream: Stream, n: int, low: float, high: float, dtype: np.dtype[Any]) -> Array:
    values = stream.floats(n)
    bottom, top = np.float32(low), np.float32(high)
    if bottom != 0.0 or top != 1.0:
        values = fma32(values, top - bottom, bottom)
    elif dtype == _F32:
        return values
    values = values.astype(dtype, copy=False)
    values[values == top.astype(dtype)] = bottom.astype(dtype)  # rounding may reach the open end
    return values


def normal(
    stream: Stream,
    n: int,
    mean: float,
    std: float,
    dtype: np.dtype[Any],
    *,
    contiguous: bool = True,
) -> Array:
    """``n`` normal values. A contiguous run of 16 or more is filled by 16s, else one by one."""
    if n < 16 or not contiguous:
        return fma64(_normals(stream, n, dtype), std, mean).astype(dtype)
    if dtype == _F64:
        return _fill_by_16(stream, n, dtype, lambda k: _normal64(stream, k, mean, std))
    if dtype == _F32 and _normals32_by_kernel(stream, out := memory.empty((n,), _F32), mean, std):
        return out
    from .box_muller import normal32

    parameters = np.float32(mean), np.float32(std)
    return _fill_by_16(stream, n, dtype, lambda k: normal32(stream.floats(k), *parameters))


def _fill_by_16(
    stream: Stream, n: int, dtype: np.dtype[Any], draw: Callable[[int], Array]
) -> Array:
    """Whole groups of 16, then the last 16 values once more when some are left over."""
    rest = n % 16
    out = np.empty(n, dtype)
    out[: n - rest] = _in_blocks(n - rest, dtype, draw)
    if rest:
        if dtype.itemsize > 2:  # the wide types draw the left-over values before redoing them
            stream.words(rest * dtype.itemsize // 4)
        out[-16:] = draw(16).astype(dtype, copy=False)
    return out


def _normals32_by_kernel(stream: Stream, out: Array, mean: float, std: float) -> bool:
    """What `_fill_by_16` does for float32, by kernels."""
    rest = out.size % 16
    if not _by_kernel("normals", stream, out[: out.size - rest] if rest else out, mean, std):
        return False
    if rest:
        stream.words(rest)
        _by_kernel("normals", stream, out[-16:], mean, std)
    return True


def _normal64(stream: Stream, n: int, mean: float, std: float) -> Array:
    """The Box-Muller transform of ``n`` values, a multiple of 16, in float64."""
    pairs = stream.doubles(n).reshape(-1, 2, 8)
    radius = np.sqrt(-2.0 * _libm(math.log, 1.0 - pairs[:, 0]))
    angle = 2.0 * math.pi * pairs[:, 1]
    pairs[:, 0] = radius * _libm(math.cos, angle)
    pairs[:, 1] = radius * _libm(math.sin, angle)
    return fma64(pairs.reshape(-1), std, mean)


def _normals(stream: Stream, n: int, dtype: np.dtype[Any]) -> Array:
    """``n`` standard normals made in pairs; an odd one is kept for the next call."""
    if n == 0:
        return np.empty(0, _F64)
    kept = stream.normal is not None
    pairs = stream.doubles((n - kept + 1) // 2 * 2).reshape(-1, 2)
    out = np.empty(kept + pairs.size, _F64)
    if kept:
        out[0] = stream.normal
    rows = out[kept:].reshape(-1, 2)
    _fill_pairs(rows, pairs, exact=dtype == _F64 or n < 256)
    _fill_pairs(rows[-1:], pairs[-1:], exact=True)  # its second value may stay in the state
    stream.normal = float(out[n]) if out.size > n else None
    return out[:n]


def _fill_pairs(out: Array, pairs: Array, *, exact: bool) -> None:
    """Box-Muller on each row; ``exact`` matters when float64 results are kept as they are."""
    angle = 2.0 * math.pi * pairs[:, 0]
    if exact:
        log, cos = _libm(math.log1p, -pairs[:, 1]), _libm(math.cos, angle)
        sin = _libm(math.sin, angle)
    else:
        log, cos, sin = np.log1p(-pairs[:, 1]), np.cos(angle), np.sin(angle)
    radius = np.sqrt(-2.0 * log)
    out[:, 0] = radius * cos
    out[:, 1] = radius * sin


def randint(stream: Stream, n: int, low: int, high: int, dtype: np.dtype[Any]) -> Array:
    """``n`` integers in [low, high), in any dtype."""
    span = high - low
    draw = stream.words if span < _WIDE_RANGE else stream.words64
    narrow = span < _WIDE_RANGE and -(1 << 63) <= low < 1 << 63
    if narrow and dtype == np.int64 and n <= _BLOCK:
        out = memory.empty((n,), dtype)
        if _by_kernel("integers", stream, out, low, span):
            return out

    def block(k: int) -> Array:
        out = np.empty(k, np.int64)
        if narrow and _by_kernel("integers", stream, out, low, span):
            return _from_int64(out, dtype)
        words = draw(k)
        words %= words.dtype.type(span)
        values = words.astype(np.uint64)
        values += np.uint64(low % (1 << 64))
        return _from_int64(values.view(np.int64), dtype)

    return _in_blocks(n, dtype, block)


def _from_int64(values: Array, dtype: np.dtype[Any]) -> Array:
    """Integers as ``dtype``; 16-bit floats round by way of float32, as PyTorch's do."""
    if dtype.itemsize == 2 and dtype.name in _MANTISSA:
        values = values.astype(_F32)
    return values.astype(dtype, copy=False)


def random_any(stream: Stream, n: int, dtype: np.dtype[Any]) -> Array:
    """``random_()`` without bounds: [0, max] for integers, [0, 2**mantissa] for floats."""
    if dtype == np.bool_:
        limit = 2
    elif dtype.name in _MANTISSA:
        limit = (1 << _MANTISSA[dtype.name]) + 1
    else:
        limit = int(np.iinfo(dtype).max) + 1
    draw = stream.words64 if dtype in (_F64, np.int64) else stream.words
    return _in_blocks(n, dtype, lambda k: _from_int64(draw(k) % limit, dtype))


def random_64(stream: Stream, n: int, dtype: np.dtype[Any]) -> Array:
    """``random_(-2**63, None)``: every 64-bit integer."""
    return _in_blocks(n, dtype, lambda k: _from_int64(stream.words64(k).view(np.int64), dtype))


def randperm(stream: Stream, n: int, dtype: np.dtype[Any]) -> Array:
    """A permutation of ``range(n)`` by forward Fisher-Yates."""
    if n >= _LONG_PERMUTATION:
        return _long_permutation(stream, n, dtype)
    if dtype == np.int64:
        out = memory.empty((n,), dtype)
        if _by_kernel("permutation", stream, out):
            return out
    steps = max(n - 1, 0)
    here = np.arange(steps, dtype=np.int64)
    other = stream.words(steps) % (n - here) + here
    order = np.arange(n, dtype=dtype)
    done = _swap_in_runs(order, other)
    rest = order[done:].tolist()
    for i, j in enumerate((other[done:] - done).tolist()):
        rest[i], rest[j] = rest[j], rest[i]
    order[done:] = rest
    return order


def _swap_in_runs(order: Array, other: Array) -> int:
    """Swap ``order[i]`` with ``order[other[i]]`` in turn, many at once; return where it stopped.

    In a run that is short beside what is left, nearly all swaps touch places that no other swap
    of the run touches. Those commute with all the rest, so they go first, as arrays.
    """
    last, touched = np.empty(len(order), np.int64), np.zeros(len(order), np.bool_)
    start = 0
    while len(order) - start > _SHORT_PERMUTATION:
        places = np.arange(start, start + 4 * math.isqrt(len(order) - start))
        stop = start + len(places)
        targets = other[start:stop]
        last[targets] = places
        shared = (last[targets] != places) | (targets < stop)
        touched[targets[shared]] = True
        shared |= touched[targets] | touched[start:stop]
        touched[targets] = False
        _swap_apart(order, places[~shared], targets[~shared])
        for i, j in zip(places[shared].tolist(), targets[shared].tolist(), strict=True):
            order[i], order[j] = order[j], order[i]
        start = stop
    return start


def _swap_apart(order: Array, left: Array, right: Array) -> None:
    """Swap pairs of places that are all different."""
    kept = order[left]
    order[left] = order[right]
    order[right] = kept


def _long_permutation(stream: Stream, n: int, dtype: np.dtype[Any]) -> Array:
    """Fisher-Yates from the inside out with 64-bit words, where 32 bits would show a bias."""
    order = np.empty(n, dtype)
    for start in range(0, n, _BLOCK):
        count = min(_BLOCK, n - start)
        sizes = np.arange(start + 1, start + count + 1, dtype=np.uint64)
        for i, j in enumerate((stream.words64(count) % sizes).tolist(), start):
            order[i] = order[j]
            order[j] = i
    return order


def bernoulli(stream: Stream, n: int, p: float, dtype: np.dtype[Any]) -> Array:
    """``n`` values that are 1 with probability ``p``.

    PyTorch built with MKL draws these from MKL's own generator on Intel processors; this is the
    stream it has everywhere else.
    """
    out = memory.empty((n,), _F32)
    if _by_kernel("bernoulli", stream, out, p):
        return out.astype(dtype, copy=False)
    # u < p for u = word * 2**-53 asks the same as word < ceil(p * 2**53), without the floats.
    limit = np.uint64(math.ceil(p * 2.0**53))
    mask = np.uint64((1 << 53) - 1)
    return _in_blocks(n, dtype, lambda k: (stream.words64(k) & mask) < limit)


def bernoulli_each(stream: Stream, p: Array, dtype: np.dtype[Any]) -> Array:
    """One value for each probability of the flat array ``p``."""
    draws = stream.doubles(p.size) if p.dtype == _F64 else stream.floats(p.size)
    return (draws < p.astype(draws.dtype, copy=False)).astype(dtype)


def exponential(stream: Stream, n: int, rate: float, dtype: np.dtype[Any]) -> Array:
    """``n`` exponential values of rate ``rate``."""

    def block(k: int) -> Array:
        draws = -stream.doubles(k)
        log = _libm(math.log1p, draws) if dtype == _F64 else np.log1p(draws)
        return (-1.0 / rate) * log

    return _in_blocks(n, dtype, block)


def geometric(stream: Stream, n: int, p: float, dtype: np.dtype[Any]) -> Array:
    """``n`` numbers of trials up to the first success of probability ``p``."""
    scale = math.log1p(-p)

    def block(k: int) -> Array:
        with np.errstate(divide="ignore"):
            return np.ceil(np.log(stream.doubles(k)) / scale)

    return _in_blocks(n, dtype, block)


def cauchy(stream: Stream, n: int, median: float, sigma: float, dtype: np.dtype[Any]) -> Array:
    """``n`` Cauchy values."""

    def block(k: int) -> Array:
        angle = math.pi * (stream.doubles(k) - 0.5)
        tangent = _libm(math.tan, angle) if dtype == _F64 else np.tan(angle)
        return fma64(tangent, sigma, median)

    with np.errstate(over="ignore"):
        return _in_blocks(n, dtype, block)


def log_normal(stream: Stream, n: int, mean: float, std: float, dtype: np.dtype[Any]) -> Array:
    """``n`` values whose logarithm is normal."""
    with np.errstate(over="ignore"):
        return np.exp(fma64(_normals(stream, n, dtype), std, mean)).astype(dtype)


def multinomial(stream: Stream, weights: Array, samples: int) -> Array:
    """Row numbers drawn with replacement: ``(rows, samples)`` from ``(rows, classes)`` weights."""
    wide = weights if weights.dtype == _F64 else weights.astype(_F32)
    edges = np.cumsum(wide, axis=1, dtype=wide.dtype)
    edges /= edges[:, -1:].copy()
    edges[:, -1] = 1
    draws = stream.doubles(len(edges) * samples).reshape(len(edges), samples)
    rows = [np.searchsorted(row, draw) for row, draw in zip(edges.astype(_F64), draws, strict=True)]
    return np.array(rows, np.int64).reshape(draws.shape)


def multinomial_distinct(stream: Stream, weights: Array, samples: int) -> Array:
    """Row numbers drawn without replacement, the exponential race: largest weight / Exp(1)."""
    clocks = exponential(stream, weights.size, 1.0, weights.dtype).reshape(weights.shape)
    with np.errstate(all="ignore"):
        race: Array = weights / clocks
    if samples == 1:
        best: Array = race.argmax(axis=1, keepdims=True)
        return best
    behind = -race
    if samples * 8 < weights.shape[1]:
        first = np.sort(behind.argpartition(samples, axis=1)[:, :samples], axis=1)
        order = np.take_along_axis(behind, first, 1).argsort(axis=1, kind="stable")
        return np.take_along_axis(first, order, 1)
    return behind.argsort(axis=1, kind="stable")[:, :samples].copy()
