"""`torch.mps`: Apple's GPUs are not supported yet."""

from __future__ import annotations

__all__ = ["is_available", "device_count", "empty_cache", "manual_seed"]


def is_available() -> bool:
    """Whether tensors can be placed on an Apple GPU: no."""
    return False


def device_count() -> int:
    """The number of devices: none."""
    return 0


def empty_cache() -> None:
    """Nothing to free without a device."""


def manual_seed(seed: int) -> None:
    """Accepted without a device."""
