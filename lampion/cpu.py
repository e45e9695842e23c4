"""`torch.cpu`: the processor as a device; its work is done when a call returns."""

from __future__ import annotations

from typing import Any

__all__ = ["current_device", "device_count", "is_available", "is_initialized", "set_device",
           "synchronize"]


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
