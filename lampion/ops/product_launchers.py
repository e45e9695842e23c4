"""Launchers of matrix products: see `launchers.py`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..debug.knobs import knobs
from ..runtime import memory
from ..runtime.recording import recording_here
from .launchers import aligned, fused, fused_kernels, gemm_kernels
from .native import template

Array = Any

_I32 = np.dtype(np.int32)



def _multiplies(a: Array, b: Array, other: Any = None) -> bool:
    """Whether there is a kernel for a product of two arrays in their own dtype."""
    dtype = a.dtype
    for x in (b, other):
        if x is not None and x.dtype is not dtype and x.dtype != dtype:
            return False
    return _has_product(dtype) and aligned(a, b)


@cache
def _has_product(dtype: Any) -> bool:
    from ..codegen.gemm import has_product

    return has_product(dtype, dtype, dtype)


@template("mm")
def _mm(a: Array, b: Array) -> Any:
    if not _multiplies(a, b) or _is_for_blas(a, b):
        return None
    out = memory.empty((a.shape[0], b.shape[1]), a.dtype)
    return out if gemm_kernels.gemm(out, a, b) else None


def _is_for_blas(a: Array, b: Array) -> bool:
    """A vector of complex numbers times a matrix: NumPy's BLAS is a fifth quicker.

    Programs launch kernels alone.
    """
    return (a.dtype.kind == "c" and 1 in (a.shape[0], b.shape[1])
            and not knobs.invariant_rows and recording_here() is None)


@template("mv")
def _mv(a: Array, v: Array) -> Any:
    column = v[:, None]
    if not _multiplies(a, v) or _is_for_blas(a, column):
        return None
    out = memory.empty((a.shape[0],), a.dtype)
    return out if gemm_kernels.gemm(out[:, None], a, column) else None


@template("bmm")
def _bmm(a: Array, b: Array) -> Any:
    if not _multiplies(a, b):
        return None
    out = memory.empty((*a.shape[:-1], b.shape[-1]), a.dtype)
    return out if gemm_kernels.gemm(out, a, b) else None


@template("_int_mm")
def _int_mm(a: Array, b: Array) -> Any:
    if not aligned(a, b):
        return None
    out = memory.empty((a.shape[0], b.shape[1]), _I32)
    return out if gemm_kernels.gemm(out, a, b) else None


@template("linear")
def _linear(x: Array, weight: Array, bias: Array) -> Any:
    if not _multiplies(x, weight, bias) or _is_for_blas(x, weight.T):
        return None
    rows = x if x.ndim == 2 else fused_kernels.reshaped(
        x, (-1 if x.size else 0, x.shape[-1]))
    out = memory.empty((rows.shape[0], weight.shape[0]), x.dtype)
    whole = x.dtype.kind in "iu"
    if not gemm_kernels.gemm(out, rows, weight.T, None if whole else bias):
        return None
    if whole and bias is not None:
        fused(_sum)([out, bias], [out])
    return out if x.ndim == 2 else out.reshape(*x.shape[:-1], weight.shape[0])


@template("addmm")
def _addmm(start: Array, a: Array, b: Array, beta: Any, alpha: Any) -> Any:
    if not _multiplies(a, b, start):
        return None
    out = memory.empty((a.shape[0], b.shape[1]), a.dtype)
    if beta == 1 and start.shape == (b.shape[1],) and a.dtype.kind not in "iu":
        return out if gemm_kernels.gemm(out, a, b, start, alpha=_factor(alpha, a)) else None
    return _plus_product(gemm_kernels.gemm, out, start, a, b, beta, alpha)


@template("baddbmm")
def _baddbmm(start: Array, a: Array, b: Array, beta: Any, alpha: Any) -> Any:
    if not _multiplies(a, b, start):
        return None
    out = memory.empty((*a.shape[:-1], b.shape[-1]), a.dtype)
    return _plus_product(gemm_kernels.gemm, out, start, a, b, beta, alpha)


def _factor(alpha: Any, a: Array) -> Any:
    """What a product is multiplied by, as its kernel takes it."""
    return complex(alpha) if a.dtype.kind == "c" else float(alpha)


def _sum(a: Array, b: Array) -> Any:
    return (a + b,)


def _scaled(start: Array, beta: Any) -> Any:
    return (start * beta,)


def _weighted(product: Array, start: Array, beta: Any, alpha: Any) -> Any:
    return (start * beta + product * alpha,)


def _times(real: Array, imag: Array, c: Any, d: Any) -> Any:
    """(real + i imag) (c + i d)"""
    return real * c - imag * d, real * d + imag * c


def _plus_product(multiply: Any, out: Array, start: Array, a: Array, b: Array, beta: Any,
                  alpha: Any) -> Any:
    """`beta * start + alpha * a @ b`; with beta 0 `start` is not read."""
    if a.dtype.kind in "iu":
        return _plus_whole(multiply, out, start, a, b, beta, alpha)
    if beta != 0:
        _begin(out, np.broadcast_to(start, out.shape), beta)
    done = multiply(out, a, b, accumulate=beta != 0, alpha=_factor(alpha, a))
    return out if done else None


def _begin(out: Array, start: Array, beta: Any) -> None:
    """`out[...] = beta * start`"""
    if beta == 1:
        fused_kernels.copy(out, start)
    elif out.dtype.kind == "c":
        beta = complex(beta)
        fused(_times)([start.real, start.imag, beta.real, beta.imag], [out.real, out.imag])
    else:
        fused(_scaled)([start, beta], [out])


def _plus_whole(multiply: Any, out: Array, start: Array, a: Array, b: Array, beta: Any,
                alpha: Any) -> Any:
    """Of integers: their kernels only multiply."""
    if not multiply(out, a, b):
        return None
    if beta != 0:
        start = np.broadcast_to(start, out.shape)
        fused(_weighted)([out, start, int(beta), int(alpha)], [out])
    elif alpha != 1:
        fused(_scaled)([out, int(alpha)], [out])
    return out
