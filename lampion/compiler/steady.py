"""Tensors that programs read and do not write: whether they are as they were at the last run.

What a program computed from them alone (packed weights) is then still right. Writes are counted by
the storages (`tensor/storage.py`); memory that NumPy or another library has seen may change
without notice, so it never counts as unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter, is_
from typing import Any, NamedTuple

import numpy as np

from ..tensor.storage import Aside, Storage
from ..tensor.tensor import Tensor, storage_of

__all__ = ["Steady"]

_ARRAY, _STORAGE = attrgetter("_a"), attrgetter("_st")
_VERSION = attrgetter("version")


class Look(NamedTuple):
    """What was seen of tensors, in order."""

    news: int
    arrays: list[Any]
    storages: list[Any]
    versions: list[int]
    asides: list[int | None]


class Steady:
    """A look at tensors, to be compared with the one before.

    >>> import lampion as torch
    >>> w = torch.ones(2)
    >>> steady = Steady([w])
    >>> steady.note(steady.look())
    >>> steady.holds(steady.look())
    True
    >>> _ = w.data.mul_(2)
    >>> steady.holds(steady.look())
    False
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)
        self.seen: Look | None = None

    def look(self) -> Look:
        """How the tensors are now; to be taken before their elements are read."""
        news, storages = Aside.news, list(map(_STORAGE, self.tensors))
        if None in storages:
            storages = list(map(storage_of, self.tensors))
        seen = self.seen
        if seen is not None and seen.news == news and all(map(is_, storages, seen.storages)):
            asides = seen.asides
        else:
            asides = list(map(_aside, storages))
        return Look(news, list(map(_ARRAY, self.tensors)), storages,
                    list(map(_VERSION, storages)), asides)

    def holds(self, now: Look) -> bool:
        """Whether nobody has written to the tensors since the look that was noted."""
        seen = self.seen
        return (seen is not None and now.versions == seen.versions
                and all(map(is_, now.arrays, seen.arrays))
                and all(map(is_, now.storages, seen.storages))
                and now.asides == seen.asides and None not in now.asides)

    def note(self, look: Look | None) -> None:
        """What was computed holds for the tensors as they were at this look."""
        self.seen = look


def _aside(st: Storage) -> int | None:
    """Writes to the memory that the version does not count; None where nobody counts them."""
    if st.aside is None:
        return 0 if _is_own(st.array) else None
    return None if st.aside.open or not _is_own(st.array) else st.aside.writes


def _is_own(array: Any) -> bool:
    """Whether the memory was made here, and is no window on a file or another object."""
    return type(array) is np.ndarray and bool(array.flags.owndata)
