"""`torch._check` and `torch._assert`: conditions that a program must meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__: list[str] = []


def _raise(kind: type[Exception], cond: Any, message: Callable[[], Any] | None) -> None:
    if cond:
        return
    if message is not None and not callable(message):
        raise TypeError(f"message must be a callable, but got {type(message).__name__}")
    raise kind("Expected cond to be True, but got False." if message is None else str(message()))


def _check(cond: Any, message: Callable[[], Any] | None = None) -> None:
    """RuntimeError with `message()` unless `cond`."""
    _raise(RuntimeError, cond, message)


def _check_index(cond: Any, message: Callable[[], Any] | None = None) -> None:
    """IndexError with `message()` unless `cond`."""
    _raise(IndexError, cond, message)


def _check_value(cond: Any, message: Callable[[], Any] | None = None) -> None:
    """ValueError with `message()` unless `cond`."""
    _raise(ValueError, cond, message)


def _check_type(cond: Any, message: Callable[[], Any] | None = None) -> None:
    """TypeError with `message()` unless `cond`."""
    _raise(TypeError, cond, message)


def _check_not_implemented(cond: Any, message: Callable[[], Any] | None = None) -> None:
    """NotImplementedError with `message()` unless `cond`."""
    _raise(NotImplementedError, cond, message)


def _check_is_size(i: Any, message: Callable[[], Any] | None = None, *, max: Any = None) -> None:
    """RuntimeError unless `i` can be a size."""
    _check(i >= 0 and (max is None or i <= max), message)


def _assert(condition: Any, message: str) -> None:
    """AssertionError with `message` unless the condition, or the tensor, is true."""
    if not condition:
        raise AssertionError(message)
