"""Matrix products on ndarrays: which kernel runs, on which blocks.

Everything that follows from sizes, strides and dtypes is decided once and remembered as a recipe;
a further call with the same ones only looks it up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..debug.knobs import knobs
from ..runtime import memory
from ..runtime.recording import is_steady
from . import service
from .fused import Fused, as_contiguous, copied, copy, fill
from .gemm_dot import SINGLE_ROWS, build_dot
from .gemm_kernel import Variant, build
from .gemm_pack import Tile, build_pack, tile_of
from .gemm_stream import MOST_ROWS, build_stream
from .gemm_tiles import A_BLOCK, K_BLOCK
from .interpret import numpy_type
from .ir import Kernel
from .target import Target, target
from .types import BF16, F32, F64, I32, Type

__all__ = ["Packed", "Repeated", "bmm", "gemm"]

Array = np.ndarray[Any, Any]
Recipe = Callable[[Array, Array, Array, Array | None, bool, float], bool]

_ITSELF = 1 << 16  # elements of B that are used where they lie
_TASK = 1 << 20  # multiply-adds worth a task
_READ = 1 << 16  # elements of B worth a task where reading them is what takes the time
_TASKS = 32  # tasks of one product, at most, as far as its blocks allow
_PACKED = 1 << 21  # elements of B that are packed at a time
_FEW = 4  # rows, from which on panels beat a B that is read in order
_DOT_ROWS = 32  # up to so many rows dot products beat packing B
_STEADY_DOT_ROWS = 3  # and beat panels that were packed before
_ELEMENTS = {np.dtype(np.float32): F32, np.dtype(np.float64): F64}


def gemm(out: Array, a: Array, b: Array, bias: Array | None = None, accumulate: bool = False,
         alpha: float = 1.0) -> bool:
    """`out = alpha * a @ b + bias`, or with `accumulate` plus what `out` held.

    out (m, n), a (m, k), b (k, n) of one dtype, float32 or float64, with any strides; bias (n,).
    Or a and b of bfloat16, the others of float32, where the processor multiplies pairs of them.
    `out` must not share memory with the others. ValueError where shapes or dtypes do not fit.
    False, and `out` as it was, while a kernel is being made: the caller has the reference.

    The order in which an element is summed depends on k alone, but where up to 32 rows meet a B
    that runs along k; with the knob `invariant_rows` there too.

    >>> import numpy as np
    >>> from lampion.debug.knobs import override
    >>> out = np.empty((2, 3), np.float32)
    >>> with override(kernels="sync"):
    ...     gemm(out, np.ones((2, 4), np.float32), np.ones((4, 3), np.float32), alpha=0.5)
    True
    >>> out[0].tolist()
    [2.0, 2.0, 2.0]
    """
    key = (out.shape, out.strides, a.shape, a.strides, b.shape, b.strides, out.dtype, a.dtype,
           b.dtype, None if bias is None else (bias.shape, bias.strides, bias.dtype),
           alpha == 1.0, knobs.target, knobs.invariant_rows, is_steady(b))
    recipe = _recipes.get(key)
    if recipe is None:
        recipe = _remember(key, out, a, b, bias, alpha)
    return recipe(out, a, b, bias, accumulate, alpha)


bmm = gemm  # of out (z, m, n), a (z, m, k), b (z, k, n), or (y, z, ...): see `gemm`

_recipes: dict[Any, Recipe] = {}


def _remember(key: Any, out: Array, a: Array, b: Array, bias: Array | None, alpha: float
              ) -> Recipe:
    if len(_recipes) >= 4096:  # programs whose sizes change all the time
        _recipes.clear()
    problem = _problem(out, a, b, bias, alpha != 1.0)
    recipe = _recipes[key] = _recipe(problem)
    return recipe


# --- the problem --------------------------------------------------------------------------------


class Packed(NamedTuple):
    """A product whose B is packed already, for kernels that make their panels themselves.

    a (z, m, k) has steps `a`, b is panels of (panels, rows_of_b, width), for each z `plane` apart.
    """

    element: Type
    z: int
    m: int
    n: int
    rows_of_b: int
    a: tuple[int, int]
    plane: int

    def launch(self, k: int) -> Recipe:
        """The recipe for the first k rows of B."""
        p = _Problem(self.element, (self.z,), self.m, self.n, k, (self.n, 1), self.a,
                     (self.n, 1), False, "", False)
        tile = _tile(self.element, knobs.target)
        panel = tile.width * self.rows_of_b
        return _launch(*_product(p, "panels"), tile.width, panel, self.plane, *_plan(p, tile))


class _Problem(NamedTuple):
    """What is known of a product before it runs. Steps are in elements: (rows, columns)."""

    element: Type
    batch: tuple[int, ...]
    m: int
    n: int
    k: int
    out: tuple[int, int]
    a: tuple[int, int]
    b: tuple[int, int]
    shared: bool  # one B for the whole batch
    bias: str
    scaled: bool
    steady: bool = False  # whether B is packed once for many calls

    def turned(self) -> _Problem:
        """The transposed problem."""
        bias = {"column": "row", "row": "column", "": ""}[self.bias]
        return self._replace(m=self.n, n=self.m, out=self.out[::-1], a=self.b[::-1],
                             b=self.a[::-1], bias=bias, shared=False, steady=False)

    def variant(self, b: str = "panels") -> Variant:
        """What is compiled."""
        return Variant(self.element, self.bias, self.scaled, len(self.batch), b)


def _problem(out: Array, a: Array, b: Array, bias: Array | None, scaled: bool
             ) -> _Problem:
    """Everything checked; ValueError where something does not fit."""
    element = _ELEMENTS.get(out.dtype)
    if element == F32 and a.dtype.name == b.dtype.name == "bfloat16":
        element = BF16
    elif element is None or a.dtype != out.dtype or b.dtype != out.dtype:
        raise ValueError(f"a product of dtypes {a.dtype} and {b.dtype} into {out.dtype}: expected "
                         "three times float32 or float64, or two of bfloat16 into float32")
    (*batch, m, n), k = out.shape, a.shape[-1] if a.ndim else 0
    if a.shape != (*batch, m, k) or b.shape != (*batch, k, n) or len(batch) > 2:
        raise ValueError(f"a product of {a.shape} and {b.shape} into {out.shape}: expected "
                         "(..., m, k), (..., k, n) and (..., m, n) with at most two batch axes")
    if bias is not None and (bias.shape != (n,) or bias.dtype != out.dtype):
        raise ValueError(f"a bias of shape {bias.shape} and dtype {bias.dtype} for a product of "
                         f"shape {out.shape} and dtype {out.dtype}")
    if any(s % x.itemsize for x in (out, a, b) for s in x.strides):
        raise ValueError("strides that are no multiples of the element size: copy the array first")
    shared = bool(batch) and all(x == 1 or not s for x, s in zip(batch, b.strides, strict=False))
    return _Problem(element, tuple(batch), m, n, k, _steps(out), _steps(a), _steps(b), shared,
                    "" if bias is None else "column", scaled, is_steady(b))


def _steps(x: Array) -> tuple[int, int]:
    """Steps of the last two axes; of an axis with one element as if it were contiguous."""
    rows, columns = (1 if n == 1 else s // x.itemsize
                     for n, s in zip(x.shape[-2:], x.strides[-2:], strict=True))
    return rows, columns


# --- recipes ------------------------------------------------------------------------------------


def _recipe(p: _Problem) -> Recipe:
    """How the product is computed."""
    if not p.m * p.n * int(np.prod(p.batch)):
        return lambda *_: True
    if p.out[1] != 1:
        return _turned(_recipe(p.turned())) if p.out[0] == 1 else _copied(p)
    if p.element == BF16:
        return _pairs(p)
    if p.n < p.m and p.n == 1 == p.out[0]:
        return _turned(_recipe(p.turned()))  # a vector as one row
    if _is_stream(p):
        return _stream(p)
    if _is_dot(p):
        return _dot(p)
    rows, columns, block, pack = _plan(p, _tile(p.element, knobs.target))
    plan = (0, 0, 0, rows, columns, block, pack)
    if target(knobs.target).has_masks and _lies_well(p):
        return _launch(*_product(p, "panels"), *plan)
    if (p.m <= rows and not p.steady) or p.k == 0:
        return _launch(*_product(p, _along(p)), *plan)
    return _in_parts(p) if p.n * p.k > _PACKED and not p.batch else _packed(p, plan[3:], _along(p))


def _lies_well(p: _Problem) -> bool:
    """Whether B can be used itself: its rows are contiguous, and it stays in a near cache."""
    return p.b[1] == 1 and (p.n * p.k <= _ITSELF or p.m <= _tile(p.element, knobs.target).rows)


def _along(p: _Problem) -> str:
    """The axis along which elements of B are neighbours in memory."""
    return "rows" if p.b[1] == 1 else "columns" if p.b[0] == 1 else "any"


def _turned(inner: Recipe) -> Recipe:
    """The transposed problem."""
    def run(out: Array, a: Array, b: Array, bias: Array | None, add: bool, alpha: float) -> bool:
        return inner(out.swapaxes(-1, -2), b.swapaxes(-1, -2), a.swapaxes(-1, -2), bias, add,
                     alpha)
    return run


def _copied(p: _Problem) -> Recipe:
    """By way of a contiguous result."""
    inner = _recipe(p._replace(out=(p.n, 1)))

    def run(out: Array, a: Array, b: Array, bias: Array | None, add: bool, alpha: float) -> bool:
        whole = copied(out) if add else memory.empty(out.shape, out.dtype)
        done = inner(whole, a, b, bias, add, alpha)
        if done:
            copy(out, whole)
        return done
    return run


def _launch(key: Any, make: Callable[[Target], Kernel], *plan: int) -> Recipe:
    """One kernel on the operands as they are."""
    def run(out: Array, a: Array, b: Array, bias: Array | None, add: bool, alpha: float) -> bool:
        kernel = service.kernel(key, make)
        if kernel is None:
            return False
        if bias is not None and bias.strides[0] != bias.itemsize:
            bias = copied(bias)
        if alpha == 1.0:
            kernel(out, a, b, bias, *plan, add)
        else:
            kernel(out, a, b, bias, *plan, add, alpha)
        return True
    return run


def _product(p: _Problem, b: str) -> tuple[Any, Callable[[Target], Kernel]]:
    """The key of a product's kernel and what makes it."""
    variant = p.variant(b)
    return ("gemm", *_name(p), b), lambda target: build(target, variant)


def _name(p: _Problem) -> tuple[Any, ...]:
    return (p.element.name, p.bias, p.scaled, len(p.batch))


def _is_stream(p: _Problem) -> bool:
    """Very few rows, and B is too large to be read out of order."""
    return (p.b[1] == 1 and p.m <= MOST_ROWS and not p.batch
            and p.n * p.k > _READ // 4)


def _stream(p: _Problem) -> Recipe:
    parts = max(min(2, p.n * p.k // _READ), min(_TASKS, p.n // 1536))  # rows should be long
    columns = _share(p.n, 256, parts)
    variant = p.variant()
    return _launch(("gemm stream", *_name(p)), lambda target: build_stream(target, variant),
                   columns, _block(p.k))


def _is_dot(p: _Problem) -> bool:
    """Few rows, and both operands run along k. These sums have an order of their own."""
    lanes = _tile(p.element, knobs.target).lanes
    most = _STEADY_DOT_ROWS if p.steady else _DOT_ROWS
    return (p.m <= most and p.n >= lanes and p.k >= lanes and not p.batch
            and p.a[1] == 1 == p.b[0] and not knobs.invariant_rows)


def _dot(p: _Problem) -> Recipe:
    lanes = _tile(p.element, knobs.target).lanes
    work = max(p.n * p.k // _READ, p.m * p.n * p.k // _TASK)
    columns = _share(p.n, lanes, min(_TASKS, work))
    variant, single = p.variant(), p.m <= SINGLE_ROWS
    return _launch(("gemm dot", *_name(p), single),
                   lambda target: build_dot(target, variant, single), columns)


def _share(size: int, unit: int, parts: int) -> int:
    """A multiple of `unit` that cuts `size` into about `parts`."""
    units = -(-size // unit)
    return -(-units // max(1, min(parts, units))) * unit


@lru_cache(8)
def _tile(element: Type, name: str) -> Tile:
    return tile_of(target(name), element)


def _block(k: int) -> int:
    """Rows of B in a block. It depends on k alone: it decides the order of summation."""
    parts = -(-k // K_BLOCK) or 1
    return -(-k // parts) or 1


def _plan(p: _Problem, tile: Tile) -> tuple[int, int, int, int]:
    """Rows and columns of a task, rows of B in a block, whether blocks of A are packed."""
    block, batch = _block(p.k), int(np.prod(p.batch))
    space = A_BLOCK // p.element.size  # of rows of a block or its columns, with gaps below 32
    most = min(space // (block + 31), space // block - 31) // tile.rows
    tiles = -(-p.m // tile.rows)
    tasks = max(1, min(_TASKS, batch * p.m * p.n * p.k // _TASK) // batch)
    panels, copies = -(-p.n // tile.width), _scattered(p, block)
    by_rows = max(-(-tiles // most), min(tasks, tiles // 4))
    rows = _share(p.m, tile.rows, by_rows)
    parts = tasks // by_rows  # columns rather than rows: a panel is then read once
    if copies and panels >= 4:
        parts = min(parts, panels // 4)  # panels that use the copy of a block
    columns = _share(p.n, tile.width, parts)
    return rows, columns, block, int(columns >= 4 * tile.width and copies)


def _scattered(p: _Problem, block: int) -> bool:
    """Whether a block of A is better copied before it is read once for each panel of B."""
    rows, columns = p.a
    if columns == 1:  # rows a multiple of a page apart compete for the same few cache lines
        return rows * p.element.size % 4096 == 0 and p.m >= 8
    return rows == 1 and p.m * block > _ITSELF


# --- pairs of bfloat16 ---------------------------------------------------------------------------


def _pairs(p: _Problem) -> Recipe:
    """Pairs along k as elements of 32 bits, which one instruction multiplies and adds."""
    if not target(knobs.target).has_bf16_dot:
        return lambda *_: False
    k, rows = (p.k + 1) // 2, p.b[1] == 1 != p.b[0]
    inner = _paired(p._replace(element=I32, k=k, a=(k, 1), b=(p.n, 1) if rows else (1, k)), rows)

    def run(out: Array, a: Array, b: Array, bias: Array | None, add: bool, alpha: float) -> bool:
        if not rows:
            b = _as_pairs(b.swapaxes(-1, -2)).swapaxes(-1, -2)
        return inner(out, _as_pairs(a), b, bias, add, alpha)
    return run


def _paired(p: _Problem, rows: bool) -> Recipe:
    """The product of pairs; of rows of B they are made by packing."""
    plan = _plan(p, _tile(p.element, knobs.target))
    if p.k == 0 or (p.m <= plan[0] and not rows):
        return _launch(*_product(p, "columns"), 0, 0, 0, *plan)
    return _packed(p, plan, "pairs" if rows else "columns")


def _as_pairs(x: Array) -> Array:
    """Neighbours along the last axis as one element; a zero at the end where one is missing."""
    odd = x.shape[-1] % 2
    if not odd and x.strides[-1] == 2 and not any(s % 4 for s in x.strides[:-1]):
        return x.view(np.int32)
    if x.strides[-2] == 2 and x.size:
        return _rows_as_pairs(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    whole = memory.empty((*x.shape[:-1], x.shape[-1] + odd), x.dtype)
    copy(whole[..., :x.shape[-1]], x)
    fill(whole[..., x.shape[-1]:], 0)
    return whole.view(np.int32)


def _rows_as_pairs(x: Array) -> Array:
    """Each row beside the next as one of pairs."""
    x, (*batch, rows, columns) = x.view(np.uint16), x.shape
    out = memory.empty((*batch, (rows + 1) // 2, columns), np.dtype(np.int32))
    if rows > 1:
        _INTERLEAVED([x[..., :rows - 1:2, :], x[..., 1::2, :]], [out[..., :rows // 2, :]])
    if rows % 2:
        _WIDENED([x[..., -1, :]], [out[..., -1, :]])
    return out


_INTERLEAVED = Fused(lambda low, high: (low.astype(np.int32) | high.astype(np.int32) * 65536,),
                     "pairs")
_WIDENED = Fused(lambda low: (low.astype(np.int32),), "last of pairs")


# --- packed panels ------------------------------------------------------------------------------


def _packed(p: _Problem, plan: tuple[int, ...], along: str) -> Recipe:
    """B as panels first, then the product of those."""
    key, make = _product(p, "panels")
    axes = 0 if p.shared else len(p.batch)
    width = _tile(p.element, knobs.target).width
    each = -(-p.n // width) * width * p.k if axes else 0
    launch, panels = _launch(key, make, width, width * p.k, each, *plan), _panels(p, along)
    first = (0,) * len(p.batch)

    def run(out: Array, a: Array, b: Array, bias: Array | None, add: bool, alpha: float) -> bool:
        space = panels(b[first] if p.shared else b) if service.kernel(key, make) else None
        return space is not None and launch(out, a, space, bias, add, alpha)
    return run


def _in_parts(p: _Problem) -> Recipe:
    """Some columns at a time, so that what is packed of B stays in the last-level cache."""
    tile = _tile(p.element, knobs.target)
    some = max(1, _PACKED // (p.k * tile.width)) * tile.width
    parts = []
    for j in range(0, p.n, some):
        part = p._replace(n=min(some, p.n - j))
        parts.append((slice(j, j + some), _packed(part, _plan(part, tile), _along(p))))

    def run(out: Array, a: Array, b: Array, bias: Array | None, add: bool, alpha: float) -> bool:
        return all(recipe(out[:, at], a, b[:, at], None if bias is None else bias[
            slice(None) if p.bias == "row" else at], add, alpha) for at, recipe in parts)
    return run


def _panels(p: _Problem, along: str) -> Callable[[Array], Array | None]:
    """What packs a B; None while its kernel is being made."""
    axes = 0 if p.shared else len(p.batch)
    element, width = p.element, _tile(p.element, knobs.target).width
    source = BF16 if along == "pairs" else element
    key, dtype = ("gemm pack", element.name, along, axes), numpy_type(element)
    panels, batch = -(-p.n // width), int(np.prod(p.batch[:axes]))
    parts = min(_TASKS, batch * p.k * p.n // _READ)
    share = ((_share(p.k, 8, parts), panels) if along == "rows" else
             (max(p.k, 1), _share(panels, 1, parts)))

    def run(b: Array) -> Array | None:
        pack = service.kernel(key, lambda target: build_pack(target, source, element, along, axes))
        if pack is None:
            return None
        space = memory.empty((batch * panels * width * p.k,), dtype)
        pack(space, b, *share)
        return space
    return run


class Repeated:
    """A matrix (k, n) that several others are multiplied by: packed once, if that pays.

    It may be used as long as the matrix does not change.
    """

    def __init__(self, b: Array) -> None:
        self.b, self.panels, (self.k, self.n) = b, None, b.shape
        element = _ELEMENTS.get(b.dtype)
        if element is not None and b.size > _ITSELF and not any(s % b.itemsize for s in b.strides):
            p = _Problem(element, (), 1, self.n, self.k, (self.n, 1), (self.k, 1), _steps(b),
                         False, "", False)
            self.panels = _panels(p, _along(p))(b)
        if self.panels is None:
            self.b = as_contiguous(b)

    def launch(self, out: Array, a: Array, add: bool) -> bool:
        """`out = a @ b`, or with `add` plus what `out` held: as `gemm`."""
        if self.panels is None or len(a) < _FEW or a.dtype != self.b.dtype or out.strides[1] != (
                out.itemsize):
            return gemm(out, a, self.b, accumulate=add)
        key = ("repeated", out.shape, out.strides, a.strides, out.dtype, knobs.target, self.k)
        recipe = _recipes.get(key)
        if recipe is None:
            recipe = _recipes[key] = Packed(
                _ELEMENTS[out.dtype], 1, len(a), self.n, self.k, _steps(a), 0).launch(self.k)
        return recipe(out[None], a[None], self.panels, None, add, 1.0)
