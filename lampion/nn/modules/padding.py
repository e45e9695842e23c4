"""Padding layers."""

from __future__ import annotations

from typing import Any

from ...tensor import Tensor
from .. import functional as F
from .module import Module
from .utils import _ntuple, _pair, _quadruple

__all__ = [
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]

_sextuple = _ntuple(6)


class _PadNd(Module):
    """Padding by (left, right, top, bottom, ...), last dimension first; an int for all sides."""

    __constants__ = ["padding"]
    _tuple: Any
    _mode = "constant"
    padding: tuple[int, ...]

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding = type(self)._tuple(padding)

    def forward(self, input: Tensor) -> Tensor:
        """Pad."""
        return F.pad(input, self.padding, self._mode)

    def extra_repr(self) -> str:
        """Settings."""
        return f"{self.padding}"


class _ConstantPadNd(_PadNd):
    """Padding with one value."""

    __constants__ = ["padding", "value"]

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        """Pad."""
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        """Settings."""
        return f"padding={self.padding}, value={self.value}"


class _CircularPadNd(_PadNd):
    """Padding with the opposite end of the tensor."""

    _mode = "circular"

    def forward(self, input: Tensor) -> Tensor:
        """Pad."""
        dims = len(self.padding) // 2
        if input.dim() not in (dims + 1, dims + 2):
            raise ValueError(
                f"expected {dims + 1}D or {dims + 2}D input (got {input.dim()}D input)"
            )
        return super().forward(input)


class _ReflectionPadNd(_PadNd):
    """Padding with the mirror image, without the border itself."""

    _mode = "reflect"


class _ReplicationPadNd(_PadNd):
    """Padding with the border's values."""

    _mode = "replicate"


class CircularPad1d(_CircularPadNd):
    """Pad (N, C, L) with the opposite end."""

    _tuple = staticmethod(_pair)


class CircularPad2d(_CircularPadNd):
    """Pad (N, C, H, W) with the opposite end."""

    _tuple = staticmethod(_quadruple)


class CircularPad3d(_CircularPadNd):
    """Pad (N, C, D, H, W) with the opposite end."""

    _tuple = staticmethod(_sextuple)


class ConstantPad1d(_ConstantPadNd):
    """Pad (N, C, L) with one value."""

    _tuple = staticmethod(_pair)


class ConstantPad2d(_ConstantPadNd):
    """Pad (N, C, H, W) with one value."""

    _tuple = staticmethod(_quadruple)


class ConstantPad3d(_ConstantPadNd):
    """Pad (N, C, D, H, W) with one value."""

    _tuple = staticmethod(_sextuple)


class ReflectionPad1d(_ReflectionPadNd):
    """Pad (N, C, L) with the mirror image."""

    _tuple = staticmethod(_pair)


class ReflectionPad2d(_ReflectionPadNd):
    """Pad (N, C, H, W) with the mirror image."""

    _tuple = staticmethod(_quadruple)


class ReflectionPad3d(_ReflectionPadNd):
    """Pad (N, C, D, H, W) with the mirror image."""

    _tuple = staticmethod(_sextuple)


class ReplicationPad1d(_ReplicationPadNd):
    """Pad (N, C, L) with the border's values."""

    _tuple = staticmethod(_pair)


class ReplicationPad2d(_ReplicationPadNd):
    """Pad (N, C, H, W) with the border's values."""

    _tuple = staticmethod(_quadruple)


class ReplicationPad3d(_ReplicationPadNd):
    """Pad (N, C, D, H, W) with the border's values."""

    _tuple = staticmethod(_sextuple)


class ZeroPad1d(ConstantPad1d):
    """Pad (N, C, L) with zeros."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        """Settings."""
        return f"{self.padding}"


class ZeroPad2d(ConstantPad2d):
    """Pad (N, C, H, W) with zeros."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        """Settings."""
        return f"{self.padding}"


class ZeroPad3d(ConstantPad3d):
    """Pad (N, C, D, H, W) with zeros."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        """Settings."""
        return f"{self.padding}"
