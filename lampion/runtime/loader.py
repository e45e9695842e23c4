"""Machine code from an object file into executable memory.

One mapping per object, in three parts that each become what they must be and no more: code (read
and execute), constants and the table of external addresses (read), variables (read and write).
Memory is never writable and executable at once. Calls out of an image go through a stub beside the
code, so it does not matter how far the function is.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import platform
import struct
import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .elf import AARCH64, X86_64, BadObject, ObjectFile, Section
from .relocate import JUMPS, KINDS, SLOTS, STUB, stub

__all__ = ["BadObject", "EXTERNALS", "Image", "PROVIDERS", "UnknownSymbol", "link", "load"]

_MACHINES = {"x86_64": X86_64, "amd64": X86_64, "aarch64": AARCH64, "arm64": AARCH64}



def _words(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


# The C API that entries use, and what LLVM may call by itself or for an intrinsic.
_PYTHON = _words(
    "PyDict_Next _PyDict_GetItem_KnownHash",
    "PyErr_Clear PyErr_Occurred PyErr_SetString PyErr_WriteUnraisable",
    "PyEval_RestoreThread PyEval_SaveThread",
    "PyFloat_AsDouble PyFloat_FromDouble PyLong_AsLongLong PyLong_AsSsize_t PyLong_FromLongLong",
    "PyObject_CallNoArgs PyObject_CallOneArg PyObject_IsTrue PyObject_Vectorcall",
    "PyThread_get_thread_ident",
    "PyTuple_GetItem PyTuple_Size Py_AddPendingCall Py_DecRef Py_IncRef")
_MATHS = _words(
    "acos asin atan atan2 cbrt ceil cos cosh erf erfc exp exp2 exp10 expm1 fdim floor fma fmax",
    "fmin fmod frexp hypot ldexp lgamma log log10 log1p log2 modf nearbyint pow remainder rint",
    "round roundeven sin sincos sinh sqrt tan tanh tgamma trunc")
_SYSTEM = _words(
    "memcpy memmove memset memcmp bzero malloc free posix_memalign sched_yield",
    "pthread_mutex_init pthread_mutex_lock pthread_mutex_trylock pthread_mutex_unlock",
    "pthread_cond_init pthread_cond_wait pthread_cond_signal pthread_cond_broadcast")
_COMPILER = _words(
    "__extendhfsf2 __truncsfhf2 __truncdfhf2 __truncsfbf2 __truncdfbf2 __sincosf __sincos",
    "__divti3 __modti3 __udivti3 __umodti3 __multi3")
_LIBRARY = _MATHS | {name + "f" for name in _MATHS} | _SYSTEM | _COMPILER

EXTERNALS: dict[str, int] = {}
"""Addresses of external symbols, filled as objects ask for them."""

PROVIDERS: dict[str, Callable[[], int]] = {}
"""What gives the address of a symbol that must first be brought up, such as the thread pool's."""


class UnknownSymbol(BadObject):
    """An object refers to a name that kernels may not use, or that this system lacks."""


class Image:
    """Loaded code; it stays in memory as long as the image is referenced.

    `symbols` maps the names of the object's global functions to their addresses.
    """

    __slots__ = ("__weakref__", "_memory", "address", "size", "symbols")

    def __init__(self, memory: mmap.mmap, address: int, size: int, symbols: dict[str, int]) -> None:
        self._memory, self.address, self.size, self.symbols = memory, address, size, symbols

    def __repr__(self) -> str:
        return f"<Image {', '.join(self.symbols)}: {self.size} bytes at {self.address:#x}>"


class Layout(NamedTuple):
    """Offsets in an image: of every section, of every external's slot and stub, of the parts."""

    sections: dict[int, int]
    slots: dict[int, int]
    stubs: dict[int, int]
    constants: int
    variables: int
    size: int


def load(data: bytes) -> Image:
    """Places the object file `data` in executable memory.

    Raises BadObject where it is malformed, made for another processor or has a relocation that is
    not known, UnknownSymbol where it refers to a name outside EXTERNALS.
    """
    parsed = ObjectFile(data)
    if parsed.machine != _MACHINES.get(platform.machine().lower()):
        raise BadObject(f"object for ELF machine {parsed.machine}, not for {platform.machine()}")
    layout = plan(parsed)
    memory = mmap.mmap(-1, layout.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
                       prot=mmap.PROT_READ | mmap.PROT_WRITE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    image, symbols = link(parsed, layout, address, resolve)
    memory[:len(image)] = bytes(image)
    _protect(address, layout)
    return Image(memory, address, layout.size, symbols)


def plan(parsed: ObjectFile, page: int = mmap.PAGESIZE) -> Layout:
    """Where everything goes: code and stubs, constants and slots, variables; parts on own pages."""
    offsets: dict[int, int] = {}
    external = _external(parsed)
    end = _place((s for s in parsed.sections.values() if s.executable), offsets, 0)
    stubs, end = _array(external, end, STUB)
    constants = _round_up(end, page)
    end = _place((s for s in parsed.sections.values() if not (s.executable or s.writable)),
                 offsets, constants)
    slots, end = _array(external, end, 8)
    variables = _round_up(end, page)
    if any(s.writable and s.executable for s in parsed.sections.values()):
        raise BadObject("a section is writable and executable")
    end = _place((s for s in parsed.sections.values() if s.writable), offsets, variables)
    return Layout(offsets, slots, stubs, constants, variables, max(_round_up(end, page), page))


def link(parsed: ObjectFile, layout: Layout, base: int,
         resolve: Callable[[str], int]) -> tuple[bytearray, dict[str, int]]:
    """The bytes of the image as they must be at address `base`, and its global functions."""
    image = bytearray(layout.size)
    for index, section in parsed.sections.items():
        image[layout.sections[index]:layout.sections[index] + len(section.data)] = section.data
    for symbol, slot in layout.slots.items():
        struct.pack_into("<Q", image, slot, _address(parsed, layout, base, symbol, resolve))
        place = layout.stubs[symbol]
        image[place:place + STUB] = stub(parsed.machine, base + place, base + slot)
    _relocate(parsed, layout, base, image)
    functions = {s.name: base + layout.sections[s.section] + s.value for s in parsed.symbols
                 if s.is_global and s.is_function and s.section in layout.sections}
    return image, functions


def resolve(name: str) -> int:
    """The address of the external symbol `name`."""
    if name not in EXTERNALS:
        EXTERNALS[name] = _find(name)
    return EXTERNALS[name]


def _find(name: str) -> int:
    if name in PROVIDERS:
        return PROVIDERS[name]()
    if name == "_Py_NoneStruct":
        return id(None)
    try:
        if name in _PYTHON:
            return _pointer(ctypes.pythonapi, name)
        if name in _LIBRARY:
            return _in_library(name)
    except AttributeError:
        raise UnknownSymbol(f"kernels may use {name!r}, but this system lacks it") from None
    raise UnknownSymbol(f"{name!r} is not among the functions that kernels may use")


def _in_library(name: str) -> int:
    """From what the process has loaded already, or the compiler's support library."""
    try:
        return _pointer(_process(), name)
    except AttributeError:
        if name not in _COMPILER or sys.platform == "darwin":
            raise
    try:
        return _pointer(ctypes.CDLL("libgcc_s.so.1"), name)
    except OSError:
        raise AttributeError(name) from None


@functools.cache
def _process() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _pointer(library: ctypes.CDLL, name: str) -> int:
    return ctypes.cast(library[name], ctypes.c_void_p).value or 0


def _external(parsed: ObjectFile) -> list[int]:
    """Symbols that need a slot: external ones, and own ones that are reached by a slot."""
    by_slot = SLOTS[parsed.machine]
    return sorted({r.symbol for r in parsed.relocations
                   if parsed.symbols[r.symbol].section == 0 or r.kind in by_slot})


def _place(sections: Iterable[Section], offsets: dict[int, int], start: int) -> int:
    end = start
    for section in sections:
        offsets[section.number] = _round_up(end, section.alignment)
        end = offsets[section.number] + section.size
    return end


def _array(symbols: list[int], start: int, size: int) -> tuple[dict[int, int], int]:
    """An offset of `size` bytes for each symbol, and where they end."""
    start = _round_up(start, 16)
    return {s: start + i * size for i, s in enumerate(symbols)}, start + len(symbols) * size


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _address(parsed: ObjectFile, layout: Layout, base: int, index: int,
             resolve: Callable[[str], int]) -> int:
    symbol = parsed.symbols[index]
    if symbol.section == 0:
        return resolve(symbol.name)
    if symbol.section is None:
        return symbol.value
    if symbol.section not in layout.sections:
        raise BadObject(f"symbol {symbol.name!r} is in a section that is not loaded")
    return base + layout.sections[symbol.section] + symbol.value


def _relocate(parsed: ObjectFile, layout: Layout, base: int, image: bytearray) -> None:
    kinds, by_slot = KINDS[parsed.machine], SLOTS[parsed.machine]
    for section, offset, kind, symbol, addend in parsed.relocations:
        if kind not in kinds:
            raise BadObject(f"relocation {kind} of ELF machine {parsed.machine} is not known")
        size, write = kinds[kind]
        if not 0 <= offset <= parsed.sections[section].size - size:
            raise BadObject("relocation outside its section")
        at = layout.sections[section] + offset
        if kind in by_slot:
            target = base + layout.slots[symbol]
        else:
            target = _target(parsed, layout, base, symbol, kind, image)
        write(image, at, target + addend, base + at)


def _target(parsed: ObjectFile, layout: Layout, base: int, symbol: int, kind: int,
            image: bytearray) -> int:
    """The address that a relocation means: to call an external function, that of its stub."""
    if parsed.symbols[symbol].section != 0:
        return _address(parsed, layout, base, symbol, resolve)
    if kind in JUMPS[parsed.machine]:
        return base + layout.stubs[symbol]
    return int(struct.unpack_from("<Q", image, layout.slots[symbol])[0])


def _protect(address: int, layout: Layout) -> None:
    """The final rights of each part."""
    code = mmap.PROT_READ | mmap.PROT_EXEC
    _flush_instructions(address, layout.constants)
    _mprotect(address, layout.constants, code)
    _mprotect(address + layout.constants, layout.variables - layout.constants, mmap.PROT_READ)


def _mprotect(address: int, size: int, rights: int) -> None:
    if not size:
        return
    pointer, length = ctypes.c_void_p(address), ctypes.c_size_t(size)
    if _process().mprotect(pointer, length, rights):
        raise OSError(ctypes.get_errno(), "the system does not allow executable memory")


def _flush_instructions(address: int, size: int) -> None:
    """Makes new code visible to the instruction cache, where hardware does not do so itself.

    Linux on AArch64 also does it when pages become executable.
    """
    if platform.machine().lower() not in ("aarch64", "arm64"):
        return
    if sys.platform == "darwin":
        _process().sys_icache_invalidate(ctypes.c_void_p(address), ctypes.c_size_t(size))
        return
    try:
        clear = ctypes.CDLL("libgcc_s.so.1")["__clear_cache"]
    except (OSError, AttributeError):
        return
    clear(ctypes.c_void_p(address), ctypes.c_void_p(address + size))
