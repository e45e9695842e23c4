"""Threads of native kernels: how many, and the life of the pool's workers.

Workers are Python threads that stay inside one native call, without the interpreter's lock, until
the pool is made smaller, the process forks or the interpreter ends. Kernels hand them work through
`lampion_parallel` and streams through `lampion_side_by_side` (codegen/pool.py has the protocol).
They are started when a kernel that wants them is loaded, and again by the first launch after a
fork, in the parent and in the child.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
from collections.abc import Callable
from time import perf_counter

from ..debug.knobs import knobs
from .loader import Image

__all__ = ["get_num_threads", "pool_function", "set_num_threads", "stop"]


class _State:
    """The number of threads asked for, and the pool once a kernel needed it."""

    count: int | None = None
    pool: _Pool | None = None


_lock = threading.Lock()


def get_num_threads() -> int:
    """The number of threads that share a kernel's work, the caller included."""
    if _State.count is None:
        _State.count = _default()
    return _State.count


def set_num_threads(n: int) -> None:
    """Lets `n` threads share a kernel's work; with 1 every kernel runs on its caller alone."""
    if n < 1:
        raise ValueError(f"expected at least one thread, got {n}")
    with _lock:
        _State.count = n
        if _State.pool is not None:
            _State.pool.resize(n)


def pool_function(name: str, make: Callable[[], Image]) -> int:
    """The address of a function of the process's pool, which `make` loads at the first call."""
    pool = _State.pool
    if pool is None:
        pool = _brought_up(make())  # made unlocked: a fork holds the compiler before this lock
    return pool.image.symbols[name]


def _brought_up(image: Image) -> _Pool:
    """The process's pool; of two threads that bring it up at once, the first one's."""
    with _lock:
        if _State.pool is None:
            _State.pool = _Pool(image)
            atexit.register(stop)
            _State.pool.start(get_num_threads())
        return _State.pool


def stop() -> None:
    """Ends the workers; kernels that are launched afterwards run on their caller alone."""
    with _lock:
        if _State.pool is not None:
            _State.pool.end()


class _Pool:
    """The pool's native functions and its worker threads."""

    def __init__(self, image: Image) -> None:
        self.image = image
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(image))  # kernels jump into it to the very end
        self._work = self._native("work", ctypes.c_int64)
        self._resize = self._native("resize", ctypes.c_int64, ctypes.c_int64)
        self._reset = self._native("reset", ctypes.c_int64, ctypes.c_void_p)
        self._workers: list[threading.Thread] = []
        self._spins = self._calibrate()
        self.reset()

    def _native(self, name: str, *kinds: type) -> Callable[..., None]:
        # CFUNCTYPE: the interpreter's lock is released during the call.
        return ctypes.CFUNCTYPE(None, *kinds)(self.image.symbols["lampion_pool_" + name])

    def _calibrate(self) -> int:
        """Turns of spinning that take as long as an idle worker looks for work."""
        turns, spin = 256, self._native("spin", ctypes.c_int64)
        best = 1.0
        for _ in range(3):
            start = perf_counter()
            spin(turns)
            best = min(best, perf_counter() - start)
        return max(1, int(turns * knobs.spin_us * 1e-6 / best))

    def reset(self) -> None:
        """As in a new process: no workers, nothing locked."""
        self._workers.clear()
        self._reset(self._spins, id(start_again))

    def start(self, n: int) -> None:
        """Lets `n` threads share the work: starts workers until there are n - 1."""
        self._resize(n, 0)
        for worker in range(len(self._workers) + 1, n):
            thread = threading.Thread(target=self._work, args=(worker,), daemon=True,
                                      name=f"lampion-worker-{worker}")
            thread.start()
            self._workers.append(thread)
        self._resize(n, 2)

    def resize(self, n: int) -> None:
        """Starts or ends workers so that `n` threads share the work."""
        self._dismiss(n)
        self.start(n)

    def end(self) -> None:
        """Ends all workers; launches run alone."""
        self._dismiss(1)

    def pause(self, n: int) -> None:
        """Ends all workers until the next launch."""
        self._dismiss(1)
        self.ask_later(n)

    def ask_later(self, n: int) -> None:
        """Lets the next launch ask for `start_again`."""
        self._resize(n, 0)

    def _dismiss(self, n: int) -> None:
        self._resize(n, 2)
        while len(self._workers) >= n:
            self._workers.pop().join()


def start_again() -> None:
    """Starts the workers that a fork ended. The native pool has it called in the main thread."""
    if _State.pool is None:
        return
    if not _lock.acquire(blocking=False):  # perhaps by this very thread
        _State.pool.ask_later(get_num_threads())
        return
    try:
        _State.pool.start(get_num_threads())
    finally:
        _lock.release()


def _before_fork() -> None:
    """A fork copies one thread only: end the workers first, so that the copy is whole."""
    _lock.acquire()
    if _State.pool is not None:
        _State.pool.pause(get_num_threads())


def _after_fork_in_child() -> None:
    # Another thread of the parent may have been inside a job.
    if _State.pool is not None:
        _State.pool.reset()
        _State.pool.pause(get_num_threads())
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_lock.release,
                        after_in_child=_after_fork_in_child)


def _default() -> int:
    """LAMPION_THREADS, OMP_NUM_THREADS, or the processors this process may use."""
    asked = knobs.threads or _positive(os.environ.get("OMP_NUM_THREADS", ""))
    if asked:
        return asked
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _positive(text: str) -> int:
    first = text.partition(",")[0].strip()  # OpenMP allows one number for each level
    return int(first) if first.isdigit() else 0
