"""What the vector functions share: the layout of floats, polynomials, rounding, scaling, signs.

All functions take and give values of the loop level, f32 or f64, of any number of lanes, and are
free of branches. Coefficients are minimax fits by the Remez exchange (E. Ya. Remez, 1934), made in
60 digits and rounded one after the other, each with the rest fitted again; every table says what it
approximates, on which interval and with which largest error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .ir import Value
from .spec import SpecError
from .types import U32, U64, Type

__all__ = ["Layout", "clamp", "layout", "nearest", "polynomial", "power", "with_sign"]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a float type lies in its bits, and the numbers that reductions start from."""

    integer: Type  # unsigned, of the same width
    fraction: int  # bits of the fraction
    bias: int
    magic: float  # added, it leaves the nearest integer in the low bits
    smallest: float  # the smallest normal number
    tiny: float  # below it, x + x**3 == x
    ln2: tuple[float, float]  # in two parts; a multiple of the first is exact

    @property
    def one(self) -> int:
        """The bits of 1.0."""
        return self.bias << self.fraction

    @property
    def sign(self) -> int:
        """The bit of the sign."""
        return 1 << self.fraction + self.integer.bits - self.fraction - 1


_LAYOUTS = {
    32: Layout(U32, 23, 127, 1.5 * 2.0**23, 2.0**-126, 2.0**-14,
               (0.693359375, -2.1219444e-04)),
    64: Layout(U64, 52, 1023, 1.5 * 2.0**52, 2.0**-1022, 2.0**-28,
               (0.6931471803691238, 1.9082149292705877e-10)),
}


def layout(x: Value) -> Layout:
    """Of the type of `x`; SpecError unless it is f32 or f64."""
    if not x.type.is_float or x.type.pointer or x.type.bits not in _LAYOUTS:
        raise SpecError(f"a function of f32 or f64: got {x.type}")
    return _LAYOUTS[x.type.bits]


def polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """The polynomial with these coefficients, constant term first.

    Horner's rule; from degree 6 on as E(x*x) + x * O(x*x): half as long a chain of dependent steps.
    """
    if len(coefficients) < 7:
        return _horner(x, coefficients)
    square = x * x
    even, odd = (_horner(square, coefficients[i::2]) for i in (0, 1))
    return x.kernel.fma(odd, x, even)


def _horner(x: Value, coefficients: Sequence[float]) -> Value:
    total = x.kernel.const(coefficients[-1], x.type)
    for c in reversed(coefficients[:-1]):
        total = x.kernel.fma(total, x, c)
    return total


def clamp(x: Value, low: float, high: float) -> Value:
    """Within [low, high]; NaN stays."""
    k = x.kernel
    return k.max(k.const(low, x.type), k.min(k.const(high, x.type), x))


def nearest(x: Value, factor: float) -> tuple[Value, Value]:
    """The integer nearest to `x * factor`: as a float, and in the low bits of an integer."""
    k, f = x.kernel, layout(x)
    shifted = k.fma(x, factor, f.magic) if factor != 1.0 else x + f.magic
    return shifted - f.magic, shifted.bits(f.integer)


def power(n: Value, f: Layout, like: Value, extra: int = 0) -> Value:
    """2**(n + extra) from `nearest`'s second result; n + extra within the normal exponents."""
    return ((n << f.fraction) + ((f.bias + extra) << f.fraction)).bits(like.type.scalar)


def sign_of(x: Value) -> Value:
    """The bit of the sign, in an unsigned integer."""
    f = layout(x)
    return x.bits(f.integer) & f.sign


def with_sign(x: Value, y: Value) -> Value:
    """`y`, which is not negative, with the sign of `x`."""
    f = layout(x)
    return (y.bits(f.integer) | sign_of(x)).bits(y.type.scalar)
