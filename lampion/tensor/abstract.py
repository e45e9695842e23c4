"""Arrays without data: shape, strides and element type only.

`AbstractArray` stands where an ndarray stands in a tensor of the meta device, and (with a
`recorder`) in a tensor that records instead of computing. NumPy functions refuse it with
`AbstractOperand`, which the fast paths of `ops` catch.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

__all__ = ["AbstractArray", "AbstractOperand", "contiguous_strides"]


class AbstractOperand(NotImplementedError):
    """A NumPy function met an array that has no data."""

    def __init__(self, what: str = "this operator") -> None:
        super().__init__(f"{what} has no rule yet for tensors without data (device 'meta', or "
                         "inside a capture): run it on device 'cpu', outside of the capture")


@lru_cache(1 << 12)
def contiguous_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Row-major strides in bytes (dimensions of size 0 count as 1, as in PyTorch)."""
    strides, step = [], itemsize
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


class AbstractArray:
    """An ndarray without memory: shape, strides and offset in bytes, dtype; views work on it."""

    __slots__ = ("dtype", "offset", "recorder", "shape", "strides", "value", "_whole")

    shape: tuple[int, ...]

    def __init__(self, shape: tuple[int, ...], np_dtype: np.dtype[Any],
                 strides: tuple[int, ...] | None = None, offset: int = 0,
                 storage_nbytes: int | None = None, recorder: Any = None,
                 value: Any = None) -> None:
        self.shape, self.dtype, self.offset = shape, np_dtype, offset
        self.strides = (contiguous_strides(shape, np_dtype.itemsize)
                        if strides is None else strides)
        self._whole = storage_nbytes
        self.recorder, self.value = recorder, value

    def __array_ufunc__(self, *args: Any, **kwargs: Any) -> Any:
        raise AbstractOperand

    def __array_function__(self, *args: Any, **kwargs: Any) -> Any:
        raise AbstractOperand

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise AbstractOperand

    def _refuse(self, *args: Any) -> Any:
        raise AbstractOperand

    __neg__ = __invert__ = __abs__ = __pow__ = __rpow__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _refuse

    def __getattr__(self, name: str) -> Any:
        """A NumPy method that needs elements."""
        raise AbstractOperand(name)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        count = 1
        for n in self.shape:
            count *= n
        return count

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    @property
    def storage_nbytes(self) -> int:
        """Bytes of the memory that this shows, perhaps a part of."""
        return self.nbytes if self._whole is None else self._whole

    @property
    def base(self) -> None:
        return None

    def view_as(self, shape: tuple[int, ...], strides: tuple[int, ...], offset: int,
                np_dtype: np.dtype[Any] | None = None) -> AbstractArray:
        """Another window on the same (absent) memory."""
        return AbstractArray(shape, np_dtype or self.dtype, strides, offset, self.storage_nbytes,
                             self.recorder, None)
