"""Where the elements of a vector of tiles lie, found once and used for every channel.

A vector of tiles consists of runs, tiles that are neighbours in one row. For each run and each row
of elements that is read or written, a table keeps where lane 0 would lie and, as the bits of an
integer, which lanes are inside.
"""

from __future__ import annotations

from collections.abc import Callable

from .conv_pack import Run, Windows
from .ir import Kernel, Value
from .types import I1, I64, U8, U16

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
                    k.store(self.words, place * 2 + part,
                            self._bits(low - part * self.lanes, high - part * self.lanes))
            loop.next(first + run.length)

    def _bits(self, low: Value, high: Value) -> Value:
        """Ones from bit low on below high."""
        k, one = self.k, self.k.const(1, I64)
        low = k.min(k.max(low, 0), self.lanes)
        high = k.max(k.min(high, self.lanes), low)
        return ((one << high) - (one << low)).cast(self.word)

    def row(self, row: Value) -> list[tuple[Value, list[Value]]]:
        """For each run where lane 0 lies and which lanes of both vectors are inside."""
        k, found = self.k, []
        for piece in range(self.pieces):
            place = row * self.pieces + piece
            masks = [self._mask(k.load(self.words, place * 2 + part)) for part in range(2)]
            found.append((k.load(self.offsets, place), masks))
        return found

    def _mask(self, word: Value) -> Value:
        k, bits = self.k, word.type.bits
        mask = k.emit("bitcast", (word,), I1.vector(bits))
        return mask if bits == self.lanes else k.shuffle(mask, mask, range(self.lanes))

