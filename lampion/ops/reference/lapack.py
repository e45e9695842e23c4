"""Matrix algorithms that NumPy lacks, over batches (..., m, n): LU, triangles, reflectors, exp."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any

_NARROW = 16  # columns below which LU goes column by column


def columns(a: Array) -> Array:
    """The same matrices stored column by column, as LAPACK leaves its results."""
    return np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2)


def lu(a: Array) -> tuple[Array, Array, Array]:
    """Partial pivoting: packed L and U, 1-based row exchanges, and the first zero pivot (or 0)."""
    packed = np.array(a, order="C")
    m, n = packed.shape[-2:]
    count = min(m, n)
    swaps = np.zeros((*packed.shape[:-2], count), np.int64)
    if packed.size:
        _factor(packed[..., :count], swaps)
        if n > count:
            right = packed[..., count:]
            right[...] = solve_triangle(packed[..., :count], _exchange(right, swaps), False, True)
    return packed, (swaps + 1).astype(np.int32), _first_zero(packed, count)


def _first_zero(packed: Array, count: int) -> Array:
    zero = np.diagonal(packed, 0, -2, -1)[..., :count] == 0
    first = np.argmax(zero, -1) + 1 if count else 0
    return np.where(zero.any(-1), first, 0).astype(np.int32)


def _factor(a: Array, swaps: Array) -> None:
    """Factors tall matrices in place: the left half, then what it leaves of the right half."""
    n = a.shape[-1]
    if n <= _NARROW:
        _factor_columns(a, swaps)
        return
    h = n // 2
    left, right = a[..., :h], a[..., h:]
    _factor(left, swaps[..., :h])
    right[...] = _exchange(right, swaps[..., :h])
    top, below = right[..., :h, :], right[..., h:, :]
    top[...] = solve_triangle(left[..., :h, :], top, False, True)
    below -= left[..., h:, :] @ top
    _factor(below, swaps[..., h:])
    left[..., h:, :] = _exchange(left[..., h:, :], swaps[..., h:])
    swaps[..., h:] += h


def _factor_columns(a: Array, swaps: Array) -> None:
    for k in range(a.shape[-1]):
        best = np.argmax(np.abs(a[..., k:, k]), -1) + k
        swaps[..., k] = best
        _swap(a, k, best)
        pivot = a[..., k, k][..., None]
        with np.errstate(all="ignore"):
            below = np.where(pivot == 0, a[..., k + 1:, k], a[..., k + 1:, k] / pivot)
        a[..., k + 1:, k] = below
        a[..., k + 1:, k + 1:] -= below[..., None] * a[..., k, None, k + 1:]


def _swap(a: Array, k: int, other: Array) -> None:
    where = other[..., None, None]
    row = np.take_along_axis(a, where, -2)
    np.put_along_axis(a, where, a[..., k:k + 1, :].copy(), -2)
    a[..., k:k + 1, :] = row


def _exchange(a: Array, swaps: Array) -> Array:
    """A copy of the rows of `a` after the exchanges k <-> swaps[k], in order."""
    return np.take_along_axis(a, row_order(swaps + 1, a.shape[-2])[..., None], -2)


def row_order(pivots: Array, m: int) -> Array:
    """The rows in the order that 1-based exchanges bring them into."""
    order = np.broadcast_to(np.arange(m), (*pivots.shape[:-1], m)).copy()
    for k in range(pivots.shape[-1]):
        other = pivots[..., k, None].astype(np.int64) - 1
        here = order[..., k:k + 1].copy()
        order[..., k:k + 1] = np.take_along_axis(order, other, -1)
        np.put_along_axis(order, other, here, -1)
    return order


def solve_triangle(a: Array, b: Array, upper: bool, unit: bool) -> Array:
    """X of A X = B for triangular A; the other triangle of `a` is not looked at."""
    if not upper:
        flipped = solve_triangle(a[..., ::-1, ::-1], b[..., ::-1, :], True, unit)
        return flipped[..., ::-1, :]
    t = np.triu(a)
    if unit:
        diagonal = np.arange(t.shape[-1])
        t[..., diagonal, diagonal] = 1
    lead = np.broadcast_shapes(t.shape[:-2], b.shape[:-2])
    if not t.size or not b.size:
        return np.zeros((*lead, *b.shape[-2:]), b.dtype)
    try:
        # LU of an upper triangle is the triangle itself: this is back substitution.
        return np.linalg.solve(t, b)
    except np.linalg.LinAlgError:
        return _substitute(t, b, lead)


def _substitute(t: Array, b: Array, lead: tuple[int, ...]) -> Array:
    """Back substitution that lets zeros on the diagonal give inf and nan."""
    x = np.broadcast_to(b, (*lead, *b.shape[-2:])).copy()
    with np.errstate(all="ignore"):
        for i in range(t.shape[-1] - 1, -1, -1):
            x[..., i, :] /= t[..., i, i, None]
            x[..., :i, :] -= t[..., :i, i, None] * x[..., i, None, :]
    return x


def reflect(h: Array, tau: Array, c: Array, left: bool, adjoint: bool) -> Array:
    """C multiplied by the orthogonal matrix of Householder reflectors, H1 H2 ... Hk."""
    k = tau.shape[-1]
    c = c.copy() if left else c.swapaxes(-1, -2).conj().copy()
    # (C Q)^H = Q^H C^H, so that both sides are products from the left.
    backwards = left != adjoint
    for i in (range(k - 1, -1, -1) if backwards else range(k)):
        v = h[..., :, i].copy()
        v[..., :i], v[..., i] = 0, 1
        scale = tau[..., i, None, None] if backwards else tau[..., i, None, None].conj()
        c -= scale * v[..., :, None] * (v[..., None, :].conj() @ c)
    return c if left else c.swapaxes(-1, -2).conj()


# Higham, "The scaling and squaring method for the matrix exponential revisited" (2005): the
# diagonal Pade approximant of degree 13 is good to double rounding up to this 1-norm.
_PADE = (64764752532480000., 32382376266240000., 7771770303897600., 1187353796428800.,
         129060195264000., 10559470521600., 670442572800., 33522128640., 1323241920., 40840800.,
         960960., 16380., 182., 1.)
_PADE_NORM = 5.371920351148152


def expm(a: Array) -> Array:
    """The exponential of square matrices."""
    if not a.size:
        return a.copy()
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    x = a.astype(wide)
    size = np.abs(x).sum(-2).max(-1)
    with np.errstate(all="ignore"):
        halvings = np.ceil(np.log2(size / _PADE_NORM))
    halvings = np.where(np.isfinite(halvings) & (halvings > 0), halvings, 0).astype(np.int64)
    x = x / np.exp2(halvings)[..., None, None]
    out = _pade(x)
    for step in range(int(halvings.max())):
        out = np.where((halvings > step)[..., None, None], out @ out, out)
    return out.astype(a.dtype)


def _pade(x: Array) -> Array:
    c, one = _PADE, np.eye(x.shape[-1])
    x2 = x @ x
    x4 = x2 @ x2
    x6 = x4 @ x2
    odd = x @ (x6 @ (c[13] * x6 + c[11] * x4 + c[9] * x2)
               + c[7] * x6 + c[5] * x4 + c[3] * x2 + c[1] * one)
    even = (x6 @ (c[12] * x6 + c[10] * x4 + c[8] * x2)
            + c[6] * x6 + c[4] * x4 + c[2] * x2 + c[0] * one)
    return np.linalg.solve(even - odd, even + odd)
