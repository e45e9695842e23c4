"""Exported programs: what a module computes, without its source.

This module is `torch.export`, and a function too: `lampion.export(model, args)` is
`lampion.export.export(model, args)`.

>>> import lampion as torch
>>> program = torch.export(torch.nn.Linear(3, 2), (torch.ones(4, 3),))
>>> print(program)
graph Linear(%input: float32[{batch}, 3], %weight: float32[2, 3], %bias: float32[2]):
  %3 = linear(%input, %weight, %bias) : float32[{batch}, 2]
  return %3
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from .dims import Dim, dims
from .errors import ExportError
from .file import load, save
from .program import ExportedProgram
from .tracing import export

__all__ = ["Dim", "ExportError", "ExportedProgram", "dims", "export", "load", "save"]


class _Callable(ModuleType):
    """A module that may be called."""

    def __call__(self, *args: Any, **kwargs: Any) -> ExportedProgram:
        return export(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
