"""The module that PyTorch defines Tensor in."""

from .tensor import Tensor

__all__ = ["Tensor"]
