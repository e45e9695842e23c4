"""The engine under load: aliasing, depth, threads, reentrance."""

from __future__ import annotations

import gc
import threading

import pytest

import lampion as torch


def leaf(*values: float) -> torch.Tensor:
    return torch.tensor(values, requires_grad=True)


@pytest.mark.parametrize("combine", [
    lambda a, b: a + b, lambda a, b: torch.add(a, b), lambda a, b: torch.stack([a, b]),
    lambda a, b: (a.view(-1) + b.reshape(2)), lambda a, b: torch.cat([a, b]),
    lambda a, b: a.clone() + b.detach() * 0 + b])
def test_gradients_of_two_leaves_do_not_share_memory(combine):
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    combine(a, b).sum().backward()
    a.grad.add_(100)
    assert b.grad.tolist() == [1.0, 1.0]


def test_gradient_does_not_share_memory_with_the_given_one():
    a = leaf(1.0, 2.0)
    start = torch.ones(2)
    a.view(2).backward(start)
    a.grad.zero_()
    assert start.tolist() == [1.0, 1.0]


def test_gradient_does_not_share_memory_with_what_a_hook_kept():
    a = leaf(1.0)
    kept = []
    a.register_hook(kept.append)
    a.sum().backward()
    a.grad.mul_(50)
    assert kept[0].tolist() == [1.0]


def test_gradient_kept_by_retain_grad_is_separate():
    a = leaf(1.0)
    b = a + 0
    b.retain_grad()
    b.sum().backward()
    b.grad.mul_(50)
    assert a.grad.tolist() == [1.0]


def test_gradient_of_an_expanded_tensor_can_be_written():
    a = torch.ones(3, requires_grad=True)
    a.sum().backward()
    a.grad.add_(torch.tensor([1.0, 2.0, 3.0]))
    assert a.grad.tolist() == [2.0, 3.0, 4.0]


def test_saved_data_is_not_handed_out_as_a_gradient():
    a, w = leaf(1.0, 2.0), torch.tensor([3.0, 4.0])
    (a * w).sum().backward()
    a.grad.zero_()
    assert w.tolist() == [3.0, 4.0]
    b = leaf(1.0, 2.0)
    (b * w).backward(torch.ones(2))
    b.grad.zero_()
    assert w.tolist() == [3.0, 4.0]


def test_same_leaf_through_two_views():
    x = torch.arange(6.0).reshape(2, 3).requires_grad_()
    (x[0] * 2 + x[1] + x.t()[:, 0]).sum().backward()
    assert x.grad.tolist() == [[3.0] * 3, [1.0] * 3]


def test_deep_chain_backward_and_deletion():
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y + 1
    y.sum().backward()
    assert x.grad.tolist() == [1.0]
    del y
    gc.collect()


def test_deep_chain_deleted_without_backward():
    y = leaf(1.0)
    for _ in range(50_000):
        y = y.sin()
    del y
    gc.collect()


def test_deep_chain_of_in_place_writes():
    x = leaf(1.0)
    y = x * 1
    for _ in range(5_000):
        y.mul_(1.0)
    y.sum().backward()
    assert x.grad.tolist() == [1.0]


def test_deep_chain_of_custom_functions():
    class Same(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return g

    x = leaf(1.0)
    y = x
    for _ in range(5_000):
        y = Same.apply(y)
    y.sum().backward()
    assert x.grad.tolist() == [1.0]


def test_deep_chain_with_create_graph():
    x = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    y = x
    for _ in range(3_000):
        y = y * 1.0001
    g, = torch.autograd.grad(y * y, x, create_graph=True)
    second, = torch.autograd.grad(g, x)
    assert second.item() == pytest.approx(2 * 1.0001 ** 6_000)


def test_wide_graph():
    x = leaf(1.0)
    sum(x * i for i in range(2_000)).sum().backward()
    assert x.grad.item() == sum(range(2_000))


def run_threads(work, n=4):
    errors = []

    def guarded(i):
        try:
            work(i)
        except Exception as error:  # reported below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert errors == []


def test_threads_with_graphs_of_their_own():
    found = {}

    def work(i):
        x = torch.full((8,), float(i + 1), requires_grad=True)
        for _ in range(50):
            (x * x).sum().backward()
        found[i] = x.grad.tolist()

    run_threads(work)
    assert found == {i: [100.0 * (i + 1)] * 8 for i in range(4)}


def test_threads_that_share_a_parameter():
    w = torch.ones(4, requires_grad=True)
    grads = [None] * 4

    def work(i):
        for _ in range(50):
            grads[i], = torch.autograd.grad((w * (i + 1)).exp().log().sum(), w)

    run_threads(work)
    assert [g[0].item() for g in grads] == pytest.approx([1.0, 2.0, 3.0, 4.0], rel=1e-5)
    assert w.grad is None


def test_no_grad_in_one_thread_does_not_reach_another():
    inside, go_on = threading.Event(), threading.Event()
    seen = []

    def quiet():
        with torch.no_grad():
            inside.set()
            go_on.wait(10)

    thread = threading.Thread(target=quiet)
    thread.start()
    inside.wait(10)
    seen.append((leaf(1.0) * 2).requires_grad)
    go_on.set()
    thread.join()
    assert seen == [True]


def test_backward_in_another_thread_than_forward():
    x = leaf(2.0)
    y = (x * x).sum()
    run_threads(lambda i: y.backward(), n=1)
    assert x.grad.tolist() == [4.0]


def test_backward_inside_a_hook():
    x = leaf(2.0)
    other = leaf(1.0)
    y = (other * 3).sum()
    x.register_hook(lambda g: y.backward())
    (x * x).sum().backward()
    assert x.grad.tolist() == [4.0]
    assert other.grad.tolist() == [3.0]


def test_gradients_do_not_leak_when_backward_fails():
    x = leaf(1.0)
    y = x * 2
    handle = y.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        (y * 3).sum().backward(retain_graph=True)
    handle.remove()
    assert torch.is_grad_enabled()
    (x * 5).sum().backward()
    assert x.grad.tolist() == [5.0]


@pytest.mark.parametrize("make, strides", [
    (lambda: torch.ones(4, 6).t(), (1, 6)), (lambda: torch.ones(8, 6)[::2], (6, 1)),
    (lambda: torch.ones(1, 6).expand(4, 6), (6, 1)), (lambda: torch.ones(6, 1).t(), (1, 1)),
    (lambda: torch.ones(2, 3, 4, 5).permute(0, 3, 1, 2), (60, 1, 20, 5))])
def test_gradients_lie_as_their_leaves_or_in_rows(make, strides):
    for function in (lambda x: x * 2, lambda x: x.sum(), lambda x: x.transpose(0, 1).exp(),
                     lambda x: x.contiguous() * 3, lambda x: x.flip(0)):
        x = make().detach().requires_grad_()
        function(x).sum().backward()
        assert [s for s, n in zip(x.grad.stride(), x.shape, strict=True) if n > 1] == [
            s for s, n in zip(strides, x.shape, strict=True) if n > 1]


def test_integers_and_bools_made_of_a_tensor_have_no_history():
    x = leaf(1.5, -2.5)
    for y in (x.long(), x.to(torch.bool), x.int(), x.type(torch.uint8)):
        assert not y.requires_grad and y.grad_fn is None
    total = torch.zeros(3, dtype=torch.int64).index_add(0, torch.tensor([0, 2]), x.long())
    assert not total.requires_grad
    assert x.double().requires_grad and torch.is_grad_enabled()
