"""`Variable`: the old name of a tensor that takes part in autograd."""

from __future__ import annotations

from typing import Any

from ..tensor.tensor import Tensor

__all__ = ["Variable"]


class _VariableMeta(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, Tensor)


class Variable(metaclass=_VariableMeta):
    """`Variable(x, requires_grad)` is `x` itself, detached, with the flag set."""

    def __new__(cls, data: Tensor, requires_grad: bool = False,  # type: ignore[misc]
                volatile: bool = False) -> Tensor:
        out = data.detach()
        out._rg = bool(requires_grad)
        return out
