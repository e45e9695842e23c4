"""Activations: pointwise functions of nn.functional."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..tensor.tensor import Tensor
from .errors import argument_type, not_implemented_for, wrap_dim
from .families import Array, unary
from .forms import in_place_form
from .promotion import as_scalar
from .record import leaf, op, same_shape
from .reference.erf import erf

__all__ = [
    "celu",
    "celu_",
    "elu",
    "elu_",
    "gelu",
    "glu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hardtanh_",
    "leaky_relu",
    "leaky_relu_",
    "logsigmoid",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "relu_",
    "rrelu",
    "rrelu_",
    "selu",
    "selu_",
    "silu",
    "softplus",
    "softshrink",
    "softsign",
    "tanhshrink",
    "threshold",
    "threshold_",
]

_SQRT_HALF = math.sqrt(0.5)
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


def _pair_shape(grad: Any, *_: Any) -> Any:
    return grad.shape, grad.dtype


def _flat(g: Tensor) -> None:
    """A gate moves in steps with its condition: no gradient."""


def _check(name: str, input: Any, integers: bool = False) -> None:
    if not isinstance(input, Tensor):
        raise argument_type(name, "input", "Tensor", input)
    kind = input._dtype.kind
    if kind != 2 and not (integers and kind == 1):
        raise not_implemented_for(name, input._dtype)


def _maybe_inplace(function: Any, inplace: bool, input: Any, *args: Any) -> Any:
    return function.in_place(input, *args) if inplace else function(input, *args)


def _activation(last: Any) -> Callable[[Callable[..., Any]], Any]:
    """Gives a function that calls the operator `last` its in-place form."""
    def make(function: Callable[..., Any]) -> Any:
        name = function.__name__.strip("_")
        function.in_place = in_place_form(function, name, (last,))  # type: ignore[attr-defined]
        return function
    return make


# -- gates: the gradient where a condition on the input holds, zero elsewhere


_F32 = np.dtype(np.float32)
_ZERO = np.zeros((), np.float32)  # converting a Python number costs more than a small maximum


@leaf({"grad": lambda g, x, low, high: gate(g, x, low, high), "x": _flat}, shape=_pair_shape)
def gate(grad: Array, x: Array, low: float, high: float) -> Any:
    """`grad` where low < x < high, else 0; a NaN in x keeps the gradient."""
    zero = _ZERO if grad.dtype is _F32 else np.zeros((), grad.dtype)
    bound = zero if low == 0.0 else low
    closed = x <= bound if high == math.inf else (x <= bound) | (x >= high)
    return np.where(closed, zero, grad)


_relu = unary(
    "relu",
    lambda a: np.maximum(a, _ZERO if a.dtype is _F32 else 0),
    lambda g, out: gate(g, out, 0.0, math.inf),
    kinds="float",
    integers="same",
    bools="error",
)


@op("F")
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0).

    >>> import lampion as torch
    >>> torch.nn.functional.relu(torch.tensor([-1., 2.])).tolist()
    [0.0, 2.0]
    """
    return input.relu_() if inplace else _relu(input)


@op("F")
def relu_(input: Tensor) -> Tensor:
    """In-place `relu`."""
    return input.relu_()


@leaf(
    {"input": lambda g, input, min_val, max_val: gate(g, input, min_val, max_val)},
    name="hardtanh",
    shape=same_shape,
)
def _hardtanh(input: Array, min_val: float, max_val: float) -> Any:
    """x limited to a range."""
    return np.minimum(np.maximum(input, input.dtype.type(min_val)), input.dtype.type(max_val))


@_activation(_hardtanh)
def _hardtanh_of(input: Tensor, min_val: float, max_val: float) -> Tensor:
    return _hardtanh(input, min_val, max_val)


@op("F")
def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """x limited to [min_val, max_val]."""
    _check("hardtanh", input, integers=True)
    if min_val > max_val:
        raise ValueError("min_val cannot be greater than max_val")
    return _maybe_inplace(_hardtanh_of, inplace, input, min_val, max_val)


@op("F")
def hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """In-place `hardtanh`."""
    return hardtanh(input, min_val, max_val, inplace=True)


@op("F")
def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """x limited to [0, 6]."""
    return hardtanh(input, 0.0, 6.0, inplace)


@leaf(
    {"input": lambda g, input, threshold, value: gate(g, input, threshold, math.inf)},
    name="threshold",
    shape=same_shape,
)
def _threshold(input: Array, threshold: float, value: float) -> Any:
    """x where x > threshold, else value."""
    return np.where(input <= threshold, input.dtype.type(value), input)


@_activation(_threshold)
def _threshold_of(input: Tensor, threshold: float, value: float) -> Tensor:
    return _threshold(input, threshold, value)


@op("torch F")
def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, else value."""
    _check("threshold", input, integers=True)
    limit, other = (as_scalar(x, input._dtype, "threshold") for x in (threshold, value))
    return _maybe_inplace(_threshold_of, inplace, input, limit, other)


_threshold_whole = threshold  # whose name is that of an argument below


@op("torch F")
def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    """In-place `threshold`."""
    return _threshold_whole(input, threshold, value, inplace=True)


# -- piecewise linear


@leaf(
    {"grad": lambda g, x, slope: slope_where_negative(g, x, slope), "x": _flat}, shape=_pair_shape
)
def slope_where_negative(grad: Array, x: Array, slope: float) -> Any:
    """`grad` where x > 0, else grad * slope."""
    return np.where(x > 0, grad, grad * grad.dtype.type(slope))


@leaf(
    {"input": lambda g, input, slope: slope_where_negative(g, input, slope)},
    name="leaky_relu",
    shape=same_shape,
)
def _leaky_relu(input: Array, slope: float) -> Any:
    """x where x > 0, else x * slope."""
    return np.where(input > 0, input, input * input.dtype.type(slope))


@_activation(_leaky_relu)
def _leaky_relu_of(input: Tensor, slope: float) -> Tensor:
    return _leaky_relu(input, slope)


@op("F")
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, else x * negative_slope."""
    _check("leaky_relu", input)
    return _maybe_inplace(_leaky_relu_of, inplace, input, negative_slope)


@op("F")
def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """In-place `leaky_relu`."""
    return leaky_relu(input, negative_slope, inplace=True)


@leaf({"grad": lambda g, x, slope: linear_gate(g, x, slope), "x": _flat}, shape=_pair_shape)
def linear_gate(grad: Array, x: Array, slope: float) -> Any:
    """grad * slope where -3 < x < 3, else 0."""
    inside = (x > -3) & (x < 3)
    return np.where(inside, grad * grad.dtype.type(slope), np.zeros((), grad.dtype))


@leaf(
    {"input": lambda g, input: linear_gate(g, input, 1 / 6)}, name="hardsigmoid", shape=same_shape
)
def _hardsigmoid(input: Array) -> Any:
    """x/6 + 1/2 limited to [0, 1]."""
    return np.clip(input + 3, 0, 6) / 6


@_activation(_hardsigmoid)
def _hardsigmoid_of(input: Tensor) -> Tensor:
    return _hardsigmoid(input)


@op("F")
def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """x/6 + 1/2 limited to [0, 1]."""
    _check("hardsigmoid", input)
    return _maybe_inplace(_hardsigmoid_of, inplace, input)


def _hardswish_grad(g: Tensor, input: Tensor) -> Tensor:
    middle = g * (input / 3 + 0.5)
    return middle.where(input < 3, g).masked_fill(input <= -3, 0)


@leaf({"input": _hardswish_grad}, name="hardswish", shape=same_shape)
def _hardswish(input: Array) -> Any:
    """x * hardsigmoid(x)."""
    return input * np.clip(input + 3, 0, 6) / 6


@_activation(_hardswish)
def _hardswish_of(input: Tensor) -> Tensor:
    return _hardswish(input)


@op("F")
def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * hardsigmoid(x)."""
    _check("hardswish", input)
    return _maybe_inplace(_hardswish_of, inplace, input)


@leaf({"grad": lambda g, x, lambd: outside(g, x, lambd), "x": _flat}, shape=_pair_shape)
def outside(grad: Array, x: Array, lambd: float) -> Any:
    """`grad` where x is outside [-lambd, lambd], else 0."""
    return np.where((x >= -lambd) & (x <= lambd), np.zeros((), grad.dtype), grad)


@leaf(
    {"input": lambda g, input, lambd: outside(g, input, lambd)}, name="softshrink", shape=same_shape
)
def _softshrink(input: Array, lambd: float) -> Any:
    """x moved towards zero by lambd."""
    moved = np.where(
        input > lambd, input - lambd, np.where(input < -lambd, input + lambd, 0 * input)
    )
    return moved.astype(input.dtype, copy=False)


@op("F")
def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards zero by lambd; zero inside [-lambd, lambd]."""
    _check("softshrink", input)
    if lambd < 0:
        raise RuntimeError(f"lambda must be greater or equal to 0, but found to be {lambd}.")
    return _softshrink(input, lambd)


@leaf(
    {"input": lambda g, input, lambd: outside(g, input, lambd)}, name="hardshrink", shape=same_shape
)
def _hardshrink(input: Array, lambd: float) -> Any:
    """x outside [-lambd, lambd], else zero."""
    return np.where((input >= -lambd) & (input <= lambd), np.zeros((), input.dtype), input)


@op("torch Tensor F")
def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x outside [-lambd, lambd], else zero."""
    _check("hardshrink", input)
    return _hardshrink(input, lambd)


# -- smooth


def _elu_grad(g: Tensor, input: Tensor, alpha: float, scale: float, rate: float) -> Tensor:
    falling = g * ((input * rate).exp() * (alpha * scale * rate))
    return falling.where(input <= 0, g * scale)


@leaf({"input": _elu_grad}, name="elu", shape=same_shape)
def _elu(input: Array, alpha: float, scale: float, rate: float) -> Any:
    """scale * x where x > 0, else scale * alpha * (exp(rate * x) - 1)."""
    kind = input.dtype.type
    low = np.expm1(np.minimum(input, 0) * kind(rate)) * kind(alpha * scale)
    return np.where(input > 0, input * kind(scale), low)


@leaf(
    {"input": lambda g, input, alpha: _elu_grad(g, input, alpha, 1.0, 1.0 / alpha)},
    name="celu",
    shape=same_shape,
)
def _celu(input: Array, alpha: float) -> Any:
    """x where x > 0, else alpha * (exp(x / alpha) - 1)."""
    return _elu.kernel(input, alpha, 1.0, 1.0 / alpha)


@_activation(_elu)
def _elu_of(input: Tensor, alpha: float, scale: float, rate: float) -> Tensor:
    return _elu(input, alpha, scale, rate)


@_activation(_celu)
def _celu_of(input: Tensor, alpha: float) -> Tensor:
    return _celu(input, alpha)


@op("F")
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha * (exp(x) - 1)."""
    _check("elu", input)
    return _maybe_inplace(_elu_of, inplace, input, alpha, 1.0, 1.0)


@op("F")
def elu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """In-place `elu`."""
    return elu(input, alpha, inplace=True)


@op("torch F")
def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """Scaled `elu` with the constants of self-normalising networks."""
    _check("selu", input)
    return _maybe_inplace(_elu_of, inplace, input, _SELU_ALPHA, _SELU_SCALE, 1.0)


@op("torch F")
def selu_(input: Tensor) -> Tensor:
    """In-place `selu`."""
    return selu(input, inplace=True)


@op("torch F")
def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha * (exp(x / alpha) - 1)."""
    _check("celu", input)
    if alpha == 0:
        raise RuntimeError("ZeroDivisionError: alpha cannot be 0 for CELU")
    return _maybe_inplace(_celu_of, inplace, input, alpha)


@op("torch F")
def celu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """In-place `celu`."""
    return celu(input, alpha, inplace=True)


def _normal_density(x: Tensor) -> Tensor:
    return (x * x * -0.5).exp() * (1 / math.sqrt(2 * math.pi))


@leaf({"input": lambda g, input: g * _normal_density(input)}, shape=same_shape)
def normal_cdf(input: Array) -> Any:
    """The distribution function of the standard normal distribution."""
    kind = input.dtype.type
    return (erf(input * kind(_SQRT_HALF)) + 1) * kind(0.5)


@leaf({"input": lambda g, input: g * (_normal_density(input) * (2 - input * input))},
      shape=same_shape)
def gelu_slope(input: Array) -> Any:
    """The derivative of gelu: Phi(x) + x * phi(x)."""
    kind = input.dtype.type
    density = np.exp(input * input * kind(-0.5)) * kind(1 / math.sqrt(2 * math.pi))
    return normal_cdf.kernel(input) + input * density


def _gelu_grad(g: Tensor, input: Tensor, tanh: bool) -> Tensor:
    if not tanh:
        return g * gelu_slope(input)
    beta = math.sqrt(2 / math.pi)
    square = input * input
    t = (beta * input * (1 + 0.044715 * square)).tanh()
    slope = beta * (1 + 3 * 0.044715 * square)
    return g * (0.5 * (1 + t) + 0.5 * input * (1 - t * t) * slope)


@leaf({"input": _gelu_grad}, name="gelu", shape=same_shape)
def _gelu(input: Array, tanh: bool) -> Any:
    """x times the normal distribution function of x."""
    kind = input.dtype.type
    if not tanh:
        return input * normal_cdf.kernel(input)
    inner = kind(math.sqrt(2 / math.pi)) * input * (1 + kind(0.044715) * input * input)
    return kind(0.5) * input * (1 + np.tanh(inner))


@op("F")
def gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    """x * Phi(x); `approximate='tanh'` uses the tanh formula.

    >>> import lampion as torch
    >>> torch.nn.functional.gelu(torch.tensor([0., 1.]))
    tensor([0.0000, 0.8413])
    """
    _check("gelu", input)
    if approximate not in ("none", "tanh"):
        raise RuntimeError(
            f"approximate argument must be either none or tanh, received '{approximate}'"
        )
    return _gelu(input, approximate == "tanh")


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _silu_grad(g: Tensor, input: Tensor) -> Tensor:
    s = input.sigmoid()
    return g * (s * (1 + input * (1 - s)))


@leaf({"input": _silu_grad}, name="silu", shape=same_shape)
def _silu(input: Array) -> Any:
    """x * sigmoid(x)."""
    return input / (1 + np.exp(-input))


@_activation(_silu)
def _silu_of(input: Tensor) -> Tensor:
    return _silu(input)


@op("F")
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x), also called swish."""
    if isinstance(input, Tensor) and input.is_complex():
        return input * input.sigmoid()
    _check("silu", input)
    return _maybe_inplace(_silu_of, inplace, input)


def _mish_grad(g: Tensor, input: Tensor) -> Tensor:
    t = softplus(input).tanh()
    return g * (t + input * input.sigmoid() * (1 - t * t))


@leaf({"input": _mish_grad}, name="mish", shape=same_shape)
def _mish(input: Array) -> Any:
    """x * tanh(softplus(x))."""
    return input * np.tanh(np.logaddexp(input, 0))


@_activation(_mish)
def _mish_of(input: Tensor) -> Tensor:
    return _mish(input)


@op("F")
def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x))."""
    _check("mish", input)
    return _maybe_inplace(_mish_of, inplace, input)


def _softplus_grad(g: Tensor, input: Tensor, beta: float, threshold: float) -> Tensor:
    return (g * (input * beta).sigmoid()).where(input * beta <= threshold, g)


@leaf({"input": _softplus_grad}, name="softplus", shape=same_shape)
def _softplus(input: Array, beta: float, threshold: float) -> Any:
    """log(1 + exp(beta * x)) / beta; x itself above the threshold."""
    scaled = input * input.dtype.type(beta)
    soft = np.log1p(np.exp(np.minimum(scaled, threshold))) / input.dtype.type(beta)
    return np.where(scaled > threshold, input, soft)


@op("F")
def softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold."""
    _check("softplus", input)
    return _softplus(input, beta, threshold)


@leaf({"input": lambda g, input: g * (-input).sigmoid()}, name="log_sigmoid", shape=same_shape)
def _log_sigmoid(input: Array) -> Any:
    """log(sigmoid(x))."""
    return np.minimum(input, 0) - np.log1p(np.exp(-np.abs(input)))


@op("F")
def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x))."""
    _check("log_sigmoid", input)
    return _log_sigmoid(input)


@op("F")
def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return input / (input.abs() + 1)


@op("F")
def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    return input - input.tanh()


# -- with parameters, noise or a gate


def glu_gradients(g: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """Gradients for the two halves."""
    s = _sigmoid(b)
    return g * s, g * a * s * (1 - s)


def _glu_again(g: Tensor, needs: Any, grad: Tensor, input: Tensor, dim: int) -> Any:
    (ga, gb), (a, b) = g.chunk(2, dim), input.chunk(2, dim)
    s = b.sigmoid()
    slope = s * (1 - s)
    bent = ga + gb * a * (1 - 2 * s)
    return ga * s + gb * a * slope, Tensor._cat((gb * grad * slope, bent * grad * slope), dim)


@leaf(_glu_again, name="glu_backward", shape=lambda grad, input, dim: (input.shape, input.dtype))
def _glu_backward(grad: Array, input: Array, dim: int) -> Any:
    """Gradient of `glu` for its input."""
    return np.concatenate(glu_gradients(grad, *np.split(input, 2, dim)), dim)


def _glu_grad(g: Tensor, input: Tensor, dim: int) -> Any:
    return _glu_backward(g, input, dim)


@leaf({"input": _glu_grad}, name="glu")
def _glu(input: Array, dim: int) -> Any:
    """First half times the sigmoid of the second half."""
    a, b = np.split(input, 2, dim)
    return a * _sigmoid(b)


@op("F")
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """First half times the sigmoid of the second half, along `dim`."""
    if isinstance(input, Tensor) and input.ndim == 0:
        raise RuntimeError("glu does not support scalars because halving size must be even")
    _check("glu", input)
    axis = wrap_dim(dim, input.ndim, "glu")
    if input.shape[axis] % 2:
        raise RuntimeError(
            f"Halving dimension must be even, but dimension {axis} is size {input.shape[axis]}"
        )
    return _glu(input, axis)


@leaf(
    {
        "input": lambda g, input, weight: (g * weight).where(input <= 0, g),
        "weight": lambda g, input: (g * input).masked_fill(input > 0, 0),
    },
    name="prelu_kernel",
    broadcasts=True,
    shape=same_shape,
)
def _prelu(input: Array, weight: Array) -> Any:
    """x where x > 0, else x * weight."""
    return np.where(input > 0, input, input * weight)


@op("torch Tensor F")
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, else x * weight; one weight, or one per channel (dimension 1)."""
    _check("prelu", input)
    if not isinstance(weight, Tensor):
        raise argument_type("prelu", "weight", "Tensor", weight)
    if input.dtype != weight.dtype:
        raise RuntimeError(
            f"prelu: Type promoting not supported. Got {input.dtype} and {weight.dtype}"
        )
    if weight.ndim > 1:
        raise RuntimeError(
            f"prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {weight.ndim}"
        )
    if weight.numel() == 1:
        return _prelu(input, weight.reshape((1,) * input.ndim))
    if input.ndim == 0:
        raise RuntimeError("Not allow zero-dim input tensor.")
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.numel() != channels:
        raise RuntimeError(
            "Mismatch of parameter numbers and input channel size. Found parameter numbers = "
            f"{weight.numel()} and channel size = {channels}."
        )
    shaped = weight.reshape((1, -1) + (1,) * (input.ndim - 2))
    return _prelu(input, shaped)


@leaf({"input": lambda g, noise: g * noise}, name="rrelu_with_noise", shape=same_shape)
def _rrelu(input: Array, noise: Array) -> Any:
    """x * noise."""
    return input * noise


@_activation(_rrelu)
def _rrelu_of(input: Tensor, noise: Tensor) -> Tensor:
    return _rrelu(input, noise)


@op("torch F")
def rrelu(
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """`leaky_relu` with a slope drawn from [lower, upper] per element, or their mean in eval."""
    _check("rrelu", input)
    if lower > upper:
        raise RuntimeError(
            "Lower bound should be less than or equal to the upper bound: rrelu() received "
            f"lower={lower}, upper={upper}"
        )
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    drawn = input.new_empty(input.shape).uniform_(lower, upper)
    noise = drawn.masked_fill(input.detach() > 0, 1)
    return _maybe_inplace(_rrelu_of, inplace, input, noise)


@op("torch F")
def rrelu_(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False
) -> Tensor:
    """In-place `rrelu`."""
    return rrelu(input, lower, upper, training, inplace=True)
