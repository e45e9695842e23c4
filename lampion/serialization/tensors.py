"""Tensors from the arguments that PyTorch's files have for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import ops
from ..tensor import Tensor, dtype, wrap
from ..tensor.formats import layout as layout_type
from .machine import UnpicklingError
from .storages import LoadedStorage

__all__ = ["BUILDERS", "layout"]

_MOST_DIMS = 64  # NumPy's limit


def _tensor_v2(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any,
    metadata: Any = None,
) -> Tensor:
    """A tensor of its storage's element type."""
    if not isinstance(storage, LoadedStorage) or storage.dtype is None:
        raise UnpicklingError("the pickle builds a tensor on something that is no typed storage")
    return _tensor(storage, storage.dtype, offset, size, stride, requires_grad, metadata)


def _tensor_v1(storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    return _tensor_v2(storage, offset, size, stride, False, None)


def _tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, kind: Any,
    metadata: Any = None,
) -> Tensor:
    """A tensor that names its element type, on untyped bytes."""
    if not isinstance(storage, LoadedStorage) or not isinstance(kind, dtype):
        raise UnpicklingError("the pickle builds a tensor on something that is no storage")
    return _tensor(storage, kind, offset, size, stride, requires_grad, metadata)


def _tensor(
    storage: LoadedStorage, kind: dtype, offset: Any, size: Any, stride: Any, requires_grad: Any,
    metadata: Any,
) -> Tensor:
    _check_geometry(offset, size, stride)
    if storage.location == "meta":
        return _meta_tensor(kind, size, stride, requires_grad)
    width = kind.itemsize
    _check_bounds(storage, kind, offset, size, stride)
    memory = storage.storage
    array = memory.window(size, [s * width for s in stride], offset * width, kind.np)
    tensor = wrap(array, kind)
    tensor._st = memory
    if isinstance(metadata, dict) and metadata.get("conj"):
        tensor = tensor.conj().clone()
    return tensor.requires_grad_(True) if requires_grad else tensor


def _check_geometry(offset: Any, size: Any, stride: Any) -> None:
    numbers = [offset, *size, *stride]
    if any(type(n) is not int or not 0 <= n < 1 << 62 for n in numbers):
        raise UnpicklingError(f"a tensor cannot have size {size}, stride {stride}, offset {offset}")
    if len(size) != len(stride) or len(size) > _MOST_DIMS:
        raise UnpicklingError(f"a tensor cannot have {len(size)} sizes and {len(stride)} strides")


def _check_bounds(
    storage: LoadedStorage, kind: dtype, offset: int, size: Sequence[int], stride: Sequence[int]
) -> None:
    """Refuse a tensor that would reach outside its storage."""
    if 0 in size:
        return
    last = offset + sum((n - 1) * s for n, s in zip(size, stride))
    held = storage.storage.nbytes // kind.itemsize
    if last >= held:
        raise UnpicklingError(
            f"setStorage: sizes {list(size)}, strides {list(stride)}, storage offset {offset} "
            f"are out of bounds for storage of {held} elements"
        )


def _meta_tensor(kind: Any, size: Any, stride: Any, requires_grad: Any) -> Tensor:
    """A tensor with a shape but no elements."""
    _check_geometry(0, size, stride)
    if not isinstance(kind, dtype):
        raise UnpicklingError("a meta tensor names no element type")
    tensor = ops.empty_strided(tuple(size), tuple(stride), dtype=kind, device="meta")
    return tensor.requires_grad_(True) if requires_grad else tensor


def _parameter(data: Any, requires_grad: Any, hooks: Any, state: Any = None) -> Tensor:
    from ..nn import Parameter

    if not isinstance(data, Tensor):
        raise UnpicklingError("the pickle makes a parameter of something that is no tensor")
    return Parameter(data, bool(requires_grad))


def _typed(function: Any, kind: Any, args: Any, state: Any) -> Any:
    """A tensor that had a class or attributes of its own: the plain tensor."""
    from .machine import Builder

    if not isinstance(function, Builder) or function.name.rpartition(".")[2] not in BUILDERS:
        raise UnpicklingError("the pickle builds a tensor with something other than a builder")
    return function.call(*args)


def layout(name: Any = "torch.strided") -> Any:
    """The layout that `name` stands for."""
    from ..tensor import formats

    found = getattr(formats, str(name).rpartition(".")[2], None)
    if not isinstance(found, layout_type):
        raise UnpicklingError(f"unknown layout {name!r}")
    return found


BUILDERS: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor": _tensor_v1,
    "_rebuild_tensor_v2": _tensor_v2,
    "_rebuild_tensor_v3": _tensor_v3,
    "_rebuild_parameter": _parameter,
    "_rebuild_parameter_with_state": _parameter,
    "_rebuild_meta_tensor_no_storage": _meta_tensor,
    "_rebuild_from_type_v2": _typed,
}
