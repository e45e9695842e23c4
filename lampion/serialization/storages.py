"""Names and locations of storages in a file, and the memory they become."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..tensor import Storage, device
from ..tensor.dtype import DTYPES, dtype
from .machine import UnpicklingError

__all__ = ["LoadedStorage", "StorageType", "Locator", "STORAGE_TYPES", "storage_type_of"]

_NAMES = {
    "float64": "Double", "float32": "Float", "float16": "Half", "bfloat16": "BFloat16",
    "int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte",
    "bool": "Bool", "complex128": "ComplexDouble", "complex64": "ComplexFloat",
}  # fmt: skip


class StorageType:
    """Stands for `torch.FloatStorage` and its like, which only name an element type."""

    __slots__ = ("dtype", "module", "name")

    def __init__(self, module: str, name: str, element: dtype | None) -> None:
        self.module, self.name, self.dtype = module, name, element


UNTYPED = StorageType("torch.storage", "UntypedStorage", None)
_BY_DTYPE = {
    kind: StorageType("torch", f"{name}Storage", DTYPES[kind]) for kind, name in _NAMES.items()
}
STORAGE_TYPES: dict[tuple[str, str], StorageType] = {
    ("torch", t.name): t for t in _BY_DTYPE.values()
} | {("torch", "UntypedStorage"): UNTYPED, ("torch.storage", "UntypedStorage"): UNTYPED}


def storage_type_of(element: dtype) -> StorageType:
    """The storage type that PyTorch names for a dtype; untyped where it has none."""
    return _BY_DTYPE.get(element.name, UNTYPED)


class LoadedStorage:
    """Memory from a file, where it goes, and the element type it was saved with."""

    __slots__ = ("dtype", "location", "storage")

    def __init__(self, storage: Storage, element: dtype | None, location: str) -> None:
        self.storage, self.dtype, self.location = storage, element, location


class Locator:
    """Applies `map_location`: where a storage saved at some device shall go."""

    def __init__(self, map_location: Any) -> None:
        self._map = map_location

    def __call__(self, storage: Storage, location: str) -> str:
        """The device type for `storage`; RuntimeError where there is no such device."""
        if callable(self._map) and not isinstance(self._map, device):  # devices are decorators
            if self._map(storage, location) is not None:
                return "cpu"
            target: Any = location
        elif isinstance(self._map, dict):
            target = self._map.get(location, location)
        else:
            target = location if self._map is None else self._map
        kind = str(target).split(":", 1)[0]
        if kind in ("cpu", "meta"):
            return kind
        raise RuntimeError(
            f"Attempting to deserialize object on a {kind.upper()} device but "
            f"torch.{kind}.is_available() is False. If you are running on a CPU-only machine, "
            "please use torch.load with map_location=torch.device('cpu') to map your storages "
            "to the CPU."
        )


class StorageTable:
    """The storages of one file by key, each read once."""

    def __init__(self, load: Callable[[str, int], np.ndarray[Any, Any]], locate: Locator) -> None:
        self._load, self._locate = load, locate
        self._known: dict[str, LoadedStorage] = {}

    def get(self, kind: StorageType, key: str, location: str, numel: int) -> LoadedStorage:
        """The storage `key` of `numel` elements (bytes, when untyped)."""
        found = self._known.get(key)
        if found is None:
            width = 1 if kind.dtype is None else kind.dtype.itemsize
            memory = Storage(self._load(key, numel * width))
            found = LoadedStorage(memory, kind.dtype, self._locate(memory, location))
            self._known[key] = found
        elif found.dtype is not kind.dtype:
            raise UnpicklingError(f"the file gives storage {key} two element types")
        return found
