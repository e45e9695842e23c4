"""Makes `import torch` mean lampion, for `lampion run`.

Every `torch.x.y` is the very module object of `lampion.x.y`. A module that PyTorch has and
lampion has not yet raises an ImportError that says so by name.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["install"]

_HERE = __name__.rpartition(".")[0]


class _AliasLoader(Loader):
    """Hands out a lampion module under its torch name."""

    def __init__(self, target: str) -> None:
        self.target = target

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.target)
        self.identity = (module.__spec__, getattr(module, "__loader__", None))
        return module

    def exec_module(self, module: ModuleType) -> None:
        """The module has run already; the import system has only relabelled it."""
        module.__spec__, module.__loader__ = self.identity


class _AliasFinder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        root, _, rest = fullname.partition(".")
        if root != "torch":
            return None
        name = f"{_HERE}.{rest}" if rest else _HERE
        if not _exists(name):
            # Not ModuleNotFoundError: `from torch import name` would swallow it.
            raise ImportError(f"lampion has no {fullname} yet", name=fullname)
        return ModuleSpec(fullname, _AliasLoader(name), is_package=True)


class _MissingFinder(MetaPathFinder):
    """Asked last: what no finder has found below lampion does not exist yet."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        root, _, rest = fullname.partition(".")
        if root == _HERE:
            raise ImportError(f"lampion has no torch.{rest} yet", name=fullname)


def _exists(name: str) -> bool:
    if name in sys.modules:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def install() -> None:
    """From now on `import torch` gives lampion; a PyTorch that is already imported stays."""
    if "torch" in sys.modules and sys.modules["torch"].__name__ != _HERE:
        raise RuntimeError("torch is imported already; install lampion's alias before it")
    if not any(isinstance(finder, _AliasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AliasFinder())
        sys.meta_path.append(_MissingFinder())
