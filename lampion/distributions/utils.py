"""What distributions share: broadcast parameters, probabilities and logits, lazy properties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import ops
from ..autograd import enable_grad
from ..tensor import Tensor, finfo, get_default_dtype

euler_constant = 0.57721566490153286060

__all__ = ["broadcast_all", "clamp_probs", "lazy_property", "logits_to_probs", "probs_to_logits"]


def broadcast_all(*values: Any) -> tuple[Tensor, ...]:
    """Tensors of one shape; numbers take the dtype of the tensors."""
    for v in values:
        if not isinstance(v, (Tensor, int, float, bool)):
            raise ValueError("Input arguments must all be instances of Number, torch.Tensor or "
                             f"objects implementing __torch_function__, but got {type(v).__name__}")
    kind = next((v.dtype for v in values if isinstance(v, Tensor)), get_default_dtype())
    return tuple(ops.broadcast_tensors(*(
        v if isinstance(v, Tensor) else ops.tensor(v, dtype=kind) for v in values)))


def clamp_probs(probs: Tensor) -> Tensor:
    """Probabilities away from 0 and 1, where logarithms are finite."""
    eps = finfo(probs.dtype).eps
    return probs.clamp(min=eps, max=1 - eps)


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """Logarithms of probabilities, or log-odds for a choice of two."""
    safe = clamp_probs(probs)
    return safe.log() - (-safe).log1p() if is_binary else safe.log()


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """Probabilities from their unnormalised logarithms, or from log-odds."""
    return logits.sigmoid() if is_binary else logits.softmax(-1)


def standard_normal(shape: Any, like: Tensor) -> Tensor:
    """Standard normal draws in the dtype and on the device of `like`."""
    how = {"dtype": like.dtype, "device": like.device}
    return ops.normal(ops.zeros(shape, **how), ops.ones(shape, **how))


class lazy_property:
    """A property computed on first use and then kept."""

    def __init__(self, wrapped: Callable[[Any], Any]) -> None:
        self.wrapped = wrapped
        self.__doc__ = wrapped.__doc__
        self.name = wrapped.__name__

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        with enable_grad():
            value = self.wrapped(instance)
        setattr(instance, self.name, value)
        return value
