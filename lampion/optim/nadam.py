"""NAdam: Adam with Nesterov momentum."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..ops.optimize import UPDATES, Update
from ..tensor import Tensor, float32
from .adam import decay_of
from .elementwise import ElementwiseOptimizer, check_betas, check_lr, check_range
from .optimizer import Params

__all__ = ["NAdam"]


class NAdam(ElementwiseOptimizer):
    """Adam with Nesterov momentum, whose weight grows by `momentum_decay`."""

    _scalars_differ = True  # the product of the momenta belongs to the parameter

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
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
        check_range("momentum_decay value", momentum_decay)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "momentum_decay": momentum_decay, "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize, "foreach": foreach, "capturable": capturable,
            "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _update_for(self, group: dict[str, Any]) -> Update:
        return UPDATES["nadam"]

    def _begin(self, p: Tensor, group: dict[str, Any], update: Update) -> dict[str, Any]:
        zeros = super()._begin(p, group, update)
        one = ops.ones((), dtype=float32)
        return {"step": zeros.pop("step"), "mu_product": one, **zeros}

    @staticmethod
    def _momenta(group: dict[str, Any], count: float) -> list[float]:
        """The momentum of this step and of the next."""
        return [group["betas"][0] * (1.0 - 0.5 * 0.96 ** (step * group["momentum_decay"]))
                for step in (count, count + 1)]

    def _scalars(self, group: dict[str, Any], lr: Any, count: float, state: Any) -> tuple[Any, ...]:
        beta1, beta2 = group["betas"]
        keep, decay = decay_of(group, lr)
        now, following = self._momenta(group, count)
        product = (state["mu_product"]._a * np.float32(now)).item()
        size_g = lr * (1.0 - now) / (1.0 - product)
        size_m = lr * following / (1.0 - product * following)
        correction = 1 - beta2**count
        return (
            keep, decay, 1 - beta1, beta2, 1 - beta2, correction, group["eps"], size_g, size_m
        )  # fmt: skip

    def _note_step(self, group: dict[str, Any], lr: Any, count: float, state: Any) -> None:
        total = state["mu_product"]._a
        total *= self._momenta(group, count)[0]
