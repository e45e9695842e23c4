"""The container: PyTorch's zip of one pickle and the raw bytes of each storage."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

__all__ = ["Reader", "Writer", "replacing"]

_ALIGN = 64
_LOCAL_HEADER = 30  # bytes before the name in a member's header
_ZIP64_EXTRA = 20
_CHUNK = 1 << 24


class Writer:
    """Writes members, uncompressed and with their data on 64-byte boundaries."""

    def __init__(self, file: IO[bytes], prefix: str) -> None:
        import zipfile

        self._zipfile = zipfile
        self._zip: Any = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)
        self._prefix = prefix

    def write(self, name: str, data: Any) -> None:
        """Add member `name` with the bytes of `data` (bytes or a C-contiguous array)."""
        view = memoryview(data).cast("B") if len(data) else memoryview(b"")
        info = self._zipfile.ZipInfo(f"{self._prefix}/{name}", (1980, 1, 1, 0, 0, 0))
        info.file_size = view.nbytes
        info.extra = self._padding(info)
        with self._zip.open(info, "w") as member:
            for start in range(0, view.nbytes, _CHUNK):
                member.write(view[start : start + _CHUNK])

    def _padding(self, info: Any) -> bytes:
        """An extra field that moves the data to the next boundary."""
        start = self._zip.fp.tell() + _LOCAL_HEADER + len(info.filename.encode()) + 4
        if info.file_size * 1.05 > self._zipfile.ZIP64_LIMIT:
            start += _ZIP64_EXTRA
        length = -start % _ALIGN
        return b"FB" + length.to_bytes(2, "little") + b"Z" * length

    def close(self) -> None:
        """Write the directory."""
        self._zip.close()


@contextmanager
def replacing(path: str) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when, and only when, it is complete.

    It is written beside the old one, flushed to the disk, and renamed. A program that is
    killed meanwhile leaves the old file whole.
    """
    path = os.path.realpath(path)  # a link stays a link
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise RuntimeError(f"Parent directory {folder} does not exist.")
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as device:  # a pipe or a device cannot be replaced
            yield device
        return
    part = os.path.join(folder, f".{os.path.basename(path)}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        with open(part, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(path):
            os.chmod(part, os.stat(path).st_mode & 0o7777)
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise
    _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    """Make the rename itself durable, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # some file systems cannot; the file's own bytes are safe
    finally:
        os.close(handle)


class Reader:
    """Reads members by name. Nothing of a name is ever used as a path."""

    def __init__(self, file: IO[bytes]) -> None:
        import zipfile

        self._file = file
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise RuntimeError(
                "PytorchStreamReader failed reading zip archive: failed finding central "
                f"directory ({error}); the file is damaged or was cut short"
            ) from None
        self._size = file.seek(0, os.SEEK_END)
        self._members = {info.filename: info for info in self._zip.infolist()}
        if not self._members:
            raise RuntimeError("PytorchStreamReader failed: the archive is empty")
        self._prefix = next(iter(self._members)).split("/", 1)[0]

    def __contains__(self, name: str) -> bool:
        return f"{self._prefix}/{name}" in self._members

    def size(self, name: str) -> int:
        """Bytes of member `name`."""
        return int(self._member(name).file_size)

    def read(self, name: str) -> bytes:
        """The bytes of member `name`, checked against their checksum."""
        return self.array(name).tobytes()

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """The bytes of member `name` in new memory, checked against their checksum."""
        info = self._member(name)
        self._file.seek(self.offset(name))
        data = np.empty(info.file_size, np.uint8)
        fill(self._file.readinto, data, name)  # type: ignore[attr-defined]
        if zlib.crc32(data.data) != info.CRC:
            raise RuntimeError(
                f"PytorchStreamReader failed reading file {name}: its checksum is wrong "
                "(Bad CRC-32); the file is damaged"
            )
        return data

    def offset(self, name: str) -> int:
        """Where in the file the data of member `name` begins."""
        info = self._member(name)
        self._file.seek(max(info.header_offset, 0))
        header = self._file.read(_LOCAL_HEADER) if info.header_offset >= 0 else b""
        if len(header) < _LOCAL_HEADER or header[:4] != b"PK\3\4":
            raise RuntimeError(f"PytorchStreamReader failed: no header for file {name}")
        names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        start = info.header_offset + _LOCAL_HEADER + names
        if start + info.file_size > self._size:
            raise RuntimeError(
                f"PytorchStreamReader failed: file {name} reaches beyond the end of the archive"
            )
        return int(start)

    def _member(self, name: str) -> Any:
        info = self._members.get(f"{self._prefix}/{name}")
        if info is None:
            raise RuntimeError(
                f"PytorchStreamReader failed locating file {name}: file not found in the archive"
            )
        if info.compress_type != 0 or info.flag_bits & 1 or info.compress_size != info.file_size:
            raise RuntimeError(
                f"PytorchStreamReader failed reading file {name}: it is compressed or encrypted; "
                "checkpoints are stored plain"
            )
        return info


def fill(readinto: Callable[[Any], int | None], data: np.ndarray[Any, Any], name: str) -> None:
    """Fill `data` by repeated reads; RuntimeError where the file ends early."""
    view, done = data.data, 0
    while done < data.nbytes:
        count = readinto(view[done:])
        if not count:
            raise RuntimeError(
                f"unexpected EOF, expected {data.nbytes - done} more bytes of {name}. "
                "The file might be corrupted."
            )
        done += count
