"""Hooks on tensors, leaves and nodes: what they receive, in which order, and their removal."""

from __future__ import annotations

import pytest

import lampion as torch


def leaf(*values: float) -> torch.Tensor:
    return torch.tensor(values, requires_grad=True)


def test_hook_on_intermediate_sees_the_whole_gradient():
    x = leaf(2.0)
    y = x * 3
    seen = []
    y.register_hook(lambda g: seen.append(g.tolist()))
    (y * y + y).sum().backward()
    assert seen == [[13.0]]


def test_hook_on_leaf_sees_the_sum_of_all_uses():
    x = leaf(2.0)
    seen = []
    x.register_hook(lambda g: seen.append(g.tolist()))
    (x * 2 + x * 5).sum().backward()
    assert seen == [[7.0]]


def test_hook_on_leaf_does_not_see_what_was_there():
    x = leaf(2.0)
    x.grad = torch.tensor([100.0])
    seen = []
    x.register_hook(lambda g: seen.append(g.tolist()))
    x.sum().backward()
    assert seen == [[1.0]]
    assert x.grad.tolist() == [101.0]


def test_hooks_run_in_order_and_may_replace():
    x = leaf(1.0)
    order = []
    x.register_hook(lambda g: (order.append("a"), g * 2)[1])
    x.register_hook(lambda g: (order.append("b"), g + 1)[1])
    x.sum().backward()
    assert order == ["a", "b"]
    assert x.grad.tolist() == [3.0]


def test_hook_on_intermediate_replaces():
    x = leaf(1.0)
    y = x * 2
    y.register_hook(lambda g: g * 10)
    y.sum().backward()
    assert x.grad.tolist() == [20.0]


def test_hook_result_must_be_a_tensor():
    x = leaf(1.0)
    x.register_hook(lambda g: 1)
    with pytest.raises(TypeError):
        x.sum().backward()


def test_hook_removed():
    x = leaf(1.0)
    handle = x.register_hook(lambda g: g * 100)
    handle.remove()
    handle.remove()
    x.sum().backward()
    assert x.grad.tolist() == [1.0]


def test_handle_as_context():
    x = leaf(1.0)
    with x.register_hook(lambda g: g * 100):
        x.sum().backward()
    x.sum().backward()
    assert x.grad.tolist() == [101.0]


def test_hook_that_removes_itself():
    x = leaf(1.0)
    handles = []

    def once(g):
        handles[0].remove()
        return g * 10

    handles.append(x.register_hook(once))
    x.sum().backward()
    x.sum().backward()
    assert x.grad.tolist() == [11.0]


def test_hook_needs_a_gradient():
    with pytest.raises(RuntimeError, match="doesn't require gradient"):
        torch.ones(1).register_hook(lambda g: g)


def test_hook_runs_for_autograd_grad():
    x = leaf(1.0)
    x.register_hook(lambda g: g * 7)
    assert torch.autograd.grad(x.sum(), x)[0].tolist() == [7.0]


def test_hook_runs_for_captured_intermediate():
    x = leaf(1.0)
    y = x * 2
    y.register_hook(lambda g: g * 7)
    assert torch.autograd.grad(y.sum(), y)[0].tolist() == [7.0]


def test_hook_of_several_outputs_belongs_to_one():
    x = torch.ones(2, 2, requires_grad=True)
    a, b = x.unbind()
    a.register_hook(lambda g: g * 10)
    (a + b).sum().backward()
    assert x.grad.tolist() == [[10.0, 10.0], [1.0, 1.0]]


def test_hook_is_part_of_the_graph_with_create_graph():
    x = leaf(3.0)
    y = x * 1
    y.register_hook(lambda g: g * g)
    g, = torch.autograd.grad((y ** 2).sum(), x, create_graph=True)
    assert g.tolist() == [36.0]
    assert torch.autograd.grad(g, x)[0].tolist() == [24.0 ** 2]


def test_retain_grad():
    x = leaf(2.0)
    y = x * 3
    y.retain_grad()
    y.retain_grad()
    assert y.retains_grad
    (y * y).sum().backward()
    assert y.grad.tolist() == [12.0]
    assert x.grad.tolist() == [36.0]


def test_retain_grad_sees_hooks_registered_before_and_after():
    x = leaf(1.0)
    y = x * 1
    y.register_hook(lambda g: g * 2)
    y.retain_grad()
    y.register_hook(lambda g: g * 5)
    y.sum().backward()
    assert y.grad.tolist() == [10.0]


def test_retain_grad_on_a_leaf_changes_nothing():
    x = leaf(1.0)
    x.retain_grad()
    assert not x.retains_grad
    x.sum().backward()
    assert x.grad.tolist() == [1.0]


def test_retain_grad_needs_requires_grad():
    with pytest.raises(RuntimeError, match="requires_grad"):
        torch.ones(1).retain_grad()


def test_retained_gradient_accumulates():
    x = leaf(2.0)
    y = x * 3
    y.retain_grad()
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    assert y.grad.tolist() == [2.0]


def test_post_accumulate_hook_sees_the_new_grad():
    x = leaf(1.0)
    seen = []
    x.register_post_accumulate_grad_hook(lambda t: seen.append((t is x, t.grad.tolist())))
    x.sum().backward()
    x.sum().backward()
    assert seen == [(True, [1.0]), (True, [2.0])]


def test_post_accumulate_hook_may_step_and_clear():
    x = leaf(1.0)

    def step(t):
        with torch.no_grad():
            t.sub_(t.grad)
        t.grad = None

    handle = x.register_post_accumulate_grad_hook(step)
    (x * 3).sum().backward()
    assert x.tolist() == [-2.0]
    assert x.grad is None
    handle.remove()
    x.sum().backward()
    assert x.grad.tolist() == [1.0]


def test_post_accumulate_hook_is_for_leaves():
    y = leaf(1.0) * 2
    with pytest.raises(RuntimeError, match="non-leaf"):
        y.register_post_accumulate_grad_hook(lambda t: None)


def test_post_accumulate_hook_does_not_run_for_grad():
    x = leaf(1.0)
    seen = []
    x.register_post_accumulate_grad_hook(seen.append)
    torch.autograd.grad(x.sum(), x)
    assert seen == []


def test_node_hook_receives_both_gradients():
    x = leaf(2.0)
    y = x * 3
    seen = []
    handle = y.grad_fn.register_hook(
        lambda gi, go: seen.append((gi[0].tolist(), go[0].tolist())))
    y.sum().backward(retain_graph=True)
    handle.remove()
    y.sum().backward()
    assert seen == [([3.0], [1.0])]


def test_node_hook_replaces_input_gradients():
    x = leaf(2.0)
    y = x * 3
    y.grad_fn.register_hook(lambda gi, go: (gi[0] * 10, *gi[1:]))
    y.sum().backward()
    assert x.grad.tolist() == [30.0]


def test_node_prehook_replaces_output_gradients():
    x = leaf(2.0)
    y = x * 3
    y.grad_fn.register_prehook(lambda go: (go[0] * 5,))
    y.sum().backward()
    assert x.grad.tolist() == [15.0]


def test_order_of_all_hooks():
    x = leaf(1.0)
    y = x * 2
    order = []
    y.grad_fn.register_hook(lambda *_: order.append("post"))
    y.grad_fn.register_prehook(lambda *_: order.append("pre"))
    y.register_hook(lambda g: order.append("tensor"))
    x.register_hook(lambda g: order.append("leaf"))
    x.register_post_accumulate_grad_hook(lambda t: order.append("accumulated"))
    y.sum().backward()
    assert order == ["tensor", "pre", "post", "leaf", "accumulated"]


def test_tensor_hook_stays_with_the_value_it_was_put_on():
    x = leaf(1.0)
    y = x * 2
    seen = []
    y.register_hook(lambda g: seen.append(g.tolist()))
    y.mul_(10)
    y.sum().backward()
    assert seen == [[10.0]]
    assert x.grad.tolist() == [20.0]


def test_retained_grad_moves_with_an_in_place_write():
    x = leaf(1.0)
    y = x * 2
    y.retain_grad()
    y.mul_(10)
    y.sum().backward()
    assert y.grad.tolist() == [1.0]
    assert x.grad.tolist() == [20.0]


def test_metadata_of_a_node():
    node = (leaf(1.0) * 2).grad_fn
    node.metadata["note"] = 5
    assert node.metadata == {"note": 5}
