"""Python's operators on tensors, and small questions about a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.engine import backward as run_backward
from ..autograd.hooks import RemovableHandle
from ..autograd.node import NodeHooks
from ..tensor.abstract import AbstractArray
from ..tensor.tensor import Tensor, storage_of
from . import compare, elementwise
from .contraction import matmul
from .errors import wrap_dim
from .promotion import NUMBERS
from .record import op, publish

_OPERANDS = (Tensor, *NUMBERS, np.ndarray, np.generic)


def _operand(x: Any) -> Any:
    """NumPy numbers and arrays beside a tensor act as a number or as a tensor."""
    if isinstance(x, np.ndarray):
        from .creation import from_numpy

        return from_numpy(x)
    return x.item() if isinstance(x, np.generic) else x


def _forward(fn: Any) -> Any:
    def method(self: Tensor, other: Any) -> Any:
        if other.__class__ is Tensor or isinstance(other, (Tensor, *NUMBERS)):
            return fn(self, other)
        if isinstance(other, _OPERANDS):
            return fn(self, _operand(other))
        return NotImplemented
    return method


def _reflected(fn: Any) -> Any:
    def method(self: Tensor, other: Any) -> Any:
        if isinstance(other, _OPERANDS):
            return fn(_operand(other), self)
        return NotImplemented
    return method


def _assigning(name: str) -> Any:
    def method(self: Tensor, other: Any) -> Any:
        if isinstance(other, _OPERANDS):
            return getattr(self, name)(_operand(other))
        return NotImplemented
    return method


# The binary makers' own functions, without the layers that serve `alpha=` and `out=`.
_BINARY = {"add": elementwise._add, "sub": elementwise._sub, "mul": elementwise.mul.__wrapped__,
           "truediv": elementwise._true_div, "floordiv": elementwise._div_floor,
           "mod": elementwise.remainder.__wrapped__, "pow": elementwise.pow, "matmul": matmul}
for _name, _fn in _BINARY.items():
    setattr(Tensor, f"__{_name}__", _forward(_fn))
    setattr(Tensor, f"__r{_name}__", _reflected(_fn))
for _name, _method in (("add", "add_"), ("sub", "sub_"), ("mul", "mul_"), ("truediv", "div_"),
                       ("floordiv", "floor_divide_"), ("mod", "remainder_"), ("pow", "pow_"),
                       ("and", "bitwise_and_"), ("or", "bitwise_or_"), ("xor", "bitwise_xor_"),
                       ("lshift", "bitwise_left_shift_"), ("rshift", "bitwise_right_shift_")):
    setattr(Tensor, f"__i{_name}__", _assigning(_method))


def _comparison(fn: Any, absent: Any) -> Any:
    def method(self: Tensor, other: Any) -> Any:
        if isinstance(other, _OPERANDS):
            return fn(self, _operand(other))
        return absent
    return method


for _name in ("lt", "le", "gt", "ge"):
    setattr(Tensor, f"__{_name}__", _comparison(getattr(compare, _name).__wrapped__,
                                                NotImplemented))
publish("Tensor", "__eq__", _comparison(compare.eq.__wrapped__, False))
publish("Tensor", "__ne__", _comparison(compare.ne.__wrapped__, True))
publish("Tensor", "__neg__", elementwise.neg.__wrapped__)
publish("Tensor", "__pos__", lambda self: self)
publish("Tensor", "__abs__", lambda self: elementwise.abs(self))


def _iterate(self: Tensor) -> Any:
    if self._a.ndim == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter(self.unbind(0))


publish("Tensor", "__iter__", _iterate)
publish("Tensor", "__reversed__", lambda self: self if self._a.ndim == 0 else self.flip(0))


# --- questions ------------------------------------------------------------------------------------


@op("Tensor")
def size(self: Tensor, dim: int | None = None) -> Any:
    """The shape, or the size of one dimension."""
    if dim is None:
        return self.shape
    if self._a.ndim == 0:
        raise IndexError("dimension specified as 0 but tensor has no dimensions")
    return self._a.shape[wrap_dim(dim, self._a.ndim, "size")]


@op("torch Tensor", aliases="nelement")
def numel(input: Tensor) -> int:
    """The number of elements."""
    return int(input._a.size)


@op("Tensor", aliases="ndimension")
def dim(self: Tensor) -> int:
    """The number of dimensions."""
    return int(self._a.ndim)


@op("Tensor")
def element_size(self: Tensor) -> int:
    """Bytes of one element."""
    return self._dtype.itemsize


@op()
def is_floating_point(input: Tensor) -> bool:
    """Whether the elements are floating point numbers."""
    return input._dtype.is_floating_point


@op()
def is_complex(input: Tensor) -> bool:
    """Whether the elements are complex numbers."""
    return input._dtype.is_complex


@op()
def is_signed(input: Tensor) -> bool:
    """Whether the elements have a sign."""
    return input._dtype.is_signed


@op()
def is_nonzero(input: Tensor) -> bool:
    """Whether the only element is not zero."""
    return bool(input)


@op()
def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have one shape."""
    return bool(input._a.shape == other._a.shape)


@op("Tensor")
def is_set_to(self: Tensor, tensor: Tensor) -> bool:
    """Whether two tensors look at the same memory in the same way."""
    return (storage_of(self) is storage_of(tensor) and self._a.shape == tensor._a.shape
            and self.stride() == tensor.stride()
            and self.storage_offset() == tensor.storage_offset())


@op("Tensor")
def is_shared(self: Tensor) -> bool:
    """Whether the memory is shared between processes: never."""
    return False


@op("Tensor")
def is_pinned(self: Tensor, device: Any = None) -> bool:
    """Whether the memory is page-locked: never."""
    return False


@op("Tensor")
def pin_memory(self: Tensor, device: Any = None) -> Tensor:
    """The tensor itself: without an accelerator nothing needs page-locked memory."""
    return self


@op("Tensor")
def share_memory_(self: Tensor) -> Tensor:
    """The tensor itself; worker processes receive copies."""
    return self


@op("Tensor")
def get_device(self: Tensor) -> int:
    """The index of the device: -1 for main memory."""
    return -1


@op("Tensor")
def dim_order(self: Tensor) -> tuple[int, ...]:
    """Dimensions from the slowest to the fastest in memory."""
    strides = self.stride()
    return tuple(sorted(range(len(strides)), key=lambda d: (-strides[d], d)))


# --- history --------------------------------------------------------------------------------------


@op("Tensor")
def backward(self: Tensor, gradient: Any = None, retain_graph: bool | None = None,
             create_graph: bool = False, inputs: Any = None) -> None:
    """Accumulates the gradients of this tensor into the leaves it was computed from.

    >>> import lampion as torch
    >>> x = torch.tensor([1., 2.], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4.])
    """
    run_backward((self,), gradient, retain_graph, create_graph, inputs)


def _tensor_hooks(t: Tensor) -> dict[int, Any]:
    if t._fn is None:
        if t._hooks is None:
            t._hooks = {}
        return t._hooks
    if t._fn.hooks is None:
        t._fn.hooks = NodeHooks()
    return t._fn.hooks.tensor.setdefault(t._nr, {})


@op("Tensor")
def register_hook(self: Tensor, hook: Any) -> RemovableHandle:
    """Calls `hook(grad)` whenever the gradient of this tensor is computed; it may replace it."""
    if not self.requires_grad:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    return RemovableHandle.add(_tensor_hooks(self), hook)


@op("Tensor")
def register_post_accumulate_grad_hook(self: Tensor, hook: Any) -> RemovableHandle:
    """Calls `hook(tensor)` after a backward has accumulated into this leaf's `.grad`."""
    if not self.requires_grad:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    if self._fn is not None:
        raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
    if self._post_hooks is None:
        self._post_hooks = {}
    return RemovableHandle.add(self._post_hooks, hook)


@op("Tensor")
def retain_grad(self: Tensor) -> None:
    """Keeps the gradient of this non-leaf tensor in `.grad`."""
    import weakref

    if not self.requires_grad:
        raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
    if self._fn is None or self._retains_grad:
        return
    if self._fn.hooks is None:
        self._fn.hooks = NodeHooks()
    self._fn.hooks.retain[self._nr] = weakref.ref(self)
    self._retains_grad = True


def _deepcopy(self: Tensor, memo: dict[int, Any]) -> Tensor:
    """A copy with its own memory; tensors that shared memory share it in the copy too."""
    import copy

    if id(self) in memo:
        return memo[id(self)]
    if self.grad_fn is not None:
        raise RuntimeError(
            "Only Tensors created explicitly by the user (graph leaves) support the deepcopy "
            "protocol at the moment: this one was made by "
            f"{self._fn.name()}; use .detach().clone()")
    out = _copy_memory(self, memo)
    out._rg = self._rg
    if self.__class__ is not Tensor:
        out.__class__ = self.__class__
    memo[id(self)] = out
    if self._grad is not None:
        out._grad = copy.deepcopy(self._grad, memo)
    for key, value in self.__dict__.items():
        if not key.startswith("_accumulate"):
            out.__dict__[key] = copy.deepcopy(value, memo)
    return out


def _copy_memory(t: Tensor, memo: dict[int, Any]) -> Tensor:
    from ..tensor.storage import Storage
    from ..tensor.tensor import wrap

    if isinstance(t._a, AbstractArray):
        return wrap(t._a.view_as(t._a.shape, t._a.strides, t._a.offset), t._dtype)
    if t._st is None:
        return wrap(t._a.copy("K"), t._dtype)
    st = memo.get(id(t._st))
    if st is None:
        st = memo[id(t._st)] = Storage(t._st.flat.copy())
    offset = t.storage_offset() * t._dtype.itemsize
    strides = [s * t._dtype.itemsize for s in t.stride()]
    out = wrap(st.window(t._a.shape, strides, offset, t._dtype.np), t._dtype)
    out._st = st
    return out


publish("Tensor", "__deepcopy__", _deepcopy)



def _needs_sparse(name: str, layout: str) -> None:
    def call(self: Tensor) -> Any:
        raise RuntimeError(f"{name} expected {layout} tensor layout but got Strided: lampion's "
                           "tensors are dense")
    call.__name__, call.__doc__ = name, "Of sparse tensors only: an error on dense ones."
    op("Tensor")(call)


for _name in ("indices", "coalesce", "is_coalesced"):
    _needs_sparse(_name, "sparse coordinate")
_needs_sparse("values", "sparse")


@op("Tensor")
def to_dense(self: Tensor, dtype: Any = None, *, masked_grad: bool | None = None) -> Tensor:
    """The tensor itself, in `dtype`: all tensors are dense."""
    return self if dtype is None else self.to(dtype)


@op("torch")
def is_storage(obj: Any) -> bool:
    """Whether `obj` is a storage."""
    return type(obj).__name__.endswith("Storage")
