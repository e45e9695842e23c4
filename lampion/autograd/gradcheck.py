"""Checks gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..tensor.dtype import FLOAT
from ..tensor.tensor import Tensor, wrap
from .engine import grad
from .modes import enable_grad

__all__ = ["gradcheck", "gradgradcheck", "GradcheckError"]


class GradcheckError(RuntimeError):
    """Analytic and numerical gradients differ."""


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _outputs(fn: Callable[..., Any], inputs: Any) -> list[Tensor]:
    return [o for o in _listed(fn(*inputs)) if isinstance(o, Tensor) and o._dtype.kind >= FLOAT]


def _numerical(fn: Callable[..., Any], inputs: list[Any], i: int, k: int,
               eps: float) -> np.ndarray[Any, Any]:
    """Derivative of output `k` by every element of input `i`: (inputs, outputs)."""
    x = inputs[i]
    rows = []
    steps = [eps] if x._dtype.kind == FLOAT else [eps, eps * 1j]
    for place in np.ndindex(x._a.shape):
        parts = []
        for step in steps:
            sides = []
            for sign in (1, -1):
                moved = x._a.copy()
                moved[place] += sign * step
                args = [wrap(moved) if j == i else v for j, v in enumerate(inputs)]
                sides.append(_outputs(fn, args)[k]._a.astype(np.complex128).reshape(-1))
            parts.append((sides[0] - sides[1]) / (2 * eps))
        rows.append(parts[0] if len(parts) == 1 else np.stack(parts))
    return np.array(rows)


def _analytic(output: Tensor, x: Tensor, retain: bool = True) -> np.ndarray[Any, Any]:
    """Rows of gradients of every output element, by reverse mode: (inputs, outputs)."""
    columns = []
    for place in np.ndindex(output._a.shape):
        parts = []
        for one in ([1] if output._dtype.kind == FLOAT else [1, 1j]):
            start = np.zeros(output._a.shape, output._a.dtype)
            start[place] = one
            g, = grad(output, x, wrap(start), retain_graph=retain, allow_unused=True)
            parts.append(np.zeros(x._a.size) if g is None else np.array(g.detach()._a).reshape(-1))
        columns.append(parts[0] if len(parts) == 1 else np.stack(parts))
    return np.array(columns)


def _compare(fn: Callable[..., Any], inputs: list[Any], i: int, k: int, output: Tensor,
             eps: float, atol: float, rtol: float) -> str | None:
    """None, or what differs between the derivatives of output `k` by input `i`."""
    numerical = _numerical(fn, [v.detach() if isinstance(v, Tensor) else v for v in inputs], i, k,
                           eps)
    analytic = _analytic(output, inputs[i])
    if inputs[i]._dtype.kind > FLOAT or output._dtype.kind > FLOAT:
        numerical, analytic = _as_real_pairs(numerical, analytic, inputs[i], output)
    else:
        numerical, analytic = numerical.real.reshape(inputs[i]._a.size, -1), analytic.T
    if numerical.size == 0 or np.allclose(analytic, numerical, rtol, atol):
        return None
    return (f"Jacobian mismatch for output {k} with respect to input {i},\nnumerical:{numerical}\n"
            f"analytical:{analytic}\n")


def _as_real_pairs(numerical: Any, analytic: Any, x: Tensor, y: Tensor) -> tuple[Any, Any]:
    """Complex derivatives as real ones of real and imaginary parts."""
    n, m = x._a.size, y._a.size
    cx, cy = x._dtype.kind > FLOAT, y._dtype.kind > FLOAT
    num = numerical.reshape(n, 2 if cx else 1, m)
    num = np.stack([num.real, num.imag], -1) if cy else num.real[..., None]
    ana = analytic.reshape(m, 2 if cy else 1, n)
    ana = np.stack([ana.real, ana.imag], -1) if cx else ana.real[..., None]
    return num, ana.transpose(2, 3, 0, 1)


def gradcheck(func: Callable[..., Any], inputs: Any, *, eps: float = 1e-06, atol: float = 1e-05,
              rtol: float = 0.001, raise_exception: bool = True, nondet_tol: float = 0.0,
              check_undefined_grad: bool = True, check_grad_dtypes: bool = False,
              check_batched_grad: bool = False, check_batched_forward_grad: bool = False,
              check_forward_ad: bool = False, check_backward_ad: bool = True,
              fast_mode: bool = False, masked: bool | None = None) -> bool:
    """Whether the gradients of `func` agree with central differences of step `eps`.

    Inputs should be float64. Raises GradcheckError, or returns False without `raise_exception`.

    >>> import lampion as torch
    >>> x = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    >>> torch.autograd.gradcheck(torch.exp, (x,))
    True
    """
    args = _listed(inputs)
    wanted = [i for i, v in enumerate(args) if isinstance(v, Tensor) and v.requires_grad]
    if not wanted:
        raise ValueError("gradcheck expects at least one input tensor to require gradient, but "
                         "none of the them have requires_grad=True.")
    with enable_grad():
        outputs = _outputs(func, args)
        for k, output in enumerate(outputs):
            for i in wanted:
                problem = None if not output.requires_grad else _compare(
                    func, args, i, k, output, eps, atol, rtol)
                if problem and raise_exception:
                    raise GradcheckError(problem)
                if problem:
                    return False
    return True


def gradgradcheck(func: Callable[..., Any], inputs: Any, grad_outputs: Any = None, *,
                  eps: float = 1e-06, atol: float = 1e-05, rtol: float = 0.001,
                  gen_non_contig_grad_outputs: bool = False, raise_exception: bool = True,
                  nondet_tol: float = 0.0, check_undefined_grad: bool = True,
                  check_grad_dtypes: bool = False, check_batched_grad: bool = False,
                  check_fwd_over_rev: bool = False, check_rev_over_rev: bool = True,
                  fast_mode: bool = False, masked: bool = False) -> bool:
    """Whether the gradients of the gradients of `func` agree with central differences."""
    args = _listed(inputs)
    outputs = _outputs(func, args)
    if grad_outputs is None:
        rng = np.random.default_rng(0)
        grad_outputs = [wrap(rng.standard_normal(o._a.shape).astype(o._a.dtype)) for o in outputs]
    weights = [g.detach().requires_grad_() for g in _listed(grad_outputs)]
    n = len(args)

    def first(*values: Any) -> Any:
        inner = values[:n]
        wanted = [v for v, original in zip(inner, args, strict=True)
                  if isinstance(original, Tensor) and original.requires_grad]
        with enable_grad():
            wanted = [v if v.requires_grad else v.requires_grad_() for v in wanted]
            found = grad(_outputs(func, inner), wanted, values[n:], create_graph=True,
                         allow_unused=True)
        return tuple(g for g in found if g is not None)
    return gradcheck(first, (*args, *weights), eps=eps, atol=atol, rtol=rtol,
                     raise_exception=raise_exception)
