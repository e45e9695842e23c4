"""Vector mathematics: functions of loop-level values, f32 and f64, any number of lanes.

`FUNCTIONS` names the functions of one argument; `pow` and `atan2` take two. `MAX_ULP` states the
largest error of each in units in the last place, for float32 and float64, over the whole range,
and the tests hold the functions to it. NaN, infinities, signed zeros and denormals are right in
arguments and results.

The bounds hold with fused multiply-add. Where the target has none (sse), reductions are exact all
the same, and errors stay within the bounds plus half a unit; the exception is `pow` of f64, which
then has a relative error of up to 4e-13.
"""

from __future__ import annotations

from collections.abc import Callable

from .ir import Value
from .math_exp import (
    cosh,
    erf,
    erfc,
    exp,
    exp2,
    exp2_flushed,
    exp_in_range,
    expm1,
    gelu,
    gelu_slope,
    gelu_tanh,
    sigmoid,
    silu,
    sinh,
    tanh,
)
from .math_log import acosh, asinh, atanh, log, log1p, log2, log10, pow, softplus
from .math_trig import acos, asin, atan, atan2, cos, sin, tan

__all__ = ["FUNCTIONS", "MAX_ULP", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh",
           "cos", "cosh", "erf", "erfc", "exp", "exp2", "exp2_flushed", "exp_in_range", "expm1",
           "gelu", "gelu_slope", "gelu_tanh", "log", "log10", "log1p", "log2", "mish", "pow",
           "rsqrt", "sigmoid", "silu", "sin", "sinh", "softplus", "tan", "tanh"]


def rsqrt(x: Value) -> Value:
    """1 / sqrt(x)."""
    return x.kernel.const(1.0, x.type) / x.kernel.sqrt(x)


def mish(x: Value) -> Value:
    """x * tanh(softplus(x)): with e = e**x, x * (e*e + 2 e) / (e*e + 2 e + 2)."""
    k = x.kernel
    e = exp(k.min(k.const(20.0, x.type), x))  # from 20 on the quotient is 1
    t = e * (e + 2.0)
    return x * (t / (t + 2.0))


FUNCTIONS: dict[str, Callable[[Value], Value]] = {
    f.__name__: f
    for f in (exp, exp2, expm1, log, log2, log10, log1p, sin, cos, tan, asin, acos, atan, sinh,
              cosh, tanh, asinh, acosh, atanh, sigmoid, softplus, erf, erfc, rsqrt, silu, gelu,
              gelu_slope, gelu_tanh, mish)
}

MAX_ULP: dict[str, tuple[float, float]] = {
    "exp": (1.5, 1.5), "exp2": (1.0, 1.0), "expm1": (2.0, 2.0), "log": (1.0, 1.0),
    "log2": (1.0, 1.0), "log10": (1.0, 1.0), "log1p": (1.5, 1.5), "tanh": (1.5, 1.5),
    "sinh": (2.0, 2.0), "cosh": (2.0, 2.0), "asinh": (2.0, 2.0), "acosh": (2.5, 2.5),
    "atanh": (2.5, 2.0), "sigmoid": (2.5, 2.5), "softplus": (2.0, 2.0), "erf": (1.5, 1.5),
    "erfc": (1.5, 4.0), "rsqrt": (1.5, 1.5), "pow": (1.0, 1.5), "sin": (2.0, 2.5),
    "cos": (2.0, 2.5), "tan": (1.0, 4.0), "asin": (1.0, 2.5), "acos": (1.0, 1.5),
    "atan": (2.0, 2.0), "atan2": (2.0, 2.0),
}
