"""Type promotion of operands: tensors with dimensions, 0-d tensors, Python numbers."""

from __future__ import annotations

from typing import Any

from ..tensor.dtype import (
    BOOL,
    COMPLEX,
    FLOAT,
    INT,
    bool_,
    complex64,
    complex128,
    dtype,
    float64,
    get_default_dtype,
    int64,
    promote_types,
)
from ..tensor.tensor import Tensor
from .errors import argument_type

__all__ = [
    "NUMBERS",
    "as_scalar",
    "cast",
    "float_dtype",
    "number_dtype",
    "result_dtype",
    "result_type",
]

NUMBERS = (bool, int, float, complex)


def number_dtype(value: Any) -> dtype:
    """The dtype that a Python number stands for."""
    kind = type(value)
    if kind is bool:
        return bool_
    if kind is int:
        return int64
    if kind is float:
        return get_default_dtype()
    if isinstance(value, complex):
        return complex128 if get_default_dtype() is float64 else complex64
    if isinstance(value, bool):
        return bool_
    return get_default_dtype() if isinstance(value, float) else int64


def _combine(higher: dtype | None, lower: dtype | None) -> dtype | None:
    """A category of operands against a weaker one: only a weaker *kind* gives way."""
    if higher is None or lower is None:
        return higher or lower
    if higher.kind == COMPLEX:
        return higher
    if higher.kind == FLOAT:
        return higher.to_complex() if lower.kind == COMPLEX else higher
    if higher.kind == BOOL or lower.kind >= FLOAT:
        return promote_types(higher, lower)
    return higher


def result_dtype(*operands: Any) -> dtype:
    """The dtype of an arithmetic result of tensors and Python numbers."""
    if len(operands) == 2:
        a, b = operands
        if isinstance(a, Tensor) and isinstance(b, Tensor) and a._dtype is b._dtype:
            return a._dtype
    ranks: list[dtype | None] = [None, None, None]
    for x in operands:
        if isinstance(x, Tensor):
            rank, d = (0 if x._a.ndim else 1), x._dtype
        else:
            rank, d = 2, number_dtype(x)
        held = ranks[rank]
        ranks[rank] = d if held is None else promote_types(held, d)
    found = _combine(ranks[0], _combine(ranks[1], ranks[2]))
    assert found is not None
    return found


def result_type(tensor1: Any, tensor2: Any) -> dtype:
    """The dtype that an operation on the two operands (tensors or numbers) gives.

    >>> import lampion as torch
    >>> torch.result_type(torch.tensor([1, 2], dtype=torch.int32), 1.0)
    torch.float32
    """
    return result_dtype(tensor1, tensor2)


def float_dtype(d: dtype) -> dtype:
    """The dtype of a float-valued function: integers become the default dtype."""
    return d if d.kind >= FLOAT else get_default_dtype()


def cast(t: Any, d: dtype) -> Any:
    """`t` in dtype `d`; recorded."""
    return t if t._dtype is d else Tensor._cast(t, d)


def as_scalar(value: Any, d: dtype, name: str) -> Any:
    """A Python number as an operand of a computation in `d`; RuntimeError on overflow."""
    if d.kind == FLOAT:
        if isinstance(value, complex):
            raise RuntimeError(f"value cannot be converted to type {d.name} without overflow: "
                               f"{name}() received {value}")
        return float(value)
    if d.kind == COMPLEX:
        return complex(value)
    if d.kind == INT:
        return _as_integer(value, d, name)
    if d.kind == BOOL:
        return bool(value)
    raise argument_type(name, "other", "Tensor or Number", value)


def _as_integer(value: Any, d: dtype, name: str) -> int:
    number = int(value)
    bits = d.itemsize * 8
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if d.is_signed else (0, (1 << bits) - 1)
    if low <= number <= high:
        return number
    if not d.is_signed and -high <= number < 0:
        return number % (high + 1)
    raise RuntimeError(f"value cannot be converted to type {d.name} without overflow: {name}() "
                       f"received {number}, the range is {low} to {high}")
