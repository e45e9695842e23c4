"""Storages: the memory behind tensors."""

from .ops.memory import LEGACY, TypedStorage, UntypedStorage

__all__ = ["TypedStorage", "UntypedStorage"]

globals().update(LEGACY)
