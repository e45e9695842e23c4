"""Adamax: Adam with the infinity norm."""

from __future__ import annotations

from typing import Any

from ..ops.optimize import UPDATES, Update
from ..tensor import Tensor
from .elementwise import ElementwiseOptimizer, check_betas, check_lr, check_range
from .optimizer import Params

__all__ = ["Adamax"]


class Adamax(ElementwiseOptimizer):
    """Adam with a decaying maximum in place of the mean square."""

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_lr(lr)
        check_range("epsilon value", eps)
        check_betas(betas)
        check_range("weight_decay value", weight_decay)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "foreach": foreach, "maximize": maximize, "differentiable": differentiable,
            "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _update_for(self, group: dict[str, Any]) -> Update:
        return UPDATES["adamax"]

    def _scalars(self, group: dict[str, Any], lr: Any, count: float, state: Any) -> tuple[Any, ...]:
        beta1, beta2 = group["betas"]
        decay = group["weight_decay"] or None
        return decay, 1 - beta1, beta2, group["eps"], lr / (1 - beta1**count)
