"""Names of types, as `torch.typename` gives them."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from ..tensor.names import type_name

__all__ = ["typename"]


def typename(obj: Any) -> str:
    """The full name of an object's type: `torch.FloatTensor` for tensors."""
    if isinstance(obj, Tensor):
        return type_name(obj)
    module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if module is None or name is None:
        module, name = type(obj).__module__, type(obj).__qualname__
    return name if module in ("builtins", None) else f"{module}.{name}"
