"""Storage: the memory that a tensor and its views share, with its version counter.

A tensor gets a Storage only when something needs to be shared: its first view, its first in-place
write. `version` counts writes; `history` counts the writes that changed the recorded history, so
that views know when their `grad_fn` is out of date.

Programs keep values that they computed from memory as long as nobody writes to it. What `version`
does not tell is told by `aside`: writes through `t.data`, which counts for itself, and whether
others hold the memory, who count nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import CodeType
from typing import Any

import numpy as np

from .abstract import AbstractArray

__all__ = ["Aside", "Storage"]


class Aside:
    """What a storage's `version` does not tell, shared by all storages of the memory.

    writes: to any of them. open: whether NumPy or another owner may write at any time.
    """

    __slots__ = ("open", "writes")
    news = 0  # grows whenever one of them changes

    def __init__(self) -> None:
        self.writes, self.open = 0, False


class Storage:
    """Memory shared by a tensor and its views."""

    __slots__ = ("_flat", "array", "aside", "history", "version", "writer")

    def __init__(self, array: Any) -> None:
        self.array = array
        self.version = 0
        self.history = 0
        self.writer: tuple[str, CodeType | None, int] | None = None
        self._flat: Any = None
        self.aside: Aside | None = None

    def count_write(self) -> None:
        """Notes a write to the memory."""
        self.version += 1
        if self.aside is not None:
            self.aside.writes += 1
            Aside.news += 1

    def twin(self) -> Storage:
        """The same memory with a version counter of its own."""
        made = Storage(self.array)
        self.aside = made.aside = self.aside or Aside()
        return made

    def open(self) -> None:
        """Notes that the memory is handed to somebody whose writes are not counted."""
        if self.aside is None:
            self.aside = Aside()
        self.aside.open = True
        Aside.news += 1

    @property
    def flat(self) -> np.ndarray[Any, Any]:
        """The whole memory as bytes, lowest address first."""
        if self._flat is None:
            self._flat = _as_bytes(self.array)
        return self._flat

    @property
    def nbytes(self) -> int:
        """Size of the memory in bytes."""
        if isinstance(self.array, AbstractArray):
            return self.array.storage_nbytes
        return int(self.flat.nbytes)

    def window(self, shape: Sequence[int], strides: Sequence[int], offset: int,
               np_dtype: np.dtype[Any]) -> Any:
        """The elements at `offset` and `strides` (bytes); RuntimeError outside the memory."""
        if isinstance(self.array, AbstractArray):
            self._check_bounds(shape, strides, offset, np_dtype.itemsize)
            return self.array.view_as(tuple(shape), tuple(strides), offset, np_dtype)
        try:
            return np.ndarray(shape, np_dtype, self.flat, offset, strides)
        except ValueError:
            self._check_bounds(shape, strides, offset, np_dtype.itemsize)
            return np.ndarray(shape, np_dtype)  # no element: nothing to share

    def _check_bounds(self, shape: Sequence[int], strides: Sequence[int], offset: int,
                      itemsize: int) -> None:
        reach = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + itemsize
        if 0 not in shape and (offset < 0 or offset + reach > self.nbytes):
            raise RuntimeError(
                f"setStorage: sizes {list(shape)}, strides {[s // itemsize for s in strides]}, "
                f"storage offset {offset // itemsize}, and itemsize {itemsize} requiring a "
                f"storage size of {offset + reach} are out of bounds for storage of size "
                f"{self.nbytes}")


def root_of(array: Any) -> Any:
    """The array that owns the memory that `array` looks at."""
    while type(array) is np.ndarray and type(array.base) is np.ndarray:
        array = array.base
    return array


def _as_bytes(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.flags.f_contiguous:
        array = array.T
    if not array.flags.c_contiguous:
        # A view given from outside (from_numpy): cover the span from its first to last element.
        span = sum(s * (n - 1) for s, n in zip(array.strides, array.shape, strict=True))
        first = array[(slice(0, 1),) * array.ndim].reshape(1).view(np.uint8)
        return np.lib.stride_tricks.as_strided(first, (span + array.itemsize,), (1,))
    return array.reshape(-1).view(np.uint8)


def address(array: np.ndarray[Any, Any]) -> int:
    """Address of the first element."""
    return int(array.__array_interface__["data"][0]) if array.dtype.num < 256 else int(
        array.ctypes.data)
