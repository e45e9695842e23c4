"""Types of the loop level: scalars, vectors of them, pointers to them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

__all__ = [
    "BF16", "F16", "F32", "F64", "I1", "I8", "I16", "I32", "I64", "SCALARS", "U8", "U16", "U32",
    "U64", "Type", "dtype_name", "of_numpy",
]


@dataclass(frozen=True, slots=True)
class Type:
    """A scalar (`lanes` 1), a vector, or a pointer to scalars (`pointer`).

    kind: "i" signed, "u" unsigned, "f" float, "b" bool (one bit).
    """

    kind: str
    bits: int
    lanes: int = 1
    pointer: bool = False
    brain: bool = False  # bfloat16: float32's exponent in 16 bits

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_bool(self) -> bool:
        return self.kind == "b"

    @property
    def scalar(self) -> Type:
        """The type of one lane."""
        return self if self.lanes == 1 else _make(self, 1, False)

    @property
    def pointee(self) -> Type:
        """What a pointer points to."""
        return _make(self, 1, False)

    @property
    def size(self) -> int:
        """Bytes of one element in memory."""
        return max(self.bits // 8, 1)

    def vector(self, lanes: int) -> Type:
        """The vector of `lanes` such scalars; a scalar for 1."""
        return _make(self, lanes, False)

    def to(self) -> Type:
        """The pointer to such scalars."""
        return _make(self, 1, True)

    @property
    def name(self) -> str:
        """Of a scalar, as the printer writes it: f32, bf16, i1, u8."""
        return "bf16" if self.brain else "i1" if self.is_bool else f"{self.kind}{self.bits}"

    def __str__(self) -> str:
        lanes = f"x{self.lanes}" if self.lanes > 1 else ""
        return self.name + lanes + ("*" if self.pointer else "")


@cache
def _make(base: Type, lanes: int, pointer: bool) -> Type:
    return Type(base.kind, base.bits, lanes, pointer, base.brain)


I1 = Type("b", 1)
I8, I16, I32, I64 = (Type("i", n) for n in (8, 16, 32, 64))
U8, U16, U32, U64 = (Type("u", n) for n in (8, 16, 32, 64))
F16, F32, F64 = (Type("f", n) for n in (16, 32, 64))
BF16 = Type("f", 16, brain=True)

SCALARS = {t.name: t for t in (I1, I8, I16, I32, I64, U8, U16, U32, U64, F16, F32, F64, BF16)}

_OF_NUMPY = {
    "bool": U8, "int8": I8, "int16": I16, "int32": I32, "int64": I64, "uint8": U8,
    "uint16": U16, "uint32": U32, "uint64": U64, "float16": F16, "float32": F32, "float64": F64,
    "bfloat16": BF16,
}


@cache
def dtype_name(dtype: Any) -> str:
    """`dtype.name`, which NumPy puts together anew whenever it is asked."""
    return str(dtype.name)


def of_numpy(name: str) -> Type:
    """The element type of an array of NumPy's (or ml_dtypes') dtype `name`; bools are bytes."""
    return _OF_NUMPY[name]
