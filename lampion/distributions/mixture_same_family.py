"""Mixtures of distributions of one family."""

from __future__ import annotations

from typing import Any

from ..autograd import no_grad
from ..nn import functional as F
from ..tensor import Tensor
from . import constraints
from .categorical import Categorical
from .distribution import Distribution

__all__ = ["MixtureSameFamily"]


class MixtureSameFamily(Distribution):
    """A mixture: components along the last batch dimension, weights from a `Categorical`."""

    arg_constraints: Any = {}

    def __init__(self, mixture_distribution: Categorical, component_distribution: Distribution,
                 validate_args: bool | None = None) -> None:
        if not isinstance(mixture_distribution, Categorical):
            raise ValueError(" The Mixture distribution needs to be an instance of "
                             "torch.distributions.Categorical")
        if not isinstance(component_distribution, Distribution):
            raise ValueError("The Component distribution need to be an instance of "
                             "torch.distributions.Distribution")
        batch = component_distribution.batch_shape
        for n, m in zip(reversed(mixture_distribution.batch_shape), reversed(batch[:-1]),
                        strict=False):
            if n != 1 and m != 1 and n != m:
                raise ValueError("`mixture_distribution.batch_shape` is not compatible with "
                                 "`component_distribution.batch_shape`")
        if mixture_distribution.logits.shape[-1] != batch[-1]:
            raise ValueError("`mixture_distribution component` does not equal `component_"
                             "distribution.batch_shape[-1]`")
        self._mixture_distribution = mixture_distribution
        self._component_distribution = component_distribution
        super().__init__(batch[:-1], component_distribution.event_shape,
                         validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = type(self).__new__(type(self)) if _instance is None else _instance
        count = self._component_distribution.batch_shape[-1]
        new._component_distribution = self._component_distribution.expand((*batch_shape, count))
        new._mixture_distribution = self._mixture_distribution.expand(batch_shape)
        Distribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property
    def support(self) -> Any:
        return self._component_distribution.support

    @property
    def mixture_distribution(self) -> Categorical:
        """The weights."""
        return self._mixture_distribution

    @property
    def component_distribution(self) -> Distribution:
        """The components."""
        return self._component_distribution

    def _weights(self) -> Tensor:
        probs = self.mixture_distribution.probs
        return probs.reshape((*probs.shape, *(1,) * len(self.event_shape)))

    def _component_dim(self) -> int:
        return -1 - len(self.event_shape)

    @property
    def mean(self) -> Tensor:
        return (self._weights() * self.component_distribution.mean).sum(self._component_dim())

    @property
    def variance(self) -> Tensor:
        w, dim = self._weights(), self._component_dim()
        inner = (w * self.component_distribution.variance).sum(dim)
        spread = self.component_distribution.mean - self.mean.unsqueeze(dim)
        return inner + (w * spread.pow(2)).sum(dim)

    def cdf(self, value: Tensor) -> Tensor:
        inner = self.component_distribution.cdf(value.unsqueeze(self._component_dim()))
        return (inner * self.mixture_distribution.probs).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        self._checked(value)
        inner = self.component_distribution.log_prob(value.unsqueeze(self._component_dim()))
        return (inner + F.log_softmax(self.mixture_distribution.logits, dim=-1)).logsumexp(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            chosen = self.mixture_distribution.sample(sample_shape)
            drawn = self.component_distribution.sample(sample_shape)
            dim, rest = len(sample_shape) + len(self.batch_shape), self.event_shape
            index = chosen.reshape((*chosen.shape, 1, *(1,) * len(rest)))
            shape = (*chosen.shape, 1, *rest)
            return drawn.gather(dim, index.expand(shape)).squeeze(dim)

    def __repr__(self) -> str:
        return (f"MixtureSameFamily(\n  {self.mixture_distribution},\n  "
                f"{self.component_distribution})")
