"""Saved-tensor hooks, checkpointing, anomaly detection."""

from __future__ import annotations

import warnings

import pytest

import lampion as torch
from lampion import nn
from lampion.autograd.graph import saved_tensors_hooks
from lampion.utils.checkpoint import checkpoint, checkpoint_sequential


def leaf(*values: float) -> torch.Tensor:
    return torch.tensor(values, requires_grad=True)


def test_hooks_see_what_is_saved_and_give_it_back():
    packed, unpacked = [], []

    def pack(t):
        packed.append(t.tolist())
        return len(packed) - 1

    def unpack(i):
        unpacked.append(packed[i])
        return torch.tensor(packed[i])

    a, b = leaf(2.0), leaf(3.0)
    with saved_tensors_hooks(pack, unpack):
        y = a * b
    assert sorted(packed) == [[2.0], [3.0]] and unpacked == []
    y.sum().backward()
    assert sorted(unpacked) == [[2.0], [3.0]]
    assert (a.grad.item(), b.grad.item()) == (3.0, 2.0)


def test_hooks_may_change_the_value():
    x = leaf(1.0)
    with saved_tensors_hooks(lambda t: t, lambda t: t * 0 + 10):
        y = x.exp()
    y.sum().backward()
    assert x.grad.tolist() == [10.0]


def test_hooks_are_off_outside():
    packed = []
    x = leaf(1.0)
    with saved_tensors_hooks(packed.append, lambda t: t):
        pass
    x.exp().sum().backward()
    assert packed == []


def test_innermost_hooks_win():
    log = []
    x = leaf(1.0)
    with saved_tensors_hooks(lambda t: (log.append("outer"), t)[1], lambda t: t):
        with saved_tensors_hooks(lambda t: (log.append("inner"), t)[1], lambda t: t):
            x.exp()
        x.exp()
    assert log == ["inner", "outer"]


def test_unpack_must_give_a_tensor():
    x = leaf(1.0)
    with saved_tensors_hooks(lambda t: t, lambda t: None):
        y = x.exp()
    with pytest.raises(TypeError, match="unpack_hook"):
        y.sum().backward()


def test_hooks_with_double_backward():
    x = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    with saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        y = x.sin() * x
    g, = torch.autograd.grad(y, x, create_graph=True)
    second, = torch.autograd.grad(g, x)
    assert second.item() == pytest.approx(2 * 0.8775825618903728 - 0.5 * 0.479425538604203)


def test_save_on_cpu():
    x = leaf(2.0)
    with torch.autograd.graph.save_on_cpu():
        y = x * x
    y.sum().backward()
    assert x.grad.tolist() == [4.0]


def test_hooks_disabled():
    hooks = saved_tensors_hooks(lambda t: t, lambda t: t)
    with torch.autograd.graph.disable_saved_tensors_hooks("not here"), \
            pytest.raises(RuntimeError, match="not here"):
        hooks.__enter__()
    with saved_tensors_hooks(lambda t: t, lambda t: t):
        pass


def test_hooks_apply_to_custom_functions():
    packed = []

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            return 2 * ctx.saved_tensors[0] * g

    x = leaf(3.0)
    with saved_tensors_hooks(lambda t: (packed.append(1), t)[1], lambda t: t):
        y = Square.apply(x)
    y.sum().backward()
    assert packed == [1] and x.grad.tolist() == [6.0]


# --- checkpoint ------------------------------------------------------------------------------


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3))


def gradients(use) -> list:
    net = network()
    torch.manual_seed(2)
    x = torch.randn(5, 4, requires_grad=True)
    torch.manual_seed(3)
    out = use(net, x)
    torch.rand(7)  # the stream moves on between forward and backward
    (out ** 2).sum().backward()
    after = torch.rand(1).item()
    return [out.tolist(), x.grad.tolist(), after, *(p.grad.tolist() for p in net.parameters())]


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint_changes_nothing(reentrant):
    plain = gradients(lambda net, x: net(x))
    assert gradients(lambda net, x: checkpoint(net, x, use_reentrant=reentrant)) == plain


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint_of_a_chain(reentrant):
    plain = gradients(lambda net, x: net(x))
    found = gradients(lambda net, x: checkpoint_sequential(net, 2, x, use_reentrant=reentrant))
    assert found == plain


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint_runs_the_function_twice(reentrant):
    calls = []

    def run(x):
        calls.append(torch.is_grad_enabled())
        return x.exp().sin()

    x = leaf(1.0)
    y = checkpoint(run, x, use_reentrant=reentrant)
    assert len(calls) == 1
    y.sum().backward()
    assert len(calls) == 2 and calls[-1]


def test_checkpoint_keeps_nothing_in_between():
    kept = []
    x = leaf(1.0)
    with saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        checkpoint(lambda t: t.exp().sin().cos(), x, use_reentrant=False)
    assert [t for t in kept if t is not x] == []


def test_checkpoint_with_keywords_and_several_outputs():
    def run(a, b, scale=1.0, extra=None):
        return a * b * scale, (a + b) if extra else None

    a, b = leaf(2.0), leaf(3.0)
    y, z = checkpoint(run, a, b, use_reentrant=False, scale=10.0, extra=True)
    (y + z).sum().backward()
    assert (a.grad.item(), b.grad.item()) == (31.0, 21.0)
    with pytest.raises(ValueError, match="keyword"):
        checkpoint(run, a, b, use_reentrant=True, scale=10.0)


def test_checkpoint_allows_higher_order():
    x = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    run = lambda t: checkpoint(lambda u: u.sin() * u.exp(), t, use_reentrant=False)
    assert torch.autograd.gradcheck(run, (x,))
    assert torch.autograd.gradgradcheck(run, (x,))


def test_checkpoint_nested():
    x = leaf(0.5)
    inner = lambda t: checkpoint(lambda u: u.exp().sin(), t, use_reentrant=False)
    y = checkpoint(lambda t: inner(t) * inner(t * 2), x, use_reentrant=False)
    y.sum().backward()
    z = leaf(0.5)
    (z.exp().sin() * (z * 2).exp().sin()).sum().backward()
    assert x.grad.item() == pytest.approx(z.grad.item())


def test_checkpoint_that_does_something_else_the_second_time():
    calls = []

    def run(x):
        calls.append(1)
        return x.exp() if len(calls) > 1 else x.exp().sin().cos()

    y = checkpoint(run, leaf(1.0), use_reentrant=False)
    with pytest.raises(RuntimeError, match=r"[Aa] different number of tensors was saved"):
        y.sum().backward()


def test_checkpoint_without_a_choice_warns():
    with pytest.warns(UserWarning, match="use_reentrant"):
        checkpoint(torch.exp, leaf(1.0))


def test_reentrant_checkpoint_without_inputs_that_need_gradients_warns():
    with pytest.warns(UserWarning, match="None of the inputs have requires_grad=True"):
        checkpoint(torch.exp, torch.ones(1), use_reentrant=True)


# --- anomaly ---------------------------------------------------------------------------------


def test_anomaly_names_the_forward_line():
    x = leaf(0.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with torch.autograd.detect_anomaly():
            y = x / x  # the forward line
            with pytest.raises(RuntimeError, match="'DivBackward0' returned nan values"):
                y.sum().backward()
    text = "".join(str(w.message) for w in caught)
    assert "y = x / x  # the forward line" in text


def test_anomaly_without_nan_check():
    x = leaf(0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.autograd.set_detect_anomaly(True, check_nan=False):
            (x / x).sum().backward()
    assert x.grad.isnan().all()


def test_anomaly_off_again():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.autograd.detect_anomaly():
            assert torch.is_anomaly_enabled()
    assert not torch.is_anomaly_enabled()
    x = leaf(0.0)
    (x / x).sum().backward()


def test_anomaly_warns_when_backward_fails():
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            raise ValueError("mine")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with torch.autograd.detect_anomaly():
            y = Fails.apply(leaf(1.0))  # made here
            with pytest.raises(ValueError, match="mine"):
                y.sum().backward()
    text = "".join(str(w.message) for w in caught)
    assert "FailsBackward" in text and "# made here" in text
