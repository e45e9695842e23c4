"""Numbers that vary from call to call: arguments and attributes such as a weight or a position.

A number is a constant of the program at first. Where calls turn out to differ in it alone, the next
capture meets it as a `Varying`: arithmetic with tensors takes it as a number given at each run,
arithmetic with other numbers gives another `Varying`, which is computed in Python before the run.
Whatever else looks at its value makes that a fact that the program holds for.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph.node import Node
from ..ops.record import leaf, not_differentiable
from ..tensor.abstract import AbstractArray
from ..tensor.dtype import int64
from ..tensor.tensor import Tensor, wrap

Array = Any

__all__ = ["BINARY", "NUMERIC", "Varying", "as_tensor", "composed", "exact", "plain", "varying"]

BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add, "Sub": operator.sub, "Mult": operator.mul, "Div": operator.truediv,
    "Mod": operator.mod, "FloorDiv": operator.floordiv, "Pow": operator.pow,
}
# Functions of numbers alone.
NUMERIC = frozenset((min, max, abs, float, int, round, math.cos, math.sin, math.tan, math.tanh,
                     math.exp, math.log, math.log2, math.log10, math.sqrt, math.pow, math.floor,
                     math.ceil, math.fmod, math.degrees, math.radians))
_LARGEST = 1 << 50  # integers that programs take, as floats: those are whole numbers exactly


class Varying:
    """The number as it is in this call; `read` gives that of another."""

    read: Callable[[Sequence[Any]], Any]  # of the numbers among the arguments
    kind: Any
    node: Node | None = None  # once the program takes it
    tensors: dict[Any, Node]  # that hold it, by dtype

    def now(self, given: Sequence[Any]) -> float | None:
        """What a call gives the program; None where it is no longer a number of that kind."""
        try:
            value = self.read(given)
        except (ArithmeticError, TypeError, ValueError):
            return None
        fits = value.__class__ is self.kind and (self.kind is float or abs(value) <= _LARGEST)
        return float(value) if fits else None


class VaryingFloat(Varying, float):
    """A float that varies."""


class VaryingInt(Varying, int):
    """An int that varies."""


def varying(value: Any, read: Callable[[Sequence[Any]], Any]) -> Any:
    """The number `value` as one that `read` gives at each call."""
    made: Any = VaryingFloat(value) if isinstance(value, float) else VaryingInt(value)
    made.read, made.kind, made.tensors = read, float if isinstance(value, float) else int, {}
    return made


def plain(value: Any) -> Any:
    """The number itself."""
    return value.kind(value) if isinstance(value, Varying) else value


def composed(f: Callable[..., Any], args: Sequence[Any]) -> Any:
    """`f(*args)` of numbers, one of which varies; None where it gives no number."""
    if not all(isinstance(a, Varying) or a.__class__ in (int, float) for a in args):
        return None
    value = f(*map(plain, args))
    if value.__class__ not in (int, float):
        return None
    reads = [a.read if isinstance(a, Varying) else _constant(a) for a in args]
    return varying(value, lambda given: f(*[read(given) for read in reads]))


def _constant(value: Any) -> Callable[[Sequence[Any]], Any]:
    return lambda given: value


@leaf(not_differentiable("a number"), name="given_number", shape=lambda a, value: a.shape)
def _given_number(input: Array, value: float) -> Array:
    """A number in the shape and dtype of `input`."""
    return np.full_like(input, value)


def exact(number: Any, like: Tensor, stored: bool) -> bool:
    """Whether a tensor of the number does what the number does beside `like`.

    stored: whether it becomes an element of `like`. 16 bits would round it, small integers wrap.
    """
    d = like._dtype
    if d.kind > 1:
        return d.itemsize >= 4
    if isinstance(number, float):
        return not stored
    return d is int64 or (d.kind == 0 and not stored)


def as_tensor(number: Varying, like: Tensor, recorder: Any) -> Tensor:
    """A recorded 0-d tensor that holds the number, of the dtype that it takes beside `like`."""
    from ..tensor import get_default_dtype

    whole = number.kind is int
    d = like._dtype if like._dtype.kind > (0 if whole else 1) else (
        int64 if whole else get_default_dtype())
    if number.node is None:
        number.node = recorder.number(float(number))  # type: ignore[arg-type]
    node = number.tensors.get(d)
    if node is None:
        pattern = wrap(np.zeros((), d.np), d)
        node = number.tensors[d] = recorder._call(
            _given_number, (recorder.value_of(pattern),), (number.node,), pattern._a)
    return wrap(AbstractArray((), d.np, recorder=recorder, value=(node, 0)), d)
