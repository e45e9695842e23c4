"""Rprop: resilient propagation."""

from __future__ import annotations

from typing import Any

from ..ops.optimize import UPDATES, Update
from ..tensor import Tensor
from .elementwise import ElementwiseOptimizer, check_lr
from .optimizer import Params

__all__ = ["Rprop"]


class Rprop(ElementwiseOptimizer):
    """Steps by the gradient's sign; each element's step grows and shrinks by itself.

    Args:
        etas: factors after a change of sign and after none.
        step_sizes: the smallest and the largest step.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_lr(lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        defaults = {
            "lr": lr, "etas": etas, "step_sizes": step_sizes, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _update_for(self, group: dict[str, Any]) -> Update:
        return UPDATES["rprop"]

    def _begin(self, p: Tensor, group: dict[str, Any], update: Update) -> dict[str, Any]:
        state = super()._begin(p, group, update)
        lr = float(group["lr"])
        state["step_size"].fill_(complex(lr, lr) if p.is_complex() else lr)
        return state

    def _scalars(self, group: dict[str, Any], lr: Any, count: float, state: Any) -> tuple[Any, ...]:
        return (*group["etas"], *group["step_sizes"])
