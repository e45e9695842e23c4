"""Gradients and second gradients of the core operators against central differences."""

from __future__ import annotations

import numpy as np
import pytest

import lampion as torch
from lampion.autograd import gradcheck, gradgradcheck

RNG = np.random.default_rng(7)


def real(*shape: int, low: float = -2.0, high: float = 2.0) -> torch.Tensor:
    return torch.from_numpy(RNG.uniform(low, high, shape)).requires_grad_()


def spread(*shape: int) -> torch.Tensor:
    """Distinct values at least 0.1 apart: safe for order and selection."""
    n = int(np.prod(shape))
    return torch.from_numpy((RNG.permutation(n) * 0.3 - n * 0.1 + 0.05).reshape(shape)
                            ).requires_grad_()


POSITIVE = {"log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal"}
UNIT = {"asin", "acos", "atanh", "logit"}
UNARY = ["exp", "exp2", "expm1", "sin", "cos", "tan", "sinh", "cosh", "tanh", "asinh", "atan",
         "sigmoid", "neg", "square", "abs", "sinc", "frac", "deg2rad", "rad2deg",
         *sorted(POSITIVE), *sorted(UNIT)]


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_unary(name: str, shape: tuple[int, ...]) -> None:
    low, high = (0.2, 0.8) if name in UNIT else (0.3, 2.0) if name in POSITIVE else (-1.3, 1.3)
    x = real(*shape, low=low, high=high)
    fn = getattr(torch, name)
    assert gradcheck(fn, (x,))
    assert gradgradcheck(fn, (x,))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum", "minimum", "atan2",
                                  "hypot", "logaddexp", "fmod", "remainder", "fmax", "fmin",
                                  "copysign"])
@pytest.mark.parametrize("shapes", [((3,), (3,)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((), (2,))])
def test_binary_with_broadcasting(name: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    a, b = (real(*s, low=0.4, high=2.3) for s in shapes)
    fn = getattr(torch, name)
    assert gradcheck(fn, (a, b))
    assert gradgradcheck(fn, (a, b))


CASES = {
    "pow_tensor": (torch.pow, lambda: (real(3, low=0.3), real(3))),
    "pow_number": (lambda x: x ** 3, lambda: (real(2, 3),)),
    "rpow": (lambda x: 2 ** x, lambda: (real(3),)),
    "add_alpha": (lambda a, b: torch.add(a, b, alpha=2), lambda: (real(3), real(3))),
    "clamp": (lambda x: x.clamp(-0.5, 0.5), lambda: (real(6),)),
    "clamp_tensor": (lambda x, lo, hi: x.clamp(lo, hi),
                     lambda: (spread(5), real(5, low=-0.4, high=-0.3), real(1, low=0.3))),
    "where": (lambda a, b: torch.where(a > 0, a, b), lambda: (real(2, 3), real(3))),
    "lerp": (torch.lerp, lambda: (real(3), real(3), real(3, low=0.1, high=0.4))),
    "addcmul": (lambda a, b, c: torch.addcmul(a, b, c, value=0.5),
                lambda: (real(2, 3), real(3), real(2, 1))),
    "addcdiv": (torch.addcdiv, lambda: (real(3), real(3), real(3, low=0.5))),
    "sum": (lambda x: x.sum(), lambda: (real(2, 3),)),
    "sum_dims": (lambda x: x.sum((0, 2), keepdim=True), lambda: (real(2, 3, 2),)),
    "mean": (lambda x: x.mean(1), lambda: (real(2, 3),)),
    "var": (lambda x: x.var(1), lambda: (real(2, 4),)),
    "std": (lambda x: x.std(unbiased=False), lambda: (real(2, 4),)),
    "prod": (lambda x: x.prod(1), lambda: (real(2, 3),)),
    "max_all": (lambda x: x.max(), lambda: (spread(2, 3),)),
    "max_dim": (lambda x: x.max(1).values, lambda: (spread(2, 3),)),
    "min_dim": (lambda x: x.min(0, keepdim=True)[0], lambda: (spread(2, 3),)),
    "amax": (lambda x: x.amax((0, 1)), lambda: (spread(2, 3),)),
    "logsumexp": (lambda x: x.logsumexp(1), lambda: (real(2, 3),)),
    "softmax": (lambda x: x.softmax(0), lambda: (real(3, 2),)),
    "log_softmax": (lambda x: x.log_softmax(-1), lambda: (real(3, 2),)),
    "norm2": (lambda x: x.norm(), lambda: (real(4),)),
    "norm1": (lambda x: x.norm(p=1, dim=1), lambda: (spread(2, 3),)),
    "norm3": (lambda x: x.norm(p=3), lambda: (spread(4),)),
    "cumsum": (lambda x: x.cumsum(1), lambda: (real(2, 3),)),
    "cumprod": (lambda x: x.cumprod(0), lambda: (real(3, 2, low=0.5),)),
    "cummax": (lambda x: x.cummax(0)[0], lambda: (spread(4),)),
    "diff": (lambda x: x.diff(), lambda: (real(4),)),
    "mm": (torch.mm, lambda: (real(2, 3), real(3, 2))),
    "bmm": (torch.bmm, lambda: (real(2, 2, 3), real(2, 3, 2))),
    "addmm": (lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=2),
              lambda: (real(2), real(2, 3), real(3, 2))),
    "baddbmm": (torch.baddbmm, lambda: (real(2, 2, 2), real(2, 2, 3), real(2, 3, 2))),
    "mv": (torch.mv, lambda: (real(2, 3), real(3))),
    "dot": (torch.dot, lambda: (real(3), real(3))),
    "outer": (torch.outer, lambda: (real(2), real(3))),
    "matmul_batched": (torch.matmul, lambda: (real(2, 1, 2, 3), real(3, 3, 2))),
    "matmul_vector": (torch.matmul, lambda: (real(2, 2, 3), real(3))),
    "linear": (torch.nn.functional.linear, lambda: (real(2, 3), real(4, 3), real(4))),
    "einsum": (lambda a, b: torch.einsum("bij,bjk->ik", a, b),
               lambda: (real(2, 2, 3), real(2, 3, 2))),
    "tensordot": (lambda a, b: torch.tensordot(a, b, 1), lambda: (real(2, 3), real(3, 2))),
    "cdist": (torch.cdist, lambda: (spread(2, 3), real(3, 3, low=3, high=5))),
    "cdist by products": (
        lambda x, y: torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist"),
        lambda: (spread(2, 3), real(3, 3, low=3, high=5))),
    "cat": (lambda a, b: torch.cat([a, b], 1), lambda: (real(2, 1), real(2, 3))),
    "stack": (lambda a, b: torch.stack([a, b], -1), lambda: (real(2), real(2))),
    "split": (lambda x: x.split([1, 2], 1), lambda: (real(2, 3),)),
    "chunk": (lambda x: x.chunk(2), lambda: (real(4, 2),)),
    "unbind": (lambda x: x.unbind(1), lambda: (real(2, 3),)),
    "repeat": (lambda x: x.repeat(2, 3), lambda: (real(2),)),
    "expand": (lambda x: x.expand(3, -1), lambda: (real(1, 2),)),
    "permute": (lambda x: x.permute(2, 0, 1), lambda: (real(2, 3, 2),)),
    "transpose": (lambda x: x.transpose(0, 1), lambda: (real(2, 3),)),
    "view": (lambda x: x.view(3, -1), lambda: (real(2, 3),)),
    "reshape_copy": (lambda x: x.t().reshape(-1), lambda: (real(2, 3),)),
    "squeeze": (lambda x: x.squeeze(1), lambda: (real(2, 1, 2),)),
    "unfold": (lambda x: x.unfold(0, 3, 2), lambda: (real(7),)),
    "as_strided": (lambda x: x.as_strided((2, 2), (1, 2)), lambda: (real(4),)),
    "diagonal": (lambda x: x.diagonal(1), lambda: (real(3, 3),)),
    "diag_embed": (torch.diag_embed, lambda: (real(2, 2),)),
    "tril": (torch.tril, lambda: (real(3, 3),)),
    "triu": (lambda x: x.triu(1), lambda: (real(2, 3, 3),)),
    "flip": (lambda x: x.flip(0), lambda: (real(3),)),
    "roll": (lambda x: x.roll(1, 0), lambda: (real(3, 2),)),
    "narrow": (lambda x: x.narrow(1, 1, 2), lambda: (real(2, 3),)),
    "getitem_slice": (lambda x: x[1:, ::2], lambda: (real(3, 4),)),
    "getitem_int": (lambda x: x[:, 1], lambda: (real(2, 3),)),
    "getitem_list": (lambda x: x[[0, 0, 2]], lambda: (real(3, 2),)),
    "getitem_mask": (lambda x: x[torch.tensor([True, False, True])], lambda: (real(3, 2),)),
    "index_select": (lambda x: x.index_select(1, torch.tensor([2, 0, 2])), lambda: (real(2, 3),)),
    "gather": (lambda x: x.gather(1, torch.tensor([[0, 0], [2, 1]])), lambda: (real(2, 3),)),
    "scatter": (lambda x, s: x.scatter(1, torch.tensor([[0, 2], [1, 0]]), s),
                lambda: (real(2, 3), real(2, 2))),
    "scatter_add": (lambda x, s: x.scatter_add(1, torch.tensor([[0, 0], [1, 0]]), s),
                    lambda: (real(2, 3), real(2, 2))),
    "index_add": (lambda x, s: x.index_add(0, torch.tensor([0, 0]), s),
                  lambda: (real(2, 3), real(2, 3))),
    "index_put": (lambda x, v: x.index_put((torch.tensor([0, 1]),), v),
                  lambda: (real(3, 2), real(2, 2))),
    "masked_fill": (lambda x: x.masked_fill(torch.tensor([True, False]), 0.0),
                    lambda: (real(2, 2),)),
    "masked_select": (lambda x: x.masked_select(torch.tensor([True, False])),
                      lambda: (real(2, 2),)),
    "sort": (lambda x: x.sort()[0], lambda: (spread(2, 4),)),
    "topk": (lambda x: x.topk(2)[0], lambda: (spread(2, 4),)),
    "kthvalue": (lambda x: x.kthvalue(2)[0], lambda: (spread(4),)),
    "median": (lambda x: x.median(), lambda: (spread(5),)),
    "quantile": (lambda x: x.quantile(0.3), lambda: (spread(5),)),
    "nan_to_num": (torch.nan_to_num, lambda: (real(3),)),
    "to_float64": (lambda x: x.to(torch.float64) * 2, lambda: (real(3),)),
    "xlogy": (torch.xlogy, lambda: (real(3, low=0.2), real(3, low=0.2))),
    "clone": (lambda x: x.clone() * x, lambda: (real(3),)),
}


@pytest.mark.parametrize("name", CASES)
def test_gradient(name: str) -> None:
    fn, inputs = CASES[name]
    assert gradcheck(fn, inputs())


@pytest.mark.parametrize("name", [n for n in CASES if n not in {
    "cdist", "norm1", "quantile", "cummax"}])
def test_second_gradient(name: str) -> None:
    fn, inputs = CASES[name]
    assert gradgradcheck(fn, inputs())


def test_a_wrong_rule_is_caught() -> None:
    """A gradient wrong by a thousandth must not pass the check."""
    class Off(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2.004

    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        gradcheck(Off.apply, (real(3),))


def complex_input(*shape: int) -> torch.Tensor:
    return torch.from_numpy(RNG.normal(size=shape) + 1j * RNG.normal(size=shape)).requires_grad_()


@pytest.mark.parametrize("name", ["exp", "sin", "cos", "tanh", "square", "reciprocal", "abs",
                                  "angle", "sqrt", "log", "sigmoid", "conj"])
def test_complex(name: str) -> None:
    assert gradcheck(getattr(torch, name), (complex_input(3),))


@pytest.mark.parametrize("name", ["mul", "div", "mm", "sub"])
def test_complex_binary(name: str) -> None:
    assert gradcheck(getattr(torch, name), (complex_input(2, 2), complex_input(2, 2)))


def test_real_and_imaginary_parts() -> None:
    assert gradcheck(lambda z: z.real * 2 + z.imag, (complex_input(3),))
    assert gradcheck(torch.view_as_real, (complex_input(3),))
    assert gradcheck(torch.complex, (real(3), real(3)))
