"""`torch.overrides`: `__torch_function__`, on which lampion does not dispatch yet."""

from __future__ import annotations

from typing import Any

from .tensor.tensor import Tensor

__all__ = ["has_torch_function", "is_tensor_like", "handle_torch_function"]


def is_tensor_like(inp: Any) -> bool:
    """Whether `inp` is a tensor or defines `__torch_function__`."""
    return isinstance(inp, Tensor) or hasattr(type(inp), "__torch_function__")


def has_torch_function(relevant_args: Any) -> bool:
    """Whether an argument changes what functions do: never here."""
    return False


has_torch_function_unary = has_torch_function_variadic = has_torch_function


def handle_torch_function(public_api: Any, relevant_args: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls the function itself."""
    return public_api(*args, **kwargs)
