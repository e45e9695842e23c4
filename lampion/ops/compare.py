"""Comparisons, logic and bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor.dtype import FLOAT
from ..tensor.tensor import Tensor
from .errors import argument_type
from .families import binary, comparison, unary
from .promotion import cast
from .record import not_differentiable, op, publish

eq = comparison("eq", np.equal, doc="`input == other`, element by element.")
ne = comparison("ne", np.not_equal, aliases="not_equal", doc="`input != other`.")
lt = comparison("lt", np.less, aliases="less", kind="real", doc="`input < other`.")
le = comparison("le", np.less_equal, aliases="less_equal", kind="real", doc="`input <= other`.")
gt = comparison("gt", np.greater, aliases="greater", kind="real", doc="`input > other`.")
ge = comparison("ge", np.greater_equal, aliases="greater_equal", kind="real",
                doc="`input >= other`.")
logical_and = comparison("logical_and", np.logical_and, numbers="none")
logical_or = comparison("logical_or", np.logical_or, numbers="none")
logical_xor = comparison("logical_xor", np.logical_xor, numbers="none")

_BITS = not_differentiable("integers and bools only")


def _bits(name: str, kernel: Any, bools: Any = None) -> Any:
    return binary(f"bitwise_{name}", kernel, _BITS, kind="integer", bools=bools)


bitwise_and = _bits("and", np.bitwise_and)
bitwise_or = _bits("or", np.bitwise_or)
bitwise_xor = _bits("xor", np.bitwise_xor)


def _shift_left(a: Any, b: Any) -> Any:
    bits = 8 * np.result_type(a, b).itemsize
    valid = (np.asarray(b) >= 0) & (np.asarray(b) < bits)
    return np.where(valid, np.left_shift(a, np.where(valid, b, 0)), 0).astype(np.result_type(a, b))


def _shift_right(a: Any, b: Any) -> Any:
    bits = 8 * np.result_type(a, b).itemsize
    valid = (np.asarray(b) >= 0) & (np.asarray(b) < bits)
    kept = np.right_shift(a, np.where(valid, b, bits - 1))
    return kept.astype(np.result_type(a, b))


bitwise_left_shift = _bits("left_shift", _shift_left, "error")
bitwise_right_shift = _bits("right_shift", _shift_right, "error")


def _invert(name: str) -> Any:
    return unary(name, np.invert, _BITS, kinds="", integers="same")


bitwise_not = _invert("bitwise_not")


@op(inplace=True, out=True)
def logical_not(input: Tensor) -> Tensor:
    """True where the element is zero."""
    return input == 0


@op()
def equal(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape and elements (a Python bool)."""
    if not isinstance(other, Tensor):
        raise argument_type("equal", "other", "Tensor", other)
    return input._a.shape == other._a.shape and bool((input == other).all())


@op()
def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08,
            equal_nan: bool = False) -> Tensor:
    """Whether `|input - other| <= atol + rtol * |other|`; equal infinities are close."""
    for argument, t in (("input", input), ("other", other)):
        if not isinstance(t, Tensor):
            raise argument_type("isclose", argument, "Tensor", t)
    if input._dtype is not other._dtype:
        raise RuntimeError(f"{input._dtype.name} did not match {other._dtype.name}: isclose() "
                           "expects both tensors in one dtype")
    if rtol < 0 or atol < 0:
        raise RuntimeError(f"rtol and atol must not be negative, received {rtol} and {atol}")
    close = input == other
    if equal_nan and input._dtype.kind >= FLOAT:
        close = close | ((input != input) & (other != other))
    if rtol == 0 and atol == 0:
        return close
    if input._dtype.kind < FLOAT:
        from ..tensor.dtype import float64

        input, other = cast(input, float64), cast(other, float64)
    allowed = atol + (rtol * other).abs()
    error = (input - other).abs()
    return close | (error.isfinite() & (error <= allowed))


@op()
def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08,
             equal_nan: bool = False) -> bool:
    """Whether all elements are close (`isclose`)."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all())



def _logic(integers: Any) -> Any:
    def call(self: Tensor, other: Any) -> Any:
        if not isinstance(other, (Tensor, bool, int)):
            return NotImplemented
        return integers(self, other)
    return call


publish("Tensor", "__and__", _logic(bitwise_and))
publish("Tensor", "__rand__", _logic(bitwise_and))
publish("Tensor", "__or__", _logic(bitwise_or))
publish("Tensor", "__ror__", _logic(bitwise_or))
publish("Tensor", "__xor__", _logic(bitwise_xor))
publish("Tensor", "__rxor__", _logic(bitwise_xor))
publish("Tensor", "__lshift__", _logic(bitwise_left_shift))
publish("Tensor", "__rshift__", _logic(bitwise_right_shift))
publish("Tensor", "__rlshift__", lambda self, other: bitwise_left_shift(other, self))
publish("Tensor", "__rrshift__", lambda self, other: bitwise_right_shift(other, self))
publish("Tensor", "__invert__", bitwise_not)
