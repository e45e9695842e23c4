"""Messages that several operators share: received, expected, how to repair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from operator import index
from typing import Any, TypeVar

from ..tensor.names import scalar_type

__all__ = [
    "allocating",
    "argument_type",
    "as_int",
    "broadcast_mismatch",
    "device_mismatch",
    "dim_out_of_range",
    "out_of_memory",
    "wrap_dim",
    "wrap_dims",
]


def out_of_memory(name: str, error: BaseException) -> RuntimeError:
    """More memory than there is: PyTorch raises a RuntimeError."""
    return RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: "
                        f"{name}() needs more than there is ({error or 'MemoryError'})")


F = TypeVar("F", bound=Callable[..., Any])


def allocating(fn: F) -> F:
    """`fn` with `out_of_memory` in place of Python's MemoryError; for what is no leaf."""
    @wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        except MemoryError as error:
            raise out_of_memory(fn.__name__, error) from None
    return call  # type: ignore[return-value]


def broadcast_mismatch(name: str, shapes: Sequence[tuple[int, ...]]) -> RuntimeError:
    """Shapes that do not broadcast; names the first dimension that differs."""
    a, b = shapes[0], shapes[1]
    for other in shapes[1:]:
        b = other
        width = max(len(a), len(b))
        wide = [(1,) * (width - len(s)) + tuple(s) for s in (a, b)]
        for dim in range(width - 1, -1, -1):
            n, m = wide[0][dim], wide[1][dim]
            if n != m and 1 not in (n, m):
                return RuntimeError(
                    f"The size of tensor a ({n}) must match the size of tensor b ({m}) at "
                    f"non-singleton dimension {dim} in {name}(): received shapes {list(a)} and "
                    f"{list(b)}; sizes must be equal or 1, use unsqueeze() or reshape()")
    return RuntimeError(f"{name}(): shapes {[list(s) for s in shapes]} do not broadcast")


def device_mismatch(name: str, tensors: Sequence[Any]) -> RuntimeError:
    """Operands on different devices."""
    found = ", ".join(f"{t.device} {list(t._a.shape)}" for t in tensors)
    kinds = sorted({str(t.device) for t in tensors})
    return RuntimeError(f"Expected all tensors to be on the same device, but found at least two "
                        f"devices, {' and '.join(kinds)}! in {name}(): received {found}; move them "
                        "with .to()")


def dim_out_of_range(dim: int, ndim: int, name: str = "") -> IndexError:
    """A `dim` that the tensor does not have."""
    n = max(ndim, 1)
    where = f" in {name}()" if name else ""
    return IndexError(f"Dimension out of range (expected to be in range of [{-n}, {n - 1}], but "
                      f"got {dim}){where}")


def as_int(value: Any, name: str, argument: str) -> int:
    """A whole number; TypeError for floats, texts and the like."""
    try:
        return index(value)
    except TypeError:
        raise argument_type(name, argument, "int", value) from None


def wrap_dim(dim: Any, ndim: int, name: str = "") -> int:
    """`dim` counted from the front; 0-d tensors act as if they had one dimension."""
    n = ndim if ndim > 0 else 1
    try:
        if -n <= dim < n:
            return index(dim + n if dim < 0 else dim)
    except TypeError:
        raise argument_type(name, "dim", "int", dim) from None
    raise dim_out_of_range(dim, ndim, name)


def wrap_dims(dims: Any, ndim: int, name: str = "") -> tuple[int, ...]:
    """Several dims counted from the front; each may appear once."""
    listed = tuple(dims) if isinstance(dims, (tuple, list)) else (dims,)
    found = tuple(wrap_dim(d, ndim, name) for d in listed)
    if len(set(found)) != len(found):
        twice = next(d for d in found if found.count(d) > 1)
        raise RuntimeError(f"dim {twice} appears multiple times in the list of dims "
                           f"{list(listed)}{f' of {name}()' if name else ''}")
    return found


def argument_type(name: str, argument: str, expected: str, received: Any) -> TypeError:
    """An argument of the wrong Python type."""
    kind = type(received).__name__
    return TypeError(f"{name}(): argument '{argument}' must be {expected}, not {kind}")


def not_implemented_for(name: str, dtype: Any, hint: str = "") -> NotImplementedError:
    """An element type that an operator does not take."""
    tail = f"; {hint}" if hint else ""
    return NotImplementedError(f'"{name}" not implemented for \'{scalar_type(dtype)}\'{tail}')
