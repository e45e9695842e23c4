"""Floats that vary from call to call: arguments and attributes such as a weight of the loss.

A float is a constant of the program at first. Where calls turn out to differ in it alone, the next
capture meets it as a `Varying`: arithmetic with tensors takes it as a number given at each run.
Whatever else looks at its value makes it a constant again (`baked`), and a program of its own.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ..graph.node import Node
from ..ops.record import leaf, not_differentiable
from ..tensor.abstract import AbstractArray
from ..tensor.tensor import Tensor, wrap

Array = Any

__all__ = ["BINARY", "Varying", "as_tensor"]

BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add, "Sub": operator.sub, "Mult": operator.mul, "Div": operator.truediv,
}


class Varying(float):
    """The float as it is in this call; `read` gives that of another."""

    node: Node
    read: Callable[[Any], float]  # of the floats among the arguments
    baked: bool = False


@leaf(not_differentiable("a number"), name="given_number", shape=lambda a, value: a.shape)
def _given_number(input: Array, value: float) -> Array:
    """A number in the shape and dtype of `input`."""
    return np.full_like(input, value)


def as_tensor(number: Varying, like: Tensor, recorder: Any) -> Tensor:
    """A recorded 0-d tensor that holds the number, of the dtype that it takes beside `like`."""
    from ..tensor import get_default_dtype

    d = like._dtype if like._dtype.kind > 1 else get_default_dtype()
    pattern = wrap(np.zeros((), d.np), d)
    node = recorder._call(_given_number, (recorder.value_of(pattern),), (number.node,), pattern._a)
    return wrap(AbstractArray((), d.np, recorder=recorder, value=(node, 0)), d)
