"""What classes say of their objects: where attributes come from, and what operators run."""

from __future__ import annotations

import functools
import gc
import operator
import types
import weakref
from collections import namedtuple
from collections.abc import Callable, Iterable
from typing import Any

from . import rules

__all__ = ["FIELD", "PLAIN", "class_dict", "compares", "getter", "has_operations", "hides", "holds",
           "instance_dict", "is_bound", "is_made_up", "moves", "mutable", "sets", "static"]

PLAIN = frozenset((int, float, str, bool, complex, bytes, type(None), slice, range, type(...),
                   type(NotImplemented)))  # whose objects never change and run nobody's code
FIELD: Any = type(operator.attrgetter("field")(namedtuple("_Tuple", "field")))
_NAMES = """
    bool len contains getitem str repr format hash index int float complex round trunc floor ceil
    neg pos abs invert eq ne lt le gt ge
    add sub mul matmul truediv floordiv mod divmod pow lshift rshift and xor or
    radd rsub rmul rmatmul rtruediv rfloordiv rmod rdivmod rpow rlshift rrshift rand rxor ror
    iadd isub imul imatmul itruediv ifloordiv imod ipow ilshift irshift iand ixor ior"""
_OPERATIONS = tuple(f"__{name}__" for name in _NAMES.split())
_COMPARISONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__contains__")
_BOUND = (types.FunctionType, staticmethod, classmethod, types.BuiltinFunctionType,
          types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType)
_MADE_UP = "<string>"  # the file of functions that dataclasses and named tuples make


def _kept(function: Callable[..., bool]) -> Callable[..., bool]:
    """Classes are asked again and again."""
    return functools.lru_cache(4096)(function)


def static(kind: type, name: str) -> Any:
    """What the classes of an object have under a name."""
    for cls in kind.__mro__:
        if name in cls.__dict__:
            return cls.__dict__[name]
    return None


def instance_dict(obj: Any) -> dict[str, Any] | None:
    """The attributes of the object itself, if it keeps them in a dict."""
    try:
        found = object.__getattribute__(obj, "__dict__")
    except AttributeError:
        return None
    return found if isinstance(found, dict) else None


def class_dict(cls: type) -> dict[str, Any]:
    """The dict behind a class, whose entries are quick to look at."""
    return gc.get_referents(cls.__dict__)[0]  # type: ignore[no-any-return]


@_kept
def hides(kind: type) -> bool:
    """Whether looking at an object's attributes runs code of the user's, or looks elsewhere."""
    return kind in (weakref.ProxyType, weakref.CallableProxyType) or any(
        _is_users(cls, "__getattribute__") for cls in kind.__mro__)


@_kept
def has_operations(kind: type) -> bool:
    """Whether a class of the user's says in Python what operators and tests mean."""
    return any(_is_users(cls, name) and not is_made_up(cls.__dict__[name])
               for cls in kind.__mro__ for name in _OPERATIONS)


@_kept
def compares(kind: type) -> bool:
    """Whether comparing objects runs Python code, that of dataclasses included."""
    return any(_is_users(cls, name) for cls in kind.__mro__ for name in _COMPARISONS)


@_kept
def holds(kind: type) -> bool:
    """Whether objects are containers whose contents nothing here looks at."""
    cls = next((c for c in kind.__mro__ if "__len__" in c.__dict__), None)
    return cls is not None and not issubclass(kind, type) and not rules.is_lampion(cls)


@_kept
def moves(kind: type) -> bool:
    """Whether asking for the next element runs code of the user's."""
    return any(_is_users(cls, "__next__") for cls in kind.__mro__)


@_kept
def sets(kind: type, name: str) -> bool:
    """Whether setting an attribute (or, with the name "[]", an item) runs code of the user's."""
    if name == "[]":
        return any(_is_users(cls, n) for cls in kind.__mro__ for n in ("__setitem__",
                                                                       "__delitem__"))
    found = static(kind, name)
    if hasattr(type(found), "__set__") and not isinstance(found, (
            types.MemberDescriptorType, types.GetSetDescriptorType)):
        return True
    return any(_is_users(cls, n) for cls in kind.__mro__ for n in ("__setattr__", "__delattr__"))


def getter(found: Any) -> Any:
    """The user's function that gives the value of a descriptor; None where there is none."""
    made = static(type(found), "__get__")
    is_users = isinstance(made, types.FunctionType) and not rules.is_lampion(
        made) and not rules.is_standard(made.__module__)
    return made if is_users else None


def is_bound(found: Any) -> bool:
    """Whether what a class has is a function, or a value that is given as it is."""
    return isinstance(found, _BOUND) or not hasattr(type(found), "__get__")


def is_made_up(function: Any) -> bool:
    """Whether a function's text was made by a program, as for dataclasses and named tuples."""
    return isinstance(function, types.FunctionType) and (
        function.__code__.co_filename == _MADE_UP)


def _is_users(cls: type, name: str) -> bool:
    return isinstance(cls.__dict__.get(name), types.FunctionType) and not (
        rules.is_lampion(cls) or rules.is_standard(cls.__module__))


def mutable(classes: Iterable[type]) -> list[type]:
    """Classes that can get other attributes: those that were made by Python."""
    return [cls for cls in classes if cls.__flags__ >> 9 & 1]
