"""The functions of neural networks. Each is defined in `lampion.ops`, in the file of its family."""

from __future__ import annotations

from typing import Any

from ..ops.record import PUBLIC

globals().update(PUBLIC["F"])
__all__ = sorted(PUBLIC["F"])


def __getattr__(name: str) -> Any:
    raise AttributeError(f"lampion has no torch.nn.functional.{name} yet")
