"""A convolution before it runs: its numbers, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .fused import as_contiguous, copied
from .types import F32, F64, Type

__all__ = ["Array", "Ints", "Problem", "Recipe", "Three", "contiguous", "five", "in_rows",
           "neighbours", "problem", "rows_of_inputs", "share", "three"]

Array = np.ndarray[Any, Any]
Ints = Sequence[int]
Three = tuple[int, int, int]
Recipe = Callable[[Array, Array, Array, Array | None], bool]

_ELEMENTS = {np.dtype(np.float32): F32, np.dtype(np.float64): F64}


class Problem(NamedTuple):
    """A convolution before it runs; three spatial axes, of which the first may be dummies."""

    element: Type
    out: tuple[int, ...]
    x: tuple[int, ...]
    w: tuple[int, ...]
    out_steps: tuple[int, ...]
    x_steps: tuple[int, ...]
    stride: Three
    padding: Three
    dilation: Three
    groups: int
    bias: bool


def problem(out: Array, x: Array, w: Array, bias: Array | None, stride: Ints, padding: Ints,
             dilation: Ints, groups: int) -> Problem:
    """Everything checked; ValueError where something does not fit."""
    element = _ELEMENTS.get(out.dtype)
    arrays = [a for a in (out, x, w, bias) if a is not None]
    if element is None or any(a.dtype != out.dtype for a in arrays):
        raise ValueError(f"a convolution of dtypes {', '.join(str(a.dtype) for a in arrays)}: "
                         "expected one of float32 or float64")
    if any(s % a.itemsize for a in arrays for s in a.strides):
        raise ValueError("strides that are no multiples of the element size: copy the array first")
    axes = x.ndim - 2
    if not (1 <= axes <= 3 and out.ndim == w.ndim == x.ndim
            and len(stride) == len(padding) == len(dilation) == axes):
        raise ValueError(f"a convolution of {x.shape} by {w.shape} into {out.shape}: expected one "
                         "to three spatial axes, the same everywhere")
    p = Problem(element, five(out).shape, five(x).shape, five(w).shape, _steps(out), _steps(x),
                 three(stride, 1), three(padding, 0), three(dilation, 1), groups,
                 bias is not None)
    _check(p, bias)
    return p


def _check(p: Problem, bias: Array | None) -> None:
    sizes = [(n + 2 * pad - d * (k - 1) - 1) // s + 1 for n, pad, d, k, s in zip(
        p.x[2:], p.padding, p.dilation, p.w[2:], p.stride, strict=True)]
    fits = (p.groups > 0 and p.w[0] % p.groups == 0 and p.x[1] == p.w[1] * p.groups
            and p.out[0] == p.x[0] and p.out[1] == p.w[0] and min(p.stride) > 0
            and min(p.dilation) > 0 and min(p.padding) >= 0 and min(p.w[2:]) > 0
            and all(0 <= n <= s for n, s in zip(p.out[2:], sizes, strict=True)))
    if not fits or (bias is not None and bias.shape != (p.w[0],)):
        raise ValueError(
            f"a convolution of {p.x} by {p.w} into {p.out} with stride {p.stride}, padding "
            f"{p.padding}, dilation {p.dilation}, {p.groups} groups: the shapes do not fit")


def neighbours(a: Array) -> Array:
    """With the elements of its last axis next to each other, as kernels read them fastest."""
    return a if a.strides[-1] == a.itemsize or a.shape[-1] == 1 else copied(a)


def in_rows(size: Sequence[int], steps: tuple[int, ...]) -> tuple[int, ...]:
    """The steps of what `neighbours` gives of an array."""
    if steps[-1] == 1 or size[-1] == 1 or 0 in size:
        return steps
    return tuple(math.prod(size[axis + 1:]) for axis in range(len(size)))


def five(a: Array) -> Array:
    """With dummy spatial axes in front, three in all."""
    return a[(slice(None), slice(None), *(None,) * (5 - a.ndim))]


def three(values: Ints, dummy: int) -> Three:
    a, b, c = (*(dummy,) * (3 - len(values)), *values)
    return a, b, c


def _steps(a: Array) -> tuple[int, ...]:
    return tuple(s // a.itemsize for s in five(a).strides)


def contiguous(steps: Sequence[int], size: Sequence[int]) -> bool:
    """Whether positions are neighbours in memory."""
    expected = 1
    for step, n in zip(reversed(steps), reversed(size), strict=True):
        if n != 1 and step != expected:
            return False
        expected *= n
    return True


def share(size: int, unit: int, parts: int) -> int:
    """A multiple of `unit` that cuts `size` into about `parts`."""
    units = -(-size // unit)
    return -(-units // max(1, min(parts, units))) * unit


def rows_of_inputs(w: Array, groups: int) -> Array:
    """The weight (O, C/groups, taps) with a row for each input channel of each group."""
    if groups == 1:
        return w.swapaxes(0, 1)
    o, c = w.shape[:2]
    rows = w.reshape(groups, o // groups, c, *w.shape[2:]).swapaxes(1, 2)
    return as_contiguous(rows).reshape(groups * c, o // groups, *w.shape[2:])
