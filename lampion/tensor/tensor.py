"""The `Tensor` struct: an array, its dtype, its place in the recorded history. No mathematics.

Operators attach their methods to this class (`ops.record`), so that each is written once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from .abstract import AbstractArray
from .devices import CPU, META
from .devices import device as device_type
from .dtype import dtype, from_numpy_dtype
from .formats import layout as layout_type
from .formats import strided
from .interop import Interop
from .size import Size
from .storage import Storage, address, root_of
from .typed import Typed

__all__ = ["INFERENCE", "Tensor", "alias", "share", "storage_of", "wrap"]

_new, _ndarray = object.__new__, np.ndarray
# How many threads want to know of new tensors (inference mode, capture), and whether inference
# mode was ever used: read wherever a tensor is made or saved, where a thread's own switch would
# cost more.
INFERENCE = [0, 0]


class Tensor(Interop, Typed):
    """A multi-dimensional array of one element type, with automatic differentiation.

    >>> import lampion as torch
    >>> torch.tensor([[1., 2.], [3., 4.]]).sum()
    tensor(10.)
    """

    # _a: array (NumPy or abstract). _rg: requires_grad. _fn, _nr: the node that made it and which
    # of its outputs it is. _st: Storage, once shared. _base, _epoch: for views, the tensor they
    # look at and the storage history their _fn stands for.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_a",
        "_base",
        "_dtype",
        "_epoch",
        "_fn",
        "_grad",
        "_nr",
        "_rg",
        "_st",
    )

    _a: Any
    _dtype: dtype
    _rg: bool
    _fn: Any
    _nr: int
    _st: Storage | None
    _grad: Tensor | None
    _base: Tensor | None
    _epoch: int

    # Set by the rooms above; a tensor cannot import them.
    _construct: ClassVar[Callable[..., Tensor]]
    _refresh_history: ClassVar[Callable[[Tensor], None]]
    _require_grad: ClassVar[Callable[[Tensor, bool], None]]
    _set_data: ClassVar[Callable[[Tensor, Any], None]]
    _cast: ClassVar[Callable[..., Tensor]]
    _scalar: ClassVar[Callable[..., Tensor]]
    _cat: ClassVar[Callable[..., Tensor]]
    _stack: ClassVar[Callable[..., Tensor]]
    _ones_like: ClassVar[Callable[..., Tensor]]
    _view_of_base: ClassVar[Callable[..., Tensor]]
    _split_window: ClassVar[Callable[..., tuple[Tensor, Tensor]]]
    _note_birth: ClassVar[Callable[[Tensor], None]]

    # Rarely set; kept in __dict__ when they are.
    _hooks: Any = None
    _post_hooks: Any = None
    _retains_grad: bool = False
    _is_inference: bool = False
    _lazy_conj: bool = False
    name: str | None = None
    __array_priority__ = 1000

    def __new__(cls, *args: Any, **kwargs: Any) -> Tensor:
        return Tensor._construct(cls, *args, **kwargs)

    def __hash__(self) -> int:
        return id(self)

    # --- shape and type -------------------------------------------------------------------------

    @property
    def shape(self) -> Size:
        """The size of every dimension."""
        return Size(self._a.shape)

    @property
    def dtype(self) -> dtype:
        """The element type."""
        return self._dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return int(self._a.ndim)

    @property
    def device(self) -> device_type:
        """Where the elements are."""
        if type(self._a) is np.ndarray or self._a.recorder is not None:
            return CPU
        return META

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self._dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return int(self._a.size) * self._dtype.itemsize

    @property
    def layout(self) -> layout_type:
        """How the elements are stored: always `torch.strided`."""
        return strided

    is_cuda = is_mps = is_xpu = is_sparse = is_sparse_csr = is_quantized = is_nested = False
    is_mkldnn = is_vulkan = is_ipu = is_xla = is_maia = is_mtia = is_hpu = False
    names = property(lambda self: (None,) * self._a.ndim)

    @property
    def is_cpu(self) -> bool:
        """Whether the elements are in main memory."""
        return self.device is CPU

    @property
    def is_meta(self) -> bool:
        """Whether the tensor has a shape but no elements."""
        return self.device is META

    # --- autograd -------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded for backward."""
        if self._base is not None:
            Tensor._refresh_history(self)
        return self._rg

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        Tensor._require_grad(self, value)

    @property
    def grad_fn(self) -> Any:
        """The node of the recorded history that made this tensor; None for a leaf."""
        if self._base is not None:
            Tensor._refresh_history(self)
        return self._fn

    @property
    def is_leaf(self) -> bool:
        """Whether the tensor was made by the user rather than by a recorded operation."""
        return self.grad_fn is None

    @property
    def output_nr(self) -> int:
        """Which output of `grad_fn` this tensor is."""
        return self._nr

    @property
    def retains_grad(self) -> bool:
        """Whether backward keeps the gradient of this non-leaf tensor."""
        return self._retains_grad and not self.is_leaf

    @property
    def grad(self) -> Tensor | None:
        """The gradient that backward accumulated."""
        if self._grad is None and self._rg and self._fn is not None and not self._retains_grad:
            _warn_non_leaf_grad()
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            _check_new_grad(self, value)
        self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self._grad = None

    @property
    def data(self) -> Tensor:
        """The same memory outside the recorded history, with a version counter of its own."""
        out = alias(self)
        out._st = storage_of(self).twin()
        return out

    @data.setter
    def data(self, value: Tensor) -> None:
        Tensor._set_data(self, value)

    @property
    def _version(self) -> int:
        return 0 if self._st is None else self._st.version

    def is_inference(self) -> bool:
        """Whether the tensor was made under `inference_mode`."""
        return self._is_inference or (self._base is not None and self._base._is_inference)

    # --- memory ---------------------------------------------------------------------------------

    def stride(self, dim: int | None = None) -> Any:
        """Steps between elements along each dimension (or one of them), in elements."""
        width = self._dtype.itemsize
        if dim is None:
            return _torch_strides(self._a, width)
        if not -max(self._a.ndim, 1) <= dim < max(self._a.ndim, 1):
            raise IndexError(f"Dimension out of range (expected to be in range of [{-self._a.ndim}"
                             f", {self._a.ndim - 1}], but got {dim})")
        return _torch_strides(self._a, width)[dim]

    def storage_offset(self) -> int:
        """Index in the storage of the first element."""
        if type(self._a) is not np.ndarray:
            return int(self._a.offset // self._dtype.itemsize)
        if self._st is None or self._a.size == 0:
            return 0
        return (address(self._a) - address(self._st.flat)) // self._dtype.itemsize

    def data_ptr(self) -> int:
        """Address of the first element."""
        storage_of(self).open()
        return address(self._a) if type(self._a) is np.ndarray and self._a.size else 0


def _torch_strides(array: Any, width: int) -> tuple[int, ...]:
    shape = array.shape
    if type(array) is np.ndarray and (0 in shape or array.flags.c_contiguous):
        # NumPy leaves strides of dimensions of size 0 and 1 undefined: report the dense ones.
        strides, step = [], 1
        for n in reversed(shape):
            strides.append(step)
            step *= max(n, 1)
        return tuple(reversed(strides))
    return tuple(s // width for s in array.strides)


def _warn_non_leaf_grad() -> None:
    import warnings

    from ..debug.frames import user_stack_level

    warnings.warn(
        "The .grad attribute of a Tensor that is not a leaf Tensor is being accessed. Its .grad "
        "attribute won't be populated during autograd.backward(). If you indeed want the .grad "
        "field to be populated for a non-leaf Tensor, use .retain_grad() on the non-leaf Tensor.",
        UserWarning, stacklevel=user_stack_level())


def _check_new_grad(tensor: Tensor, grad: Any) -> None:
    if not isinstance(grad, Tensor):
        raise TypeError(f"assigned grad expected to be a Tensor or None but got grad of type "
                        f"{type(grad).__name__}")
    if grad is tensor:
        raise RuntimeError("can't assign Variable as its own grad")
    if grad._a.shape != tensor._a.shape:
        raise RuntimeError(
            f"assigned grad has data of a different size: expected {tuple(tensor._a.shape)}, "
            f"received {tuple(grad._a.shape)}")
    if grad._dtype is not tensor._dtype:
        raise RuntimeError(f"assigned grad has data of a different type: expected {tensor._dtype}, "
                           f"received {grad._dtype}")
    if grad.device != tensor.device:
        raise RuntimeError(f"assigned grad has data located on a different device: expected "
                           f"{tensor.device}, received {grad.device}")


def wrap(array: Any, dtype: dtype | None = None) -> Tensor:
    """A new tensor around `array`, outside any history."""
    t = _new(Tensor)
    t._a = array
    t._dtype = from_numpy_dtype(array.dtype) if dtype is None else dtype
    t._rg = False
    t._fn = t._st = t._grad = t._base = None
    t._nr = t._epoch = 0
    if INFERENCE[0]:
        Tensor._note_birth(t)
    return t


def alias(t: Tensor) -> Tensor:
    """A new tensor around the array of `t`, outside any history."""
    out = wrap(t._a, t._dtype)
    if INFERENCE[0]:  # its memory is as old as that of `t`
        out.__dict__.update(_is_inference=t._is_inference, _born_in=t.__dict__.get("_born_in"))
    return out


def storage_of(t: Tensor) -> Storage:
    """The storage of `t`, made on first need."""
    st = t._st
    if st is None:
        st = t._st = Storage(t._a if isinstance(t._a, AbstractArray) else root_of(t._a))
        if t._fn is not None:
            t._fn.out_st = st  # so that a write is seen by the node that saved its output
    return st


def has_no_past(t: Tensor) -> bool:
    """Whether a view of a tensor is nothing but a window: an ndarray without history to go on.

    A view whose base was written to may have a history that it has not looked up yet.
    """
    return (t._a.__class__ is _ndarray and not t._rg
            and (t._base is None or (t._st is not None and t._epoch == t._st.history)))


def share(base: Tensor, array: Any, dtype: dtype | None = None) -> Tensor:
    """A view: a new tensor on memory of `base`, with its storage and version counter."""
    st = base._st
    if st is None:
        st = storage_of(base)
    t = _new(Tensor)
    t._a = array
    t._dtype = base._dtype if dtype is None else dtype
    t._rg = False
    t._fn = t._grad = None
    t._nr = 0
    t._st = st
    t._base = base if base._base is None else base._base
    t._epoch = st.history
    return t
