"""RMSprop."""

from __future__ import annotations

from typing import Any

from ..ops.optimize import UPDATES, Update
from ..tensor import Tensor
from .elementwise import ElementwiseOptimizer, check_lr, check_range
from .optimizer import Params

__all__ = ["RMSprop"]


class RMSprop(ElementwiseOptimizer):
    """Steps divided by the root of a running mean of squared gradients.

    Args:
        alpha: how much of the old mean is kept.
        centered: use the variance instead of the mean square.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_lr(lr)
        check_range("epsilon value", eps)
        check_range("momentum value", momentum)
        check_range("weight_decay value", weight_decay)
        check_range("alpha value", alpha)
        defaults = {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
            "weight_decay": weight_decay, "capturable": capturable, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _update_for(self, group: dict[str, Any]) -> Update:
        centered = "_centered" if group["centered"] else ""
        return UPDATES[f"rmsprop{centered}{'_momentum' if group['momentum'] > 0 else ''}"]

    def _scalars(self, group: dict[str, Any], lr: Any, count: float, state: Any) -> tuple[Any, ...]:
        alpha = group["alpha"]
        decay = group["weight_decay"] or None
        return decay, alpha, 1 - alpha, group["eps"], lr, group["momentum"]
