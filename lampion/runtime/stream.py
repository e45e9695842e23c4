"""Launch streams: kernels that were noted once and run again and again without Python between.

A stream is one table of 64-bit words that native code reads (`codegen/stream.py`): for every
launch the kernel's body and its arguments; for every array a record with the fields that kernels
read of an ndarray. At a call the records' addresses are filled in: of the arena, of the call's
inputs, of the memory of its results.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from ..debug.kernels import watching
from . import arena, memory
from .loader import Image
from .native import function
from .threads import get_num_threads

__all__ = ["HEADER", "NATIVE", "Buffer", "Group", "Host", "Launch", "Noted", "Site", "Stream",
           "native", "used"]

Array = np.ndarray[Any, Any]

# Words at the start of the table, in order.
HEADER = ("own", "inputs", "numbers", "bases", "expected", "array_type", "values", "patches",
          "patch_table", "sets", "set_table", "launches")
NATIVE: list[Callable[[], Image]] = []  # gives the machine code; codegen/stream.py puts it here
_BYTE = np.dtype(np.uint8)


class Native:
    """The native half's functions and the words that both halves know."""

    def __init__(self, image: Image) -> None:
        find = image.symbols
        self.record = find["lampion_record"]
        self.bind = function(find["lampion_stream_bind"], "bind", image)
        self.run = function(find["lampion_stream_run"], "run", image)
        address = ctypes.CFUNCTYPE(ctypes.c_void_p)(find["lampion_stream_state"])()
        # The thread that records, what it calls, and of a launch the words and the body.
        self.state = (ctypes.c_int64 * 4).from_address(address)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(image))  # entries jump into it to the very end


class _Loaded:
    """The native half, once and for all threads: a second one would have a state of its own."""

    lock = threading.Lock()
    half: Native | None = None


def native() -> Native:
    """The native half, loaded at the first recording."""
    if _Loaded.half is None:
        with _Loaded.lock:
            if _Loaded.half is None:
                _Loaded.half = Native(NATIVE[0]())
    return _Loaded.half


# --- what a recording hands over --------------------------------------------------------------


class Buffer:
    """Memory that arrays of a recording lie in.

    kind: "arena", "input", "result" (new at every call), "kept" (from call to call) or "flag" (in
    the table itself). steady: an input that calls share, see `Stream`.
    """

    __slots__ = ("dtype", "first", "kind", "last", "number", "shape", "size", "steady", "strides")

    def __init__(self, kind: str, number: int, array: Array, size: int) -> None:
        self.kind, self.number, self.size, self.steady = kind, number, size, False
        self.shape, self.strides, self.dtype = array.shape, array.strides, array.dtype
        self.first = self.last = -1  # steps that use it


class Site(NamedTuple):
    """Where an array's elements lie: bytes behind the first element of its buffer."""

    buffer: Buffer
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]


class Noted(NamedTuple):
    """A launch: argument words as they are, and which of them stand for arrays and numbers."""

    code: Any
    body: int
    words: list[int]
    arrays: list[tuple[int, Site]]
    numbers: list[tuple[int, int]]
    kept: list[Any]  # constants that words point to
    facts: tuple[Any, ...]  # of the arguments, as `debug/kernels.py` tells launches apart
    flag: Check | None


class Check(NamedTuple):
    """A flag that a launch may raise, and what is called then; `raises` gets the arrays."""

    flag: Site
    raises: Callable[..., Any]
    reads: list[Site | Array]


class Host(NamedTuple):
    """A step in Python between launches."""

    name: str
    function: Callable[[list[Array], list[Array]], Any]
    reads: list[Site | Array]
    writes: list[Site | Array]
    can_fail: bool = True


class Group(NamedTuple):
    """Launches that run side by side on the thread pool: the place of the first among all steps.

    None of them writes what another uses, or raises a flag. wakes: it is worth waking threads for.
    """

    first: int
    size: int
    wakes: bool


class Launch(NamedTuple):
    """What a stream tells of a step. arguments: arrays as (shape, strides, item size, values)."""

    name: str
    arguments: tuple[Any, ...]
    is_host: bool
    key: Any  # of the kernel, see `codegen/service.py`


# --- the stream -------------------------------------------------------------------------------


class Stream:
    """A program made by `Recording.finish`: call it with arrays laid out as those it was made for.

    A call gives the results in new memory. Calls from several threads take turns. The first
    `prepared` launches compute from steady inputs alone what the others find in "kept" buffers; a
    call leaves them out where it is told that those inputs are as they were.

    launches: its steps in order. arena_bytes: the memory that values in between take together;
    least_bytes: the most of them that live at one time. kept_bytes: the memory that prepared values
    take, prepared_from: the inputs that they follow from. groups: of launches that run side by
    side, by one thread in turn. can_fail: whether a step may raise.
    """

    def __init__(self, steps: Sequence[Noted | Host], buffers: Sequence[Buffer],
                 inputs: Sequence[Array], numbers: int, outputs: Sequence[Site],
                 prepared: int = 0, groups: Sequence[Group] = ()) -> None:
        self.prepared, self._kept = prepared, memory.empty((0,), _BYTE)
        self.groups = tuple(groups)
        self._steps, self._inputs, self._outputs = list(steps), list(inputs), list(outputs)
        self._results = _results(outputs)
        self.buffers = [b for b in buffers if b.kind == "arena" and b.first >= 0]
        lifetimes = [arena.Lifetime(b.size, b.first, b.last) for b in self.buffers]
        offsets, self.arena_bytes = arena.place(lifetimes)
        self.least_bytes = arena.least(lifetimes)
        self._place = {id(b): (0, offset) for b, offset in zip(self.buffers, offsets, strict=True)}
        kept = [b for b in buffers if b.kind == "kept"]
        offsets, self.kept_bytes = arena.place([arena.Lifetime(b.size, 0, 0) for b in kept])
        self._place.update({id(b): (1, offset) for b, offset in zip(kept, offsets, strict=True)})
        own = 2 + len(self._results)
        for b in buffers:
            if b.kind == "input":
                self._place[id(b)] = own + b.number, 0
        self._place.update({id(b): (2 + i, 0) for i, b in enumerate(self._results)})
        self._given_out = [_whole(b) for b in self._results]
        self._table = _Table(self._steps, self._place, own, self._inputs, numbers, self.groups)
        whole = [_is_whole(site) for site in outputs]
        self._plain = [self._place[id(site.buffer)][0] for site in outputs] if all(whole) else None
        self._threads = get_num_threads()
        self._runs = _runs(self._steps, prepared)
        self.launches = [_launch(step) for step in self._steps]
        self.can_fail = any(s.can_fail if isinstance(s, Host) else s.flag is not None
                            for s in self._steps)
        self.prepared_from = list({id(b): b for s in self._steps[:prepared] for b in used(s)
                                   if b.kind == "input"}.values())
        self._lock = threading.Lock()
        _streams.add(self)

    def __call__(self, inputs: Sequence[Array], numbers: Sequence[float] = (),
                 is_prepared: bool | None = None) -> list[Array]:
        """The results. is_prepared: whether steady inputs are as at the last call that was told
        False and kept what it prepared; None keeps nothing.

        ValueError where an input's shape, strides or dtype is another; RuntimeError where more
        threads share the work than when the launches were noted: they have scratch memory for so
        many.
        """
        inputs = tuple(inputs)  # kernels run while other threads may change a list
        with self._lock:
            done = is_prepared and self._kept.size == self.kept_bytes
            own = self._memory(is_prepared is not None)
            self._bind(own, inputs, numbers)
            self._run(own, inputs, bool(done))
        return self._given(own, inputs)

    def run_apart(self, inputs: Sequence[Array], numbers: Sequence[float] = ()) -> bool:
        """Runs if no two of the inputs share memory; whether it did. Errors as of a call."""
        inputs = tuple(inputs)
        with self._lock:
            own = self._memory(False)
            self._bind(own, inputs, numbers)
            if not self._table.inputs_are_apart():
                return False
            self._run(own, inputs, False)
        return True

    def _run(self, own: list[Array], inputs: Sequence[Array], done: bool) -> None:
        """Everything, or where it is done without what was prepared."""
        if watching():
            self._each(own, inputs)
            return
        if self.prepared and not done:
            self._launch(0, self.prepared, own, inputs)
        self._all(own, inputs)

    def _memory(self, keeps: bool) -> list[Array]:
        """The arena, prepared values, and the results of a call."""
        kept = self._kept
        if kept.size != self.kept_bytes or not keeps:
            kept = memory.empty((self.kept_bytes,), _BYTE)
        if keeps:
            self._kept = kept
        return [memory.empty((self.arena_bytes,), _BYTE), kept,
                *(memory.empty(shape, dtype) for shape, dtype in self._given_out)]

    def profile(self, inputs: Sequence[Array], numbers: Sequence[float] = ()) -> list[float]:
        """Runs once, with everything that follows from it; the seconds of every launch."""
        inputs = tuple(inputs)
        with self._lock:
            own = self._memory(False)
            self._bind(own, inputs, numbers)
            return self._each(own, inputs)

    def _all(self, own: list[Array], inputs: Sequence[Array]) -> None:
        for run in self._runs:
            if isinstance(run, Host):
                self._host(run, own, inputs)
            else:
                self._launch(*run, own, inputs)

    def _each(self, own: list[Array], inputs: Sequence[Array]) -> list[float]:
        """Step by step; the seconds of each. Kernels that are watched count them."""
        seconds, launch = [], 0
        for step in self._steps:
            start = perf_counter()
            if isinstance(step, Host):
                self._host(step, own, inputs)
            else:
                self._launch(launch, launch + 1, own, inputs)
                launch += 1
            seconds.append(perf_counter() - start)
            if isinstance(step, Noted) and step.code.watched is not None:
                step.code.watched.note_facts(step.facts, int(seconds[-1] * 1e9))
        return seconds

    @property
    def is_current(self) -> bool:
        """Whether no more threads share the work than when the launches were noted."""
        return get_num_threads() <= self._threads

    def _bind(self, own: list[Array], inputs: Sequence[Array], numbers: Sequence[float],
              seen: int = -1) -> None:
        """Writes addresses and numbers. seen: the last input that was replaced by a plain one."""
        if not self.is_current:
            raise RuntimeError(f"a stream for {self._threads} threads, and now there are "
                               f"{get_num_threads()}: record it again")
        bad = native().bind(self._table.cells, *own, *inputs, *numbers)
        if bad is None:
            return
        if bad < 0:
            raise ValueError(f"a stream of {len(self._inputs)} arrays and {self._table.numbers} "
                             f"numbers was given {len(inputs)} and {len(numbers)}")
        plain = None if bad <= seen else _plain(inputs[bad], self._inputs[bad])
        if plain is None:
            raise ValueError(f"input {bad} of a stream: expected {_described(self._inputs[bad])}, "
                             f"got {_described(inputs[bad])}")
        self._bind(own, [*inputs[:bad], plain, *inputs[bad + 1:]], numbers, bad)

    def _launch(self, first: int, last: int, own: list[Array], inputs: Sequence[Array]) -> None:
        stopped = native().run(self._table.cells, first, last)
        if stopped is not None:
            self._raise(stopped, own, inputs)

    def _raise(self, launch: int, own: list[Array], inputs: Sequence[Array]) -> None:
        """What a raised flag means is said in Python."""
        self._table.lower_flags()
        check = [s for s in self._steps if isinstance(s, Noted)][launch].flag
        assert check is not None
        check.raises(*[self._array(site, own, inputs) for site in check.reads])
        raise RuntimeError("lampion, internal: a kernel raised a flag that nothing explains")

    def _host(self, step: Host, own: list[Array], inputs: Sequence[Array]) -> None:
        reads, writes = ([self._array(site, own, inputs) for site in sites]
                         for sites in (step.reads, step.writes))
        step.function(reads, writes)

    def _array(self, site: Site | Array, own: list[Array], inputs: Sequence[Array]) -> Array:
        """An array of this call; constants are themselves."""
        if isinstance(site, np.ndarray):
            return site
        number, offset = self._place[id(site.buffer)]
        base = own[number] if number < len(own) else inputs[number - len(own)]
        return _view(base, offset + site.offset, site)

    def _given(self, own: list[Array], inputs: Sequence[Array]) -> list[Array]:
        """The results as arrays; those that are views share memory as they did when noted."""
        if self._plain is not None:
            return [own[i] for i in self._plain]
        return [own[self._place[id(site.buffer)][0]] if _is_whole(site) else self._array(
            site, own, inputs) for site in self._outputs]


_streams: weakref.WeakSet[Stream] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """Another thread of the parent may have been inside a call."""
    _Loaded.lock = threading.Lock()
    for stream in list(_streams):
        stream._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _results(outputs: Sequence[Site]) -> list[Buffer]:
    """The buffers of results, each once."""
    found = {id(site.buffer): site.buffer for site in outputs if site.buffer.kind != "input"}
    for b in found.values():
        b.kind = "result"
    return list(found.values())


def _whole(b: Buffer) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of the array that holds a buffer."""
    return b.shape, b.dtype


def _is_whole(site: Site) -> bool:
    b = site.buffer
    return b.kind == "result" and (site.offset, site.shape, site.strides, site.dtype) == (
        0, b.shape, b.strides, b.dtype)


def _runs(steps: Sequence[Noted | Host], prepared: int) -> list[tuple[int, int] | Host]:
    """Runs of launches as (first, last), and the steps in Python between them."""
    runs: list[tuple[int, int] | Host] = []
    first = count = prepared
    for step in steps[prepared:]:
        if not isinstance(step, Host):
            count += 1
            continue
        if first < count:
            runs.append((first, count))
        runs.append(step)
        first = count
    return [*runs, (first, count)] if first < count else runs


def used(step: Noted | Host) -> Iterator[Buffer]:
    """The memory that a step reads or writes."""
    sites: list[Any] = ([*step.reads, *step.writes] if isinstance(step, Host)
                        else [site for _, site in step.arrays])
    if isinstance(step, Noted) and step.flag is not None:
        sites += step.flag.reads
    return (site.buffer for site in sites if isinstance(site, Site))


def _launch(step: Noted | Host) -> Launch:
    if isinstance(step, Host):
        facts = tuple(_facts(a) for a in (*step.writes, *step.reads))
        return Launch(step.name, facts, True, None)
    return Launch(step.code.name, step.facts, False, step.code.key)


def _facts(a: Site | Array) -> tuple[Any, ...]:
    return a.shape, a.strides, a.dtype.itemsize, None


def _plain(given: Any, like: Array) -> Array | None:
    """An ndarray as one of that class, and with that dtype object; None for other dtypes."""
    if not isinstance(given, np.ndarray) or given.dtype != like.dtype:
        return None
    return given.view(np.ndarray).view(like.dtype)


def _described(a: Any) -> str:
    if not isinstance(a, np.ndarray):
        return type(a).__name__
    return f"{a.dtype.name}{list(a.shape)} with strides {a.strides}"


def _view(base: Array, offset: int, site: Site) -> Array:
    """An array `offset` bytes behind the first element of `base`, whose memory it keeps alive."""
    low, high = extent(site.shape, site.strides, site.dtype.itemsize)
    start = base.__array_interface__["data"][0] + offset + low
    held: Any = (ctypes.c_char * (high - low)).from_address(start)
    held.base = base
    return np.ndarray(site.shape, site.dtype, held, -low, site.strides)


def extent(shape: tuple[int, ...], strides: tuple[int, ...], size: int) -> tuple[int, int]:
    """The bytes that an array's elements cover, relative to its first element."""
    if 0 in shape:
        return 0, 0
    low = high = 0
    for n, step in zip(shape, strides, strict=True):
        if step < 0:
            low += (n - 1) * step
        else:
            high += (n - 1) * step
    return low, high + size


# --- the table --------------------------------------------------------------------------------


class _Table:
    """The words that native code reads. Some hold the addresses of others: links."""

    def __init__(self, steps: Sequence[Noted | Host], place: dict[int, tuple[int, int]], own: int,
                 inputs: Sequence[Array], numbers: int, groups: Sequence[Group]) -> None:
        self.numbers, self._place = numbers, place
        self._words: list[int] = [0] * len(HEADER)
        self._links: list[int] = []  # words that hold the number of another word so far
        self._records: dict[Any, int] = {}
        self._flags: dict[int, int] = {}
        self._patches: list[int] = []
        self._sets: list[int] = []
        sizes = {g.first: 2 * g.size + g.wakes for g in groups}
        rows = [(*self._launch(step), sizes.get(i, 0)) for i, step in enumerate(steps)
                if isinstance(step, Noted)]
        self._header({
            "own": own, "inputs": len(inputs), "numbers": numbers, "array_type": id(np.ndarray),
            "patches": len(self._patches) // 3, "sets": len(self._sets) // 2}, {
            "bases": self._add([0] * (own + len(inputs))), "values": self._add([0] * numbers),
            "expected": self._add([word for a in inputs for word in _expected(a)]),
            "launches": self._launches(rows), "patch_table": self._add_rows(self._patches, 3),
            "set_table": self._add_rows(self._sets, 2)})
        self.cells = self._linked()
        self._inputs, self._own = inputs, own
        self._apart: _Apart | None = None

    def inputs_are_apart(self) -> bool:
        """Whether the inputs that were bound last have memory of their own, each of them."""
        if self._apart is None:
            self._apart = _Apart(self._inputs)
        at = (int(self.cells[HEADER.index("bases")]) - self.cells.ctypes.data) // 8 + self._own
        return self._apart.holds(self.cells[at:at + len(self._inputs)])

    def lower_flags(self) -> None:
        """As before the first launch."""
        for word in self._flags.values():
            self.cells[word] = 0

    # --- making it ----------------------------------------------------------------------------

    def _add(self, words: Sequence[int], links: Iterable[int] = ()) -> int:
        """Puts words at the end; the number of the first. links: which of them are links."""
        at = len(self._words)
        self._words += words
        self._links += [at + i for i in links]
        return at

    def _add_rows(self, words: Sequence[int], width: int) -> int:
        """Rows that start with a link."""
        return self._add(words, range(0, len(words), width))

    def _header(self, counts: dict[str, int], tables: dict[str, int]) -> None:
        both = counts | tables
        self._words[:len(HEADER)] = [both[name] for name in HEADER]
        self._links += [i for i, name in enumerate(HEADER) if name in tables]

    def _linked(self) -> Array:
        """The table in memory."""
        cells, links = np.array(self._words, np.int64), np.array(self._links)
        cells[links] = cells[links] * 8 + cells.ctypes.data
        return cells

    def _launches(self, rows: Sequence[tuple[int, int, int, int]]) -> int:
        """A row for each launch: the body, the argument words, the flag or 0, and of the first of a
        group twice its size, plus one where threads are woken for it.
        """
        return self._add([word for row in rows for word in row], [
            i for n, row in enumerate(rows) for i in (4 * n + 1, 4 * n + 2) if row[i % 4]])

    def _launch(self, step: Noted) -> tuple[int, int, int]:
        words = list(step.words)
        for i, site in step.arrays:
            words[i] = self._record(site)
        at = self._add(words, [i for i, _ in step.arrays])
        for i, number in step.numbers:
            self._sets += [at + i, number]
        return step.body, at, 0 if step.flag is None else self._flag(step.flag.flag.buffer)

    def _flag(self, buffer: Buffer) -> int:
        word = self._flags.get(id(buffer))
        if word is None:
            word = self._flags[id(buffer)] = self._add([0])
        return word

    def _record(self, site: Site) -> int:
        """The fields that kernels read of an array, where an ndarray has them."""
        key = id(site.buffer), site.offset, site.shape, site.strides
        found = self._records.get(key)
        if found is None:
            found = self._records[key] = self._new_record(site)
        return found

    def _new_record(self, site: Site) -> int:
        rank, at = len(site.shape), self._add([*site.shape, *site.strides])
        fields, links = [0] * _FIELDS, [_DIMENSIONS, _STRIDES]
        fields[_RANK], fields[_DIMENSIONS], fields[_STRIDES] = rank, at, at + rank
        if site.buffer.kind == "flag":
            fields[_DATA] = self._flag(site.buffer)
            return self._add(fields, [*links, _DATA])
        record = self._add(fields, links)
        base, offset = self._place[id(site.buffer)]
        self._patches += [record + _DATA, base, offset + site.offset]
        return record


class _Apart:
    """Whether arrays of these layouts, given their addresses, share no memory."""

    def __init__(self, arrays: Sequence[Array]) -> None:
        covered = [extent(a.shape, a.strides, a.itemsize) for a in arrays]
        self.low, self.high = np.array(covered, np.int64).reshape(-1, 2).T
        self.order = np.arange(len(arrays))  # by address; mostly as at the last call

    def holds(self, addresses: Array) -> bool:
        """Whether every array ends before the next one begins."""
        starts, ends = addresses + self.low, addresses + self.high
        if not self.in_order(starts, ends):
            self.order = np.argsort(starts, kind="stable")
            return self.in_order(starts, ends)
        return True

    def in_order(self, starts: Array, ends: Array) -> bool:
        return bool((ends[self.order[:-1]] <= starts[self.order[1:]]).all())


_FIELDS = np.ndarray.__basicsize__ // 8
_HEAD = object.__basicsize__ // 8
_DATA, _RANK, _DIMENSIONS, _STRIDES = _HEAD, _HEAD + 1, _HEAD + 2, _HEAD + 3  # in words


def _expected(a: Array) -> list[int]:
    return [id(a.dtype), a.ndim, *a.shape, *a.strides]
