"""The matrix product as a kernel: C = A @ B in register tiles over blocks that fit the caches.

The micro-kernel keeps a tile of C in registers and walks once along k: one row of B in vectors,
one broadcast element of A per row of the tile. A may have any strides. B is in panels as wide as
the tile: a packed copy (`gemm_pack.py`), or B itself where its rows are contiguous. Around it are
three loops: blocks of k, panels of B (a block of one fits L1), tiles of rows (a block of A fits
L2). The scheme is Goto and van de Geijn's, "Anatomy of High-Performance Matrix Multiplication",
ACM TOMS 34 (2008).

Every element of C is summed in one order, which depends on k alone: within a block of k one chain
of fused multiply-adds, then the sums of the blocks in turn. So neither the number of threads nor
the other rows and columns change a result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .gemm_pack import Panels, each_vector, tile_of
from .ir import Kernel, Value
from .target import Target
from .types import I64, Type

__all__ = ["A_BLOCK", "Epilogue", "K_BLOCK", "Variant", "build"]

A_BLOCK = 1 << 18
"""Bytes of a task's packed block of A: a quarter of the second-level cache of current cores."""

K_BLOCK = 384
"""Rows of B in one block, at most: with a panel of 32 columns 48 KiB of float32."""


class Epilogue(NamedTuple):
    """What happens to C's elements before they are stored; `key` names it in kernel keys."""

    key: str
    apply: Callable[[Kernel, Value, Value, Value | None], Value]
    """(kernel, vector of C, its first column, which lanes are inside or None) to a vector."""


class Variant(NamedTuple):
    """What is fixed when a product is compiled; sizes, strides and blocks are arguments."""

    element: Type
    bias: str = ""  # "column": one element for each column of C; "row": for each row
    scaled: bool = False  # alpha * A @ B
    axes: int = 0  # leading batch axes of out, a and b
    epilogue: Epilogue | None = None
    b: str = "panels"  # or how a task packs the panels that it needs: see `Panels.along`


def build(target: Target, variant: Variant) -> Kernel:
    """The kernel of one variant; its arguments, in order:

    out, a, b, bias: ndarrays; b is packed panels of any shape, or B; bias may be None.
    b_row, b_panel, b_batch: steps in elements between rows, panels and matrices of packed panels;
    b_panel 0: B itself, by its own strides, whose rows are contiguous. Only a target with masks
    can use it so; for others tasks pack.
    task_rows, task_columns, block: the part of C that is one task, and of k that is one block.
    pack: not 0 to copy blocks of A, which then has a unit stride, into memory of the task.
    add: not 0 to add to what `out` holds. alpha: of a scaled variant only.
    """
    return _Gemm(target, variant).build()


class _Strided(NamedTuple):
    """A matrix in memory."""

    ptr: Value
    row: Value
    column: Value


class _Gemm:
    def __init__(self, target: Target, variant: Variant) -> None:
        self.k = k = Kernel("gemm")
        self.target, self.variant = target, variant
        self.tile = tile_of(target, variant.element)
        element = variant.element
        self.out, self.a = k.array("out", element), k.array("a", element)
        self.b, self.bias = k.array("b", element), k.array("bias", element)
        names = "b_row b_panel b_batch task_rows task_columns block pack add"
        (self.b_row, self.b_panel, self.b_batch, self.task_rows, self.task_columns, self.block,
         self.pack, self.add) = (k.integer(n) for n in names.split())
        if variant.scaled:
            self.alpha = k.number("alpha", element)
        axes = variant.axes
        self.m, self.n, self.depth = self.out.size(axes), self.out.size(axes + 1), self.a.size(
            axes + 1)
        self.out_row = self.out.stride(axes)
        self.itself = self.b_panel.eq(0)
        self.b_step = k.select(self.itself, self.b.stride(axes), self.b_row)
        self.b_panel = k.select(self.itself, k.const(self.tile.width, I64), self.b_panel)

    def build(self) -> Kernel:
        """All tasks: blocks of rows within blocks of columns within matrices of the batch."""
        k = self.k
        row_blocks = _parts(self.m, self.task_rows)
        column_blocks = _parts(self.n, self.task_columns)
        blocks = row_blocks * column_blocks
        count, sizes = blocks, []
        for axis in range(self.variant.axes):
            sizes.append(self.out.size(axis))
            count = count * sizes[-1]
        with k.parallel(count) as (task, _):
            self._batch(task / blocks if sizes else task, sizes)
            at = task % blocks if sizes else task
            self.i0 = (at % row_blocks) * self.task_rows
            j0 = (at / row_blocks) * self.task_columns
            self.i1 = k.min(self.i0 + self.task_rows, self.m)
            self._blocks(j0, k.min(j0 + self.task_columns, self.n))
        return k

    def _batch(self, index: Value, sizes: Sequence[Value]) -> None:
        """The pointers of one matrix of the batch."""
        k = self.k
        b = k.offset(self.b.ptr, index * self.b_batch) if sizes else self.b.ptr
        out, a = self.out.ptr, self.a.ptr
        for axis in reversed(range(len(sizes))):
            place, index = index % sizes[axis], index / sizes[axis]
            out = k.offset(out, place * self.out.stride(axis))
            a = k.offset(a, place * self.a.stride(axis))
            b = k.offset(b, place * k.select(self.itself, self.b.stride(axis), 0))
        self.out_ptr, self.a_ptr, self.b_ptr = out, a, b

    def _blocks(self, j0: Value, j1: Value) -> None:
        """The blocks of k; one, of no elements, where k is 0."""
        k, axes = self.k, self.variant.axes
        a = _Strided(self.a_ptr, self.a.stride(axes), self.a.stride(axes + 1))
        store = k.scratch(self.variant.element, A_BLOCK // self.variant.element.size)
        if self.variant.b != "panels":
            self.own = k.scratch(self.variant.element, K_BLOCK * self.tile.width)
        if not self.target.has_masks:
            self.spill = k.scratch(self.variant.element, self.tile.rows * self.tile.width)
        with k.loop(0, k.max(self.depth, 1), self.block) as p:
            self.length = k.min(self.depth - p, self.block)
            self.first, self.last = p.eq(0), self.depth <= p + self.block
            rows = k.offset(a.ptr, self.i0 * a.row + p * a.column)
            self.rows = self._packed(_Strided(rows, a.row, a.column), store)
            with k.loop(j0, j1, self.tile.width) as j:
                self._panel(p, j)

    def _packed(self, a: _Strided, store: Value) -> _Strided:
        """The task's block of A: itself, or a copy whose rows do not share cache sets."""
        k = self.k
        branch = k.choose(self.pack.ne(0))
        with branch.then:
            branch.give(*self._copy(a, store))
        with branch.otherwise:
            branch.give(*a)
        return _Strided(*branch.results)

    def _copy(self, a: _Strided, store: Value) -> _Strided:
        """Runs along the unit stride, one after another with space between."""
        k, count = self.k, self.i1 - self.i0
        by_rows = a.column.eq(1)
        outer = k.select(by_rows, count, self.length)
        inner = k.select(by_rows, self.length, count)
        step = _padded(k.select(by_rows, self.block, self.task_rows))
        source = k.select(by_rows, a.row, a.column)
        with k.loop(0, outer) as x:
            self._run(k.offset(store, x * step), k.offset(a.ptr, x * source), inner)
        one = k.const(1, I64)
        return _Strided(store, k.select(by_rows, step, one), k.select(by_rows, one, step))

    def _run(self, to: Value, source: Value, count: Value) -> None:
        each_vector(self.k, self.target, self.variant.element, count,
                    lambda x, lanes, mask: self.k.store(
                        to, x, self.k.load(source, x, lanes, mask), mask))

    def _panel(self, p: Value, j: Value) -> None:
        """All rows of the task against one panel of B; half a panel where no more is left."""
        k, tile = self.k, self.tile
        self.j, self.left = j, self.n - j
        self.masks = [k.mask(self.left - v * tile.lanes, tile.lanes) if self.target.has_masks
                      else None for v in range(tile.vectors)]
        self.panel, self.panel_row = self._source(p, j)
        both = k.choose(self.left > tile.lanes)
        with both.then:
            self._rows(2)
        with both.otherwise:
            self._rows(1)

    def _source(self, p: Value, j: Value) -> tuple[Value, Value]:
        """Where the panel at column j begins in row p of B, and the step between its rows."""
        k, axes, width = self.k, self.variant.axes, self.tile.width
        if self.variant.b == "panels":
            return k.offset(self.b_ptr, (j / width) * self.b_panel + p * self.b_step), self.b_step
        packer = Panels(k, self.target, self.variant.element, self.variant.b, self.b.stride(axes),
                        self.b.stride(axes + 1))
        start = k.offset(self.b_ptr, p * packer.row + j * packer.column)
        packer.fill(self.own, start, k.index(0), self.length, self.left)
        return self.own, k.const(width, I64)

    def _rows(self, vectors: int) -> None:
        """Tiles of all the task's rows: full ones, then smaller ones."""
        k, rows, start = self.k, self.tile.rows, self.i0
        for size in (rows, *(n for n in (4, 1) if n < rows)):
            stop = self.i1 - (self.i1 - start) % size if size > 1 else self.i1
            with k.loop(start, stop, size) as i:
                self._tile(i, size, vectors)
            start = stop

    def _tile(self, i: Value, rows: int, vectors: int) -> None:
        """`rows` rows of C against `vectors` vectors of a panel of B."""
        k = self.k
        a = k.offset(self.rows.ptr, (i - self.i0) * self.rows.row)
        sums = self._products(a, rows, vectors)
        if self.variant.scaled:
            sums = [s * self.alpha for s in sums]
        self.i, self.c = i, k.offset(self.out_ptr, i * self.out_row + self.j)
        cells = self._cells(sums, vectors)
        if self.target.has_masks:
            self._finish(cells)
            return
        inside = k.choose(self.left >= vectors * self.tile.lanes)
        with inside.then:
            self._finish(cells)
        with inside.otherwise:
            self._finish_edge(rows, cells)

    def _products(self, a: Value, rows: int, count: int) -> list[Value]:
        """The tile's sums over the block of k."""
        k, lanes = self.k, self.tile.lanes
        zero = k.const(0.0, self.variant.element.vector(lanes))
        row, column = self.rows.row, self.rows.column
        # A pointer for three rows: the others are one and two steps from it.
        starts = [k.offset(a, row * r) for r in range(0, rows, 3)]
        steps = [k.const(0, I64), row, row * 2]
        loop = k.loop(0, self.length, 1, [self.panel, *starts, *[zero] * (rows * count)])
        with loop as (_, b, *state):
            ptrs, sums = state[:len(starts)], state[len(starts):]
            vectors = [k.load(b, v * lanes, lanes, self.masks[v]) for v in range(count)]
            new = []  # row by row, so that one broadcast is held at a time
            for r in range(rows):
                one = k.splat(k.load(ptrs[r // 3], steps[r % 3]), lanes)
                new += [k.fma(one, y, sums[r * count + v]) for v, y in enumerate(vectors)]
            loop.next(k.offset(b, self.panel_row), *(k.offset(p, column) for p in ptrs), *new)
        return list(loop.results[1 + len(starts):])

    # --- storing --------------------------------------------------------------------------------

    def _cells(self, sums: Sequence[Value], vectors: int) -> list[_Cell]:
        lanes = self.tile.lanes
        return [_Cell(value, self.k.index(x // vectors), self.k.index(x % vectors * lanes),
                      self.masks[x % vectors]) for x, value in enumerate(sums)]

    def _place(self, cell: _Cell) -> Value:
        return self.out_row * cell.row + cell.column

    def _finish(self, cells: Sequence[_Cell]) -> None:
        """Adds what C held where asked, applies the epilogue in the last block, and stores."""
        k = self.k
        old = k.choose(~self.first | self.add.ne(0))
        with old.then:
            old.give(*(c.value + k.load(self.c, self._place(c), c.value.type.lanes, c.mask)
                       for c in cells))
        with old.otherwise:
            old.give(*(c.value for c in cells))
        cells = [c._replace(value=v) for c, v in zip(cells, old.results, strict=True)]
        if self.variant.bias or self.variant.epilogue:
            branch = k.choose(self.last)
            with branch.then:
                branch.give(*self._applied(cells))
            with branch.otherwise:
                branch.give(*(c.value for c in cells))
            cells = [c._replace(value=v) for c, v in zip(cells, branch.results, strict=True)]
        for c in cells:
            k.store(self.c, self._place(c), c.value, c.mask)

    def _applied(self, cells: Sequence[_Cell]) -> list[Value]:
        """The values with their bias, after the epilogue."""
        k, known, values = self.k, dict[int, Value](), []
        for value, row, column, mask in cells:
            if self.variant.bias:
                place = id(column if self.variant.bias == "column" else row)
                if place not in known:
                    known[place] = self._bias(row, column, value.type.lanes, mask)
                value = value + known[place]
            if self.variant.epilogue:
                value = self.variant.epilogue.apply(k, value, self.j + column, mask)
            values.append(value)
        return values

    def _bias(self, row: Value, column: Value, lanes: int, mask: Value | None) -> Value:
        if self.variant.bias == "column":
            return self.k.load(self.bias.ptr, self.j + column, lanes, mask)
        return self.k.load(self.bias.ptr, self.i + row)

    def _finish_edge(self, rows: int, cells: Sequence[_Cell]) -> None:
        """Without masked stores: element by element, through memory of the task."""
        k, width = self.k, self.tile.width
        for c in cells:
            k.store(self.spill, c.row * width + c.column, c.value)
        columns = k.min(self.left, width)
        with k.loop(0, rows) as row, k.loop(0, columns) as column:
            value = k.load(self.spill, row * width + column)
            self._finish([_Cell(value, row, column, None)])


class _Cell(NamedTuple):
    """A vector of the tile: its place relative to the tile, and which lanes are inside C."""

    value: Value
    row: Value
    column: Value
    mask: Value | None


def _parts(size: Value, part: Value) -> Value:
    return (size + part - 1) / part


def _padded(step: Value) -> Value:
    """An odd number of cache lines of 16 elements that holds `step` elements."""
    return ((step + 15) / 16 | 1) * 16
