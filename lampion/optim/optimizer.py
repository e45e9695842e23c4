"""Optimizer: parameter groups, state, hooks and checkpoints that all optimizers share."""

from __future__ import annotations

import functools
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from itertools import chain, count
from typing import Any

from .. import ops
from ..tensor import Tensor, float32

__all__ = [
    "Optimizer",
    "register_optimizer_step_post_hook",
    "register_optimizer_step_pre_hook",
]

Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
Hooks = OrderedDict[int, Callable[..., Any]]


class _Required:
    """Stands for a default that every parameter group must give itself."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()
_hook_ids = count()
_global_pre_hooks: Hooks = OrderedDict()
_global_post_hooks: Hooks = OrderedDict()


class HookHandle:
    """What a register function returns; `remove` takes the hook out again."""

    def __init__(self, hooks: Hooks) -> None:
        self.id = next(_hook_ids)
        self._hooks = hooks

    def remove(self) -> None:
        """Take the hook out; safe to call twice."""
        self._hooks.pop(self.id, None)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


def _register(hooks: Hooks, hook: Callable[..., Any], prepend: bool = False) -> HookHandle:
    handle = HookHandle(hooks)
    hooks[handle.id] = hook
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    return handle


def register_optimizer_step_pre_hook(hook: Callable[..., Any]) -> HookHandle:
    """Call ``hook(optimizer, args, kwargs)`` before every step of every optimizer."""
    return _register(_global_pre_hooks, hook)


def register_optimizer_step_post_hook(hook: Callable[..., Any]) -> HookHandle:
    """Call ``hook(optimizer, args, kwargs)`` after every step of every optimizer."""
    return _register(_global_post_hooks, hook)


class Optimizer:
    """Base of all optimizers: subclasses define ``step``.

    Args:
        params: tensors, ``(name, tensor)`` pairs, or dicts that each describe a
            group: ``{"params": [...], option: value, ...}``.
        defaults: the options of groups that do not give their own.

    Raises TypeError for anything but leaf tensors in an ordered collection, and
    ValueError for empty, repeated or non-leaf parameters.

    >>> import lampion as torch
    >>> w = torch.ones(2, requires_grad=True)
    >>> optimizer = torch.optim.SGD([w], lr=0.5)
    >>> w.sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.5000, 0.5000], requires_grad=True)
    """

    defaults: dict[str, Any]
    state: defaultdict[Tensor, Any]
    param_groups: list[dict[str, Any]]

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self._make_hook_tables()
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or "
                f"dicts, but got {params.type()}; put it in a list"
            )
        self.state = defaultdict(dict)
        self.param_groups = []
        groups: list[Any] = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def _make_hook_tables(self) -> None:
        self._step_pre_hooks: Hooks = OrderedDict()
        self._step_post_hooks: Hooks = OrderedDict()
        self._state_dict_pre_hooks: Hooks = OrderedDict()
        self._state_dict_post_hooks: Hooks = OrderedDict()
        self._load_state_dict_pre_hooks: Hooks = OrderedDict()
        self._load_state_dict_post_hooks: Hooks = OrderedDict()
        cls = type(self)
        if not hasattr(cls.step, "hooked"):
            cls.step = _with_hooks(cls.step)  # type: ignore[method-assign]

    def __getstate__(self) -> dict[str, Any]:
        return {
            "defaults": self.defaults,
            "state": self.state,
            "param_groups": self.param_groups,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "_step_pre_hooks" not in self.__dict__:
            self._make_hook_tables()
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)  # options that older checkpoints do not have
        for values in self.state.values():
            step = values.get("step") if isinstance(values, dict) else None
            if step is not None and not isinstance(step, Tensor) and self._counts_in_tensor:
                values["step"] = ops.tensor(float(step), dtype=float32)

    _counts_in_tensor = True  # state["step"] is a tensor, as in PyTorch

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines += ["" if i else None, f"Parameter Group {i}"]  # type: ignore[list-item]
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join(line for line in [*lines, ")"] if line is not None)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters once; `closure` recomputes the loss, which is returned."""
        raise NotImplementedError(f"{type(self).__name__} does not define step")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or (False) fill them with zeros."""
        for group in self.param_groups:
            if set_to_none:
                for p in group["params"]:
                    p._grad = None
            else:
                _fill_grads_with_zeros(group["params"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Optimize more parameters, with the options given or the defaults."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        _list_params(param_group)
        for p in param_group["params"]:
            self._check_param(p)
        for name, value in self.defaults.items():
            if value is required and name not in param_group:
                raise ValueError(
                    "parameter group didn't specify a value of required optimization "
                    f"parameter {name}"
                )
            param_group.setdefault(name, value)
        self._check_names(param_group)
        self._check_repeats(param_group["params"])
        self.param_groups.append(param_group)

    def _check_param(self, p: Any) -> None:
        if not isinstance(p, Tensor):
            raise TypeError(
                "optimizer can only optimize Tensors, but one of the params is "
                f"{type(p).__name__}"
            )
        if not self.defaults.get("differentiable") and not (p.is_leaf or p.retains_grad):
            raise ValueError(
                "can't optimize a non-leaf Tensor: it was computed by "
                f"{p.grad_fn}; pass the tensor it was computed from"
            )

    def _check_names(self, param_group: dict[str, Any]) -> None:
        if not self.param_groups:
            return
        named = "param_names" in self.param_groups[0]
        if named != ("param_names" in param_group):
            state = "named" if named else "unnamed"
            raise ValueError(
                "all optimizer param groups should be with/without names. "
                f"cannot add param group with{'out' if named else ''} names to the optimizer: "
                f"its groups are {state}"
            )

    def _check_repeats(self, params: list[Tensor]) -> None:
        if len(params) != len(set(params)):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters; "
                "in future, this will cause an error; give each parameter once",
                stacklevel=4,
            )
        known = {p for group in self.param_groups for p in group["params"]}
        if not known.isdisjoint(params):
            raise ValueError("some parameters appear in more than one parameter group")

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call ``hook(optimizer, args, kwargs)`` before each step.

        It may return ``(args, kwargs)`` to use instead.
        """
        return _register(self._step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call ``hook(optimizer, args, kwargs)`` after each step."""
        return _register(self._step_post_hooks, hook)

    def register_state_dict_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> HookHandle:
        """Call ``hook(optimizer)`` before ``state_dict``."""
        return _register(self._state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> HookHandle:
        """Call ``hook(optimizer, state_dict)`` after ``state_dict``; it may return another."""
        return _register(self._state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> HookHandle:
        """Call ``hook(optimizer, state_dict)`` before loading; it may return another."""
        return _register(self._load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> HookHandle:
        """Call ``hook(optimizer)`` after loading."""
        return _register(self._load_state_dict_post_hooks, hook, prepend)

    def state_dict(self) -> dict[str, Any]:
        """``{"state", "param_groups"}`` with parameters as numbers, in PyTorch's format."""
        for hook in self._state_dict_pre_hooks.values():
            hook(self)
        numbers: dict[Tensor, int] = {}
        groups = []
        for group in self.param_groups:
            for p in group["params"]:
                numbers.setdefault(p, len(numbers))
            packed = {key: value for key, value in group.items() if key != "params"}
            packed["params"] = [numbers[p] for p in group["params"]]
            groups.append(packed)
        state = {
            numbers[key] if isinstance(key, Tensor) else key: value
            for key, value in self.state.items()
        }
        result: dict[str, Any] = {"state": state, "param_groups": groups}
        for hook in self._state_dict_post_hooks.values():
            result = hook(self, result) or result
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave, cast to the parameters' dtypes.

        Raises ValueError where the groups do not match the optimizer's.
        """
        state_dict = dict(state_dict)
        for hook in self._load_state_dict_pre_hooks.values():
            state_dict = hook(self, state_dict) or state_dict
        saved = deepcopy(state_dict["param_groups"])
        self._check_groups(saved)
        numbers = chain.from_iterable(group["params"] for group in saved)
        params = chain.from_iterable(group["params"] for group in self.param_groups)
        owner = dict(zip(numbers, params))
        state: defaultdict[Any, Any] = defaultdict(dict)
        for key, value in state_dict["state"].items():
            p = owner.get(key)
            state[key if p is None else p] = value if p is None else self._cast(p, value)
        groups = [_merged(old, new) for old, new in zip(self.param_groups, saved)]
        self.__setstate__({"state": state, "param_groups": groups})
        for hook in self._load_state_dict_post_hooks.values():
            hook(self)

    def _check_groups(self, saved: list[dict[str, Any]]) -> None:
        if len(saved) != len(self.param_groups):
            raise ValueError(
                "loaded state dict has a different number of parameter groups: "
                f"{len(saved)}, the optimizer has {len(self.param_groups)}"
            )
        for i, (old, new) in enumerate(zip(self.param_groups, saved)):
            if len(old["params"]) != len(new["params"]):
                raise ValueError(
                    "loaded state dict contains a parameter group that doesn't match the size "
                    f"of optimizer's group: group {i} has {len(new['params'])} parameters, the "
                    f"optimizer's has {len(old['params'])}"
                )

    def _cast(self, p: Tensor, value: Any, key: Any = None) -> Any:
        """`value` with its tensors in the dtype of `p`; step counts stay as they are."""
        if isinstance(value, Tensor):
            if key == "step":
                return value
            if p.is_floating_point() or p.is_complex():
                return value.to(dtype=self._state_dtype(p, value), device=p.device)
            return value.to(device=p.device)
        if isinstance(value, dict):
            return {k: self._cast(p, v, k) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self._cast(p, v) for v in value)  # type: ignore[call-arg]
        return value

    @staticmethod
    def _state_dtype(p: Tensor, value: Tensor) -> Any:
        return p.dtype if p.is_floating_point() or value.is_complex() else value.dtype


def _with_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step` between the hooks before and after it."""

    @functools.wraps(step)
    def hooked(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if _global_pre_hooks or self._step_pre_hooks:
            args, kwargs = _call_pre_hooks(self, args, kwargs)
        out = step(self, *args, **kwargs)
        if _global_post_hooks or self._step_post_hooks:
            for hook in (*self._step_post_hooks.values(), *_global_post_hooks.values()):
                hook(self, args, kwargs)
        return out

    hooked.hooked = True  # type: ignore[attr-defined]
    return hooked


def _call_pre_hooks(optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any]:
    for hook in (*_global_pre_hooks.values(), *optimizer._step_pre_hooks.values()):
        result = hook(optimizer, args, kwargs)
        if result is None:
            continue
        if not isinstance(result, tuple) or len(result) != 2:
            raise RuntimeError(
                f"{hook} must return None or a tuple of (new_args, new_kwargs), but got {result}."
            )
        args, kwargs = result
    return args, kwargs


def _fill_grads_with_zeros(params: list[Tensor]) -> None:
    for p in params:
        grad = p._grad
        if grad is None:
            continue
        if grad.grad_fn is not None:
            grad.detach_()
        else:
            grad.requires_grad_(False)
        grad.zero_()


def _list_params(group: dict[str, Any]) -> None:
    """Make ``group["params"]`` a list of tensors, and ``param_names`` their names."""
    params = group["params"]
    if isinstance(params, Tensor):
        params = [params]
    elif isinstance(params, set):
        raise TypeError(
            "optimizer parameters need to be organized in ordered collections, but the ordering "
            "of tensors in sets will change between runs. Please use a list instead."
        )
    params = list(params)
    named = [p for p in params if isinstance(p, tuple)]
    if named and len(named) != len(params):
        raise ValueError(
            "all optimizer params should be with/without names. Some param names are missing"
        )
    if named:
        group["params"] = [p[1] for p in params]
        group["param_names"] = [p[0] for p in params]
    else:
        group["params"] = params


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The loaded group `new` with the parameters (and names) of `old`."""
    new["params"] = old["params"]
    if "param_names" in old:
        new.setdefault("param_names", old["param_names"])
    return new
