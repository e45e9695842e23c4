"""Register tiles of a matrix product C = A @ B: what every kernel built on it shares.

The micro-kernel keeps a tile of C in registers and walks once along k: one row of B in vectors,
one broadcast element of A per row of the tile. A may have any strides. B comes in panels as wide as
the tile, whose rows are contiguous; where a panel comes from, and where C lies, is the business of
the kernels (`gemm_kernel.py`, `conv_kernel.py`).

Of complex numbers C and B are seen as twice as many real columns, both parts side by side. Both
parts of an element of A are multiplied with them, into sums of their own; at the end the sums of
the imaginary part are turned by a right angle and added. These are four real products, so both
parts of C are as exact as real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .gemm_factors import Factors, plain
from .gemm_pack import each_vector, tile_of
from .ir import Kernel, Value
from .target import Target
from .types import I1, I32, I64, U8, Type

__all__ = ["A_BLOCK", "Cell", "K_BLOCK", "Rows", "Strided", "Tiles", "multiply_add"]

A_BLOCK = 1 << 18
"""Bytes of a task's packed block of A: a quarter of the second-level cache of current cores."""

K_BLOCK = 512
"""Rows of B in one block, at most: with a panel of 32 columns 64 KiB of float32."""


_SMALL = 8
"""Sums in a small tile: more than a multiply-add takes cycles, no more than in a full one."""


class Strided(NamedTuple):
    """A matrix in memory: its first element, and the steps between rows and columns."""

    ptr: Value
    row: Value
    column: Value


class Tiles:
    """Writes the tiles of a kernel. Subclasses set, before `rows_of_c` is called:

    bias_ptr, add: parameters of the kernel. first, last: whether this is the first or last block
    of k. i0, i1: the task's rows of C, of which `rows` holds the block of A. length: rows of B in
    the block. out_ptr, out_row: C.
    """

    out_ptr: Value
    out_row: Value
    bias_ptr: Value
    add: Value
    first: Value
    last: Value
    length: Value
    i0: Value
    i1: Value
    rows: Strided
    known_rows = 1 << 30  # of C, at most, as far as the kernel is written for few
    next_panel: Value | None = None  # contiguous memory that is fetched meanwhile

    def __init__(self, k: Kernel, target: Target, element: Type, bias: str = "",
                 alpha: Sequence[Value] = (), factors: Factors | None = None,
                 result: Type | None = None) -> None:
        self.k, self.target, self.element = k, target, element
        self.factors = factors or plain(element)
        self.sum, self.parts = self.factors.sum, self.factors.parts
        self.result = result or self.sum  # of C in memory
        self.bias, self.alpha = bias, alpha
        self.tile = tile_of(target, element, self.parts)

    def reserve(self) -> None:
        """Memory of the task that tiles need."""
        self.spill = self.k.scratch(self.sum, self.tile.rows * self.tile.width)

    # --- a block of A ---------------------------------------------------------------------------

    def copied(self, a: Strided, rows: Value, block: Value, store: Value) -> Strided:
        """A copy of the task's block of A, along its unit stride, with space between the runs.

        rows, block: at most so many rows and columns.
        """
        k, count, parts = self.k, self.i1 - self.i0, self.parts
        by_rows = a.column.eq(parts) | self.length.eq(1)  # whose step may be anything
        outer = k.select(by_rows, count, self.length)
        inner = k.select(by_rows, self.length, count) * parts
        step = _padded(k.select(by_rows, block, rows) * parts)
        source = k.select(by_rows, a.row, a.column)
        with k.loop(0, outer) as x:
            self._run(k.offset(store, x * step), k.offset(a.ptr, x * source), inner)
        one = k.const(parts, I64)
        return Strided(store, k.select(by_rows, step, one), k.select(by_rows, one, step))

    def _run(self, to: Value, source: Value, count: Value) -> None:
        each_vector(self.k, self.target, self.element, count,
                    lambda x, lanes, mask: self.k.store(
                        to, x, self.k.load(source, x, lanes, mask).cast(self.element), mask))

    # --- a panel of B ---------------------------------------------------------------------------

    def masks_of(self, left: Value) -> list[Value | None]:
        """Which lanes of a panel's vectors are inside, of `left` columns that are left."""
        k, (_, vectors, lanes) = self.k, self.tile
        return [k.mask(left - v * lanes, lanes) if self.target.has_masks else None
                for v in range(vectors)]

    def panel(self, j: Value, left: Value, panel: Value, panel_row: Value) -> None:
        """All rows of the task against one panel of B; half a panel where no more is left.

        j: the panel's first column of C, of which `left` are left; panel: its memory, with
        `panel_row` between rows.
        """
        k = self.k
        self.j, self.left = j, left
        self.masks = self.masks_of(left)
        self.panel_ptr, self.panel_row = panel, panel_row
        both = k.choose(left > self.tile.lanes)
        with both.then:
            self._rows(2)
        with both.otherwise:
            self._rows(1)

    def _rows(self, vectors: int) -> None:
        """Tiles of all the task's rows: full ones, then smaller ones. Of single vectors small ones
        alone: every further tile costs milliseconds of compilation.
        """
        k, full = self.k, self.tile.rows
        small = min(self.known_rows, _SMALL // (vectors * self.parts))
        stop = self.i0
        if vectors == self.tile.vectors and small < min(full, self.known_rows):
            stop = self.i1 - (self.i1 - self.i0) % full
            with k.loop(self.i0, stop, full) as i:
                self._tile(i, Rows([k.index(r) for r in range(full)], k.index(full), True), vectors)
        with k.loop(stop, self.i1, small) as i:
            last = self.i1 - i - 1
            self._tile(i, Rows([k.min(last, r) for r in range(small)], k.min(last + 1, small),
                                False), vectors)

    def _tile(self, i: Value, rows: Rows, vectors: int) -> None:
        """Some rows of C against `vectors` vectors of a panel of B."""
        k = self.k
        self.i, self.c = i, k.offset(self.out_ptr, i * self.out_row + self.j)
        self.fetch(rows, vectors)
        sums = self.products(self.row_of_a(i), rows, vectors)
        if self.alpha:
            sums = [self._scaled(s) for s in sums]
        self._finish(sums, rows, vectors)

    def fetch(self, rows: Rows, vectors: int) -> None:
        """C is fetched while its sums are made."""
        with self.k.loop(0, rows.existing) as r:
            for v in range(vectors):
                self.k.prefetch(self.c, self.out_row * r + v * self.tile.lanes)

    def row_of_a(self, i: Value) -> Value:
        """Where row i of the block of A begins; i is the first row of a tile."""
        return self.k.offset(self.rows.ptr, (i - self.i0) * self.rows.row)

    def starts(self, a: Value, rows: Rows) -> tuple[list[Value], list[tuple[int, Value]]]:
        """Pointers to rows of A; of each row which of them it is near, and how far away."""
        k, row, many = self.k, self.rows.row, len(rows.places)
        if not rows.whole:
            return [a], [(0, row * place) for place in rows.places]
        steps = [k.const(0, I64), row, row * 2]
        return ([k.offset(a, row * r) for r in range(0, many, 3)],
                [(r // 3, steps[r % 3]) for r in range(many)])

    def products(self, a: Value, rows: Rows, count: int) -> list[Value]:
        """The sums over the block of k of some rows from `a` on and `count` vectors of B."""
        k, lanes, parts = self.k, self.tile.lanes, self.parts
        zero = k.const(0, self.sum.vector(lanes))
        column = self.rows.column
        ahead, step = self._ahead(len(rows.places))
        starts, places = self.starts(a, rows)
        sums = [zero] * (len(places) * parts * count)
        loop = k.loop(0, self.length, 1, [self.panel_ptr, *starts, *sums])
        with loop as (p, b, *state):
            if ahead is not None:
                k.prefetch(ahead, p * step)
            ptrs, sums = state[:len(starts)], state[len(starts):]
            vectors = [k.load(b, v * lanes, lanes, self.masks[v]) for v in range(count)]
            new: list[Value] = []  # row by row, so that one broadcast is held at a time
            for near, place in places:
                for part in range(parts):
                    one = k.splat(k.load(ptrs[near], place + part), lanes)
                    new += [multiply_add(k, self.factors, one, y, sums[len(new) + v])
                            for v, y in enumerate(vectors)]
            loop.next(k.offset(b, self.panel_row), *(k.offset(p, column) for p in ptrs), *new)
        sums = list(loop.results[1 + len(starts):])
        return sums if parts == 1 else self._joined(sums, count)

    def _joined(self, sums: Sequence[Value], count: int) -> list[Value]:
        """Of the sums of both parts of A: x + i y."""
        rows = [sums[r:r + count] for r in range(0, len(sums), count)]
        return [self.k.fma(self._turned(y), self._signs(), x)
                for first, second in zip(rows[::2], rows[1::2], strict=True)
                for x, y in zip(first, second, strict=True)]

    def _turned(self, value: Value) -> Value:
        """With the two parts of each number exchanged."""
        return self.k.shuffle(value, value, [lane ^ 1 for lane in range(value.type.lanes)])

    def _signs(self) -> Value:
        """-1 and 1 by turns: what i times a number is, once its parts are exchanged."""
        lanes = self.k.iota(self.tile.lanes, I32) & 1
        return (lanes * 2 - 1).cast(self.sum)

    def _scaled(self, value: Value) -> Value:
        if self.parts == 1:
            return value * self.alpha[0]
        return self.k.fma(self._turned(value) * self._signs(), self.alpha[1],
                          value * self.alpha[0])

    def _ahead(self, rows: int) -> tuple[Value | None, Value | int]:
        """The part of the next panel that `rows` rows fetch, a little with each row of B."""
        if self.next_panel is None:
            return None, 0
        k, all_rows, width = self.k, self.i1 - self.i0, self.tile.width
        start = (self.i - self.i0) * self.length * width / all_rows
        return k.offset(self.next_panel, start), (all_rows + rows * width - 1) / all_rows

    # --- storing --------------------------------------------------------------------------------

    def column_of(self, vector: int) -> Value:
        """Where a vector of the tile begins in a row of C."""
        return self.k.index(vector * self.tile.lanes)

    def _finish(self, sums: Sequence[Value], rows: Rows, vectors: int) -> None:
        """Stores the sums; in the first block of k at once, else by a loop, as that is rare."""
        k, masks = self.k, self.masks
        held, whole = ~self.first | self.add.ne(0), k.const(True, I1)
        if not self.target.has_masks:
            whole = self.left >= vectors * self.tile.lanes
        branch = k.choose(held | ~whole)
        with branch.then:
            for x, value in enumerate(sums):
                k.store(self.spill, x * self.tile.lanes, value)
            with k.loop(0, rows.existing) as row:
                self._finish_row(row, vectors, held)
        with branch.otherwise:
            self._finish_new([
                Cell(value, rows.places[x // vectors], self.column_of(x % vectors),
                     masks[x % vectors]) for x, value in enumerate(sums)])

    def _finish_new(self, cells: Sequence[Cell]) -> None:
        """Sums of a block of k that is the first one; of the only one with the bias."""
        known: dict[int, Value] = {}
        for value, row, column, mask in cells:
            if self.bias:
                place = id(column if self.bias == "column" else row)
                if place not in known:
                    bias = self._bias(row, column, value.type.lanes, mask)
                    known[place] = self.k.select(self.last, bias, 0)
                value = value + known[place]
            self.k.store(self.c, self.out_row * row + column, value.cast(self.result), mask)

    def _bias(self, row: Value, column: Value, lanes: int, mask: Value | None) -> Value:
        k, row = self.k, (self.i + row) * self.parts
        if self.bias == "column":
            value = k.load(self.bias_ptr, self.j + column, lanes, mask)
        elif self.parts == 1:
            value = k.load(self.bias_ptr, row)
        elif lanes == 1:
            value = k.load(self.bias_ptr, row + column % 2)
        else:
            both = k.load(self.bias_ptr, row, 2)
            value = k.shuffle(both, both, [lane % 2 for lane in range(lanes)])
        return value.cast(self.sum)

    def _finish_row(self, row: Value, vectors: int, held: Value) -> None:
        """A row of sums from memory: by vectors, without masked stores element by element."""
        k, lanes = self.k, self.tile.lanes
        sums = k.offset(self.spill, row * (vectors * lanes))
        if self.target.has_masks:
            for v in range(vectors):
                value = k.load(sums, v * lanes, lanes)
                self._finish_cell(Cell(value, row, self.column_of(v), self.masks[v]), held)
            return
        with k.loop(0, k.min(self.left, vectors * lanes)) as column:
            self._finish_cell(Cell(k.load(sums, column), row, column, None), held)

    def _finish_cell(self, cell: Cell, held: Value) -> None:
        """Adds what C held where asked, the bias in the last block, and stores."""
        k, (value, row, column, mask) = self.k, cell
        place, lanes = self.out_row * row + column, value.type.lanes
        branch = k.choose(held)
        with branch.then:
            branch.give(value + k.load(self.c, place, lanes, mask).cast(self.sum))
        with branch.otherwise:
            branch.give(value)
        value = branch.results[0]
        if self.bias:
            value = value + k.select(self.last, self._bias(row, column, lanes, mask), 0)
        k.store(self.c, place, value.cast(self.result), mask)


class Rows(NamedTuple):
    """The rows of a tile, from its first one on; those that do not exist are the last one."""

    places: list[Value]
    existing: Value  # how many
    whole: bool  # whether all exist


class Cell(NamedTuple):
    """A vector of the tile: its place relative to the tile, and which lanes are inside C."""

    value: Value
    row: Value
    column: Value
    mask: Value | None


def multiply_add(k: Kernel, factors: Factors, x: Value, y: Value, total: Value) -> Value:
    """`x * y + total` of elements of A and B; of integers modulo the size of their type."""
    members = factors.members
    if members is None:
        return k.fma(x, y, total) if total.type.is_float else x * y + total
    lanes = factors.group * total.type.lanes
    x, y = (k.emit("bitcast", (v,), m.vector(lanes)) for v, m in zip((x, y), members, strict=True))
    return k.emit("dot", (total, y, x) if members[1] == U8 else (total, x, y))


def _padded(step: Value) -> Value:
    """An odd number of cache lines of 16 elements that holds `step` elements."""
    return ((step + 15) / 16 | 1) * 16
