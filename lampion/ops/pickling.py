"""Pickling of tensors: their elements, dtype and class; not their history or hooks."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor.abstract import AbstractArray
from ..tensor.dtype import dtype
from ..tensor.tensor import Tensor, wrap
from .record import publish

__all__: list[str] = []

_BITS = {1: np.uint8, 2: np.uint16}


def _reduce(self: Tensor, protocol: Any) -> tuple[Any, ...]:
    """A tensor pickles by its elements; with protocol 5 they may travel outside the pickle."""
    cls = type(self)
    if isinstance(self._a, AbstractArray):
        return _rebuild_meta, (cls, tuple(self.shape), self.stride(), self._dtype, self._rg)
    array = self._a
    if array.dtype.num > 255:  # NumPy's pickles know only its own dtypes
        array = np.ascontiguousarray(array).reshape(array.shape).view(_BITS[array.itemsize])
    return _rebuild, (cls, array, self._dtype, self._rg)


def _rebuild(cls: Any, array: Any, element: dtype, requires_grad: bool) -> Tensor:
    return _finish(wrap(array.view(element.np), element), cls, requires_grad)


def _rebuild_meta(
    cls: Any, shape: Any, stride: Any, element: dtype, requires_grad: bool
) -> Tensor:
    from .creation import empty_strided

    meta = empty_strided(shape, stride, dtype=element, device="meta")
    return _finish(meta, cls, requires_grad)


def _finish(tensor: Tensor, cls: Any, requires_grad: bool) -> Tensor:
    if cls is not Tensor:
        tensor.__class__ = cls
    tensor._rg = requires_grad
    return tensor


publish("Tensor", "__reduce_ex__", _reduce)
