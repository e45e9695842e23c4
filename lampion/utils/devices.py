"""Devices by name, and the errors that they raise."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..tensor import device as device_type

__all__ = ["AcceleratorError", "OutOfMemoryError", "get_device_module"]

_ROOT = __name__.partition(".")[0]


class AcceleratorError(RuntimeError):
    """An error of an accelerator."""


class OutOfMemoryError(RuntimeError):
    """A device has no memory left."""


def get_device_module(device: Any = None) -> Any:
    """`torch.cpu`, `torch.cuda`, ...: the module of a device's type."""
    kind = "cpu" if device is None else device_type(device).type
    if kind == "meta":
        raise RuntimeError("Device 'meta' does not have a corresponding module registered as "
                           "'torch.meta'.")
    return import_module(f"{_ROOT}.{kind}")
