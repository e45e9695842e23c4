"""Linear algebra: identities, NumPy as the reference, gradients by finite differences."""

from __future__ import annotations

import numpy as np
import pytest

import lampion as torch
from lampion.autograd import gradcheck, gradgradcheck

linalg = torch.linalg
DTYPES = [torch.float64, torch.complex128]


def matrices(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype)


def positive(n: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    a = matrices(2, n, n, dtype=dtype)
    return a @ a.mH + n * torch.eye(n, dtype=dtype)


def symmetric(a: torch.Tensor) -> torch.Tensor:
    return a + a.mH


def close(a: torch.Tensor, b: object) -> None:
    np.testing.assert_allclose(a.detach().numpy(), np.asarray(b), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 5), (2, 5, 3), (2, 3, 5), (40, 33), (3, 0, 0)])
def test_factorisations_multiply_back(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    a = matrices(*shape, dtype=dtype)
    q, r = linalg.qr(a)
    close(q @ r, a)
    u, s, vh = linalg.svd(a, full_matrices=False)
    close(u * s.unsqueeze(-2) @ vh, a)
    close(linalg.svdvals(a), s.numpy())
    p, low, up = linalg.lu(a)
    close(p @ low @ up, a)
    packed, pivots = linalg.lu_factor(a)
    for one, other in zip(torch.lu_unpack(packed, pivots), (p, low, up), strict=True):
        close(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_eigenvalues(dtype: torch.dtype) -> None:
    a = matrices(2, 4, 4, dtype=dtype)
    values, vectors = linalg.eig(a)
    assert values.dtype is torch.complex128
    close(a.to(torch.complex128) @ vectors, vectors * values.unsqueeze(-2))
    h = symmetric(a)
    values, vectors = linalg.eigh(h)
    close(vectors * values.unsqueeze(-2) @ vectors.mH, h)
    close(linalg.eigvalsh(h.triu(), UPLO="U"), values.numpy())


@pytest.mark.parametrize("dtype", DTYPES)
def test_solving(dtype: torch.dtype) -> None:
    a, b = matrices(2, 4, 4, dtype=dtype), matrices(2, 4, 3, dtype=dtype)
    close(a @ linalg.solve(a, b), b)
    close(linalg.solve(a, b.mT, left=False) @ a, b.mT)
    close(a @ linalg.inv(a), np.eye(4)[None].repeat(2, 0))
    close(torch.lu_solve(b, *linalg.lu_factor(a)), linalg.solve(a, b))
    close(a.mH @ linalg.lu_solve(*linalg.lu_factor(a), b, adjoint=True), b)
    spd = positive(4, dtype)
    for upper in (False, True):
        factor = linalg.cholesky(spd, upper=upper)
        close(spd @ torch.cholesky_solve(b, factor, upper), b)
        close(spd @ torch.cholesky_inverse(factor, upper), np.eye(4)[None].repeat(2, 0))
        x = linalg.solve_triangular(a, b, upper=upper)
        close((a.triu() if upper else a.tril()) @ x, b)


def test_large_lu_takes_the_blocked_path() -> None:
    a = matrices(90, 90)
    p, low, up = linalg.lu(a)
    close(p @ low @ up, a)
    assert bool((low.abs() <= 1).all())


def test_singular_matrices_are_named() -> None:
    a = torch.eye(3).repeat(2, 1, 1)
    a[1, 2, 2] = 0
    with pytest.raises(linalg.LinAlgError, match=r"Batch element 1\).*singular"):
        linalg.inv(a)
    with pytest.raises(RuntimeError, match="solve"):
        linalg.solve(a[1], torch.ones(3))
    assert linalg.inv_ex(a).info.tolist() == [0, 3]
    close(linalg.inv_ex(a).inverse[0], np.eye(3))
    with pytest.raises(linalg.LinAlgError, match="not positive-definite"):
        linalg.cholesky(a)
    assert linalg.cholesky_ex(a).info.tolist() == [0, 3]


def test_wrong_matrices() -> None:
    with pytest.raises(RuntimeError, match="must be batches of square matrices"):
        linalg.inv(torch.ones(2, 3))
    with pytest.raises(RuntimeError, match="at least 2 dimensions"):
        linalg.det(torch.ones(3))
    with pytest.raises(RuntimeError, match="Expected a floating point"):
        linalg.svd(torch.ones(2, 2, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="Low precision"):
        linalg.qr(torch.ones(2, 2, dtype=torch.float16))
    with pytest.raises(RuntimeError, match="Incompatible shapes"):
        linalg.solve(torch.eye(3), torch.ones(2, 2))


@pytest.mark.parametrize("ord", ["fro", "nuc", 1, -1, 2, -2, float("inf"), -float("inf")])
def test_matrix_norms(ord: object) -> None:
    a = matrices(4, 3)
    close(linalg.matrix_norm(a, ord), np.linalg.norm(a.numpy(), ord))
    close(linalg.norm(a, ord), np.linalg.norm(a.numpy(), ord))
    assert linalg.matrix_norm(matrices(2, 4, 3), ord, dim=(0, 2), keepdim=True).shape == (1, 4, 1)


@pytest.mark.parametrize("p", [None, 2, -2, "fro", "nuc", 1, -1, float("inf"), -float("inf")])
def test_condition(p: object) -> None:
    a = matrices(4, 4)
    close(linalg.cond(a, p), np.linalg.cond(a.numpy(), p))


def test_what_follows() -> None:
    a = matrices(5, 3)
    close(linalg.pinv(a), np.linalg.pinv(a.numpy()))
    low_rank = a[:, :2] @ a[:, :2].mT
    assert linalg.matrix_rank(low_rank).item() == 2
    assert linalg.matrix_rank(low_rank, hermitian=True).item() == 2
    b = matrices(5, 2)
    found = linalg.lstsq(a, b, driver="gelsd")
    expected = np.linalg.lstsq(a.numpy(), b.numpy(), None)
    close(found.solution, expected[0])
    close(found.residuals, expected[1])
    assert found.rank.item() == 3
    sq = matrices(3, 3)
    close(linalg.det(sq), np.linalg.det(sq.numpy()))
    sign, size = linalg.slogdet(sq)
    close(sign * size.exp(), np.linalg.det(sq.numpy()))
    close(linalg.matrix_power(sq, -3), np.linalg.matrix_power(sq.numpy(), -3))
    assert linalg.tensorinv(matrices(6, 2, 3), 1).shape == (2, 3, 6)


def test_matrix_exp() -> None:
    scipy = pytest.importorskip("scipy.linalg")
    a = matrices(3, 4, 4) * torch.tensor([0.1, 1.0, 30.0]).reshape(3, 1, 1)
    np.testing.assert_allclose(torch.matrix_exp(a).numpy(), scipy.expm(a.numpy()), rtol=1e-10)


def test_reflectors() -> None:
    a = matrices(5, 3)
    h, tau = torch.geqrf(a)
    q = linalg.householder_product(h, tau)
    close(q @ h.triu()[:3], a)
    c = matrices(5, 2)
    full = linalg.qr(a, "complete").Q
    close(torch.ormqr(h, tau, c, transpose=True), full.mT.numpy() @ c.numpy())
    close(torch.ormqr(h, tau, c.mT, left=False), c.numpy().T @ full.numpy())


SQUARE = {
    "inv": linalg.inv, "det": linalg.det, "slogdet": lambda a: linalg.slogdet(a)[1],
    "qr": lambda a: linalg.qr(a)[1].abs(), "svdvals": linalg.svdvals, "pinv": linalg.pinv,
    "svd": lambda a: _rebuilt(a), "eigvals": lambda a: linalg.eigvals(a).abs(),
    "eigh": lambda a: _rebuilt_eigh(a), "exp": torch.matrix_exp,
    "power": lambda a: a.matrix_power(3),
    "cholesky": lambda a: linalg.cholesky(a @ a.mH + torch.eye(3, dtype=a.dtype)),
    "lu": lambda a: linalg.lu(a)[2], "solve": lambda a: linalg.solve(a, a.mT),
    "nuc": lambda a: linalg.matrix_norm(a, "nuc"),
    "triangle": lambda a: linalg.solve_triangular(a, a.mT, upper=False, unitriangular=True),
    "lstsq": lambda a: linalg.lstsq(a, a.mT).solution,
    "eig": lambda a: (linalg.eig(a)[1].abs() ** 2).sum(0),
}


def _rebuilt(a: torch.Tensor) -> torch.Tensor:
    u, s, vh = linalg.svd(a)
    return (u * s.square().unsqueeze(-2)) @ vh


def _rebuilt_eigh(a: torch.Tensor) -> torch.Tensor:
    values, v = linalg.eigh(symmetric(a))
    return (v * values.square().unsqueeze(-2)) @ v.mH


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SQUARE)
def test_gradients(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    a = matrices(3, 3, dtype=dtype).requires_grad_()
    assert gradcheck(SQUARE[name], (a,))
    if name not in ("lu", "eig"):
        assert gradgradcheck(SQUARE[name], (a,))


@pytest.mark.parametrize("shape", [(4, 2), (2, 4)])
@pytest.mark.parametrize("name", ["lu", "qr", "svd", "pinv"])
def test_gradients_of_rectangles(name: str, shape: tuple[int, int]) -> None:
    fn = {"lu": lambda a: linalg.lu(a)[1:], "qr": lambda a: linalg.qr(a)[1].abs(),
          "svd": lambda a: linalg.svd(a, False)[1], "pinv": linalg.pinv}[name]
    assert gradcheck(fn, (matrices(*shape).requires_grad_(),))


def test_the_gradient_of_a_determinant_survives_singular_matrices() -> None:
    a = torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=torch.float64, requires_grad=True)
    linalg.det(a).backward()
    close(a.grad, [[4.0, -2.0], [-2.0, 1.0]])


def test_vectors_and_samples() -> None:
    x, y = matrices(4, 3), matrices(4, 3)
    close(torch.cross(x, y, dim=1), np.cross(x.numpy(), y.numpy()))
    close(linalg.vecdot(x, y), (x.numpy() * y.numpy()).sum(-1))
    close(torch.cov(x), np.cov(x.numpy()))
    close(torch.corrcoef(x), np.corrcoef(x.numpy()))
    close(torch.cov(x, correction=0, fweights=torch.tensor([1, 2, 1])),
          np.cov(x.numpy(), ddof=0, fweights=[1, 2, 1]))
    close(torch.trapezoid(x, y), np.trapezoid(x.numpy(), y.numpy()))
    close(torch.trapezoid(x, dx=0.5, dim=0), np.trapezoid(x.numpy(), dx=0.5, axis=0))
    close(torch.vander(x[0], 4), np.vander(x[0].numpy(), 4))
    for order in (1, 2):
        for mine, theirs in zip(torch.gradient(x, spacing=0.5, edge_order=order),
                                np.gradient(x.numpy(), 0.5, edge_order=order), strict=True):
            close(mine, theirs)
    assert torch.trace(torch.arange(9).reshape(3, 3)).item() == 12
    close(torch.renorm(x, 2, 0, 1.0).norm(dim=1).clamp(min=1), np.ones(4))


def test_shapes_without_data() -> None:
    a = torch.empty(2, 4, 3, device="meta")
    assert [t.shape for t in linalg.svd(a)] == [(2, 4, 4), (2, 3), (2, 3, 3)]
    assert linalg.qr(a).Q.shape == (2, 4, 3)
    assert linalg.pinv(a).shape == (2, 3, 4)
    assert linalg.inv(a[:, :3]).device.type == "meta"
