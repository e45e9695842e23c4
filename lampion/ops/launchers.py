"""Launchers of kernels that are no plain loop nests: matrix products, convolutions, attention.

Each takes the arguments of its operator's reference and returns the result, or None where the
reference must serve (another dtype, a layout that a kernel does not read, a kernel still being
made).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..runtime import memory
from .native import template

Array = Any

_FLOATS = frozenset((np.dtype(np.float32), np.dtype(np.float64)))


def _same_floats(*arrays: Array) -> bool:
    first = arrays[0].dtype
    return first in _FLOATS and all(a is None or a.dtype == first for a in arrays)


def _aligned(*arrays: Array) -> bool:
    """Whether all strides are whole elements (a field of a structured array's is not)."""
    return not any(s % a.itemsize for a in arrays for s in a.strides)


@template("mm")
def _mm(a: Array, b: Array) -> Any:
    from ..codegen.gemm import gemm

    if not (_same_floats(a, b) and _aligned(a, b)):
        return None
    out = memory.empty((a.shape[0], b.shape[1]), a.dtype)
    return out if gemm(out, a, b) else None


@template("bmm")
def _bmm(a: Array, b: Array) -> Any:
    from ..codegen.gemm import bmm

    if not (_same_floats(a, b) and _aligned(a, b)):
        return None
    out = memory.empty((*a.shape[:-1], b.shape[-1]), a.dtype)
    return out if bmm(out, a, b) else None


@template("linear")
def _linear(x: Array, weight: Array, bias: Array) -> Any:
    from ..codegen.gemm import gemm

    if not (_same_floats(x, weight, bias) and _aligned(x, weight)):
        return None
    rows = x if x.ndim == 2 else x.reshape((-1, x.shape[-1]) if x.size else (0, x.shape[-1]))
    out = memory.empty((rows.shape[0], weight.shape[0]), x.dtype)
    if not gemm(out, rows, weight.T, bias):
        return None
    return out if x.ndim == 2 else out.reshape(*x.shape[:-1], weight.shape[0])


@template("addmm")
def _addmm(start: Array, a: Array, b: Array, beta: Any, alpha: Any) -> Any:
    from ..codegen.gemm import gemm

    if not (_same_floats(start, a, b) and _aligned(a, b)):
        return None
    out = memory.empty((a.shape[0], b.shape[1]), a.dtype)
    if beta == 1 and start.shape == (b.shape[1],):
        return out if gemm(out, a, b, start, alpha=float(alpha)) else None
    return _plus_product(gemm, out, start, a, b, beta, alpha)


@template("baddbmm")
def _baddbmm(start: Array, a: Array, b: Array, beta: Any, alpha: Any) -> Any:
    from ..codegen.gemm import bmm

    if not (_same_floats(start, a, b) and _aligned(a, b)):
        return None
    out = memory.empty((*a.shape[:-1], b.shape[-1]), a.dtype)
    return _plus_product(bmm, out, start, a, b, beta, alpha)


def _plus_product(multiply: Any, out: Array, start: Array, a: Array, b: Array, beta: Any,
                  alpha: Any) -> Any:
    """`beta * start + alpha * a @ b`; with beta 0 `start` is not read."""
    if beta != 0:
        out[...] = start if beta == 1 else start * beta
    return out if multiply(out, a, b, accumulate=beta != 0, alpha=float(alpha)) else None
