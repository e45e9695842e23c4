"""SparseAdam: Adam for gradients that touch few rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd import enable_grad, no_grad
from ..tensor import Tensor
from .elementwise import check_betas, check_lr, zeros_of
from .optimizer import Optimizer, Params

__all__ = ["SparseAdam"]


class SparseAdam(Optimizer):
    """Adam that moves only the elements that the sparse gradient holds.

    Raises RuntimeError for dense gradients.
    """

    _counts_in_tensor = False

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        check_lr(lr)
        if not eps > 0.0:
            raise ValueError(f"Invalid epsilon value: {eps}")
        check_betas(betas)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})

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
        if not grad.is_sparse:
            raise RuntimeError(
                "SparseAdam does not support dense gradients, please consider Adam instead"
            )
        state = self.state[p]
        if not state:
            state.update({"step": 0, "exp_avg": zeros_of(p), "exp_avg_sq": zeros_of(p)})
        state["step"] += 1
        grad = grad.coalesce()
        where, values = tuple(grad.indices()), grad.values()
        if values.numel():
            _move(p, where, -values if group["maximize"] else values, state, group)


def _move(p: Tensor, where: Any, grad: Tensor, state: Any, group: dict[str, Any]) -> None:
    """Adam's update of the elements `where`."""
    beta1, beta2 = group["betas"]
    mean, square = state["exp_avg"], state["exp_avg_sq"]
    mean[where] += (grad - mean[where]) * (1 - beta1)
    square[where] += (grad * grad - square[where]) * (1 - beta2)
    step = state["step"]
    size = float(group["lr"]) * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
    p[where] -= size * mean[where] / (square[where].sqrt() + group["eps"])
