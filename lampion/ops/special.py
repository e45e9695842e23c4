"""Special functions: error functions, gamma and its relatives, Bessel functions, polynomials.

Kernels compute in float64 and round once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..tensor.tensor import Tensor
from .elementwise import log1p
from .errors import argument_type
from .families import Array, binary, operands, unary
from .promotion import cast, float_dtype
from .record import leaf, not_differentiable, op, same_shape
from .reference import bessel, gamma
from .reference import erf as errors

__all__: list[str] = []

_ROOT_PI = math.sqrt(math.pi)
_ROOT_TAU = math.sqrt(2 * math.pi)
_EVERYWHERE = "torch Tensor special"


def _wide(fn: Callable[..., Array]) -> Callable[..., Array]:
    """The function computed in float64, in the dtype of its operand."""
    def kernel(a: Array) -> Array:
        return fn(a.astype(np.float64)).astype(a.dtype)
    return kernel


def _make(name: str, fn: Callable[..., Array], grad: Any, places: str, aliases: str = "",
          doc: str = "") -> Any:
    if grad is None:
        grad = not_differentiable("as in PyTorch")
    return unary(name, _wide(fn), grad, places=places, kinds="float", aliases=aliases,
                 inplace="Tensor" in places, doc=doc)


# --- error functions ------------------------------------------------------------------------------

erf = unary("erf", lambda a: errors.erf(a), lambda g, input: g * (
    2 / _ROOT_PI) * (-input * input).exp(), places=_EVERYWHERE, kinds="float",
    doc="The error function.")
erfc = _make("erfc", errors.erfc, lambda g, input: g * (-2 / _ROOT_PI) * (-input * input).exp(),
             _EVERYWHERE, doc="1 - erf, precise for large elements.")
erfinv = _make("erfinv", errors.erfinv, lambda g, out: g * (_ROOT_PI / 2) * (out * out).exp(),
               _EVERYWHERE, doc="The inverse of the error function on [-1, 1].")
erfcx = _make("erfcx", errors.erfcx, lambda g, input, out: g * (
    2 * input * out - 2 / _ROOT_PI), "special", doc="exp(x**2) * erfc(x).")
ndtr = _make("ndtr", lambda a: errors.erfc(-a * math.sqrt(0.5)) / 2, lambda g, input: g * (
    -input * input / 2).exp() / _ROOT_TAU, "special",
    doc="The standard normal distribution function.")
log_ndtr = _make("log_ndtr", errors.log_ndtr, lambda g, input: g * math.sqrt(2 / math.pi) / erfcx(
    -input * math.sqrt(0.5)), "special", doc="The logarithm of `ndtr`, precise in the tail.")
ndtri = _make("ndtri", errors.ndtri, lambda g, out: g * _ROOT_TAU * (out * out / 2).exp(),
              "special", doc="The inverse of `ndtr`.")


def _entr(a: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.where(a > 0, -a * np.log(a), np.where(a == 0, 0.0, np.where(
            np.isnan(a), a, -np.inf)))


entr = _make("entr", _entr, lambda g, input: g * (-input.log() - 1), "special",
             doc="-x log x, the terms of an entropy.")

# --- gamma ----------------------------------------------------------------------------------------

lgamma = _make("lgamma", gamma.lgamma, lambda g, input: g * digamma(input), "torch Tensor",
               doc="The logarithm of the size of the gamma function.")
op("special", out=True, name="gammaln")(lgamma)
digamma = _make("digamma", gamma.digamma, lambda g, input: g * polygamma(1, input), _EVERYWHERE,
                doc="The derivative of `lgamma`.")
op("special", out=True, name="psi")(digamma)


@leaf({"input": lambda g, input, n: g * polygamma(n + 1, input)}, name="polygamma",
      shape=same_shape)
def _polygamma(input: Array, n: int) -> Array:
    return gamma.polygamma(n, input.astype(np.float64)).astype(input.dtype)


@op("torch special", out=True)
def polygamma(n: int, input: Tensor) -> Tensor:
    """The n-th derivative of `digamma`."""
    if not isinstance(n, int):
        raise argument_type("polygamma", "n", "int", n)
    if n < 0:
        raise RuntimeError(f"polygamma(n, x) does not support negative n: received {n}")
    return _polygamma(cast(input, float_dtype(input._dtype)), n)


@op("Tensor", name="polygamma", inplace=True)
def polygamma_method(self: Tensor, n: int) -> Tensor:
    """The n-th derivative of `digamma`."""
    return polygamma(n, self)


@op(inplace=True, out=True)
def mvlgamma(input: Tensor, p: int) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension p."""
    from .creation import arange

    if p < 1:
        raise RuntimeError(f"p has to be greater than or equal to 1: received {p}")
    x = cast(input, float_dtype(input._dtype))
    offsets = arange(p, dtype=x._dtype, device=x.device) * 0.5
    return lgamma(x.unsqueeze(-1) - offsets).sum(-1) + p * (p - 1) / 4 * math.log(math.pi)


op("special", out=True, name="multigammaln")(mvlgamma)


def _pair(fn: Callable[..., Array]) -> Callable[..., Array]:
    """A function of two operands computed in float64, in the dtype of the tensors among them."""
    def kernel(a: Array, b: Array) -> Array:
        d = np.result_type(*(x for x in (a, b) if isinstance(x, np.ndarray)))
        x, y = (np.asarray(v, np.float64) for v in (a, b))
        return np.asarray(fn(x, y)).astype(d)
    return kernel


def _gamma_density(x: Any, a: Any) -> Any:
    return (-x + (a - 1) * x.log() - lgamma(a)).exp()


igamma = binary("igamma", _pair(lambda a, x: gamma.gammainc(a, x, False)), {
    "other": lambda g, input, other: g * _gamma_density(other, input)}, kind="float",
    numbers="none", doc="The lower incomplete gamma function of `input` at `other`, regularised.")
igammac = binary("igammac", _pair(lambda a, x: gamma.gammainc(a, x, True)), {
    "other": lambda g, input, other: -g * _gamma_density(other, input)}, kind="float",
    numbers="none", doc="The upper incomplete gamma function of `input` at `other`, regularised.")
op("special", out=True, name="gammainc")(igamma)
op("special", out=True, name="gammaincc")(igammac)


def _zeta_grad(g: Any, input: Any, other: Any) -> Any:
    return g * -input * zeta(input + 1, other)


zeta = binary("zeta", _pair(gamma.zeta), {"other": _zeta_grad}, kind="float", places="special",
              inplace=False, doc="Hurwitz's zeta function of `input` from `other` on.")


@op("special", out=True)
def xlog1py(input: Any, other: Any) -> Tensor:
    """`input * log1p(other)`, 0 where input is 0 (and other is not NaN)."""
    a, b = operands("xlog1py", input, other, "float")
    if not isinstance(b, Tensor):
        b = Tensor._scalar(b, a._dtype)
    zero = (a == 0) & ~b.isnan() if isinstance(a, Tensor) else ~b.isnan() & (a == 0)
    return (a * log1p(b)).masked_fill(zero, 0)


# --- Bessel functions -----------------------------------------------------------------------------


def _bessel(name: str, fn: Callable[..., Array], order: int, grad: Any = None,
            places: str = "special", doc: str = "") -> Any:
    return _make(name, lambda a: fn(order, a), grad, places, doc=doc or (
        f"The Bessel function {name}, element by element."))


def _over(i: Any, input: Any) -> Any:
    """i1(x) / x, which is 1/2 at 0."""
    at_zero = input == 0
    return (i / input.masked_fill(at_zero, 1)).masked_fill(at_zero, 0.5)


i0 = _bessel("i0", bessel.i, 0, lambda g, input: g * i1(input), _EVERYWHERE,
             "The modified Bessel function of the first kind, order 0.")
i0e = _bessel("i0e", bessel.scaled_i, 0, lambda g, input, out: g * (
    i1e(input) - input.sgn() * out), doc="exp(-|x|) i0(x).")
i1 = _bessel("i1", bessel.i, 1, lambda g, input, out: g * (i0(input) - _over(out, input)),
             doc="The modified Bessel function of the first kind, order 1.")
i1e = _bessel("i1e", bessel.scaled_i, 1, lambda g, input, out: g * (
    i0e(input) - out * input.sgn() - _over(out, input)), doc="exp(-|x|) i1(x).")
for _order in (0, 1):
    _bessel(f"bessel_j{_order}", bessel.j, _order)
    _bessel(f"bessel_y{_order}", bessel.y, _order)
    _bessel(f"modified_bessel_i{_order}", bessel.i, _order)
    _bessel(f"modified_bessel_k{_order}", bessel.k, _order)
    _bessel(f"scaled_modified_bessel_k{_order}", bessel.scaled_k, _order)
_make("airy_ai", bessel.airy_ai, None, "special", doc="Airy's function (to about 1e-11).")


def _spherical_j0(a: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.where(np.isinf(a), 0.0, np.where(a == 0, 1.0, np.sin(a) / a))


_make("spherical_bessel_j0", _spherical_j0, None, "special", doc="sin(x) / x.")

# --- orthogonal polynomials -----------------------------------------------------------------------


def _polynomial(name: str, first: Callable[..., Array], following: Callable[..., Array],
                shifted: bool = False) -> None:
    """A family given by its member 1 and by member k + 1 from members k and k - 1."""
    def values(x: Array, n: Array) -> Array:
        x, n = np.broadcast_arrays(2 * x - 1 if shifted else x, np.trunc(n))
        out = np.where(n < 0, 0.0, 1.0)
        with np.errstate(all="ignore"):
            before, now = np.ones_like(x), first(x)
            for k in range(1, int(n.max(initial=0)) + 1):
                out = np.where(n == k, now, out)
                before, now = now, following(k, x, now, before)
        return out
    binary(name, _pair(values), not_differentiable("as in PyTorch"), kind="float",
           places="special", inplace=False,
           doc=f"The {name.replace('_', ' ')} of degree `other` at `input`.")


def _chebyshev(k: int, x: Array, now: Array, before: Array) -> Array:
    return 2 * x * now - before


for _kind, _first in {"t": lambda x: x, "u": lambda x: 2 * x, "v": lambda x: 2 * x - 1,
                      "w": lambda x: 2 * x + 1}.items():
    _polynomial(f"chebyshev_polynomial_{_kind}", _first, _chebyshev)
    _polynomial(f"shifted_chebyshev_polynomial_{_kind}", _first, _chebyshev, True)
_polynomial("hermite_polynomial_h", lambda x: 2 * x,
            lambda k, x, now, before: 2 * x * now - 2 * k * before)
_polynomial("hermite_polynomial_he", lambda x: x, lambda k, x, now, before: x * now - k * before)
_polynomial("laguerre_polynomial_l", lambda x: 1 - x,
            lambda k, x, now, before: ((2 * k + 1 - x) * now - k * before) / (k + 1))
_polynomial("legendre_polynomial_p", lambda x: x,
            lambda k, x, now, before: ((2 * k + 1) * x * now - k * before) / (k + 1))
