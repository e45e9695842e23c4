"""Compiled modules: the same object to look at, with calls that run as programs.

A compiled module is of a subclass that only calls differently and shares everything else with the
module it was made from, so names of parameters, `isinstance` and attributes are what they were.
"""

from __future__ import annotations

import types
from functools import lru_cache
from typing import Any

from ..nn.modules.module import Module
from .compiled import Compiled
from .program import Options

__all__ = ["compile_in_place", "compiled_module", "plain_class"]

_IMPL = "_compiled_call_impl"


def compiled_module(model: Module, options: Options) -> Module:
    """A module over the same parameters and attributes whose calls are compiled."""
    twin = object.__new__(_twin(plain_class(type(model))))
    object.__setattr__(twin, "__dict__", model.__dict__)
    twin.__dict__[_IMPL] = _calls(twin, options)
    return twin


def compile_in_place(model: Module, options: Options) -> None:
    """Makes the module's own calls compiled."""
    model.__class__ = _twin(plain_class(type(model)))
    model.__dict__[_IMPL] = _calls(model, options)


def plain_class(cls: type) -> Any:
    """The class without compiled calls."""
    return cls.__dict__.get("_plain_class", cls)


def _calls(model: Module, options: Options) -> Compiled:
    plain = plain_class(type(model))
    return Compiled(types.MethodType(plain.__call__, model), options)


@lru_cache(None)
def _twin(cls: Any) -> Any:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        impl = self.__dict__.get(_IMPL)
        return cls.__call__(self, *args, **kwargs) if impl is None else impl(*args, **kwargs)

    def original(self: Any) -> Any:
        plain = object.__new__(cls)
        object.__setattr__(plain, "__dict__", self.__dict__)
        return plain

    def reduce(self: Any, protocol: Any) -> Any:
        return _again, (original(self), self.__dict__[_IMPL].options)

    return type(cls.__name__, (cls,), {
        "__call__": call, "__module__": cls.__module__, "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__, "_plain_class": cls, "_orig_mod": property(original),
        "__reduce_ex__": reduce})


def _again(model: Module, options: Options) -> Module:
    return compiled_module(model, options)
