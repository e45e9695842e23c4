"""Where kernels come from: from memory, from the cache on disk, or newly made.

`kernel(key, build)` answers at once. While a kernel is being compiled in the background it
answers None and the caller keeps to the reference; LAMPION_KERNELS=sync waits instead.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from ..debug import kernels
from ..debug.knobs import knobs
from ..runtime import cache as disk
from ..runtime.loader import BadObject, load
from ..runtime.native import KernelsUnavailable, array_layout, function
from . import allocator, pool, stream  # noqa: F401  bring what kernels call to the loader
from .compile import closed, compile_object
from .emit import emit
from .ir import Kernel
from .spec import check
from .target import Target, target

__all__ = ["Made", "available", "kernel", "made", "make", "wait", "waiting"]

Native = Callable[..., None]
Build = Callable[[Target], Kernel]


class Made(NamedTuple):
    """What is known of a kernel of this process."""

    name: str
    build: Build
    seconds: float  # to make or load it
    compiled: bool  # here and now, not found on disk


_ready: dict[Hashable, Native] = {}
_failed: dict[Hashable, str] = {}
_waiting: set[Hashable] = set()
_queue: SimpleQueue[tuple[Hashable, Build]] = SimpleQueue()
_lock = threading.Lock()
made: dict[Hashable, Made] = {}


def kernel(key: Hashable, build: Build) -> Native | None:
    """The native function for `key`, or None while there is none.

    key: what, with lampion's source, determines the kernel; its `repr` must be stable.
    build: makes the kernel for a target, called only when it is neither in memory nor on disk.
    """
    found = _ready.get(key)
    return found if found is not None else _request(key, build)


def _request(key: Hashable, build: Build) -> Native | None:
    if key in _failed or not available():
        return None
    if knobs.kernels == "sync":
        with _lock:
            return _ready.get(key) or _obtain(key, build)
    if _patience.waits:
        return _awaited(key, build)
    if key in _waiting:
        return None
    found = _from_disk(key, build)
    if found is None and not closed():
        _waiting.add(key)
        _queue.put((key, build))
        _start_worker()
    return found


class _Patience(threading.local):
    waits = False


_patience = _Patience()


@contextmanager
def waiting() -> Iterator[None]:
    """This thread waits for its kernels; other threads do as LAMPION_KERNELS says."""
    before, _patience.waits = _patience.waits, True
    try:
        yield
    finally:
        _patience.waits = before


def _awaited(key: Hashable, build: Build) -> Native | None:
    """The kernel, made here and now; None where it cannot be made."""
    try:
        with _lock:
            return _ready.get(key) or _obtain(key, build)
    except Exception as error:
        _failed[key] = f"{type(error).__name__}: {error}"
        _report(key, error)
        return None


def available() -> bool:
    """Whether kernels are wanted (LAMPION_KERNELS) and possible here."""
    return knobs.kernels != "off" and _possible()


@cache
def _possible() -> bool:
    try:
        array_layout()
    except KernelsUnavailable as error:
        import warnings

        warnings.warn(str(error), RuntimeWarning, stacklevel=2)
        return False
    return sys.byteorder == "little"


def _obtain(key: Hashable, build: Build) -> Native | None:
    """From disk or by compiling; a kernel that cannot be made is remembered as such."""
    found = _from_disk(key, build)
    if found is not None or closed():
        return found
    start = time.perf_counter()
    try:
        data = _compiled(build)
        native = _place(key, build, data, start, True)
    except Exception as error:
        _failed[key] = f"{type(error).__name__}: {error}"
        raise
    disk.put(_disk_key(key), data)
    return native


def _compiled(build: Build) -> bytes:
    chosen = target(knobs.target)
    built = build(chosen)
    check(built)
    return compile_object(emit(built, chosen), chosen)


def _from_disk(key: Hashable, build: Build) -> Native | None:
    """A kernel that some process made before; one that does not load is made anew."""
    start = time.perf_counter()
    data = disk.get(_disk_key(key))
    if data is None:
        return None
    try:
        return _place(key, build, data, start, False)
    except BadObject:
        return None


def _place(key: Hashable, build: Build, data: bytes, start: float, compiled: bool) -> Native:
    if not _ready:
        allocator.install()
    image = load(data)
    name = str(key[0] if isinstance(key, tuple) else key)
    native = function(image.symbols["entry"], name, image)
    native.__self__.key = key  # type: ignore[attr-defined]
    known = made[key] = Made(name, build, time.perf_counter() - start, compiled)
    if kernels.watching():
        native = _watched(key, known, native)
    _ready[key] = native
    return native


def _watched(key: Hashable, known: Made, native: Native) -> Native:
    """The kernel as a debugger sees it."""
    return kernels.watch(_subject(key, known), native)


def _subject(key: Hashable, known: Made) -> Any:
    from .inspect import Subject

    return Subject(key, known.build, known.seconds, known.compiled)


def make(kernel: Kernel, target: Target | None = None) -> Native:
    """A built kernel as a native Python function of its parameters; compiled here and now."""
    from .target import host

    array_layout()
    target = host() if target is None else target
    check(kernel)
    image = load(compile_object(emit(kernel, target), target))
    return function(image.symbols["entry"], kernel.name, image)


# --- the key on disk --------------------------------------------------------------------------


def _disk_key(key: Hashable) -> str:
    chosen = target(knobs.target)
    text = f"{_source()}|{chosen!r}|{key!r}"
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


@cache
def _source() -> str:
    """A digest of the source that makes kernels, of Python's and of LLVM's version."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    digest.update(f"{sys.version_info[:2]}{_llvm_version()}".encode())
    return digest.hexdigest()


def _llvm_version() -> str:
    """The installed compiler's version, found without importing it."""
    from importlib.util import find_spec

    spec = find_spec("llvmlite")
    for place in (spec.submodule_search_locations or []) if spec else []:
        path = Path(place) / "_version.py"
        if path.is_file():
            return path.read_text()
    return ""


# --- in the background ------------------------------------------------------------------------


class _Worker:
    thread: threading.Thread | None = None


def _start_worker() -> None:
    """One thread compiles."""
    if _Worker.thread is None or not _Worker.thread.is_alive():
        _Worker.thread = threading.Thread(target=_work, args=(_queue,), name="lampion-compiler",
                                          daemon=True)
        _Worker.thread.start()


def _work(queue: SimpleQueue[tuple[Hashable, Build]]) -> None:
    while True:
        key, build = queue.get()
        try:
            with _lock:
                if key not in _ready:
                    _obtain(key, build)
        except Exception as error:
            _failed[key] = f"{type(error).__name__}: {error}"
            _report(key, error)
        finally:
            _waiting.discard(key)


def _report(key: Hashable, error: Exception) -> None:
    """The program goes on with the reference; a debugger wants to know."""
    if knobs.debug:
        print(f"lampion: no kernel for {key!r}: {error}", file=sys.stderr)


def _after_fork_in_child() -> None:
    """Kernels that were being made in the parent are asked for again, with fresh locks."""
    global _lock, _queue
    _lock, _queue = threading.Lock(), SimpleQueue()
    _waiting.clear()
    _Worker.thread = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def wait(seconds: float = 60.0) -> bool:
    """Waits until no kernel is being made; False if that takes longer."""
    end = time.monotonic() + seconds
    while _waiting and time.monotonic() < end:
        time.sleep(0.002)
    return not _waiting


def forget() -> None:
    """Drops every kernel of this process; those in use live on."""
    _ready.clear()
    _failed.clear()
    made.clear()


def failures() -> dict[Any, str]:
    """Why kernels could not be made, by key."""
    return dict(_failed)


kernels.FAILED.append(failures)
kernels.MADE.append(lambda: [_subject(key, known) for key, known in made.items()])
