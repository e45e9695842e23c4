"""Indexing: `x[...]` in all forms, gather, scatter, index_*, masked_*, take, nonzero."""

from __future__ import annotations

import math
import operator
from functools import lru_cache
from typing import Any

import numpy as np

from ..autograd.modes import state
from ..tensor.dtype import BOOL, bool_, int32, int64, uint8
from ..tensor.tensor import Tensor, has_no_past, share, wrap
from .errors import argument_type, wrap_dim
from .families import Array, OptArray, broadcast_shape
from .forms import bump, check_memory, check_overlap, check_writable, write
from .layout import in_rows
from .promotion import as_scalar, cast
from .record import data_dependent, leaf, not_differentiable, op, publish, same_shape
from .reference.along import KEPT, places
from .view import _select, _unsqueeze, alias, slice_dim

__all__ = ["getitem", "setitem"]

_ndarray = np.ndarray

# --- basic and advanced indexing ------------------------------------------------------------------


def getitem(self: Tensor, index: Any) -> Tensor:
    """`x[index]`: views for numbers, slices, None and Ellipsis; copies for tensors and masks."""
    if has_no_past(self):
        a = self._a
        if index.__class__ is int:
            if a.ndim and -a.shape[0] <= index < a.shape[0]:
                return share(self, a[index, ...])
        elif _is_basic(index):
            try:
                found = a[index]
                return share(self, found if found.__class__ is _ndarray else a[(*index, ...)])
            except IndexError:
                pass  # which says more below
    viewed, advanced = _basic(self, index)
    if advanced is None:
        return viewed if viewed is not self else alias(self)
    return _index_op(viewed, advanced)


def _is_basic(index: Any) -> bool:
    """Whether NumPy's view is PyTorch's: numbers, slices forwards, None and Ellipsis."""
    for part in index if index.__class__ is tuple else (index,):
        if part.__class__ is slice:
            step = part.step
            if (step is not None and (step.__class__ is not int or step < 1)) or (
                    part.start.__class__ not in _BOUNDS or part.stop.__class__ not in _BOUNDS):
                return False
        elif part.__class__ is not int and part is not None and part is not Ellipsis:
            return False
    return index is not Ellipsis and index != ()


_BOUNDS = (int, type(None))


def _as_index(part: Any) -> Any:
    """One part of an index in a normal form: int, slice, None, Ellipsis or an index tensor."""
    if part is None or part is Ellipsis or isinstance(part, (slice, Tensor)) or (
            part.__class__ is int):
        return part
    if part is True or part is False or isinstance(part, np.bool_):
        return wrap(np.array(bool(part)))
    if isinstance(part, np.integer):
        return int(part)
    if isinstance(part, (list, tuple, np.ndarray, range)):
        values = [x.tolist() if isinstance(x, Tensor) else x for x in part] if not isinstance(
            part, np.ndarray) else part
        array = np.asarray(values)
        if array.dtype.kind in "US":
            raise TypeError("new(): invalid data type 'str'")
        if array.size == 0 and not isinstance(part, np.ndarray):
            array = array.astype(np.int64)
        if array.dtype.kind not in "iub":
            raise IndexError(f"tensors used as indices must be long, int, byte or bool tensors, "
                             f"received a sequence of {array.dtype}")
        return wrap(array)
    if hasattr(part, "__index__"):
        return int(part.__index__())
    if isinstance(part, str):
        raise TypeError("new(): invalid data type 'str': a tensor is not indexed by names")
    raise IndexError(f"only integers, slices (`:`), ellipsis (`...`), None and long or byte "
                     f"Variables are valid indices (got {type(part).__name__})")


def _is_old_tuple(index: Any) -> bool:
    """A list that PyTorch reads as a tuple: one that holds sequences, slices or tensors."""
    return isinstance(index, list) and len(index) < 32 and any(
        x is None or x is Ellipsis or isinstance(x, (list, tuple, slice, Tensor)) for x in index)


def _parts(index: Any) -> list[Any]:
    if isinstance(index, tuple) or _is_old_tuple(index):
        return [_as_index(p) for p in index]
    return [_as_index(index)]


def _consumed(part: Any) -> int:
    """How many dimensions a part of an index uses up."""
    if part is None or part is Ellipsis:
        return 0
    if isinstance(part, Tensor) and part._dtype in (bool_, uint8):
        return int(part._a.ndim)
    return 1


def _basic(t: Tensor, index: Any) -> tuple[Tensor, list[Any] | None]:
    """Applies the view parts; returns the index tensors that remain, per dimension, or None."""
    parts = _parts(index)
    if sum(p is Ellipsis for p in parts) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    used = sum(map(_consumed, parts))
    if used > t._a.ndim:
        raise IndexError(f"too many indices for tensor of dimension {t._a.ndim}: received {used} "
                         f"for shape {list(t._a.shape)}")
    dim, dropped, out, advanced = 0, 0, t, []
    for part in parts:
        if part is Ellipsis:
            skip = t._a.ndim - used
            dim += skip
            advanced += [None] * skip
        elif part is None:
            out = _unsqueeze(out, dim)
            dim += 1
            advanced.append(None)
        elif isinstance(part, Tensor):
            if part._a.ndim == 0 and part._dtype.kind == 1 and type(part._a) is _ndarray:
                out = _at(out, dim, int(part._a), dim + dropped, t)
                dropped += 1
                continue
            out, found = _index_tensor(out, dim, part)
            advanced += found
            dim += len(found)
        elif isinstance(part, slice):
            if part != slice(None):
                out = slice_dim(out, dim, *_slice_numbers(part))
            dim += 1
            advanced.append(None)
        else:
            out = _at(out, dim, part, dim + dropped, t)
            dropped += 1
    if not any(a is not None for a in advanced):
        return out, None
    return out, advanced


def _slice_numbers(s: slice) -> tuple[Any, Any, Any]:
    def number(x: Any) -> Any:
        return x if x is None else operator.index(x)
    try:
        return number(s.start), number(s.stop), number(s.step)
    except TypeError:
        raise TypeError("slice indices must be integers or None or have an __index__ method: "
                        f"received {s}") from None


def _at(t: Tensor, dim: int, i: int, given: int, whole: Tensor) -> Tensor:
    """Index `i` of `dim`, which is dimension `given` of the user's tensor `whole`."""
    shape = t._a.shape
    if dim >= len(shape):
        raise IndexError("invalid index of a 0-dim tensor. Use `tensor.item()` in Python to "
                         "convert a 0-dim tensor to a number")
    n = shape[dim]
    if not -n <= i < n:
        raise IndexError(f"index {i} is out of bounds for dimension {given} with size {n}: "
                         f"indexing a tensor of shape {list(whole._a.shape)}")
    return _select(t, dim, i)


def _index_tensor(t: Tensor, dim: int, part: Tensor) -> tuple[Tensor, list[Any]]:
    """An index tensor, or a mask turned into one index tensor per dimension it covers."""
    if part._dtype.kind == BOOL or part._dtype is uint8:
        return _mask_indices(t, dim, part)
    if part._dtype.kind != 1:
        raise IndexError("tensors used as indices must be long, int, byte or bool tensors, "
                         f"received {part._dtype}")
    return t, [part]


def _mask_indices(t: Tensor, dim: int, mask: Tensor) -> tuple[Tensor, list[Any]]:
    m = mask._a
    if m.ndim == 0:
        return _unsqueeze(t, dim), [wrap(np.zeros(int(bool(m)), np.int64))]
    for d in range(m.ndim):
        if m.shape[d] != t._a.shape[dim + d]:
            raise IndexError(
                f"The shape of the mask {list(m.shape)} at index {d} does not match the shape of "
                f"the indexed tensor {list(t._a.shape)} at index {dim + d}")
    return t, list(mask.nonzero(as_tuple=True))


def _bounded(index: np.ndarray[Any, Any], n: int, dim: int) -> None:
    """IndexError that names the first index outside dimension `dim`, and where it stands."""
    if index.size == 0:
        return
    low, high = index.min(), index.max()
    if low < -n or high >= n:
        wrong = (index < -n) | (index >= n)
        place = np.unravel_index(int(np.argmax(wrong)), index.shape)
        raise IndexError(
            f"index {int(index[place])} is out of bounds for dimension {dim} with size {n}: found "
            f"at position {[int(p) for p in place]} of an index of shape {list(index.shape)}")


def _index_key(shape: Any, indices: Any) -> tuple[Any, ...]:
    """NumPy's form of a list of index tensors, checked."""
    key = []
    for dim, index in enumerate(indices):
        if index is None:
            key.append(slice(None))
            continue
        _bounded(index, shape[dim], dim)
        key.append(index)
    return tuple(key)


def _plain_key(indices: Any) -> tuple[Any, ...]:
    """`_index_key` unchecked: NumPy finds bad indices as well, `_index_key` tells of them."""
    return tuple([_ALL if i is None else i._a for i in indices])


_ALL = slice(None)


def _pack(t: Tensor, advanced: list[Any]) -> tuple[Tensor, ...]:
    given = [a for a in advanced if a is not None]
    try:
        if len(given) > 1:
            np.broadcast_shapes(*(a._a.shape for a in given))
    except ValueError:
        raise IndexError("shape mismatch: indexing tensors could not be broadcast together with "
                         f"shapes {', '.join(str(list(a._a.shape)) for a in given)}") from None
    return tuple(advanced)


def _index_grad(g: Any, needs: Any, input_shape: Any, indices: Any) -> Any:
    return (_index_backward(g, input_shape, indices),)


def _unwrap(indices: Any) -> list[Any]:
    return [None if i is None else i._a for i in indices]


def _index_shape(a: Any, indices: Any) -> Any:
    stand_in = np.broadcast_to(np.zeros((), np.bool_), a.shape)
    key = tuple(slice(None) if i is None else np.broadcast_to(
        np.zeros((), np.int64), i.shape) for i in _unwrap(indices))
    if 0 in a.shape:
        stand_in = np.broadcast_to(np.zeros((), np.bool_), [max(n, 1) for n in a.shape])
    return stand_in[key].shape, a.dtype


@leaf(_index_grad, name="index", shape=_index_shape, exact=True)
def _index(input: Array, indices: Any) -> Array:
    try:
        out = input[_plain_key(indices)]
    except IndexError:
        out = None
    if out is None or not out.size:
        out = input[_index_key(input.shape, _unwrap(indices))]
    return in_rows(out)


@leaf({"grad": lambda g, indices: _index(g, indices)}, name="index_backward", exact=True,
      shape=lambda grad, shape, indices: (shape, grad.dtype))
def _index_backward(grad: Array, shape: Any, indices: Any) -> Array:
    """Zeros of a shape, with `grad` added at the places of index tensors."""
    out = np.zeros(shape, grad.dtype)
    _add_at(out, _index_key(shape, _unwrap(indices)), grad)
    return out


def _index_op(t: Tensor, advanced: list[Any]) -> Tensor:
    return _index(t, _pack(t, advanced))


def _index_put_values_grad(g: Any, indices: Any, values_shape: Any) -> Any:
    return _index(g, indices).sum_to_size(values_shape)


@leaf({"input": lambda g, indices, values_shape, accumulate: g if accumulate else index_put(
    g, indices, g.new_zeros(())), "values": _index_put_values_grad},
    name="index_put", shape=same_shape, exact=True)
def _index_put(input: Array, values: Array, indices: Any, accumulate: bool) -> Array:
    out = input.copy("K")
    if not accumulate:
        out[_index_key(out.shape, _unwrap(indices))] = values
        return out
    try:
        _add_at(out, _plain_key(indices), values)
    except IndexError:
        _index_key(out.shape, _unwrap(indices))
        raise
    return out


def _add_at(out: np.ndarray[Any, Any], key: Any, values: Any) -> None:
    """`out[key] += values`, repeated places adding up, in a fixed order."""
    if out.dtype.num > 255 or out.dtype == np.float16:
        wide = out.astype(np.float32)
        _add_at(wide, key, np.asarray(values, np.float32))
        out[...] = wide.astype(out.dtype)
    elif not out.flags.c_contiguous:
        np.add.at(out, key, values)
    else:  # along one axis NumPy is several times quicker
        places = key[0] if out.ndim == 1 else _numbered(out.shape)[key]
        added = np.asarray(values, out.dtype)
        if added.shape != places.shape:
            added = np.broadcast_to(added, places.shape)
        np.add.at(out.reshape(-1), places.reshape(-1), added.reshape(-1))


def _numbered(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The place of each element in an array of rows, to be read."""
    return (_kept_numbers if math.prod(shape) <= KEPT else _numbers)(shape)


def _numbers(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.arange(math.prod(shape)).reshape(shape)


_kept_numbers = lru_cache(64)(_numbers)


def _put_indices(indices: Any, input: Tensor) -> tuple[Any, ...]:
    found: list[Any] = []
    for part in indices:
        if part is None:
            found.append(None)
        else:
            found += _index_tensor(input, len(found), _as_index(part))[1]
    return tuple(found)


@op(inplace=True)
def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with `values` written (or added) at the places of the index tensors."""
    if values._dtype is not input._dtype:
        raise RuntimeError(f"Index put requires the source and destination dtypes match, got "
                           f"{input._dtype.name} for the destination and {values._dtype.name} for "
                           "the source.")
    return _index_put(input, values, _put_indices(indices, input), accumulate)


def setitem(self: Tensor, index: Any, value: Any) -> None:
    """`x[index] = value`."""
    check_writable(self, "__setitem__")
    if not isinstance(value, Tensor):
        value = Tensor._scalar(value, self._dtype) if isinstance(
            value, (bool, int, float, complex)) else _value_tensor(value, self)
    if type(self._a) is not _ndarray and _is_fill(self, index, value):
        shape = (*index._a.shape, *(1,) * (self._a.ndim - index._a.ndim))
        self.masked_fill_(index.reshape(shape), value.reshape(()))
        return
    viewed, advanced = _basic(self, index)
    if advanced is None:
        _write_view(self, viewed, value)
        return
    indices = _pack(viewed, advanced)
    value = cast(value, self._dtype)
    if type(viewed._a) is _ndarray and not (state.grad and (viewed._rg or value._rg)):
        _put_now(viewed, indices, value)
        bump(self, "__setitem__")
    else:
        write(viewed, _index_put(viewed, _fit(viewed, indices, value), indices, False),
              "__setitem__")


def _is_fill(t: Tensor, index: Any, value: Tensor) -> bool:
    """Whether one value goes where a mask says, which needs no look at the mask's elements."""
    return (isinstance(index, Tensor) and index._dtype.kind == BOOL and index._a.ndim > 0
            and value._a.size == 1 and t._a.shape[:index._a.ndim] == index._a.shape)


def _value_tensor(value: Any, self: Tensor) -> Tensor:
    from .creation import array_of

    return wrap(array_of(value, self._dtype), self._dtype)


def _write_view(self: Tensor, viewed: Tensor, value: Tensor) -> None:
    lead = value._a.ndim - viewed._a.ndim
    if lead > 0 and value._a.shape[:lead] == (1,) * lead:
        value = value.reshape(value._a.shape[lead:])
    target = alias(self) if viewed is self else viewed
    target.copy_(value)


def _put_now(viewed: Tensor, indices: Any, value: Tensor) -> None:
    a = viewed._a
    check_overlap(viewed, "__setitem__")
    check_memory(a)
    key = _index_key(a.shape, _unwrap(indices))
    try:
        a[key] = value._a
    except ValueError:
        raise _put_mismatch(a, key, value) from None


def _put_mismatch(a: Any, key: Any, value: Tensor) -> RuntimeError:
    return RuntimeError(f"shape mismatch: value tensor of shape {list(value._a.shape)} cannot be "
                        f"broadcast to indexing result of shape {list(a[key].shape)}")


def _fit(viewed: Tensor, indices: Any, value: Tensor) -> Tensor:
    shape = _index_shape(viewed._a, indices)[0]
    try:
        if np.broadcast_shapes(shape, value._a.shape) != shape:
            raise ValueError
    except ValueError:
        raise RuntimeError(f"shape mismatch: value tensor of shape {list(value._a.shape)} cannot be"
                           f" broadcast to indexing result of shape {list(shape)}") from None
    return value


publish("Tensor", "__getitem__", getitem)
publish("Tensor", "__setitem__", setitem)

# --- places ---------------------------------------------------------------------------------------


@leaf(not_differentiable("the result is an index"), name="nonzero", exact=True,
      shape=data_dependent)
def _nonzero(input: Array) -> Array:
    if input.ndim == 0:
        return np.zeros((int(bool(input)), 0), np.int64)
    return np.stack(np.nonzero(input), 1).astype(np.int64, copy=False)


@op(out=True)
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The places of nonzero elements: one row each, or (as_tuple) one tensor per dimension."""
    if not as_tuple:
        return _nonzero(input)
    x = input.unsqueeze(0) if input._a.ndim == 0 else input
    return _nonzero(x).unbind(1)


@op()
def argwhere(input: Tensor) -> Tensor:
    """The places of nonzero elements, one row each."""
    return _nonzero(input)


# --- along one dimension --------------------------------------------------------------------------


def _check_index_dtype(name: str, index: Any) -> None:
    if not isinstance(index, Tensor):
        raise argument_type(name, "index", "Tensor", index)
    if index._dtype not in (int64, int32):
        raise RuntimeError(f"{name}(): Expected dtype int32/int64 for index, received "
                           f"{index._dtype}; convert it with .long()")


def _index_select_grad(g: Any, input_shape: Any, dim: int, index: Any) -> Any:
    return _index_select_backward(g, input_shape, dim, index)


@leaf({"grad": lambda g, dim, index: _index_select(g, dim, index)}, name="index_select_backward",
      shape=lambda grad, shape, dim, index: (shape, grad.dtype), exact=True)
def _index_select_backward(grad: Array, shape: Any, dim: int, index: Any) -> Array:
    """Zeros of a shape, with slices of `grad` added at the listed indices of `dim`."""
    _bounded_positive(index._a, shape[dim], dim, "index_select")
    out = np.zeros(shape, grad.dtype)
    _add_at(out, (*[_ALL] * dim, index._a), grad)
    return out


def _taken_shape(a: Any, dim: int, index: Any) -> Any:
    return (*a.shape[:dim], index._a.size, *a.shape[dim + 1:]), a.dtype


@leaf({"input": _index_select_grad}, name="index_select", shape=_taken_shape, exact=True)
def _index_select(input: Array, dim: int, index: Any) -> Array:
    _bounded_positive(index._a, input.shape[dim], dim, "index_select")
    return np.take(input, index._a, dim)


_I64, _U64 = np.dtype(np.int64), np.dtype(np.uint64)  # where negative numbers are the largest


def _bounded_positive(index: Any, n: int, dim: int, name: str) -> None:
    if not index.size or (index.dtype == _I64 and index.view(_U64).max() < n):
        return
    if index.min() < 0 or index.max() >= n:
        wrong = (index < 0) | (index >= n)
        place = np.unravel_index(int(np.argmax(wrong)), index.shape)
        found, at = int(index[place]), [int(p) for p in place]
        if name.startswith(("gather", "scatter")):
            raise RuntimeError(f"index {found} is out of bounds for dimension {dim} with size {n}: "
                               f"{name}() found it at position {at}")
        raise IndexError(f"index out of range in self: {name}() found index {found} at position "
                         f"{at}; dimension {dim} has size {n}")


@op(out=True)
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """A copy of the listed indices of dimension `dim`."""
    d = wrap_dim(dim, input._a.ndim, "index_select")
    _check_index_dtype("index_select", index)
    if index._a.ndim > 1:
        raise IndexError("index_select(): Index is supposed to be a vector, received shape "
                         f"{list(index._a.shape)}")
    if input._a.ndim == 0:
        return _index_select(input.reshape(1), 0, index.reshape(-1)).reshape(())
    return _index_select(input, d, index if index._a.ndim else index.reshape(-1))


def _gather_grad(g: Any, input_shape: Any, dim: int, index: Any) -> Any:
    return gather_backward(g, input_shape, dim, index)


@leaf({"grad": lambda g, dim, index: g.gather(dim, index)}, exact=True,
      shape=lambda grad, shape, dim, index: (shape, grad.dtype))
def gather_backward(grad: Array, shape: Any, dim: int, index: Any) -> Array:
    """Zeros of a shape, with `grad` added at the places of `index` along `dim`."""
    return _scattered("gather", np.zeros(shape, grad.dtype), dim, index, grad, _add_at)


@leaf({"input": _gather_grad}, name="gather", exact=True,
      shape=lambda a, d, index: (index._a.shape, a.dtype))
def _gather(input: Array, dim: int, index: Any) -> Array:
    i = index._a
    if i.size == 0:
        return np.empty(i.shape, input.dtype)
    if input.ndim == 0:
        _bounded_positive(i, 1, 0, "gather")
        return input.reshape(1)[i.reshape(-1)].reshape(i.shape)
    _bounded_positive(i, input.shape[dim], dim, "gather")
    if input.flags.c_contiguous:
        return input.reshape(-1)[places(i, input.shape, dim)]
    return np.take_along_axis(_crop(input, i.shape, dim), i, dim)


def _crop(a: Any, shape: Any, dim: int) -> Any:
    """`a` without what lies beyond `shape` in the other dimensions."""
    key = tuple(slice(None) if d == dim else slice(0, n) for d, n in enumerate(shape))
    return a[key]


def _check_places(name: str, input: Tensor, dim: int, index: Tensor) -> int:
    d = wrap_dim(dim, input._a.ndim, name)
    if not isinstance(index, Tensor):
        raise argument_type(name, "index", "Tensor", index)
    if index._dtype is int64 and index._a.shape == input._a.shape:
        return d
    if index._dtype not in (int64, int32) and index._a.size:
        raise RuntimeError(f"{name}(): Expected dtype int64 for index, received "
                           f"{index._dtype}; convert it with .long()")
    n, m = input._a.shape or (1,), index._a.shape or (1,)
    if index._a.size and len(n) != len(m):
        raise RuntimeError(f"Index tensor must have the same number of dimensions as input tensor: "
                           f"{name}() received index {list(m)} and input {list(n)}")
    if index._a.size and name == "gather":
        for k, (i, j) in enumerate(zip(m, n, strict=True)):
            if k != d and i > j:
                raise RuntimeError(f"Size does not match at dimension {k} expected index {list(m)} "
                                   f"to be no larger than self {list(n)} apart from dimension {d}")
    return d


@op(out=True)
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """`out[i][j] = input[index[i][j]][j]` for dim 0, and so on."""
    d = _check_places("gather", input, dim, index)
    return _gather(input, d, cast(index, int64))


@op(out=True)
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather` with broadcasting; without `dim` on the flat tensor."""
    if dim is None:
        return gather(input.reshape(-1), 0, indices.reshape(-1))
    d = wrap_dim(dim, input._a.ndim, "take_along_dim")
    shape = list(broadcast_shape("take_along_dim", *(
        tuple(1 if k == d else n for k, n in enumerate(t._a.shape)) for t in (input, indices))))
    wide = [n if k != d else input._a.shape[d] for k, n in enumerate(shape)]
    long = [n if k != d else indices._a.shape[d] for k, n in enumerate(shape)]
    i = indices.expand(long)
    return gather(input.expand(wide), d, i.where(i >= 0, i + input._a.shape[d]))


def _places_key(index: Any, dim: int) -> tuple[Any, ...]:
    grid = np.ogrid[tuple(slice(0, n) for n in index.shape)]
    return tuple(index if d == dim else g for d, g in enumerate(grid))


def _scattered(name: str, out: Any, dim: int, index: Any, src: Any, how: Any) -> Any:
    """Writes `src` at the places of `index` through `how(out, key, src)`."""
    i = index._a
    if i.size == 0:
        return out
    flat = out.reshape(1) if out.ndim == 0 else out
    i = i.reshape(1) if i.ndim == 0 else i
    _bounded_positive(i, flat.shape[dim], dim, name)
    if hasattr(src, "ndim") and src.ndim == i.ndim and src.shape != i.shape:
        src = _crop(src, i.shape, -1)
    if flat.flags.c_contiguous:
        how(flat.reshape(-1), (places(i, flat.shape, dim),), src)
    else:
        how(flat, _places_key(i, dim), src)
    return out


def _assign(out: Any, key: Any, src: Any) -> None:
    out[key] = src


@leaf({"input": lambda g, dim, index, src_shape: g.scatter(dim, index, 0),
       "src": lambda g, dim, index, src_shape: _pad_to(g.gather(dim, index), src_shape)},
      name="scatter", shape=same_shape, exact=True)
def _scatter(input: Array, src: Array, dim: int, index: Any) -> Array:
    return _scattered("scatter", input.copy("K"), dim, index, src, _assign)


def _pad_to(g: Any, shape: Any) -> Any:
    """Zeros where `src` was larger than the index."""
    if g._a.shape == tuple(shape) or not shape:
        return g
    full = g.new_zeros(shape)
    view = full
    for d, n in enumerate(g._a.shape):
        view = view.narrow(d, 0, n)
    view.copy_(g)
    return full


@op(inplace=True, out=True)
def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None,
            reduce: str | None = None) -> Tensor:
    """A copy with `src` (a tensor or a number) written at the places of `index` along `dim`."""
    d = _check_places("scatter", input, dim, index)
    src = value if src is None else src
    if reduce is not None:
        if reduce not in ("add", "multiply"):
            raise RuntimeError(f"reduce argument must be either add or multiply, got {reduce}")
        if not isinstance(src, Tensor):
            src = index.new_full(index._a.shape, src, dtype=input._dtype)
        return scatter_reduce(input, d, index, src, {"add": "sum", "multiply": "prod"}[reduce])
    if not isinstance(src, Tensor):
        src = Tensor._scalar(src, input._dtype)
    elif src._dtype is not input._dtype:
        raise RuntimeError("scatter(): Expected self.dtype to be equal to src.dtype, received "
                           f"{input._dtype} and {src._dtype}")
    elif index._a.size:
        _check_src("scatter", index, src, d)
    return _scatter(input, src, d, cast(index, int64))


def _check_src(name: str, index: Tensor, src: Tensor, dim: int) -> None:
    if index._a.shape != src._a.shape and any(
            i > n for i, n in zip(index._a.shape, src._a.shape, strict=False)):
        raise RuntimeError(f"Expected index {list(index._a.shape)} to be no larger than src "
                           f"{list(src._a.shape)}: {name}() along dimension {dim}")


@leaf({"input": lambda g: g,
       "src": lambda g, dim, index, src_shape: _pad_to(g.gather(dim, index), src_shape)},
      name="scatter_add", shape=same_shape, exact=True)
def _scatter_add(input: Array, src: Array, dim: int, index: Any) -> Array:
    return _scattered("scatter_add", input.copy("K"), dim, index, src, _add_at)


@op(inplace=True, out=True)
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """A copy with `src` added at the places of `index` along `dim`."""
    d = _check_places("scatter_add", input, dim, index)
    if src._dtype is not input._dtype:
        raise RuntimeError("scatter(): Expected self.dtype to be equal to src.dtype, received "
                           f"{input._dtype} and {src._dtype}")
    if index._a.size:
        _check_src("scatter_add", index, src, d)
    return _scatter_add(input, src, d, cast(index, int64))


def _index_add_shape(a: Any, *_: Any) -> Any:
    return a.shape, a.dtype


@leaf({"input": lambda g: g, "source": lambda g, dim, index, source_shape: g.index_select(
    dim, index).reshape(source_shape)}, name="index_add", shape=_index_add_shape, exact=True)
def _index_add(input: Array, source: Array, dim: int, index: Any) -> Array:
    out = input.copy("K")
    flat = out.reshape(1) if out.ndim == 0 else out
    _bounded_positive(index._a, flat.shape[dim], dim, "index_add")
    key = (slice(None),) * dim + (index._a,)
    _add_at(flat, key, source.reshape(1) if source.ndim == 0 else source)
    return out


def _check_source(name: str, input: Tensor, d: int, index: Tensor, source: Tensor) -> None:
    _check_index_dtype(name, index)
    if index._a.ndim > 1:
        raise IndexError(f"{name}(): Index is supposed to be a vector, received shape "
                         f"{list(index._a.shape)}")
    if source._dtype is not input._dtype:
        raise RuntimeError(f"{name}(): self and source expected to have the same dtype, but got "
                           f"(self) {input._dtype.name} and (source) {source._dtype.name}")
    expected = list(input._a.shape)
    if expected:
        expected[d] = index._a.size
    if list(source._a.shape) != expected and source._a.ndim:
        raise RuntimeError(f"{name}(): source tensor shape must match self tensor shape, excluding "
                           f"the specified dimension. Got self.shape = {list(input._a.shape)} "
                           f"source.shape = {list(source._a.shape)}, index of {index._a.size}")


@op(inplace=True, out=True)
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """A copy with the slices of `source` added at the listed indices of `dim`."""
    d = wrap_dim(dim, input._a.ndim, "index_add")
    _check_source("index_add", input, d, index, source)
    return _index_add(input, source if alpha == 1 else source * alpha, d, index.reshape(-1))


@leaf({"input": lambda g, dim, index, source_shape: g.index_fill(dim, index, 0),
       "source": lambda g, dim, index, source_shape: g.index_select(dim, index).reshape(
           source_shape)}, name="index_copy", shape=_index_add_shape, exact=True)
def _index_copy(input: Array, source: Array, dim: int, index: Any) -> Array:
    out = input.copy("K")
    flat = out.reshape(1) if out.ndim == 0 else out
    _bounded_positive(index._a, flat.shape[dim], dim, "index_copy")
    flat[(slice(None),) * dim + (index._a,)] = source
    return out


@op(inplace=True, out=True)
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy with the slices of `source` written at the listed indices of `dim`."""
    d = wrap_dim(dim, input._a.ndim, "index_copy")
    _check_source("index_copy", input, d, index, source)
    return _index_copy(input, source, d, index.reshape(-1))


@leaf({"input": lambda g, dim, index, value_shape: g.index_fill(dim, index, 0),
       "value": lambda g, dim, index, value_shape: g.index_select(
           dim, index.unique()).sum()},
      name="index_fill", shape=_index_add_shape, exact=True)
def _index_fill(input: Array, value: Array, dim: int, index: Any) -> Array:
    out = input.copy("K")
    flat = out.reshape(1) if out.ndim == 0 else out
    _bounded(index._a, flat.shape[dim], dim)
    flat[(slice(None),) * dim + (index._a,)] = value
    return out


@op(inplace=True)
def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy with the listed indices of `dim` filled with one number."""
    d = wrap_dim(dim, input._a.ndim, "index_fill")
    _check_index_dtype("index_fill", index)
    if not isinstance(value, Tensor):
        value = Tensor._scalar(value, input._dtype)
    elif value._a.ndim:
        raise RuntimeError("index_fill_ only supports a 0-dimensional value tensor, but got tensor "
                           f"with {value._a.ndim} dimension(s).")
    return _index_fill(input, cast(value, input._dtype), d, index.reshape(-1))


_REDUCE = {"sum": np.add, "prod": np.multiply, "amax": np.maximum, "amin": np.minimum}


def _scatter_reduce_grad(g: Any, needs: Any, input: Any, src: Any, out: Any, dim: int, index: Any,
                         reduce: str, include_self: bool) -> Any:
    if reduce == "prod":
        mine, theirs = _product_grads(g, input, src, out, dim, index, include_self)
        return (mine if include_self else mine.scatter(dim, index, 0)), theirs
    back = g.gather(dim, index)
    if reduce == "sum":
        mine, theirs = g, back
    elif reduce == "mean":
        ones = g.new_ones(src._a.shape)
        count = (g.new_ones(g._a.shape) if include_self else g.new_zeros(
            g._a.shape)).scatter_add(dim, index, ones).clamp(min=1)
        mine, theirs = g / count, (g / count).gather(dim, index)
    else:
        hit, hits = input == out, _crop_to(src, index) == out.gather(dim, index)
        total = hit.to(g._dtype).scatter_add(dim, index, hits.to(g._dtype))
        mine, theirs = g * hit / total, (g / total).gather(dim, index) * hits
    if not include_self:
        mine = mine.scatter(dim, index, 0)
    return mine, theirs


def _crop_to(src: Any, index: Any) -> Any:
    for d, n in enumerate(index._a.shape):
        src = src.narrow(d, 0, n) if src._a.shape[d] != n else src
    return src


def _product_grads(g: Any, input: Any, src: Any, out: Any, dim: int, index: Any,
                   include_self: bool) -> Any:
    """Products without one factor: the whole divided by it, taken without it where it is 0."""
    src = _crop_to(src, index)
    one = input.masked_fill(input == 0, 1)
    mine = g * one.scatter_reduce(dim, index, src, "prod", include_self=include_self) / one
    zero = src == 0
    zeros = g.new_zeros(g._a.shape).scatter_add(dim, index, zero.to(g._dtype))
    lone = zero & (zeros.gather(dim, index) == 1)
    others = input.scatter_reduce(dim, index, src.masked_fill(lone, 1), "prod",
                                  include_self=include_self)
    without = (g * out).gather(dim, index) / src.masked_fill(zero, 1)
    return mine, (g * others).gather(dim, index).where(lone, without)


@leaf(_scatter_reduce_grad, name="scatter_reduce", shape=same_shape)
def _scatter_reduce(input: Array, src: Array, dim: int, index: Any, reduce: str,
                    include_self: bool) -> Array:
    out = input.copy("K")
    if not include_self and index._a.size:
        start: Any = {"sum": 0, "mean": 0, "prod": 1}.get(reduce)
        if start is None:
            info = np.finfo(out.dtype) if out.dtype.kind == "f" else np.iinfo(out.dtype)
            low, high = (-np.inf, np.inf) if out.dtype.kind == "f" else (info.min, info.max)
            start = low if reduce == "amax" else high
        _scattered("scatter_reduce", out, dim, index, start, _assign)
    ufunc = np.add if reduce == "mean" else _REDUCE[reduce]
    _scattered("scatter_reduce", out, dim, index, src,
               lambda o, key, s: ufunc.at(o, key, s))
    if reduce == "mean":
        count = np.full(out.shape, int(include_self), np.int64)
        _scattered("scatter_reduce", count, dim, index, 1, _add_at)
        count = np.maximum(count, 1)
        out = (out / count).astype(out.dtype) if out.dtype.kind == "f" else out // count
    return out


@op(inplace=True, out=True)
def scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *,
                   include_self: bool = True) -> Tensor:
    """Like `scatter`, values that meet combined by "sum", "prod", "mean", "amax" or "amin"."""
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise RuntimeError("reduce argument must be either sum, prod, mean, amax or amin, got "
                           f"{reduce}")
    d = _check_places("scatter_reduce", input, dim, index)
    if src._dtype is not input._dtype:
        raise RuntimeError("scatter(): Expected self.dtype to be equal to src.dtype, received "
                           f"{input._dtype} and {src._dtype}")
    if index._a.size:
        _check_src("scatter_reduce", index, src, d)
    return _scatter_reduce(input, src, d, cast(index, int64), reduce, include_self)


@op(inplace=True, out=True)
def index_reduce(input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *,
                 include_self: bool = True) -> Tensor:
    """Slices of `source` combined into the listed indices of `dim`."""
    d = wrap_dim(dim, input._a.ndim, "index_reduce")
    shape = [1] * source._a.ndim
    if shape:
        shape[d] = index._a.size
    places = index.reshape(shape).expand(source._a.shape)
    return scatter_reduce(input, d, places, source, reduce,
                          include_self=include_self)


# --- masks ----------------------------------------------------------------------------------------


def _masked_shape(a: Any, mask: Any, value: Any) -> Any:
    return np.broadcast_shapes(a.shape, mask.shape), a.dtype


@leaf({"input": lambda g, mask: g.masked_fill(mask, 0),
       "value": lambda g, mask: (g * mask).sum()}, name="masked_fill", node=lambda t, _: (
           f"MaskedFillBackward{int(isinstance(t[2], Tensor))}"), shape=_masked_shape,
      broadcasts=True, exact=True)
def _masked_fill(input: Array, mask: Array, value: OptArray) -> Array:
    if input.shape == mask.shape:
        out = input.copy("K")
        out[mask] = value
        return out
    return np.where(mask, np.asarray(value, input.dtype), input)


@op(inplace=_masked_fill)
def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """A copy with `value` where `mask` is True."""
    if not isinstance(mask, Tensor) or mask._dtype is not bool_:
        kind = mask._dtype.name if isinstance(mask, Tensor) else type(mask).__name__
        raise RuntimeError("masked_fill only supports boolean masks, but got mask with dtype "
                           f"{kind}; compare first, for example mask != 0")
    broadcast_shape("masked_fill", input._a.shape, mask._a.shape)
    if isinstance(value, Tensor):
        if value._a.ndim:
            raise RuntimeError("masked_fill only supports a 0-dimensional value tensor, but got "
                               f"tensor with {value._a.ndim} dimension(s).")
        value = cast(value, input._dtype)
    else:
        if input._dtype.kind < 2 and isinstance(value, float) and not value.is_integer():
            raise RuntimeError(f"value cannot be converted to type {input._dtype.name} without "
                               f"overflow: masked_fill() received {value}")
        value = as_scalar(value, input._dtype, "masked_fill")
    return _masked_fill(input, mask, value)


@op(out=True)
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where `mask` is True, as a 1-D tensor."""
    if mask._dtype is not bool_:
        raise RuntimeError("masked_select: expected BoolTensor for mask, received "
                           f"{mask._dtype}")
    shape = broadcast_shape("masked_select", input._a.shape, mask._a.shape)
    return input.expand(shape)[mask.expand(shape)]


@op(inplace=True)
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy with consecutive elements of `source` where `mask` is True."""
    if mask._dtype is not bool_:
        raise RuntimeError("masked_scatter_ only supports boolean masks, but got mask with dtype "
                           f"{mask._dtype.name}")
    shape = broadcast_shape("masked_scatter", input._a.shape, mask._a.shape)
    places = mask.expand(shape).nonzero(as_tuple=True)
    n = places[0]._a.shape[0]
    if source._a.size < n:
        raise RuntimeError("Number of elements of source < number of ones in mask: received "
                           f"{source._a.size} for {n}")
    return index_put(input.expand(shape), places, source.reshape(-1)[:n])


# --- on the flat tensor ---------------------------------------------------------------------------


@op(out=True)
def take(input: Tensor, index: Tensor) -> Tensor:
    """Elements of the flattened tensor."""
    if index._dtype is not int64:
        raise RuntimeError(f"take(): Expected a long tensor for index, but got {index._dtype.name}")
    return _index(input.reshape(-1), (index,))


@op(inplace=True)
def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with elements of the flattened tensor replaced."""
    flat = index_put(input.reshape(-1), (index.reshape(-1),), source.reshape(-1), accumulate)
    return flat.reshape(input._a.shape)


@op("Tensor", name="fill_")
def fill_(self: Tensor, value: Any) -> Tensor:
    """Every element set to `value`."""
    if isinstance(value, Tensor):
        if value._a.ndim:
            raise RuntimeError("fill_ only supports 0-dimension value tensor but got tensor with "
                               f"{value._a.ndim} dimensions.")
        return self.copy_(value)
    return _fill(self, value, "fill_")


def _fill(self: Tensor, value: Any, name: str) -> Tensor:
    check_writable(self, name)
    if self._rg or type(self._a) is not _ndarray:
        return write(self, Tensor._scalar(value, self._dtype).expand(self._a.shape), name)
    from .creation import _fill_value

    check_overlap(self, name)
    check_memory(self._a)
    self._a[...] = _fill_value(value, self._dtype)
    bump(self, name)
    return self


@op("Tensor", name="zero_")
def zero_(self: Tensor) -> Tensor:
    """Every element set to zero."""
    return _fill(self, 0, "zero_")


@op("Tensor")
def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """The main diagonal set to one number."""
    if self._a.ndim < 2:
        raise RuntimeError("dimensions must larger than 1")
    n = min(self._a.shape)
    step = sum(self.stride())
    self.as_strided((n,), (step,)).fill_(fill_value)
    return self


@op("torch")
def fill(input: Tensor, value: Any) -> Tensor:
    """A tensor like `input` with every element `value`."""
    if isinstance(value, Tensor) and value._a.ndim == 0:
        return masked_fill(input, input.new_ones(input._a.shape, dtype=bool_), value)
    return input.clone().fill_(value)
