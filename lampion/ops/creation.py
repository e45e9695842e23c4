"""Making tensors: from data, filled, ranges; all take dtype, device, requires_grad."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import numpy as np

from ..tensor import devices
from ..tensor.abstract import AbstractArray
from ..tensor.dtype import (
    COMPLEX,
    DTYPES,
    FLOAT,
    bool_,
    complex128,
    dtype,
    float32,
    float64,
    from_numpy_dtype,
    get_default_dtype,
    int64,
)
from ..tensor.formats import contiguous_format, preserve_format
from ..tensor.names import TYPE_NAMES
from ..tensor.storage import Storage
from ..tensor.tensor import Tensor, wrap
from .errors import allocating, argument_type
from .forms import convert_array, deliver
from .promotion import number_dtype
from .record import op, publish
from .view import as_size

__all__ = ["check_dtype", "finish", "make"]


def check_dtype(d: Any, name: str = "dtype") -> dtype | None:
    """A `dtype=` argument; Python's float, int, bool and complex are understood."""
    if d is None or isinstance(d, dtype):
        return d
    builtin = {float: float64, int: int64, bool: bool_, complex: complex128}
    if d in builtin:
        return builtin[d]
    raise argument_type(name, "dtype", "torch.dtype", d)


def finish(array: Any, device: Any = None, requires_grad: bool = False,
           d: dtype | None = None) -> Tensor:
    """A leaf around a new array."""
    t = wrap(array, d)
    if device is not None or devices._default.device is not devices.CPU:
        where = devices.resolve(device)
        if where is devices.META:
            t._a = AbstractArray(array.shape, array.dtype)
    if requires_grad:
        Tensor._require_grad(t, True)
    return t


def make(size: Any, fill: Any, d: dtype | None, device: Any, requires_grad: bool,
         name: str) -> Tensor:
    """A tensor of `size`, filled with a number (None: left undefined)."""
    d = check_dtype(d, name) or get_default_dtype()
    shape = as_size(tuple(size), name)
    if shape and min(shape) < 0:
        raise RuntimeError(f"Trying to create tensor with negative dimension {min(shape)}: "
                           f"{list(shape)}")
    where = devices.resolve(device)
    if where is devices.META:
        t = wrap(AbstractArray(shape, d.np), d)
        t._rg = requires_grad
        return t
    return finish(allocate(shape, fill, d), where, requires_grad, d)


def allocate(shape: tuple[int, ...], fill: Any, d: dtype) -> np.ndarray[Any, Any]:
    """A new array; RuntimeError if there is not enough memory."""
    try:
        if fill is None:
            return np.empty(shape, d.np)
        if fill == 0 and type(fill) in (int, float, bool) and math.copysign(1, fill) > 0:
            return np.zeros(shape, d.np)
        return np.full(shape, _fill_value(fill, d), d.np)
    except (MemoryError, ValueError, OverflowError) as error:
        count = 1
        for n in shape:
            count *= n
        raise RuntimeError(
            f"[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate "
            f"{count * d.itemsize} bytes for shape {list(shape)} of {d}") from error


def _fill_value(fill: Any, d: dtype) -> Any:
    if isinstance(fill, Tensor):
        fill = fill.item()
    if not isinstance(fill, (bool, int, float, complex, np.generic)):
        raise argument_type("full", "fill_value", "Number", fill)
    if isinstance(fill, complex) and d.kind != COMPLEX:
        raise RuntimeError(f"value cannot be converted to type {d.name} without overflow")
    if d.kind == 0:
        return bool(fill)
    if d.kind < FLOAT and isinstance(fill, float):
        return int(fill) if math.isfinite(fill) else 0
    if d.kind == 1:
        from .promotion import as_scalar

        return as_scalar(fill, d, "full")
    return fill


# --- from data ------------------------------------------------------------------------------------


def _leaves(data: Any) -> Any:
    """Nested sequences with tensors and NumPy scalars turned into plain numbers."""
    if isinstance(data, Tensor):
        return data.tolist()
    if isinstance(data, np.generic):
        return data.item()
    if isinstance(data, np.ndarray):
        return data.tolist()
    if isinstance(data, (list, tuple)) or (hasattr(data, "__len__") and hasattr(
            data, "__getitem__") and not isinstance(data, (str, bytes, dict))):
        return [_leaves(x) for x in data]
    return data


_NUMBERS = (frozenset((float,)), frozenset((int,)), frozenset((bool,)))


def _only_kind(data: Any) -> Any:
    """The one type of all numbers in a regular nest of lists; None if it is something else."""
    kinds = frozenset(map(type, data)) if data.__class__ is list else None
    for _ in range(_DEEPEST):  # a list may hold itself
        if kinds != _LISTS or len(set(map(len, data))) > 1:
            break
        data = data[0] if len(data) == 1 else list(chain.from_iterable(data))
        kinds = frozenset(map(type, data))
    return next(iter(kinds)) if kinds in _NUMBERS else None  # type: ignore[arg-type]


_LISTS, _DEEPEST = frozenset((list,)), 8


def _shape_of(data: Any) -> tuple[int, ...]:
    shape = []
    while isinstance(data, list):
        shape.append(len(data))
        if not data:
            break
        data = data[0]
    return tuple(shape)


def _check_nesting(data: Any, shape: tuple[int, ...], depth: int = 0) -> None:
    if depth == len(shape):
        if isinstance(data, list):
            raise TypeError(f"'list' object cannot be interpreted as a number: expected one at "
                            f"dimension {depth}, received a sequence of length {len(data)}")
        if not isinstance(data, (bool, int, float, complex)):
            kind = type(data).__name__
            if isinstance(data, str):
                raise ValueError(f"too many dimensions '{kind}'") if depth else TypeError(
                    f"new(): invalid data type '{kind}'")
            raise RuntimeError(f"Could not infer dtype of {kind}")
        return
    if not isinstance(data, list):
        raise TypeError(f"not a sequence: expected {shape[depth]} elements at dimension {depth}, "
                        f"received {type(data).__name__}")
    if len(data) != shape[depth]:
        raise ValueError(f"expected sequence of length {shape[depth]} at dim {depth} (got "
                         f"{len(data)})")
    for x in data:
        _check_nesting(x, shape, depth + 1)


def _infer(data: Any) -> dtype:
    """The dtype of nested numbers: the strongest kind found."""
    found, stack = None, [data]
    while stack:
        x = stack.pop()
        if isinstance(x, list):
            stack.extend(x)
            continue
        d = number_dtype(x)
        found = d if found is None or d.kind > found.kind else found
        if found.kind == COMPLEX:
            break
    return found or get_default_dtype()


def array_of(data: Any, d: dtype | None) -> np.ndarray[Any, Any]:
    """A new array of any data that `torch.tensor` takes."""
    if isinstance(data, Tensor):
        from ..tensor.interop import concrete

        source = concrete(data, "numpy()")
        return convert_array(source, d.np) if d is not None else source.copy("K")
    if isinstance(data, (np.ndarray, np.generic)) or hasattr(data, "__array_interface__"):
        a = np.asarray(data)
        from_numpy_dtype(a.dtype)
        return np.array(a) if d is None else np.array(convert_array(a, d.np))
    kind = _only_kind(data)
    if kind is not None:
        return _from_numbers(data, (len(data),), d or number_dtype(kind()))
    nested = _leaves(data)
    shape = _shape_of(nested)
    _check_nesting(nested, shape)
    return _from_numbers(nested, shape, d or _infer(nested))


def _from_numbers(nested: Any, shape: tuple[int, ...], d: dtype) -> np.ndarray[Any, Any]:
    if 0 in shape:
        return np.empty(shape, d.np)
    try:
        if d.np.num > 255:
            return convert_array(np.array(nested, np.float32), d.np)
        if d.kind < FLOAT:
            a = np.array(nested)
            if a.dtype.kind == "c":
                raise TypeError("can't convert complex to int")
            if a.dtype.kind == "f" or d is bool_:
                return convert_array(a, d.np)
        with np.errstate(over="ignore"):
            return np.array(nested, d.np)
    except OverflowError:
        raise RuntimeError(f"value cannot be converted to type {d.name} without overflow: the "
                           f"data holds a number outside its range") from None


@op("torch", name="tensor")
def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
           pin_memory: bool = False) -> Tensor:
    """A new tensor with a copy of `data`: numbers, nested sequences, arrays.

    >>> import lampion as torch
    >>> torch.tensor([[1, 2], [3, 4]])
    tensor([[1, 2],
            [3, 4]])
    """
    d = check_dtype(dtype, "tensor")
    if isinstance(data, Tensor):
        import warnings

        from ..debug.frames import user_stack_level

        warnings.warn(
            "To copy construct from a tensor, it is recommended to use sourceTensor.detach()."
            "clone() or sourceTensor.detach().clone().requires_grad_(True), rather than "
            "torch.tensor(sourceTensor).", UserWarning, stacklevel=user_stack_level())
        device = data.device if device is None else device
    return finish(array_of(data, d), device, requires_grad, d)


@op("torch", name="as_tensor")
def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """`data` as a tensor, sharing memory where it can."""
    d = check_dtype(dtype, "as_tensor")
    if isinstance(data, Tensor):
        return data.to(device, d) if device is not None else data if d is None else data.to(d)
    if isinstance(data, np.ndarray):
        t = from_numpy(data)
        return t.to(d) if d is not None else t
    return finish(array_of(data, d), device, False, d)


@op("torch", name="asarray")
def asarray(obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None,
            requires_grad: bool = False) -> Tensor:
    """`obj` as a tensor; `copy` says whether memory must or must not be its own."""
    if isinstance(obj, (Tensor, np.ndarray)):
        t = as_tensor(obj, dtype, device)
        if copy is False and t._dtype is not (obj._dtype if isinstance(obj, Tensor) else
                                              from_numpy_dtype(obj.dtype)):
            raise ValueError("can't alias tensor with dtype change when copy=False")
        t = t.clone() if copy else t
    elif copy is False:
        raise ValueError(f"can't alias arbitrary sequence into a tensor: received "
                         f"{type(obj).__name__}")
    else:
        t = tensor(obj, dtype=dtype, device=device)
    if requires_grad or (isinstance(obj, Tensor) and obj._rg):
        t = t.detach().requires_grad_(requires_grad)
    return t


@op("torch")
def from_numpy(ndarray: Any) -> Tensor:
    """A tensor on the memory of a NumPy array; writes are seen on both sides."""
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    d = from_numpy_dtype(ndarray.dtype)
    if any(s < 0 for s in ndarray.strides):
        raise ValueError("At least one stride in the given numpy array is negative, and tensors "
                         "with negative strides are not currently supported. (You can probably "
                         "work around this by making a copy of your array with array.copy().)")
    if any(s % ndarray.itemsize for s in ndarray.strides):
        raise ValueError("given numpy array strides not a multiple of the element byte size. Copy "
                         "the numpy array to reallocate the memory.")
    a = ndarray.view(np.ndarray)
    if not a.flags.writeable:
        _warn_read_only()
    t = wrap(a, d)
    t._st = Storage(a)
    t._st.open()
    return t


def _warn_read_only() -> None:
    import warnings

    from ..debug.frames import user_stack_level

    warnings.warn("The given NumPy array is not writable, and PyTorch does not support "
                  "non-writable tensors. Writing to the tensor raises an error; copy the array "
                  "first to make it writable.", UserWarning, stacklevel=user_stack_level())


@op("torch")
def frombuffer(buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0,
               requires_grad: bool = False) -> Tensor:
    """A 1-D tensor on the memory of an object with the buffer interface."""
    d = check_dtype(dtype, "frombuffer")
    assert d is not None
    flat = np.frombuffer(buffer, np.uint8)
    size = flat.nbytes
    if size == 0 or count == 0:
        raise ValueError(f"both buffer length ({size}) and count ({count}) must not be 0")
    if not 0 <= offset < size:
        raise ValueError(f"offset ({offset} bytes) must be non-negative and no greater than buffer "
                         f"length ({size} bytes) - 1")
    n = (size - offset) // d.itemsize if count < 0 else count
    if count < 0 and (size - offset) % d.itemsize:
        raise ValueError(f"buffer length ({size - offset} bytes) after offset ({offset} bytes) must"
                         f" be a multiple of element size ({d.itemsize})")
    if n * d.itemsize > size - offset:
        raise ValueError(f"requested buffer length ({n} * {d.itemsize} bytes) after offset "
                         f"({offset} bytes) must not be greater than actual buffer length ({size} "
                         "bytes)")
    if not flat.flags.writeable:
        _warn_read_only()
    a = np.ndarray((n,), d.np, flat, offset)
    a.flags.writeable = flat.flags.writeable
    return finish(a, None, requires_grad, d)


@op("torch")
def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor on the memory of another library's array, through DLPack."""
    if not hasattr(ext_tensor, "__dlpack__"):
        raise TypeError("from_dlpack() expects an object with __dlpack__, received "
                        f"{type(ext_tensor).__name__}")
    a = np.from_dlpack(ext_tensor)
    if not a.flags.writeable:
        try:
            a.flags.writeable = True
        except ValueError:
            _warn_read_only()
    t = wrap(a)
    t._st = Storage(a)
    return t


# --- filled ---------------------------------------------------------------------------------------


def _filled(name: str, fill: Any, doc: str) -> Any:
    def call(*size: Any, out: Any = None, dtype: Any = None, layout: Any = None,
             device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
             memory_format: Any = None, **kwargs: Any) -> Tensor:
        if "size" in kwargs and not size:
            size = (kwargs.pop("size"),)
        kwargs.pop("names", None)
        if kwargs:
            raise TypeError(f"{name}() got an unexpected keyword argument '{next(iter(kwargs))}'")
        if out is not None and dtype is None:
            dtype = out._dtype
        t = make(size, fill, dtype, device, requires_grad, name)
        if memory_format is not None and memory_format not in (preserve_format, contiguous_format):
            t = t.contiguous(memory_format=memory_format).detach().requires_grad_(requires_grad)
        return t if out is None else deliver(out, t, name)
    call.__name__ = call.__qualname__ = name
    call.__doc__ = doc
    return op("torch")(call)


zeros = _filled("zeros", 0, "A tensor of zeros.")
ones = _filled("ones", 1, "A tensor of ones.")
empty = _filled("empty", None, "A tensor whose elements are undefined.")


@op("torch")
def full(size: Any, fill_value: Any, *, out: Any = None, dtype: Any = None, layout: Any = None,
         device: Any = None, requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """A tensor filled with one number, whose kind gives the dtype."""
    d = check_dtype(dtype, "full")
    if d is None:
        d = out._dtype if out is not None else fill_value._dtype if isinstance(
            fill_value, Tensor) else number_dtype(fill_value) if isinstance(
            fill_value, (bool, int, float, complex)) else get_default_dtype()
    t = make((size,) if isinstance(size, int) else tuple(size), fill_value, d, device,
             requires_grad, "full")
    return t if out is None else deliver(out, t, "full")


def _like(name: str, fill: Any, doc: str) -> Any:
    def call(input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None,
             requires_grad: bool = False, pin_memory: bool = False,
             memory_format: Any = None) -> Tensor:
        return _fill_like(input, fill, dtype, device, requires_grad, memory_format)
    call.__name__ = call.__qualname__ = name
    call.__doc__ = doc
    return op("torch")(call)


def _lying_as(t: Tensor, a: Any) -> Tensor:
    """A new tensor whose axes lie in memory as those of `a` do."""
    if 0 not in a.strides and type(t._a) is np.ndarray:
        order = sorted(range(t._a.ndim), key=lambda i: -a.strides[i])
        made = t._a.reshape([t._a.shape[i] for i in order])
        t._a = made.transpose(np.argsort(order))
    return t


def _fill_like(input: Tensor, fill: Any, d: Any, device: Any, requires_grad: bool,
               form: Any = None) -> Tensor:
    d = check_dtype(d) or input._dtype
    a = input._a
    where = devices.resolve(device) if device is not None else input.device
    if where is devices.META or type(a) is not np.ndarray:
        made = make(a.shape, fill, d, where, requires_grad, "empty_like")
        plain = form is not None and form.name != "preserve_format"
        return made if plain or where is devices.META else _lying_as(made, a)
    if form is not None and form.name not in ("preserve_format", "contiguous_format"):
        t = make(a.shape, fill, d, where, False, "empty_like").contiguous(form)
        return t.requires_grad_() if requires_grad else t
    order: Any = "C" if a.flags.c_contiguous or (form is not None and form.name[0] == "c") else "K"
    if order == "C" or 0 in a.strides:
        new = allocate(a.shape, fill, d)
    else:
        new = np.empty_like(a, d.np, order, subok=False)
        if fill is not None:
            new[...] = _fill_value(fill, d)
    return finish(new, where, requires_grad, d)


zeros_like = _like("zeros_like", 0, "Zeros in the shape, dtype and layout of `input`.")
ones_like = _like("ones_like", 1, "Ones in the shape, dtype and layout of `input`.")
empty_like = _like("empty_like", None, "Undefined elements in the shape and dtype of `input`.")
Tensor._ones_like = staticmethod(ones_like)  # type: ignore[attr-defined]


@op("torch")
def full_like(input: Tensor, fill_value: Any, *, dtype: Any = None, layout: Any = None,
              device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
              memory_format: Any = None) -> Tensor:
    """One number in the shape, dtype and layout of `input`."""
    return _fill_like(input, fill_value, dtype, device, requires_grad, memory_format)


def _new(name: str, fill: Any) -> None:
    def call(self: Tensor, *size: Any, dtype: Any = None, device: Any = None,
             requires_grad: bool = False, layout: Any = None, pin_memory: bool = False,
             **kwargs: Any) -> Tensor:
        size = (kwargs["size"],) if "size" in kwargs else size
        return make(size, fill, check_dtype(dtype) or self._dtype,
                    self.device if device is None else device, requires_grad, name)
    call.__name__, call.__doc__ = name, "A new tensor with this tensor's dtype and device."
    op("Tensor")(call)


for _name, _fill in (("new_zeros", 0), ("new_ones", 1), ("new_empty", None)):
    _new(_name, _fill)


@op("Tensor")
def new_full(self: Tensor, size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None,
             requires_grad: bool = False, layout: Any = None, pin_memory: bool = False) -> Tensor:
    """A new filled tensor with this tensor's dtype and device."""
    return make(tuple(size), fill_value, check_dtype(dtype) or self._dtype,
                self.device if device is None else device, requires_grad, "new_full")


@op("Tensor")
def new_tensor(self: Tensor, data: Any, *, dtype: Any = None, device: Any = None,
               requires_grad: bool = False, layout: Any = None,
               pin_memory: bool = False) -> Tensor:
    """A new tensor of `data` with this tensor's dtype and device."""
    d = check_dtype(dtype) or self._dtype
    return finish(array_of(data, d), self.device if device is None else device, requires_grad, d)


@op("torch")
def empty_strided(size: Any, stride: Any, *, dtype: Any = None, layout: Any = None,
                  device: Any = None, requires_grad: bool = False,
                  pin_memory: bool = False) -> Tensor:
    """Undefined elements with the given sizes and strides."""
    reach = 0 if 0 in size else 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    t = make((reach,), None, dtype, device, False, "empty_strided")
    return t.as_strided(size, stride).detach().requires_grad_(requires_grad)


@op("Tensor")
def new_empty_strided(self: Tensor, size: Any, stride: Any, *, dtype: Any = None,
                      device: Any = None, requires_grad: bool = False) -> Tensor:
    """`empty_strided` with this tensor's dtype and device."""
    return empty_strided(size, stride, dtype=dtype or self._dtype,
                         device=device or self.device, requires_grad=requires_grad)


# --- ranges ---------------------------------------------------------------------------------------


def _plain(x: Any) -> Any:
    return x.item() if isinstance(x, (Tensor, np.generic)) else x


@op("torch")
@allocating
def arange(*args: Any, out: Any = None, dtype: Any = None, layout: Any = None, device: Any = None,
           requires_grad: bool = False, pin_memory: bool = False, **named: Any) -> Tensor:
    """Numbers from `start` (0) up to but without `end`, `step` (1) apart.

    >>> import lampion as torch
    >>> torch.arange(1, 4)
    tensor([1, 2, 3])
    """
    if len(args) == 1 and args[0].__class__ is int and args[0] >= 0 and not (
            named or dtype is not None or out is not None):
        return finish(np.arange(args[0]), device, requires_grad, int64)
    start, end, step = _range_arguments(args, named)
    d = check_dtype(dtype, "arange") or (out._dtype if out is not None else None)
    if d is None:
        whole = all(isinstance(x, int) for x in (start, end, step))
        d = int64 if whole else get_default_dtype()
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if not all(math.isfinite(x) for x in (start, end)):
        raise RuntimeError(f"unsupported range: {start} -> {end}")
    if (end - start) * step < 0:
        raise RuntimeError("upper bound and lower bound inconsistent with step sign: received "
                           f"start={start}, end={end}, step={step}")
    t = finish(_arange(start, end, step, d), device, requires_grad, d)
    return t if out is None else deliver(out, t, "arange")


def _range_arguments(args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any, Any]:
    if not named and 0 < len(args) < 4:
        first, last, step = (0, *args, 1) if len(args) == 1 else (*args, 1)[:3]
        return _plain(first), _plain(last), _plain(step)
    names = {1: ("end",), 2: ("start", "end")}.get(len(args), ("start", "end", "step"))
    if "start" in named and len(args) == 1:
        names = ("end",)
    given = {**dict(zip(names, args, strict=False)), **named}
    if "end" not in given or given.keys() - {"start", "end", "step"} or len(args) > 3:
        raise TypeError("arange() received an invalid combination of arguments: expected (end), "
                        "(start, end) or (start, end, step), received "
                        f"{[*args, *named]}")
    return tuple(_plain(given.get(k, v)) for k, v in (("start", 0), ("end", 0), ("step", 1)))  # type: ignore[return-value]


def _arange(start: Any, end: Any, step: Any, d: dtype) -> np.ndarray[Any, Any]:
    if d.kind == FLOAT or not all(isinstance(x, int) for x in (start, end, step)):
        count = max(0, math.ceil((end - start) / step))
        if count >= 2 ** 60:
            raise MemoryError(f"{count} elements")
        if d.kind == FLOAT:
            exact = float32 if d.itemsize < 8 else float64
            steps = np.arange(count, dtype=np.float64) * step + start
            return steps.astype(exact.np).astype(d.np)
        start, step = int(start), int(step)
        return (np.arange(count, dtype=np.int64) * step + start).astype(d.np)
    return np.arange(start, end, step, dtype=np.int64).astype(d.np)


@op("torch", name="range")
@allocating
def closed_range(start: Any = 0, end: Any = None, step: Any = 1, *, out: Any = None,
                 dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Like `arange` with the end included; deprecated in PyTorch too."""
    start, end = (0, start) if end is None else (start, end)
    d = check_dtype(dtype) or get_default_dtype()
    count = int((end - start) / step) + 1
    return finish((start + np.arange(count) * step).astype(d.np), device, requires_grad, d)


@op("torch")
@allocating
def linspace(start: Any, end: Any, steps: int, *, out: Any = None, dtype: Any = None,
             layout: Any = None, device: Any = None, requires_grad: bool = False,
             pin_memory: bool = False) -> Tensor:
    """`steps` numbers from `start` to `end`, evenly spaced, both included."""
    if not hasattr(steps, "__index__"):
        raise argument_type("linspace", "steps", "int", steps)
    if steps < 0:
        raise RuntimeError(f"number of steps must be non-negative, received {steps}")
    first, last = _plain(start), _plain(end)
    d = check_dtype(dtype, "linspace") or (out._dtype if out is not None else None)
    if d is None:
        d = get_default_dtype()
        if isinstance(first, complex) or isinstance(last, complex):
            d = d.to_complex()
    t = finish(_linspace(first, last, int(steps), d), device, requires_grad, d)
    return t if out is None else deliver(out, t, "linspace")


def _linspace(first: Any, last: Any, steps: int, d: dtype) -> np.ndarray[Any, Any]:
    """From both ends towards the middle, in the precision of the result, as PyTorch does."""
    work = d.np if d.kind >= FLOAT and not d.is_reduced else np.dtype(
        np.float32 if d.kind == FLOAT else np.float64)
    index = np.arange(steps)
    if steps == 1:
        return np.array([first], work).astype(d.np)
    a, b = work.type(first), work.type(last)
    step = (b - a) / work.type(steps - 1) if steps else work.type(0)
    if d.kind < FLOAT:
        step = (float(last) - float(first)) / (steps - 1) if steps else 0.0
    up = a + step * index.astype(work)
    down = b - step * (steps - 1 - index).astype(work)
    return convert_array(np.where(index < steps // 2, up, down).astype(work), d.np)


@op("torch")
@allocating
def logspace(start: Any, end: Any, steps: int, base: float = 10.0, *, out: Any = None,
             dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """`base` to the power of evenly spaced exponents."""
    d = check_dtype(dtype, "logspace") or get_default_dtype()
    exponents = linspace(start, end, steps, dtype=d if d.kind >= FLOAT else float64)._a
    powers = np.power(np.asarray(base, exponents.dtype), exponents)
    t = finish(convert_array(powers, d.np), device, requires_grad, d)
    return t if out is None else deliver(out, t, "logspace")


@op("torch")
@allocating
def eye(n: int, m: int | None = None, *, out: Any = None, dtype: Any = None, layout: Any = None,
        device: Any = None, requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """The identity matrix, n by m."""
    if n < 0 or (m is not None and m < 0):
        raise RuntimeError(f"n must be greater or equal to 0, got {n if n < 0 else m}")
    d = check_dtype(dtype, "eye") or get_default_dtype()
    t = finish(np.eye(n, m).astype(d.np), device, requires_grad, d)
    return t if out is None else deliver(out, t, "eye")


@op("torch")
def scalar_tensor(s: Any, *, dtype: Any = None, device: Any = None, layout: Any = None,
                  requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """A 0-d tensor of one number."""
    return full((), s, dtype=dtype or get_default_dtype(), device=device,
                requires_grad=requires_grad)


# --- the legacy constructors ------------------------------------------------------------------


def _construct(cls: Any, *args: Any, device: Any = None, dtype: Any = None) -> Tensor:
    """`torch.Tensor(2, 3)` (undefined elements), `torch.Tensor([1, 2])` (data)."""
    t = _legacy(dtype or get_default_dtype(), args, device)
    if cls is not Tensor:
        t = t.as_subclass(cls)
    return t


def _legacy(d: dtype, args: tuple[Any, ...], device: Any = None) -> Tensor:
    if not args:
        return make((0,), None, d, device, False, "Tensor")
    first = args[0]
    if len(args) == 1 and isinstance(first, Tensor):
        if first._dtype is not d:
            raise TypeError(f"expected {TYPE_NAMES[d.name]} (got {TYPE_NAMES[first._dtype.name]})")
        return first.detach() if not first._rg else first.view_as(first)
    if len(args) == 1 and not isinstance(first, (int, np.integer)):
        if isinstance(first, tuple) and type(first).__name__ == "Size":
            return make(first, None, d, device, False, "Tensor")
        if isinstance(first, (float, str)):
            raise TypeError(f"new(): data must be a sequence (got {type(first).__name__})")
        return finish(array_of(first, d), device, False, d)
    if not all(isinstance(n, (int, np.integer, Tensor)) for n in args):
        raise TypeError("new() received an invalid combination of arguments - got "
                        f"({', '.join(type(a).__name__ for a in args)}), but expected sizes (ints)"
                        " or one sequence of data")
    return make(args, None, d, device, False, "Tensor")


Tensor._construct = staticmethod(_construct)  # type: ignore[assignment]


class _TypedMeta(type):
    """`torch.FloatTensor` and its kin: constructors, and `isinstance` by dtype."""

    _d: dtype

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, Tensor) and value._dtype is cls._d

    def __call__(cls, *args: Any, **kwargs: Any) -> Tensor:
        return _legacy(cls._d, args, **kwargs)

    def __repr__(cls) -> str:
        return f"<class 'torch.{cls.__name__}'>"


for _d in DTYPES.values():
    _cls = _TypedMeta(TYPE_NAMES[_d.name] + "Tensor", (), {"_d": _d, "dtype": _d,
                                                           "__module__": "torch"})
    if _d.name in ("uint16", "uint32", "uint64") or _d.name.startswith(("float8", "complex")):
        continue
    publish("torch", _cls.__name__, _cls)


@op("Tensor", name="type")
def type_method(self: Tensor, dtype: Any = None, non_blocking: bool = False, **kwargs: Any) -> Any:
    """Without an argument the type name (`torch.FloatTensor`); with one, a conversion."""
    from ..tensor.names import type_name

    if dtype is None:
        return type_name(self)
    if isinstance(dtype, _TypedMeta):
        return self.to(dtype._d)
    if isinstance(dtype, str):
        short = dtype.removeprefix("torch.").removesuffix("Tensor")
        for name, label in TYPE_NAMES.items():
            if label == short:
                return self.to(DTYPES[name])
        raise ValueError(f"invalid type: '{dtype}'")
    return self.to(check_dtype(dtype))


@op("Tensor")
def new(self: Tensor, *args: Any, device: Any = None) -> Tensor:
    """The legacy constructor with this tensor's dtype."""
    return _legacy(self._dtype, args, device)


@op("Tensor")
def as_subclass(self: Tensor, cls: Any) -> Tensor:
    """The same memory and history as an instance of a Tensor subclass."""
    out = self.view_as(self) if self._rg else self.detach()
    out.__class__ = cls
    return out


@op("torch")
def is_tensor(obj: Any) -> bool:
    """Whether `obj` is a tensor."""
    return isinstance(obj, Tensor)


