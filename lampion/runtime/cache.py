"""Compiled kernels on disk: one private file per key, checked when read, bounded in size.

A file is a header (magic with version, checksum, lengths), the key and the data. It is written
beside its place and renamed, so a reader sees all of it or nothing, whatever other processes do
and wherever they die. Reading a file marks it as used; when the folder has grown too large, those
unused for longest go.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import sys
import threading
import warnings
from pathlib import Path
from time import time

from ..debug.knobs import knobs

__all__ = ["FOLDER_VERSION", "folder", "get", "put"]

FOLDER_VERSION = 1  # of the file format; part of the folder's name
_MAGIC = b"lampion\x01"
_HEADER = struct.Struct("<8s32sHI")  # magic, checksum of the rest, length of key, of data
_TEMPORARY = "part-"
_STALE_SECONDS = 600  # a temporary file of this age was left by a process that died
_TOUCH_SECONDS = 3600  # marking as used need not be more exact
_LARGEST = 1 << 26


class _State:
    """What this process knows of its folder."""

    path: Path | None = None
    setting: str | None = None  # LAMPION_CACHE_DIR when `path` was found
    warned = False
    size = -1  # bytes in the folder, as last counted, plus what was added since


_lock = threading.Lock()
if hasattr(os, "register_at_fork"):  # another thread of the parent may have held it
    os.register_at_fork(after_in_child=lambda: globals().update(_lock=threading.Lock()))


def get(key: str) -> bytes | None:
    """The data kept under `key`, or None; a file that is not whole, or not ours, is removed."""
    place = _place(key)
    if place is None:
        return None
    try:
        content = _read_private(place)
    except OSError:
        return None
    data = _unpack(content, key) if content is not None else None
    if data is None:
        _remove(place)
        return None
    _mark_used(place)
    return data


def put(key: str, data: bytes) -> None:
    """Keeps `data` under `key`. Where the folder cannot be written, says so once and goes on."""
    place = _place(key)
    if place is None or len(data) > _LARGEST:
        return
    content = _pack(key, data)
    if len(content) > _limit():
        return
    try:
        _write(place, content)
        _account(place.parent, len(content))
    except OSError as error:
        _complain(f"cannot keep compiled kernels in {place.parent}: {error}")


def folder() -> Path | None:
    """The folder of this user's kernels, made if need be; None where there cannot be one."""
    if not _limit():
        return None
    if _State.setting != knobs.cache_dir:
        with _lock:
            _State.setting, _State.size = knobs.cache_dir, -1
            _State.path = _prepared()
    return _State.path


def _limit() -> int:
    return knobs.cache_mb << 20


def _chosen() -> Path:
    """LAMPION_CACHE_DIR, or the place where this platform keeps caches."""
    leaf = f"kernels-{FOLDER_VERSION}-{sys.implementation.cache_tag}"
    if knobs.cache_dir:
        return Path(knobs.cache_dir).expanduser() / leaf
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "lampion" / leaf
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "lampion" / leaf


def _prepared() -> Path | None:
    """The folder, private; None, with a warning, where it cannot be trusted or written."""
    try:
        path = _chosen()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(f"{path} is not a folder of this user")
        if found.st_mode & 0o077:
            path.chmod(0o700)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(f"{path} is not writable")
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
        _complain(f"compiled kernels are not kept on disk: {error}")
        return None
    return path


def _complain(message: str) -> None:
    if not _State.warned:
        _State.warned = True
        warnings.warn(message, RuntimeWarning, stacklevel=4)


def _place(key: str) -> Path | None:
    place = folder()
    return place and place / hashlib.blake2b(key.encode(), digest_size=20).hexdigest()


def _read_private(place: Path) -> bytes | None:
    """The file's content; None where it is not a plain file that only this user can write."""
    handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb", buffering=0) as file:
        found = os.fstat(handle)
        if (not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid()
                or found.st_mode & 0o022 or found.st_size > _LARGEST + 65536):
            return None
        return file.read()


def _pack(key: str, data: bytes) -> bytes:
    name = key.encode()
    body = name + data
    return _HEADER.pack(_MAGIC, _checksum(body), len(name), len(data)) + body


def _unpack(content: bytes, key: str) -> bytes | None:
    """The data, if the file is whole and really for this key."""
    if len(content) < _HEADER.size:
        return None
    magic, checksum, name_size, data_size = _HEADER.unpack_from(content)
    body = content[_HEADER.size:]
    if magic != _MAGIC or len(body) != name_size + data_size or _checksum(body) != checksum:
        return None
    return body[name_size:] if body[:name_size] == key.encode() else None


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=32).digest()


def _write(place: Path, content: bytes) -> None:
    """All of the file or none of it, private from its first byte."""
    temporary = place.parent / f"{_TEMPORARY}{os.getpid()}-{threading.get_ident()}-{place.name}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(handle, "wb", buffering=0) as file:
            if file.write(content) != len(content):
                raise OSError("the disk is full")
        os.replace(temporary, place)
    except BaseException:
        _remove(temporary)
        raise


def _remove(place: Path) -> None:
    try:
        place.unlink()
    except OSError:
        pass


def _mark_used(place: Path) -> None:
    """The modification time is the time of last use; access times are often not kept."""
    try:
        if time() - place.stat().st_mtime > _TOUCH_SECONDS:
            os.utime(place)
    except OSError:
        pass


def _account(place: Path, added: int) -> None:
    """Counts the folder once in a process, then adds up; trims it when it is too large."""
    with _lock:
        if _State.size < 0:
            _State.size = sum(size for _, size, _ in _entries(place))
        else:
            _State.size += added
        if _State.size > _limit():
            _State.size = _trim(place)


def _entries(place: Path) -> list[tuple[float, int, str]]:
    """Last use, size and path of every file."""
    found = []
    with os.scandir(place) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:  # another process removed it
                continue
            found.append((status.st_mtime, status.st_size, entry.path))
    return found


def _trim(place: Path) -> int:
    """Removes what died processes left, and what was unused for longest, down to three quarters."""
    left, goal, now = 0, _limit() * 3 // 4, time()
    for used, size, path in sorted(_entries(place), reverse=True):
        if os.path.basename(path).startswith(_TEMPORARY):
            superfluous = now - used > _STALE_SECONDS  # younger ones are being written
        else:
            superfluous = left + size > goal
        if superfluous:
            _remove(Path(path))
        else:
            left += size
    return left
