"""torch.func without PyTorch: values known by hand, nesting, what is recorded, errors."""

from __future__ import annotations

import pytest

import lampion as torch
from lampion.func import (
    functional_call,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    replace_all_batch_norm_modules_,
    stack_module_state,
    vjp,
    vmap,
)
from lampion.testing import assert_close

T = torch.tensor
X = T([1.0, 2.0, 3.0])


def test_grad_any_order_and_has_aux() -> None:
    cube = lambda x: x ** 3
    assert grad(cube)(T(2.0)) == 12 and grad(grad(cube))(T(2.0)) == 12
    assert grad(grad(grad(cube)))(T(2.0)) == 6
    g, (value, aux) = grad_and_value(lambda x: (x * x, {"x": x}), has_aux=True)(T(3.0))
    assert (g, value, aux["x"]) == (6, 9, 3)
    a, b = grad(lambda x, y: x * y, argnums=(0, 1))(T(2.0), T(5.0))
    assert (a, b) == (5, 2)
    assert grad(lambda p: p["a"] * p["b"][0])({"a": T(2.0), "b": [T(3.0)]}) == {
        "a": T(3.0), "b": [T(2.0)]}


def test_results_are_recorded_only_for_someone_outside() -> None:
    square = lambda x: (x * x).sum()
    assert not grad(square)(X).requires_grad
    w = torch.ones(3, requires_grad=True)
    slope, value = grad_and_value(lambda x: (w * x * x).sum())(X)
    assert slope.requires_grad and value.requires_grad
    slope.sum().backward()
    assert_close(w.grad, 2 * X)
    x = X.clone().requires_grad_()
    grad(square)(x).sum().backward()
    assert_close(x.grad, torch.full((3,), 2.0))
    with torch.no_grad():
        still = grad(square)(x)
    assert not still.requires_grad
    assert_close(still, 2 * X)


def test_perturbations_are_not_confused() -> None:
    inner = lambda x: grad(lambda y: x * y)(T(1.0))
    assert grad(lambda x: x * inner(x))(T(3.0)) == 6
    assert grad(lambda x: x * inner(x.detach()))(T(3.0)) == 3


def test_vjp_and_jvp() -> None:
    out, pull = vjp(lambda x, y: (x * y, x.sum()), X, 2 * X)
    assert_close(out[1], T(6.0))
    assert_close(pull((torch.ones(3), T(1.0))), (2 * X + 1, X))
    assert_close(pull((torch.zeros(3), T(0.0)))[0], torch.zeros(3))
    out, product = jvp(lambda x: x ** 2, (X,), (torch.ones(3),))
    assert_close((out, product), (X ** 2, 2 * X))
    out, product, aux = jvp(lambda x: (x * 2, x), (X,), (X,), has_aux=True)
    assert_close((product, aux), (2 * X, X))
    assert_close(jvp(lambda x: torch.ones(2), (X,), (X,))[1], torch.zeros(2))
    out, push = linearize(torch.sin, X)
    assert_close((out, push(X)), (X.sin(), X.cos() * X))


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
def test_jacobians(jacobian) -> None:
    assert_close(jacobian(lambda x: x ** 2)(X), torch.diag(2 * X))
    m = torch.arange(6.0).view(2, 3)
    assert jacobian(lambda m: m @ X)(m).shape == (2, 2, 3)
    a, b = jacobian(lambda x, y: x * y, argnums=(0, 1))(X, 2 * X)
    assert_close((a, b), (torch.diag(2 * X), torch.diag(X)))
    first, aux = jacobian(lambda x: ({"s": x.sum()}, x), has_aux=True)(X)
    assert_close((first["s"], aux), (torch.ones(3), X))
    assert jacobian(lambda x: x.new_zeros(0) * x[:0])(X).shape == (0, 3)


def test_hessian_of_a_polynomial() -> None:
    assert_close(hessian(lambda x: (x ** 3).sum())(X), torch.diag(6 * X))
    assert_close(jacrev(jacrev(lambda x: (x ** 3).sum()))(X), torch.diag(6 * X))


def test_vmap_dims() -> None:
    m = torch.arange(6.0).view(2, 3)
    assert_close(vmap(lambda r: r.sum())(m), m.sum(1))
    assert_close(vmap(lambda r: r.sum(), in_dims=1)(m), m.sum(0))
    assert_close(vmap(lambda r, v: r * v, in_dims=(0, None))(m, X), m * X)
    assert_close(vmap(lambda r: r, out_dims=1)(m), m.t())
    assert_close(vmap(lambda d: (d["a"], 1), in_dims=({"a": 1},), out_dims=(0, None))({"a": m}),
                 (m.t(), 1))
    assert_close(vmap(vmap(lambda x: x * x))(m), m * m)
    assert_close(vmap(lambda x: x if x.item() > 2 else -x)(m[0]), -m[0])
    assert vmap(lambda r: r * 2)(torch.ones(0, 3)).shape == (0, 3)


def test_vmap_of_gradients_and_gradients_of_vmap() -> None:
    w = torch.randn(3)
    per_sample = vmap(grad(lambda w, x: (w * x).sum() ** 2), in_dims=(None, 0))
    batch = torch.randn(4, 3)
    expected = torch.stack([2 * (w * x).sum() * x for x in batch])
    assert_close(per_sample(w, batch), expected)
    total = grad(lambda w: vmap(lambda x: (w * x).sum() ** 2)(batch).sum())(w)
    assert_close(total, expected.sum(0))


def test_vmap_randomness() -> None:
    draw = lambda x: torch.rand(2)
    with pytest.raises(RuntimeError, match="called random operation while in randomness error"):
        vmap(draw)(X)
    same = vmap(draw, randomness="same")(X)
    assert torch.equal(same[0], same[2])
    torch.manual_seed(1)
    different = vmap(draw, randomness="different")(X)
    torch.manual_seed(1)
    assert torch.equal(different, torch.rand(3, 2))


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda: vmap(lambda: X)(), ValueError, "got no inputs"),
    (lambda: vmap(lambda x: x)(3), ValueError, "cannot vmap over non-Tensor arguments"),
    (lambda: vmap(lambda x: x, in_dims=5)(X), ValueError, "dimensionality 1 so expected in_dim"),
    (lambda: vmap(lambda x, y: x)(X, torch.ones(2)), ValueError, r"got sizes \[3, 2\]"),
    (lambda: vmap(lambda x: 3)(X), ValueError, "must only return Tensors"),
    (lambda: vmap(lambda x: x, in_dims=(0, 0))(X), ValueError, "not compatible with the structure"),
    (lambda: vmap(lambda x: x, in_dims=None)(X), ValueError, "expected `in_dims` to be int"),
    (lambda: vmap(lambda x: x, out_dims=(0, 1))(X), ValueError, "structure of `outputs`"),
    (lambda: vmap(lambda x: x, out_dims=4)(X), IndexError, "Dimension out of range"),
    (lambda: vmap(lambda x: x, randomness="no"), RuntimeError, "Only allowed values"),
    (lambda: vmap(lambda x: x, chunk_size=0), ValueError, "chunk_size"),
    (lambda: grad(lambda x: x)(X), RuntimeError, "got tensor with 1 dims"),
    (lambda: grad(lambda x: 3.0)(X), RuntimeError, "to return a Tensor, got"),
    (lambda: grad(torch.sum, argnums=3)(X), RuntimeError, "Got argnum=3, but only 1"),
    (lambda: grad(torch.sum)(T([1, 2])), RuntimeError, "floating point"),
    (lambda: grad(lambda x: x.sum(), has_aux=True)(X), RuntimeError, "tuple of"),
    (lambda: grad(lambda x: x)(3), ValueError, "must be Tensor"),
    (lambda: vjp(torch.sin, X)[1](torch.ones(2)), RuntimeError, "Mismatch in shape"),
    (lambda: jvp(torch.sin, X, X), RuntimeError, "Expected primals to be a tuple"),
    (lambda: jvp(torch.sin, (X,), (X, X)), RuntimeError, "same structure"),
    (lambda: jvp(lambda x: torch.ones(1), (X,), (X,), strict=True), RuntimeError, "independent"),
])
def test_errors(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call()


def test_functional_call_and_ensembles() -> None:
    models = [torch.nn.Linear(3, 2) for _ in range(4)]
    params, buffers = stack_module_state(models)
    assert params["weight"].shape == (4, 2, 3) and params["weight"].requires_grad and not buffers
    x = torch.randn(5, 3)
    together = vmap(lambda p: functional_call(models[0], p, (x,)))(params)
    assert_close(together, torch.stack([m(x) for m in models]))
    with pytest.raises(ValueError, match="multiple dictionaries"):
        functional_call(models[0], ({"bias": X}, {"bias": X}), (x,))
    with pytest.raises(RuntimeError, match="at least one model"):
        stack_module_state([])


def test_gradient_of_a_module_loss_equals_backward() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    x, y = torch.randn(6, 3), torch.randn(6, 1)
    loss = lambda p: torch.nn.functional.mse_loss(functional_call(model, p, (x,)), y)
    gradients = grad(loss)({name: p.detach() for name, p in model.named_parameters()})
    torch.nn.functional.mse_loss(model(x), y).backward()
    assert_close(gradients, {name: p.grad for name, p in model.named_parameters()})


def test_replace_all_batch_norm_modules() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3))
    replace_all_batch_norm_modules_(model)
    assert model[0].running_mean is None and not model[0].track_running_stats
    assert model.eval()(torch.randn(4, 3)).mean().abs() < 1e-6
