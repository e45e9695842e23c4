"""`torch.utils.dlpack`."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..tensor import Tensor

__all__ = ["from_dlpack", "to_dlpack"]

from_dlpack = ops.from_dlpack


def to_dlpack(tensor: Tensor) -> Any:
    """A DLPack capsule of the tensor's memory."""
    return tensor.__dlpack__()
