"""Modules as functions of their parameters and buffers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import ops
from ..nn import Module
from ..nn.modules.batchnorm import _BatchNorm
from ..nn.utils import stateless
from ..tensor import Tensor

__all__ = ["functional_call", "replace_all_batch_norm_modules_", "stack_module_state"]

Tensors = dict[str, Tensor]


def functional_call(
    module: Module, parameter_and_buffer_dicts: Tensors | Sequence[Tensors], args: Any = None,
    kwargs: dict[str, Any] | None = None, *, tie_weights: bool = True, strict: bool = False,
) -> Any:
    """Calls `module` with the given tensors under the given names; it is left as it was.

    Several dicts (parameters, buffers) must not name one tensor twice.

    >>> import lampion as torch
    >>> layer = torch.nn.Linear(2, 1)
    >>> given = {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}
    >>> torch.func.functional_call(layer, given, torch.tensor([1., 2.])).item()
    3.0
    """
    given = parameter_and_buffer_dicts
    if not isinstance(given, dict):
        given = _joined(given)
    return stateless.functional_call(
        module, given, args, kwargs, tie_weights=tie_weights, strict=strict)


def _joined(dicts: Sequence[Tensors]) -> Tensors:
    if not all(isinstance(d, dict) for d in dicts):
        raise ValueError("Expected all elements of parameter_and_buffer_dicts to be dictionaries, "
                         f"but got {[type(d).__name__ for d in dicts]}")
    repeated = {name for i, d in enumerate(dicts) for name in d
                if any(name in earlier for earlier in dicts[:i])}
    if repeated:
        raise ValueError(f"{sorted(repeated)} appeared in multiple dictionaries; "
                         "behavior of functional call is ambiguous")
    return {name: value for d in dicts for name, value in d.items()}


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters and the buffers of several models of one class, stacked by name."""
    if len(models) == 0:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if len({m.training for m in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to have the same "
                           "training/eval mode.")
    if len({type(m) for m in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")
    params = _stacked([dict(m.named_parameters()) for m in models])
    buffers = _stacked([dict(m.named_buffers()) for m in models])
    return params, buffers


def _stacked(states: list[dict[str, Any]]) -> dict[str, Any]:
    stacked = {}
    for name in states[0]:
        tensors = [state[name] for state in states]
        needs = {t.requires_grad for t in tensors}
        if len(needs) > 1:
            raise RuntimeError(f"Expected {name} from each model to have the same .requires_grad")
        stacked[name] = ops.stack([t.detach() for t in tensors]).requires_grad_(needs.pop())
    return stacked


def replace_all_batch_norm_modules_(root: Module) -> Module:
    """Lets every batch norm in `root` use the statistics of its batch alone."""
    for module in root.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean = module.running_var = None
            module.num_batches_tracked = None
            module.track_running_stats = False
    return root
