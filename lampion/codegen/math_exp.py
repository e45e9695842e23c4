"""Exponentials and what is made of them: hyperbolic functions, the error function, activations.

exp: x = n ln 2 + r with |r| <= ln 2 / 2, n ln 2 subtracted in two parts (W. J. Cody and W. Waite,
"Software Manual for the Elementary Functions", 1980), e**r by a polynomial, 2**n by bits.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from .ir import Value
from .math_base import clamp, layout, nearest, polynomial, power, with_sign
from .types import F32, F64, I32, U32

__all__ = ["cosh", "erf", "erfc", "exp", "exp2", "exp2_flushed", "exp2_of_sum", "exp_in_range",
           "exp_of_negative", "expm1", "gelu", "gelu_slope", "gelu_tanh", "odd_near_zero",
           "sigmoid", "silu", "sinh", "tanh"]

_LOG2E = 1 / math.log(2)

# (e**r - 1 - r) / r**2 on |r| <= ln 2 / 2; e**r within 3.3e-9 and 3.7e-18.
_EXP = {
    32: (0.5, 0.16666515, 0.041666575, 0.008369271, 0.0013924078),
    64: (0.5000000000000013, 0.166666666666667, 0.04166666666650994, 0.008333333333307326,
         0.0013888888948584478, 0.00019841269916884104, 2.4801488200159103e-05,
         2.7557216953713348e-06, 2.76319388548558e-07, 2.5117590707271947e-08),
}
# (2**r - 1) / r on |r| <= 1 / 2; 2**r within 3.1e-9 and 4.8e-18.
_EXP2 = {
    32: (0.6931472, 0.2402265, 0.055503596, 0.0096180625, 0.0013390986, 0.00015462865),
    64: (0.6931471805599453, 0.2402265069591015, 0.05550410866482406, 0.00961812910758622,
         0.0013333558145774468, 0.00015403530467363778, 1.5252734480968855e-05,
         1.3215430100206531e-06, 1.0177781019224923e-07, 7.074677901931273e-09,
         4.498478830757765e-10),
}
# Below the first e**x is 0, above the second it is infinite, also times 1/4.
_EXP_RANGE = {32: (-104.0, 90.2), 64: (-746.0, 711.2)}
_EXP2_RANGE = {32: (-151.0, 129.0), 64: (-1076.0, 1025.0)}
# e**x - 1 is -1 below the first and infinite above the second.
_EXPM1_RANGE = {32: (-25.0, 89.0), 64: (-45.0, 710.0)}
# (tanh(x) - x) / x**3 by x**2 on |x| <= 0.625; tanh within 4.2e-9 and 1.1e-18.
_TANH = {
    32: (-0.33333284, 0.13331483, -0.053742774, 0.020648062, -0.0057140635),
    64: (-0.33333333333333315, 0.1333333333333, -0.0539682539661664, 0.021869488470864992,
         -0.008863234338924695, 0.003592114229056812, -0.0014557274339716366,
         0.0005894587775826264, -0.0002370341049213181, 9.160397261362376e-05,
         -3.0239826805951218e-05, 6.0685736746185405e-06),
}
_TANH_NEAR = 0.625
_TANH_ONE = {32: 10.0, 64: 22.0}  # tanh is 1 from here on
# (sinh(x) - x) / x**3 by x**2 on |x| <= 1; sinh within 6.7e-9 and 2.6e-19.
_SINH = {
    32: (0.16666667, 0.0083333505, 0.00019836066, 2.8174395e-06),
    64: (0.16666666666666669, 0.008333333333332915, 0.0001984126984158925, 2.755731910848211e-06,
         2.505213067625294e-08, 1.6056687030282977e-10, 7.775694584157218e-13),
}


def _reduced(x: Value) -> tuple[Value, Value]:
    """(r, n) of x = n ln 2 + r."""
    k, (high, low) = x.kernel, layout(x).ln2
    n, _ = nearest(x, _LOG2E)
    return k.fma(n, -low, k.fma(n, -high, x)), n


def _expm1_near_zero(r: Value) -> Value:
    """e**r - 1 for |r| <= ln 2 / 2."""
    return r.kernel.fma(r * r, polynomial(r, _EXP[r.type.bits]), r)


def exp(x: Value) -> Value:
    """e**x."""
    return exp_times(x, 0)


def exp_times(x: Value, shift: int) -> Value:
    """e**x * 2**shift for shift 0 or -1, without overflow before the last step."""
    r, n = _reduced(clamp(x, *_EXP_RANGE[x.type.bits]))
    return x.kernel.scale(_expm1_near_zero(r) + 1.0, n + float(shift) if shift else n)


def exp_in_range(x: Value) -> Value:
    """e**x where the result is a normal number; anything elsewhere."""
    r, n = _reduced(x)
    return x.kernel.scale(_expm1_near_zero(r) + 1.0, n, normal=True)


def exp2(x: Value) -> Value:
    """2**x."""
    return exp2_of_sum(clamp(x, *_EXP2_RANGE[x.type.bits]), None)


def exp2_of_sum(x: Value, low: Value | None) -> Value:
    """2**(x + low), low far smaller than 1; x within twice the exponents of the type."""
    n, _ = nearest(x, 1.0)
    r = x - n if low is None else (x - n) + low
    return x.kernel.scale(x.kernel.fma(r, polynomial(r, _EXP2[x.type.bits]), 1.0), n)


def _unless_tiny(x: Value, y: Value) -> Value:
    """`y`, but `x` where x is so small that f(x) rounds to it: keeps -0 and denormals."""
    k = x.kernel
    return k.select(k.abs(x) < layout(x).tiny * layout(x).tiny, x, y)


def exp2_flushed(x: Value) -> Value:
    """2**x for x <= 1; 0 where that is no normal number: for weights that are summed."""
    f = layout(x)
    x = x.kernel.max(x.kernel.const(-f.bias, x.type), x)
    turns, n = nearest(x, 1.0)
    r = x - turns
    return x.kernel.fma(r, polynomial(r, _EXP2[x.type.bits]), 1.0) * power(n, f, x)


def expm1(x: Value) -> Value:
    """e**x - 1."""
    k = x.kernel
    r, n = _reduced(clamp(x, *_EXPM1_RANGE[x.type.bits]))
    half = k.scale(k.const(1.0, x.type), n - 1.0, normal=True)  # 2**n overflows before the result
    y = k.fma(half, _expm1_near_zero(r), half - 0.5)
    return _unless_tiny(x, y + y)


def odd_near_zero(x: Value, coefficients: Sequence[float]) -> Value:
    """x + x**3 * p(x**2) for x that is not negative; denormals stay."""
    square = x * x
    return x.kernel.fma(x * square, polynomial(square, coefficients), x)


def tanh(x: Value) -> Value:
    """The hyperbolic tangent: 1 - 2 / (e**(2 |x|) + 1) with the sign of x."""
    k, a, bits = x.kernel, x.kernel.abs(x), x.type.bits
    e = exp_in_range(k.min(k.const(_TANH_ONE[bits], x.type), a) * 2.0)
    far = 1.0 - k.const(2.0, x.type) / (e + 1.0)
    return with_sign(x, k.select(a < _TANH_NEAR, odd_near_zero(a, _TANH[bits]), far))


def sinh(x: Value) -> Value:
    """The hyperbolic sine."""
    k, a = x.kernel, x.kernel.abs(x)
    half = exp_times(a, -1)
    far = half - k.const(0.25, x.type) / half
    return with_sign(x, k.select(a < 1.0, odd_near_zero(a, _SINH[x.type.bits]), far))


def cosh(x: Value) -> Value:
    """The hyperbolic cosine."""
    half = exp_times(x.kernel.abs(x), -1)
    return half + x.kernel.const(0.25, x.type) / half


def exp_of_negative(a: Value) -> Value:
    """e**-a for a >= 0."""
    k = a.kernel
    r, n = _reduced(-k.min(k.const(-_EXP_RANGE[a.type.bits][0], a.type), a))
    return k.scale(_expm1_near_zero(r) + 1.0, n)


def sigmoid(x: Value) -> Value:
    """1 / (1 + e**-x), also where e**-x overflows."""
    k = x.kernel
    e = exp_of_negative(k.abs(x))
    return k.select(x < 0.0, e, 1.0) / (e + 1.0)


def silu(x: Value) -> Value:
    """x * sigmoid(x)."""
    return x * sigmoid(x)


# --- the error function -----------------------------------------------------------------------

# erf(x) / x - 1 by x**2 on |x| <= 1 (f32: 0.92); erf within 1.6e-8 and 1.4e-17.
_ERF = {
    32: (0.12837915, -0.376125, 0.11281877, -0.02676858, 0.0049958536, -0.0006003805),
    64: (0.12837916709551256, -0.37612638903183343, 0.1128379167093695, -0.026866170641958297,
         0.005223977596668631, -0.0008548325477094385, 0.00012055280088389648,
         -1.492445415047443e-05, 1.644396147816645e-06, -1.6182172132872335e-07,
         1.3607216822912212e-08, -7.58711379524636e-10),
}
_ERF_NEAR = {32: 0.92, 64: 1.0}
# log(erfc(x)) on 0.92 <= x <= 4; erfc within 1.7e-9.
_LOG_ERFC = (-0.00020702482, -1.1276274, -0.63726574, -0.103856415, 0.022189796, -0.003033691,
             0.00019494527)
# (x + K) erfc(x) e**(x*x) by (x - K) / (x + K) on 0 <= x <= 10.3 and 28, after M. M.
# Shepherd and J. G. Laframboise (Math. Comp. 36, 1981); within 2.3e-9 and 7e-17.
_ERFCX_SHIFT = {32: 3.0, 64: 4.0}
_ERFCX = {
    32: (1.0740069078367764, -0.8833944877716353, 0.5902282922290977, -0.3104659706458867,
         0.11952917232982903, -0.026840061704148512, -0.0012270452997590687,
         0.0030805788711697956, -0.00048199475491989815, -0.00032471977508555266),
    64: (1.095995661000491, -0.9765487290808822, 0.7732087022652552, -0.5408538313132214,
         0.330851587877084, -0.17401093724031408, 0.07638151492777688, -0.026370053333114565,
         0.006112055468452288, -0.000280958954923587, -0.0004550515897217061,
         0.00017681348523487575, -3.6390647701199267e-06, -1.886386529320564e-05,
         4.702910414815078e-06, 1.4322204963189908e-06, -8.57041174811063e-07,
         -8.830283215723185e-08, 1.3095402249457936e-07, 1.1913971976102287e-08,
         -1.6044278998937008e-08, -3.865571111521069e-09),
}
_ERFC_ZERO = {32: 10.3, 64: 28.0}  # erfc is 0 from here on
_HIGH_HALF = 0xFFFFFFFFF8000000  # of the bits of an f64: its square is exact


def _erf_near(x: Value) -> Value:
    return x.kernel.fma(polynomial(x * x, _ERF[x.type.bits]), x, x)


def erf(x: Value) -> Value:
    """The error function."""
    k, a, bits = x.kernel, x.kernel.abs(x), x.type.bits
    far = k.min(k.const(4.0 if bits == 32 else 6.0, x.type), a)
    rest = exp_in_range(polynomial(far, _LOG_ERFC)) if bits == 32 else _erfc_positive(far)
    near = with_sign(x, k.abs(_erf_near(x)))
    return k.select(a < _ERF_NEAR[bits], near, with_sign(x, 1.0 - rest))


def _erfc_positive(a: Value) -> Value:
    """erfc(a) for 0 <= a <= `_ERFC_ZERO`, by e**(-a*a) and erfcx(a); f32 is computed in f64."""
    bits, wide = a.type.bits, a.cast(F64)
    shift = _ERFCX_SHIFT[bits]
    beyond = wide + shift
    bell = polynomial((wide - shift) / beyond, _ERFCX[bits]) / beyond
    if bits == 32:
        r, n = _reduced(-(wide * wide))
        near = wide.kernel.fma(r * r, polynomial(r, _EXP[32]), r) + 1.0
        return (wide.kernel.scale(near, n, normal=True) * bell).cast(F32)
    r, n = _reduced_square(a)
    return a.kernel.scale((_expm1_near_zero(r) + 1.0) * bell, n)


def _reduced_square(a: Value) -> tuple[Value, Value]:
    """(r, n) of -a * a = n ln 2 + r, with a * a in two parts."""
    k, f = a.kernel, layout(a)
    high = (a.bits(f.integer) & _HIGH_HALF).bits(a.type.scalar)
    low = (a - high) * (a + high)
    square = -(high * high)
    n, _ = nearest(square - low, _LOG2E)
    return k.fma(n, -f.ln2[1], k.fma(n, -f.ln2[0], square)) - low, n


def erfc(x: Value) -> Value:
    """1 - erf(x), accurate also where it is small."""
    k, a, bits = x.kernel, x.kernel.abs(x), x.type.bits
    far = _erfc_positive(k.min(k.const(_ERFC_ZERO[bits], x.type), a))
    far = k.select(x < 0.0, 2.0 - far, far)
    return k.select(a < 0.5, 1.0 - _erf_near(x), far)


# -log2(1 - cdf(a)) - a**2 / 2 log2(e) of the normal distribution on 0 <= a <= 6, weighted by
# (1 - cdf)**0.7: gelu within 2.1e-8.
_NORMAL_TAIL = (1.0, 1.1511052, -0.2621383, 0.052487202, -0.0070339465, 9.1782684e-05,
                0.0002221219, -5.4631717e-05, 6.092499e-06, -2.7388484e-07)
_TAIL_END, _TAIL_ZERO = 6.0, 16.0
_SIGN = -(1 << 31)


def gelu(x: Value) -> Value:
    """x times the normal distribution's cdf: max(x, 0) - |x| * (1 - cdf(|x|)).

    f32: 1 - cdf is one power of 2, so nothing cancels for negative x. f64: by erf.
    """
    k = x.kernel
    if x.type.bits == 64:
        return (x * 0.5) * (erf(x * math.sqrt(0.5)) + 1.0)
    size = k.abs(x).bits(U32)  # clamped as integers: those units are idle here
    a, near = (k.min(size, _bits_of(end)).bits(F32) for end in (_TAIL_ZERO, _TAIL_END))
    power_of_2 = k.fma(a * a, -0.5 * _LOG2E, -polynomial(near, _NORMAL_TAIL))
    shifted = power_of_2 + layout(x).magic
    r = power_of_2 - (shifted - layout(x).magic)
    least = _bits_of(layout(x).magic) - 127  # 2**-127 is 0 here
    n = k.max(shifted.bits(U32), least)
    tail = k.fma(r, polynomial(r, _EXP2[32]), 1.0) * power(n, layout(x), x)
    # -|x|, clamped where x is positive only: gelu(-inf) is -inf * 0, which is NaN.
    factor = (k.min(x.bits(I32), _bits_of(_TAIL_ZERO)) | _SIGN).bits(F32)
    return k.fma(factor, tail, k.max(k.const(0.0, x.type), x))


# ((1 - cdf(a)) / density(a) - a) / sqrt(2 pi) on 0 <= a <= 6, weighted by e**(-a*a / 2): the slope
# of gelu within 5.8e-8.
_SLOPE_TAIL = (0.49999997, -0.7978818, 0.24995722, -0.13272381, 0.061707027, -0.025149172,
               0.008713952, -0.0024268853, 0.00050571153, -7.21749e-05, 6.17831e-06, -2.360059e-07)


def gelu_slope(x: Value) -> Value:
    """The derivative of gelu: cdf(x) + x * density(x), NaN at infinities as that product is.

    f32: one exponential, and nothing cancels.
    """
    k, a = x.kernel, x.kernel.abs(x)
    if x.type.bits == 64:
        density = exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))
        return k.fma(x, density, erfc(x * -math.sqrt(0.5)) * 0.5)
    near = k.min(a.bits(U32), _bits_of(_TAIL_END)).bits(F32)
    tail = polynomial(near, _SLOPE_TAIL) * exp2_flushed(a * a * (-0.5 * _LOG2E))
    return k.select(x < 0.0, tail, 1.0 - tail) + (x - x)


def _bits_of(number: float) -> int:
    return int.from_bytes(struct.pack("<f", number), "little")


def gelu_tanh(x: Value) -> Value:
    """gelu's approximation by tanh, written as x * sigmoid(2 u)."""
    k = x.kernel
    u = x * k.fma(x * x, 2 * 0.044715 * math.sqrt(2 / math.pi), 2 * math.sqrt(2 / math.pi))
    return x * sigmoid(u)
