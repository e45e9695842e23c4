"""Losses whose targets are classes: cross entropy, multi-label and margin losses, CTC."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor.tensor import Tensor
from .contraction import linear
from .errors import argument_type
from .families import Array, OptArray
from .loss import _named, reduced, reduction_of
from .record import Leaf, leaf, op
from .reference import ctc as reference

__all__ = [
    "cosine_embedding_loss",
    "cross_entropy",
    "ctc_loss",
    "linear_cross_entropy",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]


# -- negative log likelihood


def _chosen(target: Any, weight: Any, ignore: int, dtype: Any) -> tuple[Any, Any]:
    """Class of each position (0 where ignored) and its weight (0 where ignored)."""
    valid = target != ignore
    safe = np.where(valid, target, 0)
    weights = valid.astype(dtype) if weight is None else weight[safe] * valid
    return safe, weights


def _check_classes(target: Any, classes: int, ignore: int) -> None:
    bad = ((target < 0) | (target >= classes)) & (target != ignore)
    if bad.any():
        places = [tuple(int(i) for i in p) for p in np.argwhere(bad)[:1]]
        raise IndexError(
            f"Target {target[bad].flat[0]} is out of bounds.: class indices must be in [0, "
            f"{classes - 1}] or ignore_index={ignore}; position {places[0]}"
        )


def _nll(input: Array, target: Array, weight: OptArray, reduction: str, ignore: int) -> Any:
    """Minus the input at the target's class."""
    _check_classes(target, input.shape[1], ignore)
    safe, weights = _chosen(target, weight, ignore, input.dtype)
    picked = np.take_along_axis(input, np.expand_dims(safe, 1), 1).squeeze(1)
    loss = np.where(target == ignore, np.zeros((), input.dtype), -picked * weights)
    if reduction == "none":
        return loss
    total = loss.sum(dtype=input.dtype)
    return total / weights.sum(dtype=input.dtype) if reduction == "mean" else total


def _nll_shape(input: Any, target: Any, weight: Any, reduction: str, ignore: int) -> Any:
    return (target.shape if reduction == "none" else ()), input.dtype


@leaf(
    {"grad": lambda g, target, weight, reduction, ignore: _nll_leaf(g, target, weight, reduction,
                                                                      ignore)},
    shape=lambda grad, target, weight, shape, *_: (shape, grad.dtype),
)
def nll_backward(grad: Array, target: Array, weight: OptArray, shape: tuple[int, ...],
                 reduction: str, ignore: int) -> Any:
    """Gradient of `nll_loss`: minus the weight at the target's class, zero elsewhere."""
    safe, weights = _chosen(target, weight, ignore, grad.dtype)
    share = -grad * weights
    if reduction == "mean":
        share = share / weights.sum(dtype=grad.dtype)
    out = np.zeros(shape, grad.dtype)
    np.put_along_axis(out, np.expand_dims(safe, 1), np.expand_dims(share, 1), 1)
    return out


def _nll_leaf(input: Tensor, target: Tensor, weight: Tensor | None, reduction: str,
              ignore: int) -> Tensor:
    kind = _NLL if target.ndim == 1 else _NLL2D
    return kind(input, target, weight, reduction, ignore)


def _make_nll(name: str, node: str) -> Leaf:
    rule = {
        "input": lambda g, input_shape, target, weight, reduction, ignore: nll_backward(
            g, target, weight, input_shape, reduction, ignore
        )
    }
    return leaf(rule, name=name, node=node, shape=_nll_shape)(_nll)


_NLL = _make_nll("nll_loss", "NllLossBackward0")
_NLL2D = _make_nll("nll_loss2d", "NllLoss2DBackward0")


def _check_target(input: Tensor, target: Any, name: str) -> None:
    if not isinstance(target, Tensor):
        raise argument_type(name, "target", "Tensor", target)
    _check_target_shape(input, target)
    if target._dtype.name not in ("int64", "uint8"):
        raise RuntimeError(
            f"expected scalar type Long but found {target.dtype}: {name}() needs class indices, "
            "convert the target with .long()"
        )


def _check_target_shape(input: Tensor, target: Tensor) -> None:
    if input.ndim == 0:
        raise ValueError(f"Expected 1 or more dimensions (got {input.ndim})")
    if input.ndim == 1:
        if target.ndim > 0:
            raise RuntimeError(
                "0D or 1D target tensor expected, multi-target not supported: input has shape "
                f"{list(input.shape)}, target {list(target.shape)}"
            )
        return
    if input.shape[0] != target.shape[0] if target.ndim else True:
        got = target.shape[0] if target.ndim else "no batch dimension"
        raise ValueError(
            f"Expected input batch_size ({input.shape[0]}) to match target batch_size ({got})."
        )
    if tuple(target.shape[1:]) != tuple(input.shape[2:]):
        if input.ndim == 2:
            raise RuntimeError(
                "0D or 1D target tensor expected, multi-target not supported: input has shape "
                f"{list(input.shape)}, target {list(target.shape)}"
            )
        raise RuntimeError(
            f"Expected target size {[input.shape[0], *input.shape[2:]]}, got {list(target.shape)}"
        )


@op("F")
def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None,
             size_average: bool | None = None, ignore_index: int = -100,
             reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """Minus the log probability (N, C, ...) of each target class (N, ...).

    >>> import lampion as torch
    >>> torch.nn.functional.nll_loss(torch.tensor([[-1., -2.]]), torch.tensor([1]))
    tensor(2.)
    """
    how = reduction_of(size_average, reduce, reduction)
    _check_target(input, target, "nll_loss")
    classes = input.shape[0 if input.ndim == 1 else 1]
    if weight is not None and tuple(weight.shape) != (classes,):
        raise RuntimeError(
            "weight tensor should be defined either for all "
            f"{classes} classes or no classes but got weight tensor of shape: {list(weight.shape)}"
        )
    if input.ndim == 1:
        out = _nll_leaf(input.unsqueeze(0), target.unsqueeze(0), weight, how, ignore_index)
        return out.squeeze(0) if how == "none" else out
    return _nll_leaf(input, target, weight, how, ignore_index)


@op("F")
def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None,
                  size_average: bool | None = None, ignore_index: int = -100,
                  reduce: bool | None = None, reduction: str = "mean",
                  label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy of logits (N, C, ...) with class indices (N, ...) or probabilities (N, C, ...).

    >>> import lampion as torch
    >>> torch.nn.functional.cross_entropy(torch.zeros(2, 4), torch.tensor([0, 3]))
    tensor(1.3863)
    """
    how = reduction_of(size_average, reduce, reduction)
    if not isinstance(input, Tensor) or not isinstance(target, Tensor):
        wrong = "target" if isinstance(input, Tensor) else "input"
        raise argument_type("cross_entropy_loss", wrong, "Tensor",
                            target if isinstance(input, Tensor) else input)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(
            f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}"
        )
    if input.ndim == 0:
        raise RuntimeError("cross_entropy(): input must have a class dimension, received a scalar")
    dim = 0 if input.ndim == 1 else 1
    if target._dtype.is_floating_point and target.shape == input.shape:
        if ignore_index >= 0:
            raise RuntimeError("ignore_index is not supported for floating point target")
        return _soft_targets(input, target, weight, how, label_smoothing, dim)
    logp = input.log_softmax(dim)
    if label_smoothing > 0:
        return _smoothed(logp, target, weight, ignore_index, how, label_smoothing, dim)
    return nll_loss(logp, target, weight, ignore_index=ignore_index, reduction=how)


def _channel_weight(weight: Tensor, ndim: int, dim: int) -> Tensor:
    return weight.reshape((1,) * dim + (-1,) + (1,) * (ndim - dim - 1))


def _soft_targets(input: Tensor, target: Tensor, weight: Tensor | None, reduction: str,
                  smoothing: float, dim: int) -> Tensor:
    classes = input.shape[dim]
    logp = input.log_softmax(dim)
    if smoothing > 0:
        target = target * (1 - smoothing) + smoothing / classes
    terms = logp * target
    if weight is not None:
        terms = terms * _channel_weight(weight, input.ndim, dim)
    if reduction == "none":
        return -terms.sum(dim)
    total = -terms.sum()
    return total / (input.numel() / classes) if reduction == "mean" else total


def _smoothed(logp: Tensor, target: Tensor, weight: Tensor | None, ignore: int, reduction: str,
              smoothing: float, dim: int) -> Tensor:
    hard = nll_loss(logp, target, weight, ignore_index=ignore, reduction=reduction)
    scaled = logp if weight is None else logp * _channel_weight(weight, logp.ndim, dim)
    ignored = target == ignore
    smooth = (-scaled.sum(dim)).masked_fill(ignored, 0)
    if reduction == "sum":
        smooth = smooth.sum()
    elif reduction == "mean":
        if weight is None:
            count: Any = (~ignored).sum()
        else:
            count = weight[target.masked_fill(ignored, 0)].masked_fill(ignored, 0).sum()
        smooth = smooth.sum() / count
    return hard * (1 - smoothing) + smooth * (smoothing / logp.shape[dim])


@op("F")
def linear_cross_entropy(input: Tensor, linear_weight: Tensor, target: Tensor, *,
                         linear_bias: Tensor | None = None, weight: Tensor | None = None,
                         reduction: str = "mean", ignore_index: int | None = None,
                         label_smoothing: float = 0.0, options: Any = None) -> Tensor:
    """`cross_entropy` of `linear(input, linear_weight, linear_bias)`.

    linear_weight is (C, in), or (C, d1, ..., dK, in) for a loss with K further dimensions.
    `options` (PyTorch's chunking, which saves memory) is accepted and changes nothing.
    """
    if input.ndim not in (1, 2):
        raise RuntimeError(f"expected input with dimensionality 1 or 2, got {input.ndim}")
    inner = linear_weight.shape[1:-1]
    if inner and input.ndim == 1:
        raise RuntimeError(
            f"K-dimensional loss defined by linear_weight shape {tuple(linear_weight.shape)} "
            f"requires batched input, (N, {linear_weight.shape[-1]}), got unbatched input with "
            f"shape {tuple(input.shape)}"
        )
    rows = linear_weight.reshape(-1, linear_weight.shape[-1])
    bias = None if linear_bias is None else linear_bias.reshape(-1)
    logits = linear(input, rows, bias)
    if inner:
        logits = logits.view(*input.shape[:-1], linear_weight.shape[0], *inner)
    ignored = -100 if ignore_index is None else ignore_index
    return cross_entropy(logits, target, weight, ignore_index=ignored, reduction=reduction,
                         label_smoothing=label_smoothing)


# -- many labels


@op("F")
def multilabel_soft_margin_loss(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                size_average: bool | None = None, reduce: bool | None = None,
                                reduction: str = "mean") -> Tensor:
    """Mean over classes of the binary cross entropy of logits."""
    from .activation import logsigmoid

    how = reduction_of(size_average, reduce, reduction)
    loss = -(target * logsigmoid(input) + (1 - target) * logsigmoid(-input))
    if weight is not None:
        loss = loss * weight
    return reduced(loss.sum(input.ndim - 1) / input.shape[-1], how)


def _rows(input: Tensor, target: Tensor, target_dims: int, name: str) -> tuple[Tensor, Tensor]:
    """Input as (N, C) and target with a batch dimension."""
    if input.ndim == 0:
        input = input.unsqueeze(0)
    if target._dtype.name != "int64":
        raise RuntimeError(
            f"expected scalar type Long but found {target.dtype}: {name}() needs class indices"
        )
    if input.ndim not in (1, 2) or target.ndim > max(target_dims + 1, 1) or (
        0 in input.shape[1:]
    ):
        raise RuntimeError(
            f"Expected non-empty vector or matrix with optional 0-dim batch size, but got: "
            f"{list(input.shape)}"
        )
    x = input if input.ndim == 2 else input.unsqueeze(0)
    t = target if target.ndim == target_dims + 1 else target.unsqueeze(0)
    expected = tuple(x.shape) if target_dims else (x.shape[0],)
    if tuple(t.reshape(expected if t.numel() == np.prod(expected) else t.shape).shape) != expected:
        raise RuntimeError(
            f"inconsistent target size: {list(target.shape)} for input of size: "
            f"{list(input.shape)} in {name}()"
        )
    return x, t.reshape(expected)


def _multi_margin_terms(x: Any, target: Any, weight: Any, p: int, margin: float) -> tuple[Any, Any]:
    """Hinge of every wrong class against the right one, and its weight / C."""
    rows = np.arange(x.shape[0])
    z = margin - x[rows, target][:, None] + x
    z[rows, target] = 0
    scale = 1 / x.shape[1] if weight is None else (weight[target] / x.shape[1])[:, None]
    return np.maximum(z, 0), scale


@leaf({"input": lambda g, input, target, weight, p, margin, reduction: _multi_margin_backward(
    g, input, target, weight, p, margin, reduction)}, name="multi_margin_loss")
def _multi_margin(input: Array, target: Array, weight: OptArray, p: int, margin: float,
                  reduction: str) -> Any:
    """Mean over classes of max(0, margin - x[y] + x[i])^p."""
    z, scale = _multi_margin_terms(input, target, weight, p, margin)
    loss = ((z**p) * scale).sum(1).astype(input.dtype, copy=False)
    return loss if reduction == "none" else getattr(loss, reduction)()


@leaf({}, name="multi_margin_loss_backward")
def _multi_margin_backward(grad: Array, input: Array, target: Array, weight: OptArray, p: int,
                           margin: float, reduction: str) -> Any:
    """Gradient of `multi_margin_loss`."""
    z, scale = _multi_margin_terms(input, target, weight, p, margin)
    slope = ((z > 0) if p == 1 else 2 * z) * scale
    rows = np.arange(input.shape[0])
    slope[rows, target] = -slope.sum(1)
    share = grad / input.shape[0] if reduction == "mean" else grad
    return (slope * (share[:, None] if share.ndim else share)).astype(input.dtype, copy=False)


@op("F")
def multi_margin_loss(input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0,
                      weight: Tensor | None = None, size_average: bool | None = None,
                      reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """Mean over classes of max(0, margin - x[y] + x[i])^p, for class indices y."""
    how = reduction_of(size_average, reduce, reduction)
    if p not in (1, 2):
        raise ValueError("only p == 1 and p == 2 supported")
    classes = input.shape[-1] if input.ndim else 1
    if weight is not None and tuple(weight.shape) != (classes,):
        raise ValueError("weight must be one-dimensional with one element per class")
    x, t = _rows(input, target, 0, "multi_margin_loss")
    if type(t._a) is np.ndarray:
        _check_classes(t._a, x.shape[1], -1 << 62)
    out = _multi_margin(x, t, weight, p, margin, how)
    return out.squeeze(0) if how == "none" and target.ndim == 0 else out


def _label_masks(target: Any) -> tuple[Any, Any]:
    """Which labels of each row count (those before the first -1), and which classes they are."""
    ended = np.cumsum(target < 0, 1) > 0
    is_target = np.zeros(target.shape, bool)
    rows, cols = np.nonzero(~ended)
    is_target[rows, target[rows, cols]] = True
    return ~ended, is_target


@leaf({"input": lambda g, input, target, reduction: _multilabel_backward(
    g, input, target, reduction)}, name="multilabel_margin_loss")
def _multilabel(input: Array, target: Array, reduction: str) -> Any:
    """Mean over classes of max(0, 1 - (x[y] - x[i])) for every label y and other class i."""
    counted, is_target = _label_masks(target)
    right = np.take_along_axis(input, np.maximum(target, 0), 1)
    z = np.maximum(1 - right[:, :, None] + input[:, None, :], 0)
    z *= counted[:, :, None] & ~is_target[:, None, :]
    loss = z.sum((1, 2)) / input.dtype.type(input.shape[1])
    return loss if reduction == "none" else getattr(loss, reduction)()


@leaf({}, name="multilabel_margin_loss_backward")
def _multilabel_backward(grad: Array, input: Array, target: Array, reduction: str) -> Any:
    """Gradient of `multilabel_margin_loss`."""
    counted, is_target = _label_masks(target)
    safe = np.maximum(target, 0)
    right = np.take_along_axis(input, safe, 1)
    active = (1 - right[:, :, None] + input[:, None, :]) > 0
    active &= counted[:, :, None] & ~is_target[:, None, :]
    slope = active.sum(1).astype(input.dtype)
    rows = np.broadcast_to(np.arange(len(target))[:, None], target.shape)
    np.subtract.at(slope, (rows, safe), active.sum(2).astype(input.dtype))
    share = grad / input.shape[0] if reduction == "mean" else grad
    scaled = slope * (share[:, None] if share.ndim else share)
    return (scaled / input.shape[1]).astype(input.dtype, copy=False)


@op("F")
def multilabel_margin_loss(input: Tensor, target: Tensor, size_average: bool | None = None,
                           reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """Hinge of every labelled class against every other; rows of labels end at the first -1."""
    how = reduction_of(size_average, reduce, reduction)
    x, t = _rows(input, target, 1, "multilabel_margin_loss")
    if type(t._a) is np.ndarray and t._a.size and (t._a.min() < -1 or t._a.max() >= x.shape[1]):
        raise RuntimeError(
            f"target is out of range: labels must be in [-1, {x.shape[1] - 1}], received "
            f"{t._a.min()} to {t._a.max()}"
        )
    out = _multilabel(x, t, how)
    return out.squeeze(0) if how == "none" and input.ndim == 1 else out


# -- distances


@op("torch F")
def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
                          size_average: bool | None = None, reduce: bool | None = None,
                          reduction: Any = "mean") -> Tensor:
    """1 - cos where target is 1, max(0, cos - margin) where it is -1."""
    how = reduction_of(size_average, reduce, _named(reduction))
    if target.ndim > 1 or input1.ndim != input2.ndim or input1.ndim - 1 != target.ndim:
        raise RuntimeError(
            f"{target.ndim}D target tensor expects {target.ndim + 1}D input tensors, but found "
            f"inputs with sizes {list(input1.shape)} and {list(input2.shape)}."
        )
    eps, dim = 1e-12, target.ndim
    dot = (input1 * input2).sum(dim)
    square = ((input1 * input1).sum(dim) + eps) * ((input2 * input2).sum(dim) + eps)
    cos = dot / square.sqrt()
    near = (1 - cos).masked_fill(target != 1, 0)
    far = (cos - margin).clamp_min(0).masked_fill(target != -1, 0)
    return reduced(near + far, how)


@op("torch F")
def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0,
                        p: float = 2, eps: float = 1e-6, swap: bool = False,
                        size_average: bool | None = None, reduce: bool | None = None,
                        reduction: Any = "mean") -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin)."""
    from .distance import pairwise_distance

    how = reduction_of(size_average, reduce, _named(reduction))
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise RuntimeError(
            "The anchor, positive, and negative tensors are expected to have the same number of "
            f"dimensions, but got: anchor {anchor.ndim}D, positive {positive.ndim}D, and negative "
            f"{negative.ndim}D inputs"
        )
    near = pairwise_distance(anchor, positive, p, eps)
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = far.minimum(pairwise_distance(positive, negative, p, eps))
    return reduced((near - far + margin).clamp_min(0), how)


@op("F")
def triplet_margin_with_distance_loss(anchor: Tensor, positive: Tensor, negative: Tensor, *,
                                      distance_function: Any = None, margin: float = 1.0,
                                      swap: bool = False, reduction: str = "mean") -> Tensor:
    """`triplet_margin_loss` with a distance of one's own."""
    from .distance import pairwise_distance

    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    distance = pairwise_distance if distance_function is None else distance_function
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise RuntimeError(
            "The anchor, positive, and negative tensors are expected to have the same number of "
            f"dimensions, but got: anchor {anchor.ndim}D, positive {positive.ndim}D, and negative "
            f"{negative.ndim}D inputs"
        )
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = far.minimum(distance(positive, negative))
    return reduced((near - far + margin).clamp_min(0), reduction)


# -- connectionist temporal classification


def _ctc_gradient(g: Any, log_probs: Tensor, targets: Tensor, inputs: tuple[int, ...],
                  lengths: tuple[int, ...], blank: int, zero_infinity: bool, out0: Tensor,
                  out1: Tensor) -> Tensor:
    arguments = (g[0], log_probs, targets, out0, out1)
    return _ctc_backward(*arguments, inputs, lengths, blank, zero_infinity)


@leaf({"log_probs": _ctc_gradient}, name="ctc_loss")
def _ctc(log_probs: Array, targets: Array, inputs: tuple[int, ...], lengths: tuple[int, ...],
         blank: int, zero_infinity: bool) -> Any:
    """Negative log likelihood of each sequence, and the forward variables."""
    states, skip = reference.extend_targets(targets, lengths, blank)
    wide = log_probs.astype(np.float64)  # sums over many paths lose too much in float32
    loss, alpha = reference.forward(wide, states, skip, np.array(inputs), np.array(lengths))
    return loss.astype(log_probs.dtype), alpha


@leaf({}, name="ctc_loss_backward")
def _ctc_backward(grad: Array, log_probs: Array, targets: Array, loss: Array, alpha: Array,
                  inputs: tuple[int, ...], lengths: tuple[int, ...], blank: int,
                  zero_infinity: bool) -> Any:
    """Gradient of `ctc_loss` for the log probabilities."""
    states, skip = reference.extend_targets(targets, lengths, blank)
    if zero_infinity:
        grad = np.where(np.isinf(loss), 0, grad)
    wide = log_probs.astype(np.float64)
    last = (np.array(inputs), np.array(lengths))
    exact = reference.likelihood(alpha, *last)
    result = reference.backward(grad, wide, states, skip, *last, exact, alpha)
    if zero_infinity:
        result[:, np.isinf(loss)] = 0
    return result.astype(log_probs.dtype)


def _lengths(value: Any) -> tuple[int, ...]:
    listed = value.tolist() if isinstance(value, Tensor) else value
    return tuple(int(n) for n in (listed if isinstance(listed, (list, tuple)) else [listed]))


def _padded_targets(targets: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Targets (N, S); a flat vector is cut by the lengths."""
    if targets.ndim != 1:
        return targets
    flat = np.asarray(targets._a)
    table = np.zeros((len(lengths), max([1, *lengths])), np.int64)
    start = 0
    for row, n in enumerate(lengths):
        table[row, :n] = flat[start : start + n]
        start += n
    from ..tensor.tensor import wrap

    return wrap(table)


def _check_ctc(x: Tensor, targets: Tensor, inputs: Any, lengths: Any, blank: int) -> None:
    steps, batch, classes = x.shape
    if not 0 <= blank < classes:
        raise RuntimeError(f"blank must be in label range, received {blank} for {classes} classes")
    if len(inputs) != batch or len(lengths) != batch:
        which = "input_lengths" if len(inputs) != batch else "target_lengths"
        raise RuntimeError(f"{which} must be of size batch_size, received {len(inputs)} and "
                           f"{len(lengths)} lengths for a batch of {batch}")
    if any(n > steps or n < 0 for n in inputs):
        raise RuntimeError(
            f"Expected input_lengths to have value at most {steps}, but got value {max(inputs)}"
        )
    if targets.ndim == 2 and max([0, *lengths]) > targets.shape[1]:
        raise RuntimeError(
            f"Expected tensor to have size at least {max(lengths)} at dimension 1, but got size "
            f"{list(targets.shape)} for argument 'targets'"
        )
    if targets.ndim == 1 and sum(lengths) != targets.shape[0]:
        raise RuntimeError(
            f"Expected tensor to have size {sum(lengths)} at dimension 0, but got size "
            f"{targets.shape[0]} for argument 'targets'"
        )


@op("F")
def ctc_loss(log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any,
             blank: int = 0, reduction: str = "mean", zero_infinity: bool = False) -> Tensor:
    """Connectionist temporal classification of log probabilities (T, N, C) or (T, C)."""
    how = reduction_of(None, None, reduction)
    batched = log_probs.ndim == 3
    x = log_probs if batched else log_probs.unsqueeze(1)
    t = targets if batched or targets.ndim != 1 else targets.unsqueeze(0)
    inputs, lengths = _lengths(input_lengths), _lengths(target_lengths)
    _check_ctc(x, t, inputs, lengths, blank)
    loss, _ = _ctc(x, _padded_targets(t, lengths), inputs, lengths, blank, zero_infinity)
    if zero_infinity:
        loss = loss.masked_fill(loss.detach() == np.inf, 0)
    if how == "mean":
        divisor = loss.new_tensor([float(max(n, 1)) for n in lengths])
        return (loss / divisor).mean()
    if how == "sum":
        return loss.sum()
    return loss if batched else loss.squeeze(0)


@op("torch", name="ctc_loss")
def _torch_ctc_loss(log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any,
                    blank: int = 0, reduction: int = 1, zero_infinity: bool = False) -> Tensor:
    """`torch.ctc_loss`, with the reduction by number."""
    return ctc_loss(log_probs, targets, input_lengths, target_lengths, blank,
                    ("none", "mean", "sum")[reduction], zero_infinity)
