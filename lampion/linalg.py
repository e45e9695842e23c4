"""Linear algebra: `torch.linalg`. Each function is defined in `lampion.ops`."""

from __future__ import annotations

from typing import Any

from .ops.record import PUBLIC

globals().update(PUBLIC["linalg"])
__all__ = sorted(PUBLIC["linalg"])


def __getattr__(name: str) -> Any:
    raise AttributeError(f"lampion has no torch.linalg.{name} yet")
