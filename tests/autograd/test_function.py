"""`autograd.Function`: everything that ctx offers, and the errors of wrong functions."""

from __future__ import annotations

import pytest

import lampion as torch
from lampion.autograd import Function
from lampion.autograd.function import once_differentiable


def leaf(*values: float) -> torch.Tensor:
    return torch.tensor(values, requires_grad=True)


class Square(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        x, = ctx.saved_tensors
        return 2 * x * g


class Exp(Function):
    @staticmethod
    def forward(ctx, x):
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        y, = ctx.saved_tensors
        return y * g


def test_saved_input():
    x = leaf(3.0)
    y = Square.apply(x)
    assert y.grad_fn.name() == "SquareBackward"
    y.sum().backward()
    assert x.grad.tolist() == [6.0]


def test_saved_output_and_double_backward():
    x = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Exp.apply, (x,))
    assert torch.autograd.gradgradcheck(Exp.apply, (x,))
    assert torch.autograd.gradgradcheck(Square.apply, (x,))


def test_forward_runs_without_history():
    class Inner(Function):
        @staticmethod
        def forward(ctx, x):
            Inner.enabled = torch.is_grad_enabled()
            return x * 2

        @staticmethod
        def backward(ctx, g):
            Inner.backward_enabled = torch.is_grad_enabled()
            return g * 2

    x = leaf(1.0)
    Inner.apply(x).sum().backward()
    assert not Inner.enabled and not Inner.backward_enabled
    torch.autograd.grad(Inner.apply(x).sum(), x, create_graph=True)
    assert Inner.backward_enabled


def test_setup_context():
    class Scale(Function):
        @staticmethod
        def forward(x, factor):
            return x * factor

        @staticmethod
        def setup_context(ctx, inputs, output):
            x, ctx.factor = inputs
            ctx.save_for_backward(x, output)

        @staticmethod
        def backward(ctx, g):
            x, output = ctx.saved_tensors
            assert output.tolist() == (x * ctx.factor).tolist()
            return g * ctx.factor, None

    x = leaf(2.0)
    Scale.apply(x, 5.0).sum().backward()
    assert x.grad.tolist() == [5.0]


def test_several_outputs_with_zeros_for_missing_gradients():
    class Two(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2, x * 3

        @staticmethod
        def backward(ctx, a, b):
            Two.seen = (a.tolist(), b.tolist())
            return a * 2 + b * 3

    x = leaf(1.0, 1.0)
    _, second = Two.apply(x)
    second.sum().backward()
    assert Two.seen == ([0.0, 0.0], [1.0, 1.0])
    assert x.grad.tolist() == [3.0, 3.0]


def test_set_materialize_grads_false():
    class Two(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.set_materialize_grads(False)
            return x * 2, x * 3

        @staticmethod
        def backward(ctx, a, b):
            assert a is None
            return b * 3

    x = leaf(1.0)
    Two.apply(x)[1].sum().backward()
    assert x.grad.tolist() == [3.0]


def test_mark_non_differentiable():
    class Sort(Function):
        @staticmethod
        def forward(ctx, x):
            values, places = x.sort()
            ctx.mark_non_differentiable(places)
            ctx.save_for_backward(places)
            return values, places

        @staticmethod
        def backward(ctx, g, _):
            places, = ctx.saved_tensors
            return torch.zeros_like(g).index_add(0, places, g)

    x = leaf(2.0, 1.0)
    values, places = Sort.apply(x)
    assert values.requires_grad and not places.requires_grad
    (values * torch.tensor([1.0, 10.0])).sum().backward()
    assert x.grad.tolist() == [10.0, 1.0]


def test_mark_non_differentiable_float():
    class Split(Function):
        @staticmethod
        def forward(ctx, x):
            rest = x * 0
            ctx.mark_non_differentiable(rest)
            return x * 2, rest

        @staticmethod
        def backward(ctx, g, _):
            return g * 2

    assert not Split.apply(leaf(1.0))[1].requires_grad


def test_mark_dirty():
    class Double(Function):
        @staticmethod
        def forward(ctx, x):
            x.mul_(2)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 2

    x = leaf(3.0)
    y = x * 1
    z = Double.apply(y)
    assert z is y
    z.sum().backward()
    assert x.grad.tolist() == [2.0]
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        Double.apply(leaf(1.0))


def test_needs_input_grad():
    class Product(Function):
        @staticmethod
        def forward(ctx, a, b, c):
            ctx.save_for_backward(a, b)
            return a * b

        @staticmethod
        def backward(ctx, g):
            Product.needs = ctx.needs_input_grad
            _, b = ctx.saved_tensors
            return g * b if ctx.needs_input_grad[0] else None, None, None

    Product.apply(leaf(1.0), torch.ones(1), "text").sum().backward()
    assert Product.needs == (True, False, False)


def test_none_for_an_input_that_needs_a_gradient():
    class Stop(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return None

    x = leaf(1.0)
    (Stop.apply(x) + x).sum().backward()
    assert x.grad.tolist() == [1.0]


def returns(value, inputs=1):
    """A function whose backward returns `value(g)`."""
    class Wrong(Function):
        @staticmethod
        def forward(ctx, *xs):
            return xs[0] * 2

        @staticmethod
        def backward(ctx, g):
            return value(g)

    return Wrong.apply(*(leaf(1.0, 2.0) for _ in range(inputs))).sum()


def test_wrong_number_of_gradients():
    with pytest.raises(RuntimeError, match=r"incorrect number of gradients.*expected 2, got 1"):
        returns(lambda g: g, inputs=2).backward()
    with pytest.raises(RuntimeError, match=r"incorrect number of gradients.*expected 1, got 2"):
        returns(lambda g: (g, g)).backward()


def test_additional_nones_are_accepted():
    returns(lambda g: (g, None, None)).backward()


def test_gradient_of_wrong_shape():
    with pytest.raises(RuntimeError, match="invalid gradient at index 0"):
        returns(lambda g: torch.ones(3)).backward()


def test_gradient_that_is_no_tensor():
    with pytest.raises((TypeError, RuntimeError), match="expected"):
        returns(lambda g: 1.0).backward()


def test_gradient_for_a_number():
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x, factor):
            return x * factor

        @staticmethod
        def backward(ctx, g):
            return g, g

    with pytest.raises(RuntimeError, match="different than None"):
        Wrong.apply(leaf(1.0), 2.0).sum().backward()


def test_no_backward():
    class Forward(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

    y = Forward.apply(leaf(1.0))
    with pytest.raises(NotImplementedError, match="backward"):
        y.sum().backward()


def test_no_forward():
    class Empty(Function):
        pass

    with pytest.raises(NotImplementedError, match="forward"):
        Empty.apply(leaf(1.0))


def test_not_to_be_instantiated_and_called():
    with pytest.raises((RuntimeError, TypeError)):
        Square()(leaf(1.0))


def test_once_differentiable():
    class Once(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @once_differentiable
        def backward(ctx, g):
            x, = ctx.saved_tensors
            return 2 * x * g

    x = leaf(3.0)
    Once.apply(x).sum().backward()
    assert x.grad.tolist() == [6.0]
    y = Once.apply(x)
    g, = torch.autograd.grad((y * y).sum(), x, create_graph=True)
    assert g.requires_grad
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


def test_saved_tensors_are_freed():
    x = leaf(1.0)
    y = Square.apply(x)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()


def test_saved_tensor_overwritten():
    x = leaf(1.0)
    y = x * 1
    z = Square.apply(y)
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_save_for_backward_takes_tensors_only():
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x, 3)
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g

    with pytest.raises(TypeError, match="save_for_backward"):
        Wrong.apply(leaf(1.0))


def test_none_may_be_saved():
    class Optional(Function):
        @staticmethod
        def forward(ctx, x, bias):
            ctx.save_for_backward(x, bias)
            return x * 2

        @staticmethod
        def backward(ctx, g):
            assert ctx.saved_tensors[1] is None
            return g * 2, None

    Optional.apply(leaf(1.0), None).sum().backward()


def test_input_returned_as_it_is():
    class Same(Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 10

    x = leaf(1.0)
    y = Same.apply(x)
    assert y is not x and y.grad_fn.name() == "SameBackward"
    y.sum().backward()
    assert x.grad.tolist() == [10.0]


def test_view_returned_from_forward():
    class First(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.shape = x.shape
            return x[0]

        @staticmethod
        def backward(ctx, g):
            return torch.cat([g.unsqueeze(0), torch.zeros(1, *g.shape)])

    x = torch.ones(2, 3, requires_grad=True)
    First.apply(x).sum().backward()
    assert x.grad.tolist() == [[1.0] * 3, [0.0] * 3]


def test_tensors_inside_lists_are_not_tracked():
    class Total(Function):
        @staticmethod
        def forward(ctx, xs):
            return sum(xs)

        @staticmethod
        def backward(ctx, g):
            return None

    assert not Total.apply([leaf(1.0), leaf(2.0)]).requires_grad


def test_output_that_is_no_tensor_passes_through():
    class Pair(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2, "text"

        @staticmethod
        def backward(ctx, g, _):
            return g * 2

    x = leaf(1.0)
    y, text = Pair.apply(x)
    assert text == "text"
    y.sum().backward()
    assert x.grad.tolist() == [2.0]


def test_gradient_is_cast_to_the_dtype_of_the_input():
    class Widen(Function):
        @staticmethod
        def forward(ctx, x):
            return x.double()

        @staticmethod
        def backward(ctx, g):
            return g

    x = leaf(1.0)
    Widen.apply(x).sum().backward()
    assert x.grad.dtype == torch.float32


def test_nothing_needs_a_gradient():
    y = Square.apply(torch.ones(1))
    assert not y.requires_grad and y.grad_fn is None


def test_ctx_keeps_attributes_and_is_the_node():
    class Keep(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.note = [1, 2]
            return x * 2

        @staticmethod
        def backward(ctx, g):
            assert ctx.note == [1, 2]
            return g

    y = Keep.apply(leaf(1.0))
    assert y.grad_fn.note == [1, 2]
    y.sum().backward()


def test_exception_in_backward_passes_through():
    class Fails(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Fails.apply(leaf(1.0)).sum().backward()
    assert torch.is_grad_enabled()


def test_backward_inside_backward():
    class Nested(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x ** 3

        @staticmethod
        def backward(ctx, g):
            x = ctx.saved_tensors[0].detach().requires_grad_()
            with torch.enable_grad():
                (x ** 3).sum().backward()
            return x.grad * g

    x = leaf(2.0)
    Nested.apply(x).sum().backward()
    assert x.grad.tolist() == [12.0]
