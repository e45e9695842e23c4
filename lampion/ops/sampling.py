"""Sampling from categories in a differentiable way."""

from __future__ import annotations

import warnings
from typing import Any

from ..debug.frames import user_stack_level
from ..tensor.tensor import Tensor
from .creation import empty_like
from .record import PUBLIC, op

__all__ = ["gumbel_softmax", "softmin"]


@op("F")
def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10,
                   dim: int = -1) -> Tensor:
    """Softmax of logits plus Gumbel noise; `hard` gives one-hot values with the soft gradient."""
    if eps != 1e-10:
        warnings.warn("`eps` parameter is deprecated and has no effect.", UserWarning,
                      stacklevel=user_stack_level())
    noise = -empty_like(logits.detach()).exponential_().log()
    soft: Tensor = ((logits + noise) / tau).softmax(dim)
    if not hard:
        return soft
    chosen = soft.max(dim, keepdim=True)[1]
    one_hot = soft.detach().mul(0).scatter_(dim, chosen, 1.0)
    return one_hot - soft.detach() + soft


@op("F")
def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
            ) -> Tensor:
    """Softmax of the negated input."""
    softmax = PUBLIC["F"]["softmax"]  # the form that may choose the dimension itself
    return softmax(-input, dim, dtype=dtype)
