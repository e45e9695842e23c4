"""Scaled dot-product attention and multi-head attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd.modes import state
from ..tensor.dtype import bool_
from ..tensor.tensor import INFERENCE, Tensor, wrap
from .contraction import linear
from .errors import argument_type
from .families import Array, OptArray
from .native import SINGLE
from .record import PUBLIC, leaf, op

__all__ = ["multi_head_attention_forward", "scaled_dot_product_attention"]


_LOG2E = 1 / math.log(2)


# -- one operator for the whole of softmax(q k^T * scale + mask) v


def _weights(query: Any, key: Any, mask: Any, causal: bool, scale: float) -> Any:
    """Attention weights, and the base-2 logarithms of the sums they were divided by.

    A row with nothing to attend to is all zero, its logarithm infinite.
    """
    scores = (query * query.dtype.type(scale)) @ np.swapaxes(key, -1, -2)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    if causal:
        scores[..., np.arange(key.shape[-2]) > np.arange(query.shape[-2])[:, None]] = -np.inf
    top = scores.max(-1, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    scores -= top
    np.exp(scores, out=scores)
    total = scores.sum(-1, keepdims=True)
    logarithm = np.where(total == 0, np.inf, top * _LOG2E + np.log2(total))
    scores /= np.where(total == 0, 1, total)
    return scores, logarithm[..., 0].astype(scores.dtype)


def _attention_shape(query: Any, key: Any, value: Any, *_: Any) -> Any:
    lead = np.broadcast_shapes(query.shape[:-2], value.shape[:-2])
    rows = (*np.broadcast_shapes(query.shape[:-2], key.shape[:-2]), query.shape[-2])
    return [((*lead, query.shape[-2], value.shape[-1]), query.dtype), (rows, query.dtype)]


def _backward_shape(grad: Any, out: Any, logarithm: Any, query: Any, key: Any, value: Any,
                    mask: Any, *_: Any) -> Any:
    additive = mask is not None and mask.dtype != bool
    return [*[(a.shape, query.dtype) for a in (query, key, value)],
            (mask.shape, query.dtype) if additive else ((0,), np.dtype(np.float64))]


def _attention_grad(
    g: Any,
    needs: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float,
    out0: Tensor,
    out1: Tensor,
) -> Any:
    if state.grad:
        return _composed_gradients(g[0], query, key, value, mask, causal, scale)
    found = _attention_backward(g[0], out0, out1, query, key, value, mask, causal, scale)
    return found if mask is not None and needs[3] else (*found[:3], None)


def _composed_gradients(
    g: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float,
) -> Any:
    """The gradients in public operators, so that they can be differentiated again."""
    p = _public_weights(query, key, mask, causal, scale)
    gp = g @ value.transpose(-1, -2)
    gs = p * (gp - (gp * p).sum(-1, keepdim=True))
    gq = ((gs @ key) * scale).sum_to_size(query.shape)
    gk = ((gs.transpose(-1, -2) @ query) * scale).sum_to_size(key.shape)
    gv = (p.transpose(-1, -2) @ g).sum_to_size(value.shape)
    additive = mask is not None and mask.dtype != bool_
    return gq, gk, gv, gs.sum_to_size(mask.shape) if additive else None  # type: ignore[union-attr]


def _sum_to(x: Any, shape: tuple[int, ...]) -> Any:
    if x.shape == shape:
        return x
    x = x.sum(tuple(range(x.ndim - len(shape))))
    return x.sum(tuple(i for i, n in enumerate(shape) if n == 1 != x.shape[i]), keepdims=True)


@leaf({}, name="scaled_dot_product_attention_backward", shape=_backward_shape)
def _attention_backward(
    grad: Array, out: Array, logarithm: Array, query: Array, key: Array, value: Array,
    mask: OptArray, causal: bool, scale: float
) -> Any:
    """Gradients for query, key, value and an additive mask."""
    p, _ = _weights(query, key, mask, causal, scale)
    gv = np.swapaxes(p, -1, -2) @ grad
    gs = grad @ np.swapaxes(value, -1, -2)
    gs = p * (gs - (gs * p).sum(-1, keepdims=True))
    gm = _sum_to(gs, mask.shape) if mask is not None and mask.dtype != bool else np.zeros(0)
    gs *= gs.dtype.type(scale)
    gq, gk = gs @ key, np.swapaxes(gs, -1, -2) @ query
    return (_sum_to(gq, query.shape), _sum_to(gk, key.shape), _sum_to(gv, value.shape), gm)


@leaf(
    _attention_grad,
    name="scaled_dot_product_attention",
    shape=_attention_shape,
    node="ScaledDotProductFlashAttentionForCpuBackward0",
)
def _attention(
    query: Array, key: Array, value: Array, mask: OptArray, causal: bool, scale: float
) -> Any:
    """softmax(query @ key.T * scale + mask) @ value; the logarithms of the rows' sums."""
    weights, logarithm = _weights(query, key, mask, causal, scale)
    return weights @ value, logarithm


def _public_weights(
    query: Tensor, key: Tensor, mask: Tensor | None, causal: bool, scale: float
) -> Tensor:
    scores = (query * scale) @ key.transpose(-1, -2)
    if causal:
        seen = np.arange(key.shape[-2]) <= np.arange(query.shape[-2])[:, None]
        scores = scores.masked_fill(wrap(~seen), -math.inf)
    if mask is not None:
        if mask.dtype == bool_:
            scores = scores.masked_fill(~mask, -math.inf)
        else:
            scores = scores + mask
    if _has_no_blank(scores):
        return scores.softmax(-1)
    blank = (scores == -math.inf).all(-1, keepdim=True)
    return scores.softmax(-1).masked_fill(blank, 0)


def _has_no_blank(scores: Tensor) -> bool:
    """Whether a look at the elements, as long as it is cheap, finds a score in every row."""
    a = scores._a
    return (a.__class__ is np.ndarray and not INFERENCE[0] and a.dtype.kind == "f"
            and 0 < a.size < SINGLE and bool(a.max(-1).min() > -math.inf))


def _check_attention(query: Any, key: Any, value: Any, mask: Any, is_causal: bool) -> None:
    for label, t in (("query", query), ("key", key), ("value", value)):
        if not isinstance(t, Tensor):
            raise argument_type("scaled_dot_product_attention", label, "Tensor", t)
    if not query.dtype == key.dtype == value.dtype:
        raise RuntimeError(
            "Expected query, key, and value to have the same dtype, but got query.dtype: "
            f"{query._dtype.name} key.dtype: {key._dtype.name} and value.dtype: "
            f"{value._dtype.name} instead."
        )
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise RuntimeError(
            "Expected query, key, and value to all be  at least 2 dimensional, but got query.dim: "
            f"{query.ndim}, key.dim: {key.ndim} and value.dim: {value.ndim} instead."
        )
    if mask is not None:
        if is_causal:
            raise RuntimeError(
                "_scaled_dot_product_attention: Explicit attn_mask should not be set when "
                "is_causal=True"
            )
        if mask.dtype not in (bool_, query.dtype) and mask._dtype.name != "float32":
            raise RuntimeError(
                "Expected attn_mask dtype to be bool or float or to match query dtype, but got "
                f"attn_mask.dtype: {mask._dtype.name} and  query.dtype: {query._dtype.name} "
                "instead."
            )
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise RuntimeError(
            "scaled_dot_product_attention(): shapes cannot be multiplied: query "
            f"{list(query.shape)}, key {list(key.shape)}, value {list(value.shape)}; query and key "
            "need one last dimension, key and value one length"
        )


@op("F")
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(query @ key.T * scale + mask) @ value over (..., L, E), (..., S, E), (..., S, Ev).

    attn_mask: bool (True = may attend) or added to the scores. scale defaults to 1 / sqrt(E).
    enable_gqa: key and value may have fewer heads (dimension -3).

    >>> import lampion as torch
    >>> q = torch.ones(1, 2, 4)
    >>> torch.nn.functional.scaled_dot_product_attention(q, q, q).shape
    torch.Size([1, 2, 4])
    """
    _check_attention(query, key, value, attn_mask, is_causal)
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3], query.shape[-3] // value.shape[-3]
        key, value = key.repeat_interleave(repeats[0], -3), value.repeat_interleave(repeats[1], -3)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if attn_mask is not None and attn_mask.dtype not in (bool_, query.dtype):
        attn_mask = attn_mask.to(query.dtype)
    if dropout_p > 0:
        weights = _public_weights(query, key, attn_mask, is_causal, factor)
        return _dropout(weights, dropout_p) @ value
    return _attention(query, key, value, attn_mask, bool(is_causal), factor)[0]


# -- multi-head attention


def _mask_as_float(mask: Tensor | None, like: Tensor, name: str) -> Tensor | None:
    if mask is None:
        return None
    if mask.dtype != bool_ and not mask.is_floating_point():
        raise AssertionError(f"only bool and floating types of {name} are supported")
    if mask.dtype != bool_:
        return mask
    return like.new_zeros(mask.shape).masked_fill(mask, -math.inf)


def _check_mha_shapes(query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None) -> bool:
    """Whether the input is batched; AssertionError where ranks do not fit."""
    if query.ndim not in (2, 3):
        raise AssertionError(
            f"query should be unbatched 2D or batched 3D tensor but received {query.ndim}-D query "
            "tensor"
        )
    if key.ndim != query.ndim or value.ndim != query.ndim:
        raise AssertionError(
            f"For {'batched (3-D)' if query.ndim == 3 else 'unbatched (2-D)'} `query`, expected "
            f"`key` and `value` to be {query.ndim}-D but found {key.ndim}-D and {value.ndim}-D "
            "tensors respectively"
        )
    if padding is not None and padding.ndim != query.ndim - 1:
        raise AssertionError(
            f"For {'batched (3-D)' if query.ndim == 3 else 'unbatched (2-D)'} `query`, expected "
            f"`key_padding_mask` to be `None` or {query.ndim - 1}-D but found {padding.ndim}-D "
            "tensor instead"
        )
    return query.ndim == 3


def _project(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weight: Tensor | None,
    separate: tuple[Any, Any, Any],
    bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The input projections, in as few products as the identities of the inputs allow."""
    size = query.shape[-1]
    if weight is None:
        biases = (None,) * 3 if bias is None else bias.chunk(3)
        triples = zip((query, key, value), separate, biases, strict=True)
        q, k, v = (linear(x, w, b) for x, w, b in triples)
        return q, k, v
    if query is key and key is value:
        q, k, v = linear(query, weight, bias).chunk(3, -1)
        return q, k, v
    wq, wk, wv = weight.chunk(3)
    bq, bk, bv = (None,) * 3 if bias is None else bias.chunk(3)
    if key is value:
        both = linear(key, weight[size:], None if bias is None else bias[size:])
        k, v = both.chunk(2, -1)
        return linear(query, wq, bq), k, v
    return linear(query, wq, bq), linear(key, wk, bk), linear(value, wv, bv)


def _with_extra(x: Tensor, bias: Tensor | None) -> Tensor:
    """A last key or value position that is the learned bias."""
    return x if bias is None else Tensor._cat((x, bias.expand(1, x.shape[1], -1)), 0)


def _grow(mask: Tensor | None) -> Tensor | None:
    from .pad import pad

    return None if mask is None else pad(mask, (0, 1))


@op("F")
def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention of `num_heads` heads over (L, N, E) or (L, E); the output and the weights."""
    batched = _check_mha_shapes(query, key, value, key_padding_mask)
    _check_mha(
        query,
        key,
        value,
        embed_dim_to_check,
        num_heads,
        attn_mask,
        is_causal,
        use_separate_proj_weight,
    )
    if is_causal and key_padding_mask is None and not need_weights:
        attn_mask = None
    else:
        is_causal = False
    separate = (q_proj_weight, k_proj_weight, v_proj_weight)
    weight = None if use_separate_proj_weight else in_proj_weight
    projected = _project(query, key, value, weight, separate, in_proj_bias)
    q, k, v, mask = _split_heads(projected, num_heads, (bias_k, bias_v), (static_k, static_v),
                                 add_zero_attn, attn_mask, key_padding_mask, batched)
    drop = dropout_p if training else 0.0
    weights: Tensor | None = None
    if need_weights:
        out, weights = _explicit(q, k, v, mask, drop)
        weights = weights.mean(1) if average_attn_weights else weights
    else:
        out = scaled_dot_product_attention(q, k, v, mask, drop, is_causal)
    batch, _, length, _ = out.shape
    joined = out.permute(2, 0, 1, 3).reshape(length * batch, query.shape[-1])
    result = linear(joined, out_proj_weight, out_proj_bias).view(length, batch, -1)
    if batched:
        return result, weights
    return result.squeeze(1), None if weights is None else weights.squeeze(0)


def _split_heads(projected: tuple[Tensor, Tensor, Tensor], heads: int, extra: tuple[Any, Any],
                 static: tuple[Any, Any], zero: bool, attn_mask: Tensor | None,
                 padding: Tensor | None, batched: bool) -> tuple[Any, Any, Any, Any]:
    """Query, key and value as (N, heads, L, E / heads), and one additive mask for them."""
    q, k, v = projected
    if not batched:
        q, k, v = q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1)
        padding = None if padding is None else padding.unsqueeze(0)
    masks = [_mask_as_float(attn_mask, q, "attn_mask"),
             _mask_as_float(padding, q, "key_padding_mask")]
    if extra[0] is not None or extra[1] is not None:
        k, v, masks = _with_extra(k, extra[0]), _with_extra(v, extra[1]), [_grow(m) for m in masks]
    batch = q.shape[1]
    sources = ((q, None), (k, static[0]), (v, static[1]))
    q, k, v = (_heads(t, given, batch, heads) for t, given in sources)
    if zero:
        k, v = (Tensor._cat((t, t.new_zeros((*t.shape[:2], 1, t.shape[3]))), 2) for t in (k, v))
        masks = [_grow(m) for m in masks]
    return q, k, v, _merge_masks(masks[0], masks[1], batch, heads, k.shape[2])


def _check_mha(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed: int,
    heads: int,
    mask: Tensor | None,
    is_causal: bool,
    separate: bool,
) -> None:
    if is_causal and mask is None:
        raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
    if query.shape[-1] != embed:
        raise AssertionError(
            f"was expecting embedding dimension of {embed}, but got {query.shape[-1]}"
        )
    if embed % heads:
        raise AssertionError(f"embed_dim {embed} not divisible by num_heads {heads}")
    if separate and key.shape[:-1] != value.shape[:-1]:
        raise AssertionError(
            f"key's sequence and batch dims {key.shape[:-1]} do not match value's "
            f"{value.shape[:-1]}"
        )
    if not separate and key.shape != value.shape:
        raise AssertionError(f"key shape {key.shape} does not match value shape {value.shape}")
    _check_mask_shape(query, key, heads, mask)


def _check_mask_shape(query: Tensor, key: Tensor, heads: int, mask: Tensor | None) -> None:
    if mask is None:
        return
    batch = query.shape[1] if query.ndim == 3 else 1
    flat = (query.shape[0], key.shape[0])
    full = (batch * heads, *flat)
    if mask.ndim not in (2, 3):
        raise RuntimeError(f"attn_mask's dimension {mask.ndim} is not supported")
    if tuple(mask.shape) not in (flat, full):
        raise RuntimeError(
            f"The shape of the {mask.ndim}D attn_mask is {tuple(mask.shape)}, but should be "
            f"{flat if mask.ndim == 2 else full}."
        )


def _heads(t: Tensor, static: Tensor | None, batch: int, heads: int) -> Tensor:
    """(S, N, E) as (N, heads, S, E / heads)."""
    if static is not None:
        return static.view(batch, heads, *static.shape[1:])
    return t.reshape(t.shape[0], batch, heads, -1).permute(1, 2, 0, 3)


def _merge_masks(
    mask: Tensor | None, padding: Tensor | None, batch: int, heads: int, length: int
) -> Tensor | None:
    if mask is not None and mask.ndim == 3:
        mask = mask.view(batch, heads, mask.shape[1], -1)
    if padding is None:
        return mask
    padding = padding.view(batch, 1, 1, length)
    return padding if mask is None else mask + padding


def _explicit(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, drop: float
) -> tuple[Tensor, Tensor]:
    scores = (q * math.sqrt(1.0 / q.shape[-1])) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    weights = scores.softmax(-1)
    if drop > 0:
        weights = _dropout(weights, drop)
    return weights @ v, weights


def _dropout(x: Tensor, p: float) -> Tensor:
    return PUBLIC["F"]["dropout"](x, p, True)
