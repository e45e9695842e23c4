"""Adam, and its variant AdamW with decoupled weight decay."""

from __future__ import annotations

from typing import Any

from ..ops.optimize import UPDATES, Update
from ..tensor import Tensor
from .elementwise import ElementwiseOptimizer, check_betas, check_lr, check_range, check_switches
from .optimizer import Params

__all__ = ["Adam", "AdamW"]


class Adam(ElementwiseOptimizer):
    """Steps scaled by running means of the gradient and of its square.

    Args:
        betas: how much of the old means is kept in a step.
        amsgrad: divide by the largest mean square so far.
        decoupled_weight_decay: shrink the parameters directly, as AdamW does.

    `foreach`, `fused` and `capturable` are accepted: there is one implementation.

    >>> import lampion as torch
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> w.grad = torch.tensor([2.0])
    >>> torch.optim.Adam([w], lr=0.5).step()
    >>> w
    tensor([0.5000], requires_grad=True)
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        check_lr(lr, foreach=foreach, capturable=capturable)
        check_range("epsilon value", eps)
        check_betas(betas, foreach=foreach, capturable=capturable)
        check_range("weight_decay value", weight_decay)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "amsgrad": amsgrad, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "differentiable": differentiable, "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }  # fmt: skip
        super().__init__(params, defaults)
        check_switches(foreach, fused, differentiable)

    def _update_for(self, group: dict[str, Any]) -> Update:
        return UPDATES["adam_amsgrad" if group["amsgrad"] else "adam"]

    def _scalars(self, group: dict[str, Any], lr: Any, count: float, state: Any) -> tuple[Any, ...]:
        beta1, beta2 = betas_of(group)
        keep, decay = decay_of(group, lr)
        scale = (1 - beta2**count) ** -0.5
        size = lr / (1 - beta1**count)
        return keep, decay, 1 - beta1, beta2, 1 - beta2, scale, group["eps"], size


def betas_of(group: dict[str, Any]) -> tuple[Any, Any]:
    """The two betas, as numbers unless gradients flow into them."""
    beta1, beta2 = group["betas"]
    if group["differentiable"]:
        return beta1, beta2
    return float(beta1), float(beta2)


def decay_of(group: dict[str, Any], lr: Any) -> tuple[Any, Any]:
    """What is kept of the parameter (decoupled) or added to the gradient; None: neither."""
    decay = group["weight_decay"]
    if decay == 0:
        return None, None
    return (1 - lr * decay, None) if group["decoupled_weight_decay"] else (None, decay)


class AdamW(Adam):
    """Adam that shrinks the parameters directly instead of changing the gradient.

    >>> import lampion as torch
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> w.grad = torch.tensor([0.0])
    >>> torch.optim.AdamW([w], lr=0.5, weight_decay=0.5).step()
    >>> w.item()
    0.75
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize,
            capturable=capturable, differentiable=differentiable, fused=fused,
            decoupled_weight_decay=True,
        )  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True  # also where a checkpoint of Adam was loaded
