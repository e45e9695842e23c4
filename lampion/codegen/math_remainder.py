"""Remainders and whole quotients of float32, exact for all sizes of the operands, by float64."""

from __future__ import annotations

from .ir import Value
from .types import F64, I64

__all__ = ["floor_divide", "fmod"]

_NEAR = 2.0**29  # quotients up to here times 24 bits are exact in float64
_TOP = ~((1 << 25) - 1)  # the first 28 bits of a float64's 53
_ROUNDS = 10  # quotients are below 2**277, and a round takes 27 bits or more


def fmod(a: Value, b: Value) -> Value:
    """What is left of `a` after as many whole `b` as go into it, with the sign of `a`; C's fmod.

    NaN where b is 0 or a is infinite.
    """
    k = a.kernel
    x, y = k.abs(a.cast(F64)), k.abs(b.cast(F64))
    far = (x / y >= _NEAR) & (x < float("inf")) & (y > 0)
    some = k.choose(far if far.type.lanes == 1 else k.reduce("or", far))
    with some.then:
        some.give(k.select(far, _nearer(x, y), x))
    with some.otherwise:
        some.give(x)
    x = some.results[0]
    rest = k.fma(-k.unary("trunc", x / y), y, x)  # exact; the quotient may be one off
    rest = k.select(rest < 0, rest + y, rest)
    rest = k.select(rest >= y, rest - y, rest)
    rest = k.select(y.eq(float("inf")) & (x < float("inf")), x, rest)
    return k.select((a < 0) | (a.eq(0) & ((1.0 / a) < 0)), -rest, rest).cast(a.type.scalar)


def _nearer(x: Value, y: Value) -> Value:
    """`x` less whole multiples of y, until the quotient is small; each step is exact."""
    k = x.kernel
    loop = k.loop(0, _ROUNDS, 1, [x])
    with loop as (_, left):
        quotient = left / y
        whole = (quotient.bits(I64) & _TOP).bits(F64)
        loop.next(k.select(k.abs(quotient) >= _NEAR, k.fma(-whole, y, left), left))
    return loop.results[0]


def floor_divide(a: Value, b: Value) -> Value:
    """The quotient rounded down, from the exact remainder, as Python's `//` makes it."""
    k = a.kernel
    rest = fmod(a, b)
    quotient = (a - rest) / b
    quotient = k.select(rest.ne(0.0) & ((b < 0) ^ (rest < 0)), quotient - 1.0, quotient)
    whole = k.unary("floor", quotient)
    whole = k.select(quotient - whole > 0.5, whole + 1.0, whole)
    ratio = a / b
    zero = k.select((ratio < 0) | ((1.0 / ratio) < 0), k.const(-0.0, a.type), k.const(0.0, a.type))
    return k.select(b.eq(0.0), ratio, k.select(quotient.eq(0.0), zero, whole))
