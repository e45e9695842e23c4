"""Complex numbers: construction, conjugate, angle."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor.dtype import BOOL, COMPLEX, FLOAT, float32, float64
from ..tensor.tensor import Tensor
from .errors import argument_type
from .families import Array, broadcast_shape
from .promotion import cast, float_dtype
from .record import leaf, op, same_shape


@leaf({"input": lambda g: g.conj()}, name="conj_physical", shape=same_shape)
def _conj(input: Array) -> Array:
    return np.conjugate(input)


@op()
def conj(input: Tensor) -> Tensor:
    """The complex conjugate; computed at once (PyTorch marks a view and computes later)."""
    return _conj(input) if input._dtype.kind == COMPLEX else input


@op(inplace=True, out=True)
def conj_physical(input: Tensor) -> Tensor:
    """The complex conjugate, computed at once."""
    return conj(input)


@op(aliases="resolve_neg")
def resolve_conj(input: Tensor) -> Tensor:
    """The tensor itself: conjugates are never pending here."""
    return input


@op(aliases="is_neg")
def is_conj(input: Tensor) -> bool:
    """Whether a conjugation is pending: never."""
    return False


@leaf({"real": lambda g: g.real, "imag": lambda g: g.imag}, name="complex", broadcasts=True)
def _complex(real: Array, imag: Array) -> Array:
    out = np.empty(np.broadcast_shapes(real.shape, imag.shape),
                   np.complex64 if real.dtype == np.float32 else np.complex128)
    out.real, out.imag = real, imag
    return out


@op("torch", out=True)
def complex(real: Tensor, imag: Tensor) -> Tensor:
    """A complex tensor of its real and imaginary parts (both float32 or both float64)."""
    if real._dtype not in (float32, float64) or imag._dtype is not real._dtype:
        raise RuntimeError("Expected both inputs to be Half, Float or Double tensors of one dtype "
                           f"but got {real._dtype.name} and {imag._dtype.name}")
    broadcast_shape("complex", real._a.shape, imag._a.shape)
    return _complex(real, imag)


@op("torch", out=True)
def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """A complex tensor of moduli and angles."""
    for argument, t in (("abs", abs), ("angle", angle)):
        if not isinstance(t, Tensor):
            raise argument_type("polar", argument, "Tensor", t)
    if abs._dtype is not angle._dtype or abs._dtype.kind != FLOAT:
        raise RuntimeError(f"Expected object of scalar type {abs._dtype.name} but got scalar type "
                           f"{angle._dtype.name} for second argument")
    return complex(abs * angle.cos(), abs * angle.sin())


def _angle_grad(g: Any, input: Any) -> Any:
    if input._dtype.kind != COMPLEX:
        return g * 0
    size = input.abs()
    turned = complex(-input.imag, input.real) / (size * size)
    return (g * turned).masked_fill(size == 0, 0)


def _angle(a: Array) -> Array:
    return np.angle(a).astype(a.real.dtype) if a.dtype.kind == "c" else np.where(
        np.isnan(a), a, np.where(a < 0, np.pi, 0)).astype(a.dtype)


@leaf({"input": _angle_grad}, name="angle",
      shape=lambda a: (a.shape, np.zeros((), a.dtype).real.dtype))
def _angle_leaf(input: Array) -> Array:
    return _angle(input)


@op(out=True)
def angle(input: Tensor) -> Tensor:
    """The angle in the complex plane, in radians."""
    return _angle_leaf(cast(input, float_dtype(input._dtype)))


@op()
def positive(input: Tensor) -> Tensor:
    """The tensor itself; bools have no sign."""
    if input._dtype.kind == BOOL:
        raise RuntimeError("The `+` operator, on a bool tensor is not supported.")
    return input
