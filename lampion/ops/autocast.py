"""Autocast: which operators compute in the reduced type, which in float32."""

from __future__ import annotations

import threading
from typing import Any

from ..tensor.dtype import FLOAT, dtype, float32, float64
from ..tensor.tensor import Tensor

__all__ = ["switch", "set_dtype", "adjust", "ACTIVE"]

REDUCED = frozenset(("mm", "bmm", "addmm", "baddbmm", "linear", "mv", "convolution",
                     "scaled_dot_product_attention", "bilinear", "addbmm"))
EXACT = frozenset(("mse_loss", "cosine_similarity", "poisson_nll_loss", "cosine_embedding_loss",
                   "nll_loss", "nll_loss2d", "hinge_embedding_loss", "kl_div", "l1_loss",
                   "smooth_l1_loss", "huber_loss", "margin_ranking_loss", "multi_margin_loss",
                   "soft_margin_loss", "triplet_margin_loss", "binary_cross_entropy",
                   "binary_cross_entropy_with_logits", "ctc_loss", "cdist", "prod", "quantile",
                   "avg_pool3d", "grid_sampler_2d", "grid_sampler_3d"))


class _Switch(threading.local):
    dtype: dtype | None = None


switch = _Switch()
ACTIVE = [0]  # how many threads have autocast on: read by every operator call


def set_dtype(d: dtype | None) -> None:
    """Turns autocast on (with a reduced type) or off in this thread."""
    ACTIVE[0] += (d is not None) - (switch.dtype is not None)
    switch.dtype = d


def adjust(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The operands of an operator in the type that autocast wants."""
    d = switch.dtype
    target = d if name in REDUCED else float32 if name in EXACT else None
    if d is None or target is None:
        return args
    return tuple(_convert(a, target) for a in args)


def _convert(value: Any, target: dtype) -> Any:
    if isinstance(value, Tensor) and value._dtype.kind == FLOAT and value._dtype is not float64:
        return Tensor._cast(value, target)
    return value
