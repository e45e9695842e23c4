"""Tensors that belong to modules: parameters, buffers, and their uninitialised forms."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from ..autograd.modes import no_grad
from ..tensor import Tensor, get_default_dtype

__all__ = [
    "Buffer",
    "Parameter",
    "UninitializedBuffer",
    "UninitializedParameter",
    "UninitializedTensorMixin",
    "is_lazy",
]


def _adopt(cls: Any, data: Any, requires_grad: bool) -> Any:
    """A new tensor of class `cls` on the memory of `data`, outside its history."""
    from .. import ops

    if data is None:
        data = ops.empty(0)
    if not isinstance(data, Tensor):
        raise TypeError(
            f"{cls.__name__}() expects a Tensor, received {type(data).__name__}: use torch.tensor()"
        )
    source = data.detach()
    new: Any = object.__new__(cls)
    for slot in ("_a", "_dtype", "_st", "_base", "_nr", "_epoch"):
        setattr(new, slot, getattr(source, slot))
    new._base = new._fn = new._grad = None
    new._rg = False
    if requires_grad:
        new.requires_grad_(True)
    return new


class Parameter(Tensor):
    """A tensor that a module trains: assigning one to a module registers it.

    >>> import lampion as torch
    >>> torch.nn.Parameter(torch.ones(2))
    Parameter containing:
    tensor([1., 1.], requires_grad=True)
    """

    def __new__(cls, data: Any = None, requires_grad: bool = True) -> Parameter:
        return _adopt(cls, data, requires_grad)

    def __init__(self, data: Any = None, requires_grad: bool = True) -> None:
        pass

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) in memo:
            return memo[id(self)]
        with no_grad():
            new = type(self)(self.data.clone(), self.requires_grad)
            if self._grad is not None:
                new.grad = self._grad.detach().clone()
        memo[id(self)] = new
        return new

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        plain = self.detach().requires_grad_(self.requires_grad)
        return f"Parameter containing:\n{plain!r}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild_parameter, (self.data, self.requires_grad, OrderedDict())


def _rebuild_parameter(data: Tensor, requires_grad: bool, backward_hooks: Any) -> Parameter:
    return Parameter(data, requires_grad)


class Buffer(Tensor):
    """A tensor that a module keeps but does not train: assigning one registers it.

    `persistent=False` keeps it out of `state_dict`.
    """

    persistent: bool

    def __new__(cls, data: Any = None, *, persistent: bool = True) -> Buffer:
        new = _adopt(cls, data, isinstance(data, Tensor) and data.requires_grad)
        new.persistent = persistent
        return new

    def __init__(self, data: Any = None, *, persistent: bool = True) -> None:
        pass

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.data.clone(), persistent=self.persistent)
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild_buffer, (self.data, self.persistent)


def _rebuild_buffer(data: Tensor, persistent: bool) -> Buffer:
    return Buffer(data, persistent=persistent)


_REFUSED = (
    "Can't access the shape of an uninitialized parameter or buffer. This error usually happens in "
    "`load_state_dict` when trying to load an uninitialized parameter into an initialized one. "
    "Call `forward` to initialize the parameters before accessing their attributes."
)


class UninitializedTensorMixin:
    """A tensor whose shape is not known yet; it gets one through `materialize`."""

    cls_to_become: Any
    __class__: Any

    def materialize(self, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Allocate memory of `shape` (undefined values) and become an ordinary tensor."""
        from .. import ops

        own: Any = self
        kind = own._dtype if dtype is None else dtype
        place = own.__dict__.get("_lazy_device") if device is None else device
        with no_grad():
            own._a, own._dtype = (t := ops.empty(shape, dtype=kind, device=place))._a, kind
            own._st = t._st
        own.__class__ = self.cls_to_become

    @property
    def shape(self) -> Any:
        raise RuntimeError(_REFUSED)

    @property
    def is_leaf(self) -> bool:
        return True

    def share_memory_(self) -> Any:
        raise RuntimeError(
            "Can't share memory on an uninitialized parameter or buffer. Call `forward` to "
            "initialize the parameters before calling `module.share_memory()`."
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            own: Any = self
            place = own.__dict__.get("_lazy_device")
            memo[id(self)] = own.__class__(own._rg, place, own._dtype)
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        own: Any = self
        return type(self), (own._rg, own.__dict__.get("_lazy_device"), own._dtype)

    # The few methods that a module without sizes must still answer.

    def _converted(self, dtype: Any) -> Any:
        own: Any = self
        own._dtype = own._dtype if dtype is None else dtype
        return self

    def float(self) -> Any:
        """Remember float32 as the dtype to be."""
        from ..tensor import float32

        return self._converted(float32)

    def double(self) -> Any:
        """Remember float64 as the dtype to be."""
        from ..tensor import float64

        return self._converted(float64)

    def half(self) -> Any:
        """Remember float16 as the dtype to be."""
        from ..tensor import float16

        return self._converted(float16)

    def cpu(self) -> Any:
        """The CPU is where it will be."""
        self.__dict__["_lazy_device"] = "cpu"
        return self

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Remember the dtype and the device to be."""
        from .modules.module import _parse_to

        device, dtype, *_ = _parse_to(args, kwargs)
        if device is not None:
            self.__dict__["_lazy_device"] = device
        return self._converted(dtype)


def _uninitialized(cls: Any, requires_grad: bool, device: Any, dtype: Any) -> Any:
    from .. import ops

    new = _adopt(cls, ops.empty(0, dtype=get_default_dtype() if dtype is None else dtype), False)
    new._rg = requires_grad
    new.__dict__["_lazy_device"] = device
    return new


class UninitializedParameter(UninitializedTensorMixin, Parameter):  # type: ignore[misc]
    """A parameter of a lazy module before its first call."""

    cls_to_become = Parameter

    def __new__(cls, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> Any:
        return _uninitialized(cls, requires_grad, device, dtype)

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> None:
        pass


class UninitializedBuffer(UninitializedTensorMixin, Tensor):  # type: ignore[misc]
    """A buffer of a lazy module before its first call."""

    cls_to_become = Tensor
    persistent = True

    def __new__(cls, requires_grad: bool = False, device: Any = None, dtype: Any = None,
                persistent: bool = True) -> Any:
        new = _uninitialized(cls, requires_grad, device, dtype)
        new.persistent = persistent
        return new

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass


def is_lazy(param: Any) -> bool:
    """Whether a parameter or buffer has no shape yet."""
    return isinstance(param, UninitializedTensorMixin)
