"""Losses between predictions and targets of the same shape, and their reduction."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..debug.frames import user_stack_level
from ..tensor.tensor import Tensor
from .errors import argument_type
from .families import Array, OptArray, broadcast_shape
from .record import Leaf, leaf, op

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "margin_ranking_loss",
    "mse_loss",
    "poisson_nll_loss",
    "reduction_of",
    "reduced",
    "smooth_l1_loss",
    "soft_margin_loss",
]


# -- reduction


def reduction_of(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction asked for, also through the old `size_average` and `reduce` flags."""
    if size_average is None and reduce is None:
        if reduction in ("none", "mean", "sum"):
            return reduction
        raise ValueError(f"{reduction} is not a valid value for reduction")
    average = True if size_average is None else size_average
    found = "none" if reduce is False else "mean" if average else "sum"
    warnings.warn(
        "size_average and reduce args will be deprecated, please use "
        f"reduction='{found}' instead.",
        UserWarning,
        stacklevel=user_stack_level(),
    )
    return found


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """Mean, sum, or the losses as they are."""
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    return loss


def _reduce(loss: Any, reduction: str) -> Any:
    if reduction == "mean":
        return loss.mean(dtype=loss.dtype)
    return loss.sum(dtype=loss.dtype) if reduction == "sum" else loss


def _share(g: Tensor, shape: tuple[int, ...], reduction: str) -> Tensor:
    """The gradient of each element's loss."""
    return g / math.prod(shape) if reduction == "mean" else g


def _loss_shape(input: Any, *rest: Any) -> Any:
    reduction = next(a for a in rest if isinstance(a, str))
    return (input.shape if reduction == "none" else ()), input.dtype


def _matched(name: str, input: Any, target: Any, strict: bool = False) -> tuple[Tensor, Tensor]:
    """Both as tensors of one shape; shapes that only broadcast are warned about."""
    for label, t in (("input", input), ("target", target)):
        if not isinstance(t, Tensor):
            raise argument_type(name, label, "Tensor", t)
    if input._a.shape == target._a.shape:
        return input, target
    if strict:
        raise ValueError(
            f"Using a target size ({target.shape}) that is different to the input size "
            f"({input.shape}) is deprecated. Please ensure they have the same size."
        )
    warnings.warn(
        f"Using a target size ({target.shape}) that is different to the input size "
        f"({input.shape}). This will likely lead to incorrect results due to broadcasting. Please "
        "ensure they have the same size.",
        UserWarning,
        stacklevel=user_stack_level(),
    )
    shape = broadcast_shape(name, input._a.shape, target._a.shape)
    return input.expand(shape), target.expand(shape)


def _promoted(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a._dtype is b._dtype:
        return a, b
    from .promotion import cast, result_dtype

    common = result_dtype(a, b)
    return cast(a, common), cast(b, common)


def _weighted(loss: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """With `weight`, the mean divides by the sum of the weights."""
    if weight is None:
        return reduced(loss, reduction)
    scaled = loss * weight
    if reduction == "mean":
        return scaled.sum() / weight.expand(loss.shape).sum()
    return reduced(scaled, reduction)


# -- regression


def _difference_leaf(name: str, node: str, value: Callable[..., Any],
                     slope: Callable[..., Tensor]) -> Leaf:
    """A loss of input - target with one setting; `slope` is the derivative of `value`."""
    def kernel(input: Array, target: Array, reduction: str, setting: float) -> Any:
        return _reduce(value(input - target, setting), reduction)

    def toward_input(g: Tensor, input: Tensor, target: Tensor, reduction: str,
                     setting: float) -> Tensor:
        return _share(g, input._a.shape, reduction) * slope(input - target, setting)

    def toward_target(g: Tensor, input: Tensor, target: Tensor, reduction: str,
                      setting: float) -> Tensor:
        return -toward_input(g, input, target, reduction, setting)

    rules = {"input": toward_input, "target": toward_target}
    return leaf(rules, name=name, node=node, shape=_loss_shape)(kernel)


def _smooth(d: Any, beta: float) -> Any:
    size = np.abs(d)
    return np.where(size < beta, 0.5 * d * d / d.dtype.type(beta), size - d.dtype.type(0.5 * beta))


def _huber(d: Any, delta: float) -> Any:
    size = np.abs(d)
    kind = d.dtype.type
    return np.where(size <= delta, kind(0.5) * d * d, kind(delta) * (size - kind(0.5 * delta)))


_mse = _difference_leaf("mse_loss", "MseLossBackward0", lambda d, _: d * d, lambda d, _: d * 2)
_smooth_l1 = _difference_leaf("smooth_l1_loss", "SmoothL1LossBackward0", _smooth,
                              lambda d, beta: (d / beta).where(d.abs() < beta, d.sign()))
_huber_loss = _difference_leaf("huber_loss", "HuberLossBackward0", _huber,
                               lambda d, delta: d.where(d.abs() <= delta, d.sign() * delta))


@op("F")
def mse_loss(input: Tensor, target: Tensor, size_average: bool | None = None,
             reduce: bool | None = None, reduction: str = "mean",
             weight: Tensor | None = None) -> Tensor:
    """Squared difference.

    >>> import lampion as torch
    >>> torch.nn.functional.mse_loss(torch.tensor([1., 2.]), torch.tensor([1., 4.]))
    tensor(2.)
    """
    how = reduction_of(size_average, reduce, reduction)
    a, b = _promoted(*_matched("mse_loss", input, target))
    if weight is not None:
        return _weighted(_mse(a, b, "none", 0.0), weight, how)
    return _mse(a, b, how, 0.0)


@op("F")
def l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None,
            reduce: bool | None = None, reduction: str = "mean",
            weight: Tensor | None = None) -> Tensor:
    """Absolute difference."""
    how = reduction_of(size_average, reduce, reduction)
    a, b = _matched("l1_loss", input, target)
    return _weighted((a - b).abs(), weight, how)


@op("F")
def smooth_l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None,
                   reduce: bool | None = None, reduction: str = "mean",
                   beta: float = 1.0) -> Tensor:
    """Squared difference / (2 beta) below `beta`, absolute difference - beta / 2 above."""
    how = reduction_of(size_average, reduce, reduction)
    a, b = _promoted(*_matched("smooth_l1_loss", input, target))
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    if beta == 0:
        return reduced((a - b).abs(), how)
    return _smooth_l1(a, b, how, float(beta))


@op("F")
def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
               weight: Tensor | None = None) -> Tensor:
    """Half the squared difference up to `delta`, linear above."""
    how = reduction_of(None, None, reduction)
    a, b = _promoted(*_matched("huber_loss", input, target))
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    if weight is not None:
        return _weighted(_huber_loss(a, b, "none", float(delta)), weight, how)
    return _huber_loss(a, b, how, float(delta))


# -- probabilities


def _bce_gradient(g: Tensor, input: Tensor, target: Tensor, weight: Tensor | None,
                  reduction: str) -> Tensor:
    slope = (input - target) / ((1 - input) * input).clamp_min(1e-12)
    share = _share(g, input._a.shape, reduction)
    return share * (slope if weight is None else slope * weight)


def _bce_target(g: Tensor, input: Tensor, target: Tensor, weight: Tensor | None,
                reduction: str) -> Tensor:
    slope = (1 - input).log().clamp_min(-100) - input.log().clamp_min(-100)
    share = _share(g, target._a.shape, reduction)
    return share * (slope if weight is None else slope * weight)


@leaf({"input": _bce_gradient, "target": _bce_target}, name="binary_cross_entropy",
      shape=_loss_shape)
def _bce(input: Array, target: Array, weight: OptArray, reduction: str) -> Any:
    """-(t log x + (1 - t) log(1 - x)), logarithms limited to -100."""
    low = input.dtype.type(-100)
    loss = (target - 1) * np.maximum(np.log1p(-input), low)
    loss -= target * np.maximum(np.log(input), low)
    return _reduce(loss if weight is None else loss * weight, reduction)


@op("F")
def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None,
                         size_average: bool | None = None, reduce: bool | None = None,
                         reduction: str = "mean") -> Tensor:
    """Cross entropy of probabilities in [0, 1] with targets in [0, 1]."""
    how = reduction_of(size_average, reduce, reduction)
    a, b = _matched("binary_cross_entropy", input, target, strict=True)
    if a.dtype != b.dtype:
        raise RuntimeError(f"Found dtype {b._dtype.name} but expected {a._dtype.name}")
    data = a._a
    if type(data) is np.ndarray and data.size:
        least, most = data.min(), data.max()
        if not (least >= 0 and most <= 1) and not (least != least):
            raise RuntimeError(
                "all elements of input should be between 0 and 1: binary_cross_entropy() received "
                f"values from {least} to {most}; apply sigmoid or use "
                "binary_cross_entropy_with_logits"
            )
    if weight is not None:
        weight = weight.expand(np.broadcast_shapes(weight._a.shape, a._a.shape))
    return _bce(a, b, weight, how)


def _logits_gradient(g: Tensor, input: Tensor, target: Tensor, weight: Tensor | None,
                     pos_weight: Tensor | None, reduction: str) -> Tensor:
    s = input.sigmoid()
    if pos_weight is None:
        slope = s - target
    else:
        pull = pos_weight * target
        slope = (pull + 1 - target) * s - pull
    share = _share(g, input._a.shape, reduction)
    return share * (slope if weight is None else slope * weight)


def _logits_target(g: Tensor, input: Tensor, weight: Tensor | None, pos_weight: Tensor | None,
                   reduction: str) -> Tensor:
    slope = -input
    if pos_weight is not None:
        slope = pos_weight * _log_sigmoid(input) * -1 + _log_sigmoid(-input)
    share = _share(g, input._a.shape, reduction)
    return share * (slope if weight is None else slope * weight)


def _log_sigmoid(x: Tensor) -> Tensor:
    from .activation import logsigmoid

    return logsigmoid(x)


@leaf({"input": _logits_gradient, "target": _logits_target},
      name="binary_cross_entropy_with_logits", shape=_loss_shape)
def _bce_logits(input: Array, target: Array, weight: OptArray, pos_weight: OptArray,
                reduction: str) -> Any:
    """Cross entropy of sigmoid(x), computed without forming it."""
    soft = np.log1p(np.exp(-np.abs(input))) - np.minimum(input, 0)  # -log(sigmoid(x))
    scale = 1 - target
    loss = scale * input
    if pos_weight is not None:
        scale = scale + pos_weight * target
        loss += scale * soft
    else:
        loss += soft
    return _reduce(loss if weight is None else loss * weight, reduction)


@op("F")
def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                     size_average: bool | None = None, reduce: bool | None = None,
                                     reduction: str = "mean",
                                     pos_weight: Tensor | None = None) -> Tensor:
    """Cross entropy of sigmoid(input) with targets in [0, 1]; stable for large inputs.

    >>> import lampion as torch
    >>> torch.nn.functional.binary_cross_entropy_with_logits(torch.zeros(2), torch.ones(2))
    tensor(0.6931)
    """
    how = reduction_of(size_average, reduce, reduction)
    if not isinstance(input, Tensor) or not isinstance(target, Tensor):
        raise argument_type("binary_cross_entropy_with_logits", "target", "Tensor", target)
    if input.shape != target.shape:
        raise ValueError(
            f"Target size ({target.shape}) must be the same as input size ({input.shape})"
        )
    a, b = _promoted(input, target)
    return _bce_logits(a, b, weight, pos_weight, how)


@op("F")
def kl_div(input: Tensor, target: Tensor, size_average: bool | None = None,
           reduce: bool | None = None, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """Kullback-Leibler divergence of log probabilities `input` from `target`.

    reduction: none, sum, mean (over all elements), batchmean (sum / batch size).
    """
    batch = reduction == "batchmean"
    if reduction == "mean" and size_average is None and reduce is None:
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size."
            "'batchmean' divides only by the batch size, and aligns with the KL div math "
            "definition.'mean' will be changed to behave the same as 'batchmean' in the next major "
            "release.",
            UserWarning,
            stacklevel=user_stack_level(),
        )
    how = "sum" if batch else reduction_of(size_average, reduce, reduction)
    if log_target:
        loss = target.exp() * (target - input)
    else:
        loss = target.xlogy(target) - target * input
    total = reduced(loss, how)
    return total / input.shape[0] if batch and input.ndim else total


@op("torch", name="kl_div")
def _torch_kl_div(input: Tensor, target: Tensor, reduction: int = 1, *,
                  log_target: bool = False) -> Tensor:
    """`torch.kl_div`, with the reduction by number."""
    loss = target.exp() * (target - input) if log_target else target.xlogy(target) - target * input
    return reduced(loss, ("none", "mean", "sum")[reduction])


@op("F")
def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool = True, full: bool = False,
                     size_average: bool | None = None, eps: float = 1e-8,
                     reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """Negative log likelihood of counts under a Poisson of rate exp(input) (or input)."""
    how = reduction_of(size_average, reduce, reduction)
    loss = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        stirling = target * target.log() - target + 0.5 * (2 * math.pi * target).log()
        loss = loss + stirling.masked_fill(target <= 1, 0)
    return reduced(loss, how)


@op("torch", name="poisson_nll_loss")
def _torch_poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool, full: bool, eps: float,
                            reduction: int) -> Tensor:
    """`torch.poisson_nll_loss`, with the reduction by number."""
    how = ("none", "mean", "sum")[reduction]
    return poisson_nll_loss(input, target, log_input, full, None, eps, None, how)


@op("F")
def gaussian_nll_loss(input: Tensor, target: Tensor, var: Any, full: bool = False,
                      eps: float = 1e-6, reduction: str = "mean") -> Tensor:
    """Negative log likelihood under a normal distribution of mean `input`, variance `var`."""
    if not isinstance(var, Tensor):
        if var < 0:
            raise ValueError("var has negative entry/entries")
        var = var * Tensor._ones_like(input)
    elif type(var._a) is np.ndarray and (var._a < 0).any():
        raise ValueError("var has negative entry/entries")
    if var.shape != input.shape:
        var = _match_variance(input, var)
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not valid")
    clamped = var.detach().clamp_min(eps) - var.detach() + var
    loss = 0.5 * (clamped.log() + (input - target) ** 2 / clamped)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return reduced(loss, reduction)


def _match_variance(input: Tensor, var: Tensor) -> Tensor:
    """A variance without the last dimension, or with a last dimension of 1."""
    if tuple(input.shape[:-1]) == tuple(var.shape):
        return var.unsqueeze(-1)
    if input.ndim == var.ndim:
        differing = [b for a, b in zip(input.shape, var.shape, strict=True) if a != b]
        if differing == [1]:
            return var
    raise ValueError(
        f"var is of incorrect size: input has shape {list(input.shape)}, var {list(var.shape)}"
    )


# -- margins between scores of equal shape


@leaf(
    {
        "input": lambda g, input, target, reduction: (
            _share(g, input._a.shape, reduction) * (-target * (-target * input).sigmoid())
        ),
        "target": lambda g, input, target, reduction: (
            _share(g, input._a.shape, reduction) * (-input * (-target * input).sigmoid())
        ),
    },
    name="soft_margin_loss",
    shape=_loss_shape,
)
def _soft_margin(input: Array, target: Array, reduction: str) -> Any:
    """log(1 + exp(-target * input))."""
    return _reduce(np.logaddexp(0, -target * input).astype(input.dtype, copy=False), reduction)


@op("F")
def soft_margin_loss(input: Tensor, target: Tensor, size_average: bool | None = None,
                     reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """log(1 + exp(-target * input)), targets 1 or -1."""
    how = reduction_of(size_average, reduce, reduction)
    shape = broadcast_shape("soft_margin_loss", input._a.shape, target._a.shape)
    a, b = _promoted(input.expand(shape), target.expand(shape))
    return _soft_margin(a, b, how)


@op("torch F")
def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0,
                         size_average: bool | None = None, reduce: bool | None = None,
                         reduction: Any = "mean") -> Tensor:
    """Input where target is 1, max(0, margin - input) where it is -1."""
    how = _named(reduction_of(size_average, reduce, _named(reduction)))
    shrink = (margin - input).clamp_min(0).masked_fill(target == 1, 0)
    kept = input.masked_fill(target == -1, 0)
    return reduced(shrink + kept, how)


def _named(reduction: Any) -> str:
    """`torch.*` losses take the reduction as a number."""
    return ("none", "mean", "sum")[reduction] if isinstance(reduction, int) else reduction


@op("torch F")
def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
                        size_average: bool | None = None, reduce: bool | None = None,
                        reduction: Any = "mean") -> Tensor:
    """max(0, -target * (input1 - input2) + margin)."""
    how = reduction_of(size_average, reduce, _named(reduction))
    if input1.ndim != input2.ndim or input1.ndim != target.ndim:
        raise RuntimeError(
            "margin_ranking_loss : All input tensors should have same dimension but got sizes: "
            f"input1: {input1.shape}, input2: {input2.shape}, target: {target.shape} "
        )
    return reduced((-target * (input1 - input2) + margin).clamp_min(0), how)
