"""Matrix products on ndarrays: which kernel runs, on which blocks.

Everything that follows from sizes, strides and dtypes is decided once and remembered as a recipe;
a further call with the same ones only looks it up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..debug.knobs import knobs
from ..runtime import memory
from ..runtime.recording import is_steady
from . import service
from .fused import Fused, as_contiguous, copied, copy
from .gemm_complex import FEW_ROWS, by_parts
from .gemm_dot import SINGLE_ROWS, build_dot
from .gemm_factors import factors, plain
from .gemm_groups import as_groups, corrections
from .gemm_kernel import build
from .gemm_pack import build_pack
from .gemm_problem import Problem, problem, steps
from .gemm_stream import MOST_ROWS, build_stream
from .gemm_tiles import A_BLOCK, K_BLOCK
from .interpret import numpy_type
from .ir import Kernel
from .target import Target, target
from .types import F32, F64, Type, dtype_name

__all__ = ["Packed", "Repeated", "bmm", "gemm", "has_product"]

Array = np.ndarray[Any, Any]
Recipe = Callable[[Array, Array, Array, Array | None, bool, Any], bool]

_ITSELF = 1 << 16  # elements of B that are used where they lie
_TASK = 1 << 20  # multiply-adds worth a task
_READ = 1 << 16  # elements of B worth a task where reading them is what takes the time
_TASKS = 32  # tasks of one product, at most, as far as its blocks allow
_PACKED = 1 << 21  # elements of B that are packed at a time
_FEW = 4  # rows, from which on panels beat a B that is read in order
_DOT_ROWS = 32  # up to so many rows dot products beat packing B
_STEADY_DOT_ROWS = 3  # and beat panels that were packed before
_PAIR_ROWS = 4  # up to so many rows of bfloat16 are cast as they are read rather than paired
_FLOATS = {np.dtype(np.float32): plain(F32), np.dtype(np.float64): plain(F64)}
_CAST = Fused(lambda a: (a,), "cast")


def gemm(out: Array, a: Array, b: Array, bias: Array | None = None, accumulate: bool = False,
         alpha: Any = 1.0) -> bool:
    """`out = alpha * a @ b + bias`, or with `accumulate` plus what `out` held.

    out (m, n), a (m, k), b (k, n) of one dtype, with any strides; bias (n,): floats of 16, 32 and
    64 bits, complex64 and complex128, signed integers and uint8. Or a and b of float16 or bfloat16
    into float32, int8 or int16 into int32, uint8 and int8 into int32. Floats of 16 bits are summed
    in float32 and rounded once; integers wrap around, and have neither bias nor alpha.
    `out` must not share memory with the others. ValueError where shapes or dtypes do not fit.
    False, and `out` as it was, while a kernel is being made: the caller has the reference.

    The order in which an element is summed depends on k alone, but where up to 32 rows meet a B
    that runs along k, or up to 4 of bfloat16 or complex numbers any B; with the knob
    `invariant_rows` there too.

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


def _remember(key: Any, out: Array, a: Array, b: Array, bias: Array | None, alpha: Any
              ) -> Recipe:
    if len(_recipes) >= 4096:  # programs whose sizes change all the time
        _recipes.clear()
    recipe = _recipes[key] = _recipe(problem(out, a, b, bias, alpha != 1.0))
    return recipe


def has_product(a: np.dtype[Any], b: np.dtype[Any], out: np.dtype[Any]) -> bool:
    """Whether there is a product of these dtypes."""
    return factors(*map(dtype_name, (a, b, out)), target(knobs.target)) is not None


# --- B that somebody else packs -----------------------------------------------------------------


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
        p = Problem(plain(self.element), (self.z,), self.m, self.n, k, (self.n, 1), self.a,
                    (self.n, 1), False, "", False, self.element)
        tile = p.tile
        panel = tile.width * self.rows_of_b
        return _launch(*_product(p, "panels"), tile.width, panel, self.plane, *_plan(p))


# --- recipes ------------------------------------------------------------------------------------


def _recipe(p: Problem) -> Recipe:
    """How the product is computed."""
    if not p.m * p.n * p.matrices:
        return lambda *_: True
    if p.out[1] != 1:
        return _turned(_recipe(p.turned())) if p.out[0] == 1 else _copied(p)
    if p.n < p.m and p.n == 1 == p.out[0]:
        return _turned(_recipe(p.turned()))  # a vector as one row
    if _is_by_parts(p):
        return by_parts(p, _recipe)
    single = _unpaired(p)
    if _is_dot(single):
        return _dot(single)
    if p.result.is_float and p.result != p.factors.sum and _is_summed_in_parts(p):
        return _rounded(p)
    if _is_stream(single):
        return _stream(single)
    if p.factors.members is not None:
        return _one_by_one(p) if p.factors.is_shifted and p.batch else _grouped(p)
    if not _is_readable(p):
        return _reordered(p)
    rows, columns, block, pack = _plan(p)
    plan = (0, 0, 0, rows, columns, block, pack)
    if target(knobs.target).has_masks and _lies_well(p):
        return _launch(*_product(p, "panels"), *plan)
    if (p.m <= rows and not p.steady) or p.k == 0:
        return _launch(*_product(p, _along(p)), *plan)
    if p.columns * p.k > _PACKED and not p.batch:
        return _in_parts(p)
    return _packed(p, plan[3:], _along(p))


def _lies_well(p: Problem) -> bool:
    """Whether B can be used itself: its rows are contiguous, and it stays in a near cache."""
    return p.b[1] == 1 and not p.factors.is_cast and (
        p.columns * p.k <= _ITSELF or p.m <= p.tile.rows)


def _along(p: Problem) -> str:
    """The axis along which elements of B are neighbours in memory."""
    return "rows" if p.b[1] == 1 else "columns" if p.b[0] == 1 else "any"


def _is_readable(p: Problem) -> bool:
    """Whether A can be read: what is cast is copied along a unit stride."""
    return not p.factors.is_cast or 1 in p.a


def _unpaired(p: Problem) -> Problem:
    """Few rows of bfloat16 cast rather than paired: to read B is what takes the time."""
    name = p.factors.name
    if name != "pairs" or p.m > _PAIR_ROWS or knobs.invariant_rows:
        return p
    found = factors("bfloat16", "bfloat16", "float32", target(knobs.target), False)
    assert found is not None
    return p._replace(factors=found)


def _turned(inner: Recipe) -> Recipe:
    """The transposed problem."""
    def run(out: Array, a: Array, b: Array, bias: Array | None, add: bool, alpha: Any) -> bool:
        return inner(out.swapaxes(-1, -2), b.swapaxes(-1, -2), a.swapaxes(-1, -2), bias, add,
                     alpha)
    return run


def _copied(p: Problem) -> Recipe:
    """By way of a contiguous result."""
    inner = _recipe(p._replace(out=(p.n, 1)))

    def run(out: Array, a: Array, b: Array, bias: Array | None, add: bool, alpha: Any) -> bool:
        whole = copied(out) if add else memory.empty(out.shape, out.dtype)
        done = inner(whole, a, b, bias, add, alpha)
        if done:
            copy(out, whole)
        return done
    return run


def _reordered(p: Problem) -> Recipe:
    """By way of a contiguous A."""
    inner = _recipe(p._replace(a=(p.k, 1)))

    def run(out: Array, a: Array, b: Array, bias: Array | None, add: bool, alpha: Any) -> bool:
        return inner(out, copied(a), b, bias, add, alpha)
    return run


def _is_summed_in_parts(p: Problem) -> bool:
    """Whether there are several blocks of k, which cannot meet in a result of fewer bits."""
    return p.k > K_BLOCK * p.factors.group


def _rounded(p: Problem) -> Recipe:
    """By way of a result as it is summed, rounded in one pass."""
    inner = _recipe(p._replace(result=p.factors.sum, out=(p.n, 1)))
    kind = numpy_type(p.factors.sum)

    def run(out: Array, a: Array, b: Array, bias: Array | None, add: bool, alpha: Any) -> bool:
        whole = memory.empty(out.shape, kind)
        if add:
            _CAST([out], [whole])
        if bias is not None:
            given, bias = bias, memory.empty(bias.shape, kind)
            _CAST([given], [bias])
        done = inner(whole, a, b, bias, add, alpha)
        if done:
            _CAST([whole], [out])
        return done
    return run


def _launch(key: Any, make: Callable[[Target], Kernel], *plan: int) -> Recipe:
    """One kernel on the operands as they are."""
    def run(out: Array, a: Array, b: Array, bias: Array | None, add: bool, alpha: Any) -> bool:
        kernel = service.kernel(key, make)
        if kernel is None:
            return False
        if bias is not None and bias.strides[0] != bias.itemsize:
            bias = copied(bias)
        if alpha == 1.0:
            kernel(out, a, b, bias, *plan, add)
        elif alpha.__class__ is complex:
            kernel(out, a, b, bias, *plan, add, alpha.real, alpha.imag)
        else:
            kernel(out, a, b, bias, *plan, add, alpha)
        return True
    return run


def _product(p: Problem, b: str) -> tuple[Any, Callable[[Target], Kernel]]:
    """The key of a product's kernel and what makes it."""
    variant = p.variant(b)
    return ("gemm", *p.name, b), lambda target: build(target, variant)


def _is_stream(p: Problem) -> bool:
    """Very few rows, and B is too large to be read out of order."""
    most = MOST_ROWS // 2 if p.factors.is_cast else MOST_ROWS
    return (p.b[1] == 1 and p.m <= most and not p.batch and p.n * p.k > _READ // 4
            and p.factors.members is None and p.factors.parts == 1)


def _is_by_parts(p: Problem) -> bool:
    """Very few rows of complex numbers, and a large B."""
    return (p.factors.parts == 2 and p.m <= FEW_ROWS and not p.batch and 1 in p.b
            and p.n * p.k > _READ // 8 and not p.bias and not p.scaled
            and not knobs.invariant_rows)


def _stream(p: Problem) -> Recipe:
    parts = max(min(2, p.n * p.k // _READ), min(_TASKS, p.n // 1536))  # rows should be long
    columns = _share(p.n, 256, parts)
    variant = p.variant()
    return _launch(("gemm stream", *p.name), lambda target: build_stream(target, variant),
                   columns, _block(p.k))


def _is_dot(p: Problem) -> bool:
    """Few rows, and both operands run along k. These sums have an order of their own."""
    most = _STEADY_DOT_ROWS if p.steady else _DOT_ROWS
    return (p.m <= most and p.factors.members is None and p.factors.parts == 1 and _fits_dot(p)
            and not knobs.invariant_rows)


def _fits_dot(p: Problem) -> bool:
    """Whether both operands run along k, for a vector and more."""
    lanes = p.tile.lanes
    return p.n >= lanes <= p.k and p.a[1] == 1 == p.b[0] and not p.batch


def _dot(p: Problem) -> Recipe:
    lanes = p.tile.lanes
    work = max(p.n * p.k // _READ, p.m * p.n * p.k // _TASK)
    columns = _share(p.n, lanes, min(_TASKS, work))
    variant, single = p.variant(), p.m <= SINGLE_ROWS
    return _launch(("gemm dot", *p.name, single),
                   lambda target: build_dot(target, variant, single), columns)


def _share(size: int, unit: int, parts: int) -> int:
    """A multiple of `unit` that cuts `size` into about `parts`."""
    units = -(-size // unit)
    return -(-units // max(1, min(parts, units))) * unit


def _block(k: int) -> int:
    """Rows of B in a block. It depends on k alone: it decides the order of summation."""
    parts = -(-k // K_BLOCK) or 1
    return -(-k // parts) or 1


def _plan(p: Problem) -> tuple[int, int, int, int]:
    """Rows and columns of a task, rows of B in a block, whether blocks of A are packed."""
    tile, block = p.tile, _block(p.k)
    each, space = p.factors.parts, A_BLOCK // p.factors.element.size
    # Rows of a block or its columns, with gaps below 32.
    most = min(space // (block * each + 31), (space // block - 31) // each) // tile.rows
    tiles = -(-p.m // tile.rows)
    tasks = max(1, min(_TASKS, p.work // _TASK) // p.matrices)
    panels, copies = -(-p.columns // tile.width), p.factors.is_cast or _scattered(p, block)
    by_rows = max(-(-tiles // most), min(tasks, tiles // 4))
    rows = _share(p.m, tile.rows, by_rows)
    parts = tasks // by_rows  # columns rather than rows: a panel is then read once
    if copies and panels >= 4:
        parts = min(parts, panels // 4)  # panels that use the copy of a block
    columns = _share(p.columns, tile.width, parts)
    return rows, columns, block, int(columns >= 4 * tile.width and copies)


def _scattered(p: Problem, block: int) -> bool:
    """Whether a block of A is better copied before it is read once for each panel of B."""
    rows, columns = p.a
    if columns == 1:  # rows a multiple of a page apart compete for the same few cache lines
        return rows * p.factors.size % 4096 == 0 and p.m >= 8
    return rows == 1 and p.m * block > _ITSELF


# --- groups along k ------------------------------------------------------------------------------


def _grouped(p: Problem) -> Recipe:
    """Groups along k as elements of 32 bits, which one instruction multiplies and adds."""
    f, rows = p.factors, p.b[1] == 1 != p.b[0]  # rows of B are grouped as they are packed
    k = -(-p.k // f.group)
    p = p._replace(k=k, a=(k, 1), b=(p.n, 1) if rows else (1, k),
                   bias="row" if f.is_shifted else p.bias)
    few = p.m <= SINGLE_ROWS and f.sum == f.element and _fits_dot(p)
    inner = _dot(p) if few else _grouped_product(p, rows)
    assert f.members is not None
    first, second = f.members[0], f.b if f.is_shifted else f.members[1]

    def run(out: Array, a: Array, b: Array, bias: Array | None, add: bool, alpha: Any) -> bool:
        if not rows:
            b = as_groups(b.swapaxes(-1, -2), f.b, second).swapaxes(-1, -2)
        a = as_groups(a, f.a, first)
        if few:
            a = as_contiguous(a)
        if f.is_shifted:
            bias = corrections(a)
            if bias is None:
                return False
        return inner(out, a, b, bias, add, alpha)
    return run


def _one_by_one(p: Problem) -> Recipe:
    """Each matrix of the batch has corrections of its own."""
    inner = _grouped(p._replace(batch=(), shared=False))

    def run(out: Array, a: Array, b: Array, bias: Array | None, add: bool, alpha: Any) -> bool:
        return all(inner(out[i], a[i], b[i], bias, add, alpha) for i in np.ndindex(p.batch))
    return run


def _grouped_product(p: Problem, rows: bool) -> Recipe:
    """The product of groups; of rows of B they are made by packing."""
    plan, along = _plan(p), "groups" if rows else "columns"
    if p.k == 0 or (p.m <= plan[0] and not rows) or (p.m <= p.tile.rows and not p.steady):
        return _launch(*_product(p, along), 0, 0, 0, *plan)
    return _packed(p, plan, along)


# --- packed panels ------------------------------------------------------------------------------


def _packed(p: Problem, plan: tuple[int, ...], along: str) -> Recipe:
    """B as panels first, then the product of those."""
    key, make = _product(p, "panels")
    axes = 0 if p.shared else len(p.batch)
    width = p.tile.width
    each = -(-p.columns // width) * width * p.k if axes else 0
    launch, panels = _launch(key, make, width, width * p.k, each, *plan), _panels(p, along)
    first = (0,) * len(p.batch)

    def run(out: Array, a: Array, b: Array, bias: Array | None, add: bool, alpha: Any) -> bool:
        space = panels(b[first] if p.shared else b) if service.kernel(key, make) else None
        return space is not None and launch(out, a, space, bias, add, alpha)
    return run


def _in_parts(p: Problem) -> Recipe:
    """Some columns at a time, so that what is packed of B stays in the last-level cache."""
    width = p.tile.width // p.factors.parts
    some = max(1, _PACKED // (p.k * p.tile.width)) * width
    parts = []
    for j in range(0, p.n, some):
        part = p._replace(n=min(some, p.n - j))
        parts.append((slice(j, j + some), _packed(part, _plan(part), _along(p))))

    def run(out: Array, a: Array, b: Array, bias: Array | None, add: bool, alpha: Any) -> bool:
        return all(recipe(out[:, at], a, b[:, at], None if bias is None else bias[
            slice(None) if p.bias == "row" else at], add, alpha) for at, recipe in parts)
    return run


def _panels(p: Problem, along: str) -> Callable[[Array], Array | None]:
    """What packs a B; None while its kernel is being made."""
    axes = 0 if p.shared else len(p.batch)
    f, width = p.factors, p.tile.width
    key, dtype = ("gemm pack", f.name, along, axes), numpy_type(f.element)
    panels, batch = -(-p.columns // width), int(np.prod(p.batch[:axes]))
    parts = min(_TASKS, batch * p.k * p.columns // _READ)
    share = ((_share(p.k, 8, parts), panels) if along in ("rows", "groups") else
             (max(p.k, 1), _share(panels, 1, parts)))

    def run(b: Array) -> Array | None:
        pack = service.kernel(key, lambda target: build_pack(target, f, along, axes))
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
        found = _FLOATS.get(b.dtype)
        if found is not None and b.size > _ITSELF and not any(s % b.itemsize for s in b.strides):
            p = Problem(found, (), 1, self.n, self.k, (self.n, 1), (self.k, 1), steps(b), False,
                        "", False, found.sum)
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
                _FLOATS[out.dtype].sum, 1, len(a), self.n, self.k, steps(a), 0).launch(self.k)
        return recipe(out[None], a[None], self.panels, None, add, 1.0)
