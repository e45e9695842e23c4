"""Files from before PyTorch 1.6: a run of pickles, then the bytes of the storages."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from ..tensor import Storage
from .archive import fill
from .machine import Machine, UnpicklingError
from .policy import SafePolicy
from .storages import LoadedStorage, Locator, StorageType

__all__ = ["is_legacy", "load"]

_MAGIC = 0x1950A86A20F9469CFC6C
_MAGIC_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_PROTOCOL = 1001


def is_legacy(start: bytes) -> bool:
    """Whether a file that starts like this is in the old format."""
    return start.startswith(_MAGIC_START[:4])


def load(file: IO[bytes], locate: Locator, make: Callable[[Any], SafePolicy]) -> Any:
    """The object in an old file; `make` gives the policy for a storage function."""
    return _Legacy(file, locate, make).run()


class _Legacy:
    def __init__(self, file: IO[bytes], locate: Locator, make: Callable[[Any], SafePolicy]) -> None:
        self._file, self._locate = file, locate
        here = file.tell()
        self._end = file.seek(0, os.SEEK_END)
        file.seek(here)
        self._storages: dict[str, LoadedStorage] = {}
        self._views: dict[str, LoadedStorage] = {}
        self._policy = make(self._storage)

    def run(self) -> Any:
        if self._pickle() != _MAGIC:
            raise RuntimeError("Invalid magic number; corrupt file?")
        version = self._pickle()
        if version != _PROTOCOL:
            raise RuntimeError(f"Invalid protocol version: {version}")
        self._info = self._pickle()
        result = self._pickle()
        keys = self._pickle()
        if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(self._storages):
            raise UnpicklingError("the file's list of storages does not match its contents")
        for key in keys:
            self._fill(self._storages[key])
        self._policy.warn()
        return result

    def _pickle(self) -> Any:
        return Machine(self._read, self._file.readline, self._policy).run()

    def _read(self, count: int) -> bytes:
        return self._file.read(min(count, self._end - self._file.tell()))

    def _storage(self, pid: Any) -> LoadedStorage:
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise UnpicklingError(f"unknown persistent id {pid!r:.100}")
        kind, key, location, numel = pid[1:5]
        if not isinstance(kind, StorageType) or type(numel) is not int:
            raise UnpicklingError("the file has a storage without type or size")
        key = str(key)
        if key not in self._storages:
            nbytes = numel * _width(kind)
            if not 0 <= nbytes <= self._end:
                raise UnpicklingError(f"storage {key} claims {nbytes} bytes, more than the file")
            memory = Storage(np.zeros(nbytes, np.uint8))
            where = self._locate(memory, str(location))
            self._storages[key] = LoadedStorage(memory, kind.dtype, where)
        root = self._storages[key]
        return self._view(root, pid[5]) if len(pid) == 6 and pid[5] is not None else root

    def _view(self, root: LoadedStorage, view: Any) -> LoadedStorage:
        """A part of a storage that has a key of its own."""
        key, offset, size = view
        if key not in self._views:
            width = _width(root)
            start, stop = int(offset) * width, (int(offset) + int(size)) * width
            if not 0 <= start <= stop <= root.storage.nbytes:
                raise UnpicklingError("the file has a storage view outside its storage")
            part = Storage(root.storage.flat[start:stop])
            self._views[key] = LoadedStorage(part, root.dtype, root.location)
        return self._views[key]

    def _fill(self, target: LoadedStorage) -> None:
        head = self._read(8)
        count = target.storage.nbytes // _width(target)
        if len(head) != 8 or struct.unpack("<q", head)[0] != count:
            raise RuntimeError("storage has wrong byte size: the file is damaged or was cut short")
        fill(self._file.readinto, target.storage.flat, "a storage")  # type: ignore[attr-defined]
        swapped = isinstance(self._info, dict) and self._info.get("little_endian") is False
        if swapped and target.dtype is not None:
            values = target.storage.flat.view(target.dtype.np)
            values.byteswap(inplace=True)


def _width(typed: StorageType | LoadedStorage) -> int:
    """Bytes of an element; untyped storages count bytes."""
    return 1 if typed.dtype is None else typed.dtype.itemsize
