"""In-place writes and views under autograd: what is refused, what is noticed, what comes out."""

from __future__ import annotations

import re

import pytest

import lampion as torch


def leaf(*values: float) -> torch.Tensor:
    return torch.tensor(values, requires_grad=True)


# --- refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [
    lambda x: x.add_(1), lambda x: x.zero_(), lambda x: x.copy_(torch.ones(2)),
    lambda x: x.fill_(3), lambda x: x.__setitem__(0, 1.0), lambda x: x.relu_(),
    lambda x: x.clamp_(0, 1), lambda x: x.masked_fill_(torch.tensor([True, False]), 0.0),
    lambda x: x.index_fill_(0, torch.tensor([0]), 0.0), lambda x: x.normal_(),
    lambda x: x.uniform_(), lambda x: x.__iadd__(1)],
    ids=["add_", "zero_", "copy_", "fill_", "setitem", "relu_", "clamp_", "masked_fill_",
         "index_fill_", "normal_", "uniform_", "iadd"])
def test_leaf_that_requires_grad_cannot_be_written(write):
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        write(x)
    assert x.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("view", [lambda x: x[0], lambda x: x.view(-1), lambda x: x.t(),
                                  lambda x: x[:, 1:].T, lambda x: x.unbind()[0]])
def test_view_of_such_a_leaf_cannot_be_written(view):
    x = torch.ones(2, 2, requires_grad=True)
    with pytest.raises(RuntimeError):
        view(x).mul_(2)
    assert x.tolist() == [[1.0, 1.0]] * 2


def test_leaf_may_be_written_under_no_grad():
    x = leaf(1.0)
    with torch.no_grad():
        x.add_(1)
        x[0] *= 3
    assert x.tolist() == [6.0]
    assert x.is_leaf and x.requires_grad


def test_view_made_under_no_grad_cannot_be_written_with_grad():
    base = leaf(1.0, 2.0) * 1
    with torch.no_grad():
        view = base[0]
    with pytest.raises(RuntimeError, match="no_grad"):
        view.mul_(2)


def test_one_of_several_views_may_be_written():
    """PyTorch refuses this; here the base is updated as for any other view."""
    x = torch.ones(2, 2, requires_grad=True)
    for several in (lambda t: t.unbind(), lambda t: t.split(1), lambda t: t.chunk(2)):
        y = x * 1
        several(y)[0].mul_(5)
        assert torch.autograd.grad(y.sum(), x)[0].tolist() == [[5.0, 5.0], [1.0, 1.0]]


# --- noticed ---------------------------------------------------------------------------------


def overwritten(loss) -> str:
    with pytest.raises(RuntimeError, match="modified by an inplace operation") as caught:
        loss.backward()
    return str(caught.value)


def test_overwritten_input_names_operation_and_line():
    x = leaf(1.0, 2.0)
    y = x * 2
    z = (y * y).sum()
    y.add_(1)  # the writer
    text = overwritten(z)
    assert "add_" in text and "MulBackward0" in text
    assert "[torch.FloatTensor [2]]" in text
    assert "is at version 1; expected version 0" in text
    line = int(re.search(re.escape(__file__) + r":(\d+)", text).group(1))
    with open(__file__) as source:
        assert source.readlines()[line - 1].rstrip().endswith("# the writer")


def test_overwritten_output_names_the_writer():
    x = leaf(1.0, 2.0)
    y = x.exp()
    y.mul_(0)
    text = overwritten(y.sum() + (y * 0).sum())
    assert "mul_" in text
    assert "y.mul_(0)" in text and "test_overwritten_output_names_the_writer" in text
    assert "ExpBackward0" in text


@pytest.mark.parametrize(("write", "name"), [
    (lambda y: y.__setitem__(0, 9.0), "__setitem__"), (lambda y: y.fill_(1), "fill_"),
    (lambda y: y.copy_(torch.ones(2)), "copy_"), (lambda y: y.zero_(), "zero_"),
    (lambda y: y.normal_(), "normal_"), (lambda y: y[:1].add_(1), "add_"),
    (lambda y: torch.nn.init.zeros_(y), "zero_"),
    (lambda y: torch.add(y.detach(), 1, out=y.detach()), "out=")])
def test_every_kind_of_writer_is_named(write, name):
    x = leaf(1.0, 2.0)
    y = x * 2
    z = (y * y).sum()
    write(y)
    assert name in overwritten(z)


def test_write_through_a_view_is_noticed():
    x = leaf(1.0, 2.0)
    y = x * 2
    view = y[:1]
    z = (y ** 2).sum()
    view.zero_()
    assert "zero_" in overwritten(z)


def test_write_through_the_base_is_noticed_by_a_view():
    x = leaf(1.0, 2.0)
    y = x * 2
    z = (y[:1] ** 2).sum()
    y.zero_()
    overwritten(z)


def test_parameter_step_between_forward_and_backward():
    w = leaf(1.0)
    loss = (w * w).sum()
    with torch.no_grad():
        w -= 0.1
    text = overwritten(loss)
    assert "w -= 0.1" in text


def test_unneeded_value_may_be_overwritten():
    x = leaf(1.0, 2.0)
    y = x * 2
    z = y + 1
    y.zero_()
    z.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_value_saved_after_the_write_is_fine():
    x = leaf(1.0, 2.0)
    y = x * 2
    y.add_(1)
    (y * y).sum().backward()
    assert x.grad.tolist() == [12.0, 20.0]


def test_version_counts():
    x = torch.ones(3)
    assert x._version == 0
    x.add_(1)
    x[0] = 5
    x.view(3)[1:].mul_(2)
    assert x._version == 3
    assert x.view(3)._version == 3
    x.data.add_(1)
    assert x._version == 3


# --- values ----------------------------------------------------------------------------------


def test_chain_of_writes():
    x = leaf(1.0, 2.0)
    y = x * 1
    y.mul_(3).add_(1).pow_(2)
    y.sum().backward()
    assert y.tolist() == [16.0, 49.0]
    assert x.grad.tolist() == [24.0, 42.0]


def test_write_with_another_tensor():
    a, b = leaf(2.0), leaf(5.0)
    y = a * 1
    y *= b
    y += b
    y.sum().backward()
    assert (a.grad.item(), b.grad.item()) == (5.0, 3.0)


def test_constant_tensor_that_starts_to_require_grad():
    x = leaf(2.0)
    buffer = torch.zeros(3)
    buffer[1] = x[0] * 3
    assert buffer.requires_grad and not buffer.is_leaf
    (buffer * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert x.grad.tolist() == [30.0]


def test_write_through_view_reaches_the_base():
    x = leaf(1.0, 2.0, 3.0)
    y = x * 1
    y[1:].mul_(10)
    assert type(y.grad_fn).__name__ == "CopySlices"
    (y * torch.tensor([1.0, 1.0, 2.0])).sum().backward()
    assert x.grad.tolist() == [1.0, 10.0, 20.0]


def test_write_through_a_chain_of_views():
    x = torch.arange(6.0).reshape(2, 3).requires_grad_()
    y = x * 1
    y.t()[1:].unsqueeze(0)[0, 1].mul_(5)
    y.sum().backward()
    assert x.grad.tolist() == [[1.0, 1.0, 5.0], [1.0, 1.0, 5.0]]


def test_view_made_before_a_write_to_the_base():
    x = leaf(1.0, 2.0)
    y = x * 1
    view = y[:1]
    y.mul_(7)
    view.sum().backward()
    assert x.grad.tolist() == [7.0, 0.0]


def test_sibling_views_see_each_other():
    x = leaf(1.0, 2.0, 3.0)
    y = x * 1
    first, last = y[:2], y[1:]
    first.mul_(10)
    last.mul_(2)
    first.sum().backward()
    assert first.tolist() == [10.0, 40.0]
    assert x.grad.tolist() == [10.0, 20.0, 0.0]


def test_view_of_a_constant_base_turns_differentiable():
    x = leaf(3.0)
    base = torch.zeros(4)
    left, right = base[:2], base[2:]
    left.copy_(x.expand(2))
    assert base.requires_grad and left.requires_grad and right.requires_grad
    (base * 2).sum().backward()
    assert x.grad.tolist() == [4.0]


def test_overwritten_part_gets_no_gradient():
    x = leaf(1.0, 2.0)
    y = x * 3
    y[0] = 100.0
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 3.0]


def test_write_with_mask_and_index_tensor():
    x = leaf(1.0, 2.0, 3.0)
    v = leaf(5.0, 6.0)
    y = x * 2
    y[torch.tensor([0, 2])] = v * 3
    y[torch.tensor([False, True, False])] = 0.0
    (y * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 0.0]
    assert v.grad.tolist() == [3.0, 300.0]


def test_broadcast_write_sums_gradient():
    s = torch.tensor(2.0, requires_grad=True)
    y = torch.zeros(2, 3)
    y[:, 1:] = s
    y.sum().backward()
    assert s.grad.item() == 4.0


def test_in_place_on_view_then_higher_order():
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)

    def run(t):
        y = t * t
        y[1:].mul_(t[:2])
        y.view(3)[0].exp_()
        return y.sin()

    assert torch.autograd.gradcheck(run, (x,))
    assert torch.autograd.gradgradcheck(run, (x,))


@pytest.mark.parametrize("seed", range(8))
def test_random_programs_of_views_and_writes_by_finite_differences(seed):
    from view_programs import run_program

    x = torch.linspace(0.5, 1.5, 12, dtype=torch.float64).reshape(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: run_program(torch, t, seed), (x,))


def test_in_place_form_of_activation_keeps_the_gradient():
    x = leaf(-1.0, 2.0)
    y = x * 2
    torch.relu_(y)
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 2.0]


def test_self_assignment_by_augmented_indexing():
    x = torch.ones(3, 3, requires_grad=True)
    y = x * 1
    y[0] += y[1] * 2
    y[:, 0] *= 3
    y.sum().backward()
    assert x.grad.tolist() == [[3.0, 1.0, 1.0], [9.0, 3.0, 3.0], [3.0, 1.0, 1.0]]


def test_expanded_tensor_cannot_be_written():
    for write in (lambda t: t.add_(1), lambda t: t.copy_(torch.ones(3)), lambda t: t.mul_(2)):
        with pytest.raises(RuntimeError, match="refers to a single memory location"):
            write(torch.ones(1).expand(3))


@pytest.mark.parametrize(("write", "name"), [
    (lambda y: y.zero_(), "ZeroBackward0"), (lambda y: y.fill_(2), "FillBackward0"),
    (lambda y: y.copy_(torch.ones(2)), "CopyBackwards")])
def test_constant_write_has_a_node_and_zero_gradient(write, name):
    x = leaf(1.0, 2.0)
    y = x * 2
    write(y)
    assert y.requires_grad and y.grad_fn.name() == name
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 0.0]


def test_out_does_not_take_part():
    x = leaf(1.0)
    with pytest.raises(RuntimeError, match="don't support automatic differentiation"):
        torch.add(x, 1, out=torch.empty(1))
    with torch.no_grad():
        result = torch.empty(1)
        torch.add(x, 1, out=result)
    assert result.tolist() == [2.0]
