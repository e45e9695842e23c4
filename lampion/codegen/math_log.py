"""Logarithms and what is made of them: inverse hyperbolic functions, powers, softplus.

log: x = 2**e * m with sqrt(1/2) <= m < sqrt(2), taken from the bits; log(m) of f = m - 1 by
f - f**2 / 2 + f**3 p(f) (f32), or by s = f / (2 + f), log(m) = 2 atanh(s) (f64).
"""

from __future__ import annotations

import math

from .ir import Value
from .math_base import clamp, layout, nearest, polynomial, sign_of, with_sign
from .math_exp import exp2_of_sum, exp_of_negative
from .types import F32, F64

__all__ = ["acosh", "asinh", "atanh", "log", "log10", "log1p", "log2", "pow", "softplus"]

# (log(1 + f) - f + f**2 / 2) / f**3; log within 5.9e-9.
_LOG32 = (0.3333333, -0.25000823, 0.2000126, -0.16623345, 0.14201072, -0.13159545, 0.1276569,
          -0.076411195)
# (2 atanh(s) - 2 s) / s**3 by s**2; log within 2.6e-18.
_LOG64 = (0.6666666666666734, 0.39999999999416636, 0.28571428742154487, 0.22222198577387153,
          0.18183565029489018, 0.15314011432301738, 0.14796531929517276)
_ROOT_HALF = {32: 0x3F3504F3, 64: 0x3FE6A09E667F3BCD}  # the bits of sqrt(1/2)


def _split(x: Value) -> tuple[Value, Value]:
    """(e, m) of a normal positive x = 2**e * m; e is a float."""
    f, root = layout(x), _ROOT_HALF[x.type.bits]
    raw = x.bits(f.integer) + (f.one - root)
    shifted = 2.0**f.fraction  # its low bits are units
    e = ((raw >> f.fraction) | ((f.bias + f.fraction) << f.fraction)).bits(x.type.scalar)
    m = ((raw & ((1 << f.fraction) - 1)) + root).bits(x.type.scalar)
    return e - (shifted + f.bias), m


def _split_any(x: Value) -> tuple[Value, Value]:
    """`_split` of any positive finite x, denormals too."""
    k, f = x.kernel, layout(x)
    small = x < f.smallest
    e, m = _split(k.select(small, x * 2.0**f.fraction, x))
    return e - k.select(small, k.const(f.fraction, x.type), 0.0), m


def _near_one(f: Value) -> Value:
    """log(1 + f) - f, for sqrt(1/2) <= 1 + f < sqrt(2)."""
    k, square = f.kernel, f * f
    if f.type.bits == 32:
        return k.fma(square, -0.5, f * square * polynomial(f, _LOG32))
    s = f / (f + 2.0)
    z = s * s
    half = square * 0.5
    return s * k.fma(z, polynomial(z, _LOG64), half) - half


def _edges(x: Value, y: Value) -> Value:
    """log's values outside (0, inf): NaN below 0, -inf at 0, x itself at inf and NaN."""
    k = x.kernel
    below = k.select(x.eq(0.0), k.const(-math.inf, x.type), math.nan)
    return k.select(x > 0.0, k.select(x < math.inf, y, x), below)


def log(x: Value) -> Value:
    """The natural logarithm."""
    e, m = _split_any(x)
    f = m - 1.0
    return _edges(x, _joined(e, f, _near_one(f)))


def _joined(e: Value, f: Value, y: Value) -> Value:
    """e ln 2 + (f + y)."""
    k, (high, low) = e.kernel, layout(e).ln2
    return k.fma(e, high, f + k.fma(e, low, y))


def log2(x: Value) -> Value:
    """The logarithm to base 2."""
    return _log_to_base(x, (1.0, 0.0), 1.4426950408889634, {32: 1.925963033500011e-08,
                                                         64: 2.0355273740931033e-17})


def log10(x: Value) -> Value:
    """The logarithm to base 10."""
    parts = {32: (0.301025390625, 4.605038981195214e-06),
             64: (0.30102999560767785, 5.630334806675098e-11)}[x.type.bits]
    return _log_to_base(x, parts, 0.4342944819032518, {32: -1.0103049952192578e-08,
                                                       64: 1.098319650216765e-17})


def _log_to_base(x: Value, turn: tuple[float, float], factor: float,
                 rest: dict[int, float]) -> Value:
    """e * turn + log(m) * (factor + rest), both products in two parts."""
    k = x.kernel
    e, m = _split_any(x)
    f = m - 1.0
    y = _near_one(f)
    high = f + y
    low = (f - high) + y
    small = k.fma(high, rest[x.type.bits], low * factor)
    if turn[1]:
        small = k.fma(e, turn[1], small)
    return _edges(x, k.fma(e, turn[0], k.fma(high, factor, small)))


def log1p(x: Value) -> Value:
    """log(1 + x), accurate near 0.

    1 + x = 2**e * m where m - 1 = x / 2**e + (1 / 2**e - 1): nothing of x is lost in the sum.
    """
    k, f = x.kernel, layout(x)
    u = x + 1.0
    e, _ = _split(u)
    root = _ROOT_HALF[x.type.bits]
    raw = (u.bits(f.integer) + (f.one - root)) >> f.fraction
    # Four times 2**-e: a normal number for every e.
    scale = (((2 * f.bias + 2) << f.fraction) - (raw << f.fraction)).bits(x.type.scalar)
    rest = k.fma(x, scale, scale - 4.0) * 0.25
    y = _edges(u, _joined(e, rest, _near_one(rest)))
    return k.select(k.abs(x) < f.tiny * f.tiny, x, y)


def softplus(x: Value) -> Value:
    """log(1 + e**x)."""
    k = x.kernel
    return log1p(exp_of_negative(k.abs(x))) + k.max(k.const(0.0, x.type), x)


# --- inverse hyperbolic functions ---------------------------------------------------------------

_LN2 = math.log(2)
_LARGE = 2.0**60  # 1 + x == x, and x**2 is far from overflow


def asinh(x: Value) -> Value:
    """The inverse hyperbolic sine."""
    k, a = x.kernel, x.kernel.abs(x)
    square = a * a
    y = a + square / (k.sqrt(square + 1.0) + 1.0)
    large = a > _LARGE
    total = log1p(k.select(large, a, y)) + k.select(large, k.const(_LN2, x.type), 0.0)
    return with_sign(x, total)


def acosh(x: Value) -> Value:
    """The inverse hyperbolic cosine; NaN below 1."""
    k, t = x.kernel, x - 1.0
    large = x > _LARGE
    y = t + k.sqrt(k.fma(t, t, t + t))
    y = log1p(k.select(large, x, y)) + k.select(large, k.const(_LN2, x.type), 0.0)
    return k.select(x < 1.0, math.nan, y)


def atanh(x: Value) -> Value:
    """The inverse hyperbolic tangent; NaN outside [-1, 1]."""
    a = x.kernel.abs(x)
    return with_sign(x, log1p((a + a) / (1.0 - a)) * 0.5)


# --- powers -----------------------------------------------------------------------------------

# log2(m) / s by s**2 and (2**r - 1) / r, in f64 for f32 powers; within 4.3e-12 and 1.9e-9.
_LOG2_WIDE = (2.88539008179008, 0.96179667334994, 0.5770835833062368, 0.41167282415801165,
              0.3407280657698646)
_EXP2_WIDE = (0.693147206249437, 0.24022651345914217, 0.055503277898162846, 0.009618003884852431,
              0.0013400270058265956, 0.00015476302287787723)


def pow(x: Value, y: Value) -> Value:
    """x**y, with C's values at the edges: pow(x, 0) == pow(1, y) == 1, also for NaN."""
    k, a = x.kernel, x.kernel.abs(x)
    y = k.like(x, y)
    size = _pow32(a, y) if x.type.bits == 32 else _pow64(a, y)
    whole = k.emit("rint", (y,)).eq(y)
    odd = whole & k.emit("rint", (y * 0.5,)).ne(y * 0.5)
    f = layout(x)
    flip = k.select(odd, sign_of(x), 0)
    signed = (size.bits(f.integer) ^ flip).bits(x.type.scalar)
    defined = (x >= 0.0) | whole | x.eq(-math.inf) | x.ne(x)
    always_one = y.eq(0.0) | x.eq(1.0)
    return k.select(always_one, 1.0, k.select(defined, signed, math.nan))


def _pow32(a: Value, y: Value) -> Value:
    """a**y for a >= 0, in f64: 2**(y log2 a)."""
    k, wide = a.kernel, a.cast(F64)
    e, m = _split(wide)
    s = (m - 1.0) / (m + 1.0)
    log = _edges(wide, k.fma(s, polynomial(s * s, _LOG2_WIDE), e))
    product = k.select(a.eq(1.0), 0.0, log * y.cast(F64))
    product = clamp(product, -160.0, 140.0)
    n, _ = nearest(product, 1.0)
    r = product - n
    return k.scale(k.fma(r, polynomial(r, _EXP2_WIDE), 1.0), n, normal=True).cast(F32)


# (atanh(s) / s - 1 - s**2 / 3) / s**4 by s**2; log2 within 2**-66.
_ATANH = (0.20000000000001128, 0.14285714285049825, 0.11111111259951233, 0.09090892184727536,
          0.07693378600638522, 0.06628410627169098, 0.06598145977582832)
_THIRD = (0.3333333333333333, 1.850371707708594e-17)
_TWO_LOG2E = (2.8853900817779268, 4.0710547481862066e-17)
_EXPONENT_LIMIT = 1100.0


def _pow64(a: Value, y: Value) -> Value:
    """a**y for a >= 0: log2 in two parts, about 2**-65 of it left out."""
    k = a.kernel
    high, low = _log2_in_parts(a)
    high = _edges(a, high)
    product = k.select(a.eq(1.0), 0.0, high * y)
    rest = k.fma(high, y, -product) + low * y
    size = k.abs(product)
    rest = k.select((size > 0.0) & (size < _EXPONENT_LIMIT), rest, 0.0)
    return exp2_of_sum(clamp(product, -_EXPONENT_LIMIT, _EXPONENT_LIMIT), rest)


def _log2_in_parts(a: Value) -> tuple[Value, Value]:
    """log2 of a positive finite f64 as a sum of two; by atanh(s), s = f / (2 + f)."""
    k = a.kernel
    e, m = _split_any(a)
    f, g = m - 1.0, m + 1.0
    inverse = 1.0 / g
    s = f * inverse
    s_low = (k.fma(-s, g, f) - s * (m - (g - 1.0))) * inverse
    t, t_low = _atanh_factor(s, s_low)
    turned = s * t
    half = s + turned
    half_low = (s - half) + turned + (k.fma(s, t, -turned) + (s_low + k.fma(s, t_low, s_low * t)))
    high = half * _TWO_LOG2E[0]
    low = k.fma(half, _TWO_LOG2E[0], -high) + k.fma(half, _TWO_LOG2E[1],
                                                    half_low * _TWO_LOG2E[0])
    total = e + high
    return total, (e - total) + high + low


def _atanh_factor(s: Value, s_low: Value) -> tuple[Value, Value]:
    """atanh(s) / s - 1 in two parts: s**2 / 3 and the rest."""
    k = s.kernel
    z = s * s
    z_low = k.fma(s, s, -z) + (s + s) * s_low
    third = z * _THIRD[0]
    third_low = k.fma(z, _THIRD[0], -third) + k.fma(z, _THIRD[1], z_low * _THIRD[0])
    rest = z * z * polynomial(z, _ATANH)
    total = third + rest
    return total, (third - total) + rest + third_low
