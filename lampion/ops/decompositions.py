"""Decompositions: QR, SVD, eigenvalues; what follows from them: norms, rank, pinv, lstsq."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd.modes import state
from ..tensor.dtype import COMPLEX, FLOAT
from ..tensor.tensor import Tensor
from .contraction import matmul
from .creation import check_dtype
from .errors import wrap_dims
from .families import Array, conj
from .linalg import (
    LinAlgError,
    _same_batch,
    check_matrix,
    check_pair,
    check_square,
    eye_like,
    inv,
    solve,
    solve_triangular,
)
from .promotion import cast
from .record import leaf, not_differentiable, op
from .reduce import vector_norm
from .reference import lapack
from .reference.lapack import columns
from .results import result_tuple

__all__ = ["svd_reduced"]


def _needs_grad(a: Tensor) -> bool:
    return state.grad and a.requires_grad


def _real_dtype(d: Any) -> Any:
    return np.zeros((), d).real.dtype


def _complex_dtype(d: Any) -> Any:
    return np.result_type(d, np.complex64)


def _converge(name: str, compute: Any, *args: Any) -> Any:
    """A NumPy decomposition with its failure as ours."""
    try:
        return compute(*args)
    except np.linalg.LinAlgError as error:
        raise LinAlgError(f"{name}: The algorithm failed to converge because the input matrix is "
                          f"ill-conditioned or has non-finite values ({error})") from None


# --- QR -------------------------------------------------------------------------------------------


def _qr_grad(g: Any, needs: Any, out0: Any, out1: Any, mode: Any) -> Any:
    """Walter and Lehmann, "Algorithmic differentiation of linear algebra functions" (2010)."""
    q, r = out0, out1
    m, n = q._a.shape[-2], r._a.shape[-1]
    if mode == "r" or (mode == "complete" and m > n):
        raise RuntimeError(f"The derivative of linalg.qr depends on Q, which is not computed when "
                           f"mode='{mode}'. Please use linalg.qr(A, mode='reduced')")
    if m >= n:
        return (_qr_square(g[0], g[1], q, r),)
    square, rest = r[..., :m], r[..., m:]
    gq = g[0] + matmul(matmul(q, rest), g[1][..., m:].mH)
    left = _qr_square(gq, g[1][..., :m], q, square)
    return (Tensor._cat([left, matmul(q, g[1][..., m:])], q._a.ndim - 1),)


def _qr_square(gq: Tensor, gr: Tensor, q: Tensor, r: Tensor) -> Tensor:
    inner = (matmul(gr, r.mH) - matmul(q.mH, gq)).triu()
    both = inner + inner.mH
    both = both - (inner.diagonal(0, -2, -1) if inner._dtype.kind != COMPLEX else (
        inner.diagonal(0, -2, -1).real)).diag_embed()
    return solve_triangular(r.mH, gq + matmul(q, both), upper=False, left=False)


def _qr_shape(a: Any, mode: str) -> Any:
    m, n = a.shape[-2:]
    k = m if mode == "complete" else min(m, n)
    q = (0,) if mode == "r" else (*a.shape[:-2], m, k)
    return [(q, a.dtype), ((*a.shape[:-2], k, n), a.dtype)]


@leaf(_qr_grad, name="linalg_qr", shape=_qr_shape)
def _qr(input: Array, mode: str) -> Any:
    if mode == "r":
        return np.empty(0, input.dtype), columns(np.linalg.qr(input, "r"))
    q, r = np.linalg.qr(input, "complete" if mode == "complete" else "reduced")
    return columns(q), columns(r)


_linalg_qr_names = result_tuple("linalg_qr", "Q R")
_qr_names = result_tuple("qr", "Q R")


@op("linalg", out=True, name="qr")
def linalg_qr(A: Tensor, mode: str = "reduced") -> Any:
    """Q with orthonormal columns and upper triangular R of `A = Q R`."""
    check_matrix("linalg.qr", A)
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(f"qr received unrecognized mode '{mode}' but expected one of 'reduced' "
                           "(default), 'r', or 'complete'")
    return _linalg_qr_names(*_qr(A, mode))


@op(out=True)
def qr(input: Tensor, some: bool = True) -> Any:
    """Q and R of `input = Q R`; `linalg.qr` is the newer form."""
    check_matrix("qr", input)
    return _qr_names(*_qr(input, "reduced" if some else "complete"))


def _geqrf_shape(a: Any) -> Any:
    return [(a.shape, a.dtype), ((*a.shape[:-2], min(a.shape[-2:])), a.dtype)]


@leaf(not_differentiable("use linalg.qr"), name="geqrf", shape=_geqrf_shape)
def _geqrf(input: Array) -> Any:
    h, tau = np.linalg.qr(input, "raw")
    return columns(h.swapaxes(-1, -2).astype(input.dtype)), tau.astype(input.dtype)


_geqrf_names = result_tuple("geqrf", "a tau")


@op(out=True)
def geqrf(input: Tensor) -> Any:
    """QR with Q left as Householder reflectors below the diagonal."""
    check_matrix("geqrf", input)
    return _geqrf_names(*_geqrf(input))


@op("linalg", out=True)
def householder_product(A: Tensor, tau: Tensor) -> Tensor:
    """The first columns of the product of the Householder reflectors in A."""
    check_matrix("torch.linalg.householder_product", A)
    check_pair("torch.linalg.householder_product", A, tau)
    (m, n), k = A._a.shape[-2:], tau._a.shape[-1]
    if m < n or n < k:
        raise RuntimeError("torch.linalg.householder_product: input.shape[-2] must be greater than "
                           "or equal to input.shape[-1], which must be at least tau.shape[-1]: "
                           f"received {m}, {n} and {k}")
    return _reflected(A, tau, eye_like(A, m)[:, :n].expand((*A._a.shape[:-2], m, n)), True, False)


op(name="orgqr")(householder_product)


def _reflected(h: Tensor, tau: Tensor, c: Tensor, left: bool, adjoint: bool) -> Tensor:
    """`c` multiplied by the reflectors one after the other, in public operators."""
    if not (_needs_grad(h) or _needs_grad(tau)):
        return _reflect(h, tau, c, left, adjoint)
    c = c if left else c.mH
    backwards = left != adjoint
    k = tau._a.shape[-1]
    head = eye_like(h, h._a.shape[-2])
    low = h.tril(-1)
    for i in (range(k - 1, -1, -1) if backwards else range(k)):
        v = (low[..., :, i] + head[i]).unsqueeze(-1)
        scale = tau[..., i] if backwards else conj(tau[..., i])
        c = c - scale.unsqueeze(-1).unsqueeze(-1) * matmul(v, matmul(v.mH, c))
    return c if left else c.mH


@leaf({"c": lambda g, h, tau, left, adjoint: _reflect(h, tau, g, left, not adjoint)}, name="ormqr",
      shape=lambda h, tau, c, *_: (c.shape, c.dtype))
def _reflect(h: Array, tau: Array, c: Array, left: bool, adjoint: bool) -> Array:
    return columns(lapack.reflect(h, tau, c, left, adjoint))


@op(out=True)
def ormqr(input: Tensor, tau: Tensor, other: Tensor, left: bool = True,
          transpose: bool = False) -> Tensor:
    """`other` multiplied by the Q (or its conjugate transpose) of Householder reflectors."""
    check_matrix("ormqr", input, "input")
    check_pair("ormqr", input, other)
    if input._a.shape[-2] != other._a.shape[-2 if left else -1]:
        raise RuntimeError(f"torch.ormqr: other.shape[{-2 if left else -1}] must be equal to "
                           f"input.shape[-2]: received {list(other._a.shape)} and "
                           f"{list(input._a.shape)}")
    return _reflected(input, tau, other, left, transpose)


# --- SVD ------------------------------------------------------------------------------------------


def _skew(x: Tensor) -> Tensor:
    return x - x.mH


def _absent(g: Tensor) -> bool:
    """Whether a gradient stands for an output that was not used."""
    return g._fn is None and not g._rg and type(g._a) is np.ndarray and not g._a.any()


def _svd_grad(g: Any, needs: Any, out0: Any, out1: Any, out2: Any, full: Any) -> Any:
    """Townsend, "Differentiating the singular value decomposition" (2016)."""
    k = out1._a.shape[-1]
    u, s, vh = out0[..., :k], out1, out2[..., :k, :]
    if _absent(g[0]) and _absent(g[2]):
        return (matmul(u * g[1].unsqueeze(-2), vh),)
    gu, gs, gvh = g[0][..., :k], g[1], g[2][..., :k, :]
    scale, ut, vt = s.unsqueeze(-2), matmul(u.mH, gu), matmul(vh, gvh.mH)
    squares = scale * scale
    gaps = squares - squares.mT + eye_like(s, k)
    middle = _skew(ut) / gaps * scale + s.unsqueeze(-1) * (_skew(vt) / gaps)
    if ut._dtype.kind == COMPLEX:
        gs = gs + 1j * (ut.diagonal(0, -2, -1).imag / s)
        middle = middle - middle.diagonal(0, -2, -1).diag_embed()
    middle = middle + gs.diag_embed()
    ga = matmul(matmul(u, middle), vh)
    if u._a.shape[-2] > k:
        ga = ga + matmul((gu - matmul(u, ut)) / scale, vh)
    if vh._a.shape[-1] > k:
        ga = ga + matmul(u, (gvh - matmul(vt.mH, vh)) / s.unsqueeze(-1))
    return (ga,)


def _svd_shape(a: Any, full: bool) -> Any:
    m, n = a.shape[-2:]
    k, lead = min(m, n), a.shape[:-2]
    rows, cols = (m, n) if full else (k, k)
    return [((*lead, m, rows), a.dtype), ((*lead, k), _real_dtype(a.dtype)),
            ((*lead, cols, n), a.dtype)]


@leaf(_svd_grad, name="linalg_svd", shape=_svd_shape)
def _svd(input: Array, full: bool) -> Any:
    u, s, vh = _converge("linalg.svd", np.linalg.svd, input, full)
    return columns(u), s, columns(vh)


@leaf(not_differentiable("taken from the whole decomposition where gradients are needed"),
      name="linalg_svdvals", shape=lambda a: _svd_shape(a, False)[1])
def _svdvals(input: Array) -> Array:
    return _converge("linalg.svd", np.linalg.svdvals, input)


def svd_reduced(a: Tensor) -> Any:
    """U, S, Vh with as many singular vectors as values."""
    return _svd(a, False)


_svd_names = result_tuple("svd", "U S V")
_linalg_svd_names = result_tuple("linalg_svd", "U S Vh")


@op("linalg", out=True, name="svd")
def linalg_svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> Any:
    """U, S and Vh of `A = U diag(S) Vh`, singular values falling.

    >>> import lampion as torch
    >>> torch.linalg.svd(torch.tensor([[0., 2.], [1., 0.]])).S
    tensor([2., 1.])
    """
    check_matrix("linalg.svd", A)
    _no_driver("linalg.svd", driver)
    return _linalg_svd_names(*_svd(A, bool(full_matrices)))


def _no_driver(name: str, driver: Any) -> None:
    if driver is not None:
        raise RuntimeError(f"{name}: keyword argument `driver=` is only supported on CUDA inputs "
                           f"with cuSOLVER backend: received {driver!r}")


@op("linalg", out=True)
def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """The singular values, falling."""
    check_matrix("linalg.svdvals", A)
    _no_driver("linalg.svdvals", driver)
    return _svd(A, False)[1] if _needs_grad(A) else _svdvals(A)


@op(out=True)
def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> Any:
    """U, S and V (not Vh); `linalg.svd` is the newer form."""
    check_matrix("linalg.svd", input)
    m, n = input._a.shape[-2:]
    if not compute_uv:
        lead = input._a.shape[:-2]
        return _svd_names(input.new_zeros((*lead, m, m)), svdvals(input),
                          input.new_zeros((*lead, n, n)))
    u, s, vh = _svd(input, not some)
    return _svd_names(u, s, vh.mH)


# --- eigenvalues ----------------------------------------------------------------------------------


def _eigh_grad(g: Any, needs: Any, out0: Any, out1: Any, upper: Any) -> Any:
    values, v = out0, out1
    if _absent(g[1]):
        return (matmul(v * g[0].unsqueeze(-2), v.mH),)
    inner = _skew(matmul(v.mH, g[1])) / 2
    gaps = values.unsqueeze(-2) - values.unsqueeze(-1)
    inner = inner / (gaps + eye_like(values, values._a.shape[-1]))
    inner = inner - inner.diagonal(0, -2, -1).diag_embed() + g[0].diag_embed()
    return (matmul(matmul(v, inner), v.mH),)


def _eigh_shape(a: Any, _: Any) -> Any:
    return [(a.shape[:-1], _real_dtype(a.dtype)), (a.shape, a.dtype)]


@leaf(_eigh_grad, name="linalg_eigh", shape=_eigh_shape)
def _eigh(input: Array, upper: str) -> Any:
    values, vectors = _converge("linalg.eigh", np.linalg.eigh, input, upper)
    return values, columns(vectors)


@leaf(not_differentiable("taken from the whole decomposition where gradients are needed"),
      name="linalg_eigvalsh", shape=lambda a, u: _eigh_shape(a, u)[0])
def _eigvalsh(input: Array, upper: str) -> Array:
    return _converge("linalg.eigh", np.linalg.eigvalsh, input, upper)


def _side(UPLO: str) -> str:
    if UPLO.upper() not in ("L", "U"):
        raise RuntimeError(f"Expected UPLO argument to be 'L' or 'U', but got {UPLO}")
    return UPLO.upper()


_eigh_names = result_tuple("linalg_eigh", "eigenvalues eigenvectors")


@op("linalg", out=True)
def eigh(A: Tensor, UPLO: str = "L") -> Any:
    """Real eigenvalues, rising, and eigenvectors of symmetric or Hermitian matrices.

    Only the triangle that `UPLO` names is looked at.
    """
    check_square("linalg.eigh", A)
    return _eigh_names(*_eigh(A, _side(UPLO)))


@op("linalg", out=True)
def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The real eigenvalues of symmetric or Hermitian matrices, rising."""
    check_square("linalg.eigvalsh", A)
    side = _side(UPLO)
    return _eigh(A, side)[0] if _needs_grad(A) else _eigvalsh(A, side)


def _eig_grad(g: Any, needs: Any, input_dtype: Any, out0: Any, out1: Any) -> Any:
    """Boeddeker et al., "On the computation of complex-valued gradients" (2017)."""
    values, v = out0, out1
    inner = matmul(v.mH, g[1])
    along = inner.diagonal(0, -2, -1).real
    inner = inner - matmul(v.mH, v) * along.unsqueeze(-2)
    gaps = conj(values.unsqueeze(-2) - values.unsqueeze(-1))
    inner = inner / (gaps + eye_like(values, values._a.shape[-1]))
    inner = inner - inner.diagonal(0, -2, -1).diag_embed() + g[0].diag_embed()
    ga = solve(v.mH, matmul(inner, v.mH))
    return (ga if input_dtype.kind == COMPLEX else ga.real,)


def _eig_shape(a: Any) -> Any:
    d = _complex_dtype(a.dtype)
    return [(a.shape[:-1], d), (a.shape, d)]


@leaf(_eig_grad, name="linalg_eig", shape=_eig_shape)
def _eig(input: Array) -> Any:
    _check_finite("linalg.eig", input)
    values, vectors = _converge("linalg.eig", np.linalg.eig, input)
    d = _complex_dtype(input.dtype)
    return values.astype(d), columns(vectors.astype(d))


def _check_finite(name: str, a: Array) -> None:
    if not np.isfinite(a).all():
        raise RuntimeError(f"{name}: input tensor should not contain infs or NaNs.")


_eig_names = result_tuple("linalg_eig", "eigenvalues eigenvectors")


@op("linalg", out=True)
def eig(A: Tensor) -> Any:
    """Complex eigenvalues, in no order, and eigenvectors of square matrices."""
    check_square("linalg.eig", A)
    return _eig_names(*_eig(A))


@op("linalg", out=True)
def eigvals(A: Tensor) -> Tensor:
    """The complex eigenvalues of square matrices, in no order."""
    check_square("linalg.eigvals", A)
    return _eig(A)[0]


# --- pseudo-inverse, rank, least squares ----------------------------------------------------------


def _pinv_grad(g: Any, input: Any, out: Any) -> Any:
    """Golub and Pereyra, "The differentiation of pseudo-inverses" (1973)."""
    a, p = input, out
    m, n = a._a.shape[-2:]
    ph, gh = p.mH, g.mH
    left = matmul(matmul(eye_like(a, m) - matmul(a, p), gh), matmul(p, ph))
    right = matmul(matmul(ph, p), matmul(gh, eye_like(a, n) - matmul(p, a)))
    return left + right - matmul(matmul(ph, g), ph)


@leaf({"input": _pinv_grad}, name="linalg_pinv",
      shape=lambda a, *_: ((*a.shape[:-2], a.shape[-1], a.shape[-2]), a.dtype))
def _pinv(input: Array, atol: Any, rtol: Any, hermitian: bool) -> Array:
    if not input.size:
        return np.zeros((*input.shape[:-2], input.shape[-1], input.shape[-2]), input.dtype)
    u, s, vh = _hermitian_svd(input) if hermitian else np.linalg.svd(input, False)
    low = s <= _threshold(np.abs(s), input, atol, rtol)
    inverse = np.where(low, 0, 1 / np.where(low, 1, s)).astype(s.dtype)
    out = (vh.swapaxes(-1, -2).conj() * inverse[..., None, :]) @ u.swapaxes(-1, -2).conj()
    return out


def _hermitian_svd(a: Array) -> Any:
    values, vectors = np.linalg.eigh(a)
    signs = np.where(values < 0, -1, 1).astype(values.dtype)
    return vectors * signs[..., None, :], np.abs(values), vectors.swapaxes(-1, -2).conj()


def _threshold(s: Array, a: Any, atol: Any, rtol: Any) -> Array:
    """What counts as zero among singular values: max(atol, rtol * the largest)."""
    if rtol is None:
        unset = np.asarray(0.0 if atol is None else atol) <= 0
        rtol = np.where(unset, max(a.shape[-2:]) * np.finfo(s.dtype).eps, 0.0)
    largest = s.max(-1, keepdims=True, initial=0)
    pair = [np.asarray(0.0 if t is None else t, s.dtype)[..., None] for t in (atol, rtol)]
    return np.maximum(pair[0], pair[1] * largest)


def _plain(t: Any) -> Any:
    return t._a if isinstance(t, Tensor) else t


@op("linalg", out=True)
def pinv(A: Tensor, rcond: Any = None, *, atol: Any = None, rtol: Any = None,
         hermitian: bool = False) -> Tensor:
    """The Moore-Penrose pseudo-inverse; singular values up to max(atol, rtol * largest) are 0."""
    check_matrix("linalg.pinv", A)
    relative = rtol if rcond is None else rcond
    return _pinv(A, _plain(atol), _plain(relative), bool(hermitian))


@op()
def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """The Moore-Penrose pseudo-inverse (`linalg.pinv`)."""
    check_matrix("linalg.pinv", input)
    return _pinv(input, None, rcond, False)


@op("linalg", out=True)
def matrix_rank(A: Tensor, tol: Any = None, *, atol: Any = None, rtol: Any = None,
                hermitian: bool = False) -> Tensor:
    """How many singular values are above max(atol, rtol * largest)."""
    check_matrix("linalg.matrix_rank", A)
    if tol is not None:
        atol, rtol = tol, 0.0
    return _rank(A.detach(), _plain(atol), _plain(rtol), bool(hermitian))


@leaf(not_differentiable("the result is integers"), name="linalg_matrix_rank",
      shape=lambda a, *_: (a.shape[:-2], np.dtype(np.int64)))
def _rank(input: Array, atol: Any, rtol: Any, hermitian: bool) -> Array:
    if hermitian:
        s = np.abs(_converge("linalg.eigh", np.linalg.eigvalsh, input))
    else:
        s = _converge("linalg.svd", np.linalg.svdvals, input)
    return (s > _threshold(s, input, atol, rtol)).sum(-1)


_lstsq_names = result_tuple("linalg_lstsq", "solution residuals rank singular_values")
_DRIVERS = ("gels", "gelsy", "gelsd", "gelss")


def _lstsq_grad(g: Any, needs: Any, a: Any, b: Any, out0: Any, rcond: Any) -> Any:
    p = pinv(a, rtol=rcond)
    gb = matmul(p.mH, g[0]) if needs[1] else None
    ga = _pinv_grad(matmul(g[0], b.mH), a, p) if needs[0] else None
    if g[1]._a.size:
        error = 2 * (matmul(a, out0) - b) * g[1].unsqueeze(-2)
        gb = gb - error if needs[1] else None
        ga = ga + matmul(error, out0.mH) if needs[0] else None
    return ga, gb


def _lstsq_shape(a: Any, b: Any, rcond: Any, full: bool) -> Any:
    lead, k, real = a.shape[:-2], min(a.shape[-2:]), _real_dtype(a.dtype)
    return [((*lead, a.shape[-1], b.shape[-1]), a.dtype),
            ((*lead, b.shape[-1]) if full else (0,), real),
            (lead, np.dtype(np.int64)), ((*lead, k), real)]


@leaf(_lstsq_grad, name="linalg_lstsq", shape=_lstsq_shape)
def _lstsq(a: Array, b: Array, rcond: Any, full: bool) -> Any:
    u, s, vh = _converge("linalg.lstsq", np.linalg.svd, a, False)
    low = s <= _threshold(s, a, None, rcond)
    inverse = np.where(low, 0, 1 / np.where(low, 1, s)).astype(s.dtype)
    x = vh.swapaxes(-1, -2).conj() @ (inverse[..., None] * (u.swapaxes(-1, -2).conj() @ b))
    rank = (~low).sum(-1)
    error = np.empty(0, s.dtype)
    if full and (rank == a.shape[-1]).all():
        error = np.square(np.abs(a @ x - b)).sum(-2)
    return columns(x), error, rank, s


@op("linalg", out=True)
def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> Any:
    """X of least `|A X - B|` (and least norm), residuals, rank, singular values.

    `driver` decides, as in LAPACK, which of the last three are not empty.
    """
    check_matrix("torch.linalg.lstsq", A, "input")
    check_pair("torch.linalg.lstsq", A, B)
    driver = driver or "gelsy"
    if driver not in _DRIVERS:
        raise RuntimeError("torch.linalg.lstsq: parameter `driver` should be one of (gels, gelsy, "
                           f"gelsd, gelss): received {driver}")
    vector = B._a.ndim == A._a.ndim - 1
    b = B.unsqueeze(-1) if vector else B
    m, n = A._a.shape[-2:]
    if b._a.ndim < 2 or b._a.shape[-2] != m:
        raise RuntimeError("torch.linalg.lstsq: input.size(-2) should match other.size(-2): "
                           f"received {list(A._a.shape)} and {list(B._a.shape)}")
    x, error, rank, s = _lstsq(*_same_batch(A, b), rcond, m > n and driver != "gelsy")
    return _lstsq_names(x.squeeze(-1) if vector else x, error,
                        rank if driver != "gels" else rank.new_empty(0),
                        (s if driver in ("gelsd", "gelss") else s.new_empty(0)).detach())


# --- norms ----------------------------------------------------------------------------------------


def _check_norm(name: str, a: Tensor, dtype: Any) -> Tensor:
    if a._dtype.kind < FLOAT:
        raise RuntimeError(f"{name}: Expected a floating point or complex tensor as input. Got "
                           f"{a._dtype.name}; convert it with .float()")
    d = check_dtype(dtype)
    if d is not None and d.kind < FLOAT:
        raise RuntimeError(f"{name}: dtype should be floating point or complex. Got {d.name}")
    return a if d is None else cast(a, d)


def _singular_norm(a: Tensor, ord: Any, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    moved = a.movedim(dims, (-2, -1))
    s = svdvals(moved)
    out = s.sum(-1) if ord == "nuc" else _extreme(s, ord, -1, False)
    if keepdim:
        for d in sorted(dims):
            out = out.unsqueeze(d)
    return out


def _absolute_norm(a: Tensor, ord: float, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    """The largest (or smallest) sum of moduli of a column, or of a row for infinity."""
    along, over = dims if abs(ord) == 1 else dims[::-1]
    if over > along and not keepdim:
        over -= 1
    sums = vector_norm(a, 1, along, keepdim)
    return _extreme(sums, ord, over, keepdim)


def _extreme(x: Tensor, ord: float, dim: int, keepdim: bool) -> Tensor:
    """The largest (0 if there is none) or, for negative orders, the smallest along `dim`."""
    if ord < 0:
        return x.amin(dim, keepdim)
    return x.amax(dim, keepdim) if x._a.shape[dim] else x.sum(dim, keepdim)


@op("linalg", out=True)
def matrix_norm(A: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *,
                dtype: Any = None) -> Tensor:
    """A norm of matrices: "fro", "nuc", 1, -1, 2, -2, inf or -inf."""
    a = _check_norm("linalg.matrix_norm", A, dtype)
    if a._a.ndim < 2:
        raise RuntimeError("linalg.matrix_norm: The input tensor A must have at least 2 dimensions:"
                           f" received shape {list(a._a.shape)}")
    dims = wrap_dims(dim, a._a.ndim, "linalg.matrix_norm")
    if len(dims) != 2:
        raise RuntimeError(f"linalg.matrix_norm: dim must be a 2-tuple. Got {list(dims)}")
    if ord == "fro":
        return vector_norm(a, 2, dims, keepdim)
    if ord == "nuc" or (not isinstance(ord, str) and abs(ord) == 2):
        return _singular_norm(a, ord, dims, keepdim)
    if isinstance(ord, str) or abs(ord) not in (1, math.inf):
        raise RuntimeError(f"linalg.matrix_norm: Order {ord} not supported.")
    return _absolute_norm(a, ord, dims, keepdim)


@op("linalg", out=True, name="norm")
def linalg_norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *,
                dtype: Any = None) -> Tensor:
    """A vector norm over one dimension (or all elements), a matrix norm over two."""
    listed = None if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if listed is not None and len(listed) not in (1, 2) and ord is not None:
        raise RuntimeError("linalg.norm: If dim is specified, it must be of length 1 or 2. Got "
                           f"{list(listed)}")
    if ord is None:
        return vector_norm(_check_norm("linalg.norm", A, dtype), 2, listed, keepdim)
    n = A._a.ndim if listed is None else len(listed)
    if listed is None and n not in (1, 2):
        raise RuntimeError("linalg.norm: If dim is not specified but ord is, the input must be 1D "
                           f"or 2D. Got {n}D.")
    if n == 2:
        return matrix_norm(A, ord, (-2, -1) if listed is None else listed, keepdim, dtype=dtype)
    if isinstance(ord, str):
        raise RuntimeError(f"linalg.norm: Order {ord} not supported for vectors.")
    return vector_norm(_check_norm("linalg.norm", A, dtype), ord, listed, keepdim)


@op("linalg", out=True)
def cond(A: Tensor, p: Any = None) -> Tensor:
    """The condition number: `norm(A) * norm(inv(A))`, or the ratio of singular values."""
    check_matrix("linalg.cond", A)
    if p is None or p in (2, -2):
        s = svdvals(A)
        largest, smallest = (s[..., 0], s[..., -1]) if s._a.shape[-1] else (s.sum(-1), s.sum(-1))
        return largest / smallest if p != -2 else smallest / largest
    check_square("linalg.cond", A)
    if isinstance(p, str) and p not in ("fro", "nuc"):
        raise RuntimeError(f"linalg.cond got an invalid norm type: {p}")
    return matrix_norm(A, p) * matrix_norm(_inverse_or_inf(A), p)


def _inverse_or_inf(a: Tensor) -> Tensor:
    try:
        return inv(a)
    except LinAlgError:
        return a * math.inf


# --- low rank -------------------------------------------------------------------------------------


@op("torch")
def svd_lowrank(A: Tensor, q: int | None = 6, niter: int | None = 2, M: Any = None) -> Any:
    """An approximate SVD of rank q by random projections (Halko et al. 2009): U, S, V."""
    q, niter = 6 if q is None else q, 2 if niter is None else niter
    a = A if M is None else A - M
    m, n = a._a.shape[-2:]
    flip = m < n
    x = a.mH if flip else a
    basis = _range_basis(x, q, niter)
    u, s, vh = _svd(matmul(basis.mH, x), False)
    u, v = matmul(basis, u), vh.mH
    return (v, s, u) if flip else (u, s, v)


def _range_basis(a: Tensor, q: int, niter: int) -> Tensor:
    from .random import randn

    basis = linalg_qr(matmul(a, randn(a._a.shape[-1], q, dtype=a._dtype)))[0]
    for _ in range(niter):
        basis = linalg_qr(matmul(a.mH, basis))[0]
        basis = linalg_qr(matmul(a, basis))[0]
    return basis


@op("torch")
def pca_lowrank(A: Tensor, q: int | None = None, center: bool = True, niter: int = 2) -> Any:
    """Principal components by `svd_lowrank` of the centred rows of A."""
    m, n = A._a.shape[-2:]
    q = min(6, m, n) if q is None else q
    if not 0 <= q <= min(m, n):
        raise ValueError(f"q(={q}) must be non-negative integer and not greater than min(m, n)="
                         f"{min(m, n)}")
    return svd_lowrank(A - A.mean(-2, keepdim=True) if center else A, q, niter)


