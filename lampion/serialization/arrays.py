"""NumPy arrays, dtypes and scalars from a checkpoint, with everything checked."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .machine import UnpicklingError

__all__ = ["BUILDERS", "is_buildable", "set_state"]

_PLAIN = re.compile(r"[<>=|]?([biufcSUV]\d+|[?bBhHiIlLqQefdgFD])")


def is_buildable(instance: Any) -> bool:
    """Whether `instance` is an array or dtype that waits for its state."""
    return type(instance) is np.ndarray or isinstance(instance, np.dtype)


def set_state(instance: Any, state: Any) -> None:
    """Fill an array or a dtype."""
    if isinstance(instance, np.dtype):
        _set_dtype_state(instance, state)
    else:
        _set_array_state(instance, state)


def _set_dtype_state(kind: np.dtype[Any], state: Any) -> None:
    """Byte order only: structured, object and dated types are refused."""
    plain = isinstance(state, tuple) and len(state) >= 8 and state[2:5] == (None, None, None)
    if not plain or state[0] not in (3, 4) or state[1] not in ("<", ">", "|", "="):
        raise UnpicklingError("the file has a NumPy dtype that is not a plain number or text")
    kind.__setstate__(state[:8])  # type: ignore[attr-defined]


def _set_array_state(array: np.ndarray[Any, Any], state: Any) -> None:
    _version, shape, kind, fortran, data = state
    _check_contents(shape, kind, data)
    array.__setstate__((shape, kind, bool(fortran), bytes(data)))  # type: ignore[arg-type]


def _check_contents(shape: Any, kind: Any, data: Any) -> None:
    if not isinstance(kind, np.dtype) or kind.hasobject:
        raise UnpicklingError("a NumPy array of objects is not allowed")
    if not isinstance(data, (bytes, bytearray)):
        raise UnpicklingError("the contents of a NumPy array must be bytes")
    if not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 64:
        raise UnpicklingError(f"a NumPy array cannot have shape {shape!r}")
    if math.prod(shape) * kind.itemsize != len(data):
        raise UnpicklingError(
            f"a NumPy array of shape {shape} and dtype {kind} does not have {len(data)} bytes"
        )


def _array(cls: Any = None, shape: Any = None, kind: Any = None) -> np.ndarray[Any, Any]:
    """An empty array; its state follows."""
    return np.empty(0, np.int8)


def _dtype(name: Any, align: Any = False, copy: Any = True) -> np.dtype[Any]:
    if isinstance(name, np.dtype):
        name = name.str
    if not isinstance(name, str) or not _PLAIN.fullmatch(name):
        raise UnpicklingError(f"the NumPy dtype {name!r} is not allowed")
    return np.dtype(name, copy=True)  # type: ignore[call-overload, no-any-return]


def _scalar(kind: Any, data: Any = None) -> Any:
    if isinstance(data, str):
        data = data.encode("latin-1")
    _check_contents((1,), kind, data)
    return np.frombuffer(data, kind)[0]


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
    _check_contents(shape, kind, data)
    return np.frombuffer(bytearray(data), kind).reshape(shape, order="F" if order == "F" else "C")


def _array_class(*args: Any) -> None:
    raise UnpicklingError("numpy.ndarray is only allowed as an argument of _reconstruct")


BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): _array_class,
}
for _core in ("numpy.core", "numpy._core"):
    BUILDERS[f"{_core}.multiarray", "_reconstruct"] = _array
    BUILDERS[f"{_core}.multiarray", "scalar"] = _scalar
    BUILDERS[f"{_core}.numeric", "_frombuffer"] = _from_buffer
