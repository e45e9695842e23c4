"""Conversions between tensors and the outside: Python numbers, NumPy, DLPack, copies."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from .tensor import Tensor


def _open(t: Any) -> None:
    from .tensor import storage_of

    storage_of(t).open()


def _number(t: Any, what: str) -> Any:
    a = concrete(t, what)
    if a.size != 1:
        raise ValueError("only one element tensors can be converted to Python scalars: "
                         f"{what} received shape {tuple(a.shape)}; use tolist(), or reduce it")
    return _to_python(a)


class Interop:
    """Methods of `Tensor` that hand its elements to Python or to other libraries."""

    __slots__ = ()

    def item(self) -> Any:
        """The only element as a Python number; RuntimeError if there are more or none."""
        a = concrete(self, "item()")
        if a.size != 1:
            raise RuntimeError(f"a Tensor with {a.size} elements cannot be converted to Scalar: "
                               f"item() received shape {tuple(a.shape)}; use tolist()")
        return _to_python(a)

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        a = concrete(self, "tolist()")
        try:
            return (a if a.dtype.num < 256 else a.astype(np.float32)).tolist()
        except MemoryError:
            raise RuntimeError(f"can't allocate memory: tolist() of {a.size} elements") from None

    def numpy(self, *, force: bool = False) -> np.ndarray[Any, Any]:
        """The same memory as a NumPy array (bfloat16 and float8 as ml_dtypes arrays)."""
        t = cast("Tensor", self)
        if t.requires_grad and not force:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use "
                               "tensor.detach().numpy() instead.")
        a = concrete(self, "numpy()")
        if t._dtype.name == "bfloat16" and not force:
            raise TypeError("Got unsupported ScalarType BFloat16: NumPy has no such type. Convert "
                            "with .float() first, or use numpy(force=True) for an ml_dtypes array.")
        _open(t)
        return a

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        a = self.numpy()
        if dtype is not None and a.dtype != dtype:
            return a.astype(dtype)
        return a.copy() if copy else a

    def __array_wrap__(self, array: np.ndarray[Any, Any], context: Any = None,
                       return_scalar: bool = False) -> Any:
        from .tensor import wrap

        made = wrap(np.asarray(array))
        _open(made)
        return made

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None,
                   copy: bool | None = None) -> Any:
        """A DLPack capsule of the same memory."""
        t = cast("Tensor", self)
        if t.requires_grad:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        a = concrete(self, "__dlpack__()")
        _open(t)
        return a.__dlpack__(max_version=max_version, dl_device=dl_device, copy=copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __bool__(self) -> bool:
        a = concrete(self, "bool()")
        if a.size != 1:
            raise RuntimeError(
                f"Boolean value of Tensor with {'no' if a.size == 0 else 'more than one'} value"
                f"{'s' if a.size == 0 else ''} is ambiguous: received shape {tuple(a.shape)}; "
                "use .any(), .all() or .item()")
        return bool(a.reshape(()))

    def __float__(self) -> float:
        return float(_number(self, "float()"))

    def __int__(self) -> int:
        return int(_number(self, "int()"))

    def __complex__(self) -> complex:
        return complex(_number(self, "complex()"))

    def __index__(self) -> int:
        a = concrete(self, "__index__()")
        if a.dtype.kind not in "iub" or a.size != 1:
            raise TypeError("only integer tensors of a single element can be converted to an "
                            f"index; received shape {tuple(a.shape)} of {self.dtype}")  # type: ignore[attr-defined]
        return operator.index(a.reshape(()).item())

    def __len__(self) -> int:
        t = cast("Tensor", self)
        if t._a.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return int(t._a.shape[0])

    def __contains__(self, element: Any) -> bool:
        from .tensor import Tensor

        if not isinstance(element, (Tensor, bool, int, float, complex)):
            raise RuntimeError(f"Tensor.__contains__ only supports Tensor or scalar, but you "
                               f"passed in a {type(element)}.")
        return bool((cast("Tensor", self) == element).any())


def concrete(tensor: Any, what: str) -> np.ndarray[Any, Any]:
    """The elements of `tensor`; an error that names `what` if it has none to give."""
    a = tensor._a
    if type(a) is np.ndarray:
        return a
    if a.recorder is not None:
        return a.recorder.materialize(tensor, what)
    raise RuntimeError(f"Tensor.{what} cannot be called on meta tensors: received shape "
                       f"{tuple(a.shape)} without data; move it with .to_empty() or make it on "
                       "device='cpu'")


def _to_python(a: np.ndarray[Any, Any]) -> Any:
    value = a.reshape(()).item()
    return value if a.dtype.num < 256 else float(value)
