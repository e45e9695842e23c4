"""What matrix products multiply: element types in memory, in panels and in sums.

| factors | in memory | panels hold | one step | summed in |
| --- | --- | --- | --- | --- |
| f32, f64 | the same | the same | multiply and add | the same |
| c64, c128 | complex | both parts, side by side | twice that, see `gemm_tiles.py` | parts |
| f16, bf16 | 16 bits | float32, cast when packed | as f32 | float32 |
| pairs | bfloat16 | two along k | AVX512-BF16 | float32 |
| u8, s8 | 8 bits | four along k | AVX512-VNNI | int32 |
| i16 | 8 or 16 bits | two along k, 16 bits each | multiply-add of 16 bits | int32 |
| i32, i64 | the same | the same | multiply and add | the same |

Sums of integers wrap around, so those of 8 and 16 bits are exact in a result of their own type.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from .target import Target
from .types import BF16, F16, F32, F64, I8, I16, I32, I64, U8, Type, of_numpy

__all__ = ["SHIFT", "Factors", "factors", "plain"]

SHIFT = -0x7F7F7F80
"""128 in each byte of 32 bits; `x ^ SHIFT` adds it to each of x, whose signs are then gone."""


class Factors(NamedTuple):
    """One row of the table."""

    name: str
    element: Type  # of panels of B, and of A as it is multiplied
    sum: Type
    a: Type  # in memory, as is b
    b: Type
    members: tuple[Type, Type] | None = None  # what elements of A and B are groups of, along k
    parts: int = 1  # of a number: 2 where it is complex

    @property
    def group(self) -> int:
        """Neighbours along k in an element."""
        return 1 if self.members is None else self.element.size // self.members[0].size

    @property
    def size(self) -> int:
        """Bytes of A for one step along k."""
        return (self.a if self.members is None else self.element).size * self.parts

    @property
    def in_a(self) -> Type:
        """What an array of A holds, once groups are made."""
        return self.a if self.members is None else self.element

    @property
    def in_b(self) -> Type:
        """What an array of B holds, if it needs no grouping any more."""
        return self.b if self.members is None else self.element

    @property
    def is_cast(self) -> bool:
        """Whether numbers become others on their way into panels."""
        return self.members is None and self.a != self.element

    @property
    def is_shifted(self) -> bool:
        """Whether B is packed with 128 added, because its groups are multiplied unsigned."""
        return self.members is not None and self.members[1] == U8 and self.b == I8

    def turned(self) -> Factors:
        """Of the transposed product."""
        if self.a == self.b:
            return self
        members = None if self.members is None else self.members[::-1]
        return self._replace(name=self.name + " turned", a=self.b, b=self.a, members=members)


@cache
def plain(element: Type) -> Factors:
    """Numbers that are multiplied as they lie in memory."""
    return Factors(element.name, element, element, element, element)


def _cast(source: Type) -> Factors:
    return Factors(source.name, F32, F32, source, source)


_SINGLE = {"float32": plain(F32), "float64": plain(F64), "int32": plain(I32), "int64": plain(I64),
           "complex64": plain(F32)._replace(name="c64", parts=2),
           "complex128": plain(F64)._replace(name="c128", parts=2),
           "int16": Factors("i16", I32, I32, I16, I16, (I16, I16)),
           "float16": _cast(F16), "bfloat16": _cast(BF16)}
_PAIRS = Factors("pairs", I32, F32, BF16, BF16, (BF16, BF16))
_RESULTS = {"float16": ("float16", "float32"), "bfloat16": ("bfloat16", "float32"),
            "int16": ("int16", "int32"), "int8": ("int8", "int32"), "uint8": ("uint8",)}


@cache
def factors(a: str, b: str, out: str, target: Target, paired: bool = True) -> Factors | None:
    """How products of NumPy's dtypes a and b are made into one of `out`; None if they are not.

    paired: not False to multiply pairs of bfloat16 where the processor can.
    """
    if a != b and (a, b, out) != ("uint8", "int8", "int32"):
        return None
    if a in ("int8", "uint8"):
        return _bytes(a, b, out, target) if a != b or out in _RESULTS[a] else None
    if out not in _RESULTS.get(a, (a,)):
        return None
    return _PAIRS if paired and a == "bfloat16" and target.has_bf16_dot else _SINGLE.get(a)


def _bytes(a: str, b: str, out: str, target: Target) -> Factors:
    """Fours of unsigned by signed bytes; modulo 256 the signs of bytes do not matter."""
    first, second = of_numpy(a), of_numpy(b)
    if not target.has_i8_dot:
        return Factors(f"{a} {b}", I32, I32, first, second, (I16, I16))
    if out == "int32" and a == "int8":
        return Factors("s8", I32, I32, I8, I8, (I8, U8))
    return Factors("u8", I32, I32, U8, I8, (U8, I8))
