"""Neural networks: modules, functions, initialisation, utilities.

>>> import lampion as torch
>>> torch.nn.Linear(2, 3)
Linear(in_features=2, out_features=3, bias=True)
"""

from __future__ import annotations

import importlib
from typing import Any

from . import functional as functional
from . import init as init
from . import utils as utils
from .modules import *  # noqa: F403
from .modules import __all__ as _layers
from .parameter import (
    Buffer as Buffer,
)
from .parameter import (
    Parameter as Parameter,
)
from .parameter import (
    UninitializedBuffer as UninitializedBuffer,
)
from .parameter import (
    UninitializedParameter as UninitializedParameter,
)

__all__ = [*_layers, "Buffer", "Parameter", "UninitializedBuffer", "UninitializedParameter"]

_ON_USE = ("attention", "common_types", "grad", "modules", "parallel", "parameter")


def __getattr__(name: str) -> Any:
    if name == "DataParallel":
        from .parallel import DataParallel

        return DataParallel
    if name in _ON_USE:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"lampion has no torch.nn.{name} yet")


def factory_kwargs(kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """The `device`, `dtype` and `memory_format` among keyword arguments; TypeError for others."""
    if kwargs is None:
        return {}
    simple = {"device", "dtype", "memory_format"}
    unexpected = kwargs.keys() - (simple | {"factory_kwargs"})
    if unexpected:
        raise TypeError(f"unexpected kwargs {unexpected}")
    found = dict(kwargs.get("factory_kwargs", {}))
    for key in simple & kwargs.keys():
        if key in found:
            raise TypeError(f"{key} specified twice, in **kwargs and in factory_kwargs")
        found[key] = kwargs[key]
    return found
