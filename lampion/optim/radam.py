"""RAdam: Adam with a rectified start."""

from __future__ import annotations

from typing import Any

from ..ops.optimize import UPDATES, Update
from ..tensor import Tensor
from .adam import decay_of
from .elementwise import ElementwiseOptimizer, check_betas, check_lr, check_range
from .optimizer import Params

__all__ = ["RAdam"]


class RAdam(ElementwiseOptimizer):
    """Adam that goes by the mean alone until the mean square can be trusted."""

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_lr(lr)
        check_range("epsilon value", eps)
        check_betas(betas)
        check_range("weight_decay value", weight_decay)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "maximize": maximize, "foreach": foreach, "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _update_for(self, group: dict[str, Any]) -> Update:
        return UPDATES["radam"]

    def _scalars(self, group: dict[str, Any], lr: Any, count: float, state: Any) -> tuple[Any, ...]:
        beta1, beta2 = group["betas"]
        keep, decay = decay_of(group, lr)
        remaining = 1 - beta2**count
        root, rectify = remaining**0.5, _rectification(beta2, count)
        return (
            keep, decay, 1 - beta1, beta2, 1 - beta2, 1 - beta1**count, lr, group["eps"], root,
            rectify,
        )  # fmt: skip


def _rectification(beta2: float, count: float) -> float | None:
    """The variance correction; None while too few steps were seen."""
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * count * beta2**count / (1 - beta2**count)
    if length <= 5.0:
        return None
    above = (length - 4) * (length - 2) * longest
    below = (longest - 4) * (longest - 2) * length
    return float((above / below) ** 0.5)
