"""torch.func beside PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

import lampion

torch = pytest.importorskip("torch")
# PyTorch's forward mode loads its deprecated compiler of scripts.
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

FUNCTIONS = {
    "softmax": lambda t, x: t.softmax(x, -1),
    "gelu": lambda t, x: t.nn.functional.gelu(x),
    "matmul": lambda t, x: x @ x.t(),
    "norm": lambda t, x: t.nn.functional.layer_norm(x, (3,)),
    "mixed": lambda t, x: {"a": (x.sin(), x.sum()), "b": x[0] * x[1]},
}
VALUES = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)


def leaves(library, result):
    flat = library.utils._pytree.tree_flatten(result)[0]
    return [leaf.detach().numpy() for leaf in flat]


def same(fn, atol: float = 2e-6) -> None:
    ours, theirs = leaves(lampion, fn(lampion)), leaves(torch, fn(torch))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=atol)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("transform", ["jacrev", "jacfwd", "jvp", "vjp", "vmap", "hessian"])
def test_transforms(name: str, transform: str) -> None:
    f = FUNCTIONS[name]

    def run(t):
        x, g = t.tensor(VALUES), lambda x: f(t, x)
        if transform == "jvp":
            return t.func.jvp(g, (x,), (x.cos(),))
        if transform == "vjp":
            out, pull = t.func.vjp(g, x)
            return pull(out)
        if transform == "vmap":
            return t.func.vmap(g, in_dims=2)(t.stack([x, x * 2, x + 1], 2))
        return getattr(t.func, transform)(g)(x)
    same(run)


def test_per_sample_gradients_of_a_network() -> None:
    def run(t):
        t.manual_seed(0)
        model = t.nn.Sequential(t.nn.Linear(3, 4), t.nn.ReLU(), t.nn.Linear(4, 2))
        params = {k: v.detach() for k, v in model.named_parameters()}

        def loss(p, x, y):
            out = t.func.functional_call(model, p, (x.unsqueeze(0),))
            return t.nn.functional.cross_entropy(out, y.unsqueeze(0))
        return t.func.vmap(t.func.grad(loss), in_dims=(None, 0, 0))(
            params, t.tensor(VALUES), t.tensor([0, 1]))
    same(run)


@pytest.mark.parametrize("name", [
    "rand", "dropout", "normal_of", "same", "several", "parameters", "integers"])
def test_random_numbers_of_maps(name: str) -> None:
    fns = {
        "rand": lambda t: lambda x: x + t.rand(3), "same": lambda t: lambda x: x * t.randn(3),
        "dropout": lambda t: lambda x: t.nn.functional.dropout(x, 0.3),
        "normal_of": lambda t: lambda x: x + t.randn_like(x),
        "several": lambda t: lambda x: (t.rand(2), t.randn(2), x * t.rand(())),
        "parameters": lambda t: lambda x: t.bernoulli(x.sigmoid()),
        "integers": lambda t: lambda x: t.randint(0, 100, (4,)),
    }

    def run(t):
        t.manual_seed(5)
        how = "same" if name == "same" else "different"
        return t.func.vmap(fns[name](t), randomness=how)(t.tensor(VALUES))
    same(run)


def test_per_sample_gradients_and_ensembles() -> None:
    rng = np.random.default_rng(1)
    shapes = {"0.weight": (4, 1, 3, 3), "0.bias": (4,), "3.weight": (5, 36), "3.bias": (5,)}
    values = {n: rng.standard_normal((2, *s)).astype(np.float32) for n, s in shapes.items()}
    images = rng.standard_normal((6, 1, 5, 5)).astype(np.float32)
    labels = rng.integers(0, 5, 6)

    def run(t):
        net = t.nn.Sequential(t.nn.Conv2d(1, 4, 3), t.nn.Tanh(), t.nn.Flatten(),
                              t.nn.Linear(36, 5))
        stacked = {n: t.tensor(v) for n, v in values.items()}
        x, y = t.tensor(images), t.tensor(labels)

        def loss(params, x, y):
            out = t.func.functional_call(net, params, (x[None],))
            return t.nn.functional.cross_entropy(out, y[None], label_smoothing=0.1)
        per_sample = t.func.vmap(t.func.grad(loss), in_dims=(None, 0, 0))
        first = per_sample({n: v[0] for n, v in stacked.items()}, x, y)
        both = t.func.vmap(per_sample, in_dims=(0, None, None))(stacked, x, y)
        outs = t.func.vmap(lambda p: t.func.functional_call(net, p, (x,)))(stacked)
        return first, both, outs
    same(run, 1e-5)  # gradients of weights are sums of numbers around one that cancel
