"""Distributions without PyTorch: moments of draws, densities beside SciPy's, errors."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats as st

import lampion as torch
from lampion import distributions as D
from lampion.testing import assert_close

T = torch.tensor
MATRIX = [[2.0, 0.5], [0.5, 1.0]]

CASES = {
    "normal": (D.Normal(1.0, 2.0), st.norm(1, 2), [-1.0, 0.5, 3.0]),
    "uniform": (D.Uniform(1.0, 3.0), st.uniform(1, 2), [1.0, 1.5, 2.5]),
    "exponential": (D.Exponential(2.0), st.expon(scale=0.5), [0.1, 1.0, 3.0]),
    "laplace": (D.Laplace(1.0, 2.0), st.laplace(1, 2), [-2.0, 1.0, 4.0]),
    "bernoulli": (D.Bernoulli(0.3), st.bernoulli(0.3), [0.0, 1.0, 1.0]),
    "poisson": (D.Poisson(3.0), st.poisson(3), [0.0, 2.0, 7.0]),
}


@pytest.mark.parametrize("name", CASES)
def test_against_scipy(name: str) -> None:
    ours, theirs, values = CASES[name]
    density = getattr(theirs, "logpdf", None) if hasattr(theirs.dist, "pdf") else theirs.logpmf
    close = lambda t, ref: np.testing.assert_allclose(t.numpy(), ref, rtol=1e-5, atol=1e-6)
    close(ours.log_prob(T(values)), density(values))
    close(ours.mean, theirs.mean())
    close(ours.variance, theirs.var())
    close(ours.stddev, theirs.std())
    if name != "poisson":
        close(ours.entropy(), theirs.entropy())
    if type(ours).cdf is not D.Distribution.cdf:
        close(ours.cdf(T(values)), theirs.cdf(values))
        close(ours.icdf(T([0.1, 0.7])), theirs.ppf([0.1, 0.7]))
    drawn = ours.sample((20_000,))
    assert abs(drawn.mean() - ours.mean) < 5 * ours.stddev / 20_000 ** 0.5
    assert abs(drawn.var() - ours.variance) < 0.1 * ours.variance


def test_vectors() -> None:
    d = D.MultivariateNormal(T([1.0, -1.0]), T(MATRIX))
    reference = st.multivariate_normal([1, -1], MATRIX)
    x = T([[0.0, 0.0], [1.0, 2.0]])
    np.testing.assert_allclose(d.log_prob(x).numpy(), reference.logpdf(x.numpy()), rtol=1e-5)
    np.testing.assert_allclose(d.entropy().numpy(), reference.entropy(), rtol=1e-6)
    same = D.MultivariateNormal(d.loc, precision_matrix=d.precision_matrix)
    assert_close(same.log_prob(x), d.log_prob(x), rtol=1e-4, atol=1e-5)
    assert_close(d.variance, T([2.0, 1.0]))
    assert_close(torch.cov(d.sample((20_000,)).t()), T(MATRIX), rtol=0.1, atol=0.05)


def test_shapes_expansion_and_independence() -> None:
    d = D.Normal(torch.zeros(3, 2), torch.ones(2))
    assert (d.batch_shape, d.event_shape, d.sample((4,)).shape) == ((3, 2), (), (4, 3, 2))
    assert d.expand((5, 3, 2)).log_prob(torch.zeros(2)).shape == (5, 3, 2)
    one = D.Independent(d, 1)
    assert (one.batch_shape, one.event_shape) == ((3,), (2,))
    assert_close(one.log_prob(torch.zeros(3, 2)), d.log_prob(torch.zeros(3, 2)).sum(-1))
    c = D.Categorical(logits=torch.zeros(3, 4))
    assert c.sample((2, 5)).shape == (2, 5, 3) and c.expand((2, 3)).sample().shape == (2, 3)
    assert c.enumerate_support().shape == (4, 3)


def test_gradients() -> None:
    loc = T(1.0, requires_grad=True)
    D.Normal(loc, 2.0).rsample((3,)).sum().backward()
    assert loc.grad == 3
    assert not D.Normal(loc, 2.0).sample().requires_grad
    logits = torch.zeros(3, requires_grad=True)
    D.Categorical(logits=logits).log_prob(T(1)).backward()
    assert_close(logits.grad, T([-1 / 3, 2 / 3, -1 / 3]))


@pytest.mark.parametrize("name", ["normal", "exponential", "laplace", "bernoulli", "poisson"])
def test_divergence_is_the_mean_of_the_difference(name: str) -> None:
    make = {"normal": lambda a: D.Normal(a, a + 1), "exponential": D.Exponential,
            "laplace": lambda a: D.Laplace(a, a + 1), "poisson": D.Poisson,
            "bernoulli": lambda a: D.Bernoulli(a / 2)}[name]
    p, q = make(0.5), make(0.9)
    x = p.sample((50_000,))
    assert abs(D.kl_divergence(p, q) - (p.log_prob(x) - q.log_prob(x)).mean()) < 0.02
    assert abs(D.kl_divergence(p, p)) < 1e-6


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda: D.Normal(torch.zeros(2), -1.0), ValueError,
     r"Expected parameter scale \(Tensor of shape \(2,\)\) of distribution Normal"),
    (lambda: D.Categorical(), ValueError, "Either `probs` or `logits`"),
    (lambda: D.Categorical(T(1.0)), ValueError, "at least one-dimensional"),
    (lambda: D.Categorical(torch.ones(3)).log_prob(T(5)), ValueError, "within the support"),
    (lambda: D.Normal(0.0, 1.0).log_prob(T(float("nan"))), ValueError, r"support \(Real\(\)\)"),
    (lambda: D.Normal(0.0, 1.0).log_prob("a"), ValueError, "must be a Tensor"),
    (lambda: D.Normal(torch.zeros(2), 1.0).log_prob(torch.zeros(3)), ValueError,
     "not broadcastable"),
    (lambda: D.Bernoulli(2.0), ValueError, r"Interval\(lower_bound=0.0, upper_bound=1.0\)"),
    (lambda: D.Uniform(1.0, 0.0), ValueError, "Expected parameter low"),
    (lambda: D.Categorical(torch.ones(3)).rsample(), NotImplementedError, "rsample"),
    (lambda: D.kl_divergence(D.Normal(0.0, 1.0), D.Poisson(1.0)), NotImplementedError, "No KL"),
    (lambda: D.LKJCholesky, AttributeError, "lampion has no torch.distributions.LKJ"),
    (lambda: D.MultivariateNormal(torch.zeros(2)), ValueError, "Exactly one of"),
])
def test_errors(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call()


def test_printing() -> None:
    assert repr(D.Normal(torch.zeros(2), 1.0)) == (
        "Normal(loc: torch.Size([2]), scale: torch.Size([2]))")
    assert repr(D.Categorical(torch.ones(3))) == "Categorical(probs: torch.Size([3]))"
    assert repr(D.constraints.positive) == "GreaterThan(lower_bound=0.0)"
