"""How many threads operators use: those of NumPy's matrix library."""

from __future__ import annotations

import os

__all__ = ["set_num_threads", "get_num_threads", "set_num_interop_threads",
           "get_num_interop_threads"]


class _Choice:
    threads: int | None = None
    interop = 1


def _positive(n: int, name: str) -> int:
    if not isinstance(n, int) or isinstance(n, bool):
        raise TypeError(f"{name} expects an int, but got {type(n).__name__}")
    if n < 1:
        raise RuntimeError(f"{name} expects a positive integer, received {n}")
    return n


def set_num_threads(n: int) -> None:
    """Limits NumPy's matrix library, the only part that uses several threads, to `n`."""
    from threadpoolctl import threadpool_limits

    _Choice.threads = _positive(n, "set_num_threads")
    threadpool_limits(n, "blas")


def get_num_threads() -> int:
    """The number of threads within an operator."""
    return _Choice.threads or os.cpu_count() or 1


def set_num_interop_threads(n: int) -> None:
    """Accepted: operators run one after the other."""
    _Choice.interop = _positive(n, "set_num_interop_threads")


def get_num_interop_threads() -> int:
    """The number of operators that run at once."""
    return _Choice.interop
