"""Linear equations: inverse, solve, triangles, Cholesky, LU, determinants, powers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor.dtype import COMPLEX, FLOAT
from ..tensor.tensor import Tensor, wrap
from .contraction import matmul
from .errors import argument_type
from .families import Array, broadcast_shape, conj
from .record import leaf, op, publish
from .reference import lapack
from .reference.lapack import columns
from .results import result_tuple

__all__ = ["LinAlgError", "check_matrix", "check_square", "eye_like"]

_INT32 = np.dtype(np.int32)


class LinAlgError(RuntimeError):
    """A matrix that a decomposition cannot take: singular, not positive-definite, ..."""


publish("linalg", "LinAlgError", LinAlgError)


# --- checks ---------------------------------------------------------------------------------------


def check_matrix(name: str, a: Any, argument: str = "A") -> None:
    """A tensor of floating point or complex matrices, or an error that says what it is."""
    if not isinstance(a, Tensor):
        raise argument_type(name, argument, "Tensor", a)
    if a._a.ndim < 2:
        raise RuntimeError(f"{name}: The input tensor {argument} must have at least 2 dimensions: "
                           f"received shape {list(a._a.shape)}")
    if a._dtype.kind < FLOAT:
        raise RuntimeError(f"{name}: Expected a floating point or complex tensor as input. Got "
                           f"{a._dtype.name}; convert it with .float()")
    if a._dtype.is_reduced:
        raise RuntimeError(f"{name}: Low precision dtypes not supported. Got {a._dtype.name}; "
                           "convert it with .float()")


def check_square(name: str, a: Any, argument: str = "A") -> None:
    """Square matrices, or an error."""
    check_matrix(name, a, argument)
    m, n = a._a.shape[-2:]
    if m != n:
        raise RuntimeError(f"{name}: {argument} must be batches of square matrices, but they are "
                           f"{m} by {n} matrices")


def check_pair(name: str, a: Tensor, b: Any) -> None:
    """Two operands of one dtype."""
    if not isinstance(b, Tensor):
        raise argument_type(name, "B", "Tensor", b)
    if a._dtype is not b._dtype:
        raise RuntimeError(f"{name}: Expected A and B to have the same dtype, but found A of type "
                           f"{a._dtype.name} and B of type {b._dtype.name} instead")


def eye_like(a: Tensor, n: int) -> Tensor:
    """The identity matrix of size n in the dtype and on the device of `a`."""
    return a.new_ones(n).diag_embed()


def _batch(a: Any) -> Any:
    return a.shape[:-2]


def _info(a: Any) -> Any:
    return _batch(a), _INT32


def _failed(info: Array) -> tuple[str, int]:
    """Where in the batch it failed, for messages, and the failing row."""
    flat = np.atleast_1d(info).reshape(-1)
    at = int(np.flatnonzero(flat)[0])
    return (f"(Batch element {at}): " if info.ndim else ""), int(flat[at])


def _fail_singular(name: str, info: Array, what: str) -> None:
    if info.any():
        batch, row = _failed(info)
        raise LinAlgError(f"{name}: {batch}The diagonal element {row} is zero, the {what} could "
                          "not be completed because the input matrix is singular.")


# --- inverse and solve ----------------------------------------------------------------------------


def _one_by_one(a: Array, compute: Any) -> Array:
    """Results matrix by matrix; NaN where NumPy refuses one of them."""
    out = np.full_like(a, np.nan)
    for place in np.ndindex(a.shape[:-2]):
        try:
            out[place] = compute(a[place])
        except np.linalg.LinAlgError:
            pass
    return out


def _inv_grad(g: Any, out0: Any) -> Any:
    h = out0.mH
    return -matmul(h, matmul(g[0], h))


@leaf({"input": _inv_grad}, name="linalg_inv_ex", shape=lambda a, _: [(a.shape, a.dtype), _info(a)])
def _inv(input: Array, name: str) -> Any:
    info = np.zeros(input.shape[:-2], np.int32)
    try:
        out = np.linalg.inv(input)
    except np.linalg.LinAlgError:
        info = lapack.lu(input)[2]
        if name:
            _fail_singular(name, info, "inversion")
        out = _one_by_one(input, np.linalg.inv)
    return columns(out), info


@op("linalg", out=True)
def inv(A: Tensor) -> Tensor:
    """The inverse of square matrices; LinAlgError if one is singular.

    >>> import lampion as torch
    >>> torch.linalg.inv(torch.tensor([[2., 0.], [0., 4.]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    check_square("linalg.inv", A)
    return _inv(A, "linalg.inv")[0]


@op(out=True)
def inverse(input: Tensor) -> Tensor:
    """The inverse of square matrices (`linalg.inv`)."""
    return inv(input)


_inv_names = result_tuple("linalg_inv_ex", "inverse info")


@op("linalg", out=True)
def inv_ex(A: Tensor, *, check_errors: bool = False) -> Any:
    """The inverse, and for each matrix 0 or the number of its first zero pivot."""
    check_square("linalg.inv_ex", A)
    return _inv_names(*_inv(A, "linalg.inv_ex" if check_errors else ""))


def _solve_shape(a: Any, b: Any, _: Any) -> Any:
    lead = np.broadcast_shapes(_batch(a), _batch(b))
    return [((*lead, *b.shape[-2:]), a.dtype), _info(a)]


def _solve_grad(g: Any, needs: Any, a: Any, out0: Any) -> Any:
    gb = solve(a.mH, g[0])
    ga = -matmul(gb, out0.mH) if needs[0] else None
    return ga, gb


@leaf(_solve_grad, name="linalg_solve_ex", shape=_solve_shape)
def _solve(a: Array, b: Array, name: str) -> Any:
    info = np.zeros(a.shape[:-2], np.int32)
    try:
        return columns(np.linalg.solve(a, b)), info
    except np.linalg.LinAlgError:
        info = lapack.lu(a)[2]
        if name:
            _fail_singular(name, info, "solve")
        return columns(_one_by_one(a, np.linalg.inv) @ b), info


def _is_vector(a: Any, b: Any) -> bool:
    """Whether `b` is one right-hand side per matrix, not a matrix of them."""
    return b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape == a.shape[:-1])


def _solve_op(name: str, A: Tensor, B: Any, left: bool, check: bool) -> Any:
    check_square(name, A)
    check_pair(name, A, B)
    vector = _is_vector(A._a, B._a)
    b = B.unsqueeze(-1) if vector else B
    if not left and vector:
        raise RuntimeError(f"{name}: Vector broadcasting of the left hand side is not supported "
                           "for left=False: pass a matrix B")
    _check_fit(name, A, b, left)
    a, b = (A, b) if left else (A.mT, b.mT)
    x, info = _solve(*_same_batch(a, b), name if check else "")
    x = x if left else x.mT
    return (x.squeeze(-1) if vector else x), info


def _same_batch(a: Tensor, b: Tensor) -> list[Tensor]:
    """Batches made equal by expanding, which sums the gradients again."""
    lead = broadcast_shape("linalg.solve", a._a.shape[:-2], b._a.shape[:-2])
    return [t if t._a.shape[:-2] == lead else t.expand((*lead, *t._a.shape[-2:])) for t in (a, b)]


def _check_fit(name: str, a: Tensor, b: Tensor, left: bool) -> None:
    if b._a.ndim < 2 or a._a.shape[-1] != b._a.shape[-2 if left else -1]:
        raise RuntimeError(
            f"{name}: Incompatible shapes of A and B for the equation "
            f"{'AX = B' if left else 'XA = B'} ({'x'.join(map(str, a._a.shape[-2:]))} and "
            f"{'x'.join(map(str, b._a.shape[-2:]))})")
    broadcast_shape(name, a._a.shape[:-2], b._a.shape[:-2])


@op("linalg", out=True)
def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """X of `A X = B` (or `X A = B`); LinAlgError if a matrix is singular.

    >>> import lampion as torch
    >>> torch.linalg.solve(torch.tensor([[2., 0.], [0., 4.]]), torch.tensor([2., 2.]))
    tensor([1.0000, 0.5000])
    """
    return _solve_op("linalg.solve", A, B, left, True)[0]


_solve_names = result_tuple("linalg_solve_ex", "result info")


@op("linalg", out=True)
def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    """`solve` with an error code per matrix in place of an exception."""
    return _solve_names(*_solve_op("linalg.solve_ex", A, B, left, check_errors))


def _triangle_grad(g: Any, needs: Any, a: Any, out: Any, upper: Any, unit: Any) -> Any:
    gb = solve_triangular(a.mH, g, upper=not upper, unitriangular=unit)
    if not needs[0]:
        return None, gb
    ga = -matmul(gb, out.mH)
    edge = int(unit)
    return (ga.triu(edge) if upper else ga.tril(-edge)), gb


@leaf(_triangle_grad, name="linalg_solve_triangular",
      shape=lambda a, b, *_: _solve_shape(a, b, None)[0])
def _solve_triangle(a: Array, b: Array, upper: bool, unit: bool) -> Array:
    return columns(lapack.solve_triangle(a, b, upper, unit))


@op("linalg", out=True)
def solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True,
                     unitriangular: bool = False) -> Tensor:
    """X of `A X = B` (or `X A = B`) for triangular A; the other triangle is not looked at."""
    check_square("linalg.solve_triangular", A)
    check_pair("linalg.solve_triangular", A, B)
    _check_fit("linalg.solve_triangular", A, B, left)
    a, b = _same_batch(A, B)
    if left:
        return _solve_triangle(a, b, bool(upper), bool(unitriangular))
    return _solve_triangle(a.mT, b.mT, not upper, bool(unitriangular)).mT


@op(out=True)
def triangular_solve(input: Tensor, A: Tensor, upper: bool = True, transpose: bool = False,
                     unitriangular: bool = False) -> Any:
    """X of `A X = input` (or `A.T X = input`) for triangular A, and A itself."""
    check_square("triangular_solve", A)
    _check_fit("triangular_solve", A, input, True)
    a, b = _same_batch(A, input)
    a, side = (a.mT, not upper) if transpose else (a, upper)
    return _triangular_names(_solve_triangle(a, b, bool(side), bool(unitriangular)), _by_columns(A))


def _by_columns(a: Tensor) -> Tensor:
    """A copy stored column by column."""
    return a.mT.clone().contiguous().mT


_triangular_names = result_tuple("triangular_solve", "solution cloned_coefficient")


# --- Cholesky -------------------------------------------------------------------------------------


def _half_triangle(x: Any) -> Any:
    """The lower triangle with its diagonal halved."""
    return x.tril() - (x.diagonal(0, -2, -1) / 2).diag_embed()


def _cholesky_grad(g: Any, out0: Any, upper: Any) -> Any:
    """Murray, "Differentiation of the Cholesky decomposition" (2016)."""
    factor, gf = (out0.mH, g[0].mH) if upper else (out0, g[0])
    inner = _half_triangle(matmul(factor.mH, gf))
    right = solve_triangular(factor, inner, upper=False, left=False)
    s = solve_triangular(factor.mH, right, upper=True)
    return (s + s.mH) / 2


@leaf({"input": _cholesky_grad}, name="linalg_cholesky_ex",
      shape=lambda a, *_: [(a.shape, a.dtype), _info(a)])
def _cholesky(input: Array, upper: bool, name: str) -> Any:
    a = input.swapaxes(-1, -2).conj() if upper else input
    info = np.zeros(a.shape[:-2], np.int32)
    try:
        out = np.linalg.cholesky(a)
    except np.linalg.LinAlgError:
        for place in np.ndindex(a.shape[:-2]):
            info[place] = _first_bad_minor(a[place])
        if name:
            _fail_indefinite(name, info)
        out = _one_by_one(a, np.linalg.cholesky)
    out = out.swapaxes(-1, -2).conj() if upper else out
    return columns(out), info


def _fail_indefinite(name: str, info: Array) -> None:
    batch, order = _failed(info)
    raise LinAlgError(
        f"{name}: {batch}The factorization could not be completed because the input is not "
        f"positive-definite (the leading minor of order {order} is not positive-definite).")


def _first_bad_minor(a: Array) -> int:
    """The order of the first leading minor that is not positive-definite; 0 if none."""
    for n in range(1, a.shape[-1] + 1):
        try:
            np.linalg.cholesky(a[:n, :n])
        except np.linalg.LinAlgError:
            return n
    return 0


@op("linalg", out=True, name="cholesky")
def linalg_cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """L of `A = L L^H` for positive-definite A (or U of `A = U^H U`); LinAlgError otherwise."""
    check_square("linalg.cholesky", A)
    return _cholesky(A, bool(upper), "linalg.cholesky")[0]


@op(out=True)
def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """The Cholesky factor of positive-definite matrices."""
    check_square("cholesky", input)
    return _cholesky(input, bool(upper), "cholesky")[0]


_cholesky_names = result_tuple("linalg_cholesky_ex", "L info")


@op("linalg", out=True)
def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> Any:
    """The Cholesky factor, and for each matrix 0 or the order of its first bad minor."""
    check_square("linalg.cholesky_ex", A)
    return _cholesky_names(*_cholesky(A, bool(upper),
                                      "linalg.cholesky_ex" if check_errors else ""))


def _cholesky_solve_grad(g: Any, needs: Any, low: Any, out: Any) -> Any:
    gb = _cholesky_solve(low, g)
    if not needs[0]:
        return None, gb
    both = matmul(gb, out.mH)
    return -matmul(both + both.mH, low), gb


@leaf(_cholesky_solve_grad, name="cholesky_solve",
      shape=lambda a, b: _solve_shape(a, b, None)[0])
def _cholesky_solve(low: Array, b: Array) -> Array:
    y = lapack.solve_triangle(low, b, False, False)
    return columns(lapack.solve_triangle(low.swapaxes(-1, -2).conj(), y, True, False))


@op(out=True)
def cholesky_solve(input: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """X of `A X = input`, where L is the Cholesky factor of A."""
    check_square("cholesky_solve", L, "A")
    check_pair("cholesky_solve", L, input)
    _check_fit("cholesky_solve", L, input, True)
    return _cholesky_solve(*_same_batch(L.mH if upper else L, input))


@op(out=True)
def cholesky_inverse(input: Tensor, upper: bool = False) -> Tensor:
    """The inverse of a matrix whose Cholesky factor is `input`."""
    check_square("cholesky_inverse", input)
    return cholesky_solve(eye_like(input, input._a.shape[-1]), input, upper)


# --- LU -------------------------------------------------------------------------------------------


def _lu_grad(g: Any, out0: Any, out1: Any, pivot: bool) -> Any:
    packed = out0
    m, n = packed._a.shape[-2:]
    k = min(m, n)
    square, g1 = packed[..., :k, :k], g[0][..., :k, :k]
    low = square.tril(-1) + eye_like(packed, k)
    up = square.triu()
    lower = matmul(low.mH, g1.tril(-1))
    upper = matmul(g1.triu(), up.mH)
    if n > k:
        lower = lower - matmul(g[0][..., :k, k:], packed[..., :k, k:].mH)
    if m > k:
        upper = upper - matmul(packed[..., k:, :k].mH, g[0][..., k:, :k])
    inner = lower.tril(-1) + upper.triu()
    inner = solve_triangular(low.mH, inner, upper=True, unitriangular=True)
    ga = solve_triangular(up.mH, inner, upper=False, left=False)
    if n > k:
        right = solve_triangular(low.mH, g[0][..., :k, k:], upper=True, unitriangular=True)
        ga = Tensor._cat([ga, right], ga._a.ndim - 1)
    if m > k:
        below = solve_triangular(up.mH, g[0][..., k:, :k], upper=False, left=False)
        ga = Tensor._cat([ga, below], ga._a.ndim - 2)
    return matmul(_permutation(out1, m, ga), ga) if pivot else ga


def _permutation(pivots: Tensor, m: int, like: Tensor) -> Tensor:
    """P of `A = P L U`."""
    order = wrap(lapack.row_order(pivots._a, m))
    return eye_like(like, m)[order].mT.contiguous()


def _lu_shape(a: Any, *_: Any) -> Any:
    k = min(a.shape[-2:])
    return [(a.shape, a.dtype), ((*_batch(a), k), _INT32), _info(a)]


@leaf({"input": _lu_grad}, name="linalg_lu_factor_ex", shape=_lu_shape)
def _lu(input: Array, pivot: bool) -> Any:
    if pivot:
        packed, pivots, info = lapack.lu(input)
    else:
        packed, pivots, info = _lu_without_pivots(input)
    return columns(packed), pivots, info


def _lu_without_pivots(a: Array) -> Any:
    packed = a.copy()
    k = min(a.shape[-2:])
    for i in range(k):
        packed[..., i + 1:, i] /= packed[..., i, i, None]
        packed[..., i + 1:, i + 1:] -= packed[..., i + 1:, i, None] * packed[..., i, None, i + 1:]
    pivots = np.broadcast_to(np.arange(1, k + 1, dtype=np.int32), (*a.shape[:-2], k)).copy()
    return packed, pivots, lapack._first_zero(packed, k)


_lu_names = result_tuple("linalg_lu_factor", "LU pivots")
_lu_ex_names = result_tuple("linalg_lu_factor_ex", "LU pivots info")
_plu_names = result_tuple("linalg_lu", "P L U")


@op("linalg", out=True)
def lu_factor(A: Tensor, *, pivot: bool = True) -> Any:
    """L and U packed in one matrix, and the row exchanges."""
    check_matrix("torch.linalg.lu_factor", A)
    return _lu_names(*_lu(A, bool(pivot))[:2])


@op("linalg", out=True)
def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> Any:
    """`lu_factor` with, for each matrix, 0 or the number of its first zero pivot."""
    check_matrix("torch.linalg.lu_factor_ex", A)
    out = _lu(A, bool(pivot))
    if check_errors:
        _fail_singular("torch.linalg.lu_factor_ex", out[2]._a, "factorization")
    return _lu_ex_names(*out)


@op("linalg", out=True)
def lu(A: Tensor, *, pivot: bool = True) -> Any:
    """P, L and U of `A = P L U`; without pivoting P is empty."""
    check_matrix("linalg.lu", A)
    packed, pivots, _ = _lu(A, bool(pivot))
    return _plu_names(*_unpack(packed, pivots, bool(pivot)))


def _unpack(packed: Tensor, pivots: Tensor, pivot: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    m, n = packed._a.shape[-2:]
    k = min(m, n)
    low = packed[..., :k].tril(-1)
    eye = eye_like(packed, k)
    low = low + (eye if m == k else Tensor._cat([eye, eye.new_zeros((m - k, k))], 0))
    p = _permutation(pivots, m, packed.detach()) if pivot else packed.new_empty(0)
    return p, low, packed[..., :k, :].triu()


_lu_info_names = result_tuple("_lu_with_info", "LU pivots info")


@op("torch Tensor", out=True, name="lu")
def lu_packed(A: Tensor, pivot: bool = True, get_infos: bool = False) -> Any:
    """L and U packed, the row exchanges, and with `get_infos` an error code for each matrix."""
    check_matrix("torch.lu", A)
    out = _lu(A, bool(pivot))
    return _lu_info_names(*out) if get_infos else _lu_names(*out[:2])


_unpack_names = result_tuple("lu_unpack", "P L U")


@op("torch", out=True)
def lu_unpack(LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True,
              unpack_pivots: bool = True) -> Any:
    """P, L and U of a packed factorisation; what is not asked for is empty."""
    if LU_pivots._dtype.name != "int32":
        raise RuntimeError("torch.lu_unpack: LU_pivots is expected to be a contiguous tensor of "
                           "torch.int32 dtype. Note: this function is intended to be used with the "
                           "output produced by torch.linalg.lu_factor")
    p, low, up = _unpack(LU_data, LU_pivots)
    empty = LU_data.new_empty(0)
    return _unpack_names(p if unpack_pivots else empty, low if unpack_data else empty,
                         up if unpack_data else empty)


@op("linalg", out=True, name="lu_solve")
def linalg_lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True,
                    adjoint: bool = False) -> Tensor:
    """X of `A X = B` (`X A = B`, or with A^H) from the result of `lu_factor(A)`."""
    check_square("linalg.lu_solve", LU, "LU")
    check_pair("linalg.lu_solve", LU, B)
    _check_fit("linalg.lu_solve", LU, B, left)
    if not left:
        return linalg_lu_solve(LU, pivots, B.mH, adjoint=not adjoint).mH
    p = _permutation(pivots, LU._a.shape[-1], LU.detach())
    if adjoint:
        y = solve_triangular(LU.mH, B, upper=False)
        return matmul(p, solve_triangular(LU.mH, y, upper=True, unitriangular=True))
    y = solve_triangular(LU, matmul(p.mT, B), upper=False, unitriangular=True)
    return solve_triangular(LU, y, upper=True)


@op(out=True)
def lu_solve(input: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """X of `A X = input` from a packed factorisation of A."""
    return linalg_lu_solve(LU_data, LU_pivots, input)


# --- determinants ---------------------------------------------------------------------------------


def _det_grad(g: Any, input: Any, out: Any) -> Any:
    factor = (g * conj(out)).unsqueeze(-1).unsqueeze(-1)
    if out._a.all():
        return factor * inv(input).mH
    return g.unsqueeze(-1).unsqueeze(-1) * _cofactors(input)


def _cofactors(a: Tensor) -> Tensor:
    """The conjugate cofactor matrix, which singular matrices have too."""
    from .decompositions import svd_reduced

    u, s, vh = svd_reduced(a)
    n = s._a.shape[-1]
    others = (s.unsqueeze(-2).expand((*s._a.shape, n)) * (1 - eye_like(s, n)) + eye_like(s, n))
    turn = conj(det(u) * det(vh)).unsqueeze(-1).unsqueeze(-1)
    return turn * matmul(u * others.prod(-1).unsqueeze(-2), vh)


@leaf({"input": _det_grad}, name="linalg_det", shape=lambda a: (_batch(a), a.dtype))
def _det(input: Array) -> Array:
    return np.asarray(np.linalg.det(input), input.dtype)


@op("torch Tensor linalg", out=True)
def det(A: Tensor) -> Tensor:
    """The determinant of square matrices."""
    check_square("linalg.det", A)
    return _det(A)


def _slogdet_grad(g: Any, needs: Any, input: Any, out0: Any) -> Any:
    turn = g[1]
    if input._dtype.kind == COMPLEX:
        turn = g[1] - 1j * (conj(g[0]) * out0).imag
    return (turn.unsqueeze(-1).unsqueeze(-1) * inv(input).mH,)


def _slogdet_shape(a: Any) -> Any:
    return [(_batch(a), a.dtype), (_batch(a), np.zeros((), a.dtype).real.dtype)]


@leaf(_slogdet_grad, name="linalg_slogdet", shape=_slogdet_shape)
def _slogdet(input: Array) -> Any:
    sign, size = np.linalg.slogdet(input)
    return np.asarray(sign, input.dtype), np.asarray(size, input.real.dtype)


_linalg_slogdet_names = result_tuple("linalg_slogdet", "sign logabsdet")
_slogdet_names = result_tuple("slogdet", "sign logabsdet")


@op("linalg", out=True, name="slogdet")
def linalg_slogdet(A: Tensor) -> Any:
    """Sign and logarithm of the size of the determinant."""
    check_square("linalg.slogdet", A)
    return _linalg_slogdet_names(*_slogdet(A))


@op(out=True)
def slogdet(input: Tensor) -> Any:
    """Sign and logarithm of the size of the determinant."""
    check_square("linalg.slogdet", input)
    return _slogdet_names(*_slogdet(input))


@op()
def logdet(input: Tensor) -> Tensor:
    """The logarithm of the determinant: -inf if it is 0, NaN if it is negative."""
    check_square("logdet", input)
    sign, size = _slogdet(input)
    if input._dtype.kind == COMPLEX:
        return sign.log() + size
    return size.masked_fill(sign == -1, float("nan"))


# --- powers and functions -------------------------------------------------------------------------


@op("torch Tensor linalg", out=True)
def matrix_power(A: Tensor, n: int) -> Tensor:
    """Square matrices multiplied by themselves n times; of the inverse for negative n."""
    if not isinstance(A, Tensor):
        raise argument_type("matrix_power", "input", "Tensor", A)
    if A._a.ndim < 2 or A._a.shape[-1] != A._a.shape[-2]:
        raise RuntimeError("linalg.matrix_power: A must be batches of square matrices, received "
                           f"shape {list(A._a.shape)}; it must have at least 2 dimensions")
    base, n = (inv(A), -n) if n < 0 else (A, n)
    if n == 0:
        eye = eye_like(A, A._a.shape[-1])
        return eye.expand(A._a.shape).clone()
    result = None
    while n:
        if n & 1:
            result = base if result is None else matmul(result, base)
        n >>= 1
        base = matmul(base, base) if n else base
    return result.clone() if result is A else result  # type: ignore[union-attr,return-value]


def _exp_grad(g: Any, input: Any) -> Any:
    """The upper right block of exp([[A, G], [0, A]]) is the derivative in direction G."""
    a, n = input.mH, input._a.shape[-1]
    top = Tensor._cat([a, g], a._a.ndim - 1)
    low = Tensor._cat([a * 0, a], a._a.ndim - 1)
    return matrix_exp(Tensor._cat([top, low], a._a.ndim - 2))[..., :n, n:]


@leaf({"input": _exp_grad}, name="linalg_matrix_exp", shape=lambda a: (a.shape, a.dtype))
def _matrix_exp(input: Array) -> Array:
    return lapack.expm(input)


@op("torch Tensor linalg")
def matrix_exp(A: Tensor) -> Tensor:
    """The exponential of square matrices."""
    check_square("linalg.matrix_exp", A)
    return _matrix_exp(A)


@op("linalg", out=True)
def tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """The inverse of A as a map from its last dimensions to its first `ind` ones."""
    if ind <= 0:
        raise RuntimeError(f"Expected a strictly positive integer for 'ind', but got {ind}")
    shape = A._a.shape
    rows, cols = int(np.prod(shape[:ind])), int(np.prod(shape[ind:]))
    if rows != cols:
        raise RuntimeError("Expected self to satisfy the requirement prod(self.shape[ind:]) == "
                           f"prod(self.shape[:ind]), but got {cols} != {rows}")
    return inv(A.reshape((rows, cols))).reshape((*shape[ind:], *shape[:ind]))


@op("linalg", out=True)
def tensorsolve(A: Tensor, B: Tensor, dims: Any = None) -> Tensor:
    """X of `tensordot(A, X, X.ndim) = B`; `dims` of A are moved to the end first."""
    n = A._a.ndim
    if dims is not None:
        A = A.permute([d for d in range(n) if d not in [e % n for e in dims]]
                      + [d % n for d in dims])
    rest = A._a.shape[B._a.ndim:]
    rows, cols = int(np.prod(B._a.shape)), int(np.prod(rest))
    if rows != cols or A._a.size != rows * cols:
        raise RuntimeError("Expected self to satisfy the requirement prod(self.shape[other.ndim:])"
                           f" == prod(self.shape[:other.ndim]), but got {cols} != {rows}")
    return solve(A.reshape((rows, cols)), B.reshape(-1)).reshape(rest)
