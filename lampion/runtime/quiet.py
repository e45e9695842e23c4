"""Floating point warnings off while a reference runs, without touching the caller's NumPy.

PyTorch's arithmetic never warns (1/0 is inf). `np.errstate` costs more than a small operation, so
NumPy's context variable is set directly where this NumPy has it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["IGNORE", "enter", "leave"]

try:
    from numpy._core import umath as _umath

    IGNORE: Any = _umath._make_extobj(all="ignore")  # type: ignore[attr-defined]
    enter = _umath._extobj_contextvar.set  # type: ignore[attr-defined]
    leave = _umath._extobj_contextvar.reset  # type: ignore[attr-defined]
except (ImportError, AttributeError):  # another NumPy: the public, slower way
    IGNORE = None

    def enter(value: Any) -> Any:
        """Turns warnings off; returns what `leave` needs."""
        return np.seterr(all="ignore")

    def leave(token: Any) -> None:
        """Restores what `enter` found."""
        np.seterr(**token)
