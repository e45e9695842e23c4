"""Making a module without filling its parameters."""

from __future__ import annotations

from typing import Any

from ..modules.module import Module

__all__ = ["skip_init"]


def skip_init(module_cls: type[Module], *args: Any, **kwargs: Any) -> Module:
    """An instance of `module_cls` whose parameters hold undefined values.

    The class must take a `device` argument and use only parameters made on that device.
    """
    if not issubclass(module_cls, Module):
        raise RuntimeError(f"Expected a Module; got {module_cls}")
    if not _takes_device(module_cls):
        raise RuntimeError("Module must support a 'device' arg to skip initialization")
    device = kwargs.pop("device", "cpu")
    return module_cls(*args, **kwargs, device="meta").to_empty(device=device)


def _takes_device(module_cls: Any) -> bool:
    """Whether any `__init__` on the way up names `device`."""
    codes = [getattr(k.__dict__.get("__init__"), "__code__", None) for k in module_cls.__mro__]
    return any(code is not None and "device" in code.co_varnames for code in codes)
