"""Saving and loading: PyTorch's checkpoint files, without ever running what is in them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from . import legacy
from .archive import Reader, Writer, replacing
from .machine import Machine, Opaque, UnpicklingError
from .policy import (
    SafePolicy,
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
    safe_globals,
)
from .storages import Locator, StorageTable, StorageType
from .writer import dump

__all__ = [
    "Opaque",
    "add_safe_globals",
    "clear_safe_globals",
    "get_safe_globals",
    "load",
    "safe_globals",
    "save",
]

DEFAULT_PROTOCOL = 2
_BYTE_ORDERS = {b"little": "<", b"big": ">"}


def save(
    obj: Any,
    f: Any,
    pickle_module: Any = None,
    pickle_protocol: int = DEFAULT_PROTOCOL,
    _use_new_zipfile_serialization: bool = True,
    _disable_byteorder_record: bool = False,
) -> None:
    """Write `obj` to `f`, a path or a binary file, as PyTorch's zip file.

    Only the bytes that the tensors use are written, and tensors that share memory still
    do after loading. A path is replaced at once when the file is complete: a program
    that is killed while saving leaves the old file whole. `pickle_module` is ignored.

    >>> import io, lampion as torch
    >>> file = io.BytesIO()
    >>> torch.save({"w": torch.ones(2)}, file)
    >>> _ = file.seek(0)
    >>> torch.load(file)
    {'w': tensor([1., 1.])}
    """
    if not _use_new_zipfile_serialization:
        raise RuntimeError(
            "the format from before PyTorch 1.6 can be read but not written: leave "
            "_use_new_zipfile_serialization at True"
        )
    if isinstance(f, (str, os.PathLike)):
        path = os.fspath(f)
        with replacing(path) as file:
            _write(obj, file, _stem(path), pickle_protocol)
    elif hasattr(f, "write"):
        _write(obj, f, "archive", pickle_protocol)
    else:
        raise AttributeError(
            f"expected 'f' to be string, path, or a file-like object with a 'write' attribute, "
            f"but got {type(f).__name__}"
        )


def _stem(path: str) -> str:
    """The archive's inner folder: the file's name without its last ending."""
    return os.path.splitext(os.path.basename(path))[0] or "archive"


def _write(obj: Any, file: IO[bytes], prefix: str, protocol: int) -> None:
    body, layout = dump(obj, protocol)
    writer = Writer(file, prefix)
    writer.write("data.pkl", body)
    writer.write(".format_version", b"1")
    writer.write(".storage_alignment", b"64")
    writer.write("byteorder", b"little" if np.little_endian else b"big")
    for key, data in enumerate(layout.arrays):
        writer.write(f"data/{key}", data)
    writer.write("version", b"3\n")
    writer.close()


def load(
    f: Any,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    **pickle_load_args: Any,
) -> Any:
    """Read what ``save``, here or in PyTorch, wrote to `f`, a path or a binary file.

    Never runs code from the file. Tensors, containers, numbers, text, NumPy arrays and
    classes allowed by ``torch.serialization.add_safe_globals`` are rebuilt. Any other name
    raises ``pickle.UnpicklingError``; with ``weights_only=False``, module classes that the
    program has imported are rebuilt too, and other names become inert records, with a warning.

    Args:
        map_location: where storages go: a device, a dict from saved to new device, or a
            function ``(storage, location)``.
        mmap: map the file at path `f` into memory instead of reading it.

    Raises RuntimeError for files that are damaged, cut short or no checkpoints.
    """
    if isinstance(f, (str, os.PathLike)):
        with open(f, "rb") as file:
            return _load(file, os.fspath(f), map_location, weights_only is not False, bool(mmap))
    if mmap:
        raise ValueError("f must be a file path in order to use the mmap argument")
    if not hasattr(f, "read") or not hasattr(f, "seek"):
        raise AttributeError(
            f"'{type(f).__name__}' object has no attribute 'seek'. You can only torch.load from a "
            "file that is seekable. Please pre-load the data into a buffer like io.BytesIO and "
            "try to load from it instead."
        )
    if not hasattr(f, "readinto") or f.tell() != 0:
        f = io.BytesIO(f.read())  # so that positions count from the beginning of the checkpoint
    return _load(f, None, map_location, weights_only is not False, False)


def _load(file: IO[bytes], path: str | None, where: Any, strict: bool, mapped: bool) -> Any:
    start = file.read(4)
    file.seek(0)
    locate = Locator(where)

    def make(storage: Callable[[Any], Any]) -> SafePolicy:
        return SafePolicy(storage, modules=not strict)

    if start.startswith(b"PK"):
        return _load_zip(file, path if mapped else None, locate, make)
    if mapped:
        raise RuntimeError("mmap can only be used with files in the zip format")
    if legacy.is_legacy(start):
        return legacy.load(file, locate, make)
    if not start:
        raise EOFError("Ran out of input: the file is empty")
    raise UnpicklingError(
        f"the file is no checkpoint: it starts with {start!r}, expected a zip archive or the "
        "format of old PyTorch"
    )


def _load_zip(
    file: IO[bytes], path: str | None, locate: Locator, make: Callable[[Any], SafePolicy]
) -> Any:
    reader = Reader(file)
    if "constants.pkl" in reader:
        raise RuntimeError(
            "Cannot use torch.load with TorchScript archives: the file was written by "
            "torch.jit.save and holds a program"
        )
    order = _BYTE_ORDERS.get(reader.read("byteorder")) if "byteorder" in reader else "<"
    if order is None:
        raise RuntimeError("Unknown endianness type in the record byteorder")
    table = StorageTable(_storage_loader(reader, path), locate)
    swapper = _Swapper(order)

    def storage(pid: Any) -> Any:
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
            raise UnpicklingError(f"unknown persistent id {pid!r:.100}")
        kind, key, location, numel = pid[1:]
        if not isinstance(kind, StorageType) or type(numel) is not int or numel < 0:
            raise UnpicklingError("the file has a storage without type or size")
        return swapper(table.get(kind, str(key), str(location), numel))

    policy = make(storage)
    body = io.BytesIO(reader.read("data.pkl"))
    result = Machine(body.read, body.readline, policy).run()
    policy.warn()
    return result


def _storage_loader(reader: Reader, path: str | None) -> Callable[[str, int], Any]:
    def load(key: str, nbytes: int) -> Any:
        name = f"data/{key}"
        if reader.size(name) != nbytes:
            raise RuntimeError(
                f"storage {key} has wrong byte size: expected {nbytes} got {reader.size(name)}"
            )
        if path is None or nbytes == 0:
            return reader.array(name)
        return np.memmap(path, np.uint8, "c", reader.offset(name), (nbytes,)).view(np.ndarray)

    return load


class _Swapper:
    """Turns storages from a machine of the other byte order around, each once."""

    def __init__(self, order: str) -> None:
        self._needed = (order == "<") != np.little_endian
        self._done: set[int] = set()

    def __call__(self, loaded: Any) -> Any:
        if self._needed and id(loaded) not in self._done and loaded.dtype is not None:
            self._done.add(id(loaded))
            loaded.storage.flat.view(loaded.dtype.np).byteswap(inplace=True)
        return loaded
