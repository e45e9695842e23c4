"""Stride arithmetic shared by real and abstract arrays: which views exist without a copy."""

from __future__ import annotations

from typing import Any

import numpy as np

from .abstract import contiguous_strides

__all__ = ["is_contiguous", "memory_order", "reshape_strides"]


def reshape_strides(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int,
                    new_shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Strides that show the same elements under `new_shape`, or None if only a copy can.

    Walks both shapes from the right, matching runs of dimensions that lie densely in memory.
    """
    if 0 in shape:
        return contiguous_strides(new_shape, itemsize)
    result = [0] * len(new_shape)
    view_d = len(new_shape) - 1
    run_stride = strides[-1] if strides else itemsize
    run_size = view_size = 1
    for d in range(len(shape) - 1, -1, -1):
        run_size *= shape[d]
        ends = d == 0 or (shape[d - 1] != 1 and strides[d - 1] != run_size * run_stride)
        if not ends:
            continue
        while view_d >= 0 and (view_size < run_size or new_shape[view_d] == 1):
            result[view_d] = view_size * run_stride
            view_size *= new_shape[view_d]
            view_d -= 1
        if view_size != run_size:
            return None
        if d > 0:
            run_stride, run_size, view_size = strides[d - 1], 1, 1
    for d in range(view_d, -1, -1):
        result[d] = view_size * run_stride
    return tuple(result)


def is_contiguous(array: Any) -> bool:
    """Whether the elements lie densely in row-major order."""
    if type(array) is np.ndarray:
        return bool(array.flags.c_contiguous)
    expected = array.itemsize
    if 0 in array.shape:
        return True
    for n, stride in zip(reversed(array.shape), reversed(array.strides), strict=True):
        if n != 1:
            if stride != expected:
                return False
            expected *= n
    return True


def memory_order(array: Any) -> tuple[int, ...]:
    """Dimensions from the slowest to the fastest in memory."""
    order = sorted(range(array.ndim), key=lambda d: (-array.strides[d], d))
    return tuple(order)
