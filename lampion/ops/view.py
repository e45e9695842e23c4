"""Views: the same memory under another shape. Each works on real and on abstract arrays."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from ..autograd.modes import enable_grad, state
from ..autograd.node import record
from ..tensor.dtype import COMPLEX, INT, dtype, float32, float64
from ..tensor.strides import reshape_strides
from ..tensor.tensor import Tensor, has_no_past, share, storage_of, wrap
from .errors import argument_type, as_int, wrap_dim, wrap_dims
from .families import Array
from .record import leaf, op, publish

__all__ = ["as_size"]


def as_size(size: tuple[Any, ...], name: str = "") -> tuple[int, ...]:
    """Sizes given as one sequence or as several integers."""
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = tuple(size[0])
    for n in size:
        if n.__class__ is not int:
            return tuple(_index(n, name) for n in size)
    return size


def _index(n: Any, name: str) -> int:
    try:
        return int(n.__index__())
    except AttributeError:
        raise argument_type(name, "size", "tuple of ints", n) from None


def _full_shape(a: Any, size: tuple[int, ...]) -> tuple[int, ...]:
    """`size` with -1 worked out; RuntimeError if the element count differs."""
    count = 1
    for n in size:
        count *= n
    total = a.size
    if size.count(-1) == 1 and min(size) == -1:
        rest = -count
        if rest and total % rest == 0:
            return tuple(total // rest if n == -1 else n for n in size)
        if rest == 0 and total == 0:
            raise RuntimeError(f"cannot reshape tensor of 0 elements into shape {list(size)} "
                               "because the unspecified dimension size -1 can be any value and "
                               "is ambiguous")
    elif size.count(-1) > 1:
        raise RuntimeError(f"only one dimension can be inferred, received {list(size)}")
    elif count == total and (not size or min(size) >= 0):
        return size
    negative = [n for n in size if n < -1]
    if negative:
        raise RuntimeError(f"invalid shape dimension {negative[0]} in {list(size)}")
    raise RuntimeError(f"shape '{list(size)}' is invalid for input of size {total}: view() and "
                       f"reshape() keep the number of elements, received shape {list(a.shape)}")


def _strided(a: Any, shape: Any, strides: Any, offset: int = 0) -> Any:
    """Another window on the memory of `a`; the caller knows that it stays inside."""
    if type(a) is np.ndarray:
        if offset:
            raise AssertionError("windows with an offset go through the storage")
        return np.lib.stride_tricks.as_strided(a, shape, strides)
    return a.view_as(tuple(shape), tuple(strides), a.offset + offset)


@leaf({"input": lambda g, input_shape: g.reshape(input_shape)}, view=True)
def view(input: Array, size: Any) -> Array:
    if type(input) is np.ndarray and min(size, default=0) >= -1:
        try:
            return input.reshape(size, copy=False)
        except ValueError:
            pass
    shape = _full_shape(input, size)
    strides = reshape_strides(input.shape, input.strides, input.itemsize, shape)
    if strides is None:
        raise RuntimeError(
            "view size is not compatible with input tensor's size and stride (at least one "
            f"dimension spans across two contiguous subspaces): received shape {list(input.shape)}"
            f" and size {list(size)}. Use .reshape(...) instead.")
    return _strided(input, shape, strides)


_view = view


@op("Tensor", name="view")
def view_method(self: Tensor, *size: Any, dtype: Any = None) -> Tensor:
    """The same memory under another shape (one size may be -1) or dtype; never a copy.

    >>> import lampion as torch
    >>> torch.arange(6).view(2, 3)
    tensor([[0, 1, 2],
            [3, 4, 5]])
    """
    if dtype is None:
        found = _window(self, size if len(size) != 1 else size[0])
        if found is not None:
            return found
    if dtype is not None or (len(size) == 1 and isinstance(size[0], _DTYPE)):
        return view_as_dtype(self, dtype or size[0])
    shape = as_size(size, "view")
    return _view(self, shape)


def _window(t: Tensor, size: Any) -> Tensor | None:
    """`t` under another shape where that leaves no history; None where somebody else must see."""
    if not has_no_past(t):
        return None
    try:
        r = t._a.reshape(size, copy=False)
        # NumPy takes any negative number for -1.
        if r.shape == size or (size >= -1 if size.__class__ is int else -1 in size):
            return share(t, r)
    except (ValueError, TypeError):
        pass  # an error to explain, a dtype, or strides that NumPy does not see through
    return None


_DTYPE = dtype


@leaf({"input": lambda g, input_dtype: view_as_dtype(g, input_dtype)}, view=True, exact=True)
def _view_dtype(input: Array, dtype: dtype) -> Array:
    if type(input) is np.ndarray:
        if input.dtype.itemsize != dtype.itemsize and input.ndim and not (
                input.strides[-1] == input.itemsize):
            raise RuntimeError("self.stride(-1) must be 1 to view "
                               f"{input.dtype.name} as {dtype.name} (different element sizes), "
                               f"but got {input.strides[-1] // input.itemsize}")
        return input.view(dtype.np)
    old, new = input.itemsize, dtype.itemsize
    if old == new:
        return input.view_as(input.shape, input.strides, input.offset, dtype.np)
    shape = (*input.shape[:-1], input.shape[-1] * old // new)
    return input.view_as(shape, (*input.strides[:-1], new), input.offset, dtype.np)


def view_as_dtype(t: Tensor, d: dtype) -> Tensor:
    """The same bits read as another element type."""
    if d is t._dtype:
        return share(t, t._a)
    if t._a.ndim == 0 and d.itemsize != t._dtype.itemsize:
        raise RuntimeError(f"self.dim() cannot be 0 to view {t._dtype.name} as {d.name} "
                           "(different element sizes)")
    if t._a.ndim and (t._a.shape[-1] * t._dtype.itemsize) % d.itemsize:
        raise RuntimeError(f"self.size(-1) must be divisible by {d.itemsize // t._dtype.itemsize} "
                           f"to view {t._dtype.name} as {d.name}, but got {t._a.shape[-1]}")
    return _view_dtype(t, d)


@op("torch")
def reshape(input: Tensor, shape: Any) -> Tensor:
    """Another shape: a view where strides allow, else a copy.

    >>> import lampion as torch
    >>> torch.arange(4).reshape(2, -1)
    tensor([[0, 1],
            [2, 3]])
    """
    found = _window(input, shape)
    if found is not None:
        return found
    size = as_size(tuple(shape) if isinstance(shape, (tuple, list)) else (shape,), "reshape")
    full = _full_shape(input._a, size)
    a = input._a
    dense = a.__class__ is np.ndarray and a.flags.c_contiguous
    if dense or reshape_strides(a.shape, a.strides, a.itemsize, full) is not None:
        return _view(input, full)
    return _view(input.contiguous(), full)


@op("Tensor", name="reshape")
def reshape_method(self: Tensor, *shape: Any) -> Tensor:
    """Another shape: a view where strides allow, else a copy."""
    return reshape(self, shape[0] if len(shape) == 1 else shape)


@op("Tensor")
def view_as(self: Tensor, other: Tensor) -> Tensor:
    """A view in the shape of `other`."""
    return view_method(self, other._a.shape)


@op("Tensor")
def reshape_as(self: Tensor, other: Tensor) -> Tensor:
    """The tensor in the shape of `other`."""
    return reshape(self, other._a.shape)


# --- order of dimensions --------------------------------------------------------------------------


def _permuted(a: Any, dims: Any) -> Any:
    if type(a) is np.ndarray:
        return a.transpose(dims)
    return _strided(a, [a.shape[d] for d in dims], [a.strides[d] for d in dims])


def _inverse(dims: Any) -> tuple[int, ...]:
    places = [0] * len(dims)
    for i, d in enumerate(dims):
        places[d] = i
    return tuple(places)


@leaf({"input": lambda g, dims: _permute(g, _inverse(dims))}, name="permute", view=True)
def _permute(input: Array, dims: Any) -> Array:
    return _permuted(input, dims)


@op("torch")
def permute(input: Tensor, dims: Any) -> Tensor:
    """The dimensions in another order."""
    n = input._a.ndim
    plain = dims.__class__ is tuple and len(dims) == n and {*dims} == {*range(n)}
    order = dims if plain else wrap_dims(dims, n, "permute")
    if len(order) != input._a.ndim:
        raise RuntimeError(
            "permute(sparse_coo): number of dimensions in the tensor input does not match the "
            f"length of the desired ordering of dimensions i.e. input.dim() = {input._a.ndim} is "
            f"not equal to len(dims) = {len(order)}")
    return _permute(input, order)


@op("Tensor", name="permute")
def permute_method(self: Tensor, *dims: Any) -> Tensor:
    """The dimensions in another order."""
    return permute(self, as_size(dims, "permute"))


def _swapped(ndim: int, d0: int, d1: int) -> tuple[int, ...]:
    order = list(range(ndim))
    order[d0], order[d1] = d1, d0
    return tuple(order)


@leaf({"input": lambda g, dim0, dim1: g.transpose(dim0, dim1)}, name="transpose", view=True)
def _transpose(input: Array, dim0: int, dim1: int) -> Array:
    if type(input) is np.ndarray:
        return input.swapaxes(dim0, dim1)
    return _permuted(input, _swapped(input.ndim, dim0, dim1))


@op(aliases="swapdims")
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged."""
    n = input._a.ndim
    d0, d1 = wrap_dim(dim0, n, "transpose"), wrap_dim(dim1, n, "transpose")
    if n == 0:
        return alias(input)
    return _transpose(input, d0, d1)


@op()
def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """Two dimensions exchanged: `transpose` with NumPy's names."""
    return transpose(input, axis0, axis1)


@leaf({"input": lambda g: g.t()}, name="t", view=True, node="TBackward0")
def _t(input: Array) -> Array:
    return _permuted(input, (1, 0))


@op()
def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; vectors as they are."""
    n = input._a.ndim
    if n > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {n}D; use "
                           ".mT or transpose()")
    return _t(input) if n == 2 else alias(input)


@leaf({"input": lambda g: g}, name="alias", view=True)
def _alias(input: Array) -> Array:
    return input if type(input) is np.ndarray else _strided(input, input.shape, input.strides)


def alias(t: Tensor) -> Tensor:
    """A new tensor on the same memory."""
    return _alias(t)


def _reversed(t: Tensor) -> Tensor:
    return _permute(t, tuple(reversed(range(t._a.ndim))))


def _matrix_transpose(self: Tensor) -> Tensor:
    if self._a.ndim < 2:
        raise RuntimeError(f"tensor.mT is only supported on matrices or batches of matrices. Got "
                           f"{self._a.ndim}-D tensor.")
    return transpose(self, -2, -1)


def _adjoint_matrix(self: Tensor) -> Tensor:
    if self._a.ndim not in (0, 2):
        raise RuntimeError(f"tensor.H is only supported on matrices (2-D tensors). Got "
                           f"{self._a.ndim}-D tensor.")
    return self.conj() if self._a.ndim == 0 else _matrix_transpose(self).conj()


publish("Tensor", "T", property(_reversed, doc="The dimensions in reverse order."))
publish("Tensor", "mT", property(_matrix_transpose, doc="The last two dimensions exchanged."))
publish("Tensor", "H", property(_adjoint_matrix, doc="The conjugate transpose."))
publish("Tensor", "mH", property(lambda self: _matrix_transpose(self).conj()))


@op()
def adjoint(input: Tensor) -> Tensor:
    """The conjugate of the last two dimensions exchanged."""
    return _matrix_transpose(input).conj()


@op(aliases="moveaxis")
def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Dimensions moved to new places, the others keeping their order."""
    n = input._a.ndim
    src, dst = wrap_dims(source, n, "movedim"), wrap_dims(destination, n, "movedim")
    if len(src) != len(dst):
        raise RuntimeError("movedim: Invalid source or destination dims: source "
                           f"({list(src)} dims) should contain the same number of dims as "
                           f"destination ({list(dst)} dims)")
    rest = iter(d for d in range(n) if d not in src)
    places = dict(zip(dst, src, strict=True))
    return _permute(input, tuple(places[d] if d in places else next(rest) for d in range(n)))


# --- dimensions of size 1 -------------------------------------------------------------------------


@leaf({"input": lambda g, dim: g.squeeze(dim)}, name="unsqueeze", view=True)
def _unsqueeze(input: Array, dim: int) -> Array:
    if type(input) is np.ndarray:
        return input[(slice(None),) * dim + (None,)] if dim else input[None]
    step = input.shape[dim] * input.strides[dim] if dim < input.ndim else input.itemsize
    return _strided(input, (*input.shape[:dim], 1, *input.shape[dim:]),
                    (*input.strides[:dim], step, *input.strides[dim:]))


@op()
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """A new dimension of size 1 at `dim`."""
    return _unsqueeze(input, wrap_dim(dim, input._a.ndim + 1, "unsqueeze"))


@leaf({"input": lambda g, input_shape: g.reshape(input_shape)}, name="squeeze", view=True)
def _squeeze(input: Array, dims: tuple[int, ...]) -> Array:
    if type(input) is np.ndarray:
        return input.squeeze(dims)
    keep = [d for d in range(input.ndim) if d not in dims]
    return _permuted(input, keep)


@op()
def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """Without the dimensions of size 1 (all, or those in `dim`)."""
    shape = input._a.shape
    dims = range(len(shape)) if dim is None else wrap_dims(dim, len(shape), "squeeze")
    return _squeeze(input, tuple(d for d in dims if shape and shape[d] == 1))


@op()
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions `start_dim` to `end_dim` made one."""
    shape = input._a.shape
    first, last = (wrap_dim(d, len(shape), "flatten") for d in (start_dim, end_dim))
    if first > last:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim, "
                           f"received {start_dim} and {end_dim}")
    if not shape:
        return reshape(input, (1,))
    if first == last:
        return input
    count = 1
    for n in shape[first:last + 1]:
        count *= n
    return reshape(input, (*shape[:first], count, *shape[last + 1:]))


@op()
def ravel(input: Tensor) -> Tensor:
    """All elements in one dimension."""
    return _view(input.contiguous(), (input._a.size,))


@op()
def unflatten(input: Tensor, dim: int, sizes: Any) -> Tensor:
    """Dimension `dim` split into several."""
    shape = input._a.shape
    d = wrap_dim(dim, len(shape), "unflatten")
    sizes = tuple(sizes)
    if not sizes:
        raise RuntimeError("unflatten: sizes must be non-empty")
    rest = 1
    for n in sizes:
        rest *= n if n != -1 else 1
    if (-1 not in sizes and rest != shape[d]) or (rest and shape[d] % rest):
        raise RuntimeError(f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size "
                           f"of dim {d} ({shape[d]}) in the input tensor")
    filled = tuple(shape[d] // rest if n == -1 and rest else n for n in sizes)
    return _view(input, (*shape[:d], *filled, *shape[d + 1:]))


# --- repeated dimensions --------------------------------------------------------------------------


@leaf({"input": lambda g, input_shape: g.sum_to_size(input_shape)}, name="expand", view=True)
def _expand(input: Array, size: tuple[int, ...]) -> Array:
    lead = len(size) - input.ndim
    strides = (0,) * lead
    if input.ndim:
        strides += tuple([s if n == m else 0 for s, n, m in zip(
            input.strides, input.shape, size[lead:], strict=True)])
    if type(input) is np.ndarray and input.size:
        if math.prod(size) >= 2 ** 60:
            raise RuntimeError(f"expand(): size {list(size)} has more elements than can be counted")
        if input.flags.c_contiguous and input.dtype.isbuiltin == 1:  # `as_strided`, but quicker
            return np.ndarray(size, input.dtype, input, 0, strides)
        return np.lib.stride_tricks.as_strided(input, size, strides, subok=False)
    if type(input) is np.ndarray:
        return np.broadcast_to(input, size)
    return _strided(input, size, strides)


def _expanded_size(shape: tuple[int, ...], size: tuple[int, ...]) -> tuple[int, ...]:
    if not shape and (not size or min(size) >= 0):
        return size
    lead = len(size) - len(shape)
    if lead < 0:
        raise RuntimeError(
            f"expand({list(shape)}, size={list(size)}): the number of sizes provided "
            f"({len(size)}) must be greater or equal to the number of dimensions in the tensor "
            f"({len(shape)})")
    full = []
    for i, n in enumerate(size):
        have = shape[i - lead] if i >= lead else None
        if n == -1 and have is None:
            raise RuntimeError(f"The expanded size of the tensor ({n}) isn't allowed in a leading, "
                               f"non-existing dimension {i}")
        if have is not None and n not in (-1, have) and have != 1:
            raise RuntimeError(
                f"The expanded size of the tensor ({n}) must match the existing size ({have}) at "
                f"non-singleton dimension {i}.  Target sizes: {list(size)}.  Tensor sizes: "
                f"{list(shape)}")
        if n < -1:
            raise RuntimeError(f"expand: invalid size {n} at dimension {i}")
        full.append(have if n == -1 else n)
    return tuple(full)  # type: ignore[arg-type]


@op("Tensor")
def expand(self: Tensor, *size: Any, implicit: bool = False) -> Tensor:
    """Dimensions of size 1 repeated without copying; -1 keeps a size."""
    return _expand(self, _expanded_size(self._a.shape, as_size(size, "expand")))


@op("Tensor")
def expand_as(self: Tensor, other: Tensor) -> Tensor:
    """The tensor expanded to the shape of `other`."""
    return _expand(self, _expanded_size(self._a.shape, other._a.shape))


@op("torch Tensor")
def broadcast_to(input: Tensor, *size: Any) -> Tensor:
    """The tensor expanded to `size`, one sequence or several numbers."""
    return _expand(input, _expanded_size(input._a.shape, as_size(size, "broadcast_to")))


@op("Tensor")
def sum_to_size(self: Tensor, *size: Any) -> Tensor:
    """Summed over the dimensions that broadcasting had repeated."""
    target, shape = as_size(size, "sum_to_size"), self._a.shape
    if target == shape:
        return self if shape else self.sum()
    lead = len(shape) - len(target)
    dims = (*range(lead), *(i for i in range(lead, len(shape))
                            if target[i - lead] == 1 and shape[i] != 1))
    if lead < 0 or any(t not in (1, s) for t, s in zip(target, shape[max(lead, 0):], strict=True)):
        raise RuntimeError(f"size {{{list(target)}}} is not expandable to size {{{list(shape)}}}.")
    total = self.sum(dims, keepdim=True) if dims else self
    return reshape(total, target) if lead else total


# --- windows --------------------------------------------------------------------------------------


def _embed(g: Tensor, shape: Any, window: Any) -> Tensor:
    """Zeros of `shape` with `g` written through `window(zeros)`."""
    full = g.new_zeros(shape)
    return _scatter_window(full, g, window)


def _scatter_window(full: Tensor, g: Tensor, window: Any) -> Tensor:
    window(full).copy_(g)
    return full


@leaf({"input": lambda g, input_shape, dim, index: _embed(
    g, input_shape, lambda z: _select(z, dim, index))}, name="select", view=True)
def _select(input: Array, dim: int, index: int) -> Array:
    if type(input) is np.ndarray:
        return input[(slice(None),) * dim + (index, ...)]
    rest = [d for d in range(input.ndim) if d != dim]
    return _strided(input, [input.shape[d] for d in rest], [input.strides[d] for d in rest],
                    (index % max(input.shape[dim], 1)) * input.strides[dim])


@op()
def select(input: Tensor, dim: int, index: Any) -> Tensor:
    """Without dimension `dim`, at `index` of it."""
    shape = input._a.shape
    if not shape:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    d, i = wrap_dim(dim, len(shape), "select"), as_int(index, "select", "index")
    if not -shape[d] <= i < shape[d]:
        raise IndexError(f"select(): index {i} out of range for tensor of size {list(shape)} at "
                         f"dimension {d}")
    return _select(input, d, i)


@leaf({"input": lambda g, input_shape, dim, start, stop, step: _embed(
    g, input_shape, lambda z: _slice(z, dim, start, stop, step))}, name="slice", view=True)
def _slice(input: Array, dim: int, start: int, stop: int, step: int) -> Array:
    if type(input) is np.ndarray:
        return input[(slice(None),) * dim + (slice(start, stop, step),)]
    count = max(0, -(-(stop - start) // step))
    shape, strides = list(input.shape), list(input.strides)
    offset = start * strides[dim] if count else 0
    shape[dim], strides[dim] = count, strides[dim] * step
    return _strided(input, shape, strides, offset)


def slice_dim(t: Tensor, dim: int, start: Any, stop: Any, step: Any) -> Tensor:
    """`t[..., start:stop:step, ...]` at `dim`; out-of-range bounds are clamped as in Python."""
    if step is not None and step < 1:
        raise ValueError(f"step must be greater than zero: received {step}; use flip() to reverse")
    first, last, by = slice(start, stop, step).indices(t._a.shape[dim])
    return _slice(t, dim, first, max(first, last), by)


@op()
def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """`length` elements of dimension `dim` from `start`."""
    shape = input._a.shape
    if not shape:
        raise RuntimeError("narrow() cannot be applied to a 0-dim tensor.")
    if isinstance(start, Tensor) and (start._a.ndim or start._dtype.kind != INT):
        raise RuntimeError("start must be an 0-dim integral Tensor.")
    d, first = wrap_dim(dim, len(shape), "narrow"), as_int(start, "narrow", "start")
    n = shape[d]
    if length < 0:
        raise RuntimeError(f"narrow(): length must be non-negative, received {length}.")
    if not -n <= first <= n:
        raise IndexError(f"start out of range (expected to be in range of [{-n}, {n}], but got "
                         f"{first})")
    first += n if first < 0 else 0
    if first + length > n:
        raise RuntimeError(f"start ({first}) + length ({length}) exceeds dimension size ({n}).")
    return _slice(input, d, first, first + length, 1)


def _split_grad(g: Any, needs: Any, dim: Any) -> Any:
    return (Tensor._cat(list(g), dim),)


@leaf(_split_grad, name="split", view=True)
def _split(input: Array, bounds: Any, dim: int) -> Any:
    return tuple(_slice.kernel(input, dim, a, b, 1) for a, b in bounds)


@leaf(_split_grad, name="split_with_sizes", view=True)
def _split_with_sizes(input: Array, bounds: Any, dim: int) -> Any:
    return tuple(_slice.kernel(input, dim, a, b, 1) for a, b in bounds)


def _bounds(edges: list[int]) -> tuple[tuple[int, int], ...]:
    return tuple(pairwise(edges))


@op("torch")
def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of consecutive pieces along `dim`, of one size or of the listed sizes."""
    d = wrap_dim(dim, tensor._a.ndim, "split")
    if tensor._a.ndim == 0:
        raise RuntimeError("split expects at least a 1-dimensional tensor")
    n = tensor._a.shape[d]
    if not isinstance(split_size_or_sections, int):
        return split_with_sizes(tensor, split_size_or_sections, d)
    size = split_size_or_sections
    if size < 0 or (size == 0 and n):
        raise RuntimeError(f"split expects split_size be non-negative, but got split_size={size}")
    pieces = max(1, -(-n // size)) if size else 1
    return _split(tensor, _bounds([min(i * size, n) for i in range(pieces)] + [n]), d)


@op()
def split_with_sizes(input: Tensor, split_sizes: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of consecutive pieces of the listed sizes along `dim`."""
    d = wrap_dim(dim, input._a.ndim, "split_with_sizes")
    sizes, n = [int(s) for s in split_sizes], input._a.shape[d]
    if sum(sizes) != n or min(sizes, default=0) < 0:
        raise RuntimeError(f"split_with_sizes expects split_sizes to sum exactly to {n} (input "
                           f"tensor's size at dimension {d}), but got split_sizes={sizes}")
    edges = [0]
    for s in sizes:
        edges.append(edges[-1] + s)
    return _split_with_sizes(input, _bounds(edges), d)


@op("Tensor", name="split")
def split_method(self: Tensor, split_size: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of consecutive pieces along `dim`."""
    return split(self, split_size, dim)


@op()
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` consecutive views of about equal size along `dim`."""
    if input._a.ndim == 0:
        raise RuntimeError("chunk expects at least a 1-dimensional tensor")
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    d = wrap_dim(dim, input._a.ndim, "chunk")
    n = input._a.shape[d]
    if n == 0:
        return _split(input, ((0, 0),) * chunks, d)
    return split(input, -(-n // chunks), d)


@op()
def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views cut at the given indices, or into so many pieces of almost equal size."""
    if input._a.ndim == 0:
        raise RuntimeError("tensor_split expected at least a 1-dimensional tensor, but got a "
                           "tensor with 0 dims")
    d = wrap_dim(dim, input._a.ndim, "tensor_split")
    n, cut = input._a.shape[d], indices_or_sections
    if isinstance(cut, Tensor):
        cut = cut.tolist()
    if isinstance(cut, int):
        if cut <= 0:
            raise RuntimeError(f"number of sections must be larger than 0, got {cut}")
        base, more = divmod(n, cut)
        edges = [i * base + min(i, more) for i in range(cut + 1)]
        return tuple(_slice(input, d, a, b, 1) for a, b in _bounds(edges))
    edges = [0, *cut, n]
    return tuple(slice_dim(input, d, a, b, 1) for a, b in _bounds(edges))


@leaf(lambda g, needs, dim: (Tensor._stack(list(g), dim),), name="unbind", view=True)
def _unbind(input: Array, dim: int) -> Any:
    return tuple(_select.kernel(input, dim, i) for i in range(input.shape[dim]))


@op()
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of every index along `dim`, without that dimension."""
    if input._a.ndim == 0:
        raise IndexError("Dimension specified as 0 but tensor has no dimensions")
    return _unbind(input, wrap_dim(dim, input._a.ndim, "unbind"))


def _diagonal_window(a: Any, offset: int, d1: int, d2: int) -> tuple[Any, Any, int]:
    n, m = a.shape[d1], a.shape[d2]
    count = max(0, min(n, m - offset) if offset >= 0 else min(n + offset, m))
    start = (offset * a.strides[d2] if offset >= 0 else -offset * a.strides[d1]) if count else 0
    rest = [d for d in range(a.ndim) if d not in (d1, d2)]
    return ([a.shape[d] for d in rest] + [count],
            [a.strides[d] for d in rest] + [a.strides[d1] + a.strides[d2]], start)


@leaf({"input": lambda g, input_shape, offset, dim1, dim2: _embed(
    g, input_shape, lambda z: _diagonal(z, offset, dim1, dim2))}, name="diagonal", view=True)
def _diagonal(input: Array, offset: int, dim1: int, dim2: int) -> Array:
    if type(input) is np.ndarray:
        out = input.diagonal(offset, dim1, dim2)
        return out if out.flags.writeable or not input.flags.writeable else _writable(out)
    return _strided(input, *_diagonal_window(input, offset, dim1, dim2))


def _writable(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """NumPy marks diagonals read-only as a precaution; ours are ordinary views."""
    a.flags.writeable = True
    return a


@op()
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A view of the diagonal of two dimensions, as the last dimension."""
    n = input._a.ndim
    d1, d2 = wrap_dim(dim1, n, "diagonal"), wrap_dim(dim2, n, "diagonal")
    if d1 == d2:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    return _diagonal(input, offset, d1, d2)


def _unfold_grad(g: Any, input_shape: Any, dim: Any, size: Any, step: Any) -> Any:
    """Windows overlap, so their gradients add up."""
    if not input_shape:
        return g.sum()
    full = g.new_zeros(input_shape)
    count = g._a.shape[dim]
    for k in range(size):
        piece = slice_dim(full, dim, k, k + (count - 1) * step + 1, step) if count else None
        if piece is not None:
            piece.add_(_select(g, g._a.ndim - 1, k))
    return full


@leaf({"input": _unfold_grad}, name="unfold", view=True)
def _unfold(input: Array, dim: int, size: int, step: int) -> Array:
    n = input.shape[dim] if input.ndim else 1
    stride = input.strides[dim] if input.ndim else input.itemsize
    shape, strides = list(input.shape), list(input.strides)
    if shape:
        shape[dim], strides[dim] = (n - size) // step + 1, stride * step
    return _strided(input, [*shape, size], [*strides, stride])


@op("Tensor")
def unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """A view of all windows of `size` along a dimension, `step` apart, as a last dimension."""
    d = wrap_dim(dimension, self._a.ndim, "unfold")
    n = self._a.shape[d] if self._a.ndim else 1
    if not 0 <= size <= n:
        raise RuntimeError(f"maximum size for tensor at dimension {d} is {n} but size is {size}")
    if step <= 0:
        raise RuntimeError(f"step is {step} but must be > 0")
    return _unfold(self, d, size, step)


# --- any strides ----------------------------------------------------------------------------------


def _as_strided_grad(g: Any, size: Any, stride: Any, storage_offset: Any, base: Any) -> Any:
    return _gather_window(g, base, (size, stride, storage_offset))


def _geometry(t: Tensor) -> tuple[Any, ...]:
    return t._a.shape, t.stride(), t.storage_offset()


def _gather_window(g: Tensor, base: Any, view: Any) -> Tensor:
    """Gradient of the base from that of a window on it: overlapping elements add up."""
    (shape, stride, offset), (size, step, start) = base, view
    span = max(_reach(shape, stride, offset), _reach(size, step, start))
    flat = g.new_zeros((span,))
    places = _places(size, step, start)
    flat = flat.index_add(0, wrap(places), g.reshape(-1))
    return flat.index_select(0, wrap(_places(shape, stride, offset))).reshape(shape)


def _reach(shape: Any, stride: Any, offset: int) -> int:
    return 0 if 0 in shape else offset + 1 + sum(
        (n - 1) * s for n, s in zip(shape, stride, strict=True))


def _places(shape: Any, stride: Any, offset: int) -> np.ndarray[Any, Any]:
    """Storage index of every element, in row-major order."""
    places = np.full((), offset, np.int64)
    for n, s in zip(shape, stride, strict=True):
        places = places[..., None] + np.arange(n, dtype=np.int64) * s
    return places.reshape(-1)


@leaf({"input": _as_strided_grad}, name="as_strided", view=True)
def _as_strided(input: Array, size: Any, stride: Any, storage_offset: Any, base: Any) -> Array:
    raise AssertionError("as_strided goes through the storage")


@op()
def as_strided(input: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """A view with any sizes and strides (in elements) on the storage; bounds are checked.

    RuntimeError if the window reaches outside the storage.
    """
    size, stride = as_size((tuple(size),)), as_size((tuple(stride),))
    if len(size) != len(stride):
        raise RuntimeError(f"mismatch in length of strides and shape: received {list(size)} and "
                           f"{list(stride)}")
    if any(s < 0 for s in stride) or any(n < 0 for n in size):
        raise RuntimeError("as_strided: Negative strides and sizes are not supported at the "
                           f"moment, got strides: {list(stride)}, sizes: {list(size)}")
    offset = input.storage_offset() if storage_offset is None else int(storage_offset)
    if offset < 0:
        raise RuntimeError(f"Tensor: invalid storage offset {offset}")
    width = input._dtype.itemsize
    window = storage_of(input).window(size, [s * width for s in stride], offset * width,
                                      input._dtype.np)
    out = share(input, window)
    if state.grad:
        record(_as_strided, out, (input,), (size, stride, offset, _geometry(input)))
    return out


def _view_of_base(base: Tensor, view: Tensor) -> Tensor:
    """A fresh view of `base` with the geometry of `view`, recorded."""
    if view._dtype is not base._dtype:
        raise RuntimeError("an in-place operation through a view of another dtype cannot be "
                           "recorded: write to the base tensor, or to a .clone()")
    out = share(base, view._a)
    with enable_grad():
        record(_as_strided, out, (base,), (*_geometry(view), _geometry(base)))
    return out


def _split_window(g: Tensor, base: Any, view: Any) -> tuple[Tensor, Tensor]:
    """Gradients of a write through a view: of the base (the window zeroed) and of the window."""
    shape, stride, offset = base
    size, step, start = view
    flat = g.new_zeros((max(_reach(shape, stride, offset), _reach(size, step, start)),))
    flat = flat.index_copy(0, wrap(_places(shape, stride, offset)), g.reshape(-1))
    places = wrap(_places(size, step, start))
    inner = flat.index_select(0, places).reshape(size)
    rest = flat.index_fill(0, places, 0).index_select(0, wrap(_places(shape, stride, offset)))
    return rest.reshape(shape), inner


Tensor._view_of_base = staticmethod(_view_of_base)  # type: ignore[attr-defined]
Tensor._split_window = staticmethod(_split_window)  # type: ignore[attr-defined]

# --- complex numbers as pairs ---------------------------------------------------------------------


def _part(a: Any, offset: int) -> Any:
    if type(a) is np.ndarray:
        return a.imag if offset else a.real
    half = np.dtype(np.float32 if a.itemsize == 8 else np.float64)
    return a.view_as(a.shape, a.strides, a.offset + offset * half.itemsize, half)


@leaf({"input": lambda g, input_dtype: g.to(input_dtype)}, name="real", view=True)
def _real(input: Array) -> Array:
    return _part(input, 0)


@leaf({"input": lambda g, input_dtype: g.to(input_dtype) * 1j}, name="imag", view=True)
def _imag(input: Array) -> Array:
    return _part(input, 1)


def _real_part(self: Tensor) -> Tensor:
    return _real(self) if self._dtype.kind == COMPLEX else self


def _imag_part(self: Tensor) -> Tensor:
    if self._dtype.kind != COMPLEX:
        raise RuntimeError("imag is not implemented for tensors with non-complex dtypes: received "
                           f"{self._dtype}")
    return _imag(self)


publish("Tensor", "real", property(_real_part, lambda self, v: _real_part(self).copy_(v) and None))
publish("Tensor", "imag", property(_imag_part, lambda self, v: _imag_part(self).copy_(v) and None))


@op("torch", name="real")
def real_part(input: Tensor) -> Tensor:
    """The real part, a view; real tensors as they are."""
    return _real_part(input)


@op("torch", name="imag")
def imag_part(input: Tensor) -> Tensor:
    """The imaginary part of a complex tensor, a view."""
    return _imag_part(input)


@leaf({"input": lambda g: view_as_complex(g.contiguous())}, name="view_as_real", view=True)
def _view_as_real(input: Array) -> Array:
    half = np.dtype(np.float32 if input.itemsize == 8 else np.float64)
    if type(input) is np.ndarray:
        return input[..., None].view(half)
    return input.view_as((*input.shape, 2), (*input.strides, half.itemsize), input.offset, half)


@op("torch")
def view_as_real(input: Tensor) -> Tensor:
    """A complex tensor as pairs of real numbers in a last dimension of size 2; a view."""
    if input._dtype.kind != COMPLEX:
        raise RuntimeError("view_as_real is only supported for complex tensors, received "
                           f"{input._dtype}")
    return _view_as_real(input)


@leaf({"input": lambda g: view_as_real(g)}, name="view_as_complex", view=True)
def _view_as_complex(input: Array) -> Array:
    whole = np.dtype(np.complex64 if input.itemsize == 4 else np.complex128)
    if type(input) is np.ndarray:
        return input.view(whole)[..., 0]
    return input.view_as(input.shape[:-1], input.strides[:-1], input.offset, whole)


@op("torch")
def view_as_complex(input: Tensor) -> Tensor:
    """Pairs of real numbers in the last dimension as complex numbers; a view."""
    a = input._a
    if input._dtype not in (float32, float64):
        raise RuntimeError("view_as_complex is only supported for half, float and double tensors, "
                           f"but got a tensor of scalar type: {input._dtype.name}")
    if a.ndim == 0 or a.shape[-1] != 2:
        raise RuntimeError("Tensor must have a last dimension of size 2, received shape "
                           f"{list(a.shape)}")
    strides = input.stride()
    if strides[-1] != 1:
        raise RuntimeError("Tensor must have a last dimension with stride 1")
    if any(s % 2 for s in strides[:-1]) or input.storage_offset() % 2:
        raise RuntimeError("Tensor must have a stride divisible by 2 for all but last dimension "
                           "and an even storage_offset; call .contiguous() first")
    return _view_as_complex(input)


