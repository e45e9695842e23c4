"""Where the elements of a vector of tiles lie, found once and used for every channel.

A vector of tiles consists of runs, tiles that are neighbours in one row. For each run and each row
of elements that is read or written, a table keeps where lane 0 would lie and, as the bits of an
integer, which lanes are inside.
"""

from __future__ import annotations

from collections.abc import Callable

from .conv_pack import Run, Windows, bits_between, mask_of
from .ir import Kernel, Value
from .types import I64, U8, U16

__all__ = ["Places"]


class Places:
    """Writes the tables of one vector of tiles: `count` rows of two vectors of elements each."""

    def __init__(self, k: Kernel, lanes: int, pieces: int, count: int) -> None:
        self.k, self.lanes, self.pieces, self.count = k, lanes, pieces, count
        self.word = U16 if lanes == 16 else U8
        self.offsets = k.scratch(I64, count * pieces)
        self.words = k.scratch(self.word, count * pieces * 2)

    def find(self, windows: Windows, q: Value, many: Value,
             locate: Callable[[Run, Value], tuple[Value, Value, Value]]) -> None:
        """For the `many` tiles from q on; locate(run, row): lane 0, first element, end."""
        k = self.k
        loop = k.loop(0, self.pieces, 1, [k.index(0)])
        with loop as (piece, first):
            run = windows.run(q, many, first)
            with k.loop(0, self.count) as row:
                offset, low, high = locate(run, row)
                place = row * self.pieces + piece
                k.store(self.offsets, place, offset)
                for part in range(2):
                    start = part * self.lanes
                    k.store(self.words, place * 2 + part,
                            bits_between(k, low - start, high - start, self.lanes))
            loop.next(first + run.length)

    def row(self, row: Value) -> list[tuple[Value, list[Value]]]:
        """For each run where lane 0 lies and which lanes of both vectors are inside."""
        k, found = self.k, []
        for piece in range(self.pieces):
            place = row * self.pieces + piece
            masks = [mask_of(k, k.load(self.words, place * 2 + part), self.lanes)
                     for part in range(2)]
            found.append((k.load(self.offsets, place), masks))
        return found
