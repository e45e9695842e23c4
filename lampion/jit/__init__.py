"""`torch.jit`: TorchScript. Functions and modules run as the Python that they are.

Differences from PyTorch: nothing is translated, so every Python feature works inside; a trace is
the function itself and does not freeze branches; saving a script is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["script", "trace", "ignore", "unused", "export", "is_tracing", "is_scripting",
           "ScriptModule", "Final"]

F = TypeVar("F", bound=Callable[..., Any])


def script(obj: Any, *args: Any, **kwargs: Any) -> Any:
    """The function, class or module itself."""
    return obj


def trace(func: Any, example_inputs: Any = None, *args: Any, **kwargs: Any) -> Any:
    """The function or module itself, after one run on the example inputs."""
    if example_inputs is not None:
        func(*example_inputs) if isinstance(example_inputs, (tuple, list)) else func(
            example_inputs)
    return func


def trace_module(mod: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    """The module itself."""
    return mod


def ignore(drop: Any = False, **kwargs: Any) -> Any:
    """Marks a method for TorchScript: no effect."""
    return drop if callable(drop) else lambda fn: fn


def unused(fn: F) -> F:
    """Marks a method for TorchScript: no effect."""
    return fn


export = interface = script_if_tracing = unused


def is_scripting() -> bool:
    """Whether code is being translated to TorchScript: never."""
    return False


is_tracing = is_scripting


def annotate(the_type: Any, the_value: Any) -> Any:
    """The value itself."""
    return the_value


def fork(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Runs the function at once; `wait` returns its result."""
    return func(*args, **kwargs)


def wait(future: Any) -> Any:
    """The result of `fork`."""
    return future


def freeze(mod: Any, *args: Any, **kwargs: Any) -> Any:
    """The module itself."""
    return mod


optimize_for_inference = freeze


def save(m: Any, f: Any, *args: Any, **kwargs: Any) -> None:
    """An error: a script would have to hold its program."""
    raise RuntimeError("lampion has no torch.jit.save yet: save the weights with "
                       "torch.save(model.state_dict(), path)")


def load(f: Any, *args: Any, **kwargs: Any) -> Any:
    """An error: TorchScript programs cannot be run."""
    raise RuntimeError("lampion has no torch.jit.load yet: load weights with torch.load() into the "
                       "model's class")


class ScriptModule:
    """The class of translated modules: none exist, so `isinstance` is always False."""


ScriptFunction = RecursiveScriptModule = ScriptModule
Final = Any


class _Attribute:
    """A value with a type note for TorchScript."""

    def __new__(cls, value: Any, type: Any) -> Any:
        return value


Attribute = _Attribute
