"""`torch.compile` and `torch.compiler`: ordinary functions as native programs.

`compile` returns a `Compiled` (compiled.py). A call is captured by running the function once on
recording tensors while a watcher follows its Python (trace.py, watch.py, instrument.py): what it
reads becomes guards (guards.py), and what a program could not repeat makes it run eagerly. Later
calls are one call of the program (program.py). Results that need gradients bring a backward
program along (joint.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd.modes import state

__all__ = ["compile", "is_compiling", "is_dynamo_compiling", "is_exporting", "disable", "reset",
           "cudagraph_mark_step_begin", "list_backends", "allow_in_graph", "set_stance",
           "explain", "memory",
           "assume_constant_result"]

_MODES = (None, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs", "wait")
_BACKENDS = ("inductor", "eager", "aot_eager")


exporting: list[None] = []  # one element for each export that runs


def compile(model: Callable[..., Any] | None = None, *, fullgraph: bool = False,
            dynamic: bool | None = None, backend: Any = "inductor", mode: str | None = None,
            options: Any = None, disable: bool = False, checked: bool = False) -> Any:
    """A function, method or module that runs as one native program, autograd included.

    Calls run eagerly while the program is being made, and where it could not be right; why is said
    once (`.reasons`). mode="wait" waits for the program at the first call. fullgraph=True raises
    where a call would run eagerly. backend="eager" compiles nothing, "aot_eager" captures and runs
    the graph operator by operator. checked=True runs each call both ways and raises where results,
    parameters, gradients, optimizer state or random numbers differ. `dynamic` and the other modes
    are accepted: sizes may vary in any case.

    Differs from PyTorch: whole training steps (backward, optimizer, scheduler) become one program;
    a compiled module keeps its class's name and the names of its parameters.

    >>> import lampion as torch
    >>> double = torch.compile(lambda x: x * 2, mode="wait")
    >>> double(torch.ones(2)), double.programs
    (tensor([2., 2.]), 1)
    """
    if mode is not None and options is not None:
        raise RuntimeError("Either mode or options can be specified, but both can't be specified "
                           "at the same time.")
    if mode not in _MODES:
        raise RuntimeError(f"Unrecognized mode={mode}, should be one of: "
                           f"{', '.join(str(m) for m in _MODES[1:])}")
    if isinstance(backend, str) and backend not in _BACKENDS:
        raise RuntimeError(f"Invalid backend: {backend!r}, should be one of: "
                           f"{', '.join(_BACKENDS)}")
    if model is None:
        return lambda fn: compile(fn, fullgraph=fullgraph, dynamic=dynamic, backend=backend,
                                  mode=mode, options=options, disable=disable, checked=checked)
    if not callable(model):
        raise TypeError(f"torch.compile expects a function or a module, received "
                        f"{type(model).__name__}")
    if disable or backend == "eager" or not isinstance(backend, str):
        return model
    from ..nn.modules.module import Module
    from .compiled import Compiled
    from .module import compiled_module

    chosen = options_of(fullgraph, mode, backend)._replace(checked=checked)
    if isinstance(model, Compiled):
        return model
    return compiled_module(model, chosen) if isinstance(model, Module) else Compiled(model, chosen)


def options_of(fullgraph: bool, mode: str | None, backend: str = "inductor") -> Any:
    """The options of `compile` as a record."""
    from ..debug.knobs import knobs
    from .program import Options

    return Options(fullgraph, mode == "wait" or knobs.kernels == "sync", backend == "aot_eager")


def explain(compiled: Any) -> str:
    """What the programs of a compiled function or module do, kernel by kernel, as text.

    TypeError for anything that `compile` did not return.
    """
    return str(_impl(compiled).explain())


def memory(compiled: Any, *args: Any, **kwargs: Any) -> Any:
    """Bytes that a call of a compiled function or module would take, before it runs.

    >>> import lampion as torch
    >>> fn = torch.compile(torch.nn.Linear(4, 2))
    >>> table = torch.compiler.memory(fn, torch.ones(8, 4))
    >>> table.of("parameters"), table.of("results")
    (40, 64)
    """
    return _impl(compiled).memory(*args, **kwargs)


def _impl(compiled: Any) -> Any:
    from .compiled import Compiled

    found = getattr(compiled, "_compiled_call_impl", compiled)
    if not isinstance(found, Compiled):
        raise TypeError("expected what torch.compile returned, received "
                        f"{type(compiled).__name__}")
    return found


def is_compiling() -> bool:
    """Whether the code is being captured for a program."""
    return state.recorder is not None


is_dynamo_compiling = is_compiling


def is_exporting() -> bool:
    """Whether the code is being captured by `torch.export`."""
    return bool(exporting)


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """Keeps a function out of programs: a compiled function that calls it runs eagerly."""
    if fn is None:
        return lambda f: disable(f, recursive, reason=reason)
    fn.__dict__["_kept_out"] = reason or "torch.compiler.disable"
    return fn


def allow_in_graph(fn: Any) -> Any:
    """Accepted: what can be captured is captured."""
    return fn


assume_constant_result = allow_in_graph


def reset() -> None:
    """Forgets all programs of compiled functions."""
    from .compiled import EVERY

    for compiled in list(EVERY):
        compiled.forget()


def cudagraph_mark_step_begin() -> None:
    """Accepted: results of a program are never overwritten by its next run."""


def list_backends(exclude_tags: Any = ("debug", "experimental")) -> list[str]:
    """The names that `backend=` is usually given."""
    return ["eager", "inductor"]


class set_stance:
    """How compiled functions run: "default", or "force_eager"; also as a context or decorator.

    >>> import lampion as torch
    >>> with torch.compiler.set_stance("force_eager"):
    ...     pass
    """

    def __init__(self, stance: str = "default", **options: Any) -> None:
        from .compiled import Stance

        known = ("default", "force_eager", "eager_on_recompile", "fail_on_recompile")
        if stance not in known:
            raise RuntimeError(f"invalid torch.compile stance '{stance}', should be one of {known}")
        self._before = Stance.eager
        Stance.eager = stance == "force_eager"
        self._now = Stance.eager

    def __enter__(self) -> None:
        from .compiled import Stance

        Stance.eager = self._now

    def __exit__(self, *exc: object) -> None:
        from .compiled import Stance

        Stance.eager = self._before
