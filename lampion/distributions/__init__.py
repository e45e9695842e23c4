"""Probability distributions: draws, densities, divergences."""

from __future__ import annotations

from typing import Any

from . import constraints, utils
from .bernoulli import Bernoulli
from .categorical import Categorical
from .distribution import Distribution
from .exponential import Exponential
from .independent import Independent
from .kl import kl_divergence, register_kl
from .laplace import Laplace
from .multivariate_normal import MultivariateNormal
from .normal import Normal
from .poisson import Poisson
from .uniform import Uniform

__all__ = [
    "Bernoulli", "Categorical", "Distribution", "Exponential", "Independent", "Laplace",
    "MultivariateNormal", "Normal", "Poisson", "Uniform", "constraints", "kl_divergence",
    "register_kl", "utils",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    raise AttributeError(f"lampion has no torch.distributions.{name} yet")
