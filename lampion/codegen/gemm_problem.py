"""Matrix products before they run: what is known of one, and whether its arguments fit."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..debug.knobs import knobs
from ..runtime.recording import is_steady
from .gemm_factors import Factors, factors
from .gemm_kernel import Variant
from .gemm_pack import Tile, tile_of
from .target import target
from .types import Type, dtype_name, of_numpy

__all__ = ["Problem", "problem"]

Array = np.ndarray[Any, Any]


class Problem(NamedTuple):
    """What is known of a product before it runs. Steps are in numbers: (rows, columns)."""

    factors: Factors
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
    result: Type  # of out and bias
    steady: bool = False  # whether B is packed once for many calls

    @property
    def columns(self) -> int:
        """Of real parts."""
        return self.n * self.factors.parts

    @property
    def work(self) -> int:
        """Multiply-adds of real numbers, or of groups."""
        return self.matrices * self.m * self.columns * self.k * self.factors.parts

    @property
    def matrices(self) -> int:
        """Products in the batch."""
        return int(np.prod(self.batch))

    @property
    def tile(self) -> Tile:
        """What its kernels hold in registers."""
        return tile_of(target(knobs.target), self.factors.element, self.factors.parts)

    @property
    def name(self) -> tuple[Any, ...]:
        """What the kernels' names have in common."""
        return self.factors.name, self.result.name, self.bias, self.scaled, len(self.batch)

    def turned(self) -> Problem:
        """The transposed problem."""
        bias = {"column": "row", "row": "column", "": ""}[self.bias]
        return self._replace(factors=self.factors.turned(), m=self.n, n=self.m, bias=bias,
                             out=self.out[::-1], a=self.b[::-1], b=self.a[::-1], shared=False,
                             steady=False)

    def variant(self, b: str = "panels") -> Variant:
        """What is compiled."""
        return Variant(self.factors, self.bias, self.scaled, len(self.batch), b, self.result)


def problem(out: Array, a: Array, b: Array, bias: Array | None, scaled: bool) -> Problem:
    """Everything checked; ValueError where something does not fit."""
    found = factors(*map(dtype_name, (a.dtype, b.dtype, out.dtype)), target(knobs.target))
    if found is None:
        raise ValueError(f"a product of dtypes {a.dtype} and {b.dtype} into {out.dtype}: see "
                         "`gemm` for those that there are")
    (*batch, m, n), k = out.shape, a.shape[-1] if a.ndim else 0
    if a.shape != (*batch, m, k) or b.shape != (*batch, k, n) or len(batch) > 2:
        raise ValueError(f"a product of {a.shape} and {b.shape} into {out.shape}: expected "
                         "(..., m, k), (..., k, n) and (..., m, n) with at most two batch axes")
    if bias is not None and (bias.shape != (n,) or bias.dtype != out.dtype):
        raise ValueError(f"a bias of shape {bias.shape} and dtype {bias.dtype} for a product of "
                         f"shape {out.shape} and dtype {out.dtype}")
    if not found.sum.is_float and (scaled or bias is not None):
        raise ValueError(f"a product of integers, {out.dtype}, has neither bias nor factor")
    if any(s % x.itemsize for x in (out, a, b) for s in x.strides):
        raise ValueError("strides that are no multiples of the element size: copy the array first")
    shared = bool(batch) and all(x == 1 or not s for x, s in zip(batch, b.strides, strict=False))
    return Problem(found, tuple(batch), m, n, k, steps(out), steps(a), steps(b), shared,
                   "" if bias is None else "column", scaled, _result(found, out.dtype),
                   is_steady(b))


def _result(found: Factors, dtype: np.dtype[Any]) -> Type:
    return found.sum if found.parts == 2 else of_numpy(dtype_name(dtype))


def steps(x: Array) -> tuple[int, int]:
    """Steps of the last two axes; of an axis with one element as if it were contiguous."""
    rows, columns = (1 if n == 1 else s // x.itemsize
                     for n, s in zip(x.shape[-2:], x.strides[-2:], strict=True))
    return rows, columns
