"""Where a program's buffers lie in one block of memory: those that never live together share it.

Greedy by size: the largest buffer first, each into the smallest gap that those placed before, as
far as they live at the same time, leave. Compare Y. Pisarchyk and J. Lee, "Efficient Memory
Management for Deep Neural Net Inference" (2020).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from typing import NamedTuple

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
    placed: list[tuple[int, int, int, int]] = []  # start, end, first and last step, by start
    for i in sorted(range(len(buffers)), key=lambda i: (-buffers[i].size, buffers[i].first)):
        size, first, last = buffers[i]
        taken = [p for p in placed if p[2] <= last and p[3] >= first]
        offsets[i] = start = _gap(taken, _aligned(size, ALIGNMENT),
                                  _APART if size >= _LARGE else ALIGNMENT)
        insort(placed, (start, start + _aligned(size, ALIGNMENT), first, last))
    return offsets, max([end for _, end, _, _ in placed], default=0)


def _gap(taken: Sequence[tuple[int, int, int, int]], size: int, alignment: int) -> int:
    """The offset of the smallest gap between occupied ranges, in order, that `size` bytes fit."""
    free, best, least_room = 0, -1, 0
    for start, end, _, _ in taken:
        room = start - free
        if room >= size and (best < 0 or room < least_room):
            best, least_room = free, room
        if end > free:
            free = -(-end // alignment) * alignment
    return free if best < 0 else best


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
