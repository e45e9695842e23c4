"""Which bytes of which memory a file needs, so that views stay shared and no more is written.

Tensors of one memory whose byte ranges overlap go into one storage of the file, which covers
just their union. A tensor that shares with no other and leaves gaps is written densely.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..tensor import Storage, Tensor, dtype, storage_of
from ..tensor.storage import address
from .storages import UNTYPED, StorageType, storage_type_of

__all__ = ["Layout", "Placed"]


class Placed(NamedTuple):
    """Where a tensor is in the file; offset and strides in elements."""

    kind: StorageType
    key: str
    numel: int
    offset: int
    stride: tuple[int, ...]


class _Range:
    """Overlapping tensors of one memory, and the bytes they cover."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.tensors: list[Tensor] = []
        self.key = ""

    def dtypes(self) -> set[dtype]:
        return {t._dtype for t in self.tensors}


class Layout:
    """Collects tensors, then decides what to write and where each is found."""

    def __init__(self) -> None:
        self._memories: dict[int, tuple[Storage, list[Tensor]]] = {}
        self._seen: dict[int, Tensor] = {}
        self._placed: dict[int, Placed] = {}
        self._arrays: list[np.ndarray[Any, Any]] = []

    @property
    def arrays(self) -> list[np.ndarray[Any, Any]]:
        """The bytes of each storage; the keys count from 0."""
        return self._arrays

    def add(self, tensor: Tensor) -> None:
        """Take note of `tensor`, which is kept alive: the decision goes by identity."""
        if id(tensor) in self._seen:
            return
        self._seen[id(tensor)] = tensor
        memory = storage_of(tensor)
        base = address(memory.flat) if memory.nbytes else id(memory)
        self._memories.setdefault(base, (memory, []))[1].append(tensor)

    def decide(self) -> None:
        """Fix the storages of all tensors added so far."""
        for memory, tensors in self._memories.values():
            for part in _overlapping(memory, tensors):
                self._place(memory, part)
        self._memories.clear()

    def find(self, tensor: Tensor) -> Placed:
        """Where `tensor` is; one that was not added is added by itself."""
        if id(tensor) not in self._placed:
            self.add(tensor)
            self.decide()
        return self._placed[id(tensor)]

    def _place(self, memory: Storage, part: _Range) -> None:
        if len(part.tensors) == 1 and _has_gaps(part.tensors[0], part):
            self._place_densely(part.tensors[0])
            return
        kinds = part.dtypes()
        kind = storage_type_of(next(iter(kinds))) if len(kinds) == 1 else UNTYPED
        key = self._new_storage(memory.flat[part.start : part.stop])
        for t in part.tensors:
            width = t._dtype.itemsize
            offset = (_start(memory, t) - part.start) // width if t._a.size else 0
            numel = (part.stop - part.start) // (width if kind.dtype else 1)
            self._placed[id(t)] = Placed(kind, key, numel, offset, t.stride())

    def _place_densely(self, t: Tensor) -> None:
        dense = np.ascontiguousarray(t._a).reshape(t._a.shape)
        kind = storage_type_of(t._dtype)
        numel = dense.size if kind.dtype else dense.nbytes
        stride = [1]
        for n in dense.shape[:0:-1]:
            stride.append(stride[-1] * max(n, 1))
        key = self._new_storage(dense.reshape(-1).view(np.uint8))
        strides = tuple(reversed(stride)) if dense.ndim else ()
        self._placed[id(t)] = Placed(kind, key, numel, 0, strides)

    def _new_storage(self, data: np.ndarray[Any, Any]) -> str:
        self._arrays.append(data)
        return str(len(self._arrays) - 1)


def _start(memory: Storage, t: Tensor) -> int:
    return address(t._a) - address(memory.flat)


def _extent(memory: Storage, t: Tensor) -> tuple[int, int]:
    """The bytes of `memory` from the first to the last that `t` uses."""
    if t._a.size == 0:
        return 0, 0
    reach = [(n - 1) * s for n, s in zip(t._a.shape, t._a.strides)]
    start = _start(memory, t)
    low = start + sum(r for r in reach if r < 0)
    return low, start + sum(r for r in reach if r > 0) + t._dtype.itemsize


def _overlapping(memory: Storage, tensors: list[Tensor]) -> list[_Range]:
    """Groups of tensors whose byte ranges overlap; backward strides stand alone."""
    parts: list[_Range] = []
    spans = sorted(((*_extent(memory, t), t) for t in tensors), key=lambda span: span[:2])
    for start, stop, t in spans:
        alone = start == stop or any(s < 0 for s in t._a.strides)
        if not alone and parts and start < parts[-1].stop:
            parts[-1].stop = max(parts[-1].stop, stop)
        else:
            parts.append(_Range(start, stop))
        parts[-1].tensors.append(t)
    return parts


def _has_gaps(t: Tensor, part: _Range) -> bool:
    """Whether writing the range would write more, or other, than the tensor's elements."""
    return t._a.nbytes < part.stop - part.start or any(s < 0 for s in t._a.strides)
