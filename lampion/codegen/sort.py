"""Sorting with places: elements of 32 bits and their places as one integer of 64 bits each.

The high half orders as the elements do, the low half is the place, so sorting the integers sorts
the elements, equal ones stay in order, and no comparison looks anything up. NumPy sorts integers
with vectors; kernels make them and take them apart again.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import numpy as np

from ..runtime import memory
from ..runtime.threads import get_num_threads
from . import service
from .ir import Kernel, Value
from .target import Target
from .types import F32, I32, I64, U32, U64, Type, dtype_name, of_numpy

__all__ = ["build_keys", "build_sorted", "sort"]

Array = np.ndarray[Any, Any]

_BLOCK = 1 << 14  # elements of a task
_SHARED = 1 << 18  # elements that are worth a thread
_TOP = -(1 << 31)


def build_keys(target: Target, element: Type, descending: bool) -> Kernel:
    """keys[r, i] = what orders as x[r, i] does, then i. keys (rows, n) of u64, x (rows, n)."""
    k = Kernel("sort_keys")
    keys, x = k.array("keys", U64), k.array("x", element)

    def body(row: Value, i: Value, lanes: int, mask: Value | None) -> None:
        at = row * x.size(1) + i
        given = k.load(x.ptr, at, lanes, mask)
        high = _ordered(given) if element == F32 else given ^ _TOP
        high = (~high if descending else high).bits(U32).cast(U64)
        place = (k.iota(lanes) + i).bits(U64)
        k.store(keys.ptr, at, (high << 32) | place, mask)
    _blocks(k, target, x.size(0), x.size(1), body)
    return k


def _ordered(x: Value) -> Value:
    """Integers in the order of floats: both zeros are one, NaN is the largest."""
    k = x.kernel
    bits = (x + 0.0).bits(I32)
    return k.select(x.ne(x), k.const(-1, bits.type), bits ^ ((bits >> 31) | _TOP))


def build_sorted(target: Target, element: Type) -> Kernel:
    """places[r, i] = the place of keys[r, i], out[r, i] = x there."""
    k = Kernel("sorted_elements")
    out, places = k.array("out", element), k.array("places", I64)
    keys, x = k.array("keys", I64), k.array("x", element)

    def body(row: Value, i: Value, lanes: int, mask: Value | None) -> None:
        first = row * x.size(1)
        place = k.load(keys.ptr, first + i, lanes, mask) & 0xFFFFFFFF
        k.store(places.ptr, first + i, place, mask)
        k.store(out.ptr, first + i, k.gather(k.offset(x.ptr, first), place, mask), mask)
    _blocks(k, target, x.size(0), x.size(1), body)
    return k


def _blocks(k: Kernel, target: Target, rows: Value, n: Value, body: Any) -> None:
    """`body(row, index, lanes, mask)` over all rows; a task is a part of one row."""
    lanes = target.lanes(I64)
    blocks = (n + (_BLOCK - 1)) / _BLOCK
    with k.parallel(rows * blocks) as (task, _):
        row = task / blocks
        low = (task - row * blocks) * _BLOCK
        high = k.min(low + _BLOCK, n)
        whole = low + (high - low) / lanes * lanes
        with k.loop(low, whole, lanes) as i:
            body(row, i, lanes, None)
        tail = lanes if target.has_masks else 1
        with k.loop(whole, high, tail) as i:
            body(row, i, tail, k.mask(high - i, tail) if tail > 1 else None)


def sort(out: Array, places: Array, x: Array, descending: bool) -> bool:
    """Sorts the rows of x (rows, n), float32 or int32, into `out`; their old places (int64).

    All arrays are contiguous. NaN is the largest, equal elements keep their order. False, and
    `out` as it was, while a kernel is being made.
    """
    element = of_numpy(dtype_name(x.dtype))
    if element not in (F32, I32) or x.shape[1] >= 1 << 32:
        raise ValueError(f"rows of float32 or int32, got {x.dtype} of shape {x.shape}")
    pack = service.kernel(("sort_keys", element.name, descending),
                          partial(build_keys, element=element, descending=descending))
    unpack = service.kernel(("sorted_elements", element.name),
                            partial(build_sorted, element=element))
    if pack is None or unpack is None:
        return False
    keys = memory.empty(x.shape, np.dtype(np.uint64))
    pack(keys, x)
    _sort_rows(keys)
    unpack(out, places, keys, x)
    return True


def _sort_rows(keys: Array) -> None:
    """On as many threads as kernels use; sorting releases the interpreter's lock."""
    parts = min(get_num_threads(), keys.shape[0], max(keys.size // _SHARED, 1))
    first, *others = np.array_split(keys, parts)
    threads = [threading.Thread(target=part.sort, args=(1,)) for part in others]
    for thread in threads:
        thread.start()
    first.sort(1)
    for thread in threads:
        thread.join()
