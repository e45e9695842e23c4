"""Seeded draws and densities equal PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

import lampion

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

MAKE = {
    "normal": lambda t: t.distributions.Normal(t.tensor([0.0, 1.0]), 2.0),
    "uniform": lambda t: t.distributions.Uniform(t.tensor([0.0, 1.0]), 2.0),
    "exponential": lambda t: t.distributions.Exponential(t.tensor([0.5, 1.0])),
    "laplace": lambda t: t.distributions.Laplace(t.tensor([0.5, 1.0]), 1.0),
    "bernoulli": lambda t: t.distributions.Bernoulli(t.tensor([0.5, 0.1])),
    "bernoulli logits": lambda t: t.distributions.Bernoulli(logits=t.tensor([0.5, -1.0])),
    "categorical": lambda t: t.distributions.Categorical(t.tensor([[1.0, 2.0, 3.0]] * 2)),
    "categorical logits": lambda t: t.distributions.Categorical(logits=t.tensor([0.0, 1.0])),
    "poisson": lambda t: t.distributions.Poisson(t.tensor([0.5, 30.0])),
    "vectors": lambda t: t.distributions.MultivariateNormal(
        t.zeros(2), t.tensor([[2.0, 0.5], [0.5, 1.0]])),
    "independent": lambda t: t.distributions.Independent(
        t.distributions.Normal(t.zeros(3, 2), 1.0), 1),
}


@pytest.mark.parametrize("name", MAKE)
def test_draws_and_densities(name: str) -> None:
    found = []
    for library in (lampion, torch):
        library.manual_seed(5)
        d = MAKE[name](library)
        texts = repr(d), repr(d.support)
        drawn = d.sample((7, 3))
        results = [drawn, d.log_prob(drawn), d.mean, d.variance]
        if d.has_rsample:
            results.append(d.rsample((3,)))
        if name != "poisson":
            results.append(d.entropy())
        found.append(([r.numpy() for r in results], texts))
    for ours, theirs in zip(found[0][0], found[1][0]):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)
    assert found[0][1] == found[1][1]
