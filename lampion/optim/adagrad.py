"""Adagrad."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..ops.optimize import UPDATES, Update
from ..tensor import Tensor
from .elementwise import ElementwiseOptimizer, check_lr, check_range, check_switches, new_count
from .optimizer import Params

__all__ = ["Adagrad"]


class Adagrad(ElementwiseOptimizer):
    """Steps divided by the root of the sum of all squared gradients."""

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_lr(lr)
        check_range("lr_decay value", lr_decay)
        check_range("weight_decay value", weight_decay)
        check_range("initial_accumulator_value value", initial_accumulator_value)
        check_range("epsilon value", eps)
        defaults = {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "fused": fused,
        }  # fmt: skip
        super().__init__(params, defaults)
        check_switches(foreach, fused, differentiable)
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = self._begin(p, group, UPDATES["adagrad"])

    def _begin(self, p: Tensor, group: dict[str, Any], update: Update) -> dict[str, Any]:
        start = group["initial_accumulator_value"]
        filled = ops.full_like(p.detach(), complex(start, start) if p.is_complex() else start)
        return {"step": new_count(), "sum": filled}

    def _update_for(self, group: dict[str, Any]) -> Update:
        return UPDATES["adagrad"]

    def _scalars(self, group: dict[str, Any], lr: Any, count: float, state: Any) -> tuple[Any, ...]:
        rate = lr / (1 + (count - 1) * group["lr_decay"])
        return group["weight_decay"] or None, rate, group["eps"]
