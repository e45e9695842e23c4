"""Joining and rearranging with a copy: cat, stack, repeat, roll, flip, triangles, diagonals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..tensor.dtype import promote_types
from ..tensor.formats import contiguous_format
from ..tensor.tensor import Tensor, wrap
from .errors import allocating, argument_type, wrap_dim, wrap_dims
from .families import Array, Arrays, broadcast_shape
from .promotion import cast
from .record import leaf, op, same_shape
from .view import _select, as_size, diagonal, slice_dim


def _sequence(tensors: Any, name: str) -> list[Tensor]:
    """The tensors to join, in one dtype."""
    if not isinstance(tensors, (tuple, list)) and not hasattr(tensors, "__iter__"):
        raise argument_type(name, "tensors", "tuple of Tensors", tensors)
    listed = list(tensors)
    if not listed:
        raise ValueError(f"{name}(): expected a non-empty list of Tensors")
    for i, t in enumerate(listed):
        if not isinstance(t, Tensor):
            raise TypeError(f"expected Tensor as element {i} in argument 0, but got "
                            f"{type(t).__name__}")
    d, same = listed[0]._dtype, True
    for t in listed:
        if t._dtype is not d:
            d, same = promote_types(d, t._dtype), False
    return listed if same else [t if t._dtype is d else cast(t, d) for t in listed]


def _cat_grad(g: Any, needs: Any, tensors_shape: Any, dim: int) -> Any:
    grads, start = [], 0
    for need, shape in zip(needs, tensors_shape, strict=True):
        n = shape[dim]
        grads.append(slice_dim(g, dim, start, start + n, 1) if need else None)
        start += n
    return grads


def _cat_shape(arrays: Any, dim: int) -> Any:
    shape = list(arrays[0].shape)
    shape[dim] = sum(a.shape[dim] for a in arrays)
    return tuple(shape), arrays[0].dtype


@leaf(_cat_grad, name="cat", shape=_cat_shape, exact=True)
def _cat(tensors: Arrays, dim: int) -> Array:
    return np.concatenate(tensors, dim)


@op("torch", out=True, aliases="concat concatenate")
def cat(tensors: Any, dim: int = 0, *, axis: int | None = None) -> Tensor:
    """The tensors one after the other along `dim`.

    >>> import lampion as torch
    >>> torch.cat([torch.zeros(1, 2), torch.ones(1, 2)])
    tensor([[0., 0.],
            [1., 1.]])
    """
    parts = _sequence(tensors, "cat")
    # Empty 1-D tensors join with anything, as in PyTorch.
    kept = [t for t in parts if t._a.shape != (0,)] or parts[:1]
    n = kept[0]._a.ndim
    if n == 0:
        raise RuntimeError("zero-dimensional tensor (at position 0) cannot be concatenated; use "
                           "stack()")
    d = wrap_dim(dim if axis is None else axis, n, "cat")
    first = kept[0]._a.shape
    for i, t in enumerate(kept):
        shape = t._a.shape
        if shape != first:
            _check_joined(first, shape, i, d)
    return _cat(kept, d)


def _check_joined(first: tuple[int, ...], shape: tuple[int, ...], i: int, d: int) -> None:
    """RuntimeError unless the shapes of tensors 0 and `i` differ at `d` alone."""
    if len(shape) != len(first):
        raise RuntimeError(f"Tensors must have same number of dimensions: got {len(first)} and "
                           f"{len(shape)} (tensor {i} has shape {list(shape)})")
    for k, n in enumerate(shape):
        if k != d and n != first[k]:
            raise RuntimeError(
                f"cat(): Sizes of tensors must match except in dimension {d}. Expected size "
                f"{first[k]} but got size {n} for tensor number {i} in the list: "
                f"shapes {list(first)} and {list(shape)}")


def _stack_grad(g: Any, needs: Any, dim: int) -> Any:
    return [_select(g, dim, i) if need else None for i, need in enumerate(needs)]


def _stack_shape(arrays: Any, dim: int) -> Any:
    shape = arrays[0].shape
    return (*shape[:dim], len(arrays), *shape[dim:]), arrays[0].dtype


@leaf(_stack_grad, name="stack", shape=_stack_shape, exact=True)
def _stack(tensors: Arrays, dim: int) -> Array:
    return np.stack(tensors, dim)


@op("torch", out=True)
def stack(tensors: Any, dim: int = 0, *, axis: int | None = None) -> Tensor:
    """The tensors, all of one shape, along a new dimension."""
    parts = _sequence(tensors, "stack")
    shape = parts[0]._a.shape
    for i, t in enumerate(parts):
        if t._a.shape != shape:
            raise RuntimeError(f"stack expects each tensor to be equal size, but got {list(shape)} "
                               f"at entry 0 and {list(t._a.shape)} at entry {i}")
    return _stack(parts, wrap_dim(dim if axis is None else axis, len(shape) + 1, "stack"))


Tensor._cat = staticmethod(_cat)  # type: ignore[attr-defined]
Tensor._stack = staticmethod(stack)  # type: ignore[attr-defined]


def _at_least(t: Tensor, n: int) -> Tensor:
    shape = t._a.shape
    if len(shape) >= n:
        return t
    forms = {(0, 1): (1,), (0, 2): (1, 1), (1, 2): (1, *shape), (0, 3): (1, 1, 1),
             (1, 3): (1, *shape, 1), (2, 3): (*shape, 1)}
    return t.reshape(forms[len(shape), n])


def _at_least_form(n: int) -> None:
    def call(*tensors: Any) -> Any:
        if len(tensors) == 1 and not isinstance(tensors[0], Tensor):
            return tuple(_at_least(t, n) for t in tensors[0])
        found = tuple(_at_least(t, n) for t in tensors)
        return found[0] if len(found) == 1 else found
    call.__name__, call.__doc__ = f"atleast_{n}d", f"Tensors with at least {n} dimensions."
    op("torch")(call)


for _n in (1, 2, 3):
    _at_least_form(_n)


@op("torch", out=True, aliases="row_stack")
def vstack(tensors: Any) -> Tensor:
    """Stacked row by row."""
    return cat([_at_least(t, 2) for t in _filled("vstack", tensors)], 0)


def _filled(name: str, tensors: Any) -> Any:
    """The tensors, of which there must be one."""
    listed = list(tensors)
    if not listed:
        raise RuntimeError(f"{name} expects a non-empty TensorList")
    return listed


@op("torch", out=True)
def hstack(tensors: Any) -> Tensor:
    """Stacked column by column (1-D tensors: end to end)."""
    parts = [_at_least(t, 1) for t in _filled("hstack", tensors)]
    return cat(parts, 0 if parts[0]._a.ndim == 1 else 1)


@op("torch", out=True)
def dstack(tensors: Any) -> Tensor:
    """Stacked along the third dimension."""
    return cat([_at_least(t, 3) for t in _filled("dstack", tensors)], 2)


@op("torch", out=True)
def column_stack(tensors: Any) -> Tensor:
    """1-D tensors as the columns of a matrix."""
    return cat([t.reshape(-1, 1) if t._a.ndim < 2 else t for t in tensors], 1)


@op("torch")
def block_diag(*tensors: Any) -> Tensor:
    """A matrix with the given matrices along its diagonal."""
    parts = [_at_least(t, 2) for t in tensors]
    width = sum(t._a.shape[1] for t in parts)
    rows, left = [], 0
    for t in parts:
        n, m = t._a.shape
        rows.append(cat([t.new_zeros((n, left)), t, t.new_zeros((n, width - left - m))], 1))
        left += m
    return cat(rows, 0)


@op("torch")
def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """All tensors expanded to their common shape."""
    listed = tensors[0] if len(tensors) == 1 and not isinstance(tensors[0], Tensor) else tensors
    shape = broadcast_shape("broadcast_tensors", *(t._a.shape for t in listed))
    return tuple(t.expand(shape) for t in listed)


@op("torch")
def broadcast_shapes(*shapes: Any) -> Any:
    """The common shape of several shapes."""
    from ..tensor.size import Size

    return Size(broadcast_shape("broadcast_shapes", *(
        (s,) if isinstance(s, int) else tuple(s) for s in shapes)))


@op("torch")
def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """Coordinate grids of 1-D tensors; `indexing` "ij" (default) or "xy"."""
    listed = tensors[0] if len(tensors) == 1 and not isinstance(tensors[0], Tensor) else tensors
    if indexing not in (None, "ij", "xy"):
        raise RuntimeError(f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: '
                           f'{indexing}')
    parts = [t.reshape(-1) for t in listed]
    swap = indexing == "xy" and len(parts) > 1
    if swap:
        parts[0], parts[1] = parts[1], parts[0]
    shape = tuple(p._a.size for p in parts)
    grids = [p.reshape((1,) * i + (n,) + (1,) * (len(shape) - i - 1)).expand(shape)
             for i, (p, n) in enumerate(zip(parts, shape, strict=True))]
    if swap:
        grids[0], grids[1] = grids[1], grids[0]
    return tuple(grids)


@op("torch")
@allocating
def cartesian_prod(*tensors: Any) -> Tensor:
    """Every combination of elements of 1-D tensors, one per row."""
    if len(tensors) == 1:
        return tensors[0]
    return stack([g.reshape(-1) for g in meshgrid(*tensors)], 1)


@op()
@allocating
def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All choices of `r` elements of a 1-D tensor, one per row."""
    import itertools

    pick = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    n = input._a.shape[0]
    count = math.comb(n + r - 1 if with_replacement else n, r) if n else 0
    if count >= 2 ** 31:
        raise MemoryError(f"{count} rows")
    rows = list(pick(range(n), r))
    index = wrap(np.array(rows, np.int64).reshape(len(rows), r))
    return input[index] if r else input.new_empty(0)


# --- repeated -------------------------------------------------------------------------------------


def _repeat_grad(g: Any, input_shape: Any, repeats: Any) -> Any:
    lead = len(repeats) - len(input_shape)
    shape = (1,) * lead + tuple(input_shape)
    split = [n for pair in zip(repeats, shape, strict=True) for n in pair]
    return g.reshape(split).sum(tuple(range(0, 2 * len(repeats), 2))).reshape(input_shape)


@leaf({"input": _repeat_grad}, name="repeat", exact=True, shape=lambda a, r: (tuple(
    n * m for n, m in zip(r, (1,) * (len(r) - a.ndim) + a.shape, strict=True)), a.dtype))
def _repeat(input: Array, repeats: Any) -> Array:
    return np.tile(input, repeats)


@op("Tensor")
def repeat(self: Tensor, *repeats: Any) -> Tensor:
    """Copies of the tensor, `repeats[d]` times along each dimension."""
    counts = as_size(repeats, "repeat")
    if len(counts) < self._a.ndim:
        raise RuntimeError("Number of dimensions of repeat dims can not be smaller than number of "
                           f"dimensions of tensor: received {list(counts)} for shape "
                           f"{list(self._a.shape)}")
    if any(n < 0 for n in counts):
        raise RuntimeError(f"Trying to create tensor with negative dimension: repeats "
                           f"{list(counts)}")
    return _repeat(self, counts)


@op("torch")
def tile(input: Tensor, dims: Any) -> Tensor:
    """Copies of the tensor, missing leading counts taken as 1."""
    counts = as_size((tuple(dims),) if not isinstance(dims, int) else (dims,))
    return repeat(input, (1,) * (input._a.ndim - len(counts)) + counts)


@op("Tensor", name="tile")
def tile_method(self: Tensor, *dims: Any) -> Tensor:
    """Copies of the tensor, missing leading counts taken as 1."""
    return tile(self, as_size(dims))


@op()
@allocating
def repeat_interleave(input: Tensor, repeats: Any = None, dim: int | None = None, *,
                      output_size: int | None = None) -> Tensor:
    """Each element (or each index along `dim`) repeated in place."""
    if repeats is None:
        counts = input.tolist()
        return wrap(np.repeat(np.arange(len(counts)), counts))
    if dim is None:
        input, dim = input.reshape(-1), 0
    d = wrap_dim(dim, input._a.ndim, "repeat_interleave")
    if isinstance(repeats, int) and repeats >= 0:
        shape = input._a.shape
        wide = input.unsqueeze(d + 1).expand(*shape[:d + 1], repeats, *shape[d + 1:])
        whole = wide.clone(memory_format=contiguous_format)
        return whole.view(*shape[:d], shape[d] * repeats, *shape[d + 1:])
    counts_array = np.asarray(repeats._a if isinstance(repeats, Tensor) else repeats)
    if counts_array.size and counts_array.min() < 0:
        raise RuntimeError("repeats can not be negative")
    n = input._a.shape[d]
    if counts_array.ndim and counts_array.size not in (1, n):
        raise RuntimeError("repeats must have the same size as input along dim, but got "
                           f"repeats.size(0) = {counts_array.size} and input.size({d}) = {n}")
    index = np.repeat(np.arange(n), counts_array if counts_array.size != 1 else int(
        counts_array.reshape(())))
    return input.index_select(d, wrap(index))


@leaf({"input": lambda g, dims: _flip(g, dims)}, name="flip", shape=same_shape, exact=True)
def _flip(input: Array, dims: Any) -> Array:
    return np.flip(input, dims).copy()


@op("torch")
def flip(input: Tensor, dims: Any) -> Tensor:
    """A copy with the order along `dims` reversed."""
    return _flip(input, wrap_dims(dims, input._a.ndim, "flip"))


@op("Tensor", name="flip")
def flip_method(self: Tensor, *order: Any, dims: Any = None) -> Tensor:
    """A copy with the order along `dims` reversed."""
    return flip(self, as_size(order) if dims is None else dims)


@op()
def fliplr(input: Tensor) -> Tensor:
    """Columns in reverse order."""
    if input._a.ndim < 2:
        raise RuntimeError("Input must be >= 2-d.")
    return flip(input, (1,))


@op()
def flipud(input: Tensor) -> Tensor:
    """Rows in reverse order."""
    if input._a.ndim < 1:
        raise RuntimeError("Input must be >= 1-d.")
    return flip(input, (0,))


@op()
def rot90(input: Tensor, k: int = 1, dims: Any = (0, 1)) -> Tensor:
    """Rotated by `k` quarter turns in the plane of two dimensions."""
    n = input._a.ndim
    if len(dims) != 2:
        raise RuntimeError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
    if n < 2:
        raise RuntimeError(f"expected total dims >= 2, but got total dims = {n}")
    a, b = (wrap_dim(d, n, "rot90") for d in dims)
    if a == b:
        raise RuntimeError("expected rotation dims to be different, but got dim0 = "
                           f"{dims[0]} and dim1 = {dims[1]}")
    turns = k % 4
    if turns == 0:
        return input.clone()
    if turns == 2:
        return flip(input, (a, b))
    return flip(input, b).transpose(a, b) if turns == 1 else flip(
        input, a).transpose(a, b)


@leaf({"input": lambda g, shifts, dims: _roll(g, tuple(-s for s in shifts), dims)}, name="roll",
      shape=same_shape, exact=True)
def _roll(input: Array, shifts: Any, dims: Any) -> Array:
    return np.roll(input, shifts, dims)


@op()
def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """Elements shifted along `dims`, those pushed out coming back in at the other end."""
    moves = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    if dims is None or dims == ():
        return roll(input.reshape(-1), moves, 0).reshape(input._a.shape)
    places = (dims,) if isinstance(dims, int) else tuple(dims)
    if len(moves) != len(places):
        raise RuntimeError(f"shifts and dimensions must align. shifts: {len(moves)}, dims:"
                           f"{len(places)}")
    return _roll(input, moves, tuple(wrap_dim(d, input._a.ndim, "roll") for d in places))


# --- triangles and diagonals ----------------------------------------------------------------------


def _triangle(name: str, keep: Any) -> Any:
    def kernel(input: Array, diagonal: int) -> Array:
        rows, columns = input.shape[-2:]
        mask = np.tri(rows, columns, diagonal if keep else diagonal - 1, dtype=bool)
        return np.where(mask if keep else ~mask, input, np.zeros((), input.dtype))
    kernel.__name__ = name
    tri_leaf = leaf({"input": lambda g, diagonal: triangle(g, diagonal)}, shape=same_shape,
                    exact=True)(kernel)

    def triangle(input: Tensor, diagonal: int = 0) -> Tensor:
        if input._a.ndim < 2:
            raise RuntimeError(f"{name}: input tensor must have at least 2 dimensions, received "
                               f"shape {list(input._a.shape)}")
        return tri_leaf(input, int(diagonal))
    triangle.__name__ = triangle.__qualname__ = name
    side = "lower" if keep else "upper"
    triangle.__doc__ = f"The {side} triangle of the last two dimensions, zeros elsewhere."
    return op(inplace=True, out=True)(triangle)


tril = _triangle("tril", True)
triu = _triangle("triu", False)


def _indices(name: str, find: Any) -> None:
    def call(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None,
             layout: Any = None) -> Tensor:
        t = wrap(np.stack(find(row, offset, col)).astype(np.int64))
        return t if dtype is None else t.to(dtype)
    call.__name__, call.__doc__ = name, "Row and column numbers of a triangle, as two rows."
    op("torch")(allocating(call))


_indices("tril_indices", np.tril_indices)
_indices("triu_indices", np.triu_indices)


@leaf({"input": lambda g, offset, dim1, dim2: diagonal(g, offset, dim1, dim2)},
      name="diag_embed", exact=True)
def _diag_embed(input: Array, offset: int, dim1: int, dim2: int) -> Array:
    n = input.shape[-1] + abs(offset)
    shape = list(input.shape[:-1])
    for d in (dim1, dim2):
        shape.insert(d, n)
    full = np.zeros(shape, input.dtype)
    rows = np.arange(input.shape[-1])
    window = np.moveaxis(full, (dim1, dim2), (-2, -1))
    window[..., rows + max(-offset, 0), rows + max(offset, 0)] = input
    return full


@op()
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the last dimension on their diagonal."""
    n = input._a.ndim + 1
    d1, d2 = wrap_dim(dim1, n, "diag_embed"), wrap_dim(dim2, n, "diag_embed")
    if d1 == d2:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    if d1 > d2:
        d1, d2, offset = d2, d1, -offset
    return _diag_embed(input, offset, d1, d2)


@op(out=True)
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix as a copy, or the matrix with a vector on its diagonal."""
    if input._a.ndim == 1:
        return diag_embed(input, diagonal)
    if input._a.ndim != 2:
        raise RuntimeError("diag(): Supports 1D or 2D tensors. Got "
                           f"{input._a.ndim}D")
    return _diagonal_copy(input, diagonal)


def _diagonal_copy(input: Tensor, offset: int) -> Tensor:
    return diagonal(input, offset).clone()


@op()
def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """All elements on the diagonal of a square matrix."""
    return diag_embed(input.reshape(-1), offset)


def _window_scatter(input: Tensor, src: Tensor, window: Any) -> Tensor:
    out = input.clone()
    window(out).copy_(src)
    return out


@op()
def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy of `input` with `src` at `index` of `dim`."""
    return _window_scatter(input, src, lambda t: t.select(dim, index))


@op(out=True)
def slice_scatter(input: Tensor, src: Tensor, dim: int = 0, start: Any = None, end: Any = None,
                  step: int = 1) -> Tensor:
    """A copy of `input` with `src` in a slice of `dim`."""
    d = wrap_dim(dim, input._a.ndim, "slice_scatter")
    return _window_scatter(input, src, lambda t: slice_dim(t, d, start, end, step))


@op()
def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0,
                     dim2: int = 1) -> Tensor:
    """A copy of `input` with `src` on a diagonal."""
    return _window_scatter(input, src, lambda t: t.diagonal(offset, dim1, dim2))


@op()
def as_strided_scatter(input: Tensor, src: Tensor, size: Any, stride: Any,
                       storage_offset: int | None = None) -> Tensor:
    """A copy of `input` with `src` in a strided window."""
    return _window_scatter(input, src, lambda t: t.as_strided(size, stride, storage_offset))


