"""Products of a few rows of complex numbers as real ones that read B in order.

To read B is what takes the time. Both parts of the rows become rows of their own, in front of the
parts of B as it lies: beside one another along its rows, or along k. Then what kernels for a few
real rows there are do the work, and the parts of the result are put together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..runtime import memory
from .fused import Fused, copy
from .gemm_factors import plain
from .gemm_problem import Problem
from .interpret import numpy_type

__all__ = ["FEW_ROWS", "by_parts"]

FEW_ROWS = 4

Array = np.ndarray[Any, Any]
Recipe = Callable[[Array, Array, Array, Array | None, bool, Any], bool]


def by_parts(p: Problem, recipe: Callable[[Problem], Recipe]) -> Recipe:
    """The product, without bias and factor, of a B that runs along its rows or along k."""
    element, along_k = p.factors.element, p.b[1] != 1
    n, k = (p.n, 2 * p.k) if along_k else (2 * p.n, p.k)
    b = (1, 2 * p.b[1]) if along_k else (2 * p.b[0], 1)
    inner = recipe(Problem(plain(element), (), 2 * p.m, n, k, (n, 1), (k, 1), b, False, "", False,
                           element, p.steady))
    kind = numpy_type(element)
    split, join = (_along_k, _joined) if along_k else (_rows, _crossed)

    def run(out: Array, a: Array, b: Array, bias: Array | None, add: bool, alpha: Any) -> bool:
        rows, sums = memory.empty((2 * p.m, k), kind), memory.empty((2 * p.m, n), kind)
        split(rows, a)
        parts = b.swapaxes(-1, -2).view(kind).swapaxes(-1, -2) if along_k else b.view(kind)
        if not inner(sums, rows, parts, None, False, 1.0):
            return False
        whole = memory.empty(out.shape, out.dtype) if add else out
        join(whole, sums)
        if add:
            _SUM([out.real, whole.real], [out.real])
            _SUM([out.imag, whole.imag], [out.imag])
        return True
    return run


_NEGATED = Fused(lambda x: (-x,), "negated")
_SUM = Fused(lambda x, y: (x + y,), "sum of parts")
_DIFFERENCE = Fused(lambda x, y: (x - y,), "difference of parts")


def _rows(rows: Array, a: Array) -> None:
    copy(rows[::2], a.real)
    copy(rows[1::2], a.imag)


def _along_k(rows: Array, a: Array) -> None:
    """Rows whose products with both parts of B are the real and the imaginary part."""
    copy(rows[::2, ::2], a.real)
    _NEGATED([a.imag], [rows[::2, 1::2]])
    copy(rows[1::2, ::2], a.imag)
    copy(rows[1::2, 1::2], a.real)


def _joined(out: Array, sums: Array) -> None:
    copy(out.real, sums[::2])
    copy(out.imag, sums[1::2])


def _crossed(out: Array, sums: Array) -> None:
    """The first of two rows of sums and i times the second."""
    first, second = sums[::2], sums[1::2]
    _DIFFERENCE([first[:, ::2], second[:, 1::2]], [out.real])
    _SUM([first[:, 1::2], second[:, ::2]], [out.imag])
