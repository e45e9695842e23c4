"""Special functions beside SciPy's: errors relative to the value, or absolute where it is small."""

from __future__ import annotations

import numpy as np
import pytest

import lampion as torch
from lampion.autograd import gradcheck, gradgradcheck
from lampion.debug.knobs import override
from lampion.ops.native import REASONS

reference = pytest.importorskip("scipy.special")
special = torch.special
RNG = np.random.default_rng(0)
WIDE = np.concatenate([RNG.uniform(-30, 30, 500), RNG.uniform(-1, 1, 200), [0.0, 1e-9, -1e-9]])
POSITIVE = np.abs(WIDE) + 1e-6
UNIT = np.concatenate([RNG.uniform(-1, 1, 300), 1 - 10.0 ** -np.arange(1, 15)])
ONE_OPERAND = {
    "erf": (reference.erf, WIDE), "erfc": (reference.erfc, WIDE), "erfcx": (reference.erfcx, WIDE),
    "erfinv": (reference.erfinv, UNIT), "ndtr": (reference.ndtr, WIDE),
    "ndtri": (reference.ndtri, np.abs(UNIT)), "log_ndtr": (reference.log_ndtr, WIDE),
    "entr": (reference.entr, WIDE), "gammaln": (reference.gammaln, WIDE),
    "digamma": (reference.digamma, WIDE[WIDE != 0]), "i0": (reference.i0, WIDE),
    "i0e": (reference.i0e, WIDE), "i1": (reference.i1, WIDE), "i1e": (reference.i1e, WIDE),
    "bessel_j0": (reference.j0, WIDE * 3), "bessel_j1": (reference.j1, WIDE * 3),
    "bessel_y0": (reference.y0, POSITIVE * 3), "bessel_y1": (reference.y1, POSITIVE * 3),
    "modified_bessel_k0": (reference.k0, POSITIVE), "modified_bessel_k1": (reference.k1, POSITIVE),
    "scaled_modified_bessel_k0": (reference.k0e, POSITIVE),
    "scaled_modified_bessel_k1": (reference.k1e, POSITIVE),
    "sinc": (np.sinc, WIDE), "expit": (reference.expit, WIDE),
}


def check(found: torch.Tensor, expected: np.ndarray, within: float) -> None:
    np.testing.assert_allclose(found.numpy(), expected, rtol=within, atol=within)


KERNELS = ["erf", "erfc", "erfcx", "erfinv", "ndtr", "ndtri", "log_ndtr", "gammaln", "digamma",
           "i0", "i0e", "i1", "i1e"]


@pytest.mark.parametrize("dtype, within", [("float32", 1.2e-7), ("float64", 3e-12)])
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_beside_scipy(name: str, dtype: str, within: float) -> None:
    fn, x = ONE_OPERAND[name]
    x = np.resize(x, 5000).astype(dtype)  # large enough for a kernel
    with override(kernels="sync"):
        found = getattr(special, name)(torch.from_numpy(x))
    with np.errstate(over="ignore"):
        check(found, fn(x.astype("float64")).astype(dtype), within)
    assert {"gammaln": "lgamma"}.get(name, name) not in REASONS


@pytest.mark.parametrize("name", ONE_OPERAND)
def test_beside_scipy(name: str) -> None:
    fn, x = ONE_OPERAND[name]
    ours = getattr(special, name)
    check(ours(torch.from_numpy(x)), fn(x), 3e-13)
    single = x.astype(np.float32)
    found = ours(torch.from_numpy(single))
    assert found.dtype is torch.float32
    with np.errstate(over="ignore"):
        check(found, fn(single.astype(np.float64)).astype(np.float32), 1e-6)


def test_airy() -> None:
    x = np.linspace(-30, 20, 400)
    check(special.airy_ai(torch.from_numpy(x)), reference.airy(x)[0], 5e-11)


def test_two_operands() -> None:
    a = np.abs(RNG.normal(size=300)) * 20 + 0.01
    x = a * RNG.uniform(0.1, 3, 300)
    ta, tx = torch.from_numpy(a), torch.from_numpy(x)
    check(special.gammainc(ta, tx), reference.gammainc(a, x), 1e-12)
    check(special.gammaincc(ta, tx), reference.gammaincc(a, x), 1e-12)
    check(special.zeta(ta + 1.1, tx), reference.zeta(a + 1.1, x), 1e-13)
    check(special.xlog1py(ta, tx), reference.xlog1py(a, x), 1e-13)
    for n in range(5):
        check(torch.polygamma(n, tx) / torch.polygamma(n, tx).abs().clamp(min=1),
              reference.polygamma(n, x) / np.maximum(np.abs(reference.polygamma(n, x)), 1), 1e-12)


@pytest.mark.parametrize("name, fn", [
    ("chebyshev_polynomial_t", "eval_chebyt"), ("chebyshev_polynomial_u", "eval_chebyu"),
    ("hermite_polynomial_h", "eval_hermite"), ("hermite_polynomial_he", "eval_hermitenorm"),
    ("laguerre_polynomial_l", "eval_laguerre"), ("legendre_polynomial_p", "eval_legendre"),
    ("shifted_chebyshev_polynomial_t", "eval_sh_chebyt")])
def test_polynomials(name: str, fn: str) -> None:
    x, n = np.linspace(-1, 1, 21)[:, None], np.arange(8)
    found = getattr(special, name)(torch.from_numpy(x), torch.from_numpy(n))
    check(found, getattr(reference, fn)(n, x), 1e-11)


def test_limits() -> None:
    inf, nan = float("inf"), float("nan")
    x = torch.tensor([0.0, -1.0, inf, nan], dtype=torch.float64)
    assert torch.lgamma(x).tolist()[:3] == [inf, inf, inf]
    assert torch.digamma(torch.tensor([0.0])).item() == -inf
    assert torch.erfinv(torch.tensor([1.0, -1.0])).tolist() == [inf, -inf]
    assert torch.erfinv(torch.tensor(2.0)).isnan().item()
    assert torch.isnan(torch.lgamma(x))[3].item()
    assert torch.erfc(torch.tensor([inf, -inf])).tolist() == [0.0, 2.0]
    assert torch.igamma(torch.tensor([1.0, 1.0]), torch.tensor([0.0, inf])).tolist() == [0.0, 1.0]


SMOOTH = ["erf", "erfc", "erfcx", "ndtr", "log_ndtr", "gammaln", "digamma", "i0", "i0e", "i1",
          "i1e", "entr"]


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients(name: str) -> None:
    x = torch.tensor([0.4, 1.3, 2.2], dtype=torch.float64, requires_grad=True)
    assert gradcheck(getattr(special, name), (x,))
    assert gradgradcheck(getattr(special, name), (x,))


def test_gradients_of_inverses_and_pairs() -> None:
    p = torch.tensor([0.2, 0.7], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([1.2, 3.4], dtype=torch.float64, requires_grad=True)
    a = torch.tensor([0.7, 2.0], dtype=torch.float64)
    assert gradcheck(special.erfinv, (p,)) and gradcheck(special.ndtri, (p,))
    assert gradcheck(lambda t: torch.igamma(a, t), (x,))
    assert gradcheck(lambda t: special.zeta(a + 1, t), (x,))
    assert gradcheck(special.xlog1py, (x, p))
    assert gradcheck(lambda t: torch.mvlgamma(t, 2), (x,))
    assert gradcheck(lambda t: torch.polygamma(2, t), (x,))


def test_in_place_and_integers() -> None:
    x = torch.tensor([0.5, 1.5])
    y = x.clone()
    assert y.erf_() is y and torch.equal(y, torch.erf(x))
    assert torch.lgamma(torch.tensor([3, 4])).dtype is torch.float32
    out = torch.empty(2)
    assert torch.erfinv(x / 2, out=out) is out
    with pytest.raises(TypeError):
        special.zeta(1.0, 2.0)


@pytest.mark.parametrize("kernels", ["sync", "off"])
def test_scaled_complement_of_large_numbers(kernels):
    at = np.array([-np.inf, -1e30, -195210.5, -27.0, -26.5, 27.0, 1e30, np.inf, np.nan] * 16)
    with override(kernels=kernels):
        check(special.erfcx(torch.from_numpy(at)), reference.erfcx(at), 1e-12)
