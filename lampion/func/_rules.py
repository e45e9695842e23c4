"""What operators do to whole batches: the rules of `vmap`.

A rule is `rule(b, op, tensors, attrs, outs)`: it gives the batches of the results, or None where
it does not serve these arguments. `b.full(t)` is a batch of tensors, `b.lifted(t, n)` one that
broadcasts as tensors of `n` dimensions do. Operators without a rule run in a loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import ops
from ..ops.families import _pointwise_shape, _predicate_shape
from ..ops.record import LEAVES
from ..tensor import Tensor, formats

__all__ = ["RULES"]

Rule = Callable[[Any, Any, Any, Any, Any], Any]
RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def keep(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule
    return keep


def _ndim(tensors: Any) -> int:
    return max(t._a.ndim for t in tensors if isinstance(t, Tensor))


# --- element by element ---------------------------------------------------------------------------


def _pointwise(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    ndim = _ndim(tensors)
    return op(*(b.lifted(t, ndim) for t in tensors), *attrs)


_MORE_POINTWISE = """
    abs add_scaled addcdiv addcmul angle celu clamp complex conj_physical elu gelu gelu_slope
    hardshrink hardsigmoid hardswish hardtanh leaky_relu lerp log_sigmoid mish normal_cdf polygamma
    prelu_kernel round silu softplus softshrink standard_gamma_grad sub_scaled threshold to_copy
    where"""
RULES.update({name: _pointwise for name, leaf in LEAVES.items()
              if leaf.shape in (_pointwise_shape, _predicate_shape)})
RULES.update(dict.fromkeys(_MORE_POINTWISE.split(), _pointwise))


@_rule("gate", "linear_gate", "outside", "slope_where_negative", "rrelu_with_noise", "masked_fill")
def _in_one_shape(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    """Element by element, in the shape of the first operand."""
    ndim = _ndim(tensors)
    return op(b.full(tensors[0]), *(b.lifted(t, ndim) for t in tensors[1:]), *attrs)


@_rule("clone")
def _clone(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    """In rows where an order is asked for: orders of memory speak of an element's dimensions."""
    batch = b.full(tensors[0])
    return batch.clone() if attrs[0] is None else batch.clone(
        memory_format=formats.contiguous_format)


# --- dimensions -----------------------------------------------------------------------------------


def _shifted(dims: Any) -> Any:
    """Dimensions of an element as those of the batch."""
    if isinstance(dims, (tuple, list)):
        return tuple(map(_shifted, dims))
    return dims + 1 if dims >= 0 else dims


def _along(*places: int) -> Rule:
    """An operator of one tensor whose attributes at `places` are dimensions."""
    def rule(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
        if any(attrs[p] is None for p in places) or not tensors[0]._a.ndim:
            return None
        moved = [_shifted(a) if i in places else a for i, a in enumerate(attrs)]
        return op(b.full(tensors[0]), *moved)
    return rule


for _names, _places in (
        ("softmax log_softmax cumsum cumprod logcumsumexp cummax cummin glu sort median nanmedian "
         "mode max_dim min_dim flip select slice squeeze unfold unbind fft_c2c fft_r2c fft_c2r",
         (0,)),
        ("topk kthvalue roll split split_with_sizes", (1,)), ("transpose", (0, 1)),
        ("diagonal diag_embed", (1, 2))):
    RULES.update(dict.fromkeys(_names.split(), _along(*_places)))


def _reduction(place: int) -> Rule:
    """A reduction over the dimensions at `place` of the attributes; None: all of an element."""
    def rule(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
        dims = attrs[place]
        dims = tuple(range(tensors[0]._a.ndim)) if dims is None else dims
        if isinstance(dims, tuple) and len(dims) != 1 and op.name == "prod":
            return op(b.full(tensors[0]).reshape(b.size, -1), (1,), False)
        return op(b.full(tensors[0]), *attrs[:place], _shifted(dims), *attrs[place + 1:])
    return rule


RULES.update(dict.fromkeys(("sum", "mean", "prod", "amax", "amin", "all", "any", "logsumexp",
                            "var", "std"), _reduction(0)))
RULES["linalg_vector_norm"] = _reduction(1)


@_rule("max", "min", "argmax", "argmin")
def _of_all(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    """The largest or smallest of an element, or its place."""
    batch = b.full(tensors[0])
    if op.name in ("max", "min"):
        return getattr(batch.reshape(b.size, -1), f"a{op.name}")(1)
    if attrs[0] is None or not tensors[0]._a.ndim:
        return op(batch.reshape(b.size, -1), 1, False)
    return op(batch, attrs[0] + 1, attrs[1])


@_rule("unsqueeze")
def _unsqueeze(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    return op(b.full(tensors[0]), attrs[0] + 1)


@_rule("permute")
def _permute(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    n = tensors[0]._a.ndim
    return op(b.full(tensors[0]), (0, *(d % n + 1 for d in attrs[0])))


@_rule("t")
def _t(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    return b.full(tensors[0]).transpose(1, 2)


@_rule("view")
def _view(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    """Another shape; a copy where the batch lies otherwise than an element told."""
    batch = b.full(tensors[0])
    made = batch.reshape(b.size, *outs[0]._a.shape)
    if made._base is None or made._base is not (batch if batch._base is None else batch._base):
        b.mark_copied(outs[0])
    return made


@_rule("expand")
def _expand(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    return b.lifted(tensors[0], len(attrs[0])).expand(b.size, *outs[0]._a.shape)


@_rule("repeat")
def _repeat(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    return b.lifted(tensors[0], len(attrs[0])).repeat(1, *attrs[0])


def _leading(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    """An operator that works on the last dimensions, whatever stands before them."""
    return op(*(t if t is None else b.full(t) for t in tensors), *attrs)


_LEADING = """
    alias real imag view_as_real view_as_complex view_dtype tril triu constant_pad_nd
    linalg_cholesky_ex linalg_det linalg_eig linalg_eigh linalg_eigvalsh linalg_inv_ex
    linalg_lu_factor_ex linalg_matrix_exp linalg_qr linalg_slogdet linalg_svd
    linalg_svdvals cholesky_solve linalg_solve_triangular
    scaled_dot_product_attention_backward"""
RULES.update(dict.fromkeys(_LEADING.split(), _leading))


@_rule("scaled_dot_product_attention")
def _attention(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    ndim = _ndim(tensors[:3])
    mask = tensors[3]
    return op(*(b.full(t) for t in tensors[:3]), mask if not b.holds(mask) else b.lifted(
        mask, ndim), *attrs)


@_rule("cat", "stack")
def _join(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    if len({t._a.ndim for t in tensors}) != 1:
        return None
    return op([b.full(t) for t in tensors], attrs[0] % max(outs[0]._a.ndim, 1) + 1)


# --- contractions ---------------------------------------------------------------------------------


@_rule("mm", "bmm")
def _product(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    return _times(b, *tensors)


def _times(b: Any, x: Any, y: Any) -> Any:
    """`x @ y` of matrices, or batches of them, one of which differs from element to element."""
    if b.holds(y) or x._a.ndim == 3:
        return ops.matmul(b.lifted(x, x._a.ndim), b.lifted(y, y._a.ndim))
    batch = x._a.value  # one matrix for all elements: the rows of all of them at once
    return batch.reshape(-1, batch._a.shape[-1]).mm(y).reshape(b.size, -1, y._a.shape[1])


@_rule("mv")
def _matrix_vector(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    matrix, vector = tensors
    if not b.holds(matrix):
        return b.full(vector).mm(matrix.t())
    return ops.matmul(b.full(matrix), b.value_of(vector).unsqueeze(-1))


@_rule("dot")
def _dot(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    x, y = tensors if b.holds(tensors[0]) else reversed(tensors)
    if not b.holds(y):
        return b.full(x).mv(y)
    return ops.matmul(b.full(x).unsqueeze(1), b.full(y).unsqueeze(2))


@_rule("addmm", "baddbmm")
def _add_product(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    added, x, y = tensors
    beta, alpha = attrs
    if b.holds(x) or b.holds(y):
        out = _times(b, x, y)
    else:
        out = ops.matmul(x, y).unsqueeze(0)
    out = out if alpha == 1 else out * alpha
    if beta == 0:
        return out.expand(b.size, *outs[0]._a.shape)
    start = b.lifted(added, x._a.ndim)
    return out + (start if beta == 1 else start * beta)


@_rule("linear")
def _linear(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    x, weight, bias = tensors
    if not b.holds(weight) and not b.holds(bias):
        return op(b.full(x), weight, bias)
    if not b.holds(weight):
        return op(b.value_of(x), weight, None) + b.lifted(bias, x._a.ndim)
    rows = b.value_of(x).reshape(*((b.size,) if b.holds(x) else ()), -1, x._a.shape[-1])
    out = ops.matmul(rows, weight._a.value.transpose(1, 2))
    return out if bias is None else out + (
        b.full(bias).unsqueeze(1) if b.holds(bias) else bias)


# --- the first dimension of an element is a batch itself ------------------------------------------


def _folded(b: Any, t: Any) -> Any:
    """The batches of all elements as one."""
    if t is None:
        return None
    batch = b.full(t)
    return batch.reshape(-1, *batch._a.shape[2:])


@_rule(*(name for name in LEAVES if name.startswith((
    "avg_pool", "max_pool", "adaptive_max_pool", "resample_", "max_unpool", "reflection_pad",
    "replication_pad", "circular_pad", "grid_sampler_2d", "grid_sampler_3d", "im2col", "col2im",
    "gather_planes", "scatter_planes", "own_pad_backward"))))
def _fold(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    if any(t._a.ndim < 3 for t in tensors) or any(
            o._a.shape[0] != tensors[0]._a.shape[0] for o in outs):
        return None
    found = op(*(_folded(b, t) for t in tensors), *attrs)
    return _unfolded(b, found, outs)


def _unfolded(b: Any, found: Any, outs: Any) -> Any:
    many = found if isinstance(found, tuple) else (found,)
    return tuple(f.reshape(b.size, *o._a.shape) for f, o in zip(many, outs, strict=True))


def _beside(b: Any, t: Any) -> Any:
    """The channels of all elements side by side: (N, B * C, ...)."""
    batch = b.full(t).movedim(0, 1)
    return batch.reshape(batch._a.shape[0], -1, *batch._a.shape[3:])


def _apart(b: Any, t: Any) -> Any:
    """The reverse of `_beside`."""
    return t.reshape(t._a.shape[0], b.size, -1, *t._a.shape[2:]).movedim(1, 0)


@_rule("convolution", "correlate_input")
def _convolution(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    """Elements with one kernel are one batch; kernels of their own are groups of channels."""
    x, weight, bias = tensors
    *how, groups = attrs
    if not b.holds(weight):
        plain = None if b.holds(bias) else bias
        out = _unfolded(b, op(_folded(b, x), weight, plain, *attrs), outs)[0]
    elif not b.holds(x) and groups == 1 and op.name == "convolution":
        plain = None if b.holds(bias) else bias
        out = _apart(b, op(x, _folded(b, weight), None, *attrs))
        out = out if plain is None else out + _per_channel(plain, out)
    else:
        plain = None if b.holds(bias) else bias
        out = _apart(b, op(_beside(b, x), _folded(b, weight), None, *how, groups * b.size))
        out = out if plain is None else out + _per_channel(plain, out)
    if b.holds(bias):
        out = out + bias._a.value.reshape(b.size, 1, -1, *(1,) * (out._a.ndim - 3))
    return out


def _per_channel(bias: Tensor, out: Tensor) -> Any:
    return bias.reshape(-1, *(1,) * (out._a.ndim - 3))


@_rule("correlate_weight")
def _convolution_weight(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    """The gradient of each element's kernel: groups of channels."""
    grad, x = tensors
    *how, groups = attrs
    return op(_beside(b, grad), _beside(b, x), *how, groups * b.size)


# --- normalisation --------------------------------------------------------------------------------


@_rule("native_batch_norm")
def _batch_norm(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    """Channels of all elements side by side are channels."""
    x, *rest = tensors
    found = op(_beside(b, x), *(None if t is None else b.full(t).reshape(-1) for t in rest), *attrs)
    return _apart(b, found[0]), *(f.reshape(b.size, *o._a.shape)
                                  for f, o in zip(found[1:], outs[1:], strict=True))


@_rule("native_layer_norm", "native_group_norm", "rms_norm")
def _norm(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    """With the weights of all elements, or without; then the weights of each."""
    x, *affine = tensors
    of_groups = op.name == "native_group_norm"
    own = any(map(b.holds, affine))
    given = (None,) * len(affine) if own else affine
    found = op(_folded(b, x) if of_groups else b.full(x), *given, *attrs)
    out, *rest = _unfolded(b, found, outs)
    if own:
        ndim = x._a.ndim - 1 if of_groups else x._a.ndim
        weight, bias = (_aligned(b, t, ndim, of_groups) for t in (*affine, None)[:2])
        out = out if weight is None else out * weight
        out = out if bias is None else out + bias
    return (out, *rest)


def _aligned(b: Any, t: Any, ndim: int, of_groups: bool) -> Any:
    """A weight as it multiplies the batch: one for each channel, or for the last dimensions."""
    if t is None:
        return None
    if not of_groups:
        return b.lifted(t, ndim)
    return b.full(t).reshape(b.size, 1, -1, *(1,) * (ndim - 1))


# --- losses ---------------------------------------------------------------------------------------


@_rule("mse_loss", "smooth_l1_loss", "huber_loss", "soft_margin_loss", "binary_cross_entropy",
       "binary_cross_entropy_with_logits")
def _loss(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    reduction, *more = attrs
    ndim = _ndim(tensors)
    x, target = (b.full(t) for t in tensors[:2])
    return _reduced(op(x, target, *(b.lifted(t, ndim) if isinstance(t, Tensor) else t
                                    for t in tensors[2:]), "none", *more), reduction)


def _reduced(losses: Any, reduction: str) -> Any:
    """The sum or mean of each element's losses."""
    if reduction == "none":
        return losses
    rows = losses.reshape(losses._a.shape[0], -1)
    return rows.mean(1) if reduction == "mean" else rows.sum(1)


@_rule("nll_loss", "nll_loss2d")
def _nll(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    x, target, weight = tensors
    reduction, ignore = attrs
    if b.holds(weight):
        return None
    losses = op(_folded(b, x), _folded(b, target), weight, "none", ignore)
    if reduction == "none":
        return losses
    total = losses.reshape(b.size, -1).sum(1)
    return total if reduction == "sum" else total / _weights(b, target, weight, ignore, x)


def _weights(b: Any, target: Any, weight: Any, ignore: int, like: Any) -> Any:
    """What the means of the elements divide by."""
    rows = b.full(target).reshape(b.size, -1)
    counted = rows != ignore
    if weight is None:
        return counted.sum(1).to(like.dtype)
    return (weight[rows.masked_fill(~counted, 0)] * counted).sum(1)


@_rule("nll_backward")
def _nll_backward(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    grad, target, weight = tensors
    shape, reduction, ignore = attrs
    if b.holds(weight):
        return None
    g = b.full(grad)
    if reduction == "mean":
        g = g / _weights(b, target, weight, ignore, grad)
    if reduction != "none":
        g = g.reshape(b.size, *(1,) * target._a.ndim).expand(b.size, *target._a.shape)
    folded = g.reshape(-1, *g._a.shape[2:])
    return op(folded, _folded(b, target), weight, (b.size * shape[0], *shape[1:]), "none", ignore)


# --- places ---------------------------------------------------------------------------------------


def _numbers(b: Any, ndim: int) -> Tensor:
    """The numbers of the elements, to stand beside indices of `ndim` dimensions."""
    return ops.arange(b.size).reshape(-1, *(1,) * ndim)  # type: ignore[no-any-return]


@_rule("embedding")
def _embedding(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    """A table for all elements, or all tables as one."""
    weight, indices = tensors
    if not b.holds(weight):
        return op(weight, b.full(indices), *attrs)
    rows = weight._a.shape[0]
    places = b.full(indices) + _numbers(b, indices._a.ndim) * rows
    return op(_folded(b, weight), places, -1, attrs[1])


@_rule("embedding_dense_backward")
def _embedding_backward(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    grad, indices = tensors
    rows, padding, by_frequency = attrs
    g, places = b.full(grad), b.full(indices)
    if padding >= 0:
        g = g.masked_fill((places == padding).unsqueeze(-1), 0)
    places = places + _numbers(b, indices._a.ndim) * rows
    return op(g, places, rows * b.size, -1, by_frequency)


@_rule("gather")
def _gather(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    dim, index = attrs
    if not tensors[0]._a.ndim or not index._a.ndim:
        return None
    return op(b.full(tensors[0]), dim + 1, b.full(index).contiguous())


@_rule("scatter", "scatter_add", "scatter_reduce")
def _scatter(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    x, src = tensors
    dim, index, *more = attrs
    if not x._a.ndim or not index._a.ndim:
        return None
    if isinstance(src, Tensor) and (src._a.ndim or b.holds(src)):
        src = b.full(src) if src._a.ndim else b.full(src).reshape(
            b.size, *(1,) * index._a.ndim).expand(b.size, *index._a.shape)
    return op(b.full(x), src, dim + 1, b.full(index).contiguous(), *more)


@_rule("placed")
def _placed(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    index, shape, dim = attrs
    return op(b.full(tensors[0]), b.full(index).contiguous(), (b.size, *shape), dim + 1)


@_rule("index_select", "index_add", "index_copy", "index_fill")
def _index_along(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    dim, index = attrs
    if b.holds(index) or not tensors[0]._a.ndim or (
            op.name == "index_fill" and b.holds(tensors[1])):
        return None
    rest = [t if op.name == "index_fill" else b.full(t) for t in tensors[1:]]
    return op(b.full(tensors[0]), *rest, dim + 1, index)


@_rule("gather_backward", "index_select_backward")
def _sums_along(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    shape, dim, index = attrs
    along = op.name == "gather_backward"
    if not shape or not index._a.ndim or (b.holds(index) and not along):
        return None
    places = b.full(index).contiguous() if along else index
    return op(b.full(tensors[0]), (b.size, *shape), dim + 1, places)


@_rule("index")
def _index(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    """Element numbers become one more index, whose dimension then goes to the front."""
    x, (indices,) = tensors[0], attrs
    given = [d for d, i in enumerate(indices) if i is not None]
    together = given[-1] - given[0] == len(given) - 1
    n = max(indices[d]._a.ndim for d in given)
    lead = given[0] if together else 0  # where the dimensions of the indices stand in an element
    if not any(b.holds(indices[d]) for d in given):
        found = op(b.full(x), (None, *indices))
        return found if together else found.movedim(n, 0)
    places = [None if i is None else b.lifted(i, n) for i in indices]
    if not b.holds(x):
        found = op(x, tuple(places))
        return found.movedim(lead, 0)
    found = op(b.full(x), (_numbers(b, n), *places))  # numbers, indices, what is left
    front = 0 if lead and together else None
    return found if front is None else found.movedim(
        tuple(range(1, n + 1)), tuple(range(lead + 1, lead + n + 1)))


@_rule("index_backward")
def _index_backward(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    shape, indices = attrs
    given = [d for d, i in enumerate(indices) if i is not None]
    grad, whole = b.full(tensors[0]), (b.size, *shape)
    if given[-1] - given[0] == len(given) - 1 and not any(b.holds(indices[d]) for d in given):
        return op(grad, whole, (None, *indices))
    if len(given) < len(indices):
        return None
    n = max(i._a.ndim for i in indices)
    return op(grad, whole, (_numbers(b, n), *(b.lifted(i, n) for i in indices)))


@_rule("index_put")
def _index_put(b: Any, op: Any, tensors: Any, attrs: Any, outs: Any) -> Any:
    """As `index`, where the indices come first."""
    x, values = tensors
    indices, accumulate = attrs
    if any(i is None for i in indices):
        return None
    n = max(i._a.ndim for i in indices)
    places = [b.lifted(i, n) for i in indices]
    ndim = n + x._a.ndim - len(indices)
    return op(b.full(x), b.lifted(values, ndim), (_numbers(b, n), *places), accumulate)
