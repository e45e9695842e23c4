"""Discrete Fourier transforms: `torch.fft`. Each function is defined in `lampion.ops`."""

from __future__ import annotations

from typing import Any

from .ops.record import PUBLIC

globals().update(PUBLIC["fft"])
__all__ = sorted(PUBLIC["fft"])


def __getattr__(name: str) -> Any:
    raise AttributeError(f"lampion has no torch.fft.{name} yet")
