"""The pointwise families: what unary, binary and comparison operators have in common.

Each maker returns the public function. Its first lines are the eager path for ordinary operands:
one NumPy call, one new tensor, one history record; everything else (promotion, numbers, errors,
meta, capture) takes the general path through the `Leaf`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ..autograd.modes import state
from ..autograd.node import record_pointwise
from ..runtime.quiet import IGNORE, enter, leave
from ..tensor.abstract import AbstractArray, AbstractOperand
from ..tensor.dtype import (
    BOOL,
    COMPLEX,
    DTYPES,
    FLOAT,
    INT,
    bool_,
    dtype,
    float32,
    float64,
)
from ..tensor.tensor import INFERENCE, Tensor
from .errors import argument_type, broadcast_mismatch, device_mismatch, not_implemented_for
from .layout import settled
from .native import SINGLE, launch
from .promotion import NUMBERS, as_scalar, cast, float_dtype, result_dtype
from .record import Leaf, op

__all__ = [
    "Array",
    "Arrays",
    "OptArray",
    "binary",
    "broadcast_shape",
    "comparison",
    "conj",
    "operands",
    "unary",
]

Array = Any  # an ndarray or an abstract array
OptArray = Any  # the same or None
Arrays = Any  # a sequence of them

_new = object.__new__
_ndarray = np.ndarray
_NATIVE = frozenset((float32, float64))


def conj(x: Any) -> Any:
    """Complex conjugate; real tensors and numbers as they are."""
    if isinstance(x, Tensor):
        return x.conj() if x._dtype.kind == COMPLEX else x
    return x.conjugate()


def broadcast_shape(name: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape; RuntimeError if there is none."""
    whole = max(shapes, key=len)
    for s in shapes:
        if s and s != whole:
            break
    else:
        return whole
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise broadcast_mismatch(name, shapes) from None


@lru_cache(1 << 12)
def _broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    return np.broadcast_shapes(*shapes)


def _pointwise_shape(*arrays: Any) -> Any:
    """Shape rule of pointwise operators."""
    found = [a for a in arrays if hasattr(a, "shape")]
    return _broadcast(*[a.shape for a in found]), found[0].dtype


def _predicate_shape(*arrays: Any) -> Any:
    return _pointwise_shape(*arrays)[0], np.dtype(np.bool_)


def _plain_call(leaf: Leaf, kernel: Callable[..., Any], kinds: frozenset[dtype],
                general: Callable[..., Any]) -> Callable[..., Any]:
    """The eager path of a one-operand function whose result has the operand's dtype."""
    def call(input: Any) -> Tensor:
        try:
            d = input._dtype
            if d not in kinds:
                return general(input)
            a = input._a
            r = None
            if a.__class__ is _ndarray and leaf.launches is not None and (
                    a.size >= leaf.least or (leaf.small and leaf.suits_small([a], ()))):
                r = launch(leaf, [a], ())
            if r is None:
                token = enter(IGNORE)
                try:
                    r = kernel(a)
                finally:
                    leave(token)
                if a.size >= SINGLE:
                    r = settled(r, [a])
        except (AttributeError, AbstractOperand, MemoryError):
            return general(input)
        if r.__class__ is not _ndarray:
            r = np.asarray(r)
        t = _new(Tensor)
        t._a = r
        t._dtype = d
        t._rg = False
        t._fn = t._st = t._grad = t._base = None
        t._nr = t._epoch = 0
        if INFERENCE[0]:
            Tensor._note_birth(t)
        if (input._rg or input._base is not None) and state.grad:
            record_pointwise(leaf, t, input)
        return t
    return call


def unary(name: str, kernel: Callable[..., Any], grad: Any, *, places: str = "torch Tensor",
          kinds: str = "float complex", integers: str = "float",
          bools: str | Callable[[], None] | None = None,
          aliases: str = "", inplace: bool = True, node: str | None = None,
          predicate: bool = False, doc: str = "") -> Any:
    """A pointwise function of one tensor.

    kinds: element kinds it takes; integers: "float" (computed in the default dtype), "same", or
    "error"; bools likewise (default: as integers), or a function that raises. predicate: the
    result is bool.
    """
    leaf = Leaf(name, _array_kernel(kernel), ("input",), 1, False,
                grad if not callable(grad) else {"input": grad}, _predicate_shape if predicate
                else _pointwise_shape, node, False, False, integers == "same" and predicate)
    leaf.least = SINGLE
    how = {BOOL: bools or integers, INT: integers,
           FLOAT: "same" if "float" in kinds else "error",
           COMPLEX: "same" if "complex" in kinds else "error"}

    def general(input: Any) -> Tensor:
        if not isinstance(input, Tensor):
            raise argument_type(name, "input", "Tensor", input)
        rule = how[input._dtype.kind]
        if callable(rule):
            rule()
        if rule == "error":
            raise not_implemented_for(name, input._dtype)
        if rule == "float":
            input = cast(input, float_dtype(input._dtype))
        return leaf(input)

    fast = _NATIVE if "float" in kinds else frozenset()
    call = general if predicate else _plain_call(leaf, kernel, fast, general)
    call.__name__ = call.__qualname__ = name
    call.__doc__ = doc or f"`{name}` of every element."
    made = op(places, inplace=inplace and not predicate and leaf, out=True, aliases=aliases)(call)
    made.leaf = leaf
    return made


def _array_kernel(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy's ufuncs have no code object for the record to read parameter names from."""
    def reference(input: Array) -> Any:
        return kernel(input)
    reference.__doc__ = getattr(kernel, "__doc__", None)
    return reference


def _binary_kernel(kernel: Callable[..., Any]) -> Callable[..., Any]:
    def reference(input: Array, other: Array) -> Any:
        return kernel(input, other)
    return reference


def operands(name: str, input: Any, other: Any, kind: str) -> tuple[Any, Any]:
    """Both operands in the dtype of the computation; numbers stay numbers.

    kind: "same", "float" (integers become the default dtype), "real" (no complex), "integer".
    """
    for argument, x in (("input", input), ("other", other)):
        if not isinstance(x, (Tensor, *NUMBERS)):
            raise argument_type(name, argument, "Tensor or Number", x)
    if not isinstance(input, Tensor) and not isinstance(other, Tensor):
        raise argument_type(name, "input", "Tensor", input)
    d = result_dtype(input, other)
    if kind == "float":
        d = float_dtype(d)
    elif (kind == "real" and d.kind == COMPLEX) or (kind == "integer" and d.kind >= FLOAT):
        raise not_implemented_for(name, d)
    if isinstance(input, Tensor) and isinstance(other, Tensor):
        _check_pair(name, input, other)
    return tuple(cast(x, d) if isinstance(x, Tensor) else as_scalar(x, d, name)  # type: ignore[return-value]
                 for x in (input, other))


def _check_pair(name: str, a: Tensor, b: Tensor) -> None:
    if a._a.shape != b._a.shape:
        broadcast_shape(name, a._a.shape, b._a.shape)
    if a._a.__class__ is not b._a.__class__ and a.device != b.device and (
            a._a.ndim and b._a.ndim):
        raise device_mismatch(name, (a, b))


def _binary_call(leaf: Leaf, kernel: Callable[..., Any], result: dtype | None,
                 fast: frozenset[dtype], scalars: bool,
                 general: Callable[..., Any]) -> Callable[..., Any]:
    """The eager path of a two-operand function."""
    def call(input: Any, other: Any) -> Tensor:
        try:
            d = input._dtype
            if isinstance(other, Tensor):
                if other._dtype is not d or d not in fast:
                    return general(input, other)
                y = other._a
            elif scalars and d in _NATIVE and (other.__class__ is float or other.__class__ is int):
                y = other
            else:
                return general(input, other)
            a = input._a
            r = None
            if a.size >= SINGLE and a.__class__ is _ndarray and leaf.launches is not None and (
                    y.__class__ is not AbstractArray):
                r = launch(leaf, [a, y], ())
            if r is None:
                token = enter(IGNORE)
                try:
                    r = kernel(a, y)
                finally:
                    leave(token)
                if a.size >= SINGLE:
                    r = settled(r, [a, y])
        except (AttributeError, ValueError, AbstractOperand, OverflowError, MemoryError):
            return general(input, other)
        if r.__class__ is not _ndarray:
            r = np.asarray(r)
        t = _new(Tensor)
        t._a = r
        t._dtype = d if result is None else result
        t._rg = False
        t._fn = t._st = t._grad = t._base = None
        t._nr = t._epoch = 0
        if INFERENCE[0]:
            Tensor._note_birth(t)
        if state.grad and (input._rg or input._base is not None or (
                y is not other and (other._rg or other._base is not None))):
            record_pointwise(leaf, t, input, other)
        return t
    return call


_FAST = {
    "same": frozenset(d for d in DTYPES.values()
                      if not d.is_reduced and d.kind != BOOL),
    "float": _NATIVE,
}
_FAST["integer"] = frozenset(d for d in _FAST["same"] if d.kind == INT)
_FAST["real"] = frozenset(d for d in _FAST["same"] if d.kind != COMPLEX)


def binary(name: str, kernel: Callable[..., Any], grad: Any, *, kind: str = "same",
           places: str = "torch Tensor", aliases: str = "", inplace: bool = True,
           node: Any = None, bools: Callable[..., Any] | str | None = None,
           check: Callable[[dtype], None] | None = None, publish: bool = True,
           numbers: str = "both", doc: str = "") -> Any:
    """A pointwise function of two operands with broadcasting and type promotion.

    kind: "same", "float", "real" or "integer" (see `operands`). bools: how two bool operands
    compute, if NumPy's way differs ("error": not at all). publish=False: the caller writes the
    public function (with more arguments) around this one. numbers: which operands may be
    Python numbers ("both", "other" or "none").
    """
    leaf = Leaf(name, _binary_kernel(kernel), ("input", "other"), 2, False, grad,
                _pointwise_shape, node, False, True, False)

    def general(input: Any, other: Any) -> Tensor:
        _check_numbers(name, numbers, input, other)
        a, b = operands(name, input, other, kind)
        d = (a if isinstance(a, Tensor) else b)._dtype
        if check is not None:
            check(d)
        if d.kind == BOOL and bools is not None:
            if bools == "error":
                raise not_implemented_for(name, d)
            return bools(a, b)  # type: ignore[operator]
        return leaf(a, b)

    call = _binary_call(leaf, kernel, None, _FAST[kind], numbers != "none", general)
    call.__name__ = call.__qualname__ = name
    call.__doc__ = doc or f"`{name}` of two operands, element by element, broadcast."
    if publish:
        return op(places, inplace=inplace and leaf, out=True, aliases=aliases)(call)
    call.leaf = leaf  # type: ignore[attr-defined]
    return call


def _check_numbers(name: str, numbers: str, input: Any, other: Any) -> None:
    """TypeError for a Python number where PyTorch's function needs a tensor."""
    if numbers != "both" and not isinstance(input, Tensor):
        raise argument_type(name, "input", "Tensor", input)
    if numbers == "none" and not isinstance(other, Tensor):
        raise argument_type(name, "other", "Tensor", other)


def comparison(name: str, kernel: Callable[..., Any], *, aliases: str = "", kind: str = "same",
               numbers: str = "other", doc: str = "") -> Any:
    """A pointwise comparison: the result is bool."""
    from .record import not_differentiable

    leaf = Leaf(name, _binary_kernel(kernel), ("input", "other"), 2, False,
                not_differentiable("the result is bool"), _predicate_shape, None, False, True,
                False)

    def general(input: Any, other: Any) -> Tensor:
        _check_numbers(name, numbers, input, other)
        a, b = _comparable(name, input, other, kind)
        return leaf(a, b)

    call = _binary_call(leaf, kernel, bool_, _FAST[kind], numbers != "none", general)
    call.__name__ = call.__qualname__ = name
    call.__doc__ = doc or f"Whether `{name}` holds, element by element."
    return op(inplace=True, out=True, aliases=aliases)(call)


def _comparable(name: str, input: Any, other: Any, kind: str) -> tuple[Any, Any]:
    """Operands in a common dtype; an integer beyond the tensor's range compares as a float."""
    try:
        return operands(name, input, other, kind)
    except RuntimeError:
        if isinstance(other, int) and isinstance(input, Tensor) and input._dtype.kind == INT:
            return cast(input, float64), float(other)
        raise
