"""What this machine can do at most, measured by small generated kernels.

Bandwidth of reading, writing and copying for working sets from the first cache to memory, and
fused multiply-adds per second. Measured once for a number of threads, in about half a second,
and kept beside the kernels. The first few processes that ask measure again, and the better numbers
stay: a machine that is shared shows less than it has, never more.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Sequence
from functools import cache
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from ..runtime import cache as disk
from ..runtime.threads import get_num_threads
from . import service
from .ir import Kernel, Value
from .target import Target, host
from .types import F32, F64, Type

__all__ = ["Ceilings", "ceilings"]

SIZES = tuple(1 << n for n in (15, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26))  # bytes touched
_VERSION = 2
_ROUNDS = 5
_MEASUREMENTS = 5  # so many processes measure again: one may have been disturbed
_STREAMS = ("read", "write", "copy")
_KINDS = (F32, F64)


class Ceilings(NamedTuple):
    """Bytes per second by size of the working set, fused multiply-adds per second by element."""

    threads: int
    sizes: tuple[int, ...]
    read: tuple[float, ...]
    write: tuple[float, ...]
    copy: tuple[float, ...]  # bytes read plus bytes written
    fma: dict[str, float]
    measurements: int = 1

    def seconds(self, read: float, written: float) -> float:
        """The least time to read and write so many bytes."""
        if read + written <= 0:
            return 0.0
        both, size = min(read, written), read + written
        rest = self.read if read > written else self.write
        return 2 * both / self._at(self.copy, size) + (size - 2 * both) / self._at(rest, size)

    def bandwidth(self, read: float, written: float) -> float:
        """Bytes per second that are possible for such a mixture."""
        return (read + written) / self.seconds(read, written)

    def _at(self, rates: Sequence[float], size: float) -> float:
        """Between two sizes by the logarithm of the size."""
        places = [math.log2(s) for s in self.sizes]
        return float(np.interp(math.log2(max(size, 1.0)), places, rates))

    def better(self, other: Ceilings) -> Ceilings:
        """The better of two measurements, number by number."""
        def best(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, ...]:
            return tuple(map(max, a, b))
        return Ceilings(self.threads, self.sizes, best(self.read, other.read),
                        best(self.write, other.write), best(self.copy, other.copy),
                        {k: max(v, other.fma[k]) for k, v in self.fma.items()},
                        self.measurements + other.measurements)


def ceilings(threads: int | None = None, fresh: bool = False) -> Ceilings:
    """The ceilings of so many threads (default: as many as kernels use now).

    fresh: measures again and keeps the better numbers.
    """
    return _kept(threads or get_num_threads()) if not fresh else _measured_again(
        threads or get_num_threads())


@cache
def _kept(threads: int) -> Ceilings:
    found = _from_disk(threads)
    enough = found is not None and found.measurements >= _MEASUREMENTS
    return found if found is not None and enough else _measured_again(threads)


def _measured_again(threads: int) -> Ceilings:
    known, found = _from_disk(threads), _measure(threads)
    if known is not None:
        found = found.better(known)
    disk.put(_disk_key(threads), json.dumps(found).encode())
    return found


def _from_disk(threads: int) -> Ceilings | None:
    data = disk.get(_disk_key(threads))
    if data is None:
        return None
    number, sizes, read, write, both, fma, measurements = json.loads(data)
    return Ceilings(number, tuple(sizes), tuple(read), tuple(write), tuple(both), fma,
                    measurements)


def _disk_key(threads: int) -> str:
    return f"ceilings {_VERSION} {platform.node()} {host()!r} {threads} {SIZES}"


# --- measuring --------------------------------------------------------------------------------


def _measure(threads: int) -> Ceilings:
    from ..runtime import threads as pool

    before = pool.get_num_threads()
    pool.set_num_threads(threads)
    try:
        read, write, both = (_stream_rates(name, threads) for name in _STREAMS)
        fma = {kind.name: _fma_rate(kind, threads) for kind in _KINDS}
    finally:
        pool.set_num_threads(before)
    return Ceilings(threads, SIZES, read, write, both, fma)


def _stream_rates(name: str, threads: int) -> tuple[float, ...]:
    """Bytes per second for each size."""
    native = service.make(_STREAM[name](host()))
    arrays = 2 if name == "copy" else 1
    rates = []
    for size in SIZES:
        tasks = threads * (1 if size < SIZES[-2] else 8)
        count = size // (4 * arrays * tasks) // 256 * 256  # elements of a task
        x, y = (_aligned(count * tasks) for _ in range(2))
        times = max(1, (1 << 22) // size)
        seconds = _best(lambda: native(y, x, tasks, count, times))  # noqa: B023
        rates.append(4 * arrays * count * tasks * times / seconds)
    return tuple(rates)


def _fma_rate(kind: Type, threads: int) -> float:
    target = host()
    native, times = service.make(_fma(target, kind)), 20_000
    out = np.zeros(threads * 64, np.float64)
    seconds = _best(lambda: native(out.view(f"f{kind.size}"), threads, times))
    return _CHAINS * target.lanes(kind) * times * threads / seconds


def _best(run: Callable[[], Any]) -> float:
    run()
    found = math.inf
    for _ in range(_ROUNDS):
        start = perf_counter()
        run()
        found = min(found, perf_counter() - start)
    return found


def _aligned(count: int) -> Any:
    """Elements that start at a cache line."""
    raw = np.ones(count + 16, np.float32)
    return raw[-raw.ctypes.data % 64 // 4:][:count]


# --- the kernels ------------------------------------------------------------------------------

_UNROLL = 8
_CHAINS = 12  # independent sums: more than latency times the units that add


def _stream(name: str, target: Target, step: Callable[..., list[Value]], sums: int) -> Kernel:
    """Each task walks its part of the arrays several times."""
    k = Kernel(name)
    out, x = k.array("out", F32), k.array("x", F32)
    tasks, count, times = (k.integer(n) for n in ("tasks", "count", "times"))
    lanes = target.lanes(F32)
    with k.parallel(tasks) as (task, _):
        first = task * count
        starts = [k.const(0.0, F32.vector(lanes))] * sums
        rounds = k.loop(0, times, 1, starts)
        with rounds as given:
            loop = k.loop(first, first + count, lanes * _UNROLL, given[1:] if sums else [])
            with loop as inner:
                i, totals = (inner[0], inner[1:]) if sums else (inner, ())
                loop.next(*step(k, out.ptr, x.ptr, i, lanes, totals))
            rounds.next(*loop.results)
        if sums:
            total = rounds.results[0]
            for part in rounds.results[1:]:
                total = total + part
            k.store(out.ptr, first, total)
    return k


def _read(k: Kernel, out: Value, x: Value, i: Value, lanes: int,
          totals: Sequence[Value]) -> list[Value]:
    return [t + k.load(x, i + u * lanes, lanes) for u, t in enumerate(totals)]


def _write(k: Kernel, out: Value, x: Value, i: Value, lanes: int,
           totals: Sequence[Value]) -> list[Value]:
    for u in range(_UNROLL):
        k.store(out, i + u * lanes, k.const(1.0, F32.vector(lanes)))
    return []


def _copy(k: Kernel, out: Value, x: Value, i: Value, lanes: int,
          totals: Sequence[Value]) -> list[Value]:
    for u in range(_UNROLL):
        k.store(out, i + u * lanes, k.load(x, i + u * lanes, lanes))
    return []


_STREAM: dict[str, Callable[[Target], Kernel]] = {
    "read": lambda target: _stream("read", target, _read, _UNROLL),
    "write": lambda target: _stream("write", target, _write, 0),
    "copy": lambda target: _stream("copy", target, _copy, 0),
}


def _fma(target: Target, kind: Type) -> Kernel:
    """Chains of fused multiply-adds in registers."""
    k = Kernel("fma")
    out, tasks, times = k.array("out", kind), k.integer("tasks"), k.integer("times")
    lanes = target.lanes(kind)
    with k.parallel(tasks) as (task, _):
        factor = k.load(out.ptr, task * lanes, lanes)
        starts = [factor + float(c) for c in range(_CHAINS)]
        loop = k.loop(0, times, 1, starts)
        with loop as given:
            loop.next(*(k.fma(t, factor, factor) for t in given[1:]))
        total = loop.results[0]
        for part in loop.results[1:]:
            total = total + part
        k.store(out.ptr, task * lanes, total)
    return k
