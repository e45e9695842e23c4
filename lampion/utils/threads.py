"""How many threads operators use: kernels, and NumPy's matrix library beside them."""

from __future__ import annotations

from ..runtime import threads as pool

__all__ = ["set_num_threads", "get_num_threads", "set_num_interop_threads",
           "get_num_interop_threads"]


class _Choice:
    interop = 1


def _positive(n: int, name: str) -> int:
    if not isinstance(n, int) or isinstance(n, bool):
        raise TypeError(f"{name} expects an int, but got {type(n).__name__}")
    if n < 1:
        raise RuntimeError(f"{name} expects a positive integer, received {n}")
    return n


def set_num_threads(n: int) -> None:
    """Lets `n` threads share an operator's work, in kernels and in NumPy's matrix library."""
    from threadpoolctl import threadpool_limits

    pool.set_num_threads(_positive(n, "set_num_threads"))
    threadpool_limits(n, "blas")


def get_num_threads() -> int:
    """The number of threads within an operator."""
    return pool.get_num_threads()


def set_num_interop_threads(n: int) -> None:
    """Accepted: operators run one after the other."""
    _Choice.interop = _positive(n, "set_num_interop_threads")


def get_num_interop_threads() -> int:
    """The number of operators that run at once."""
    return _Choice.interop
