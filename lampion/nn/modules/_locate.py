"""Where in a model an error happened: the module's path and what it was called with.

Runs only while an exception passes through `Module.__call__`; a call that succeeds pays nothing.
"""

from __future__ import annotations

import sys
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from ...tensor import Tensor

if TYPE_CHECKING:
    from .module import Module

_PACKAGE = __name__.partition(".")[0] + "."
_AMENDED = (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError)


class _Mark:
    """What the innermost module knew when the error left it."""

    def __init__(self, message: str, module: Module, operands: str) -> None:
        self.message, self.operands, self.module = message, operands, module

    def text(self, outer: Module, root: str) -> str:
        path = _path(outer, self.module)
        where = f"{root}.{path}" if path else root
        note = f"  in {where} ({describe(self.module)})"
        return f"{self.message}\n{note}{self.operands}"


def locate(error: Exception, module: Module, args: tuple[Any, ...], kwargs: Any) -> None:
    """Add the module's path and operands to the message of an error that lampion raised."""
    mark = getattr(error, "_lampion_mark", None)
    if mark is None:
        if not _ours(error):
            return
        mark = _Mark(error.args[0], module, _operands(module, args, kwargs))
        error._lampion_mark = mark  # type: ignore[attr-defined]
    error.args = (mark.text(module, _root_name(module, sys._getframe(2))),)


def _ours(error: Exception) -> bool:
    """Errors that the user's own code raises keep their exact message."""
    if type(error) not in _AMENDED or len(error.args) != 1 or type(error.args[0]) is not str:
        return False
    return _raising_module(error.__traceback__).startswith(_PACKAGE)


def _raising_module(trace: TracebackType | None) -> str:
    name = ""
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next
    return name


def _path(outer: Module, inner: Module) -> str:
    for name, module in outer.named_modules():
        if module is inner:
            return name
    return ""


def _root_name(module: Module, frame: FrameType | None) -> str:
    """The name the caller knows the module by: a variable, or an attribute of its `self`."""
    while frame is not None and frame.f_globals.get("__name__") == _PACKAGE + "nn.modules.module":
        frame = frame.f_back
    names = frame.f_locals if frame is not None else {}
    for name, value in names.items():
        if value is module and name.isidentifier() and name != "self":
            return name
    for name, value in getattr(names.get("self"), "__dict__", {}).items():
        if value is module:
            return f"self.{name}"
    return type(module).__name__


def describe(module: Module) -> str:
    """Class and settings on one line; a module with children gives its class only."""
    extra = "" if module._modules else module.extra_repr()
    return type(module).__name__ if "\n" in extra else f"{type(module).__name__}({extra})"


def _operands(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    code = getattr(module.forward, "__code__", None)
    names = code.co_varnames[1 : code.co_argcount] if code else ()
    pairs = [
        (names[i] if i < len(names) else f"argument {i}", value) for i, value in enumerate(args)
    ]
    shown = [f"{name}: {_kind(v)}" for name, v in [*pairs, *kwargs.items()]]
    return "\n  called with " + ", ".join(shown) if shown else ""


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).rpartition('.')[2]}{list(value.shape)}"
    if isinstance(value, (bool, int, float, str, type(None))):
        return repr(value)[:40]
    if isinstance(value, (list, tuple)):
        inside = ", ".join(_kind(v) for v in value[:4])
        return f"({inside}{', ...' if len(value) > 4 else ''})"
    return type(value).__name__
