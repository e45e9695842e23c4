"""Numbers that a captured function reads from its tensors: they exist when the program has run.

`loss.item()` gives a stand-in that passes for a float or an int. Arithmetic with it is recorded in
double precision and gives another; comparisons are decisions of the program (`decisions.py`); the
watcher refuses whatever else looks at the value. What is left is read when the program has run.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from ..autograd.modes import no_grad, state
from ..ops import absolute, tensor, where
from ..tensor.dtype import float64, int64
from ..tensor.tensor import Tensor
from .varying import BINARY, Varying, as_tensor

__all__ = ["COMPARED", "NotYet", "Pending", "applied", "as_operand", "combined", "comparison",
           "pending", "read_back"]

COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "Lt": operator.lt, "LtE": operator.le, "Gt": operator.gt, "GtE": operator.ge,
    "Eq": operator.eq, "NotEq": operator.ne,
}
_KINDS = ("Add", "Sub", "Mult", "Div", "Pow")
_SMALL = 1 << 31  # integers below: their sums, differences and products fit into 64 bits


class NotYet(Exception):
    """The function can be captured once it has run, or once `prepare` was called."""

    def __init__(self, what: str, prepare: Callable[[], None] | None = None) -> None:
        super().__init__(what)
        self.prepare = prepare


class Pending:
    """What the stand-ins have in common: the tensor that will be read."""

    tensor: Tensor
    where: str  # the user's line that read it

    def __reduce__(self) -> Any:
        raise TypeError("a number that does not exist until the program runs")


class PendingFloat(Pending, float):
    """Of a floating point tensor."""


class PendingInt(Pending, int):
    """Of an integer tensor."""


def pending(t: Tensor, where: str, kind: type | None = None) -> Any:
    """The stand-in for `t.item()`, `float(t)` or `int(t)`; None where there can be none."""
    wanted = kind or (float if t._dtype.kind == 2 else int if t._dtype.kind == 1 else None)
    if wanted not in (float, int) or t._a.size != 1 or (kind and t._dtype.kind > 2):
        return None
    with no_grad():
        t = t.detach()
        if wanted is int and t._dtype.kind == 2:
            state.recorder.decisions.expect(t.abs() < _SMALL)
            t = t.to(int64)
        return _made(wanted, t.clone(), where)  # as it is now: it may be written to


def _made(kind: Any, t: Tensor, where: str) -> Any:
    made: Any = PendingFloat("nan") if kind is float else PendingInt(0)
    made.tensor, made.where = t, where
    return made


def read_back(number: Varying) -> Any:
    """A number that varies as the program gives it."""
    with no_grad():
        t = as_tensor(number, tensor(0, dtype=int64 if number.kind is int else float64),
                      state.recorder)
        return _made(number.kind, t, "")


def _is_number(value: Any) -> bool:
    return isinstance(value, (Pending, Varying)) or value.__class__ in (int, float, bool)


def _as_double(value: Any, d: Any) -> Tensor:
    """A number as a tensor of one element."""
    if isinstance(value, Pending):
        return value.tensor.reshape(()).to(d)
    if isinstance(value, Varying):
        return as_tensor(value, tensor(0, dtype=d), state.recorder)
    return tensor(value, dtype=d)


def combined(kind: str, left: Any, right: Any) -> Any:
    """The stand-in for `left + right` and its like; None where there can be none."""
    ints = isinstance(left, int) and isinstance(right, int)
    if kind not in _KINDS or not (_is_number(left) and _is_number(right)) or (
            kind == "Pow" and ints):
        return None
    whole = kind != "Div" and ints
    with no_grad():
        a, b = (_as_double(x, int64 if whole else float64) for x in (left, right))
        if whole:
            for x in (a, b):
                state.recorder.decisions.expect((x < _SMALL) & (x > -_SMALL))
        elif kind == "Div":  # by zero, which Python refuses
            state.recorder.decisions.expect(b != 0)
        elif kind == "Pow":
            state.recorder.decisions.expect(a > 0)
        line = next(x.where for x in (left, right) if isinstance(x, Pending))
        return _made(int if whole else float, BINARY[kind](a, b), line)


def applied(f: Any, args: Any) -> Any:
    """The stand-in for `min(a, b)`, `math.sqrt(a)` and their like; None where there is none."""
    if not all(map(_is_number, args)) or f not in _FUNCTIONS or len(args) != (
            2 if f in (min, max) else 1) or any(isinstance(a, int) for a in args):
        return None
    with no_grad():
        values = [_as_double(a, float64) for a in args]
        line = next(a.where for a in args if isinstance(a, Pending))
        return _made(float, _FUNCTIONS[f](*values), line)


def _sqrt(x: Tensor) -> Tensor:
    state.recorder.decisions.expect(x >= 0)
    return x.sqrt()


def _log(x: Tensor) -> Tensor:
    state.recorder.decisions.expect(x > 0)
    return x.log()


_FUNCTIONS: dict[Any, Callable[..., Tensor]] = {
    min: lambda a, b: where(b < a, b, a),
    max: lambda a, b: where(b > a, b, a),
    abs: absolute, math.sqrt: _sqrt, math.log: _log, float: lambda a: a,
}


def comparison(kind: str, left: Any, right: Any) -> Tensor | None:
    """Whether `left < right` or its like, as a tensor; None where there can be none."""
    if not (_is_number(left) and _is_number(right)):
        return None
    whole = isinstance(left, int) and isinstance(right, int)
    with no_grad():
        a, b = (_as_double(x, int64 if whole else float64) for x in (left, right))
        return COMPARED[kind](a, b)  # type: ignore[no-any-return]


def as_operand(number: Pending, like: Tensor) -> Tensor | None:
    """What a tensor is combined with; None where the result would be of another dtype."""
    if like._dtype.kind != 2 and not (like._dtype.kind == 1 and isinstance(number, int)):
        return None
    with no_grad():
        return number.tensor.reshape(()).to(like._dtype)
