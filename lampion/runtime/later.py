"""Modules that are imported when they are first used, at no cost afterwards.

An import statement in a function takes about a microsecond at every call, as long as a small
operator: too much on a path that every call takes.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["Later"]


class Later:
    """Stands for a module: its names are looked up there when they are asked for.

    >>> from lampion.runtime.later import Later
    >>> Later("math").sqrt(4.0)
    2.0
    """

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what inspection asks of any object imports nothing
            raise AttributeError(name)
        value = self.__dict__[name] = getattr(import_module(self._module), name)
        return value
