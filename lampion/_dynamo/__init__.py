"""The names of `torch._dynamo` that programs touch.

Sizes vary freely here, so marks of dynamic sizes are accepted and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..compiler import allow_in_graph, compile, disable, is_compiling, list_backends, reset
from . import config

__all__ = ["allow_in_graph", "config", "disable", "explain", "graph_break", "is_compiling",
           "list_backends", "mark_dynamic", "mark_static", "mark_static_address",
           "maybe_mark_dynamic", "optimize", "reset"]


def mark_dynamic(t: Any, index: Any, *, min: int | None = None, max: int | None = None) -> None:
    """Accepted: every size may vary."""


def mark_static(t: Any, index: Any = None) -> None:
    """Accepted: sizes are never compiled in."""


maybe_mark_dynamic = mark_dynamic


def mark_static_address(t: Any, guard: bool = True) -> None:
    """Accepted: addresses are given at every run."""


def graph_break(msg: str = "") -> None:
    """Makes a compiled function that calls it run eagerly."""


graph_break.__dict__["_kept_out"] = "torch._dynamo.graph_break"


def optimize(backend: Any = "inductor", *, nopython: bool = False, **options: Any) -> Any:
    """The older spelling of `torch.compile`, as a decorator."""
    return lambda fn: compile(fn, backend=backend, fullgraph=nopython)


def explain(fn: Callable[..., Any]) -> Callable[..., str]:
    """A function that compiles `fn`, calls it twice and tells what its programs do, as text.

    >>> import lampion as torch
    >>> print(torch._dynamo.explain(lambda x: x.exp())(torch.ones(3)).splitlines()[0])
    <lambda>: 1 program
    """
    def explained(*args: Any, **kwargs: Any) -> str:
        compiled = compile(fn, mode="wait")
        for _ in range(2):
            compiled(*args, **kwargs)
        text: str = compiled.explain()
        return text
    return explained
