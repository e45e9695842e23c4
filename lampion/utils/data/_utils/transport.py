"""Objects between processes: array memory travels beside the pickle, not through it.

Large buffers go into an anonymous memory file whose descriptor is handed over, so the
receiver maps them without a copy. It lives outside /dev/shm and vanishes by itself.
Where the system has no such files, buffers follow the pickle through the pipe.
"""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["receive", "send"]

_ALIGN = 64
_SHARE_FROM = 1 << 15  # bytes; below, a copy through the pipe is quicker than a mapping


def send(connection: Connection, message: Any) -> None:
    """Write `message` (anything that pickles) to `connection`."""
    views: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> None:
        views.append(buffer.raw())

    body = pickle.dumps(message, 5, buffer_callback=keep)
    sizes = [view.nbytes for view in views]
    shared = sum(sizes) >= _SHARE_FROM and hasattr(os, "memfd_create")
    connection.send_bytes(pickle.dumps((body, sizes, shared)))
    if shared:
        _send_shared(connection, views)
        return
    for view in views:
        connection.send_bytes(view)


def receive(connection: Connection) -> Any:
    """The next message; its arrays are writable and own their memory."""
    body, sizes, shared = pickle.loads(connection.recv_bytes())
    if shared:
        buffers = _receive_shared(connection, sizes)
    else:
        buffers = [bytearray(connection.recv_bytes()) for _ in sizes]
    return pickle.loads(body, buffers=buffers)


def _offsets(sizes: list[int]) -> tuple[list[int], int]:
    """Where each buffer starts in the file, and the file's size."""
    offsets, end = [], 0
    for size in sizes:
        offsets.append(end)
        end += -(-size // _ALIGN) * _ALIGN
    return offsets, end


def _send_shared(connection: Connection, views: list[memoryview]) -> None:
    from multiprocessing.reduction import send_handle

    offsets, total = _offsets([view.nbytes for view in views])
    handle = os.memfd_create("lampion-batch")
    try:
        os.ftruncate(handle, total)
        memory = np.asarray(_Mapping(handle, total))
        for view, offset in zip(views, offsets):
            memory[offset : offset + view.nbytes] = view
        send_handle(connection, handle, None)  # type: ignore[arg-type]
    finally:
        os.close(handle)


def _receive_shared(connection: Connection, sizes: list[int]) -> list[Any]:
    from multiprocessing.reduction import recv_handle

    handle = recv_handle(connection)
    offsets, total = _offsets(sizes)
    try:
        memory = np.asarray(_Mapping(handle, total))
    finally:
        os.close(handle)
    return [memory[start : start + size] for start, size in zip(offsets, sizes)]


class _Mapping:
    """Memory of a file, unmapped with the last array that uses it.

    The `mmap` module keeps a descriptor open per mapping, and a program that keeps
    many batches would run out of them; hence the C library's own call.
    """

    def __init__(self, handle: int, size: int) -> None:
        self._libc = _libc()
        read_write, shared = 3, 1
        address = self._libc.mmap(None, size, read_write, shared, handle, 0)
        self._address: int | None = None
        if address == _map_failed():
            raise MemoryError(f"cannot map a batch of {size} bytes")
        self._address, self._size = address, size
        self.__array_interface__ = {
            "data": (address, False), "shape": (size,), "typestr": "|u1", "version": 3,
        }  # fmt: skip

    def __del__(self) -> None:
        if self._address is not None:
            self._libc.munmap(self._address, self._size)


def _map_failed() -> int | None:
    import ctypes

    return ctypes.c_void_p(-1).value


_library: Any = None


def _libc() -> Any:
    """The C library with the signatures of its mapping functions."""
    global _library
    if _library is None:
        import ctypes as c

        libc = c.CDLL(None, use_errno=True)
        libc.mmap.restype = c.c_void_p
        libc.mmap.argtypes = [c.c_void_p, c.c_size_t, c.c_int, c.c_int, c.c_int, c.c_long]
        libc.munmap.argtypes = [c.c_void_p, c.c_size_t]
        _library = libc
    return _library
