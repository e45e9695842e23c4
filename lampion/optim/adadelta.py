"""Adadelta."""

from __future__ import annotations

from typing import Any

from ..ops.optimize import UPDATES, Update
from ..tensor import Tensor
from .elementwise import ElementwiseOptimizer, check_lr, check_range
from .optimizer import Params

__all__ = ["Adadelta"]


class Adadelta(ElementwiseOptimizer):
    """Steps in the proportion of past steps to past gradients."""

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_lr(lr)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        check_range("epsilon value", eps)
        check_range("weight_decay value", weight_decay)
        defaults = {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "capturable": capturable, "foreach": foreach, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _update_for(self, group: dict[str, Any]) -> Update:
        return UPDATES["adadelta"]

    def _scalars(self, group: dict[str, Any], lr: Any, count: float, state: Any) -> tuple[Any, ...]:
        rho = group["rho"]
        return group["weight_decay"] or None, rho, 1 - rho, group["eps"], lr
