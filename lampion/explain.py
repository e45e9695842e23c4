"""`lampion explain`: runs a program and shows where its time goes.

The tables are made by `debug/explain.py`; this file lets it see modules, optimizer steps and
batches, which stand above the operators.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from .debug.explain import Explainer
from .debug.explain_text import text
from .debug.kernels import REASONS
from .debug.knobs import knobs

__all__ = ["explained"]

Undo = Callable[[], None]


def explained(run: Callable[[], int], title: str) -> int:
    """Runs a program and prints to the standard error stream where its time went.

    Kernels are waited for unless LAMPION_KERNELS says otherwise: what the program does in the
    long run is what shows.
    """
    if "LAMPION_KERNELS" not in os.environ:
        knobs.kernels = "sync"
    if knobs.kernels != "off":
        _prepare()
    explainer = Explainer(why_numpy)
    undo = [_modules(explainer), _frames(explainer)]
    explainer.start()
    try:
        with explainer.sampling():
            return run()
    finally:
        explainer.stop()
        for back in reversed(undo):
            back()
        sys.stdout.flush()
        print(text(explainer, title), file=sys.stderr)


def _prepare() -> None:
    """Brings up what the first kernels of a process need, so that no line of the program pays."""
    from .codegen import allocator, pool, service

    for room in ("attention", "conv", "gather", "gemm", "pick", "plan", "pooling"):
        import_module(f"{__package__}.codegen.{room}")
    if service.available():
        allocator.install()
        pool.address("lampion_parallel")


def why_numpy(name: str, size: int) -> str | None:
    """Why an operator of this name and size ran on NumPy; None where nothing was computed."""
    from .ops.native import LEAST, OFTEN, SINGLE, TEMPLATES
    from .ops.record import LEAVES

    if name.startswith("update "):
        return "its parameters are small" if size < LEAST else REASONS.get(name[7:], "")
    leaf = LEAVES.get(name)
    if leaf is None and size >= LEAST:
        return "it has no kernel"
    if leaf is None or leaf.view or size < 0:
        return None
    if knobs.kernels == "off":
        return "LAMPION_KERNELS=off"
    if "generator" in leaf.params:
        return "random numbers come in PyTorch's order, from NumPy"
    if size < SINGLE:
        least = LEAST if size < LEAST else SINGLE
        return f"fewer than {least} elements: kernels that are quicker come after {OFTEN} calls"
    if name in REASONS:
        return f"no kernel is made of its reference: {REASONS[name]}"
    if name in TEMPLATES:
        return "its kernel does not take this dtype or layout"
    return "it has no kernel"


# --- what stands above the operators ----------------------------------------------------------


def _modules(explainer: Explainer) -> Undo:
    """Notes the path of the module whose forward runs."""
    from .nn import Module

    paths: dict[int, tuple[Any, str]] = {}  # with the module, so that its id stays its own
    original = Module.__call__

    def path(module: Any) -> str:
        found = paths.get(id(module))
        if found is None:
            outer = explainer.module
            root = type(module).__name__ if not outer else f"{outer}.{type(module).__name__}"
            for name, inner in module.named_modules():
                full = f"{root}.{name}" if name else root
                if paths.setdefault(id(inner), (inner, full))[1] == full:
                    explainer.kinds[full] = type(inner).__name__
            found = paths[id(module)]
        return found[1]

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        before, explainer.module = explainer.module, path(self)
        try:
            return original(self, *args, **kwargs)
        finally:
            explainer.module = before
    Module.__call__ = call  # type: ignore[method-assign]

    def undo() -> None:
        Module.__call__ = original  # type: ignore[method-assign]
    return undo


def _frames(explainer: Explainer) -> Undo:
    """Frames of batches, optimizer steps, NumPy updates and the engine."""
    from .autograd import engine
    from .ops import optimize
    from .optim.optimizer import Optimizer
    from .utils.data.dataloader import _BaseDataLoaderIter

    places: list[tuple[Any, str]] = [(engine, "run_backward"), (_BaseDataLoaderIter, "__next__")]
    places += [(kind, name) for kind in _subclasses(Optimizer) for name in ("step", "zero_grad")
               if name in vars(kind)]
    originals = [(owner, name, vars(owner)[name]) for owner, name in places]
    for owner, name, function in originals:
        setattr(owner, name, _framed(explainer, name, function))
    originals.append((optimize, "_run", optimize._run))
    optimize._run = _update(explainer, optimize._run)

    def undo() -> None:
        for owner, name, function in originals:
            setattr(owner, name, function)
    return undo


_LABELS = {"run_backward": "backward engine", "__next__": "DataLoader batch"}


def _framed(explainer: Explainer, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function in a frame: of an optimizer's method with the name of its class."""
    def call(*args: Any, **kwargs: Any) -> Any:
        frame = explainer.begin(_LABELS.get(name) or f"{type(args[0]).__name__}.{name}")
        try:
            return function(*args, **kwargs)
        finally:
            explainer.end(frame)
    return call


def _update(explainer: Explainer, run: Callable[..., None]) -> Callable[..., None]:
    """An optimizer's update on NumPy arrays, as an operator."""
    def call(update: Any, arrays: Any, scalars: Any, negate: bool) -> None:
        frame = explainer.begin(f"aten::update {update.name}")
        try:
            if frame is not None:
                frame.size = arrays[0].size
            run(update, arrays, scalars, negate)
        finally:
            explainer.end(frame)
    return call


def _subclasses(kind: Any) -> list[Any]:
    return [kind, *(s for child in kind.__subclasses__() for s in _subclasses(child))]
