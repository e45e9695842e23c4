"""Forms of the views: as copies (`*_copy`), in place (`t_`), and the other splits."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor.tensor import Tensor, wrap
from .convert import resize_as_
from .families import Array
from .forms import bump, check_writable
from .indexing import zero_
from .record import PUBLIC, leaf, not_differentiable, op, publish
from .results import result_tuple
from .view import alias, chunk, slice_dim, split, split_with_sizes, tensor_split

__all__: list[str] = []


# --- copies ---------------------------------------------------------------------------------------


def _copied(result: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(_copied(t) for t in result)
    from ..tensor.formats import contiguous_format

    return result.clone(memory_format=contiguous_format)


def _copy_form(name: str, view: Any, places: str = "torch") -> None:
    def call(input: Tensor, *args: Any, **kwargs: Any) -> Any:
        return _copied(view(input, *args, **kwargs))
    call.__name__ = call.__qualname__ = name + "_copy"
    call.__doc__ = f"The result of `{name}` as a copy with memory of its own."
    op(places, out=True)(call)


def _slice(input: Tensor, dim: int = 0, start: Any = None, end: Any = None,
           step: int = 1) -> Tensor:
    return slice_dim(input, dim % input._a.ndim, start, end, step)


for _name in ("as_strided", "diagonal", "detach", "permute", "select", "split_with_sizes",
              "squeeze", "t", "transpose", "unbind", "unsqueeze", "view_as_complex",
              "view_as_real", "split"):
    _copy_form(_name, PUBLIC["torch"][_name])
for _name in ("expand", "unfold", "view"):
    _copy_form(_name, getattr(Tensor, _name))
_copy_form("narrow", PUBLIC["torch"]["narrow"], "torch Tensor")
_copy_form("alias", alias)
_copy_form("slice", _slice)


# --- in place -------------------------------------------------------------------------------------


def _in_place_view(name: str, view: Any) -> None:
    def call(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_writable(self, name)
        turned = view(self, *args, **kwargs)
        bump(self, name)
        self._a, self._fn, self._nr = turned._a, turned._fn, turned._nr
        return self
    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"The tensor itself takes the form of `{name[:-1]}`."
    publish("Tensor", name, call)


for _name in ("t", "transpose", "swapaxes", "swapdims", "squeeze", "unsqueeze", "as_strided"):
    _in_place_view(_name + "_", PUBLIC["torch"][_name])
publish("torch", "zero_", zero_)
publish("torch", "resize_as_", resize_as_)


# --- splits ---------------------------------------------------------------------------------------


def _split_form(name: str, dim: int, least: int, sizes: str) -> None:
    def call(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
        n = input._a.ndim
        if n < least:
            raise RuntimeError(f"torch.{name} requires a tensor with at least {least} dimension"
                               f"{'s' * (least > 1)}, but got a tensor with {n} dimensions!")
        d = 0 if n == 1 else dim
        if isinstance(indices_or_sections, int):
            count, size = indices_or_sections, input._a.shape[d]
            if count == 0 or size % count:
                raise RuntimeError(f"torch.{name} attempted to split along dimension {d}, but the "
                                   f"size of the dimension {size} is not divisible by the "
                                   f"split_size {count}!")
        return tensor_split(input, indices_or_sections, d)
    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"Views of equal pieces, or cut at the given indices, {sizes}."
    op("torch")(call)
    op("Tensor", name=name)(lambda self, *cuts, indices_or_sections=None: call(
        self, indices_or_sections if not cuts else cuts[0] if len(cuts) == 1 else cuts))


_split_form("hsplit", 1, 1, "column by column")
_split_form("vsplit", 0, 2, "row by row")
_split_form("dsplit", 2, 3, "along the third dimension")
op(name="unsafe_chunk")(chunk)
op(name="unsafe_split")(split)
op(name="unsafe_split_with_sizes")(split_with_sizes)


# --- places ---------------------------------------------------------------------------------------


@op("torch")
def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Indices into a flattened tensor of `shape` as indices of its dimensions."""
    sizes = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
    if any(n < 0 for n in sizes):
        raise ValueError(f"'shape' cannot have negative values, but got {sizes}")
    if indices._dtype.kind != 1:
        raise ValueError(f"expected 'indices' to be integer dtype, but got {indices._dtype}")
    found = []
    for n in reversed(sizes):
        found.append(indices % n)
        indices = indices.div(n, rounding_mode="floor")
    return tuple(reversed(found))


@op(out=True)
def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """The first `size` places of nonzero elements; rows are filled up with `fill_value`."""
    if size < 0:
        raise RuntimeError(f"nonzero_static: 'size' must be an non-negative integer, got {size}")
    places = input.nonzero()[:size]
    rest = size - places._a.shape[0]
    return Tensor._cat([places, places.new_full((rest, input._a.ndim), fill_value)], 0)


@leaf({"input": lambda g, out1: g[0] * (-out1.to(g[0]._dtype)).exp2()}, name="frexp",
      shape=lambda a: [(a.shape, a.dtype), (a.shape, np.dtype(np.int32))])
def _frexp(input: Array) -> Any:
    mantissa, exponent = np.frexp(input)
    return np.asarray(mantissa, input.dtype), np.asarray(exponent, np.int32)


_frexp_names = result_tuple("frexp", "mantissa exponent")


@op(out=True)
def frexp(input: Tensor) -> Any:
    """Mantissas in [0.5, 1) and exponents of two whose product is `input`."""
    if input._dtype.kind != 2:
        raise RuntimeError("torch.frexp() only supports floating-point dtypes")
    return _frexp_names(*_frexp(input))


@op("torch")
def empty_permuted(size: Any, physical_layout: Any, **how: Any) -> Tensor:
    """An undefined tensor whose dimensions lie in memory in the given order."""
    from .creation import empty

    order = tuple(physical_layout)
    if sorted(order) != list(range(len(size))):
        raise RuntimeError("Number of dimensions in size does not match the length of the "
                           f"physical_layout; i.e. len(size) = {len(size)} is not equal to "
                           f"len(physical_layout) = {len(order)}, or it is no permutation")
    base = empty(tuple(size[d] for d in order), **how)
    return base.permute(tuple(int(p) for p in np.argsort(order))).detach()


_histogramdd_names = result_tuple("histogramdd", "hist bin_edges")


@leaf(not_differentiable("counts"), name="histogramdd", exact=True)
def _histogramdd(input: Array, edges: Any, weight: Any, density: bool) -> Array:
    flat = input.reshape(-1, input.shape[-1])
    counts = np.histogramdd(flat, edges, weights=weight, density=density)[0]
    return counts.astype(input.dtype)


@op("torch")
def histogramdd(input: Tensor, bins: Any, *, range: Any = None, weight: Any = None,
                density: bool = False) -> Any:
    """Counts of points (the last dimension holds coordinates) in a grid of bins."""
    edges = _edges(input._a.reshape(-1, input._a.shape[-1]), bins, range)
    counts = _histogramdd(input, edges, None if weight is None else weight._a.reshape(-1), density)
    return _histogramdd_names(counts, tuple(wrap(e) for e in edges))


def _edges(points: Any, bins: Any, limits: Any) -> list[Any]:
    dims = points.shape[-1]
    if not isinstance(bins, int) and isinstance(bins[0], Tensor):
        return [b._a for b in bins]
    counts = [bins] * dims if isinstance(bins, int) else list(bins)
    edges = []
    for d, n in enumerate(counts):
        low, high = limits[2 * d:2 * d + 2] if limits is not None else (
            (points[:, d].min(), points[:, d].max()) if len(points) else (0.0, 1.0))
        if low == high:
            low, high = low - 0.5, high + 0.5
        edges.append(np.linspace(low, high, n + 1).astype(points.dtype))
    return edges
