"""`torch.types`: names for annotations."""

from __future__ import annotations

import builtins
from os import PathLike
from typing import Any, TypeAlias

from .tensor.devices import device
from .tensor.dtype import dtype
from .tensor.size import Size
from .tensor.tensor import Tensor

Number: TypeAlias = builtins.int | builtins.float | builtins.bool
Device: TypeAlias = device | str | builtins.int | None
FileLike: TypeAlias = str | PathLike[str] | Any
Storage: TypeAlias = Any

__all__ = ["Device", "FileLike", "Number", "Size", "Storage", "Tensor", "device", "dtype"]
