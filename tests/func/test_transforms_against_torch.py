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


def same(fn) -> None:
    ours, theirs = leaves(lampion, fn(lampion)), leaves(torch, fn(torch))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


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
