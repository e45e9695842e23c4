"""`torch.accelerator`: the accelerator of this machine, if lampion can use it: none yet."""

from __future__ import annotations

from typing import Any

__all__ = ["is_available", "device_count", "current_accelerator"]


def is_available() -> bool:
    """Whether there is an accelerator: no."""
    return False


def device_count() -> int:
    """The number of accelerators: none."""
    return 0


def current_accelerator(check_available: bool = False) -> Any:
    """The accelerator's device: None."""
    return None
