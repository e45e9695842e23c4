"""What one element of a pointwise operation is, at the loop level: NumPy's functions, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import math, math_remainder
from .ir import Kernel, Value
from .types import I1, Type

__all__ = ["BODIES", "COMBINE", "COST", "DIRECT", "OWN", "identity"]

Body = Callable[..., Value]


def _maximum(k: Kernel, kind: Type, a: Value, b: Value) -> Value:
    """The larger; NaN if either is."""
    if not kind.is_float:
        return _whole(k, kind, a, b, k.max)
    if a.op == "const":
        a, b = b, a
    if b.op == "const" and b.attr[0] == b.attr[0]:  # no NaN
        return k.max(k.like(a, b), a)
    a, b = k.like(b, a), k.like(a, b)
    return k.select((a < b) | b.ne(b), b, a)


def _minimum(k: Kernel, kind: Type, a: Value, b: Value) -> Value:
    """The smaller; NaN if either is."""
    if not kind.is_float:
        return _whole(k, kind, a, b, k.min)
    if a.op == "const":
        a, b = b, a
    if b.op == "const" and b.attr[0] == b.attr[0]:  # no NaN
        return k.min(k.like(a, b), a)
    a, b = k.like(b, a), k.like(a, b)
    return k.select((b < a) | b.ne(b), b, a)


def _whole(k: Kernel, kind: Type, a: Value, b: Value, pick: Any) -> Value:
    if not kind.is_bool:
        return pick(a, b)  # type: ignore[no-any-return]
    return a | b if pick == k.max else a & b


def _fmax(k: Kernel, kind: Type, a: Value, b: Value) -> Value:
    """The larger; a NaN loses."""
    b = k.like(a, b)
    return k.select(b.ne(b), a, k.max(a, b)) if kind.is_float else _maximum(k, kind, a, b)


def _fmin(k: Kernel, kind: Type, a: Value, b: Value) -> Value:
    """The smaller; a NaN loses."""
    b = k.like(a, b)
    return k.select(b.ne(b), a, k.min(a, b)) if kind.is_float else _minimum(k, kind, a, b)


def _negative(k: Kernel, kind: Type, a: Value) -> Value:
    """Unsigned numbers wrap around."""
    return k.like(a, 0) - a if kind.kind == "u" else -a


def _power(k: Kernel, kind: Type, a: Value, b: Value) -> Value:
    simple = _POWERS.get(b.attr[0]) if b.op == "const" else None
    if simple is not None:
        return simple(k, a)
    b = k.like(a, b)
    return math.pow(k.like(b, a), b)


_POWERS: dict[float, Callable[[Kernel, Value], Value]] = {
    2: lambda k, a: a * a, 3: lambda k, a: a * a * a, 1: lambda k, a: a,
    0.5: lambda k, a: k.sqrt(a), -1: lambda k, a: 1.0 / a,
}


def _logaddexp(k: Kernel, kind: Type, a: Value, b: Value) -> Value:
    """log(exp(a) + exp(b)), without overflow."""
    a, b = k.like(b, a), k.like(a, b)
    top = _maximum(k, kind, a, b)
    rest = math.FUNCTIONS["log1p"](math.FUNCTIONS["exp"](-k.abs(a - b)))
    return k.select(a.eq(b), top + 0.6931471805599453, top + rest)


def _hypot(k: Kernel, kind: Type, a: Value, b: Value) -> Value:
    """sqrt(a*a + b*b), scaled by the larger so that squares do not overflow."""
    x, y = k.abs(k.like(b, a)), k.abs(k.like(a, b))
    top, low = k.max(x, y), k.min(x, y)
    ratio = k.select(top.eq(0.0), k.const(0.0, top.type), low / top)
    size = top * k.sqrt(k.fma(ratio, ratio, 1.0))
    infinite = x.eq(float("inf")) | y.eq(float("inf"))
    missing = x.ne(x) | y.ne(y)
    size = k.select(missing, x + y, size)
    return k.select(infinite, k.const(float("inf"), top.type), size)


def _sign(k: Kernel, kind: Type, a: Value) -> Value:
    one = k.const(1, kind.vector(a.type.lanes))
    zero = k.const(0, one.type)
    signed = k.select(a > 0, one, k.select(a < 0, k.const(-1, one.type), zero))
    return k.select(a.ne(a), a, signed) if kind.is_float else signed


def _add(k: Kernel, kind: Type, a: Value, b: Value) -> Value:
    return a | b if kind.is_bool else a + b


def _multiply(k: Kernel, kind: Type, a: Value, b: Value) -> Value:
    return a & b if kind.is_bool else a * b


def _copysign(k: Kernel, kind: Type, a: Value, b: Value) -> Value:
    from .types import I32, I64

    word = I64 if kind.bits == 64 else I32
    top = -(1 << (kind.bits - 1))
    a, b = k.like(b, a), k.like(a, b)
    return ((a.bits(word) & ~top) | (b.bits(word) & top)).bits(kind)


def _isinf(k: Kernel, kind: Type, a: Value) -> Value:
    return k.abs(a).eq(float("inf")) if a.type.is_float else k.const(False, I1)


def _isfinite(k: Kernel, kind: Type, a: Value) -> Value:
    return k.abs(a) < float("inf") if a.type.is_float else k.const(True, I1)


def _isnan(k: Kernel, kind: Type, a: Value) -> Value:
    return a.ne(a) if a.type.is_float else k.const(False, I1)


def _nonzero(k: Kernel, kind: Type, a: Value) -> Value:
    return a.cast(I1)


def _math(name: str) -> Body:
    return lambda k, kind, a: math.FUNCTIONS[name](a)


def _atan2(k: Kernel, kind: Type, a: Value, b: Value) -> Value:
    a, b = k.like(b, a), k.like(a, b)
    return math.atan2(a, b)


def _binary(function: Callable[[Value, Value], Value]) -> Body:
    return lambda k, kind, a, b: function(k.like(b, a), k.like(a, b))


def _compare(op: str, swap: bool = False) -> Body:
    def body(k: Kernel, kind: Type, a: Value, b: Value) -> Value:
        return k.binary(op, b, a) if swap else k.binary(op, a, b)
    return body


def _bool_pair(op: str) -> Body:
    return lambda k, kind, a, b: k.binary(op, a, b)


# Functions that NumPy lacks.
OWN = ("sigmoid", "erf", "erfc", "gelu", "gelu_slope", "gelu_tanh", "silu", "softplus",
        "mish")

# Operators that are one such function, by name and attributes: better than what their references
# are made of.
DIRECT: dict[str, dict[tuple[Any, ...], str]] = {
    "gelu": {(False,): "gelu", (True,): "gelu_tanh"}, "gelu_slope": {(): "gelu_slope"},
    "silu": {(): "silu"}, "sigmoid": {(): "sigmoid"}, "softplus": {(1.0, 20.0): "softplus"},
    "mish": {(): "mish"},
}

# By NumPy's names; operands have the types that NumPy's loop has.
BODIES: dict[str, Body] = {
    "add": _add, "multiply": _multiply,
    "subtract": lambda k, kind, a, b: a - b,
    "true_divide": lambda k, kind, a, b: a / b,
    "negative": _negative,
    "absolute": lambda k, kind, a: a if kind.kind in "ub" else k.abs(a),
    "fabs": lambda k, kind, a: k.abs(a),
    "square": lambda k, kind, a: a * a,
    "reciprocal": lambda k, kind, a: 1.0 / a,
    "sqrt": lambda k, kind, a: k.sqrt(a),
    "rsqrt": lambda k, kind, a: 1.0 / k.sqrt(a),
    **{n: (lambda name: lambda k, kind, a: k.unary(name, a))(n)
       for n in ("floor", "ceil", "trunc", "rint")},
    **{n: _math(m) for n, m in (
        ("exp", "exp"), ("exp2", "exp2"), ("expm1", "expm1"), ("log", "log"), ("log2", "log2"),
        ("log10", "log10"), ("log1p", "log1p"), ("sin", "sin"), ("cos", "cos"), ("tan", "tan"),
        ("arcsin", "asin"), ("arccos", "acos"), ("arctan", "atan"), ("sinh", "sinh"),
        ("cosh", "cosh"), ("tanh", "tanh"), ("arcsinh", "asinh"), ("arccosh", "acosh"),
        ("arctanh", "atanh"), *((n, n) for n in OWN))},
    "logaddexp": _logaddexp, "hypot": _hypot, "arctan2": _atan2, "power": _power,
    "fmod": _binary(math_remainder.fmod), "floor_divide": _binary(math_remainder.floor_divide),
    "copysign": _copysign, "sign": _sign,
    "maximum": _maximum, "minimum": _minimum, "fmax": _fmax, "fmin": _fmin,
    "less": _compare("lt"), "less_equal": _compare("le"), "greater": _compare("lt", True),
    "greater_equal": _compare("le", True), "equal": _compare("eq"), "not_equal": _compare("ne"),
    "isnan": _isnan, "isinf": _isinf, "isfinite": _isfinite, "nonzero": _nonzero,
    "logical_and": _bool_pair("and"), "logical_or": _bool_pair("or"),
    "logical_xor": _bool_pair("xor"), "logical_not": lambda k, kind, a: ~a,
    "bitwise_and": _bool_pair("and"), "bitwise_or": _bool_pair("or"),
    "bitwise_xor": _bool_pair("xor"), "invert": lambda k, kind, a: ~a,
    "where": lambda k, kind, c, a, b: k.select(c, a, b),
    "cast": lambda k, kind, a: a.cast(kind),
}

# Instructions of a body, roughly, where they are many; 1 for the others.
_MATHS = ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tanh", "sigmoid",
          "silu")
_LONGER = ("tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "arcsinh", "arccosh", "arctanh",
           "erf", "erfc", "gelu", "gelu_slope", "gelu_tanh", "softplus", "mish", "arctan2", "power",
           "logaddexp", "fmod", "floor_divide")
COST = {**dict.fromkeys(_MATHS, 18), **dict.fromkeys(_LONGER, 40), "true_divide": 4, "sqrt": 4,
        "reciprocal": 4}

# One step of a reduction; the largest and smallest number, where a NaN loses.
COMBINE: dict[str, Body] = {
    "add": _add, "mul": _multiply,
    "max": lambda k, kind, a, b: _whole(k, kind, b, a, k.max),
    "min": lambda k, kind, a, b: _whole(k, kind, b, a, k.min),
    "or": _bool_pair("or"), "and": _bool_pair("and"),
}


def identity(op: str, kind: Type) -> Any:
    """What a reduction starts from."""
    if op in ("add", "or"):
        return 0
    if op in ("mul", "and"):
        return 1
    if kind.is_float:
        return float("-inf") if op == "max" else float("inf")
    low = -(1 << (kind.bits - 1)) if kind.kind == "i" else 0
    high = (1 << (kind.bits - (kind.kind == "i"))) - 1
    return low if op == "max" else high
