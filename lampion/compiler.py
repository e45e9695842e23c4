"""`torch.compile` and `torch.compiler`.

A compiled function is the function, run eagerly, until whole-step programs land; the options are
checked, so programs that will compile run unchanged today.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["compile", "is_compiling", "is_dynamo_compiling", "is_exporting", "disable", "reset",
           "cudagraph_mark_step_begin", "list_backends", "allow_in_graph", "set_stance"]

_MODES = (None, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


def compile(model: Callable[..., Any] | None = None, *, fullgraph: bool = False,
            dynamic: bool | None = None, backend: Any = "inductor", mode: str | None = None,
            options: Any = None, disable: bool = False, **kwargs: Any) -> Any:
    """The function or module itself: it runs eagerly, with the same results."""
    if mode is not None and options is not None:
        raise RuntimeError("Either mode or options can be specified, but both can't be specified "
                           "at the same time.")
    if mode not in _MODES:
        raise RuntimeError(f"Unrecognized mode={mode}, should be one of: "
                           f"{', '.join(str(m) for m in _MODES[1:])}")
    if model is None:
        return lambda fn: compile(fn, fullgraph=fullgraph, dynamic=dynamic, backend=backend,
                                  mode=mode, options=options, disable=disable)
    if not callable(model):
        raise TypeError(f"torch.compile expects a function or a module, received "
                        f"{type(model).__name__}")
    return model


def is_compiling() -> bool:
    """Whether the code runs under a compiler: no."""
    return False


is_dynamo_compiling = is_exporting = is_compiling


def disable(fn: Any = None, recursive: bool = True, **kwargs: Any) -> Any:
    """Keeps a function out of compiled programs."""
    return (lambda f: f) if fn is None else fn


allow_in_graph = assume_constant_result = disable


def reset() -> None:
    """Forgets compiled programs: there are none."""


cudagraph_mark_step_begin = reset


def list_backends(exclude_tags: Any = ("debug", "experimental")) -> list[str]:
    """The names that `backend=` is usually given."""
    return ["eager", "inductor"]


class set_stance:
    """Accepted: there is one way to run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        return None

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        return None
