"""Numbers that vary as positions in tensors: a cache is written at another place each time.

An index that varies becomes a tensor of one element, a slice of fixed length one of several: its
length is a fact that the program holds for. What is read so is a copy where the eager run has a
view, so neither it nor what it was read of may be written to afterwards, nor may it be returned.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops import arange
from ..tensor.dtype import int64
from ..tensor.tensor import Tensor, wrap
from .varying import Varying, as_tensor, plain

__all__ = ["positioned", "taken"]


def positioned(watcher: Any, index: Any) -> Any:
    """The index with its number that varies as a tensor; None where it has none, or several."""
    parts = list(index) if isinstance(index, tuple) else [index]
    found = [i for i, p in enumerate(parts) if _varies(p)]
    if len(found) != 1 or not all(_is_plain(p) for i, p in enumerate(parts) if i != found[0]):
        return None
    part = parts[found[0]]
    start = _start_of(watcher, part) if isinstance(part, slice) else part
    if start is None or not watcher.compare("GtE", start, 0):
        return None
    place = as_tensor(start, _like(), watcher.steps.recorder)
    if isinstance(part, slice):
        length = watcher.binary("Sub", part.stop, start)
        count = plain(length)
        if not watcher.compare("Eq", length, count) or count <= 0:
            return None
        known = watcher.steps.places
        place = known.setdefault((id(start), count), place + arange(count))
    parts[found[0]] = place
    return tuple(parts)


def taken(t: Tensor, index: tuple[Any, ...]) -> Tensor:
    """`t[index]`, whose index `positioned` gave."""
    dim = next(i for i, part in enumerate(index) if isinstance(part, Tensor))
    if any(part != slice(None) for part in (*index[:dim], *index[dim + 1:])):
        return t[index]
    rows: Tensor = t.index_select(dim, index[dim].reshape(-1))
    return rows if index[dim].ndim else rows.select(dim, 0)


def _like() -> Tensor:
    return wrap(np.zeros((), np.int64), int64)


def _varies(part: Any) -> bool:
    return isinstance(part, Varying) or (isinstance(part, slice) and any(
        isinstance(x, Varying) for x in (part.start, part.stop, part.step)))


def _start_of(watcher: Any, part: slice) -> Any:
    """Where a slice begins whose both ends vary; None of other slices."""
    both = isinstance(part.start, Varying) and isinstance(part.stop, Varying)
    return part.start if both and part.step in (None, 1) else None


def _is_plain(part: Any) -> bool:
    """Whether a part of an index picks a window."""
    return part is Ellipsis or type(part) in (int, slice)
