"""Automatic differentiation: modes, history, engine, custom functions."""

from . import functional, graph
from .anomaly_mode import detect_anomaly, set_detect_anomaly
from .engine import backward, grad
from .function import Function
from .gradcheck import gradcheck, gradgradcheck
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

# Programs written for the first PyTorch releases wrap tensors in a Variable.
from .variable import Variable

__all__ = ["Function", "Node", "RemovableHandle", "Variable", "backward", "detect_anomaly",
           "enable_grad", "functional", "grad", "gradcheck", "gradgradcheck", "graph",
           "inference_mode", "is_grad_enabled", "is_inference_mode_enabled", "no_grad",
           "set_detect_anomaly", "set_grad_enabled", "state"]
