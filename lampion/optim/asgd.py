"""Averaged stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..ops.optimize import UPDATES, Update
from ..tensor import Tensor, float32
from .elementwise import ElementwiseOptimizer, check_lr, check_range
from .optimizer import Params

__all__ = ["ASGD"]


class ASGD(ElementwiseOptimizer):
    """Gradient descent that also keeps a running average of the parameters (``ax``).

    Args:
        lambd: decay; `alpha`: power of the learning rate's decline; `t0`: the step
            from which averaging begins.
    """

    _scalars_differ = True  # the declining rate belongs to the parameter

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_lr(lr)
        check_range("weight_decay value", weight_decay)
        defaults = {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay,
            "foreach": foreach, "maximize": maximize, "differentiable": differentiable,
            "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _update_for(self, group: dict[str, Any]) -> Update:
        return UPDATES["asgd"]

    def _begin(self, p: Tensor, group: dict[str, Any], update: Update) -> dict[str, Any]:
        zeros = super()._begin(p, group, update)
        eta = ops.tensor(float(group["lr"]), dtype=float32)
        mu = ops.ones((), dtype=float32)
        return {"step": zeros["step"], "eta": eta, "mu": mu, "ax": zeros["ax"]}

    def _scalars(self, group: dict[str, Any], lr: Any, count: float, state: Any) -> tuple[Any, ...]:
        eta, mu = state["eta"]._a.item(), state["mu"]._a.item()
        decay = group["weight_decay"] or None
        return decay, 1 - group["lambd"] * eta, eta, None if mu == 1 else mu

    def _note_step(self, group: dict[str, Any], lr: Any, count: float, state: Any) -> None:
        state["eta"]._a[...] = lr / (1 + group["lambd"] * lr * count) ** group["alpha"]
        state["mu"]._a[...] = 1 / max(1, count - group["t0"])
