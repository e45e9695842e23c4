"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from ..ops.optimize import UPDATES, Update
from ..tensor import Tensor
from .elementwise import ElementwiseOptimizer, check_lr, check_range, check_switches, zeros_of
from .optimizer import Params

__all__ = ["SGD"]


class SGD(ElementwiseOptimizer):
    """Gradient descent, optionally with (Nesterov) momentum.

    `foreach` and `fused` are accepted: there is one implementation.

    >>> import lampion as torch
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> w.grad = torch.tensor([2.0])
    >>> torch.optim.SGD([w], lr=0.25).step()
    >>> w.item()
    0.5
    """

    _counts_steps = False

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_lr(lr)
        check_range("momentum value", momentum)
        check_range("weight_decay value", weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "maximize": maximize, "foreach": foreach,
            "differentiable": differentiable, "fused": fused,
        }  # fmt: skip
        super().__init__(params, defaults)
        check_switches(foreach, fused, differentiable)

    def _update_for(self, group: dict[str, Any]) -> Update:
        return UPDATES["sgd_momentum" if group["momentum"] != 0 else "sgd"]

    def _advance(
        self, p: Tensor, grad: Tensor, group: dict[str, Any], update: Update
    ) -> tuple[float, dict[str, Any]]:
        """Instead of a step count: 0 for the first step with momentum, then 1."""
        if not update.state:
            return 1.0, {}
        state = self.state[p]
        if state.get("momentum_buffer") is not None:
            return 1.0, state
        state["momentum_buffer"] = zeros_of(p)
        return 0.0, state

    def _begins_with_zeros(self, group: dict[str, Any]) -> bool:
        return not group["dampening"]  # which the first step leaves out

    def _scalars(self, group: dict[str, Any], lr: Any, count: float, state: Any) -> tuple[Any, ...]:
        decay = group["weight_decay"]
        common = (lr, decay if decay != 0 else None)
        momentum = group["momentum"]
        if momentum == 0:
            return common
        rate = 1 - group["dampening"] if count else 1.0
        return (*common, momentum, rate, group["nesterov"])
