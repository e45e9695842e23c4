"""Hooks that hold for every module, and the machinery of backward hooks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...autograd.hooks import RemovableHandle as RemovableHandle
from ...autograd.modes import is_grad_enabled
from ...tensor import Tensor

if TYPE_CHECKING:
    from .module import Module

Hooks = OrderedDict[int, Callable[..., Any]]


_global_backward_pre_hooks: Hooks = OrderedDict()
_global_backward_hooks: Hooks = OrderedDict()
_global_forward_pre_hooks: Hooks = OrderedDict()
_global_forward_hooks: Hooks = OrderedDict()
_global_forward_hooks_always_called: OrderedDict[int, bool] = OrderedDict()
_global_forward_hooks_with_kwargs: OrderedDict[int, bool] = OrderedDict()
_global_buffer_registration_hooks: Hooks = OrderedDict()
_global_module_registration_hooks: Hooks = OrderedDict()
_global_parameter_registration_hooks: Hooks = OrderedDict()
_global_full: bool | None = None


def add_hook(
    hooks: Hooks,
    hook: Callable[..., Any],
    *flags: tuple[bool, OrderedDict[int, bool]],
    prepend: bool = False,
) -> RemovableHandle:
    """Register `hook`; every flag that is set is noted in its own table under the same id."""
    handle = RemovableHandle(hooks, extra_dict=[table for _, table in flags])
    hooks[handle.id] = hook
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    for wanted, table in flags:
        if wanted:
            table[handle.id] = True
    return handle


def register_module_buffer_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(module, name, buffer)` whenever any module registers a buffer."""
    return add_hook(_global_buffer_registration_hooks, hook)


def register_module_module_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(module, name, submodule)` whenever any module registers a submodule."""
    return add_hook(_global_module_registration_hooks, hook)


def register_module_parameter_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(module, name, parameter)` whenever any module registers a parameter."""
    return add_hook(_global_parameter_registration_hooks, hook)


def register_module_forward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(module, args)` before the forward of every module."""
    return add_hook(_global_forward_pre_hooks, hook)


def register_module_forward_hook(
    hook: Callable[..., Any], *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """Call `hook(module, args, output)` after the forward of every module."""
    return add_hook(
        _global_forward_hooks,
        hook,
        (with_kwargs, _global_forward_hooks_with_kwargs),
        (always_call, _global_forward_hooks_always_called),
    )


def register_module_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call the old-style `hook(module, grad_input, grad_output)` in every module's backward."""
    _set_global_kind(full=False)
    return add_hook(_global_backward_hooks, hook)


def register_module_full_backward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(module, grad_output)` before the backward of every module."""
    return add_hook(_global_backward_pre_hooks, hook)


def register_module_full_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(module, grad_input, grad_output)` after the backward of every module."""
    _set_global_kind(full=True)
    return add_hook(_global_backward_hooks, hook)


def _set_global_kind(*, full: bool) -> None:
    global _global_full
    if _global_full is not None and _global_full is not full:
        raise RuntimeError(
            "Cannot use both regular backward hooks and full backward hooks as a "
            "global Module hook. Please use only one of them."
        )
    _global_full = full


def backward_hooks(module: Module) -> tuple[list[Any], list[Any]]:
    """The full and the old-style backward hooks that hold for `module`, global ones first."""
    full: list[Any] = []
    old: list[Any] = []
    for is_full, hooks in (
        (_global_full, _global_backward_hooks),
        (module._is_full_backward_hook, module._backward_hooks),
    ):
        if is_full is not None:
            (full if is_full else old).extend(hooks.values())
    return full, old


class BackwardHook:
    """Surrounds one call of a module with two identities that report its gradients."""

    def __init__(self, module: Module, hooks: list[Any], pre_hooks: list[Any]) -> None:
        self.module, self.hooks, self.pre_hooks = module, hooks, pre_hooks
        self.grad_outputs: tuple[Any, ...] | None = None
        self.input_places: list[int] = []
        self.input_count = -1

    def setup_input(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Pass the tensor arguments through the identity on the input side."""
        self.input_count = len(args)
        wrapped, self.input_places = self._wrap(args, self._input_backward)
        if not any(a.requires_grad for a in args if isinstance(a, Tensor)):
            self.input_places = []
        return wrapped

    def setup_output(self, result: Any) -> Any:
        """Pass the tensor results through the identity on the output side."""
        items = result if isinstance(result, tuple) else (result,)
        wrapped, places = self._wrap(items, self._output_backward)
        self.output_places, self.output_count = places, len(items)
        return wrapped if isinstance(result, tuple) else wrapped[0]

    def _wrap(self, items: tuple[Any, ...], callback: Any) -> tuple[Any, list[int]]:
        places = [i for i, item in enumerate(items) if isinstance(item, Tensor)]
        if not is_grad_enabled() or not any(items[i].requires_grad for i in places):
            return items, []
        from ._watch import BackwardHookFunction

        outs = BackwardHookFunction.apply(callback, *[items[i] for i in places])
        new = list(items)
        for i, out in zip(places, outs, strict=True):
            new[i] = out
        rebuild = getattr(type(items), "_make", type(items))
        return rebuild(new), places

    def _output_backward(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        full = _spread(grads, self.output_places, self.output_count)
        for hook in self.pre_hooks:
            result = hook(self.module, full)
            if result is None:
                continue
            full = result if isinstance(result, tuple) else (result,)
            if len(full) != self.output_count:
                raise RuntimeError(
                    "Backward pre hook returned an invalid number of grad_output, "
                    f"got {len(full)}, but expected {self.output_count}"
                )
        self.grad_outputs = full
        if not self.input_places:
            self._run_without_inputs(full)
        return tuple(full[i] for i in self.output_places)

    def _run_without_inputs(self, grad_outputs: tuple[Any, ...]) -> None:
        """No input needs a gradient: the hooks still run, with nothing for grad_input."""
        for hook in self.hooks:
            result = hook(self.module, (None,) * self.input_count, grad_outputs)
            if result is not None and not (isinstance(result, tuple) and all(
                r is None for r in result
            )):
                raise RuntimeError(
                    "Backward hook for Modules where no input requires gradient should "
                    "always return None or None for all gradients."
                )

    def _input_backward(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        if self.grad_outputs is None:
            return grads
        full = _spread(grads, self.input_places, self.input_count)
        for hook in self.hooks:
            result = hook(self.module, full, self.grad_outputs)
            if result is None:
                continue
            full = result if isinstance(result, tuple) else (result,)
            if len(full) != self.input_count:
                raise RuntimeError(
                    "Backward hook returned an invalid number of grad_input, "
                    f"got {len(full)}, but expected {self.input_count}"
                )
        self.grad_outputs = None
        return tuple(full[i] for i in self.input_places)


def _spread(grads: tuple[Any, ...], places: list[int], count: int) -> tuple[Any, ...]:
    full: list[Any] = [None] * count
    for i, g in zip(places, grads, strict=True):
        full[i] = g
    return tuple(full)


def attach_old_style(module: Module, hooks: list[Any], result: Any) -> None:
    """Old-style backward hooks sit on the node that made the (first) result."""
    var = result
    while not isinstance(var, Tensor):
        var = next(iter(var.values())) if isinstance(var, dict) else var[0]
    node = var.grad_fn
    if node is None:
        return
    for hook in hooks:
        node.register_hook(lambda gi, go, hook=hook: hook(module, gi, go))
