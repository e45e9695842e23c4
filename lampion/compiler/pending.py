"""Numbers that a captured function reads from its tensors, and may only return.

`loss.item()` has no value while the function is captured. It gives a stand-in that passes for a
float or an int; the watcher refuses whatever looks at its value, and what is left is a result that
every run reads anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd.modes import no_grad
from ..tensor.tensor import Tensor

__all__ = ["NotYet", "Pending", "pending"]


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
    made: Any = PendingFloat("nan") if wanted is float else PendingInt(0)
    with no_grad():
        made.tensor = t.detach().clone()  # as it is now: it may be written to later
    made.where = where
    return made
