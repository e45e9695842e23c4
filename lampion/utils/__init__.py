"""`torch.utils`."""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import Any

_ROOMS = ("data", "checkpoint", "hooks", "tensorboard", "deterministic", "threads", "describe",
          "dlpack", "model_zoo", "_pytree", "benchmark", "collect_env", "cpp_extension",
          "flop_counter", "mobile_optimizer")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        try:
            return _import_module(f"{__name__}.{name}")
        except ImportError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"lampion has no torch.utils.{name} yet")


def set_module(obj: Any, mod: str) -> None:
    """Sets the module name that an object shows."""
    if not isinstance(mod, str):
        raise TypeError("The mod argument should be a string")
    obj.__module__ = mod
