"""Copies and conversions: dtype, device, memory format, detach."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.modes import state
from ..autograd.node import refresh
from ..tensor import devices
from ..tensor.abstract import AbstractArray
from ..tensor.dtype import (
    COMPLEX,
    FLOAT,
    bfloat16,
    bool_,
    complex64,
    complex128,
    dtype,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
)
from ..tensor.formats import contiguous_format, memory_format
from ..tensor.strides import is_contiguous as dense
from ..tensor.tensor import Tensor, alias, storage_of, wrap
from .errors import allocating, argument_type
from .families import Array
from .forms import bump, check_overlap, check_writable, convert_array, copy_array, write
from .record import leaf, op

__all__ = ["cast_to"]


def _cast_grad(g: Any, input_dtype: dtype) -> Any:
    if g._dtype.kind == COMPLEX and input_dtype.kind != COMPLEX:
        g = g.real
    return cast_to(g, input_dtype)


@leaf({"input": _cast_grad}, name="to_copy", exact=True,
      shape=lambda a, d: (a.shape, d.np))
def _converted(input: Array, dtype: dtype) -> Array:
    return convert_array(input, dtype.np) if input.dtype.num != dtype.np.num else input.copy("K")


def _to_copy(t: Tensor, d: dtype) -> Tensor:
    """`t` in another dtype; integers and bools have no gradient."""
    if d.kind >= FLOAT or not state.grad:
        return _converted(t, d)
    state.grad = False
    try:
        return _converted(t, d)
    finally:
        state.grad = True


def cast_to(t: Tensor, d: dtype) -> Tensor:
    """`t` in dtype `d`: itself, or a recorded conversion."""
    return t if t._dtype is d else _to_copy(t, d)


@leaf({"input": lambda g: g}, name="clone", exact=True, shape=lambda a, _: (a.shape, a.dtype))
def _clone(input: Array, order: Any) -> Array:
    return input.copy("K") if order is None else _in_format(input, order)


def _in_format(a: np.ndarray[Any, Any], form: memory_format) -> np.ndarray[Any, Any]:
    """A copy of `a` with its dimensions laid out in the given memory format."""
    if form is contiguous_format:
        return a.copy("C")
    if a.ndim != form.ndim:
        raise RuntimeError(f"required rank {form.ndim} tensor to use {form.name} format; received "
                           f"a tensor of rank {a.ndim}")
    channel_last = (0, *range(2, a.ndim), 1)
    back = (0, a.ndim - 1, *range(1, a.ndim - 1))
    return a.transpose(channel_last).copy("C").transpose(back)


def _layout(form: Any) -> Any:
    """None for preserve_format, otherwise the format asked for."""
    return None if form is None or form.name == "preserve_format" else form


@op()
def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy with its own memory; gradients flow through."""
    return _clone(input, _layout(memory_format))


def _is_in_format(a: Any, form: memory_format) -> bool:
    if form is contiguous_format:
        return dense(a)
    if a.ndim != form.ndim:
        return False
    order = (0, *range(2, a.ndim), 1)
    return dense(a.transpose(order))


@op("Tensor")
def is_contiguous(self: Tensor, memory_format: Any = contiguous_format) -> bool:
    """Whether the elements lie densely in the given format's order."""
    return _is_in_format(self._a, memory_format)


@op("Tensor")
def contiguous(self: Tensor, memory_format: Any = contiguous_format) -> Tensor:
    """The tensor itself if it is dense in the given format, else a copy that is."""
    if _is_in_format(self._a, memory_format):
        return self
    return _clone(self, memory_format)


_DTYPE, _DEVICE, _TENSOR = dtype, devices.device, Tensor


def _parse_to(args: tuple[Any, ...]) -> dict[str, Any]:
    """The positional forms of `to`: (dtype), (device), (device, dtype), (tensor)."""
    found: dict[str, Any] = {}
    rest = list(args)
    if rest and isinstance(rest[0], Tensor):
        other = rest.pop(0)
        found.update(dtype=other._dtype, device=other.device)
    else:
        if rest and (rest[0] is None or isinstance(rest[0], (str, int, _DEVICE))) and not (
                isinstance(rest[0], bool)):
            found["device"] = rest.pop(0)
        if rest and (rest[0] is None or isinstance(rest[0], _DTYPE)):
            found["dtype"] = rest.pop(0)
    for key, value in zip(("non_blocking", "copy"), rest, strict=False):
        if not isinstance(value, bool):
            raise TypeError("to() received an invalid combination of arguments: expected (dtype), "
                            "(device, dtype), or (tensor), each with non_blocking and copy; "
                            f"received {', '.join(type(a).__name__ for a in args)}")
        found[key] = value
    return found


@op("Tensor")
def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The tensor in another dtype or on another device; itself if nothing changes.

    >>> import lampion as torch
    >>> torch.ones(2).to(torch.int64)
    tensor([1, 1])
    """
    found = {**_parse_to(args), **kwargs}
    unknown = found.keys() - {"dtype", "device", "non_blocking", "copy", "memory_format", "other"}
    if unknown:
        raise TypeError(f"to() got an unexpected keyword argument '{unknown.pop()}'")
    if isinstance(found.get("other"), Tensor):
        found.update(dtype=found["other"]._dtype, device=found["other"].device)
    target = self
    if found.get("device") is not None:
        target = _move(self, devices.resolve(found["device"]))
    d = found.get("dtype")
    if d is not None and not isinstance(d, _DTYPE):
        raise argument_type("to", "dtype", "torch.dtype", d)
    if d is not None and d is not target._dtype:
        target = _to_copy(target, d)
    elif found.get("copy") and target is self:
        target = _clone(self, None)
    form = _layout(found.get("memory_format"))
    return target if form is None else contiguous(target, form)


@leaf({"input": lambda g, input_shape: g}, name="to_device", exact=True, node="ToCopyBackward0",
      shape=lambda a: (a.shape, a.dtype))
def _forget(input: Array) -> Array:
    return input


def _move(t: Tensor, where: devices.device) -> Tensor:
    if t.device == where:
        return t
    if where is devices.META:
        out = wrap(AbstractArray(t._a.shape, t._dtype.np, t._a.strides), t._dtype)
        if t._rg and state.grad:
            from ..autograd.node import record

            record(_forget, out, (t,), ())
        return out
    raise NotImplementedError("Cannot copy out of meta tensor; no data! Use Tensor.to_empty() or "
                              "Module.to_empty() to allocate memory, then fill it")


def _short_form(name: str, d: dtype) -> None:
    def call(self: Tensor, memory_format: Any = None) -> Tensor:
        out = cast_to(self, d)
        form = _layout(memory_format)
        return out if form is None else contiguous(out, form)
    call.__name__, call.__doc__ = name, f"The tensor as {d}."
    op("Tensor")(call)


for _name, _d in {"float": float32, "double": float64, "half": float16, "bfloat16": bfloat16,
                  "long": int64, "int": int32, "short": int16, "char": int8, "byte": uint8,
                  "bool": bool_, "cfloat": complex64, "cdouble": complex128}.items():
    _short_form(_name, _d)


@op("Tensor")
def type_as(self: Tensor, other: Tensor) -> Tensor:
    """The tensor in the dtype of `other`."""
    return cast_to(self, other._dtype)


@op("Tensor")
def cpu(self: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor in main memory."""
    return _move(self, devices.CPU)


@op("Tensor")
def cuda(self: Tensor, device: Any = None, non_blocking: bool = False,
         memory_format: Any = None) -> Tensor:
    """The tensor on a CUDA device: an error, lampion has none yet."""
    raise devices.absent(devices.device("cuda" if device is None else device))


# --- outside the history --------------------------------------------------------------------------


@op()
def detach(input: Tensor) -> Tensor:
    """The same memory, outside the recorded history."""
    out = alias(input)
    out._st = storage_of(input)
    if type(input) is not Tensor and type(input).__name__ not in ("Parameter", "Buffer"):
        out.__class__ = type(input)
    return out


@op("Tensor")
def detach_(self: Tensor) -> Tensor:
    """Takes the tensor itself out of the recorded history."""
    if self._base is not None:
        raise RuntimeError("Can't detach views in-place. Use detach() instead.")
    self._fn, self._nr, self._rg = None, 0, False
    return self


op("torch")(detach_)


@op("Tensor")
def requires_grad_(self: Tensor, requires_grad: bool = True) -> Tensor:
    """Starts (or stops) recording operations on this leaf."""
    _set_requires_grad(self, requires_grad)
    return self


def _set_requires_grad(self: Tensor, value: Any) -> None:
    value = bool(value)
    if value and self._dtype.kind < FLOAT:
        raise RuntimeError("only Tensors of floating point and complex dtype can require "
                           f"gradients, received {self._dtype}")
    if self._base is not None:
        refresh(self)
    if self._fn is not None:
        if not value:
            raise RuntimeError("you can only change requires_grad flags of leaf variables. If you "
                               "want to use a computed variable in a subgraph that doesn't require "
                               "differentiation use var_no_grad = var.detach().")
        return
    if value and self._is_inference and not state.inference:
        raise RuntimeError("Setting requires_grad=True on inference tensor outside InferenceMode "
                           "is not allowed.")
    self._rg = value


def _set_data(self: Tensor, value: Any) -> None:
    """`t.data = other`: takes over memory, shape and dtype, keeping the tensor's identity."""
    if not isinstance(value, Tensor):
        raise TypeError(f"Variable data has to be a tensor, but got {type(value).__name__}")
    if self._dtype.kind >= FLOAT > value._dtype.kind and self._rg:
        raise RuntimeError("data set to a tensor that requires gradients must be floating point "
                           "or complex dtype")
    self._a, self._dtype = value._a, value._dtype
    version = 0 if self._st is None else self._st.version
    self._st = storage_of(value).twin()
    self._st.version = version


@op("Tensor")
def set_(self: Tensor, source: Any = None, storage_offset: int = 0, size: Any = None,
         stride: Any = None) -> Tensor:
    """Makes the tensor look at the memory of `source`."""
    if source is None:
        source = wrap(np.empty(0, self._dtype.np))
    if isinstance(source, Tensor) and size is None:
        self._a, self._dtype, self._st = source._a, source._dtype, storage_of(source)
        return self
    if isinstance(source, Tensor):
        st = storage_of(source)
    else:
        st = source._storage
        st.open()
    width = self._dtype.itemsize
    from ..tensor.abstract import contiguous_strides

    if min((*(size or ()), *(stride or ()), storage_offset), default=0) < 0:
        raise RuntimeError("set_(): sizes, strides and the storage offset must not be negative: "
                           f"received {size}, {stride}, {storage_offset}")
    shape = tuple(size) if size is not None else (st.nbytes // width - storage_offset,)
    steps = contiguous_strides(shape, width) if stride is None else tuple(
        s * width for s in stride)
    self._a, self._st = st.window(shape, steps, storage_offset * width, self._dtype.np), st
    return self


@op("Tensor")
def untyped_storage(self: Tensor) -> Any:
    """The memory of the tensor and its views, as bytes."""
    from .memory import UntypedStorage

    st = storage_of(self)
    st.open()
    return UntypedStorage._of(st)


@op("Tensor")
def storage(self: Tensor) -> Any:
    """The memory as elements of the tensor's type (deprecated: use `untyped_storage`)."""
    from .memory import TypedStorage

    return TypedStorage(wrap_storage=untyped_storage(self), dtype=self._dtype)


@op("Tensor")
def storage_type(self: Tensor) -> Any:
    """The legacy storage class of the tensor's dtype."""
    from .memory import LEGACY, STORAGE_NAMES, TypedStorage

    return LEGACY.get(f"{STORAGE_NAMES.get(self._dtype.name)}Storage", TypedStorage)


# --- writing --------------------------------------------------------------------------------------


@op("Tensor")
def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Writes the elements of `src`, broadcast and converted, into the tensor."""
    if not isinstance(src, Tensor):
        src = Tensor._scalar(src, self._dtype)
    check_writable(self, "copy_")
    if state.grad and (src._rg or self._rg):
        return write(self, cast_to(src, self._dtype).expand(self._a.shape), "copy_")
    try:
        np.broadcast_shapes(self._a.shape, src._a.shape)
        check_overlap(self, "copy_")
        copy_array(self, src)
    except ValueError:
        from .errors import broadcast_mismatch

        raise broadcast_mismatch("copy_", (self._a.shape, src._a.shape)) from None
    bump(self, "copy_")
    return self


@op("Tensor")
@allocating
def resize_(self: Tensor, *size: Any, memory_format: Any = None) -> Tensor:
    """Changes shape and, where needed, the amount of memory; new elements are undefined."""
    shape = _size_of(size)
    if self._rg and state.grad:
        raise RuntimeError("cannot resize variables that require grad")
    count = 1
    for n in shape:
        count *= n
    st = storage_of(self)
    width = self._dtype.itemsize
    if type(self._a) is AbstractArray:
        self._a = AbstractArray(shape, self._dtype.np)
    elif count * width <= st.nbytes:
        from ..tensor.abstract import contiguous_strides

        self._a = st.window(shape, contiguous_strides(shape, width),
                            self.storage_offset() * width, self._dtype.np)
    else:
        grown = np.empty(shape, self._dtype.np)
        kept = self._a.reshape(-1)
        grown.reshape(-1)[:kept.size] = kept
        self._a = grown
        st.array, st._flat = grown, None
    return self


def _size_of(size: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes given as one sequence or as several numbers."""
    if len(size) == 1 and not isinstance(size[0], (int, Tensor)):
        size = tuple(size[0])
    return tuple(int(n) for n in size)


@op("Tensor")
def resize_as_(self: Tensor, other: Tensor, memory_format: Any = None) -> Tensor:
    """Resizes the tensor to the shape of `other`."""
    return resize_(self, other._a.shape)


def _scalar(value: Any, d: dtype) -> Tensor:
    """A 0-d tensor of a Python number."""
    return wrap(np.array(value, d.np), d)



Tensor._cast = staticmethod(cast_to)  # type: ignore[attr-defined]
Tensor._scalar = staticmethod(_scalar)  # type: ignore[attr-defined]
Tensor._require_grad = staticmethod(_set_requires_grad)  # type: ignore[assignment]
Tensor._set_data = staticmethod(_set_data)  # type: ignore[assignment]
