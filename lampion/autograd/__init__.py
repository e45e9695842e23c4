"""Automatic differentiation: modes, history, engine, custom functions."""

from .engine import backward, grad
from .hooks import RemovableHandle
from .modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
    state,
)
from .node import Node

__all__ = ["Node", "RemovableHandle", "backward", "enable_grad", "grad", "inference_mode",
           "is_grad_enabled", "is_inference_mode_enabled", "no_grad", "set_grad_enabled", "state"]
