"""What `backward` and `autograd.grad` do: accumulation, freeing, orders, roots and targets."""

from __future__ import annotations

import pytest

import lampion as torch
from lampion.autograd import grad


def leaf(*values: float) -> torch.Tensor:
    return torch.tensor(values, requires_grad=True)


def test_gradients_accumulate_over_calls():
    x = leaf(2.0)
    for _ in range(3):
        (x * x).sum().backward()
    assert x.grad.tolist() == [12.0]


def test_gradient_object_is_kept_while_accumulating():
    x = leaf(1.0, 2.0)
    x.sum().backward()
    first = x.grad
    x.sum().backward()
    assert x.grad is first
    assert first.tolist() == [2.0, 2.0]


def test_accumulation_with_create_graph_makes_a_new_gradient():
    x = leaf(1.0)
    (x ** 2).sum().backward(create_graph=True)
    first = x.grad
    (x ** 2).sum().backward(create_graph=True)
    assert x.grad is not first
    assert first.tolist() == [2.0]
    assert x.grad.tolist() == [4.0]
    x.grad = None


def test_second_backward_names_retain_graph():
    x = leaf(3.0)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time") as caught:
        y.backward()
    assert "retain_graph=True" in str(caught.value)


def test_second_backward_is_fine_where_nothing_was_saved():
    x = leaf(3.0)
    y = (x + 1).sum()
    y.backward()
    y.backward()
    assert x.grad.tolist() == [2.0]


def test_retain_graph_allows_more_passes():
    x = leaf(3.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [12.0]


def test_shared_part_is_freed_by_the_first_of_two_losses():
    x = leaf(3.0)
    shared = x.exp()
    a, b = (shared * 2).sum(), (shared * 3).sum()
    a.backward()
    with pytest.raises(RuntimeError, match="second time"):
        b.backward()


def test_third_order():
    x = torch.tensor(2.0, requires_grad=True)
    values = [x ** 4]
    for _ in range(3):
        values.append(grad(values[-1], x, create_graph=True)[0])
    assert [v.item() for v in values] == [16.0, 32.0, 48.0, 48.0]


def test_third_order_of_a_composite():
    x = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    y = torch.sigmoid(x)
    s = y.item()
    d1, = grad(y, x, create_graph=True)
    d2, = grad(d1, x, create_graph=True)
    d3, = grad(d2, x)
    assert d1.item() == pytest.approx(s * (1 - s))
    assert d2.item() == pytest.approx(s * (1 - s) * (1 - 2 * s))
    assert d3.item() == pytest.approx(s * (1 - s) * (1 - 6 * s + 6 * s * s))


def test_gradient_of_a_gradient_norm():
    w = torch.tensor([1.0, -2.0], requires_grad=True)
    x = torch.tensor([3.0, 4.0], requires_grad=True)
    g, = grad((w * x ** 2).sum(), x, create_graph=True)
    (g ** 2).sum().backward()
    assert w.grad.tolist() == [72.0, -256.0]
    assert x.grad.tolist() == [24.0, 128.0]


def test_non_scalar_root():
    with pytest.raises(RuntimeError, match="only for scalar outputs"):
        (leaf(1.0, 2.0) * 2).backward()


def test_one_element_counts_as_scalar():
    x = torch.ones(1, 1, requires_grad=True)
    (x * 5).backward()
    assert x.grad.tolist() == [[5.0]]


def test_gradient_argument():
    x = leaf(1.0, 2.0)
    (x * x).backward(torch.tensor([10.0, 100.0]))
    assert x.grad.tolist() == [20.0, 400.0]


def test_gradient_argument_of_wrong_shape():
    with pytest.raises(RuntimeError, match="Mismatch in shape"):
        (leaf(1.0, 2.0) * 2).backward(torch.ones(3))


def test_gradient_argument_of_wrong_type():
    with pytest.raises(TypeError, match="Tensors or None"):
        (leaf(1.0) * 2).backward([1.0])


def test_root_without_history():
    with pytest.raises(RuntimeError, match="does not require grad and does not have a grad_fn"):
        torch.ones(1).backward()


def test_complex_root():
    x = torch.ones((), dtype=torch.complex64, requires_grad=True)
    with pytest.raises(RuntimeError, match="only for real scalar outputs"):
        (x * 2).backward()


def test_several_roots():
    x = leaf(1.0, 2.0)
    a, b = x.sum(), x * 3
    torch.autograd.backward([a, b], [None, torch.tensor([1.0, 10.0])])
    assert x.grad.tolist() == [4.0, 31.0]


def test_several_roots_with_wrong_number_of_gradients():
    x = leaf(1.0)
    with pytest.raises(RuntimeError, match="got 2 tensors and 1 gradients"):
        torch.autograd.backward([x * 2, x * 3], [torch.ones(1)])


def test_root_given_twice():
    x = leaf(1.0)
    y = (x * x).sum()
    torch.autograd.backward([y, y])
    assert x.grad.tolist() == [4.0]


def test_root_inside_the_history_of_another():
    x = leaf(2.0)
    y = x * x
    z = y * y
    torch.autograd.backward([y.sum(), z.sum()])
    assert x.grad.tolist() == [4.0 + 32.0]


def test_leaf_as_root():
    x = leaf(2.0)
    x.sum().backward()
    torch.autograd.backward(x, torch.tensor([7.0]))
    assert x.grad.tolist() == [8.0]


def test_inputs_limits_where_gradients_go():
    a, b = leaf(1.0), leaf(2.0)
    (a * b).sum().backward(inputs=[a])
    assert a.grad.tolist() == [2.0]
    assert b.grad is None


def test_inputs_single_tensor():
    a, b = leaf(1.0), leaf(2.0)
    (a * b).sum().backward(inputs=b)
    assert b.grad.tolist() == [1.0]
    assert a.grad is None


def test_inputs_may_be_intermediate():
    x = leaf(3.0)
    y = x * 2
    y.retain_grad()
    (y * y).sum().backward(inputs=[y])
    assert y.grad.tolist() == [12.0]
    assert x.grad is None


def test_inputs_must_not_be_empty():
    with pytest.raises(RuntimeError, match="cannot be empty"):
        leaf(1.0).sum().backward(inputs=[])


def test_inputs_skip_what_is_not_needed():
    ran = []

    class Loud(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            ran.append(True)
            return g

    a, b = leaf(1.0), leaf(2.0)
    (Loud.apply(a) * b).sum().backward(inputs=[b])
    assert ran == []


def test_grad_leaves_dot_grad_alone():
    x = leaf(2.0)
    g, = grad((x * x).sum(), x)
    assert g.tolist() == [4.0]
    assert x.grad is None


def test_grad_of_unused_input():
    a, b = leaf(1.0), leaf(1.0)
    with pytest.raises(RuntimeError, match="appears to not have been used in the graph"):
        grad(a.sum(), [a, b])
    assert grad(a.sum(), [a, b], allow_unused=True)[1] is None
    zeros = grad(a.sum(), [a, b], materialize_grads=True)[1]
    assert zeros.tolist() == [0.0]


def test_materialize_grads_excludes_allow_unused_false():
    a = leaf(1.0)
    with pytest.raises(ValueError, match="materialize_grads"):
        grad(a.sum(), a, allow_unused=False, materialize_grads=True)


def test_grad_of_input_that_needs_none():
    with pytest.raises(RuntimeError, match="does not require grad"):
        grad(leaf(1.0).sum(), torch.ones(1))


def test_grad_of_intermediate():
    x = leaf(1.0, 2.0)
    y = x * 3
    gy, gx = grad((y * y).sum(), [y, x])
    assert gy.tolist() == [6.0, 12.0]
    assert gx.tolist() == [18.0, 36.0]


def test_grad_of_root_itself():
    x = leaf(2.0)
    y = (x * x).sum()
    assert grad(y, y)[0].item() == 1.0


def test_same_input_twice():
    x = leaf(2.0)
    a, b = grad((x * x).sum(), [x, x])
    assert a.tolist() == b.tolist() == [4.0]


def test_batched_gradients():
    x = leaf(1.0, 2.0)
    y = x * torch.tensor([3.0, 5.0])
    rows, = grad(y, x, torch.eye(2), is_grads_batched=True)
    assert rows.tolist() == [[3.0, 0.0], [0.0, 5.0]]


def test_outputs_may_be_a_generator():
    x = leaf(2.0)
    found = grad((o for o in [x * 2, x * 3]), x, [torch.ones(1), torch.ones(1)])
    assert found[0].tolist() == [5.0]


def test_diamond():
    x = leaf(2.0)
    y = x * 3
    (y * y + y.exp() * 0 + y).sum().backward()
    assert x.grad.tolist() == [2 * 6 * 3 + 3]


def test_tensor_used_twice_by_one_operation():
    x = leaf(3.0)
    (x * x).sum().backward()
    assert x.grad.tolist() == [6.0]


def test_broadcast_gradients_are_summed():
    row, column = torch.ones(3, requires_grad=True), torch.ones(2, 1, requires_grad=True)
    (row * column * 2).sum().backward()
    assert row.grad.tolist() == [4.0] * 3
    assert column.grad.tolist() == [[6.0]] * 2


def test_scalar_tensor_broadcast():
    s = torch.tensor(2.0, requires_grad=True)
    (torch.ones(2, 3) * s).sum().backward()
    assert s.grad.shape == ()
    assert s.grad.item() == 6.0


def test_gradient_dtype_follows_the_leaf():
    half = torch.ones(2, dtype=torch.float16, requires_grad=True)
    double = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (half * double).sum().backward()
    assert half.grad.dtype == torch.float16
    assert double.grad.dtype == torch.float64


def test_integer_outputs_have_no_history():
    x = leaf(1.0, 3.0, 2.0)
    values, places = x.sort()
    assert values.requires_grad and not places.requires_grad
    assert not (x > 1).requires_grad
    values[0].backward()
    assert x.grad.tolist() == [1.0, 0.0, 0.0]


def test_only_some_of_several_outputs_used():
    x = torch.arange(6.0).reshape(2, 3).requires_grad_()
    _, second, third = x.unbind(1)
    (second * 2 + third * 0).sum().backward()
    assert x.grad.tolist() == [[0.0, 2.0, 0.0]] * 2


def test_assigning_grad():
    x = leaf(1.0)
    x.grad = torch.tensor([5.0])
    x.sum().backward()
    assert x.grad.tolist() == [6.0]
    del x.grad
    assert x.grad is None


@pytest.mark.parametrize(("value", "error"), [
    (torch.ones(2), RuntimeError), (torch.ones(1, dtype=torch.float64), RuntimeError),
    ([1.0], TypeError)])
def test_assigning_a_wrong_grad(value, error):
    x = leaf(1.0)
    with pytest.raises(error, match="assigned grad"):
        x.grad = value


def test_reading_grad_of_a_non_leaf_warns():
    y = leaf(1.0) * 2
    with pytest.warns(UserWarning, match="not a leaf Tensor"):
        assert y.grad is None


def test_next_functions_walk_to_the_leaf():
    x = leaf(1.0)
    y = (x * 2).exp()
    assert y.grad_fn.name() == "ExpBackward0"
    mul = y.grad_fn.next_functions[0][0]
    assert mul.name() == "MulBackward0"
    accumulate = mul.next_functions[0][0]
    assert type(accumulate).__name__ == "AccumulateGrad"
    assert accumulate.variable is x


def test_node_is_the_same_object_each_time():
    x = leaf(1.0)
    y = x * 2
    assert y.grad_fn is y.grad_fn
    z = y.exp()
    assert z.grad_fn.next_functions[0][0] is y.grad_fn
    w = x * 3
    assert w.grad_fn.next_functions[0][0] is y.grad_fn.next_functions[0][0]


def test_graph_survives_the_tensors():
    x = leaf(2.0)
    y = x * 3
    z = y.exp().log()
    del y
    z.sum().backward()
    assert x.grad.tolist() == pytest.approx([3.0])


def test_freed_by_reference_count_alone():
    import gc
    import weakref

    gc.disable()
    try:
        x = leaf(1.0)
        y = x.exp()
        z = (y * x).sum()
        watch = weakref.ref(z.grad_fn), weakref.ref(y)
        del y, z
        assert [w() for w in watch] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("step", [
    torch.floor, torch.ceil, torch.trunc, torch.round, torch.sign, torch.sgn, lambda x: x ** 0,
    lambda x: torch.div(x, 2.0, rounding_mode="floor")])
def test_steps_have_no_gradient_even_of_infinities(step):
    x = leaf(1.5, 2.5, -3.0)
    step(x).backward(torch.tensor([float("inf"), float("nan"), -1.0]))
    assert x.grad.tolist() == [0.0, 0.0, 0.0]
    assert not x.grad.signbit().any()
