"""The memory pool: arrays whose memory is kept and used again when they die.

Fresh memory from the system costs a page fault for every 4 KiB, more than most operators spend on
them; a training step asks for the same sizes again and again. Blocks are kept by size class. The
common path is native (codegen/allocator.py); this half finds a block where a class has none: a
larger free one, a piece of a chunk, or new memory. What is kept free is bounded.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..debug.knobs import knobs
from .loader import Image
from .native import function

__all__ = ["adopt", "divert", "empty", "max_memory_allocated", "memory_allocated",
           "memory_reserved", "reset_peak_memory_stats", "trim"]

Array = np.ndarray[Any, Any]

# Words that both halves know, in the order in which they lie in memory.
STATE = ("lock", "allocated", "peak", "least", "grow", "general", "capsule", "array_type",
         "new_from_descr", "tuple", "dtype_meta")
CLASSES = 8 * 44  # up to 16 TiB

_HEADER = 64  # bytes in front of a block: class, capacity, next free block
_LEAST = 1 << 10  # bytes; NumPy's own memory serves smaller arrays as quickly
_APART, _LARGE = 512, 1 << 14  # blocks of 16 KiB on start at multiples of 512 bytes, see _piece
_CHUNK = 1 << 22  # small blocks are cut from chunks of this size;
_FIRST_SPAN = 8 * 18  # those of this size class, above 256 KiB, are mapped alone
_HUGE = 1 << 21  # the processor's large pages
_SPARE = 32 << 20  # free memory kept in any case; beyond it, an eighth of the peak
# Positions in NumPy's table of C functions, fixed for good.
_NEW_FROM_DESCR, _GET_HANDLER = 94, 305


class ObjectLayout(NamedTuple):
    """Offsets of what the native half reads and writes in Python's and NumPy's objects."""

    type: int
    flags: int
    mem_handler: int
    type_number: int
    item_size: int


class _State:
    """The pool of this process, once it is up."""

    pool: _Pool | None = None
    refused = False
    plain: Callable[..., Any] = np.empty  # what `empty` is
    diverted: Callable[..., Any] | None = None  # what is in its place while a thread records


_lock = threading.Lock()
if hasattr(os, "register_at_fork"):  # another thread of the parent may have held it
    os.register_at_fork(after_in_child=lambda: globals().update(_lock=threading.Lock()))


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An uninitialised C-contiguous array; large ones have pooled memory, at least 64-byte aligned.

    Takes a tuple of ints and a dtype object; whatever else `numpy.empty` takes is left to it. Call
    it as `memory.empty`: `adopt` puts the native function in the place of this one.

    >>> import numpy as np
    >>> from lampion.runtime import memory
    >>> memory.empty((2, 3), np.dtype("float32")).shape
    (2, 3)
    """
    return np.empty(shape, dtype)


def memory_allocated() -> int:
    """Bytes of the blocks that arrays hold; memory that NumPy handed out itself is not counted."""
    return _State.pool.word("allocated") if _State.pool else 0


def max_memory_allocated() -> int:
    """The most that `memory_allocated` has been since the start or the last reset."""
    return _State.pool.word("peak") if _State.pool else 0


def reset_peak_memory_stats() -> None:
    """Lets `max_memory_allocated` begin again at what is allocated now."""
    if _State.pool:
        _State.pool.set("peak", memory_allocated())


def memory_reserved() -> int:
    """Bytes that the pool has from the system, held by arrays or free."""
    return _State.pool.reserved if _State.pool else 0


def trim() -> None:
    """Gives free blocks back to the system; pieces of chunks stay."""
    if _State.pool:
        _State.pool.release(_State.pool.reserved)


def adopt(native_half: Callable[[], Image]) -> bool:
    """Brings the pool up, once; False where it is switched off or this NumPy is laid out otherwise.

    `native_half` loads the machine code; it is not called where the pool cannot work.
    """
    with _lock:
        if _State.pool is None and not _State.refused:
            _State.refused = not (knobs.pool and _is_as_expected(layout()))
            if not _State.refused:
                _State.pool = _Pool(native_half())
                _State.plain = _State.pool.empty
                _choose()
    return _State.pool is not None


def divert(planner: Callable[[tuple[int, ...], np.dtype[Any]], Array]) -> Callable[[], None]:
    """Lets `planner` serve this thread instead of `empty`, until the result is called."""
    thread = threading.get_ident()

    def chosen(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        mine = threading.get_ident() == thread
        made: Array = planner(shape, dtype) if mine else _State.plain(shape, dtype)
        return made

    def restore() -> None:
        _State.diverted = None
        _choose()
    _State.diverted = chosen
    _choose()
    return restore


def _choose() -> None:
    globals()["empty"] = _State.diverted or _State.plain


def layout() -> ObjectLayout:
    """The layout that CPython's and NumPy 2's headers declare; `adopt` verifies it."""
    head = object.__basicsize__
    return ObjectLayout(head - 8, head + 48, head + 72, head + 12, head + 24)


def capacity(number: int) -> int:
    """The bytes of a block of a size class: eight classes to a doubling."""
    return (9 + number % 8) << number // 8 - 3


class _Pool:
    """The native functions, and the memory they hand out.

    Neither may go before the last array does, and arrays outlive modules at the interpreter's end:
    the pool is never freed.
    """

    def __init__(self, image: Image) -> None:
        symbols, pointer = image.symbols, ctypes.c_void_p
        native = functools.partial(ctypes.PYFUNCTYPE, pointer)
        self._pop = native(ctypes.c_int64)(symbols["pop"])
        self._push = ctypes.PYFUNCTYPE(None, ctypes.c_int64, pointer)(symbols["push"])
        state = native()(symbols["lampion_state"])()
        self._words = (ctypes.c_int64 * len(STATE)).from_address(state)
        self._spans: dict[int, mmap.mmap] = {}  # memory of blocks that are mapped alone
        self._chunks: list[mmap.mmap] = []
        self._chunk_next = self._chunk_end = self.reserved = 0
        self.set("least", _LEAST)
        self.set("new_from_descr", _numpy_table()[_NEW_FROM_DESCR])
        name = b"mem_handler"  # the capsule keeps a pointer to it
        capsule = _capsule(native()(symbols["lampion_handler"])(), name)
        self._keep(name, grow=self.grow, general=np.empty, array_type=np.ndarray, tuple=tuple,
                   dtype_meta=type(np.dtype), capsule=capsule)
        self.empty = function(symbols["lampion_empty"], "empty", image, empty.__doc__ or "")
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))
        os.register_at_fork(after_in_child=functools.partial(self.set, "lock", 0))

    def _keep(self, *others: Any, **objects: Any) -> None:
        """Objects that the native half uses, kept for good."""
        self._kept = objects, others
        for name, value in objects.items():
            self.set(name, id(value))

    def word(self, name: str) -> int:
        """A word of the native half's state."""
        return int(self._words[STATE.index(name)])

    def set(self, name: str, value: int) -> None:
        """Sets a word of the native half's state."""
        self._words[STATE.index(name)] = value

    def grow(self, number: int) -> None:
        """Makes one block free in a size class. Called where it has none, for every new size."""
        block = self._larger(number)
        try:
            if block is None:
                block = self._piece(number) if number < _FIRST_SPAN else self._span(number)
        except OSError:  # no memory: NumPy is asked instead, and says so
            return
        self._push(number, block)

    def _larger(self, number: int) -> int | None:
        """A free block of at most twice the size; it returns to its own class when it is freed."""
        for other in range(number + 1, min(number + 9, CLASSES)):
            block = self._pop(other)
            if block:
                return int(block)
        return None

    def _piece(self, number: int) -> int:
        """A new block out of a chunk.

        A load waits for an earlier store at the same place of another page. Where results lie 64
        bytes further in their pages than arguments do, that costs a quarter of the time.
        """
        size = capacity(number)
        apart = _APART if size >= _LARGE else _HEADER
        block = _round_up(self._chunk_next + _HEADER, apart)
        if block + size > self._chunk_end:
            memory, start = self._map(_CHUNK, _HUGE)
            self._chunks.append(memory)
            self._chunk_end = start + _CHUNK
            block = _round_up(start + _HEADER, apart)
        self._chunk_next = block + size
        return _with_header(block, number)

    def _span(self, number: int) -> int:
        """A new block that is mapped alone."""
        size = _span_size(number)
        most = max(self.word("peak"), self.word("allocated") + size)
        self.release(self.reserved + size - (most * 9 // 8 + _SPARE))
        memory, block = self._map(size, _HUGE if size >= _HUGE else mmap.PAGESIZE)
        self._spans[block] = memory
        return _with_header(block, number)

    def _map(self, size: int, alignment: int) -> tuple[mmap.mmap, int]:
        """Memory from the system, and an aligned address in it with room for a header before."""
        memory = mmap.mmap(-1, size + alignment, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        block = _round_up(start + _HEADER, alignment)
        if alignment == _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE, block - start, size)
        self.reserved += size
        return memory, block

    def release(self, wanted: int) -> None:
        """Gives free blocks back to the system, the largest first, until it has got so much."""
        for number in range(CLASSES - 1, _FIRST_SPAN - 1, -1):
            while wanted > 0:
                block = self._pop(number)
                if not block:
                    break
                self._spans.pop(block).close()
                self.reserved -= _span_size(number)
                wanted -= _span_size(number)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _span_size(number: int) -> int:
    return _round_up(capacity(number), mmap.PAGESIZE)


def _with_header(block: int, number: int) -> int:
    header = (ctypes.c_int64 * 2).from_address(block - _HEADER)
    header[0], header[1] = number, capacity(number)
    return block


def _capsule(pointer: int, name: bytes) -> Any:
    """The form in which arrays carry their handler."""
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(pointer, name, None)


def _numpy_table() -> Any:
    """NumPy's table of C functions."""
    from numpy._core import _multiarray_umath  # type: ignore[attr-defined]

    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = get(_multiarray_umath._ARRAY_API, None)
    return (ctypes.c_size_t * (_GET_HANDLER + 1)).from_address(address)


def _is_as_expected(places: ObjectLayout) -> bool:
    """Whether real objects are laid out so."""
    if int(np.__version__.partition(".")[0]) < 2:
        return False
    if np.ndarray.__basicsize__ < places.mem_handler + 8:
        return False
    handler = id(ctypes.PYFUNCTYPE(ctypes.py_object)(_numpy_table()[_GET_HANDLER])())
    probe = np.empty((3, 4))
    arrays = [probe, np.empty((3, 4), order="F"), probe[1:, ::2]]
    return (all(_number(a, places.flags) == a.flags.num for a in arrays)
            and _word(probe, places.mem_handler) == handler
            and _word(probe[1:], places.mem_handler) == 0
            and all(_number(d, places.type_number) == d.num
                    and _word(d, places.item_size) == d.itemsize
                    and _word(d, places.type) == id(type(d))
                    for d in map(np.dtype, "?bhifdDS")))


def _number(thing: Any, offset: int) -> int:
    return ctypes.c_int.from_address(id(thing) + offset).value


def _word(thing: Any, offset: int) -> int:
    return ctypes.c_size_t.from_address(id(thing) + offset).value
