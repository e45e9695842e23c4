"""Trigonometric functions and their inverses.

Arguments are reduced to x = n pi/2 + r, |r| <= pi/4. Up to `_NEAR` pi/2 is subtracted in parts of
33 bits, whose multiples are exact (W. J. Cody and W. Waite, 1980); f32 is reduced in f64. Beyond,
x * 2/pi is formed from those digits of 2/pi that matter (M. H. Payne and R. N. Hanek, "Radian
reduction for trigonometric functions", SIGNUM Newsletter 18, 1983): a branch that is taken only
where some lane needs it.
"""

from __future__ import annotations

import math

from .ir import Value
from .math_base import layout, nearest, polynomial, sign_of, with_sign
from .math_exp import odd_near_zero
from .types import F64, I64, U64

__all__ = ["acos", "asin", "atan", "atan2", "cos", "sin", "tan"]

# (sin(r) - r) / r**3 and (cos(r) - 1 + r**2 / 2) / r**4 by r**2 on |r| <= pi/4; sin within 3.8e-9
# and 3.6e-18, cos within 1.1e-10 and 4.9e-20.
_SIN = {
    32: (-0.16666655, 0.00833219, -0.00019518405),
    64: (-0.16666666666666632, 0.008333333333322455, -0.00019841269829812527,
         2.7557313686931067e-06, -2.5050756565976254e-08, 1.5896670789618194e-10),
}
_COS = {
    32: (0.041666646, -0.0013887301, 2.443067e-05),
    64: (0.0416666666666666, -0.0013888888888874441, 2.480158728963631e-05,
         -2.7557314387467385e-07, 2.0875727058401413e-09, -1.1359802429012648e-11),
}
_NEAR = 2.0**20
_PARTS = {32: (1.5707963267341256, 6.077100506506192e-11),  # 33 + 53 bits of pi/2
          64: (1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21)}
_HALF_PI = (1.5707963267948966, 6.123233995736766e-17)

# 2/pi in digits of 24 bits.
_DIGITS = tuple(map(float, (
    10680707, 7228996, 1387004, 2578385, 16069853, 12639074, 9804092, 4427841, 16666979, 11263675,
    12935607, 2387514, 4345298, 14681673, 3074569, 13734428, 16653803, 1880361, 10960616, 8533493,
    3062596, 8710556, 7349940, 6258241, 3772886, 3769171, 3798172, 8675211, 12450088, 3874808,
    9961438, 366607, 15675153, 9132554, 7151469, 3571407, 2607881, 12013382, 4155038, 6285869,
    7677882, 13102053, 15825725, 473591, 9065106, 15363067, 6271263, 9264392,
)))
_USED = {32: 6, 64: 8}  # digits that reach into the result's precision
_MAGIC = 1.5 * 2.0**52


def _reduced(x: Value) -> tuple[Value, Value]:
    """(r, n modulo 4) of x = n pi/2 + r; an f64 and an i64."""
    k, wide = x.kernel, x.cast(F64)
    near = _reduced_near(wide, _PARTS[x.type.bits])
    large = k.abs(wide) >= _NEAR
    some = k.choose(large if large.type.lanes == 1 else k.reduce("or", large))
    with some.then:
        far = _reduced_far(wide, _USED[x.type.bits])
        some.give(*(k.select(large, f, n) for f, n in zip(far, near, strict=True)))
    with some.otherwise:
        some.give(*near)
    r, n = some.results
    return r, n


def _reduced_near(x: Value, parts: tuple[float, ...]) -> tuple[Value, Value]:
    turns, n = nearest(x, 2 / math.pi)
    for part in parts:
        x = x.kernel.fma(turns, -part, x)
    return x, n.bits(I64)


def _reduced_far(x: Value, used: int) -> tuple[Value, Value]:
    """By Payne and Hanek: x = M 2**e with M whole; M times the digits of 2/pi from 2**(2 - e) on.

    Every product is exact, what is a multiple of 4 is dropped, and the sum is made of exact steps.
    """
    k, f = x.kernel, layout(x)
    bits = x.bits(f.integer)
    whole = ((bits & ((1 << f.fraction) - 1)) | (f.bias + 52 << f.fraction)).bits(F64)
    exponent = ((bits >> f.fraction) & 0x7FF).bits(I64) - (f.bias + 52)
    first = _divided_by_24(k.max(exponent - 2, 0))
    weight = ((exponent - (first + 1) * 24 + f.bias) << f.fraction).bits(F64)
    high = (whole.bits(U64) & 0xFFFFFFFFF8000000).bits(F64)
    table = k.emit("const", (), (_DIGITS, F64.to()))
    total, rest = k.const(0.0, x.type), k.const(0.0, x.type)
    for i in range(used):
        digit = k.gather(k.offset(table, i), first) * (weight * 2.0 ** (-24 * i))
        for part, size in ((high, 53), (whole - high, 27)):
            term = part * digit
            if size + 25 - 24 * i > 2:
                term = _modulo_4(term)
            total, lost = _two_sum(total, term)
            rest = rest + lost
    turns = k.emit("rint", (total,))
    total, rest = _two_sum(total - turns, rest)
    r = k.fma(total, _HALF_PI[0], k.fma(total, _HALF_PI[1], rest * _HALF_PI[0]))
    r = k.select(k.abs(x) < math.inf, r, math.nan)
    return r, (turns + _MAGIC).bits(I64)


def _divided_by_24(x: Value) -> Value:
    """x // 24 for 0 <= x < 1024, by a multiplication."""
    return (x * 2731) >> 16


def _modulo_4(x: Value) -> Value:
    return x - x.kernel.emit("rint", (x * 0.25,)) * 4.0


def _two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """a + b and what its rounding lost (D. E. Knuth, TAOCP volume 2, 4.2.2)."""
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def _sin_near(r: Value, bits: int) -> Value:
    square = r * r
    return r.kernel.fma(r * square, polynomial(square, _SIN[bits]), r)


def _cos_near(r: Value, bits: int) -> Value:
    k, square = r.kernel, r * r
    return k.fma(square * square, polynomial(square, _COS[bits]), k.fma(square, -0.5, 1.0))


def _signed(x: Value, n: Value, bit: int) -> Value:
    """`x`, negative where `bit` of n is set."""
    integer = layout(x).integer
    flip = ((n & bit) << (63 - bit.bit_length() + 1)).bits(U64)
    if integer.bits == 32:
        flip = flip >> 32
    return (x.bits(integer) ^ flip.cast(integer)).bits(x.type.scalar)


def sin(x: Value) -> Value:
    """The sine of x in radians."""
    k, bits = x.kernel, x.type.bits
    r, n = _reduced(k.abs(x))
    near = r.cast(x.type.scalar)
    y = k.select((n & 1).ne(0), _cos_near(near, bits), _sin_near(near, bits))
    return _flipped(x, _signed(y, n, 2))


def cos(x: Value) -> Value:
    """The cosine of x in radians."""
    k, bits = x.kernel, x.type.bits
    r, n = _reduced(x)
    near = r.cast(x.type.scalar)
    y = k.select((n & 1).ne(0), _sin_near(near, bits), _cos_near(near, bits))
    return _signed(y, n + 1, 2)


def tan(x: Value) -> Value:
    """The tangent of x in radians: the sine of r by its cosine, or the other way round, in f64."""
    k, bits = x.kernel, x.type.bits
    r, n = _reduced(k.abs(x))
    sine, cosine, odd = _sin_near(r, bits), _cos_near(r, bits), (n & 1).ne(0)
    y = (k.select(odd, cosine, sine) / k.select(odd, sine, cosine)).cast(x.type.scalar)
    return _flipped(x, _signed(y, n, 1))


def _flipped(x: Value, y: Value) -> Value:
    """`y`, with the other sign where x is negative."""
    return (y.bits(layout(x).integer) ^ sign_of(x)).bits(x.type.scalar)


# --- inverses ---------------------------------------------------------------------------------

# (atan(t) - t) / t**3 by t**2 on |t| <= tan(pi/8); atan within 6.8e-10 and 1.3e-18.
_ATAN = {
    32: (-0.33333316, 0.19998531, -0.14244469, 0.105997965, -0.060916666),
    64: (-0.333333333333332, 0.19999999999953819, -0.14285714280220638, 0.1111111078468936,
         -0.09090897793477601, 0.07692060853080665, -0.06663111285194917, 0.058479415899409436,
         -0.05039538039427325, 0.03807042620331714, -0.017913564421717012),
}
# (asin(x) - x) / x**3 by x**2 on |x| <= 1/2; asin within 5e-9 and 1.1e-18.
_ASIN = {
    32: (0.16666754, 0.07495252, 0.04547604, 0.02415209, 0.042211805),
    64: (0.16666666666666763, 0.07499999999970132, 0.04464285717524995, 0.030381942677193,
         0.022372215847159836, 0.017351596648596767, 0.013981003455686598, 0.011397429373338024,
         0.010788470682190278, 0.0036757752571912497, 0.021780880027391845,
         -0.021101303131360976, 0.03269145843896756),
}
_HALF_PI_IN = {32: (1.5707963705062866, -4.371138828673793e-08), 64: _HALF_PI}
_TAN_PI_8, _TAN_3_PI_8 = math.tan(math.pi / 8), math.tan(3 * math.pi / 8)


def _atan_of_ratio(a: Value, b: Value) -> Value:
    """atan(a / b) for a, b >= 0, not both 0: about 0, pi/4 or pi/2, whichever is nearest."""
    k, kind = a.kernel, a.type
    high, low = _HALF_PI_IN[kind.bits]
    steep, middle = a > b * _TAN_3_PI_8, a > b * _TAN_PI_8
    above = k.select(steep, -b, k.select(middle, a - b, a))
    below = k.select(steep, a, k.select(middle, a + b, b))
    t = above / below
    base = k.select(steep, k.const(high, kind), k.select(middle, k.const(high / 2, kind), 0.0))
    rest = k.select(steep, k.const(low, kind), k.select(middle, k.const(low / 2, kind), 0.0))
    square = t * t
    return base + (t + k.fma(t * square, polynomial(square, _ATAN[kind.bits]), rest))


def atan(x: Value) -> Value:
    """The inverse tangent, in [-pi/2, pi/2]."""
    k, a = x.kernel, x.kernel.abs(x)
    return with_sign(x, _atan_of_ratio(a, k.const(1.0, x.type)))


def atan2(y: Value, x: Value) -> Value:
    """The angle of the point (x, y), in [-pi, pi], with C's values at zeros and infinities."""
    k = y.kernel
    x = k.like(y, x)
    a, b, kind = k.abs(y), k.abs(x), y.type
    scale = k.select(k.max(a, b) > _LARGEST[kind.bits], k.const(0.25, kind), 1.0)
    both = a.eq(math.inf) & b.eq(math.inf)
    a, b = k.select(both, 1.0, a * scale), k.select(both, 1.0, b * scale)
    angle = k.select(a.eq(0.0), k.const(0.0, kind), _atan_of_ratio(a, b))
    high, low = _HALF_PI_IN[kind.bits]
    left = sign_of(x).ne(0)
    angle = k.select(left, (2 * high - angle) + 2 * low, angle)
    return k.select(x.ne(x) | y.ne(y), math.nan, with_sign(y, angle))


_LARGEST = {32: 2.0**125, 64: 2.0**1021}  # beyond, the sum of two may overflow


def asin(x: Value) -> Value:
    """The inverse sine; NaN outside [-1, 1]."""
    k, wide = x.kernel, x.cast(F64)
    near, core = _asin_core(k.abs(wide), x.type.bits)
    far = _HALF_PI[0] - (core * 2.0 - _HALF_PI[1])
    return with_sign(x, k.select(near, core, far).cast(x.type.scalar))


def _asin_core(a: Value, bits: int) -> tuple[Value, Value]:
    """Whether a <= 1/2, and asin(a) there, asin(sqrt((1 - a) / 2)) elsewhere; a >= 0, an f64."""
    k = a.kernel
    near = a <= 0.5
    t = k.select(near, a, k.sqrt((1.0 - a) * 0.5))
    return near, odd_near_zero(t, _ASIN[bits])


def acos(x: Value) -> Value:
    """The inverse cosine, in [0, pi]; NaN outside [-1, 1]."""
    k, wide = x.kernel, x.cast(F64)
    near, core = _asin_core(k.abs(wide), x.type.bits)
    twice = core * 2.0
    far = k.select(wide < 0.0, 2 * _HALF_PI[0] - (twice - 2 * _HALF_PI[1]), twice)
    close = _HALF_PI[0] - (_flipped(wide, core) - _HALF_PI[1])
    return k.select(near, close, far).cast(x.type.scalar)
