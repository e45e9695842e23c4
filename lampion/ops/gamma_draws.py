"""Gamma and Dirichlet draws with the gradients of their parameters."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..runtime import rejection
from ..tensor.tensor import Tensor
from .families import Array
from .generator import stream_of
from .record import leaf, not_differentiable, op, same_shape
from .reference import gamma

__all__ = ["standard_gamma"]


def _slope(shape: Array, x: Array) -> Array:
    """dx/d shape at a fixed place of the distribution: minus dP/d shape over the density.

    Figurnov et al., "Implicit reparameterization gradients" (2018); dP by five points, on the
    smaller side of the distribution.
    """
    a, x = shape.astype(np.float64), np.maximum(x.astype(np.float64), 1e-300)
    h = 2e-3 * np.minimum(a, np.sqrt(a))
    upper = x > a

    def at(k: int) -> Array:
        b = a + k * h
        return np.where(upper, -gamma.gammainc(b, x, True), gamma.gammainc(b, x, False))
    change = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h)
    with np.errstate(all="ignore"):
        density = np.exp((a - 1) * np.log(x) - x - gamma.lgamma(a))
        # Far below, P is x^a / gamma(a + 1) and the quotient is known.
        near = -x / a * (np.log(x) - gamma.digamma(a + 1))
        found = np.where(density > 0, -change / density, 0.0)
        return np.where((a < 1) & (x < 1e-5 * a), near, found).astype(shape.dtype)


@leaf(not_differentiable("a derivative by differences"), shape=same_shape)
def _standard_gamma_grad(input: Array, output: Array) -> Array:
    return _slope(input, output)


@leaf({"input": lambda g, input, out: g * _standard_gamma_grad(input, out)},
      name="standard_gamma", shape=same_shape)
def _standard_gamma(input: Array, generator: Any) -> Array:
    stream = stream_of(generator, "standard_gamma")
    return rejection.standard_gamma(stream, input.reshape(-1)).reshape(input.shape)


@op("torch", name="_standard_gamma")
def standard_gamma(input: Tensor, generator: Any = None) -> Tensor:
    """Draws from gamma distributions of the given shapes and rate 1; differentiable."""
    return _standard_gamma(input, generator)
