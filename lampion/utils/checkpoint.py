"""Activation checkpointing: less memory, the forward computed again in backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import ops
from ..autograd import Function, enable_grad, is_grad_enabled
from ..autograd import backward as run_backward
from ..autograd.graph import saved_tensors_hooks
from ..tensor import Tensor

__all__ = ["checkpoint", "checkpoint_sequential", "noop_context_fn", "set_checkpoint_early_stop"]


def _rng_state(preserve: bool) -> Any:
    return ops.get_rng_state() if preserve else None


class _WithRng:
    """Runs with the random state of the first forward, then goes on where the program was."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __enter__(self) -> None:
        if self.state is not None:
            self.now = ops.get_rng_state()
            ops.set_rng_state(self.state)

    def __exit__(self, *exc: object) -> None:
        if self.state is not None:
            ops.set_rng_state(self.now)


class _Reentrant(Function):
    """Runs forward without history, and again with it in backward."""

    @staticmethod
    def forward(ctx: Any, fn: Any, preserve: bool, *args: Any) -> Any:  # type: ignore[override]
        ctx.fn, ctx.rng = fn, _rng_state(preserve)
        ctx.tensors = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        ctx.others = [None if isinstance(a, Tensor) else a for a in args]
        ctx.save_for_backward(*(args[i] for i in ctx.tensors))
        return fn(*args)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        args = list(ctx.others)
        for i, t in zip(ctx.tensors, ctx.saved_tensors, strict=True):
            args[i] = t.detach()
            args[i].requires_grad_(t.requires_grad)
        with enable_grad(), _WithRng(ctx.rng):
            outputs = ctx.fn(*args)
        many = outputs if isinstance(outputs, tuple) else (outputs,)
        pairs = [(o, g) for o, g in zip(many, grads, strict=True)
                 if isinstance(o, Tensor) and o.requires_grad]
        if not pairs:
            raise RuntimeError("none of output has requires_grad=True, this checkpoint() is not "
                               "necessary")
        run_backward([o for o, _ in pairs], [g for _, g in pairs])
        return (None, None, *(a.grad if isinstance(a, Tensor) else None for a in args))


def noop_context_fn() -> tuple[Any, Any]:
    """Two contexts that do nothing."""
    from contextlib import nullcontext

    return nullcontext(), nullcontext()


class _Recomputed:
    """Saved tensors of one checkpointed call: dropped at once, computed again when first asked."""

    def __init__(self, run: Callable[[], Any], rng: Any) -> None:
        self.run, self.rng, self.count = run, rng, 0
        self.values: dict[int, Tensor] = {}

    def pack(self, tensor: Tensor) -> int:
        self.count += 1
        return self.count - 1

    def unpack(self, place: int) -> Tensor:
        if place not in self.values:
            self._recompute()
        if place not in self.values:
            raise CheckpointError(
                "torch.utils.checkpoint: A different number of tensors was saved during the "
                f"original forward ({self.count}) and recomputation ({len(self.values)}). The "
                "function must do the same operations both times.")
        return self.values.pop(place)

    def _recompute(self) -> None:
        found: list[Tensor] = []

        def keep(t: Tensor) -> Tensor:
            found.append(t)
            return t
        with enable_grad(), _WithRng(self.rng), saved_tensors_hooks(keep, lambda t: t):
            self.run()
        self.values = dict(enumerate(found))


class CheckpointError(RuntimeError):
    """The function did something else when it was run again."""


def checkpoint(function: Callable[..., Any], *args: Any, use_reentrant: bool | None = None,
               context_fn: Any = noop_context_fn, determinism_check: str = "default",
               debug: bool = False, early_stop: bool = True, preserve_rng_state: bool = True,
               **kwargs: Any) -> Any:
    """Calls `function` without keeping its intermediate results; backward computes them again.

    Random numbers are the same both times (`preserve_rng_state`).
    """
    if use_reentrant is None:
        _warn_default()
        use_reentrant = True
    if use_reentrant:
        if kwargs:
            raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
        _warn_without_gradients(args)
        return _Reentrant.apply(function, preserve_rng_state, *args)
    forward_context, again_context = context_fn()

    def again() -> Any:
        with again_context:
            return function(*args, **kwargs)
    recomputed = _Recomputed(again, _rng_state(preserve_rng_state))
    with saved_tensors_hooks(recomputed.pack, recomputed.unpack), forward_context:
        return function(*args, **kwargs)


def _warn_without_gradients(args: tuple[Any, ...]) -> None:
    import warnings

    from ..debug.frames import user_stack_level

    if is_grad_enabled() and not any(isinstance(a, Tensor) and a.requires_grad for a in args):
        warnings.warn("torch.utils.checkpoint: None of the inputs have requires_grad=True. "
                      "Gradients will be None. Use use_reentrant=False if parameters inside need "
                      "gradients.", UserWarning, stacklevel=user_stack_level())


def _warn_default() -> None:
    import warnings

    from ..debug.frames import user_stack_level

    warnings.warn("torch.utils.checkpoint: the use_reentrant parameter should be passed "
                  "explicitly. use_reentrant=False is recommended.", UserWarning,
                  stacklevel=user_stack_level())


def checkpoint_sequential(functions: Any, segments: int, input: Any,
                          use_reentrant: bool | None = None, **kwargs: Any) -> Any:
    """A chain of modules in `segments` checkpointed parts, the last one run as usual."""
    modules = list(functions.children()) if hasattr(functions, "children") else list(functions)
    size = len(modules) // segments

    def run(part: list[Any]) -> Callable[[Any], Any]:
        def forward(x: Any) -> Any:
            for module in part:
                x = module(x)
            return x
        return forward
    for start in range(0, size * (segments - 1), size):
        input = checkpoint(run(modules[start:start + size]), input, use_reentrant=use_reentrant,
                           **kwargs)
    return run(modules[size * (segments - 1):])(input)


class set_checkpoint_early_stop:
    """Accepted: recomputation always runs the whole function."""

    def __init__(self, enable: bool) -> None:
        self.enable = enable

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        return None
