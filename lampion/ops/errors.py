"""Messages that several operators share: received, expected, how to repair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..tensor.names import scalar_type

__all__ = [
    "argument_type",
    "broadcast_mismatch",
    "device_mismatch",
    "dim_out_of_range",
    "wrap_dim",
    "wrap_dims",
]


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


def wrap_dim(dim: Any, ndim: int, name: str = "") -> int:
    """`dim` counted from the front; 0-d tensors act as if they had one dimension."""
    n = ndim if ndim > 0 else 1
    try:
        if -n <= dim < n:
            return int(dim + n if dim < 0 else dim)
    except TypeError:
        raise argument_type(name, "dim", "int", dim) from None
    raise dim_out_of_range(dim, ndim, name)


def wrap_dims(dims: Any, ndim: int, name: str = "") -> tuple[int, ...]:
    """Several dims counted from the front; each may appear once."""
    listed = (dims,) if isinstance(dims, int) or not hasattr(dims, "__iter__") else tuple(dims)
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
