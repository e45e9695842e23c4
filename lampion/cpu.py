"""`torch.cpu`: the processor as a device; its work is done when a call returns."""

from __future__ import annotations

from typing import Any

from .runtime import memory

__all__ = ["current_device", "device_count", "empty_cache", "is_available", "is_initialized",
           "max_memory_allocated", "memory_allocated", "memory_reserved",
           "reset_peak_memory_stats", "set_device", "synchronize"]


def is_available() -> bool:
    """Whether the processor can be used: always."""
    return True


def is_initialized() -> bool:
    """Whether the processor is ready: always."""
    return True


def device_count() -> int:
    """The number of processors as devices: one."""
    return 1


def current_device() -> str:
    """The name of the device."""
    return "cpu"


def set_device(device: Any) -> None:
    """Nothing to choose from."""


def synchronize(device: Any = None) -> None:
    """Nothing to wait for."""


# As of `torch.cuda`; PyTorch has them for accelerators only.


def memory_allocated(device: Any = None) -> int:
    """Bytes of pooled memory that tensors hold; small tensors, NumPy's own, are not counted."""
    return memory.memory_allocated()


def max_memory_allocated(device: Any = None) -> int:
    """The most that `memory_allocated` was since the start or `reset_peak_memory_stats`.

    >>> import lampion as torch
    >>> torch.cpu.max_memory_allocated() >= torch.cpu.memory_allocated()
    True
    """
    return memory.max_memory_allocated()


def reset_peak_memory_stats(device: Any = None) -> None:
    """Lets `max_memory_allocated` begin again."""
    memory.reset_peak_memory_stats()


def memory_reserved(device: Any = None) -> int:
    """Bytes that the pool has from the system, in use or kept for the next tensors."""
    return memory.memory_reserved()


def empty_cache() -> None:
    """Gives memory that no tensor uses back to the system."""
    memory.trim()
