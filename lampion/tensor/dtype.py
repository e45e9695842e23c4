"""Element types: the `dtype` objects, their NumPy counterparts, promotion, `finfo` and `iinfo`."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["DTYPES", "dtype", "finfo", "from_numpy_dtype", "iinfo", "promote_types"]

# Kinds in promotion order: a higher kind always wins over a lower one.
BOOL, INT, FLOAT, COMPLEX = range(4)

DTYPES: dict[str, dtype] = {}
_BY_NUM: dict[int, dtype] = {}


class dtype:
    """Element type of a tensor, for example `torch.float32`."""

    __slots__ = (
        "_np",
        "is_complex",
        "is_floating_point",
        "is_reduced",
        "is_signed",
        "itemsize",
        "kind",
        "name",
    )

    name: str
    itemsize: int
    kind: int
    is_floating_point: bool
    is_complex: bool
    is_signed: bool
    is_reduced: bool  # computed in float32 and rounded on store

    def __init__(self, name: str, kind: int, itemsize: int, signed: bool) -> None:
        self.name, self.kind, self.itemsize, self.is_signed = name, kind, itemsize, signed
        self.is_floating_point = kind == FLOAT
        self.is_complex = kind == COMPLEX
        self.is_reduced = kind == FLOAT and itemsize < 4
        self._np: Any = None
        DTYPES[name] = self

    @property
    def np(self) -> np.dtype[Any]:
        """The NumPy dtype with the same bits (ml_dtypes for bfloat16 and float8)."""
        if self._np is None:
            self._np = _load_numpy_dtype(self.name)
            _BY_NUM[self._np.num] = self
        return self._np

    def to_real(self) -> dtype:
        """The dtype of the real part."""
        return {"complex64": float32, "complex128": float64}.get(self.name, self)

    def to_complex(self) -> dtype:
        """The complex dtype that holds this one as its real part."""
        if self.is_complex:
            return self
        return complex128 if self.name == "float64" else complex64

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _dtype_by_name, (self.name,)


def _dtype_by_name(name: str) -> dtype:
    return DTYPES[name]


def _load_numpy_dtype(name: str) -> np.dtype[Any]:
    if name.startswith(("bfloat", "float8")):
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))
    return np.dtype(name)


bool_ = dtype("bool", BOOL, 1, False)
uint8 = dtype("uint8", INT, 1, False)
int8 = dtype("int8", INT, 1, True)
int16 = dtype("int16", INT, 2, True)
int32 = dtype("int32", INT, 4, True)
int64 = dtype("int64", INT, 8, True)
uint16 = dtype("uint16", INT, 2, False)
uint32 = dtype("uint32", INT, 4, False)
uint64 = dtype("uint64", INT, 8, False)
float8_e4m3fn = dtype("float8_e4m3fn", FLOAT, 1, True)
float8_e5m2 = dtype("float8_e5m2", FLOAT, 1, True)
float8_e4m3fnuz = dtype("float8_e4m3fnuz", FLOAT, 1, True)
float8_e5m2fnuz = dtype("float8_e5m2fnuz", FLOAT, 1, True)
float16 = dtype("float16", FLOAT, 2, True)
bfloat16 = dtype("bfloat16", FLOAT, 2, True)
float32 = dtype("float32", FLOAT, 4, True)
float64 = dtype("float64", FLOAT, 8, True)
complex64 = dtype("complex64", COMPLEX, 8, True)
complex128 = dtype("complex128", COMPLEX, 16, True)

ALIASES = {"half": float16, "float": float32, "double": float64, "short": int16, "int": int32,
           "long": int64, "cfloat": complex64, "cdouble": complex128}

for _d in DTYPES.values():
    if not _d.name.startswith(("bfloat", "float8")):
        _ = _d.np
# Platforms may have two type numbers of one width (long and long long): both read as one dtype.
for _code in "bhilqBHILQ":
    _np_dtype = np.dtype(_code)
    _BY_NUM.setdefault(_np_dtype.num, DTYPES[_np_dtype.name])


def from_numpy_dtype(np_dtype: np.dtype[Any]) -> dtype:
    """The dtype of a NumPy dtype; TypeError where PyTorch has none (strings, objects, dates)."""
    found = _BY_NUM.get(np_dtype.num)
    if found is not None and np_dtype.isnative:
        return found
    named = DTYPES.get(np_dtype.name)
    if named is None or not np_dtype.isnative:
        hint = "swap its bytes first" if named else "convert the array first"
        raise TypeError(
            f"can't convert np.ndarray of type numpy.{np_dtype.name}"
            f"{'' if np_dtype.isnative else ' in foreign byte order'}. The only supported types "
            "are: float64, float32, float16, complex64, complex128, int64, int32, int16, int8, "
            f"uint64, uint32, uint16, uint8, and bool; {hint}.")
    _BY_NUM[named.np.num] = named
    return named


_WIDE_UNSIGNED = (uint16, uint32, uint64)
_PROMOTED: dict[tuple[dtype, dtype], dtype] = {}


def promote_types(type1: dtype, type2: dtype) -> dtype:
    """The smallest dtype that holds both.

    >>> import lampion as torch
    >>> torch.promote_types(torch.uint8, torch.int8)
    torch.int16
    """
    if type1 is type2:
        return type1
    found = _PROMOTED.get((type1, type2))
    if found is None:
        found = _PROMOTED[type1, type2] = _promote(type1, type2)
    return found


def _promote(a: dtype, b: dtype) -> dtype:
    for d in (a, b):
        if d.name.startswith("float8"):
            raise RuntimeError(
                "Promotion for Float8 Types is not supported, attempted to promote "
                f"{a.name} and {b.name}; convert one of them first.")
    if a in _WIDE_UNSIGNED or b in _WIDE_UNSIGNED:
        other = b if a in _WIDE_UNSIGNED else a
        if other.kind != FLOAT:
            raise RuntimeError(
                "Promotion for uint16, uint32, uint64 types is not supported, attempted to "
                f"promote {a.name} and {b.name}; convert one of them first.")
        return other
    if a.kind == COMPLEX or b.kind == COMPLEX:
        return complex128 if 16 in (a.itemsize, b.itemsize) or float64 in (a, b) else complex64
    if a.kind != b.kind:
        return a if a.kind > b.kind else b
    if a.kind == FLOAT and a.itemsize == b.itemsize:
        return float32  # float16 with bfloat16
    if uint8 in (a, b):
        other = b if a is uint8 else a
        return int16 if other is int8 else other
    return a if a.itemsize > b.itemsize else b


class finfo:
    """Limits of a floating point type: eps, max, min, tiny, smallest_normal, resolution, bits."""

    __slots__ = ("bits", "dtype", "eps", "max", "min", "resolution", "smallest_normal", "tiny")

    def __init__(self, type: dtype | None = None) -> None:
        d = type if type is not None else get_default_dtype()
        if not isinstance(d, dtype) or d.kind < FLOAT:
            raise TypeError(f"torch.finfo() requires a floating point input type, got {d}. "
                            "Use torch.iinfo to handle 'torch.finfo'")
        d = d.to_real()
        info: Any = _ml_finfo(d) if d.np.num > 255 else np.finfo(d.np)
        self.bits, self.dtype = d.itemsize * 8, d.name
        self.eps, self.max, self.min = float(info.eps), float(info.max), float(info.min)
        self.tiny = self.smallest_normal = float(info.smallest_normal)
        self.resolution = float(f"1e-{info.precision}") if d.itemsize > 1 else 1.0

    def __repr__(self) -> str:
        rows = ("resolution", "min", "max", "eps", "smallest_normal", "tiny")
        values = ", ".join(f"{row}={_six_digits(getattr(self, row))}" for row in rows)
        return f"finfo({values}, dtype={self.dtype})"


def _six_digits(value: float) -> str:
    return f"{value:g}"


def _ml_finfo(d: dtype) -> Any:
    import ml_dtypes

    return ml_dtypes.finfo(d.np)  # type: ignore[no-untyped-call]


class iinfo:
    """Limits of an integer type: min, max, bits."""

    __slots__ = ("bits", "dtype", "max", "min")

    def __init__(self, type: dtype) -> None:
        if not isinstance(type, dtype) or type.kind != INT:
            raise TypeError(f"torch.iinfo() requires an integer input type, got {type}. "
                            "Use torch.finfo to handle 'torch.iinfo'")
        info = np.iinfo(type.np)
        self.bits, self.dtype = type.itemsize * 8, type.name
        self.max, self.min = int(info.max), int(info.min)

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"


class _Default:
    """Process-wide default dtype for float values."""

    value: dtype = float32


def get_default_dtype() -> dtype:
    """The dtype that Python floats become."""
    return _Default.value


def set_default_dtype(d: dtype) -> None:
    """Sets the dtype that Python floats become; it must be a floating point dtype."""
    if not isinstance(d, dtype):
        raise TypeError(f"invalid dtype object: expected torch.dtype, received {type(d).__name__}")
    if not d.is_floating_point:
        raise TypeError("only floating-point types are supported as the default type, "
                        f"received {d}")
    _Default.value = d
