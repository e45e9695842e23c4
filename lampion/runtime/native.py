"""Loaded code as Python functions, and the memory layout of ndarray that kernels rely on."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .loader import Image

__all__ = ["ArrayLayout", "KernelsUnavailable", "array_layout", "function"]

_METH_FASTCALL = 0x80


class KernelsUnavailable(RuntimeError):
    """This interpreter or NumPy is not laid out in memory as kernels assume."""


class ArrayLayout(NamedTuple):
    """Offsets in bytes within an ndarray object."""

    data: int
    nd: int
    dimensions: int
    strides: int


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = [("name", ctypes.c_char_p), ("meth", ctypes.c_void_p), ("flags", ctypes.c_int),
                ("doc", ctypes.c_char_p)]


class Code:
    """What a native function needs as long as it lives; it is the function's `__self__`."""

    __slots__ = ("image", "key", "name", "watched", "writes")

    def __init__(self, name: str, image: Image) -> None:
        self.name, self.image = name, image
        self.key: Any = None  # of a kernel
        self.watched: Any = None  # where launches are counted, see `debug/kernels.py`
        self.writes: list[bool] | None = None  # see `written`

    def written(self, count: int) -> list[bool]:
        """Which of `count` arguments the code may store to; as far as the code tells."""
        if self.writes is None:
            self.writes = [False] * count
            address = self.image.symbols.get("written")
            if address is not None:
                table = ctypes.CFUNCTYPE(ctypes.c_void_p)(address)()
                words = (ctypes.c_uint64 * (-(-count // 64))).from_address(table or 0)
                self.writes = [bool(words[i // 64] >> i % 64 & 1) for i in range(count)]
        return self.writes

    @property
    def tells(self) -> bool:
        """Whether the code tells what it writes."""
        return "written" in self.image.symbols

    def __repr__(self) -> str:
        return f"<native code of {self.name}>"


def function(address: int, name: str, owner: Image, doc: str = "") -> Callable[..., Any]:
    """A builtin over the native function at `address` of the image `owner`.

    The function is `ptr f(ptr self, ptr args, i64 count)`, CPython's METH_FASTCALL: it gets its
    positional arguments as an array of object pointers and returns a new reference: to return None
    it calls `Py_IncRef(_Py_NoneStruct)` first, which every version of CPython treats rightly.
    """
    if not owner.address <= address < owner.address + owner.size:
        raise ValueError(f"{name}: address {address:#x} is not within {owner}")
    method = _MethodDef(name.encode(), address, _METH_FASTCALL, doc.encode() or None)
    # Never freed: a function that dies looks into it, and the collector, which takes cycles apart
    # in any order (at the end of the interpreter nearly everything), may clear its owner before.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(method))
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.c_void_p, ctypes.py_object, ctypes.py_object]
    return make(ctypes.addressof(method), Code(name, owner), "lampion")


@functools.cache
def array_layout() -> ArrayLayout:
    """Where an ndarray keeps its memory, rank, sizes and strides; verified once on real arrays.

    Raises KernelsUnavailable where this interpreter or NumPy keeps them elsewhere.
    """
    head = object.__basicsize__
    layout = ArrayLayout(head, head + 8, head + 16, head + 24)
    probe = np.zeros((5, 7, 3), np.float32)[1:, ::2, ::-1]
    for array in (probe, probe.T, probe[0, 0, 0:1], np.zeros((2, 0), np.int8), np.zeros(())):
        if _read(array, layout) != (array.ctypes.data, array.shape, array.strides):
            raise KernelsUnavailable(
                f"NumPy {np.__version__} does not lay out ndarray as native kernels assume; "
                "operators run on NumPy alone")
    return layout


def _read(array: np.ndarray[Any, Any],
          layout: ArrayLayout) -> tuple[int, tuple[int, ...], tuple[int, ...]] | None:
    """Memory, shape and strides as a kernel would read them, or None where they cannot be there."""
    start = id(array)
    if np.ndarray.__basicsize__ < layout.strides + 8:
        return None
    rank = ctypes.c_int.from_address(start + layout.nd).value
    if rank != array.ndim:
        return None
    data, dimensions, strides = (
        ctypes.c_size_t.from_address(start + offset).value
        for offset in (layout.data, layout.dimensions, layout.strides))
    if rank and not (dimensions and strides):
        return None
    words = ctypes.c_ssize_t * rank
    return (data, tuple(words.from_address(dimensions)) if rank else (),
            tuple(words.from_address(strides)) if rank else ())
