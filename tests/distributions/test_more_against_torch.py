"""The less common distributions beside PyTorch's: draws, densities, moments, divergences."""

from __future__ import annotations

import numpy as np
import pytest

import lampion

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

A, B, P = [0.7, 2.5], [1.5, 0.4], [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]
PAIRS = ["Beta", "Cauchy", "FisherSnedecor", "Gamma", "Gumbel", "Laplace", "LogNormal", "Normal",
         "Pareto", "Weibull"]
SINGLES = ["Chi2", "Exponential", "HalfCauchy", "HalfNormal", "Poisson", "StudentT"]
BINARY = ["Bernoulli", "Geometric", "Binomial", "NegativeBinomial"]
CHOICES = ["Categorical", "OneHotCategorical", "OneHotCategoricalStraightThrough", "Multinomial"]


def make(t, name: str):
    D, tensor = t.distributions, t.tensor
    cls = getattr(D, name)
    if name in PAIRS:
        return cls(tensor(A), tensor(B))
    if name in SINGLES:
        return cls(tensor(A) + 2 if name == "StudentT" else tensor(A))
    if name in BINARY:
        first = (6,) if name.endswith("inomial") else ()
        return cls(*first, probs=tensor([0.2, 0.6]))
    if name in CHOICES:
        return cls(*((5,) if name == "Multinomial" else ()), probs=tensor(P))
    return {
        "Dirichlet": lambda: cls(tensor(P) * 4),
        "RelaxedBernoulli": lambda: cls(tensor(0.7), probs=tensor([0.2, 0.6])),
        "RelaxedOneHotCategorical": lambda: cls(tensor(0.7), probs=tensor(P)),
        "TransformedDistribution": lambda: cls(D.Normal(tensor(A), 1.0), [
            D.transforms.TanhTransform(), D.transforms.AffineTransform(1.0, 2.0)]),
        "MixtureSameFamily": lambda: cls(D.Categorical(tensor(A)), D.Normal(tensor(A), 1.0)),
    }[name]()


NAMES = [*PAIRS, *SINGLES, *BINARY, *CHOICES, "Dirichlet", "RelaxedBernoulli",
         "RelaxedOneHotCategorical", "TransformedDistribution", "MixtureSameFamily"]


def results(t, name: str) -> list[tuple[str, object]]:
    t.manual_seed(3)
    d = make(t, name)
    drawn = d.sample((4,))
    found = [("sample", drawn), ("log_prob", d.log_prob(drawn)),
             ("expanded", d.expand((3, *d.batch_shape)).log_prob(drawn[:3]))]
    for what in ("mean", "variance", "mode", "entropy"):
        try:
            value = getattr(d, what)
            found.append((what, value() if callable(value) else value))
        except (NotImplementedError, AttributeError):
            found.append((what, None))
    if d.has_rsample:
        found.append(("rsample", d.rsample((2,))))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_beside_pytorch(name: str) -> None:
    for (what, ours), (_, theirs) in zip(results(lampion, name), results(torch, name), strict=True):
        if theirs is None or ours is None:
            continue
        assert tuple(ours.shape) == tuple(theirs.shape), what
        np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=2e-4,
                                   atol=2e-5, err_msg=what)
    assert lampion.distributions.Distribution in getattr(lampion.distributions, name).__mro__
    assert repr(make(lampion, name)) == repr(make(torch, name))


@pytest.mark.parametrize("name", ["Beta", "Gamma", "Laplace", "Normal", "Exponential", "Poisson",
                                  "Bernoulli", "Geometric", "Categorical", "Dirichlet",
                                  "OneHotCategorical", "HalfNormal"])
def test_divergences(name: str) -> None:
    values = []
    for t in (lampion, torch):
        p = make(t, name)
        q = p.expand((2, *p.batch_shape)) if name == "Dirichlet" else make(t, name)
        values.append(t.distributions.kl_divergence(p, q).numpy())
        r = t.distributions.Normal(t.tensor(A), 1.5)
        values.append(t.distributions.kl_divergence(r, t.distributions.Normal(0.0, 2.0)).numpy())
    np.testing.assert_allclose(values[0], values[2], atol=2e-6)
    np.testing.assert_allclose(values[1], values[3], rtol=1e-5)


@pytest.mark.parametrize("name", ["ExpTransform", "SigmoidTransform", "TanhTransform",
                                  "SoftplusTransform", "StickBreakingTransform"])
def test_transforms(name: str) -> None:
    found = []
    for t in (lampion, torch):
        x = t.tensor([[0.3, -1.2, 0.8]])
        transform = getattr(t.distributions.transforms, name)()
        y = transform(x)
        found.append([y, transform.inv(y), transform.log_abs_det_jacobian(x, y)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_gamma_gradients() -> None:
    grads = []
    for t in (lampion, torch):
        t.manual_seed(1)
        a = t.tensor([0.3, 2.0, 40.0], requires_grad=True)
        t.distributions.Gamma(a, t.ones(3)).rsample((5,)).sum().backward()
        grads.append(a.grad.numpy())
    np.testing.assert_allclose(grads[0], grads[1], rtol=1e-3)
