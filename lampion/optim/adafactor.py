"""Adafactor: mean squares kept as row and column averages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .. import ops
from ..autograd import enable_grad, no_grad
from ..tensor import Tensor, finfo
from .elementwise import check_lr, check_range, new_count
from .optimizer import Optimizer, Params

__all__ = ["Adafactor"]


class Adafactor(Optimizer):
    """Adam-like steps whose state is a row and a column for each matrix.

    Args:
        beta2_decay: power of the step count in the mean square's decay.
        eps: floors of the mean square (None: the dtype's eps) and of the step's scale.
        d: clipping threshold of the update's root mean square.

    Raises RuntimeError for complex parameters.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        _check_options(lr, beta2_decay, eps, d, weight_decay)
        defaults = {
            "lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d,
            "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters once; `closure` recomputes the loss, which is returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p._grad is not None:
                        self._step_one(p, p._grad, group)
        return loss

    def _step_one(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        if p.is_complex() or grad.is_sparse:
            kind = "complex parameters" if p.is_complex() else "sparse gradients"
            raise RuntimeError(f"Adafactor does not support {kind}")
        grad = -grad if group["maximize"] else grad
        state = self.state[p]
        if not state:
            state.update(_begin(grad))
        state["step"] += 1
        step, lr = state["step"].item(), float(group["lr"])
        floor, smallest = group["eps"]
        floor = finfo(p.dtype).eps if floor is None else floor
        scale = max(smallest, _rms(p)) * min(lr, 1 / math.sqrt(step))
        if group["weight_decay"] != 0:
            p.mul_(1 - lr * group["weight_decay"])
        square = _mean_square(state, grad, step ** group["beta2_decay"], floor)
        update = square.clamp_(min=floor * floor).rsqrt_().mul_(grad)
        p.add_(update, alpha=-scale / max(1.0, _rms(update) / group["d"]))


def _rms(t: Tensor) -> float:
    return float(t.norm(2).item()) / math.sqrt(t.numel())


def _begin(grad: Tensor) -> dict[str, Tensor]:
    state = {"step": new_count()}
    if grad.dim() > 1:
        state["row_var"] = grad.new_zeros((*grad.shape[:-1], 1))
        state["col_var"] = grad.new_zeros((*grad.shape[:-2], 1, grad.shape[-1]))
    else:
        state["variance"] = ops.zeros_like(grad)
    return state


def _mean_square(state: dict[str, Tensor], grad: Tensor, rate: float, floor: float) -> Tensor:
    """The estimate of each element's mean square, after counting in `grad`."""
    if "variance" in state:
        return state["variance"].lerp_(grad.square(), rate).clone()
    rows, columns = state["row_var"], state["col_var"]
    for means, dim in ((rows, -1), (columns, -2)):
        now = grad.norm(dim=dim, keepdim=True).square_().div_(grad.size(dim))
        means.lerp_(now, rate)
    return (rows @ columns).div_(rows.mean(dim=-2, keepdim=True).clamp_(min=floor))


def _check_options(lr: Any, beta2_decay: float, eps: Any, d: float, weight_decay: float) -> None:
    check_lr(lr)
    if beta2_decay > 0:
        raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
    for i, value in enumerate(eps, 1):
        if value is not None and value < 0:
            raise ValueError(f"epsilon{i} should be >= 0 but is: {value}")
    if d < 1.0:
        raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
    check_range("weight_decay value", weight_decay)
