"""Packing of B: panels as wide as the micro-kernel's tile, each row by row.

A panel holds `width` columns of all rows of B, one row after another, padded with zeros. The
micro-kernel then reads memory in order, whatever the layout and the element type of B were.
"""

from __future__ import annotations

from collections.abc import Sequence

from .gemm_kernel import tile_of
from .ir import Kernel, Value
from .target import Target
from .types import Type

__all__ = ["build_pack", "transpose"]


def build_pack(target: Target, source: Type, element: Type, along: str, axes: int = 0
               ) -> Kernel:
    """The kernel that packs B (k, n), or a batch of such, into `panels`.

    along: "rows" where the elements of a row are neighbours in memory, "columns" where those of a
    column are, "any" otherwise. Arguments: panels (1-D, `element`), b (`source`), task_rows and
    task_panels (what one task packs).
    """
    return _Pack(target, source, element, along, axes).build()


class _Pack:
    def __init__(self, target: Target, source: Type, element: Type, along: str, axes: int
                 ) -> None:
        self.k = k = Kernel("pack_" + along)
        self.target, self.element, self.along = target, element, along
        self.width = tile_of(target, element).width
        self.axes = axes
        self.lanes = target.lanes(element)
        self.panels, self.b = k.array("panels", element), k.array("b", source)
        self.task_rows, self.task_panels = k.integer("task_rows"), k.integer("task_panels")
        self.rows, self.columns = self.b.size(axes), self.b.size(axes + 1)
        self.row, self.column = self.b.stride(axes), self.b.stride(axes + 1)

    def build(self) -> Kernel:
        """A task is some rows of some panels of one matrix."""
        k = self.k
        chunks = (self.rows + self.task_rows - 1) / self.task_rows
        panels = (self.columns + self.width - 1) / self.width
        columns = (panels + self.task_panels - 1) / self.task_panels
        count = chunks * columns
        for axis in range(self.axes):
            count = count * self.b.size(axis)
        with k.parallel(count) as (task, _):
            matrix, at = task / (chunks * columns), task % (chunks * columns)
            p0 = (at % chunks) * self.task_rows
            p1 = k.min(p0 + self.task_rows, self.rows)
            first = (at / chunks) * self.task_panels
            source = self._matrix(matrix)
            to = k.offset(self.panels.ptr, matrix * (panels * self.rows * self.width))
            with k.loop(first, k.min(first + self.task_panels, panels)) as panel:
                j = panel * self.width
                into = k.offset(to, panel * (self.rows * self.width))
                self._panel(into, k.offset(source, j * self.column), p0, p1, self.columns - j)
        return k

    def _matrix(self, index: Value) -> Value:
        ptr = self.b.ptr
        for axis in reversed(range(self.axes)):
            size = self.b.size(axis)
            ptr = self.k.offset(ptr, (index % size) * self.b.stride(axis))
            index = index / size
        return ptr

    def _panel(self, into: Value, b: Value, p0: Value, p1: Value, left: Value) -> None:
        """Rows p0 to p1 of a panel of which `left` columns exist."""
        k, lanes = self.k, self.lanes
        if self.along == "columns":
            for first in range(0, self.width, lanes):
                self._transposed(k.offset(into, first), k.offset(b, self.column * first), p0, p1,
                                 left - first)
        elif self.target.has_masks and self.along == "rows":
            masks = [k.mask(left - v, lanes) for v in range(0, self.width, lanes)]
            with k.loop(p0, p1) as p:
                for v, mask in enumerate(masks):
                    self._put(into, p, v * lanes, k.load(b, p * self.row + v * lanes, lanes, mask))
        else:
            self._by_elements(into, b, p0, p1, left)

    def _put(self, into: Value, p: Value, column: int, value: Value) -> None:
        self.k.store(into, p * self.width + column, value.cast(self.element))

    def _by_elements(self, into: Value, b: Value, p0: Value, p1: Value, left: Value) -> None:
        """Whole vectors where they are neighbours and all exist, else one by one."""
        k, lanes = self.k, self.lanes
        vectors = k.choose((left >= self.width) & self.column.eq(1))
        with vectors.then, k.loop(p0, p1) as p:
            for v in range(0, self.width, lanes):
                self._put(into, p, v, k.load(b, p * self.row + v, lanes))
        with vectors.otherwise, k.loop(p0, p1) as p:
            self._row(k.offset(into, p * self.width), k.offset(b, p * self.row), left)

    def _row(self, into: Value, b: Value, left: Value) -> None:
        k = self.k
        count = k.min(left, self.width)
        with k.loop(0, count) as j:
            k.store(into, j, k.load(b, j * self.column).cast(self.element))
        with k.loop(count, self.width) as j:
            k.store(into, j, k.const(0, self.element))

    def _transposed(self, into: Value, b: Value, p0: Value, p1: Value, left: Value) -> None:
        """One vector of columns: squares of `lanes` by `lanes`, then the last rows singly."""
        k, lanes = self.k, self.lanes
        whole = k.choose(left >= lanes)
        with whole.then:
            end = p1 - (p1 - p0) % lanes
            with k.loop(p0, end, lanes) as p:
                columns = [k.load(b, self.column * c + p, lanes).cast(self.element)
                           for c in range(lanes)]
                for r, value in enumerate(transpose(k, columns)):
                    k.store(into, (p + r) * self.width, value)
            self._singly(into, b, end, p1, left)
        with whole.otherwise:
            self._singly(into, b, p0, p1, left)

    def _singly(self, into: Value, b: Value, p0: Value, p1: Value, left: Value) -> None:
        k = self.k
        count = k.max(k.min(left, self.lanes), 0)
        with k.loop(p0, p1) as p:
            with k.loop(0, count) as j:
                value = k.load(b, j * self.column + p * self.row)
                k.store(into, p * self.width + j, value.cast(self.element))
            with k.loop(count, self.lanes) as j:
                k.store(into, p * self.width + j, k.const(0, self.element))


def transpose(k: Kernel, rows: Sequence[Value]) -> list[Value]:
    """The columns of a square matrix whose rows are vectors.

    First within parts of 16 bytes, by interleaving; then the parts trade places.
    """
    lanes, size = len(rows), rows[0].type.size
    part = min(16 // size, lanes)
    groups = [_interleaved(k, rows[g:g + part], part) for g in range(0, lanes, part)]
    columns: list[Value] = [rows[0]] * lanes
    for c in range(part):
        traded = _trade(k, [group[c] for group in groups], part)
        for q, value in enumerate(traded):
            columns[q * part + c] = value
    return columns


def _interleaved(k: Kernel, rows: Sequence[Value], part: int) -> list[Value]:
    """Of `part` rows: value c holds, in each part q, the rows' elements of column q * part + c."""
    if part == 1:
        return list(rows)
    pairs = [(rows[i], rows[i + 1]) for i in range(0, part, 2)]
    low = [_zip(k, a, b, part, 0) for a, b in pairs]
    high = [_zip(k, a, b, part, part // 2) for a, b in pairs]
    if part == 2:
        return [low[0], high[0]]
    return [_join(k, a, b, first) for a, b in (low, high) for first in (0, 2)]


def _zip(k: Kernel, a: Value, b: Value, part: int, start: int) -> Value:
    """a and b alternately, from `start` on in each part."""
    lanes = a.type.lanes
    picks = [q + start + i // 2 + (i % 2) * lanes
             for q in range(0, lanes, part) for i in range(part)]
    return k.shuffle(a, b, picks)


def _join(k: Kernel, a: Value, b: Value, first: int) -> Value:
    """In each part of four: two elements of a from `first` on, then two of b."""
    lanes = a.type.lanes
    picks = [q + first + i % 2 + (i // 2) * lanes for q in range(0, lanes, 4) for i in range(4)]
    return k.shuffle(a, b, picks)


def _trade(k: Kernel, values: Sequence[Value], part: int) -> list[Value]:
    """Value q holds part q of each value in turn."""
    count = len(values)
    if count == 1:
        return list(values)
    if count == 2:
        return [_parts_of(k, values[0], values[1], part, [q, q + 2]) for q in range(2)]
    even = [_parts_of(k, a, b, part, [0, 2, 4, 6]) for a, b in _pairs(values)]
    odd = [_parts_of(k, a, b, part, [1, 3, 5, 7]) for a, b in _pairs(values)]
    return [_parts_of(k, a, b, part, picks)
            for picks in ([0, 2, 4, 6], [1, 3, 5, 7]) for a, b in (even, odd)]


def _pairs(values: Sequence[Value]) -> list[tuple[Value, Value]]:
    return [(values[i], values[i + 1]) for i in range(0, len(values), 2)]


def _parts_of(k: Kernel, a: Value, b: Value, part: int, picks: Sequence[int]) -> Value:
    return k.shuffle(a, b, [p * part + i for p in picks for i in range(part)])
