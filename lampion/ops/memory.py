"""Storages as objects: the memory of tensors as bytes, or as elements of one type.

Loaded when a program first asks for one (`ops/convert.py`).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..debug.frames import user_stack_level
from ..tensor.abstract import AbstractArray
from ..tensor.devices import CPU, META, device
from ..tensor.dtype import DTYPES, dtype, get_default_dtype
from ..tensor.names import TYPE_NAMES
from ..tensor.storage import Storage, address
from ..tensor.tensor import Tensor, wrap

__all__ = ["LEGACY", "TypedStorage", "UntypedStorage"]

# The dtypes that have a legacy storage class.
STORAGE_NAMES = {kind: name for kind, name in TYPE_NAMES.items()
                 if not name.startswith(("UInt", "Float8"))}


class UntypedStorage:
    """The memory of a tensor and its views, as bytes.

    ``UntypedStorage(n)`` is new memory of n zeros, ``UntypedStorage([1, 2])`` holds given bytes.
    A different amount of memory (`resize_`) is seen by tensors made from it afterwards; those that
    exist keep the memory they have, which PyTorch would change under them.

    >>> import lampion as torch
    >>> t = torch.zeros(2, 3)
    >>> t.untyped_storage().nbytes()
    24
    >>> t[1].untyped_storage() == t.untyped_storage()
    True
    """

    __slots__ = ("_storage",)

    is_cuda = is_hpu = is_sparse = is_sparse_csr = False

    def __init__(self, source: int | Sequence[int] = 0, *, device: Any = None) -> None:
        shape = _size(source) if isinstance(source, int) else None
        if str(device or "cpu") == "meta":
            array: Any = AbstractArray((shape or 0,), np.dtype(np.uint8))
        else:
            array = np.zeros(shape, np.uint8) if shape is not None else np.array(source, np.uint8)
        self._storage = Storage(array)

    @classmethod
    def _of(cls, storage: Storage) -> UntypedStorage:
        made = cls.__new__(cls)
        made._storage = storage
        return made

    @classmethod
    def from_buffer(cls, buffer: Any, *, byte_order: str | None = None,
                    dtype: dtype | None = None) -> UntypedStorage:
        """A copy of the bytes of `buffer`, in this machine's byte order."""
        return cls._of(Storage(_bytes_of(buffer, byte_order, dtype)))

    @classmethod
    def from_file(cls, filename: Any, shared: bool = False, nbytes: int = 0) -> UntypedStorage:
        """The bytes of a file, mapped into memory; writes reach the file only if `shared`."""
        if nbytes == 0:
            return cls(0)
        mapped = np.memmap(filename, np.uint8, "r+" if shared else "c", shape=(nbytes,))
        return cls._of(Storage(mapped.view(np.ndarray)))

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """The bytes as an array, for `torch.asarray` and NumPy; shares the memory."""
        return self._storage.flat.__array_interface__

    # --- what it is -----------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UntypedStorage) and other._storage is self._storage

    def __hash__(self) -> int:
        return id(self._storage)

    def __len__(self) -> int:
        return self._storage.nbytes

    def __repr__(self) -> str:
        lines = [] if self.device is META else [f" {value}" for value in self.tolist()]
        return "\n".join([*lines, f"[torch.storage.UntypedStorage(device={self.device}) of size "
                          f"{len(self)}]"])

    @property
    def _cdata(self) -> int:
        return id(self._storage)

    @property
    def device(self) -> device:
        """Where the memory is."""
        return META if isinstance(self._storage.array, AbstractArray) else CPU

    def nbytes(self) -> int:
        """The number of bytes."""
        return self._storage.nbytes

    def size(self) -> int:
        """The number of bytes."""
        return self._storage.nbytes

    def element_size(self) -> int:
        """Bytes of an element: 1."""
        return 1

    def data_ptr(self) -> int:
        """Address of the first byte; 0 without memory."""
        return 0 if self.device is META or not len(self) else address(self._storage.flat)

    def resizable(self) -> bool:
        """Whether `resize_` works: not on memory that NumPy or a file gave."""
        array = self._storage.array
        return isinstance(array, AbstractArray) or bool(array.flags.owndata)

    def get_device(self) -> int:
        """The index of the device: -1 for main memory."""
        return -1

    def is_shared(self) -> bool:
        """Whether the memory is shared between processes: never."""
        return False

    def is_pinned(self, device: Any = None) -> bool:
        """Whether the memory is page-locked: never."""
        return False

    # --- bytes ----------------------------------------------------------------------------------

    def _bytes(self) -> np.ndarray[Any, Any]:
        if self.device is META:
            raise NotImplementedError("Not available for 'meta' device storage")
        return self._storage.flat

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return UntypedStorage._of(Storage(self._bytes()[index]))
        return int(self._bytes()[_checked(index, len(self))])

    def __setitem__(self, index: int | slice, value: int) -> None:
        place = index if isinstance(index, slice) else _checked(index, len(self))
        self._bytes()[place] = value

    def __iter__(self) -> Iterator[int]:
        return iter(self.tolist())

    def tolist(self) -> list[int]:
        """The bytes as numbers."""
        return self._bytes().tolist()

    def fill_(self, value: int) -> UntypedStorage:
        """Sets every byte."""
        self._bytes()[:] = value
        return self

    def copy_(self, source: UntypedStorage, non_blocking: bool = False) -> UntypedStorage:
        """Takes over the bytes of `source`, which must be as many."""
        if source.nbytes() != self.nbytes():
            raise RuntimeError(f"size does not match, self was {self.nbytes()} bytes but src was "
                               f"{source.nbytes()} bytes")
        self._bytes()[:] = source._bytes()
        return self

    def clone(self) -> UntypedStorage:
        """New memory with the same bytes."""
        return UntypedStorage._of(Storage(self._bytes().copy()))

    def resize_(self, size: int) -> UntypedStorage:
        """Makes room for `size` bytes and keeps those that fit."""
        if not self.resizable():
            raise RuntimeError("Trying to resize storage that is not resizable: its memory belongs "
                               "to another object; clone() it first")
        grown = UntypedStorage(size, device=self.device)._storage.array
        if self.device is not META:
            kept = min(size, self.nbytes())
            grown[:kept] = self._bytes()[:kept]
        self._storage.array, self._storage._flat = grown, None
        return self

    def cpu(self) -> UntypedStorage:
        """The storage itself."""
        return self

    def untyped(self) -> UntypedStorage:
        """The storage itself."""
        return self

    def share_memory_(self) -> UntypedStorage:
        """The storage itself; worker processes receive copies."""
        return self

    def pin_memory(self, device: Any = None) -> UntypedStorage:
        """The storage itself: nothing needs page-locked memory without an accelerator."""
        return self

    def __copy__(self) -> UntypedStorage:
        return self.clone()

    def __deepcopy__(self, memo: dict[Any, Any]) -> UntypedStorage:
        # By the memory, not the handle: two handles on one memory stay on one memory.
        return memo.setdefault(("storage", self._cdata), self.clone())

    def __reduce__(self) -> Any:
        return UntypedStorage.from_buffer, (self._bytes().tobytes(),)


def _size(size: int) -> int:
    if size < 0:
        raise RuntimeError(f"a storage cannot have negative size, but got {size} bytes")
    return int(size)


def _checked(index: int, size: int) -> int:
    if not -size <= index < size:
        raise IndexError(f"index {index} out of range for storage of size {size}")
    return index


def _bytes_of(buffer: Any, byte_order: str | None, element: dtype | None) -> Any:
    raw = np.frombuffer(buffer, np.uint8).copy()
    width = 1 if element is None else element.itemsize
    if byte_order not in (None, "native", "little", "big"):
        raise ValueError(f"byte_order must be 'native', 'little' or 'big', but got {byte_order!r}")
    if raw.size % width:
        raise ValueError(f"buffer size ({raw.size}) must be a multiple of element size ({width})")
    if byte_order in (None, "native", sys.byteorder):
        return raw
    return np.ascontiguousarray(raw.reshape(-1, width)[:, ::-1]).reshape(-1)


# --- with an element type -------------------------------------------------------------------------


_warned = False


def _warn_removal() -> None:
    """Once in a process, as PyTorch does."""
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "TypedStorage is deprecated. It will be removed in the future and UntypedStorage will "
            "be the only storage class. This should only matter to you if you are using storages "
            "directly.  To access UntypedStorage directly, use tensor.untyped_storage() instead "
            "of tensor.storage()", UserWarning, stacklevel=user_stack_level())


class TypedStorage:
    """Memory as elements of one type: the older face of storages.

    >>> import lampion as torch
    >>> torch.ones(2).storage_type()
    <class 'torch.FloatStorage'>
    """

    __slots__ = ("_untyped_storage", "dtype")

    dtype: dtype
    is_cuda = is_hpu = is_sparse = False

    def __init__(self, *args: Any, wrap_storage: UntypedStorage | None = None,
                 dtype: Any = None, device: Any = None) -> None:
        _warn_removal()
        if len(args) > 1 or (args and wrap_storage is not None):
            raise RuntimeError("TypedStorage takes a size, a sequence or wrap_storage=, but got "
                               f"{len(args)} positional arguments and wrap_storage={wrap_storage}")
        self.dtype = get_default_dtype() if dtype is None else dtype
        if wrap_storage is not None:
            self._untyped_storage = wrap_storage
        elif args and not isinstance(args[0], int):
            self._untyped_storage = UntypedStorage._of(Storage(_elements(args[0], self.dtype)))
        else:
            count = _size(args[0] if args else 0)
            self._untyped_storage = UntypedStorage(count * self.dtype.itemsize, device=device)

    @property
    def _storage(self) -> Storage:
        return self._untyped_storage._storage

    @property
    def _cdata(self) -> int:
        return self._untyped_storage._cdata

    @property
    def device(self) -> Any:
        """Where the memory is."""
        return self._untyped_storage.device

    def __len__(self) -> int:
        return self._untyped_storage.nbytes() // self.dtype.itemsize

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, TypedStorage) and other.dtype is self.dtype
                and other._storage is self._storage)

    def __hash__(self) -> int:
        return self._cdata

    def __repr__(self) -> str:
        lines = [] if self.device is META else [f" {value}" for value in self.tolist()]
        return "\n".join([*lines, f"[torch.storage.TypedStorage(dtype={self.dtype}, device="
                          f"{self.device}) of size {len(self)}]"])

    def _array(self) -> np.ndarray[Any, Any]:
        return self._untyped_storage._bytes()[:len(self) * self.dtype.itemsize].view(self.dtype.np)

    def _tensor(self) -> Tensor:
        made = wrap(self._array(), self.dtype)
        made._st = self._storage
        return made

    def __getitem__(self, index: int) -> Any:
        if isinstance(index, slice):
            raise RuntimeError("slices are only supported in UntypedStorage.__getitem__")
        return self._tensor()[_checked(index, len(self))].item()

    def __setitem__(self, index: int | slice, value: Any) -> None:
        place = index if isinstance(index, slice) else _checked(index, len(self))
        self._array()[place] = value

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def tolist(self) -> list[Any]:
        """The elements as numbers."""
        return self._tensor().tolist()

    def untyped(self) -> UntypedStorage:
        """The same memory as bytes."""
        return self._untyped_storage

    def size(self) -> int:
        """The number of elements."""
        return len(self)

    def nbytes(self) -> int:
        """The number of bytes."""
        return self._untyped_storage.nbytes()

    def element_size(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize

    def data_ptr(self) -> int:
        """Address of the first element."""
        return self._untyped_storage.data_ptr()

    def resizable(self) -> bool:
        """Whether `resize_` works."""
        return self._untyped_storage.resizable()

    def is_shared(self) -> bool:
        """Whether the memory is shared between processes: never."""
        return False

    def is_pinned(self, device: Any = None) -> bool:
        """Whether the memory is page-locked: never."""
        return False

    def resize_(self, size: int) -> TypedStorage:
        """Makes room for `size` elements and keeps those that fit."""
        self._untyped_storage.resize_(size * self.dtype.itemsize)
        return self

    def fill_(self, value: Any) -> TypedStorage:
        """Sets every element."""
        self._array()[:] = value
        return self

    def copy_(self, source: TypedStorage, non_blocking: bool | None = None) -> TypedStorage:
        """Takes over the elements of `source`, converted."""
        self._tensor().copy_(source._tensor())
        return self

    def clone(self) -> TypedStorage:
        """New memory with the same elements."""
        return TypedStorage(wrap_storage=self._untyped_storage.clone(), dtype=self.dtype)

    def cpu(self) -> TypedStorage:
        """The storage itself."""
        return self

    def share_memory_(self) -> TypedStorage:
        """The storage itself; worker processes receive copies."""
        return self

    def type(self, dtype: Any = None, non_blocking: bool = False) -> Any:
        """The name of the legacy class; or the elements converted to `dtype`."""
        if dtype is None:
            return f"torch.{self.pickle_storage_type()}"
        wanted = LEGACY[dtype.rpartition(".")[2]] if isinstance(dtype, str) else dtype
        return self._to(getattr(wanted, "dtype", wanted))

    def pickle_storage_type(self) -> str:
        """The name of the legacy class."""
        if self.dtype.name not in STORAGE_NAMES:
            raise KeyError(f"there is no legacy storage class for {self.dtype}")
        return STORAGE_NAMES[self.dtype.name] + "Storage"

    def _to(self, element: Any) -> TypedStorage:
        if element is self.dtype:
            return self
        return self._tensor().to(element).storage()

    def __deepcopy__(self, memo: dict[Any, Any]) -> TypedStorage:
        return TypedStorage(wrap_storage=self._untyped_storage.__deepcopy__(memo), dtype=self.dtype)

    def __reduce__(self) -> Any:
        return _rebuild_typed, (self._untyped_storage, self.dtype)


def _rebuild_typed(untyped: UntypedStorage, element: Any) -> TypedStorage:
    return TypedStorage(wrap_storage=untyped, dtype=element)


def _elements(source: Any, element: dtype) -> Any:
    return np.array(list(source)).astype(element.np)


def _converter(element: dtype) -> Any:
    def convert(self: TypedStorage) -> TypedStorage:
        return self._to(element)

    convert.__doc__ = f"The elements converted to {element}."
    return convert


for _method, _name in (
        ("double", "float64"), ("float", "float32"), ("half", "float16"), ("long", "int64"),
        ("bfloat16", "bfloat16"), ("int", "int32"), ("short", "int16"), ("char", "int8"),
        ("byte", "uint8"), ("bool", "bool"), ("complex_double", "complex128"),
        ("complex_float", "complex64")):
    setattr(TypedStorage, _method, _converter(DTYPES[_name]))


class _LegacyMeta(type):
    dtype: dtype

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, TypedStorage) and instance.dtype is cls.dtype


def _make(cls: Any, *args: Any, wrap_storage: UntypedStorage | None = None) -> TypedStorage:
    if args and not isinstance(args[0], int) and not hasattr(args[0], "__iter__"):
        raise TypeError(f"{cls.__name__} takes a size, a sequence or wrap_storage=, but got "
                        f"{type(args[0]).__name__}")
    return TypedStorage(*args, wrap_storage=wrap_storage, dtype=cls.dtype)


def _legacy_class(kind: str, name: str) -> type:
    return _LegacyMeta(name, (), {
        "__new__": _make, "__module__": "torch", "dtype": DTYPES[kind],
        "__doc__": f"`TypedStorage` of {DTYPES[kind]}, by its older name."})


# FloatStorage, LongStorage, ... by name.
LEGACY: dict[str, type] = {
    f"{name}Storage": _legacy_class(kind, f"{name}Storage") for kind, name in STORAGE_NAMES.items()}
