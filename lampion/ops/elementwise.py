"""Pointwise arithmetic and the elementary functions."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np

from ..tensor.dtype import (
    BOOL,
    COMPLEX,
    FLOAT,
    bool_,
    complex128,
    dtype,
    finfo,
    float64,
    int64,
    uint8,
)
from ..tensor.tensor import Tensor
from .errors import argument_type, not_implemented_for
from .families import Array, OptArray, binary, broadcast_shape, conj, operands, unary
from .promotion import NUMBERS, as_scalar, cast, float_dtype, result_dtype
from .record import leaf, not_differentiable, op, same_shape

# --- arithmetic -----------------------------------------------------------------------------------


def _no_bool_sub(d: dtype) -> None:
    if d.kind == BOOL:
        raise RuntimeError(
            "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` "
            "or `logical_xor()` operator instead.")


_add = binary("add", np.add, {"input": lambda g: g, "other": lambda g: g}, publish=False)
_sub = binary("sub", np.subtract, {"input": lambda g: g, "other": lambda g: -g},
              check=_no_bool_sub, publish=False, node=lambda t, _: (
                  "SubBackward0" if isinstance(t[0], Tensor) else "RsubBackward1"))


def _scaled(name: str, other: Any, alpha: Any, input: Any) -> Any:
    """`other * alpha`, after checking that alpha fits the result's kind."""
    d = result_dtype(input, other)
    if d.kind < FLOAT and isinstance(alpha, (float, complex)):
        raise RuntimeError("For integral input tensors, argument alpha must not be a floating "
                           f"point number: {name}() received alpha={alpha}")
    if d.kind == BOOL or (isinstance(alpha, bool) and d.kind != BOOL):
        raise RuntimeError(f"Boolean alpha only supported for Boolean results: {name}() received "
                           f"alpha={alpha}")
    return other * alpha


def _scaled_shape(input: Any, other: Any, alpha: Any) -> Any:
    return np.broadcast_shapes(input.shape, other.shape), input.dtype


@leaf({"input": lambda g: g, "other": lambda g, alpha: g * alpha}, name="add_scaled",
      broadcasts=True, shape=_scaled_shape, node="AddBackward0")
def _add_scaled(input: Array, other: Array, alpha: Array) -> Array:
    return input + other * alpha


@leaf({"input": lambda g: g, "other": lambda g, alpha: -(g * alpha)}, name="sub_scaled",
      broadcasts=True, shape=_scaled_shape, node="SubBackward0")
def _sub_scaled(input: Array, other: Array, alpha: Array) -> Array:
    return input - other * alpha


def _with_factor(name: str, plain: Any, scaled: Any, input: Any, other: Any, alpha: Any) -> Any:
    """`input` and `other * alpha` combined: by one operator where no dtype has to change."""
    if alpha.__class__ in (float, int):
        if alpha == 1:
            return plain(input, other)
        if isinstance(input, Tensor) and isinstance(other, Tensor) and (
                input._dtype is other._dtype and input._dtype.kind == FLOAT):
            broadcast_shape(name, input._a.shape, other._a.shape)
            return scaled(input, other, alpha)
    return plain(input, _scaled(name, other, alpha, input))


@op(inplace=(_add.leaf, _add_scaled), out=True)
def add(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """`input + alpha * other`, broadcast, with type promotion.

    >>> import lampion as torch
    >>> torch.add(torch.tensor([1, 2]), 0.5)
    tensor([1.5000, 2.5000])
    """
    return _with_factor("add", _add, _add_scaled, input, other, alpha)


@op(inplace=(_sub.leaf, _sub_scaled), out=True, aliases="subtract")
def sub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """`input - alpha * other`, broadcast, with type promotion."""
    return _with_factor("sub", _sub, _sub_scaled, input, other, alpha)


@op("torch")
def rsub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """`other - alpha * input`."""
    if not isinstance(input, Tensor):
        raise argument_type("rsub", "input", "Tensor", input)
    return _sub(other, input if alpha == 1 else _scaled("rsub", input, alpha, other))


mul = binary("mul", np.multiply, {"input": lambda g, other: g * conj(other),
                                  "other": lambda g, input: g * conj(input)}, aliases="multiply",
             doc="`input * other`, broadcast, with type promotion.")

_true_div = binary("div", np.true_divide, {
    "input": lambda g, other: g / conj(other),
    "other": lambda g, other, out: -g * conj(out / other)}, kind="float", publish=False)


def _floor_divide(a: Array, b: Array) -> Array:
    if np.result_type(a, b).kind == "f":
        return _float_floor_divide(a, b)
    _refuse_zero(b)
    return np.floor_divide(a, b)


def _float_floor_divide(a: Array, b: Array) -> Array:
    """Quotient rounded down; where b is 0 the plain quotient (inf or nan), as in PyTorch."""
    quotient = np.floor_divide(a, b)
    return np.where(np.equal(b, 0), np.true_divide(a, b), quotient)


def _refuse_zero(b: Any) -> None:
    if np.any(np.equal(b, 0)):
        raise RuntimeError("ZeroDivisionError")


def _trunc_divide(a: Array, b: Array) -> Array:
    if np.result_type(a, b).kind == "f":
        return np.trunc(np.true_divide(a, b))
    _refuse_zero(b)
    quotient = np.floor_divide(a, b)
    return quotient + ((quotient < 0) & (quotient * b != a))


def _flat_grad(g: Any) -> Any:
    """Zeros, whatever arrives: inf * 0 would be NaN."""
    return g.new_zeros(g.shape)


_FLAT = {"input": _flat_grad, "other": _flat_grad}
_div_floor = binary("div_floor", _floor_divide, _FLAT,
                    kind="real", publish=False, node="DivBackward2", bools="error")
_div_trunc = binary("div_trunc", _trunc_divide, _FLAT,
                    kind="real", publish=False, node="DivBackward2", bools="error")
_ROUNDED = {None: _true_div, "floor": _div_floor, "trunc": _div_trunc}


@op(inplace=_true_div.leaf, out=True, aliases="divide")
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """`input / other`; `rounding_mode` "trunc" or "floor" rounds the quotient."""
    if rounding_mode is None:
        return _true_div(input, other)
    if rounding_mode not in _ROUNDED:
        raise RuntimeError("div expected rounding_mode to be one of None, 'trunc', or 'floor' but "
                           f"found '{rounding_mode}'")
    return _ROUNDED[rounding_mode](input, other)


@op(inplace=_true_div.leaf, out=True)
def true_divide(input: Any, other: Any) -> Tensor:
    """`input / other`; integers divide in the default dtype."""
    return _true_div(input, other)


@op(inplace=True, out=True)
def floor_divide(input: Any, other: Any) -> Tensor:
    """The quotient rounded towards minus infinity."""
    return _div_floor(input, other)


def _remainder(a: Array, b: Array) -> Array:
    if np.result_type(a, b).kind != "f":
        _refuse_zero(b)
        return np.remainder(a, b)
    r = np.fmod(a, b)
    return np.where((r != 0) & ((r < 0) ^ (b < 0)), r + b, r)


def _fmod(a: Array, b: Array) -> Array:
    if np.result_type(a, b).kind != "f":
        _refuse_zero(b)
    return np.fmod(a, b)


remainder = binary("remainder", _remainder, {
    "input": lambda g: g, "other": lambda g, input, other: -g * div(
        input, other, rounding_mode="floor")}, kind="real", bools="error",
    doc="Remainder with the sign of the divisor (Python's `%`).")
fmod = binary("fmod", _fmod, {
    "input": lambda g: g, "other": lambda g, input, other: -g * div(
        input, other, rounding_mode="trunc")}, kind="real", bools="error",
    doc="Remainder with the sign of the dividend (C's `fmod`).", numbers="other")


def _pow_grad_base(g: Any, input: Any, other: Any) -> Any:
    if isinstance(other, NUMBERS):
        if other == 0:
            return _flat_grad(g)
        return g * conj(other * input ** (other - 1))
    return g * conj((other * input ** (other - 1)).masked_fill(other == 0, 0))


def _pow_grad_exponent(g: Any, input: Any, other: Any, out: Any) -> Any:
    base = input if isinstance(input, Tensor) else Tensor._scalar(input, out._dtype)
    scaled = out * base.log()
    at_zero = (base == 0) & ((other.real if other.is_complex() else other) >= 0)
    return g * conj(scaled.masked_fill(at_zero, 0))


def _power(a: Array, b: Array) -> Array:
    if type(b) in (int, float) and np.result_type(a).kind in "fc":
        if b == 2:
            return a * a
        if b == 3:
            return a * a * a
        if b == 0.5:
            return np.sqrt(a)
    if np.result_type(a, b).kind in "iu" and np.any(np.less(b, 0)):
        return _negative_integer_power(a, b)
    return np.power(a, b)


def _negative_integer_power(a: Any, b: Any) -> Any:
    """1/a**|b| truncated: nonzero only for a = 1 and -1."""
    a, b = np.broadcast_arrays(a, b)
    sign = np.where(a == 1, 1, np.where(a == -1, np.where(b % 2 == 0, 1, -1), 0))
    return np.where(b < 0, sign, np.power(a, np.maximum(b, 0))).astype(np.result_type(a, b))


_pow = binary("pow", _power, {"input": _pow_grad_base, "other": _pow_grad_exponent},
              publish=False, bools="error", node=lambda t, _: "PowBackward0" if not isinstance(
                  t[1], Tensor) else f"PowBackward{1 if isinstance(t[0], Tensor) else 2}")


@op(inplace=True, out=True)
def pow(input: Any, exponent: Any) -> Tensor:
    """`input` to the power `exponent`; integers to negative numbers are an error."""
    if (isinstance(exponent, int) and exponent < 0 and isinstance(input, Tensor)
            and input._dtype.kind < FLOAT):
        raise RuntimeError("Integers to negative integer powers are not allowed: pow() received "
                           f"a base of {input._dtype} and exponent {exponent}; use .float()")
    return _pow(input, exponent)


@op(inplace=True, out=True)
def float_power(input: Any, exponent: Any) -> Tensor:
    """`input ** exponent` in double precision."""
    kinds = [x._dtype.kind if isinstance(x, Tensor) else COMPLEX * isinstance(x, complex)
             for x in (input, exponent)]
    wide = complex128 if COMPLEX in kinds else float64
    return pow(*(cast(x, wide) if isinstance(x, Tensor) else as_scalar(x, wide, "float_power")
                 for x in (input, exponent)))


def _no_complex(d: dtype) -> None:
    if d.kind == COMPLEX:
        raise not_implemented_for("atan2", d)


atan2 = binary("atan2", np.arctan2, {
    "input": lambda g, input, other: g * other / (input * input + other * other),
    "other": lambda g, input, other: -g * input / (input * input + other * other)},
    kind="float", aliases="arctan2", check=_no_complex, numbers="none")
hypot = binary("hypot", np.hypot, {"input": lambda g, input, out: g * (input / out),
                                   "other": lambda g, other, out: g * (other / out)}, kind="real",
    numbers="none")
copysign = binary("copysign", np.copysign, {
    "input": lambda g, input, out: g * (out / input).masked_fill(input == 0, 0),
    "other": lambda g: g * 0}, kind="float", numbers="other")
nextafter = binary("nextafter", np.nextafter, not_differentiable("not a smooth function"),
                   kind="real", numbers="none")
heaviside = binary("heaviside", lambda a, b: np.where(np.isnan(a), 0, np.where(
    a == 0, b, (a > 0))).astype(np.result_type(a, b)), not_differentiable("a step function"),
    kind="real", numbers="none")


def _first_wins(g: Any, input: Any, other: Any, better: str) -> Any:
    """Gradient of a selection: all to the winner, half to each on a tie."""
    wins = getattr(input, better)(other)
    return (g / 2).masked_fill(input != other, 0) + g.masked_fill(~wins, 0).masked_fill(
        input == other, 0)


maximum = binary("maximum", np.maximum, {
    "input": lambda g, input, other: _first_wins(g, input, other, "gt"),
    "other": lambda g, input, other: _first_wins(g, input, other, "lt")}, kind="real",
    numbers="none")
minimum = binary("minimum", np.minimum, {
    "input": lambda g, input, other: _first_wins(g, input, other, "lt"),
    "other": lambda g, input, other: _first_wins(g, input, other, "gt")}, kind="real",
    numbers="none")
fmax = binary("fmax", np.fmax, {
    "input": lambda g, input, other: g.masked_fill(~((input >= other) | other.isnan()), 0),
    "other": lambda g, input, other: g.masked_fill((input >= other) | other.isnan(), 0)},
    kind="real", inplace=False, numbers="none")
fmin = binary("fmin", np.fmin, {
    "input": lambda g, input, other: g.masked_fill(~((input <= other) | other.isnan()), 0),
    "other": lambda g, input, other: g.masked_fill((input <= other) | other.isnan(), 0)},
    kind="real", inplace=False, numbers="none")
logaddexp = binary("logaddexp", np.logaddexp, {
    "input": lambda g, input, other: g / (1 + (other - input).exp()),
    "other": lambda g, input, other: g / (1 + (input - other).exp())}, kind="same", inplace=False,
    numbers="none")
logaddexp2 = binary("logaddexp2", np.logaddexp2, {
    "input": lambda g, input, other: g / (1 + (other - input).exp2()),
    "other": lambda g, input, other: g / (1 + (input - other).exp2())}, kind="real",
    inplace=False, numbers="none")
gcd = binary("gcd", np.gcd, not_differentiable("integers only"), kind="real", numbers="none")
lcm = binary("lcm", np.lcm, not_differentiable("integers only"), kind="real", numbers="none")


@op(inplace=True, out=True)
def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """`input * 2**other`."""
    for argument, t in (("input", input), ("other", other)):
        if not isinstance(t, Tensor):
            raise argument_type("ldexp", argument, "Tensor", t)
    return mul(input, pow(2.0, other))


# --- elementary functions -------------------------------------------------------------------------

exp = unary("exp", np.exp, lambda g, out: g * conj(out), doc="e to the power of every element.")
exp2 = unary("exp2", np.exp2, lambda g, out: g * conj(out) * math.log(2),
             places="torch Tensor special")
expm1 = unary("expm1", np.expm1, lambda g, out: g * (conj(out) + 1), places="torch Tensor special")
log = unary("log", np.log, lambda g, input: g / conj(input), doc="Natural logarithm.")
log2 = unary("log2", np.log2, lambda g, input: g / (conj(input) * math.log(2)))
log10 = unary("log10", np.log10, lambda g, input: g / (conj(input) * math.log(10)))
log1p = unary("log1p", np.log1p, lambda g, input: g / (conj(input) + 1),
              places="torch Tensor special")
sqrt = unary("sqrt", np.sqrt, lambda g, out: g / (2 * conj(out)), doc="Square root.")
rsqrt = unary("rsqrt", lambda a: np.reciprocal(np.sqrt(a)),
              lambda g, out: -0.5 * g * conj(out * out * out))
reciprocal = unary("reciprocal", np.reciprocal, lambda g, out: -g * conj(out * out))
sin = unary("sin", np.sin, lambda g, input: g * conj(input.cos()))
cos = unary("cos", np.cos, lambda g, input: -g * conj(input.sin()))
tan = unary("tan", np.tan, lambda g, out: g * conj(1 + out * out))
asin = unary("asin", np.arcsin, lambda g, input: g * conj((1 - input * input).rsqrt()),
             aliases="arcsin")
acos = unary("acos", np.arccos, lambda g, input: -g * conj((1 - input * input).rsqrt()),
             aliases="arccos")
atan = unary("atan", np.arctan, lambda g, input: g / conj(input * input + 1), aliases="arctan")
sinh = unary("sinh", np.sinh, lambda g, input: g * conj(input.cosh()))
cosh = unary("cosh", np.cosh, lambda g, input: g * conj(input.sinh()))
tanh = unary("tanh", np.tanh, lambda g, out: g * conj(1 - out * out), places="torch Tensor F")
asinh = unary("asinh", np.arcsinh, lambda g, input: g * conj((input * input + 1).rsqrt()),
              aliases="arcsinh")
acosh = unary("acosh", np.arccosh,
              lambda g, input: g * conj((input - 1).rsqrt() * (input + 1).rsqrt()),
              aliases="arccosh")
atanh = unary("atanh", np.arctanh, lambda g, input: g / conj(1 - input * input), aliases="arctanh")


def _sigmoid(a: Array) -> Array:
    return np.reciprocal(1 + np.exp(-a))


sigmoid = unary("sigmoid", _sigmoid, lambda g, out: g * conj((1 - out) * out),
                places="torch Tensor F")
op("special", out=True, name="expit")(sigmoid)

def _no_bool_neg() -> None:
    raise RuntimeError("Negation, the `-` operator, on a bool tensor is not supported. If you are "
                       "trying to invert a mask, use the `~` or `logical_not()` operator instead.")


neg = unary("neg", np.negative, lambda g: -g, integers="same", bools=_no_bool_neg,
            aliases="negative", doc="Minus every element.")
_square = unary("square", np.square, lambda g, input: g * conj(2 * input), integers="same",
                node="PowBackward0", places="", inplace=False)


@op(inplace=_square.leaf, out=True)
def square(input: Tensor) -> Tensor:
    """Every element times itself."""
    return _square(cast(input, int64) if input._dtype.kind == BOOL else input)



def _sgn(a: Array) -> Array:
    if a.dtype.kind != "c":
        return _sign(a)
    size = np.abs(a)
    return np.where(size == 0, 0, a / np.where(size == 0, 1, size)).astype(a.dtype)


def _abs_grad(g: Any, input: Any) -> Any:
    return g * input.sgn()


@leaf({"input": _abs_grad}, name="abs")
def _abs(input: Array) -> Array:
    return np.absolute(input)


@op(inplace=_abs, out=True, aliases="absolute")
def abs(input: Tensor) -> Tensor:
    """Absolute value; of complex numbers the modulus."""
    if input._dtype.kind == BOOL:
        raise not_implemented_for("abs_cpu", input._dtype)
    return _abs(input)


def _sgn_grad(g: Any, input: Any, out: Any) -> Any:
    if not input.is_complex():
        return _flat_grad(g)
    size = input.abs()
    inner = (g * conj(out)).imag / size
    return (out * inner * 1j).masked_fill(size == 0, 0)


def _sign(a: Array) -> Array:
    if a.dtype.kind == "b":
        return a.copy()
    return np.sign(a) if a.dtype.kind != "f" else np.nan_to_num(np.sign(a))


sign = unary("sign", _sign, _flat_grad, kinds="float", integers="same", bools="same")
sgn = unary("sgn", _sgn, _sgn_grad, integers="same", bools="same")
floor = unary("floor", np.floor, _flat_grad, kinds="float", integers="same", bools="error")
ceil = unary("ceil", np.ceil, _flat_grad, kinds="float", integers="same", bools="error")
trunc = unary("trunc", np.trunc, _flat_grad, kinds="float", integers="same", bools="error",
              aliases="fix")
frac = unary("frac", lambda a: a - np.trunc(a), lambda g: g, kinds="float", integers="error")
deg2rad = unary("deg2rad", lambda a: a * (math.pi / 180), lambda g: g * (math.pi / 180),
                kinds="float")
rad2deg = unary("rad2deg", lambda a: a * (180 / math.pi), lambda g: g * (180 / math.pi),
                kinds="float")


@leaf({"input": _flat_grad}, name="round", shape=lambda a, _: (a.shape, a.dtype))
def _round(input: Array, decimals: int) -> Array:
    if decimals == 0:
        return np.rint(input)
    scale = 10.0 ** builtins.abs(decimals)
    if decimals > 0:
        return np.rint(input * scale) / scale
    return np.rint(input / scale) * scale





@op("torch Tensor special", inplace=True, out=True)
def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """Rounds to `decimals` places, halves to even."""
    if input._dtype.kind < FLOAT:
        if input._dtype.kind == BOOL or decimals:
            raise not_implemented_for("round", input._dtype)
        return input.clone()
    if input._dtype.kind == COMPLEX:
        raise not_implemented_for("round", input._dtype)
    return _round(input, decimals)


@op(inplace=True, out=True)
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """`log(p / (1 - p))`, with p first clamped to [eps, 1 - eps]."""
    x = cast(input, float_dtype(input._dtype))
    if eps is not None:
        x = x.clamp(eps, 1 - eps)
    return log(x / (1 - x))


op("special", out=True)(logit)


def _sinc(a: Array) -> Array:
    x = math.pi * a
    return np.where(a == 0, 1, np.sin(x) / np.where(a == 0, 1, x)).astype(a.dtype)


sinc = unary("sinc", _sinc, lambda g, input, out: g * (
    ((math.pi * input).cos() - out) / input).masked_fill(input == 0, 0),
    places="torch Tensor special")

# --- predicates -----------------------------------------------------------------------------------

_NO_GRAD = not_differentiable("the result is bool")
isnan = unary("isnan", np.isnan, _NO_GRAD, integers="same", predicate=True)
isinf = unary("isinf", np.isinf, _NO_GRAD, integers="same", predicate=True)
isfinite = unary("isfinite", np.isfinite, _NO_GRAD, integers="same", predicate=True)
signbit = unary("signbit", lambda a: np.signbit(a) if a.dtype.kind == "f" else a < 0, _NO_GRAD,
                kinds="float", integers="same", predicate=True)
isposinf = unary("isposinf", lambda a: a == math.inf, _NO_GRAD, kinds="float", integers="same",
                 predicate=True)
isneginf = unary("isneginf", lambda a: a == -math.inf, _NO_GRAD, kinds="float", integers="same",
                 predicate=True)


@op()
def isreal(input: Tensor) -> Tensor:
    """Whether the imaginary part is zero."""
    from .creation import ones_like

    if input._dtype.kind != COMPLEX:
        return ones_like(input, dtype=bool_)
    return input.imag == 0


# --- three operands -------------------------------------------------------------------------------


def _inside(input: Any, min: Any, max: Any) -> Any:
    """Where clamp lets the gradient through."""
    keep = None
    if min is not None:
        keep = input >= min
    if max is not None:
        below = input <= max
        keep = below if keep is None else keep & below
    return keep


def _clamp_shape(a: Any, lo: Any, hi: Any) -> Any:
    shapes = [x.shape for x in (a, lo, hi) if hasattr(x, "shape")]
    return np.broadcast_shapes(*shapes), a.dtype


@leaf({"input": lambda g, input, min, max: g * _inside(input, min, max),
       "min": lambda g, input, min, max: g * ((input < min) if max is None else (
           (min < max) & (input < min))),
       "max": lambda g, input, min, max: g * ((input > max) if min is None else (
           (input > max) | (max < min)))},
      name="clamp", shape=_clamp_shape, broadcasts=True, node=lambda t, _: (
          f"ClampBackward{int(not any(isinstance(x, Tensor) for x in t[1:]))}"))
def _clamp(input: Array, min: OptArray, max: OptArray) -> Array:
    if min is not None:
        input = np.maximum(input, min)
    return input if max is None else np.minimum(input, max)


@op(inplace=_clamp, out=True, aliases="clip")
def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Elements limited to [min, max]; either bound may be a tensor or missing.

    >>> import lampion as torch
    >>> torch.tensor([-2., 0.5, 3.]).clamp(0, 1)
    tensor([0.0000, 0.5000, 1.0000])
    """
    if not isinstance(input, Tensor):
        raise argument_type("clamp", "input", "Tensor", input)
    if min is None and max is None:
        raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
    if input._dtype.kind == COMPLEX:
        raise not_implemented_for("clamp", input._dtype)
    given = [x for x in (input, min, max) if x is not None]
    d = result_dtype(*given)
    broadcast_shape("clamp", *(x._a.shape for x in given if isinstance(x, Tensor)))
    low, high = (x if x is None else cast(x, d) if isinstance(x, Tensor)
                 else as_scalar(x, d, "clamp") for x in (min, max))
    return _clamp(cast(input, d), low, high)


@op(inplace=_clamp, out=True)
def clamp_min(input: Tensor, min: Any) -> Tensor:
    """Elements raised to at least `min`."""
    return clamp(input, min=min)


@op(inplace=_clamp, out=True)
def clamp_max(input: Tensor, max: Any) -> Tensor:
    """Elements lowered to at most `max`."""
    return clamp(input, max=max)


@leaf({"input": lambda g, condition: g.masked_fill(~condition, 0),
       "other": lambda g, condition: g.masked_fill(condition, 0)},
      name="where", broadcasts=True, exact=True,
      shape=lambda c, a, b: (np.broadcast_shapes(*(x.shape for x in (c, a, b)
                                                   if hasattr(x, "shape"))),
                             next(x.dtype for x in (a, b) if hasattr(x, "dtype"))))
def _where(condition: Array, input: Array, other: Array) -> Array:
    if not hasattr(input, "dtype"):
        input = np.asarray(input, other.dtype)
    elif not hasattr(other, "dtype"):
        other = np.asarray(other, input.dtype)
    return np.where(condition, input, other)


@op("torch", out=True)
def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """`input` where `condition` holds, else `other`; with the condition alone, its nonzero places.

    >>> import lampion as torch
    >>> torch.where(torch.tensor([True, False]), 1.0, 0.0)
    tensor([1., 0.])
    """
    if input is None and other is None:
        return condition.nonzero(as_tuple=True)
    if not isinstance(condition, Tensor) or condition._dtype not in (bool_, uint8):
        kind = condition._dtype if isinstance(condition, Tensor) else type(condition).__name__
        raise RuntimeError("where expected condition to be a boolean tensor, but got a tensor "
                           f"with dtype {kind}; compare first, for example condition != 0")
    d = result_dtype(input, other)
    pair = [cast(x, d) if isinstance(x, Tensor) else Tensor._scalar(x, d) for x in (input, other)]
    broadcast_shape("where", condition._a.shape, *(x._a.shape for x in pair))
    return _where(cast(condition, bool_), *pair)


def _where_method(self: Tensor, condition: Tensor, other: Any) -> Tensor:
    """The tensor where `condition` holds, else `other`."""
    return where(condition, self, other)


op("Tensor", name="where")(_where_method)


@leaf({"input": lambda g, weight: g * (1 - conj(weight)),
       "end": lambda g, weight: g * conj(weight),
       "weight": lambda g, input, end: g * conj(end - input)},
      name="lerp", broadcasts=True, node=lambda t, _: (
          f"LerpBackward{int(isinstance(t[2], Tensor))}"))
def _lerp(input: Array, end: Array, weight: Array) -> Array:
    weight = (weight.astype(end.dtype, copy=False) if hasattr(weight, "astype")
              else end.dtype.type(weight))  # a number too is rounded before it is taken from 1
    near = np.abs(weight) < 0.5
    step = end - input
    return np.where(near, input + step * weight, end - step * (1 - weight)).astype(
        np.result_type(input, end))


@op(inplace=_lerp, out=True)
def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """`input + weight * (end - input)`."""
    for argument, x in (("end", end), ("weight", weight)):
        if isinstance(x, Tensor) and x._dtype is not input._dtype:
            raise RuntimeError(f"expected dtype {input._dtype.name} for `{argument}` but got dtype "
                               f"{x._dtype.name}")
    if input._dtype.kind < FLOAT:
        raise not_implemented_for("lerp", input._dtype)
    broadcast_shape("lerp", *(x._a.shape for x in (input, end, weight) if isinstance(x, Tensor)))
    return _lerp(input, end, weight)


def _fused_shape(a: Any, b: Any, c: Any, *_: Any) -> Any:
    return np.broadcast_shapes(a.shape, b.shape, c.shape), a.dtype


@leaf({"input": lambda g: g,
       "tensor1": lambda g, tensor2, value: g * conj(tensor2 * value),
       "tensor2": lambda g, tensor1, value: g * conj(tensor1 * value)},
      name="addcmul", broadcasts=True, shape=_fused_shape)
def _addcmul(input: Array, tensor1: Array, tensor2: Array, value: Array) -> Array:
    return input + value * tensor1 * tensor2


@leaf({"input": lambda g: g,
       "tensor1": lambda g, tensor2, value: g * conj(value / tensor2),
       "tensor2": lambda g, tensor1, tensor2, value: -g * conj(
           (value * tensor1) / (tensor2 * tensor2))},
      name="addcdiv", broadcasts=True, shape=_fused_shape)
def _addcdiv(input: Array, tensor1: Array, tensor2: Array, value: Array) -> Array:
    return input + value * (tensor1 / tensor2)


def _three(name: str, input: Tensor, tensor1: Tensor, tensor2: Tensor, value: Any) -> Any:
    d = result_dtype(input, tensor1, tensor2)
    broadcast_shape(name, input._a.shape, tensor1._a.shape, tensor2._a.shape)
    return cast(input, d), cast(tensor1, d), cast(tensor2, d), as_scalar(value, d, name)


@op(inplace=_addcmul, out=True)
def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """`input + value * tensor1 * tensor2`."""
    return _addcmul(*_three("addcmul", input, tensor1, tensor2, value))


@op(inplace=_addcdiv, out=True)
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """`input + value * tensor1 / tensor2`."""
    if tensor1._dtype.kind < FLOAT and tensor2._dtype.kind < FLOAT:
        raise RuntimeError("Integer division with addcdiv is no longer supported: convert the "
                           "operands with .float() first")
    return _addcdiv(*_three("addcdiv", input, tensor1, tensor2, value))


@leaf({"input": lambda g, input: g * input.isfinite()}, name="nan_to_num", shape=same_shape)
def _nan_to_num(input: Array, nan: float, high: float, low: float) -> Any:
    of = input.dtype.type
    finite = np.where(input == np.inf, of(high), np.where(input == -np.inf, of(low), input))
    return np.where(np.isnan(input), of(nan), finite)


@op(inplace=_nan_to_num, out=True)
def nan_to_num(input: Tensor, nan: float = 0.0, posinf: float | None = None,
               neginf: float | None = None) -> Tensor:
    """NaN and infinities replaced (by default: 0, the largest and the lowest finite number)."""
    if input._dtype.kind < FLOAT:
        return input.clone()
    if input._dtype.kind == COMPLEX:
        from .complex_numbers import complex as make_complex

        parts = [nan_to_num(p, nan, posinf, neginf) for p in (input.real, input.imag)]
        return make_complex(*parts)
    info = finfo(input._dtype)
    high = info.max if posinf is None else posinf
    low = info.min if neginf is None else neginf
    return _nan_to_num(input, 0.0 if nan is None else float(nan), float(high), float(low))


@op(inplace=True, out=True)
def xlogy(input: Any, other: Any) -> Tensor:
    """`input * log(other)`, 0 where input is 0 (and other is not NaN)."""
    a, b = operands("xlogy", input, other, "float")
    product = a * (b.log() if isinstance(b, Tensor) else math.log(b) if b > 0 else -math.inf)
    zero = (a == 0) & ~b.isnan() if isinstance(b, Tensor) else (a == 0)
    if not isinstance(zero, Tensor):
        return where(~b.isnan(), 0.0, product) if zero else product
    return product.masked_fill(zero, 0)


op("special", out=True)(xlogy)
