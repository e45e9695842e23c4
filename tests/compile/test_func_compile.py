"""torch.func inside torch.compile: one program, the eager results, and guards where they belong."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

import lampion as torch
import lampion.nn.functional as F
from lampion import nn
from lampion.compiler.compiled import CompileWarning
from lampion.func import (
    functional_call,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    stack_module_state,
    vjp,
    vmap,
)
from lampion.testing import assert_close

torch.manual_seed(0)
X, W = torch.randn(4, 5), torch.randn(5)


def loss(w: Any, x: Any) -> Any:
    return ((w * x).sum() ** 2).tanh()


def cube(v: Any) -> Any:
    return (v ** 3).sum()


def pulled(x: Any) -> Any:
    out, pull = vjp(lambda x: (x.sin(), x.sum()), x)
    return out, pull((torch.ones(5), torch.tensor(2.0)))


def pushed(x: Any) -> Any:
    out, push = linearize(torch.sin, x)
    return out, push(x), jvp(torch.sin, (x,), (x,))


def same(fn: Callable[..., Any], *args: Any) -> Any:
    """The compiled function, which gave what the eager one gives, twice, in one program."""
    compiled = torch.compile(fn, mode="wait")
    for _ in range(2):
        assert_close(compiled(*args), fn(*args), rtol=1e-5, atol=1e-5)
    assert (compiled.programs, compiled.reasons) == (1, [])
    return compiled


@pytest.mark.parametrize(("fn", "args"), [
    (lambda w, x: grad(loss)(w, x), (W, X[0].clone())),
    (grad_and_value(loss, argnums=(0, 1)), (W, X[0].clone())),
    (vmap(grad(loss), in_dims=(None, 0)), (W, X)),
    (lambda w, x: vmap(grad(loss), in_dims=(None, 0))(w, x).sum(0), (W, X)),
    (hessian(cube), (W,)), (lambda x: jacrev(torch.sin)(x) + jacfwd(torch.cos)(x), (W,)),
    (pulled, (W,)), (pushed, (W,)),
    (lambda x: vmap(vmap(functools.partial(torch.mul, 2.0)))(x), (X,)),
    (lambda d: grad(lambda d: (d["a"] * d["b"][0]).sum())(d), ({"a": W, "b": [W + 1]},)),
], ids=lambda v: getattr(v, "__name__", "") or None)
def test_transforms_are_captured(fn: Any, args: Any) -> None:
    same(fn, *args)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))


def test_a_step_with_functional_call() -> None:
    net, y = model(), torch.tensor([0, 2, 1, 0])
    params = {n: p.detach().clone() for n, p in net.named_parameters()}

    def element(params: Any, x: Any, y: Any) -> Any:
        return F.cross_entropy(functional_call(net, params, (x[None],)), y[None])

    def step(params: Any, x: Any, y: Any) -> Any:
        slopes = vmap(grad(element), in_dims=(None, 0, 0))(params, x, y)
        return {n: p - 0.1 * slopes[n].mean(0) for n, p in params.items()}
    compiled = torch.compile(step, mode="wait")
    ours, theirs = params, params
    for _ in range(3):
        ours, theirs = compiled(ours, X, y), step(theirs, X, y)
        assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert (compiled.programs, compiled.reasons, compiled.changes) == (1, [], [])


def test_functional_call_uses_what_it_is_given_and_what_the_module_has() -> None:
    net = model()
    call = lambda w, x: functional_call(net, {"0.weight": w}, (x,))
    compiled = same(call, torch.ones(8, 5), X)
    before = net[0].weight
    with torch.no_grad():
        net[0].bias.add_(1)  # a value, which a program reads anew
    assert_close(compiled(torch.zeros(8, 5), X), call(torch.zeros(8, 5), X))
    assert compiled.programs == 1 and net[0].weight is before
    net[2].bias = nn.Parameter(torch.ones(3))  # another tensor
    assert_close(compiled(torch.zeros(8, 5), X), call(torch.zeros(8, 5), X))
    assert "bias" in compiled.changes[0]


def test_ensembles_across_the_boundary() -> None:
    models = [model() for _ in range(3)]
    params, buffers = stack_module_state(models)
    run = vmap(lambda p, b, x: functional_call(models[0], (p, b), (x,)), in_dims=(0, 0, None))
    compiled = torch.compile(run, mode="wait")
    compiled(params, buffers, X).sum().backward()
    found = {n: p.grad.clone() for n, p in params.items()}
    for p in params.values():
        p.grad = None
    run(params, buffers, X).sum().backward()
    assert_close(found, {n: p.grad for n, p in params.items()})
    assert compiled.programs == 1


SCALE = 3.0


def scaled(v: Any) -> Any:
    return v * SCALE


def test_what_mapped_functions_read_is_guarded() -> None:
    global SCALE
    compiled = same(lambda x: vmap(scaled)(x), X)
    SCALE = 4.0
    assert_close(compiled(X), X * 4)
    SCALE = 3.0


@pytest.mark.parametrize(("fn", "reason"), [
    (lambda v: NOTES.sort() or v, "list.sort"),
    (lambda v: v * sum(v.tolist()), "tolist"),
    (lambda v: v * round(v.sum().item(), 1), "a number read from a tensor"),
])
def test_what_programs_cannot_repeat_runs_eagerly(fn: Any, reason: str) -> None:
    compiled = torch.compile(lambda x: vmap(fn)(x), mode="wait")
    with pytest.warns(CompileWarning):
        got = compiled(X)
    assert_close(got, vmap(fn)(X))
    assert reason in compiled.reasons[0] and not compiled.programs


NOTES: list[int] = []


@pytest.mark.parametrize("fn", [
    lambda v: v if v.sum() > 0 else -v,
    lambda v: v * v.sum().item(),
])
def test_values_that_mapped_functions_read(fn: Any) -> None:
    """Mapped element by element, each with its own decisions."""
    assert same(lambda x: vmap(fn)(x), X).programs


def test_random_numbers_of_mapped_functions_are_those_of_the_eager_run() -> None:
    run = vmap(lambda v: F.dropout(v, 0.5), randomness="different")
    compiled = torch.compile(run, mode="wait")
    for seed in (1, 2):
        torch.manual_seed(seed)
        want = run(X)
        torch.manual_seed(seed)
        assert_close(compiled(X), want)
    assert compiled.programs == 1


def test_compiled_functions_inside_of_transforms() -> None:
    inner = torch.compile(lambda v: (v * v).sum(), mode="wait")
    inner(W)
    assert_close(vmap(inner)(X), (X * X).sum(1))
    assert_close(grad(inner)(W), 2 * W)
    assert_close(vmap(grad(inner))(X), 2 * X)


def doubled(x: Any, times: int) -> Any:
    return x if times == 0 else doubled(x * 2, times - 1)


class Private:
    def __twice(self, x: Any) -> Any:
        return x * 2

    def call(self, x: Any) -> Any:
        return self.__twice(x)


@pytest.mark.parametrize("fn", [lambda x: doubled(x, 3), Private().call,
                                lambda x: torch.cat((x, torch.stack((x, x)).sum(0)))])
def test_recursion_private_names_and_tuples_of_arguments(fn: Any) -> None:
    same(fn, X)
