"""Window functions: `torch.signal.windows`. Each function is defined in `lampion.ops`."""

from __future__ import annotations

from typing import Any

from ..ops.record import PUBLIC

globals().update(PUBLIC["signal.windows"])
__all__ = sorted(PUBLIC["signal.windows"])


def __getattr__(name: str) -> Any:
    raise AttributeError(f"lampion has no torch.signal.windows.{name} yet")
