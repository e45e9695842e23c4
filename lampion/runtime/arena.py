"""Where a program's buffers lie in one block of memory: those that never live together share it.

Greedy by size: the largest buffer first, each into the smallest gap that those placed before, as
far as they live at the same time, leave. Compare Y. Pisarchyk and J. Lee, "Efficient Memory
Management for Deep Neural Net Inference" (2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Lifetime", "least", "place"]

ALIGNMENT = 64
_APART, _LARGE = 512, 1 << 14  # as in the memory pool: large blocks start at multiples of 512


class Lifetime(NamedTuple):
    """A buffer's bytes, and the first and the last step that use it."""

    size: int
    first: int
    last: int


def place(buffers: Sequence[Lifetime]) -> tuple[list[int], int]:
    """The offset of every buffer, and the bytes of all.

    >>> place([Lifetime(1024, 0, 1), Lifetime(640, 2, 3), Lifetime(64, 1, 2)])
    ([0, 0, 1024], 1088)
    """
    offsets = [0] * len(buffers)
    table = np.zeros((4, len(buffers)), np.int64)  # of those placed: start, end, first, last step
    order = sorted(range(len(buffers)), key=lambda i: (-buffers[i].size, buffers[i].first))
    for count, i in enumerate(order):
        size, first, last = buffers[i]
        start, end, born, dies = table[:, :count]
        together = (born <= last) & (dies >= first)
        offsets[i] = _gap(start[together], end[together], _aligned(size, ALIGNMENT),
                          _APART if size >= _LARGE else ALIGNMENT)
        table[:, count] = offsets[i], offsets[i] + _aligned(size, ALIGNMENT), first, last
    return offsets, int(table[1].max(initial=0))


def _gap(start: Any, end: Any, size: int, alignment: int) -> int:
    """The offset of the smallest gap between occupied ranges that `size` bytes fit."""
    if not start.size:
        return 0
    order = np.argsort(start, kind="stable")
    free = np.empty(start.size + 1, np.int64)  # where each gap begins; the last one is open
    free[0] = 0
    np.maximum.accumulate(end[order], out=free[1:])
    free = (free + (alignment - 1)) // alignment * alignment
    room = start[order] - free[:-1]
    fits = np.flatnonzero(room >= size)
    return int(free[fits[room[fits].argmin()]] if fits.size else free[-1])


def least(buffers: Sequence[Lifetime]) -> int:
    """The most bytes that live at one time: no placement needs less."""
    change: dict[int, int] = {}
    for size, first, last in buffers:
        change[first] = change.get(first, 0) + _aligned(size, ALIGNMENT)
        change[last + 1] = change.get(last + 1, 0) - _aligned(size, ALIGNMENT)
    most = now = 0
    for step in sorted(change):
        now += change[step]
        most = max(most, now)
    return most


def _aligned(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
