"""Gradients of convolutions as functions of their own."""

from __future__ import annotations

from typing import Any

from ..ops.conv import correlate_input, correlate_weight, spatial
from ..tensor import Tensor

__all__ = [
    "conv1d_input",
    "conv1d_weight",
    "conv2d_input",
    "conv2d_weight",
    "conv3d_input",
    "conv3d_weight",
]


def _arguments(dims: int, *values: Any) -> list[Any]:
    labels = ("stride", "padding", "dilation")
    return [spatial(v, dims, "conv_grad", n) for v, n in zip(values, labels, strict=True)]


def _input(
    dims: int, input_size: Any, weight: Tensor, grad_output: Tensor, *settings: Any
) -> Tensor:
    *steps, groups = settings
    size = tuple(input_size)[-dims:]
    found: Tensor = correlate_input(
        grad_output, weight, None, size, *_arguments(dims, *steps), groups
    )
    return found


def _weight(
    dims: int, input: Tensor, weight_size: Any, grad_output: Tensor, *settings: Any
) -> Tensor:
    *steps, groups = settings
    kernel = tuple(weight_size)[-dims:]
    found: Tensor = correlate_weight(grad_output, input, kernel, *_arguments(dims, *steps), groups)
    return found


def conv1d_input(
    input_size: Any,
    weight: Tensor,
    grad_output: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Gradient of `conv1d` for its input."""
    return _input(1, input_size, weight, grad_output, stride, padding, dilation, groups)


def conv1d_weight(
    input: Tensor,
    weight_size: Any,
    grad_output: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Gradient of `conv1d` for its weight."""
    return _weight(1, input, weight_size, grad_output, stride, padding, dilation, groups)


def conv2d_input(
    input_size: Any,
    weight: Tensor,
    grad_output: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Gradient of `conv2d` for its input."""
    return _input(2, input_size, weight, grad_output, stride, padding, dilation, groups)


def conv2d_weight(
    input: Tensor,
    weight_size: Any,
    grad_output: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Gradient of `conv2d` for its weight."""
    return _weight(2, input, weight_size, grad_output, stride, padding, dilation, groups)


def conv3d_input(
    input_size: Any,
    weight: Tensor,
    grad_output: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Gradient of `conv3d` for its input."""
    return _input(3, input_size, weight, grad_output, stride, padding, dilation, groups)


def conv3d_weight(
    input: Tensor,
    weight_size: Any,
    grad_output: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Gradient of `conv3d` for its weight."""
    return _weight(3, input, weight_size, grad_output, stride, padding, dilation, groups)
