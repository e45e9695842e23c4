"""Elements picked and put along one axis by an array of indices.

`np.take_along_axis` and its like index with one array for each axis, which for small arrays takes
several times as long as one sum of places.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

__all__ = ["KEPT", "places", "put_along", "take_along"]

Array = Any
KEPT = 1 << 12  # numbers of a table that is kept for the next call


def take_along(a: Array, index: Array, axis: int) -> Array:
    """`np.take_along_axis` for indices that are not negative."""
    if a.flags.c_contiguous:
        return a.reshape(-1)[places(index, a.shape, axis)]
    return np.take_along_axis(a, index, axis)


def put_along(a: Array, index: Array, values: Array, axis: int) -> None:
    """`np.put_along_axis` into a C-contiguous array, for indices that are not negative."""
    a.reshape(-1)[places(index, a.shape, axis)] = values


def places(index: Array, shape: tuple[int, ...], axis: int) -> Array:
    """The places in an array of rows of `shape` to which an index along `axis` points."""
    if len(shape) == 1:
        return index
    axis %= len(shape)
    others = _kept_others if index.size <= KEPT else _others
    step = math.prod(shape[axis + 1:])
    return (index if step == 1 else index * step) + others(index.shape, shape, axis)


def _others(counts: tuple[int, ...], shape: tuple[int, ...], axis: int) -> Array:
    """What the other axes add to the places of an index of shape `counts`."""
    total = np.zeros((1,) * len(shape), np.int64)
    for d, n in enumerate(counts):
        if d != axis:
            steps = np.arange(n) * math.prod(shape[d + 1:])
            total = total + steps.reshape((n,) + (1,) * (len(shape) - d - 1))
    return total


_kept_others = lru_cache(64)(_others)
