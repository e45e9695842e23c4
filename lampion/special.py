"""Special functions: `torch.special`. Each function is defined in `lampion.ops`."""

from __future__ import annotations

from typing import Any

from .ops.record import PUBLIC

globals().update(PUBLIC["special"])
__all__ = sorted(PUBLIC["special"])


def __getattr__(name: str) -> Any:
    raise AttributeError(f"lampion has no torch.special.{name} yet")
