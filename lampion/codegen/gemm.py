"""Matrix products on ndarrays: which kernel runs, on which blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ..debug.knobs import knobs
from . import service
from .gemm_kernel import A_BLOCK, Epilogue, Tile, Variant, build, tile_of
from .gemm_pack import build_pack
from .target import target
from .types import F32, F64, Type

__all__ = ["bmm", "gemm"]

Array = np.ndarray[Any, Any]

_DEPTH = 384  # rows of B in one block
_DIRECT = 1 << 16  # elements of B, or of A in one block, that are used where they lie
_TASK = 1 << 20  # multiply-adds worth a task
_TASKS = 32  # tasks of one product, at most as far as its blocks allow
_ELEMENTS = {np.dtype(np.float32): F32, np.dtype(np.float64): F64}


def gemm(out: Array, a: Array, b: Array, bias: Array | None = None, accumulate: bool = False,
         alpha: float = 1.0, epilogue: Epilogue | None = None) -> bool:
    """`out = epilogue(alpha * a @ b + bias)`, or with `accumulate` plus what `out` held.

    out (m, n), a (m, k), b (k, n) of one dtype, float32 or float64, with any strides; bias (n,).
    `out` must not share memory with the others. ValueError where shapes or dtypes do not fit.
    False, and `out` as it was, while a kernel is being made: the caller has the reference.
    """
    m, n = out.shape
    depth = a.shape[1]
    if a.shape != (m, depth) or b.shape != (depth, n):
        raise _mismatch(out, a, b)
    return _product(out, a, b, bias, accumulate, alpha, epilogue, "column", 0)


def bmm(out: Array, a: Array, b: Array, bias: Array | None = None, accumulate: bool = False,
        alpha: float = 1.0, epilogue: Epilogue | None = None) -> bool:
    """`gemm` of each matrix of a batch with one or two leading axes.

    out (z, m, n), a (z, m, k), b (z, k, n), or (y, z, ...); an axis of stride 0 is shared.
    """
    (*batch, m, n), depth = out.shape, a.shape[-1]
    if a.shape != (*batch, m, depth) or b.shape != (*batch, depth, n) or not 1 <= len(batch) <= 2:
        raise _mismatch(out, a, b)
    return _product(out, a, b, bias, accumulate, alpha, epilogue, "column", len(batch))


def _mismatch(out: Array, a: Array, b: Array) -> ValueError:
    return ValueError(f"a product of {a.shape} and {b.shape} into {out.shape}: expected "
                      "(..., m, k), (..., k, n) and (..., m, n) with one or two batch axes at most")


def _product(out: Array, a: Array, b: Array, bias: Array | None, accumulate: bool, alpha: float,
             epilogue: Epilogue | None, along: str, axes: int) -> bool:
    """`gemm` and `bmm` on shapes that fit; `along`: the axis of `out` that the bias runs along."""
    element = _ELEMENTS.get(out.dtype)
    if element is None or a.dtype != out.dtype or b.dtype != out.dtype:
        raise _unfit(out, a, b)
    if not out.size:
        return True
    size = element.size
    steps, a_steps, b_steps = out.strides, a.strides, b.strides
    if steps[-1] != size and out.shape[-1] != 1:
        return _turned(out, a, b, bias, accumulate, alpha, epilogue, along, axes)
    if any(s % size for s in (*steps, *a_steps, *b_steps)):
        raise ValueError("strides that are no multiples of the element size: copy the array first")
    if bias is not None:
        bias = _checked_bias(bias, out, along)
    tile = _tile(element, knobs.target)
    m, n = out.shape[-2:]
    k = a.shape[-1]
    batch = 1 if not axes else out.size // max(m * n, 1)
    b_row = b_panel = b_batch = 0
    rows, columns, block, pack = _plan(tile, size, m, n, k, batch)
    kernel = _kernel(element, along if bias is not None else "", alpha != 1.0, axes, epilogue)
    if kernel is None:
        return False
    if not _direct(tile, size, m, n, k, b_steps):
        panels, b_batch = _packed(b, element, tile, axes)
        if panels is None:
            return False
        b = panels
        b_row, b_panel = tile.width, tile.width * k
    if pack and a_steps[-1] != size and a_steps[-2] != size:
        pack = 0
    if alpha == 1.0:
        kernel(out, a, b, bias, b_row, b_panel, b_batch, rows, columns, block, pack, accumulate)
    else:
        kernel(out, a, b, bias, b_row, b_panel, b_batch, rows, columns, block, pack, accumulate,
               alpha, 1.0)
    return True


def _unfit(*arrays: Array) -> ValueError:
    names = ", ".join(str(x.dtype) for x in arrays)
    return ValueError(f"a product of dtypes {names}: expected three times float32 or float64")


def _checked_bias(bias: Array, out: Array, along: str) -> Array:
    """The bias as contiguous elements of the product's dtype."""
    wanted = out.shape[-1 if along == "column" else -2]
    if bias.shape != (wanted,) or bias.dtype != out.dtype:
        raise ValueError(f"a bias of shape {bias.shape} and dtype {bias.dtype} for a product of "
                         f"shape {out.shape} and dtype {out.dtype}")
    return np.ascontiguousarray(bias)


def _turned(out: Array, a: Array, b: Array, bias: Array | None, accumulate: bool, alpha: float,
            epilogue: Epilogue | None, along: str, axes: int) -> bool:
    """A result whose rows are not contiguous: the transposed problem, or through a copy."""
    if out.strides[-2] == out.itemsize and epilogue is None:
        turned = {"column": "row", "row": "column"}[along]
        return _product(out.swapaxes(-1, -2), b.swapaxes(-1, -2), a.swapaxes(-1, -2), bias,
                        accumulate, alpha, epilogue, turned, axes)
    whole = np.array(out, order="C") if accumulate else np.empty(out.shape, out.dtype)
    done = _product(whole, a, b, bias, accumulate, alpha, epilogue, along, axes)
    if done:
        out[...] = whole
    return done


def _direct(tile: Tile, size: int, m: int, n: int, k: int, steps: tuple[int, ...]) -> bool:
    """Whether B is used where it lies: rows are contiguous, and it is small or few rows ask."""
    if not k:
        return True
    if (steps[-1] != size and n != 1) or tile.lanes * size <= 16:
        return False
    return n * k <= _DIRECT or m <= 2 * tile.rows


@lru_cache(4096)
def _plan(tile: Tile, size: int, m: int, n: int, k: int, batch: int) -> tuple[int, ...]:
    """Rows and columns of a task, rows of B in a block, whether A's blocks are packed.

    The block depends on k alone: it is what decides in which order products are summed.
    """
    parts = -(-k // _DEPTH) or 1
    block = max(-(-k // parts), 1)
    space = A_BLOCK // size  # for rows of a block or for its columns, each with a gap below 32
    most = min(space // (block + 31), space // block - 31) // tile.rows
    tiles, panels = -(-m // tile.rows) or 1, -(-n // tile.width) or 1
    tasks = min(_TASKS, max(1, batch * m * n * k // _TASK))
    by_rows = -(-tiles // most)
    by_columns = min(panels, max(1, tasks // (by_rows * batch)))
    rows = -(-tiles // by_rows) * tile.rows
    columns = -(-panels // by_columns) * tile.width
    pack = m * block > _DIRECT and columns >= 4 * tile.width
    return rows, columns, block, int(pack)


@lru_cache(8)
def _tile(element: Type, name: str) -> Tile:
    return tile_of(target(name), element)


# --- packed panels ------------------------------------------------------------------------------


def _packed(b: Array, element: Type, tile: Tile, axes: int) -> tuple[Array | None, int]:
    """B as panels in memory of this thread, and the elements from one matrix to the next."""
    if all(not s or n == 1 for n, s in zip(b.shape[:axes], b.strides, strict=False)):
        b, axes = b[(0,) * axes], 0  # one matrix for the whole batch
    k, n = b.shape[-2:]
    panels = -(-n // tile.width)
    each = panels * tile.width * k
    count = b.size // max(k * n, 1)
    along = ("rows" if b.strides[-1] == b.itemsize else
             "columns" if b.strides[-2] == b.itemsize else "any")
    pack = _pack_kernel(element, along, axes)
    if pack is None:
        return None, 0
    space = _workspace(count * each, b.dtype)
    small = count * k * n <= _DIRECT
    if along == "rows":
        pack(space, b, k if small else max(8, k // _TASKS), panels)
    else:
        pack(space, b, k, panels if small else max(1, panels // _TASKS))
    return space, each if axes else 0


class _Space(threading.local):
    """Memory for packed panels, kept between products; one for each thread."""

    memory = np.empty(0, np.uint8)


_space = _Space()
_KEEP = 1 << 26


def _workspace(count: int, dtype: np.dtype[Any]) -> Array:
    """`count` elements that start at a cache line, valid until this thread's next product."""
    size = count * dtype.itemsize
    memory = _space.memory
    if memory.size < size:
        raw = np.empty(size + 64, np.uint8)
        memory = raw[-raw.ctypes.data % 64:][:size]
        if size <= _KEEP:
            _space.memory = memory
    return memory[:size].view(dtype)


# --- kernels ------------------------------------------------------------------------------------



def _kernel(element: Type, bias: str, scaled: bool, axes: int, epilogue: Epilogue | None
            ) -> Callable[..., None] | None:
    """The product's kernel of one variant, once it is made."""
    key = ("gemm", element.name, bias, scaled, axes, epilogue.key if epilogue else "")
    variant = Variant(element, bias, scaled, axes, epilogue)
    return service.kernel(key, lambda target: build(target, variant))


def _pack_kernel(element: Type, along: str, axes: int) -> Callable[..., None] | None:
    key = ("gemm pack", element.name, along, axes)
    return service.kernel(key, lambda target: build_pack(target, element, element, along, axes))
