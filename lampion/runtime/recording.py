"""Recording launches: kernels that a thread calls in a `Recording` are noted, not run.

Meanwhile `memory.empty` hands that thread arrays over reserved addresses without memory, so that
views and reshapes work as ever and every argument of a kernel can be told by its address. Nothing
may read or write such an array at that time: its values do not exist. Where NumPy does, the system
gives a page of memory to the address, and the recording finds that page and refuses to finish.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import sys
import threading
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import numpy as np

from ..debug.kernels import HIDDEN, facts_of
from . import memory
from .native import array_layout
from .prepare import keep, split
from .stream import (
    NATIVE,
    Buffer,
    Check,
    Group,
    Host,
    Native,
    Noted,
    Site,
    Stream,
    extent,
    native,
    used,
)

__all__ = ["NATIVE", "PLAIN", "Number", "Recording", "RecordingError", "cell", "is_steady",
           "raised", "recording", "recording_here", "written"]

Array = np.ndarray[Any, Any]
T = TypeVar("T")
# From the steps, how many of them are prepared, and ids of the results' buffers.
Arrange = Callable[[Sequence[Noted | Host], int, Collection[int]],
                   tuple[Sequence[int], Sequence[Group]]]

_CELL = ctypes.c_void_p()  # what kernels' entries call instead of their bodies, or null


class RecordingError(RuntimeError):
    """Launches cannot be noted: something read, or computed with, what exists only at a run."""


def cell() -> int:
    """The address of the pointer that every kernel's entry looks at."""
    return ctypes.addressof(_CELL)


class _Turn:
    """Who records; one thread at a time."""

    lock = threading.Lock()
    current: Recording | None = None


def recording() -> Recording | None:
    """The recording under way, perhaps in another thread."""
    return _Turn.current


def recording_here() -> Recording | None:
    """The recording that notes this thread's launches, if there is one."""
    current = _Turn.current
    return current if current is not None and current.thread == threading.get_ident() else None


def result(number: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array for a launcher's result: new, or where the recording wants that result."""
    current = recording_here()
    place = None if current is None else current.wanted.get(number)
    if place is None or place.shape != shape or place.dtype != dtype:
        return memory.empty(shape, dtype)
    return place


def _after_fork_in_child() -> None:
    """A recording of another thread of the parent ends; it was not copied."""
    current = _Turn.current
    if current is not None and current.thread != threading.get_ident():
        current.stop()
        _Turn.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def is_steady(array: Array) -> bool:
    """Whether what follows from an array alone is computed once for many runs."""
    current = recording_here()
    return current is not None and current.is_steady(array)


def raised(launch: Callable[[Array], Any], looked_at: Array, *rule: Any) -> bool:
    """Whether `launch(flag)`, kernels that get an int64 array, raises the flag.

    looked_at: the array whose elements decide, by a rule with these facts. A recording says no:
    the run stops there with what `Recording.explain` was given.
    """
    here = recording_here()
    if here is None:
        return _raised_now(launch)
    flag = here.flag()
    launch(flag)
    if not here.has_checked(looked_at, *rule):
        here.check(flag, looked_at, *rule)
    return False


class _Flag(threading.local):
    """A flag of each thread: making one costs as much as a tenth of a small launch."""

    def __init__(self) -> None:
        self.flag = np.zeros(1, np.int64)


_now = _Flag()


def _raised_now(launch: Callable[[Array], Any]) -> bool:
    flag = _now.flag
    launch(flag)
    if not flag[0]:
        return False
    flag[0] = 0
    return True


# --- numbers ----------------------------------------------------------------------------------

# Numbers that are part of a kernel; others are passed to it, so that they may change.
PLAIN = frozenset((0, 1, -1, 2, -2, 0.5, 3, 6, float("inf"), float("-inf")))


def _unknown(*_: Any) -> NoReturn:
    raise RecordingError("a number that is given at each run was read while launches are noted")


class Number(float):
    """A number that is given at each run; kernels take it as a float, Python may not read it.

    All of them are equal, and equal to nothing else: launches do not depend on them.
    """

    __slots__ = ("index",)
    __array_ufunc__ = None
    index: int

    def __eq__(self, other: object) -> bool:
        return other.__class__ is Number

    def __ne__(self, other: object) -> bool:
        return other.__class__ is not Number

    def __hash__(self) -> int:
        return hash(Number)


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "floordiv",
              "rfloordiv", "mod", "rmod", "divmod", "rdivmod", "pow", "rpow", "neg", "pos", "abs",
              "bool", "int", "float", "round", "trunc", "floor", "ceil", "lt", "le", "gt", "ge"):
    setattr(Number, f"__{_name}__", _unknown)


# --- addresses without memory -----------------------------------------------------------------


_PAGE = mmap.PAGESIZE
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x40 if sys.platform == "darwin" else 0x4000)
_SIZES = (1 << 40, 1 << 36, 1 << 32, 1 << 30)  # bytes of addresses; limits may forbid the first


class _Addresses:
    """A range of addresses; each array gets pages of its own."""

    def __init__(self, least: int) -> None:
        self.memory = _mapped(least)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.size, self.used = len(self.memory), 0
        self.starts: list[int] = []
        self.buffers: list[Buffer] = []
        self.marks = bytearray()  # for `pages`
        self.origins: list[int] = []  # where each buffer's first element is

    def has_room(self, size: int) -> bool:
        return self.used + _pages(size) <= self.size

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any],
              strides: tuple[int, ...] | None) -> tuple[Array, int]:
        """An array on fresh pages, and the bytes that it covers."""
        if strides is None:
            low, high = 0, _product(shape) * dtype.itemsize
        else:
            low, high = extent(shape, strides, dtype.itemsize)
        made = np.ndarray(shape, dtype, self.memory, self.used - low, strides)
        self.starts.append(self.start + self.used)
        self.origins.append(self.start + self.used - low)
        self.used += _pages(high - low)
        return made, high - low

    def find(self, address: int) -> tuple[Buffer, int] | None:
        """The buffer of an address, and the bytes from its first element to there."""
        if not self.start <= address < self.start + self.used:
            return None
        i = bisect_right(self.starts, address) - 1
        return self.buffers[i], address - self.origins[i]

    def touched(self) -> list[Buffer]:
        """The buffers that have got memory, because somebody read or wrote them."""
        if not _tells():
            return []
        return [self.buffers[i] for i in sorted({
            bisect_right(self.starts, self.start + page * _PAGE) - 1 for page in self.pages()})]

    def pages(self) -> list[int]:
        """The pages that have memory."""
        count = self.used // _PAGE
        if len(self.marks) < count:
            self.marks = bytearray(2 * count)
        found = (ctypes.c_ubyte * count).from_buffer(self.marks)
        start, size = ctypes.c_void_p(self.start), ctypes.c_size_t(self.used)
        if not count or _mincore()(start, size, found) or self.marks.count(0, 0, count) == count:
            return []
        return [int(i) for i in np.flatnonzero(np.ctypeslib.as_array(found) & 1)]

    def clear(self) -> None:
        """No address has memory any more."""
        if self.used:
            self.memory.madvise(mmap.MADV_DONTNEED, 0, self.used)


@functools.cache
def _mincore() -> Any:
    return ctypes.CDLL(None).mincore


def _mapped(least: int) -> mmap.mmap:
    for size in (*(n for n in _SIZES if n >= 2 * least), _pages(least)):
        try:
            found = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
        except OSError:
            continue
        if hasattr(mmap, "MADV_NOHUGEPAGE"):  # a page tells which array was touched
            found.madvise(mmap.MADV_NOHUGEPAGE)
        return found
    raise MemoryError(f"no {least} bytes of addresses to record launches with")


def _pages(size: int) -> int:
    """Bytes of the pages for `size` bytes and one behind them: an empty view may point there."""
    return -(-(size + 1) // _PAGE) * _PAGE


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


# --- the recording ----------------------------------------------------------------------------


class Recording:
    """Notes the launches of this thread, and makes a `Stream` of them.

    Other threads' launches run as ever. One thread records at a time; others wait for their turn.

    >>> import numpy as np
    >>> from lampion.codegen.gemm import gemm
    >>> from lampion.codegen.stream import Recording
    >>> from lampion.debug.knobs import override
    >>> from lampion.runtime import memory
    >>> a = np.eye(3, dtype=np.float32) * 2
    >>> with override(kernels="sync"), Recording() as r:
    ...     x = r.input(a)
    ...     y = memory.empty((3, 3), a.dtype)
    ...     _ = gemm(y, x, x)
    ...     program = r.finish([y])
    >>> program([a])[0].tolist()
    [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]]
    """

    def __init__(self, careful: bool = True) -> None:
        """careful: whether every attempt finds out by itself that it reads values; else only the
        recording as a whole does, which takes less time."""
        self.thread, self.careful = 0, careful
        self._addresses: list[_Addresses] = []
        self.buffers: list[Buffer] = []
        self._inputs: list[Array] = []
        self._numbers = 0
        self.wanted: dict[int, Array] = {}  # where results of the next launch should go
        self._steps: list[Noted | Host] = []
        self.left_out: list[int] = []
        self.order: list[int] = []  # of the stream's launches: their places without `left_out`
        self._data = array_layout().data
        self.asked = 0  # how often launchers asked what was checked
        self._explanation: tuple[Callable[..., Any], list[Site | Array]] | None = None
        self._checked: dict[Any, int] = {}  # arrays and rules, and the step that checks them
        self._restore: Callable[[], None] | None = None

    def __enter__(self) -> Recording:
        if recording_here() is not None:
            raise RecordingError("this thread records already")
        half = native()
        _Turn.lock.acquire()
        try:
            self.start(half)
        except BaseException:  # Ctrl-C
            self.__exit__()
            raise
        return self

    def start(self, half: Native) -> None:
        """Launches of this thread are noted from now on."""
        self.thread = threading.get_ident()
        _Turn.current = self
        self._callback = self._note
        half.state[0], half.state[1] = self.thread, id(self._callback)
        _CELL.value = half.record
        self._restore = memory.divert(self._empty)

    def __exit__(self, *error: object) -> None:
        if _Turn.current is self:  # in a forked child it may not be
            self.stop()
        if _Turn.lock.locked():
            _Turn.lock.release()

    def stop(self) -> None:
        """Launches run again."""
        _CELL.value = None
        native().state[0] = 0
        if self._restore is not None:
            self._restore()
        _Turn.current = None

    @property
    def count(self) -> int:
        """The launches and steps in Python so far."""
        return len(self._steps)

    def noted(self, first: int) -> list[Noted | Host]:
        """The steps from one on."""
        return self._steps[first:]

    def note(self, step: Noted) -> None:
        """One more launch, of arrays of this recording."""
        self._steps.append(step)

    # --- what a program is given --------------------------------------------------------------

    def input(self, like: Array, steady: bool = False) -> Array:
        """Stands for an array that is given at each run with this shape, strides and dtype.

        steady: mostly with the same elements, so that what follows from it alone may be prepared.
        """
        self._inputs.append(_facts_alone(like))
        number = len(self._inputs) - 1
        made = self.planned("input", number, like.shape, like.dtype, like.strides)
        self.buffers[-1].steady = steady
        return made

    def is_steady(self, array: Array) -> bool:
        """Whether an array shows a steady input."""
        site = self.site(array)
        return isinstance(site, Site) and site.buffer.steady

    def number(self, value: float) -> float:
        """Stands for a number that is given at each run."""
        made = Number(value)
        made.index = self._numbers
        self._numbers += 1
        return made

    def flag(self) -> Array:
        """One int64 that is 0 at every launch; a kernel raises it, see `check`."""
        return self.planned("flag", 0, (1,), np.dtype(np.int64))

    # --- what it does -------------------------------------------------------------------------

    def host(self, function: Callable[[list[Array], list[Array]], Any], reads: Sequence[Array],
             writes: Sequence[Array], name: str, can_fail: bool = True) -> None:
        """A step in Python: function(reads, writes), with arrays that hold during the call."""
        step = Host(name, function, [self.site(a) for a in reads],
                    [self.site(a) for a in writes], can_fail)
        self._steps.append(step)

    def check(self, flag: Array, looked_at: Array, *rule: Any) -> None:
        """Where the last launch raises its flag, the run ends; see `explain` and `raised`."""
        last, site = self._steps[-1], self.site(flag)
        assert isinstance(last, Noted) and isinstance(site, Site)
        if self._explanation is None:
            raise RecordingError(f"{last.code.name} raises a flag that nothing explains")
        self._steps[-1] = last._replace(flag=Check(site, *self._explanation))
        place = self.site(looked_at)
        if isinstance(place, Site):
            self._checked[_elements(place), rule] = len(self._steps) - 1

    def has_checked(self, looked_at: Array, *rule: Any) -> bool:
        """Whether an earlier launch has checked the array by this rule, and nothing wrote to it."""
        self.asked += 1
        place = self.site(looked_at)
        if not isinstance(place, Site):
            return False
        step = self._checked.get((_elements(place), rule))
        return step is not None and not any(
            s.buffer is place.buffer for later in self._steps[step + 1:] for s in written(later))

    def late_failures(self) -> list[int]:
        """All steps that may raise, if one of them comes after a write to an input; else []."""
        failing = [i for i, s in enumerate(self._steps)
                   if (s.can_fail if isinstance(s, Host) else s.flag is not None)]
        last = max(failing, default=0)
        changed = any(site.buffer.kind == "input" for s in self._steps[:last]
                      for site in written(s))
        return failing if changed else []

    @contextmanager
    def explain(self, raises: Callable[..., Any], reads: Sequence[Array]) -> Iterator[None]:
        """Flags that launches in the block raise end the run with raises(*reads)."""
        before = self._explanation
        self._explanation = raises, [self.site(a) for a in reads]
        try:
            yield
        finally:
            self._explanation = before

    def attempt(self, launch: Callable[[], T | None]) -> T | None:
        """What `launch` gives; None, and nothing noted, where it says that it reads values.

        Of a careful recording also where it just reads them.
        """
        steps, before = len(self._steps), _faults() if self.careful else 0
        result = None
        try:
            result = launch()
        except RecordingError:
            pass
        finally:
            if self.careful and _faults() != before and self.touched():
                result = None
                for a in self._addresses:
                    a.clear()
            if result is None:
                del self._steps[steps:]
                self._checked = {k: at for k, at in self._checked.items() if at < steps}
        return result

    def touched(self) -> list[Buffer]:
        """The buffers that NumPy has read or written."""
        return [b for a in self._addresses for b in a.touched()]

    def finish(self, outputs: Sequence[Array], arrange: Arrange | None = None) -> Stream:
        """The program. outputs: what a call gives, arrays of this recording or views of them.
        arrange: gives the order of the steps and groups of launches that run side by side.

        Launches whose results nobody reads are `left_out`: their places among all launches.
        RecordingError where NumPy read or wrote an array of the recording.
        """
        touched = self.touched()
        if touched:
            raise RecordingError("NumPy has read or written values that exist only at a run: "
                                 + ", ".join(_named(b) for b in touched[:4]))
        sites = []
        for a in outputs:
            site = self.site(a)
            if not isinstance(site, Site):
                raise RecordingError(f"a result that no launch has written: {_described(a)}")
            sites.append(site)
        self.left_out = _needless(self._steps, [s.buffer for s in sites])
        for i in reversed(self.left_out):
            del self._steps[i]
        results = {id(s.buffer) for s in sites}
        prepared = split(self._steps, written, results)
        self._put([*prepared, *(i for i in range(len(self._steps)) if i not in prepared)])
        groups: Sequence[Group] = ()
        if arrange is not None:
            order, groups = arrange(self._steps, len(prepared), results)
            self._put(order)
        _count_uses(self.buffers, self._steps, groups)
        if any(s.buffer.kind == "arena" and s.buffer.first < 0 < s.buffer.size for s in sites):
            raise RecordingError("a result that no launch has written")
        keep(self.buffers, self._steps, len(prepared))
        return Stream(self._steps, self.buffers, self._inputs, self._numbers, sites,
                      len(prepared), groups)

    def _put(self, order: Sequence[int]) -> None:
        """Another order of the steps."""
        self.order = [self.order[i] for i in order] if self.order else list(order)
        self._steps = [self._steps[i] for i in order]

    # --- noting -------------------------------------------------------------------------------

    def _empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """In the place of `memory.empty`."""
        return self.planned("arena", 0, tuple(shape), np.dtype(dtype))

    def planned(self, kind: str, number: int, shape: tuple[int, ...], dtype: np.dtype[Any],
                strides: tuple[int, ...] | None = None) -> Array:
        """An array over addresses without memory, of a buffer of its own."""
        most = (_product(shape) + 1) * dtype.itemsize if strides is None else sum(
            extent(shape, tuple(map(abs, strides)), dtype.itemsize))
        if not self._addresses or not self._addresses[-1].has_room(most):
            self._addresses.append(_Addresses(most))
        place = self._addresses[-1]
        made, size = place.array(shape, dtype, strides)
        buffer = Buffer(kind, number, made, size)
        place.buffers.append(buffer)
        self.buffers.append(buffer)
        return made

    def _note(self, code: Any, *arguments: Any) -> None:
        """Called by the kernels of this thread."""
        state = native().state
        words = (ctypes.c_int64 * len(arguments)).from_address(state[2])[:]
        arrays: list[tuple[int, Site]] = []
        numbers: list[tuple[int, int]] = []
        kept: list[Any] = []
        facts: list[Any] = []
        for i, (a, written) in enumerate(zip(arguments, code.written(len(words)), strict=True)):
            if isinstance(a, np.ndarray):
                site = self.site(a)
                facts.append(facts_of(a) if site is a else (a.shape, a.strides, a.itemsize, None))
                if isinstance(site, Site):
                    arrays.append((i, site))
                elif written and a.size:
                    raise RecordingError(f"{code.name} writes into an array that is none of the "
                                         f"recording's: {_described(a)}")
                else:
                    kept.append(a)
            else:
                facts.append(0.0 if isinstance(a, float) else a)
                if isinstance(a, Number):
                    numbers.append((i, a.index))
        self._steps.append(Noted(code, state[3], words, arrays, numbers, kept, tuple(facts), None))

    def site(self, a: Array) -> Site | Array:
        """Where an array lies; a constant is itself."""
        address = ctypes.c_size_t.from_address(id(a) + self._data).value
        for place in self._addresses:
            found = place.find(address)
            if found is not None:
                buffer, offset = found
                return Site(buffer, offset, a.shape, a.strides, a.dtype)
        return a


def _elements(site: Site) -> Any:
    """Tells arrays apart that have other elements."""
    long = [(n, s) for n, s in zip(site.shape, site.strides, strict=True) if n != 1]
    joined: list[tuple[int, int]] = []  # axes that lie in memory as one
    for n, s in long:
        if joined and joined[-1][1] == n * s:
            joined[-1] = joined[-1][0] * n, s
        else:
            joined.append((n, s))
    return id(site.buffer), site.offset, site.dtype, tuple(joined)


def written(step: Noted | Host) -> list[Site]:
    """What a step writes to; all that it might, where its code does not tell."""
    if isinstance(step, Host):
        return [s for s in step.writes if isinstance(s, Site)]
    writes, told = step.code.written(len(step.words)), step.code.tells
    return [site for i, site in step.arrays if writes[i] or not told]


def _needless(steps: Sequence[Noted | Host], outputs: Sequence[Buffer]) -> list[int]:
    """Launches that only write memory of the arena which no later one uses; Python always runs."""
    needed, found = set(map(id, outputs)), list[int]()
    for i, step in reversed(list(enumerate(steps))):
        sites = [] if isinstance(step, Host) or step.flag is not None else written(step)
        if sites and all(s.buffer.kind == "arena" and id(s.buffer) not in needed
                           for s in sites):
            found.append(i)
        else:
            needed.update(map(id, used(step)))
    return found[::-1]


def _count_uses(buffers: Sequence[Buffer], steps: Sequence[Noted | Host],
                groups: Sequence[Group]) -> None:
    """The first and the last step of every buffer; those of a group count as one."""
    for b in buffers:
        b.first = b.last = -1
    start, end = list(range(len(steps))), list(range(len(steps)))
    for first, size, _ in groups:
        start[first:first + size] = [first] * size
        end[first:first + size] = [first + size - 1] * size
    for i, step in enumerate(steps):
        for b in used(step):
            b.first, b.last = start[i] if b.first < 0 else b.first, end[i]


def _named(b: Buffer) -> str:
    return f"{b.kind} {b.number} " * (b.kind == "input") + f"{b.dtype.name}{list(b.shape)}"


def _described(a: Array) -> str:
    return f"{a.dtype.name}{list(a.shape)}"


def _facts_alone(like: Array) -> Array:
    """An array of the same layout and dtype that holds no memory."""
    return np.lib.stride_tricks.as_strided(np.empty(0, like.dtype), like.shape, like.strides)


def _faults() -> int:
    """Pages that this process has got so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@functools.cache
def _tells() -> bool:
    """Whether this system tells which pages have memory, and only those."""
    probe = _Addresses(4 * _PAGE)
    probe.used = 4 * _PAGE
    before, probe.memory[2 * _PAGE] = probe.pages(), 1
    return (before, probe.pages()) == ([], [2])


HIDDEN.append(lambda: recording_here() is not None)
