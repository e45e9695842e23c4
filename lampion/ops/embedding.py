"""Looking up rows of a table, and bags of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.modes import no_grad
from ..tensor.dtype import int32, int64
from ..tensor.tensor import Tensor, wrap
from .errors import argument_type
from .families import Array
from .record import leaf, op

__all__ = ["embedding", "embedding_bag"]


@leaf(
    {"grad": lambda g, indices, padding_idx: _masked_lookup(g, indices, padding_idx)},
    name="embedding_dense_backward",
    shape=lambda grad, indices, rows, *_: ((rows, grad.shape[-1]), grad.dtype),
)
def _embedding_backward(
    grad: Array, indices: Array, rows: int, padding_idx: int, by_frequency: bool
) -> Any:
    """Adds the gradient of each lookup to its row."""
    flat = indices.reshape(-1)
    values = grad.reshape(flat.size, grad.shape[-1])
    if padding_idx >= 0:
        kept = flat != padding_idx
        flat, values = flat[kept], values[kept]
    if by_frequency:
        values = values / np.bincount(flat, minlength=rows)[flat][:, None].astype(grad.dtype)
    out = np.zeros((rows, grad.shape[-1]), grad.dtype)
    _add_rows(out, flat, values)
    return out


def _add_rows(out: Any, rows: Any, values: Any) -> None:
    """out[rows] += values, also for repeated rows, in the order given."""
    if not rows.size:
        return
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    out[ordered[starts]] = np.add.reduceat(values[order], starts, axis=0)


def _masked_lookup(g: Tensor, indices: Tensor, padding_idx: int) -> Tensor:
    found: Tensor = _embedding(g, indices, padding_idx, False)
    if padding_idx >= 0:
        found = found.masked_fill((indices == padding_idx).unsqueeze(-1), 0)
    return found


def _lookup_shape(weight: Any, indices: Any, *_: Any) -> Any:
    return (*indices.shape, weight.shape[1]), weight.dtype


@leaf(
    {
        "weight": lambda g, indices, weight_shape, padding_idx, by_frequency: _embedding_backward(
            g, indices, weight_shape[0], padding_idx, by_frequency
        )
    },
    name="embedding",
    shape=_lookup_shape,
    exact=True,
)
def _embedding(weight: Array, indices: Array, padding_idx: int, by_frequency: bool) -> Any:
    """Rows of a table."""
    check_rows("embedding", indices, len(weight))
    return weight[indices] if indices.ndim else weight[int(indices)].copy()


def check_rows(name: str, array: Array, rows: int) -> None:
    """IndexError that names the first index outside the table."""
    if type(array) is not np.ndarray or not array.size:
        return
    if array.min() >= 0 and array.max() < rows:
        return
    place = np.argwhere((array < 0) | (array >= rows))[0]
    value = array[tuple(place)]
    where = "" if array.ndim == 0 else f" at position {[int(i) for i in place]}"
    raise IndexError(
        f"index out of range in self: {name}() received index {value}{where}, the table has "
        f"{rows} rows"
    )


def _check_indices(name: str, indices: Any) -> None:
    if not isinstance(indices, Tensor):
        raise argument_type(name, "indices", "Tensor", indices)
    if indices._dtype is not int64 and indices._dtype is not int32:
        raise RuntimeError(
            "Expected tensor for argument #1 'indices' to have one of the following scalar types: "
            f"Long, Int; but got {indices.type()} instead (while checking arguments for {name})"
        )


def _padding_row(padding_idx: int | None, rows: int) -> int:
    if padding_idx is None:
        return -1
    if not -rows <= padding_idx < rows:
        raise AssertionError("padding_idx must be within num_embeddings")
    return padding_idx % rows


def _renormalise(weight: Tensor, indices: Tensor, max_norm: float, norm_type: float) -> None:
    """Scale the rows in use down to `max_norm`, in place."""
    used = np.unique(np.asarray(indices._a))
    with no_grad():
        rows = weight[wrap(used)]
        size = rows.norm(norm_type, 1, keepdim=True)
        scale = (max_norm / (size + 1e-7)).masked_fill(size <= max_norm, 1.0)
        weight[wrap(used)] = rows * scale


_SPARSE = (
    "sparse gradients are not implemented: {}(sparse=True) would need sparse tensors; "
    "use sparse=False"
)


@op("F")
def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows `input` of the table `weight` (V, D): result (*, D).

    The row `padding_idx` gets no gradient. With `max_norm`, rows in use are scaled down in place.

    >>> import lampion as torch
    >>> table = torch.tensor([[1., 2.], [3., 4.]])
    >>> torch.nn.functional.embedding(torch.tensor([1]), table).tolist()
    [[3.0, 4.0]]
    """
    _check_indices("embedding", input)
    if not isinstance(weight, Tensor):
        raise argument_type("embedding", "weight", "Tensor", weight)
    shape = weight._a.shape
    if len(shape) != 2:
        raise RuntimeError(f"'weight' must be 2-D, received shape {list(shape)}")
    if sparse and weight.requires_grad:
        raise NotImplementedError(_SPARSE.format("embedding"))
    rows = shape[0]
    padding = _padding_row(padding_idx, rows)
    if max_norm is not None:
        check_rows("embedding", input._a, rows)
        _renormalise(weight, input, max_norm, norm_type)
    return _embedding(weight, input, padding, scale_grad_by_freq)


@op("torch", name="embedding")
def _torch_embedding(
    weight: Tensor,
    indices: Tensor,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """`torch.embedding`: the functional one with the table first."""
    padding = None if padding_idx < 0 else padding_idx
    return embedding(indices, weight, padding, None, 2.0, scale_grad_by_freq, sparse)


# -- bags


def _bag_ids(offsets: Any, count: int) -> Any:
    """The bag of every index."""
    return np.searchsorted(offsets, np.arange(count), side="right") - 1


@leaf(
    {"rows": lambda g, bags, rows_shape: g[bags]},
    shape=lambda rows, bags, count, *_: ((count, rows.shape[1]), rows.dtype),
)
def bag_sum(rows: Array, bags: Array, count: int) -> Any:
    """Sum of the rows of each bag."""
    out = np.zeros((count, rows.shape[1]), rows.dtype)
    _add_rows(out, bags, rows)
    return out


@leaf({"rows": lambda g, out1, rows_shape: _bag_scatter(g[0], out1, rows_shape[0])})
def bag_max(rows: Array, bags: Array, count: int) -> Any:
    """Maximum per bag and column, and the row it is in (-1 for an empty bag)."""
    out = np.full((count, rows.shape[1]), -np.inf, rows.dtype)
    np.maximum.at(out, bags, rows)
    which = np.full(out.shape, -1, np.int64)
    for i in range(len(rows) - 1, -1, -1):
        hit = rows[i] == out[bags[i]]
        which[bags[i]][hit] = i
    out[which[:, 0] < 0] = 0
    return out, which


def _bag_scatter(g: Tensor, which: Tensor, rows: int) -> Tensor:
    filled = which.clamp_min(0)
    return g.new_zeros((rows, g.shape[1])).scatter_add(0, filled, g.masked_fill(which < 0, 0))


def _offsets(input: Tensor, offsets: Tensor | None, include_last: bool) -> tuple[Tensor, Any]:
    """Indices as a vector, and the start of each bag."""
    if input.ndim == 2:
        if offsets is not None:
            raise ValueError(
                "if input is 2D, then offsets has to be None, as input is treated is a mini-batch "
                f"of fixed length sequences. However, found offsets of type {type(offsets)}"
            )
        starts = (
            np.arange(0, input.numel(), max(input.shape[1], 1))
            if input.shape[1]
            else (np.zeros(input.shape[0], np.int64))
        )
        return input.reshape(-1), starts
    if input.ndim != 1:
        raise ValueError(
            f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.ndim}"
        )
    if offsets is None:
        raise ValueError("offsets has to be a 1D Tensor but got None")
    if offsets.ndim != 1:
        raise ValueError("offsets has to be a 1D Tensor")
    starts = np.asarray(offsets._a)
    _check_offsets(starts, input.shape[0])
    return input, starts[:-1] if include_last else starts


def _check_offsets(starts: Any, count: int) -> None:
    if starts.size and starts[0] != 0:
        raise RuntimeError(
            f"offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from "
            f"position 0. However, got {starts[0]}"
        )
    if starts.size and starts[-1] > count:
        raise RuntimeError(
            f"offsets[-1] can not be greater than input's length({count}) but got offsets[-1] of "
            f"{starts[-1]}"
        )


@op("F")
def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sum, mean or max of the looked-up rows of each bag: (bags, D).

    Bags are the rows of a 2-D `input`, or start at `offsets` in a 1-D one.
    """
    if mode not in ("sum", "mean", "max"):
        raise ValueError("mode has to be one of sum or mean or max")
    _check_indices("embedding_bag", input)
    if per_sample_weights is not None:
        _check_sample_weights(per_sample_weights, input, mode)
    check_rows("embedding_bag", input._a, weight.shape[0])
    if max_norm is not None:
        _renormalise(weight, input, max_norm, norm_type)
    flat, starts = _offsets(input, offsets, include_last_offset)
    ids = _bag_ids(starts, flat.shape[0])
    if padding_idx is not None:
        padding_idx = _padding_row(padding_idx, weight.shape[0])
        kept = np.flatnonzero(np.asarray(flat._a) != padding_idx)
        flat, ids = flat[wrap(kept)], ids[kept]
        if per_sample_weights is not None:
            per_sample_weights = per_sample_weights.reshape(-1)[wrap(kept)]
    rows = embedding(flat, weight, None, None, 2.0, scale_grad_by_freq, sparse)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.reshape(-1, 1)
    return _pooled(rows, ids, len(starts), mode)


def _pooled(rows: Tensor, ids: Any, count: int, mode: str) -> Tensor:
    bags = wrap(ids.astype(np.int64))
    if mode == "max":
        return bag_max(rows, bags, count)[0]
    size = len(ids) // max(count, 1)
    if size and len(ids) == size * count and (ids == np.arange(count).repeat(size)).all():
        bagged = rows.reshape(count, size, -1)
        return bagged.sum(1) if mode == "sum" else bagged.mean(1)
    out: Tensor = bag_sum(rows, bags, count)
    if mode == "mean":
        sizes = np.maximum(np.bincount(ids, minlength=count), 1).astype(out._dtype.np)
        out = out / wrap(sizes).unsqueeze(1)
    return out


def _check_sample_weights(weights: Tensor, input: Tensor, mode: str) -> None:
    if weights.shape != input.shape:
        raise ValueError(
            f"embedding_bag: If per_sample_weights ({tuple(weights.shape)}) is not None, then it "
            f"must have the same shape as the input ({tuple(input.shape)})"
        )
    if mode != "sum":
        raise NotImplementedError(
            "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported "
            f"for mode='sum' (got mode='{mode}'). Please open a feature request on GitHub."
        )
