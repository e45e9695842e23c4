"""`autograd.functional` and the gradient checkers."""

from __future__ import annotations

import pytest

import lampion as torch
from lampion.autograd import functional as AF
from lampion.autograd import gradcheck, gradgradcheck
from lampion.autograd.gradcheck import GradcheckError


def vec(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def cubes(x):
    return (x ** 3).sum()


def test_vjp():
    out, g = AF.vjp(lambda x: x ** 2, vec(1, 2), vec(10, 100))
    assert out.tolist() == [1, 4] and g.tolist() == [20, 400]
    assert not out.requires_grad and not g.requires_grad


def test_vjp_of_a_scalar_needs_no_vector():
    _, (a, b) = AF.vjp(lambda x, y: (x * y).sum(), (vec(1, 2), vec(3, 4)))
    assert a.tolist() == [3, 4] and b.tolist() == [1, 2]


def test_vjp_vector_of_wrong_shape():
    with pytest.raises(RuntimeError, match="v"):
        AF.vjp(lambda x: x ** 2, vec(1, 2), vec(1, 2, 3))
    with pytest.raises(RuntimeError, match="can only be None"):
        AF.vjp(lambda x: x ** 2, vec(1, 2))


def test_jvp():
    out, t = AF.jvp(lambda x: torch.stack([x[0] * x[1], x[0] ** 2]), vec(2, 3), vec(1, 10))
    assert out.tolist() == [6, 4] and t.tolist() == [23, 4]


def test_jvp_of_two_inputs():
    _, t = AF.jvp(lambda x, y: x * y, (vec(2), vec(3)), (vec(1), vec(10)))
    assert t.tolist() == [23]


def test_jacobian():
    j = AF.jacobian(lambda x: torch.stack([x.prod(), x.sum()]), vec(2, 3, 4))
    assert j.tolist() == [[12, 8, 6], [1, 1, 1]]


@pytest.mark.parametrize("vectorize", [False, True])
def test_jacobian_of_several_inputs_and_outputs(vectorize):
    j = AF.jacobian(lambda x, y: (x * y, y.sum()), (vec(1, 2), vec(3, 4)), vectorize=vectorize)
    assert j[0][0].tolist() == [[3, 0], [0, 4]] and j[0][1].tolist() == [[1, 0], [0, 2]]
    assert j[1][0].tolist() == [0, 0] and j[1][1].tolist() == [1, 1]


def test_jacobian_shapes():
    j = AF.jacobian(lambda x: x.exp().sum(1), torch.rand(2, 3))
    assert j.shape == (2, 2, 3)


def test_jacobian_strict():
    with pytest.raises(RuntimeError, match="independent"):
        AF.jacobian(lambda x, y: x * 2, (vec(1), vec(2)), strict=True)


def test_jacobian_may_be_differentiated():
    x = vec(1, 2).requires_grad_()
    j = AF.jacobian(lambda t: t ** 3, x, create_graph=True)
    j.sum().backward()
    assert x.grad.tolist() == [6, 12]


def test_hessian():
    h = AF.hessian(cubes, vec(1, 2))
    assert h.tolist() == [[6, 0], [0, 12]]


def test_hessian_of_two_inputs():
    h = AF.hessian(lambda x, y: (x * x * y).sum(), (vec(1, 2), vec(3, 4)))
    assert h[0][0].tolist() == [[6, 0], [0, 8]]
    assert h[0][1].tolist() == h[1][0].tolist() == [[2, 0], [0, 4]]
    assert h[1][1].tolist() == [[0, 0], [0, 0]]


def test_hessian_needs_a_scalar():
    with pytest.raises(RuntimeError, match="single element"):
        AF.hessian(lambda x: x ** 2, vec(1, 2))


def test_vhp_and_hvp():
    for fn in (AF.vhp, AF.hvp):
        value, product = fn(cubes, vec(1, 2), vec(1, 10))
        assert value.item() == 9 and product.tolist() == [6, 120]


def test_hvp_of_two_inputs():
    _, (a, b) = AF.hvp(lambda x, y: (x * y).sum(), (vec(1), vec(2)), (vec(3), vec(4)))
    assert (a.item(), b.item()) == (4, 3)


def test_inputs_are_not_touched():
    x = vec(1, 2).requires_grad_()
    AF.jacobian(cubes, x)
    AF.vhp(cubes, x, vec(1, 1))
    assert x.grad is None and x.is_leaf


def test_not_a_tensor():
    with pytest.raises(TypeError, match="must be"):
        AF.vjp(lambda x: x, 3.0)


# --- checkers --------------------------------------------------------------------------------


class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0] * 3


class WrongSecond(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x ** 3

    @staticmethod
    def backward(ctx, g):
        return g * 3 * ctx.saved_tensors[0].detach() ** 2


def test_gradcheck_finds_a_wrong_rule():
    x = vec(1, 2).requires_grad_()
    with pytest.raises(GradcheckError, match="Jacobian mismatch"):
        gradcheck(Wrong.apply, (x,))
    assert gradcheck(Wrong.apply, (x,), raise_exception=False) is False


def test_gradgradcheck_finds_a_wrong_second_derivative():
    x = vec(1, 2).requires_grad_()
    assert gradcheck(WrongSecond.apply, (x,))
    with pytest.raises(RuntimeError):
        gradgradcheck(WrongSecond.apply, (x,))


def test_gradcheck_of_a_right_function():
    a, b = vec(1, 2).requires_grad_(), vec(3, 4).requires_grad_()
    assert gradcheck(lambda x, y: (x * y, x.sin()), (a, b))
    assert gradgradcheck(lambda x, y: x * y.exp(), (a, b))


def test_gradcheck_of_complex_functions():
    z = torch.tensor([1 + 2j, 0.5 - 1j], dtype=torch.complex128, requires_grad=True)
    assert gradcheck(lambda t: t * t.conj() * (1 + 2j), (z,))
    assert gradcheck(torch.abs, (z,))
    assert gradcheck(lambda t: t.real * t.imag, (z,))


def test_gradcheck_needs_something_to_check():
    with pytest.raises(ValueError, match="at least one input tensor to require gradient"):
        gradcheck(torch.exp, (vec(1),))


def test_gradcheck_takes_other_arguments():
    assert gradcheck(lambda x, n, flag=None: x ** n, (vec(1, 2).requires_grad_(), 3))
