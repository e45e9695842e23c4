"""Kernels for small tensors: where an operator's reference takes several passes of NumPy."""

import pytest

import lampion as torch
from lampion.debug.knobs import override
from lampion.ops.native import OFTEN
from lampion.ops.record import LEAVES

F = torch.nn.functional


@pytest.fixture
def fresh():
    """Operators as if they had never been called."""
    kept = {name: (leaf.small, leaf.least) for name, leaf in LEAVES.items()}
    for leaf in LEAVES.values():
        if leaf.small or leaf.least == 1:
            leaf.small, leaf.least = OFTEN, max(leaf.least, 1024)
    yield
    for name, (small, least) in kept.items():
        LEAVES[name].small, LEAVES[name].least = small, least


def serve(call, times=1, kernels="auto"):
    with override(kernels=kernels):
        for _ in range(times):
            found = call()
    return found


@pytest.mark.parametrize(("name", "call"), [
    ("softmax", lambda x: x.softmax(-1)), ("gelu", F.gelu), ("erfc", torch.erfc),
    ("native_layer_norm", lambda x: F.layer_norm(x, (7,))),
    ("max_pool2d_with_indices", lambda x: F.max_pool2d(x[None], 2))])
def test_many_calls_on_small_tensors_are_served_by_a_kernel(name, call, fresh):
    x = torch.linspace(-3, 3, 35).reshape(5, 7)
    before = serve(lambda: call(x), OFTEN - 1)
    assert LEAVES[name].least > 1
    serve(lambda: call(x))
    assert LEAVES[name].least == 1
    after = serve(lambda: call(x), kernels="sync")
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)


def test_empty_tensors_have_nothing_for_a_kernel_to_do(fresh):
    serve(lambda: torch.erfc(torch.ones(3)), 2, kernels="sync")
    assert LEAVES["erfc"].least == 1
    assert serve(lambda: torch.erfc(torch.empty(0, 7)), kernels="sync").shape == (0, 7)
    with pytest.raises(IndexError, match="non-zero size"):
        serve(lambda: torch.empty(0, 7).amax(0), kernels="sync")


@pytest.mark.parametrize(("name", "call"), [
    ("relu", torch.relu), ("embedding", lambda x: F.embedding(torch.tensor([1, 2]), x)),
    ("mm", lambda x: x @ x.T)])
def test_what_numpy_does_at_once_stays_with_it(name, call, fresh):
    x = torch.linspace(-3, 3, 35).reshape(5, 7)
    serve(lambda: call(x), OFTEN + 2)
    assert LEAVES[name].least > 1 and not LEAVES[name].small


def test_sizes_that_come_seldom_get_no_plan(fresh):
    softmax, plans = torch.softmax, LEAVES["softmax"].launches
    serve(lambda: softmax(torch.ones(9), 0), OFTEN)
    before = sum(callable(plan) for plan in plans.values())
    serve(lambda: [softmax(torch.ones(n), 0) for n in range(10, 40)], 3)
    assert sum(callable(plan) for plan in plans.values()) == before
    serve(lambda: softmax(torch.ones(10), 0), 20)
    assert sum(callable(plan) for plan in plans.values()) == before + 1


def test_who_waits_for_kernels_gets_them_from_the_first_call(fresh):
    x = torch.linspace(-3, 3, 35)
    first, second = (serve(lambda: x.softmax(0), kernels="sync") for _ in range(2))
    assert LEAVES["softmax"].least == 1
    assert torch.equal(first, second)


def test_gradients_of_small_tensors_become_kernels():
    x = torch.linspace(-3, 3, 35).requires_grad_()

    def gradient():
        return torch.autograd.grad(F.gelu(x).sum(), x)[0]
    expected, found = serve(gradient, kernels="off"), serve(gradient, 2, kernels="sync")
    rules = [fused for plan in LEAVES["gelu"].plans.values() for _, _, fused, _ in plan.calls]
    assert [rule.least for rule in rules] == [1]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_lerp_rounds_its_number_as_pytorch_does():
    x, end = torch.tensor([-1.5, 0.3, 2.0]), torch.tensor([0.9, -0.3, -1.5])
    expected = [0.6599999070167542, -0.23999999463558197, -1.1499998569488525]
    for kernels in ("off", "sync"):
        found = serve(lambda: x.lerp(end, 0.9), kernels=kernels)
        assert found.tolist() == expected
