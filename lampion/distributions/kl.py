"""Kullback-Leibler divergences between pairs of distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .. import linalg, ops
from ..tensor import Tensor
from .bernoulli import Bernoulli
from .beta import Beta
from .binomial import Binomial
from .categorical import Categorical
from .dirichlet import Dirichlet
from .distribution import Distribution
from .exponential import Exponential
from .gamma import Gamma
from .geometric import Geometric
from .half_normal import HalfNormal
from .independent import Independent, sum_rightmost
from .laplace import Laplace
from .multivariate_normal import MultivariateNormal
from .normal import Normal
from .one_hot_categorical import OneHotCategorical
from .poisson import Poisson
from .transformed_distribution import TransformedDistribution
from .uniform import Uniform

__all__ = ["kl_divergence", "register_kl"]

_RULES: dict[tuple[type, type], Callable[[Any, Any], Tensor]] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[Any], Any]:
    """Decorator of a function that computes the divergence of a pair of classes."""
    for t in (type_p, type_q):
        if not (isinstance(t, type) and issubclass(t, Distribution)):
            raise TypeError(f"Expected type_p to be a Distribution subclass but got {t}")

    def decorator(fn: Any) -> Any:
        _RULES[type_p, type_q] = fn
        return fn
    return decorator


def _find(p: type, q: type) -> Callable[[Any, Any], Tensor] | None:
    """The rule of the nearest pair of base classes."""
    pairs = [(a, b) for a in p.__mro__ for b in q.__mro__ if (a, b) in _RULES]
    near = min(pairs, default=None, key=lambda ab: (
        p.__mro__.index(ab[0]) + q.__mro__.index(ab[1])))
    return None if near is None else _RULES[near]


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """The expectation under `p` of `p.log_prob - q.log_prob`.

    >>> import lampion as torch
    >>> D = torch.distributions
    >>> D.kl_divergence(D.Normal(0.0, 1.0), D.Normal(1.0, 1.0))
    tensor(0.5000)
    """
    rule = _find(type(p), type(q))
    if rule is None:
        raise NotImplementedError("No KL(p || q) is implemented for p type "
                                  f"{type(p).__name__} and q type {type(q).__name__}: add one "
                                  "with register_kl")
    return rule(p, q)


@register_kl(Normal, Normal)
def _normal(p: Any, q: Any) -> Tensor:
    ratio = (p.scale / q.scale).pow(2)
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale).pow(2) - 1 - ratio.log())


@register_kl(HalfNormal, HalfNormal)
def _half_normal(p: Any, q: Any) -> Tensor:
    return _normal(p.base_dist, q.base_dist)


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Any, q: Any) -> Tensor:
    found = ops.xlogy(p.probs, p.probs / q.probs) + ops.xlogy(
        1 - p.probs, (1 - p.probs) / (1 - q.probs))
    impossible = ((q.probs == 0) & (p.probs > 0)) | ((q.probs == 1) & (p.probs < 1))
    return found.masked_fill(impossible, math.inf)


@register_kl(Binomial, Binomial)
def _binomial(p: Any, q: Any) -> Tensor:
    if bool((p.total_count < q.total_count).any()):
        raise NotImplementedError("KL between Binomials where q.total_count > p.total_count is "
                                  "not implemented")
    found = p.total_count * (p.probs * (p.logits - q.logits) + (-p.probs).log1p()
                             - (-q.probs).log1p())
    return found.masked_fill((p.total_count > q.total_count).expand(found.shape), math.inf)


@register_kl(Categorical, Categorical)
def _categorical(p: Any, q: Any) -> Tensor:
    t = p.probs * (p.logits - q.logits)
    t = t.masked_fill((q.probs == 0).expand_as(t), math.inf)
    return t.masked_fill((p.probs == 0).expand_as(t), 0).sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot(p: Any, q: Any) -> Tensor:
    return _categorical(p._categorical, q._categorical)


@register_kl(Geometric, Geometric)
def _geometric(p: Any, q: Any) -> Tensor:
    return -p.entropy() - ops.log1p(-q.probs) / p.probs - q.logits


@register_kl(Poisson, Poisson)
def _poisson(p: Any, q: Any) -> Tensor:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@register_kl(Exponential, Exponential)
def _exponential(p: Any, q: Any) -> Tensor:
    ratio = q.rate / p.rate
    return -ratio.log() + ratio - 1


@register_kl(Laplace, Laplace)
def _laplace(p: Any, q: Any) -> Tensor:
    ratio, distance = p.scale / q.scale, (p.loc - q.loc).abs()
    return -ratio.log() + distance / q.scale + ratio * ops.exp(-distance / p.scale) - 1


@register_kl(Gamma, Gamma)
def _gamma(p: Any, q: Any) -> Tensor:
    return (q.concentration * (p.rate / q.rate).log() + ops.lgamma(q.concentration)
            - ops.lgamma(p.concentration)
            + (p.concentration - q.concentration) * ops.digamma(p.concentration)
            + (q.rate - p.rate) * (p.concentration / p.rate))


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Any, q: Any) -> Tensor:
    total_p, total_q = p.concentration.sum(-1), q.concentration.sum(-1)
    scale = total_p.lgamma() - total_q.lgamma()
    each = (p.concentration.lgamma() - q.concentration.lgamma()).sum(-1)
    slopes = p.concentration.digamma() - total_p.digamma().unsqueeze(-1)
    return scale - each + ((p.concentration - q.concentration) * slopes).sum(-1)


@register_kl(Beta, Beta)
def _beta(p: Any, q: Any) -> Tensor:
    return _dirichlet(p._dirichlet, q._dirichlet)


@register_kl(Uniform, Uniform)
def _uniform(p: Any, q: Any) -> Tensor:
    found = ((q.high - q.low) / (p.high - p.low)).log()
    return found.masked_fill((q.low > p.low) | (q.high < p.high), math.inf)


@register_kl(Uniform, Normal)
def _uniform_normal(p: Any, q: Any) -> Tensor:
    width = p.high - p.low
    log = (math.sqrt(2 * math.pi) * q.scale / width).log()
    middle = ((p.high + p.low - 2 * q.loc) / 2).pow(2)
    return log + 0.5 * (width.pow(2) / 12 + middle) / q.scale.pow(2)


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate_normal(p: Any, q: Any) -> Tensor:
    if p.event_shape != q.event_shape:
        raise ValueError("KL-divergence between two Multivariate Normals with different event "
                         "shapes cannot be computed")
    a, b = p._unbroadcasted_scale_tril, q._unbroadcasted_scale_tril
    half = (b.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            - a.diagonal(dim1=-2, dim2=-1).log().sum(-1))
    n = p.event_shape[0]
    lead = ops.broadcast_shapes(p.batch_shape, q.batch_shape)
    a, b = a.expand((*lead, n, n)), b.expand((*lead, n, n))
    spread = linalg.solve_triangular(b, a, upper=False).pow(2).sum((-2, -1))
    distance = (q.loc - p.loc).expand((*lead, n)).unsqueeze(-1)
    shift = linalg.solve_triangular(b, distance, upper=False).pow(2).sum((-2, -1))
    return half + 0.5 * (spread + shift - n)


@register_kl(Independent, Independent)
def _independent(p: Any, q: Any) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: Any, q: Any) -> Tensor:
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise NotImplementedError
    return kl_divergence(p.base_dist, q.base_dist)
