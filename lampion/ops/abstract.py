"""Operators on tensors without data: shape rules, and recording for capture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd.modes import state
from ..autograd.node import NOT_TENSORS, record
from ..tensor.abstract import AbstractArray, contiguous_strides
from ..tensor.dtype import from_numpy_dtype
from ..tensor.tensor import Tensor, share, wrap
from .errors import device_mismatch
from .layout import DENSE, order_of
from .native import TEMPLATES
from .record import data_dependent

__all__ = ["all_true", "run"]


def all_true(flags: Tensor) -> bool:
    """Whether all elements are true; a program expects it, and checks it at every run."""
    a = flags._a
    decisions = getattr(a.recorder, "decisions", None) if type(a) is AbstractArray else None
    if decisions is None:
        return bool(flags.all())
    decisions.expect(flags)
    return True


def run(leaf: Any, tensors: tuple[Any, ...], attrs: tuple[Any, ...]) -> Any:
    """Applies `leaf` to shapes; a recorder among the inputs notes the operation."""
    recorder = _recorder((*tensors, *attrs))
    if recorder is None:
        _check_devices(leaf.name, tensors)
    if leaf.shape is data_dependent:
        raise _no_elements(leaf.name, recorder, tensors)
    arrays = [t._a if isinstance(t, Tensor) else t for t in tensors]
    results = _view(leaf, arrays, attrs) if leaf.view else _infer(leaf, arrays, attrs)
    many = isinstance(results, list)
    outs = [_wrap(leaf, tensors[0], r) for r in (results if many else [results])]
    if recorder is not None:
        recorder.note(leaf, tensors, attrs, outs, many)
    out = tuple(outs) if many else outs[0]
    if state.grad:
        record(leaf, out, tensors, attrs)
    return out


def _recorder(tensors: Sequence[Any]) -> Any:
    """Who notes the operation: the innermost where there are several."""
    best = None
    for t in tensors:
        if t.__class__ in NOT_TENSORS:
            continue
        found = None
        if isinstance(t, Tensor):
            found = t._a.recorder if type(t._a) is AbstractArray else None
        elif isinstance(t, (tuple, list)):
            found = _recorder(t)
        if found is not None and (best is None or found.level > best.level):
            best = found
    return best


def _no_elements(name: str, recorder: Any, tensors: tuple[Any, ...]) -> Exception:
    if recorder is not None:
        recorder.materialize(tensors[0], f"{name}()")
    return NotImplementedError(
        f"{name}() cannot run on meta tensors: the size of its result depends on elements that "
        "they do not have")


def _check_devices(name: str, tensors: tuple[Any, ...]) -> None:
    for t in tensors:
        if isinstance(t, Tensor) and type(t._a) is np.ndarray and t._a.ndim > 0:
            raise device_mismatch(name, [x for x in tensors if isinstance(x, Tensor)])


def _wrap(leaf: Any, base: Tensor, array: AbstractArray) -> Tensor:
    return share(base, array, from_numpy_dtype(array.dtype)) if leaf.view else wrap(array)


def _view(leaf: Any, arrays: list[Any], attrs: tuple[Any, ...]) -> Any:
    result = leaf.kernel(*arrays, *attrs)
    return list(result) if isinstance(result, tuple) else result


def _infer(leaf: Any, arrays: list[Any], attrs: tuple[Any, ...]) -> Any:
    if leaf.shape is None:
        return _by_running(leaf, arrays, attrs)
    args = (arrays, *attrs) if leaf.takes_list else (*arrays, *attrs)
    found = leaf.shape(*args)
    default = next(a.dtype for a in arrays if a is not None and hasattr(a, "dtype"))
    if isinstance(found, list):
        return [_settled(leaf, _abstract(f, default), arrays, attrs) for f in found]
    return _settled(leaf, _abstract(found, default), arrays, attrs)


def _settled(leaf: Any, result: AbstractArray, arrays: list[Any], attrs: Any) -> AbstractArray:
    """A result that lies in memory as it would with data: random numbers are drawn in its order."""
    whole = leaf.name != "clone" or attrs[0] is not None
    if leaf.name in DENSE or (leaf.name in TEMPLATES and whole):
        return result
    operands = [a for a in arrays if hasattr(a, "strides")]
    if all(a.strides == contiguous_strides(a.shape, a.itemsize) for a in operands):
        return result
    order = order_of(result.shape, operands)
    steps = contiguous_strides(tuple(result.shape[i] for i in order), result.itemsize)
    strides = tuple(steps[order.index(i)] for i in range(len(order)))
    return AbstractArray(result.shape, result.dtype, strides)


def _abstract(found: Any, default: Any) -> AbstractArray:
    if len(found) == 2 and isinstance(found[1], np.dtype):
        return AbstractArray(tuple(found[0]), found[1])
    return AbstractArray(tuple(found), default)


def _by_running(leaf: Any, arrays: list[Any], attrs: tuple[Any, ...]) -> Any:
    """Runs the reference on zeros that take no memory."""
    stand_ins = [_zeros_like(a) for a in arrays]
    exact = leaf.exact or not any(_is_reduced(a) for a in stand_ins)
    narrow = None if exact else next(a.dtype for a in stand_ins if _is_reduced(a))
    if not exact:
        stand_ins = [a.astype(np.float32) if _is_reduced(a) else a for a in stand_ins]
    with np.errstate(all="ignore"):
        result = leaf.kernel(stand_ins, *attrs) if leaf.takes_list else leaf.kernel(
            *stand_ins, *attrs)
    if isinstance(result, tuple):
        return [_settled(leaf, _shape_of(r, narrow), arrays, attrs) for r in result]
    return _settled(leaf, _shape_of(result, narrow), arrays, attrs)


def _is_reduced(a: Any) -> bool:
    return isinstance(a, np.ndarray) and a.dtype.kind in "fV" and a.dtype.itemsize < 4


def _zeros_like(a: Any) -> Any:
    if type(a) is AbstractArray:
        return np.broadcast_to(np.zeros((), a.dtype), a.shape)
    return a


def _shape_of(r: Any, narrow: Any) -> AbstractArray:
    r = np.asarray(r)
    keep = narrow is None or r.dtype != np.float32
    return AbstractArray(r.shape, r.dtype if keep else narrow)
