"""Panels of B: as wide as the micro-kernel's tile, each row by row.

A panel holds `width` columns of all rows of B, one row after another, padded with zeros. The
micro-kernel then reads memory in order, whatever the layout and the element type of B were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .gemm_factors import SHIFT, Factors
from .ir import Kernel, Value
from .target import Target
from .types import F64, U8, U16, Type

__all__ = ["Panels", "Tile", "build_pack", "each_vector", "tile_of", "transpose"]


_AHEAD = 8  # rows of B that are asked for ahead of time


class Tile(NamedTuple):
    """The part of C that is held in registers: `rows` by `vectors` of `lanes` elements."""

    rows: int
    vectors: int
    lanes: int

    @property
    def width(self) -> int:
        """Columns of the tile, which is the width of a panel of B."""
        return self.vectors * self.lanes


_ROWS = {"avx512": 14, "avx2": 6, "sse": 4, "neon": 8}


def tile_of(target: Target, element: Type, parts: int = 1) -> Tile:
    """The tile of a target: accumulators, a row of B and a broadcast fill its registers.

    Its rows are numbers, of which each part has sums of its own; its columns are parts.
    """
    return Tile(_ROWS[target.name] // parts, 2, target.lanes(element))


def build_pack(target: Target, factors: Factors, along: str, axes: int = 0) -> Kernel:
    """The kernel that packs B (k, n), or a batch of such, into panels; `along`: see `Panels`.

    Its arguments: panels (1-D, of elements), b, task_rows and task_panels (what one task packs).
    """
    k = Kernel("pack_" + along, True)
    panels = k.array("panels", factors.element)
    b = k.array("b", factors.b if along == "groups" else factors.in_b)
    task_rows, task_panels = k.integer("task_rows"), k.integer("task_panels")
    rows, columns = b.size(axes), b.size(axes + 1) * factors.parts
    if along == "groups":
        rows = (rows + factors.group - 1) / factors.group
    width = tile_of(target, factors.element).width
    count = (columns + width - 1) / width
    parts = (rows + task_rows - 1) / task_rows
    tasks = parts * ((count + task_panels - 1) / task_panels)
    batch = [b.size(axis) for axis in range(axes)]
    total = tasks
    for size in batch:
        total = total * size
    with k.parallel(total) as (task, _):
        source_ptr, matrix, at = b.ptr, task / tasks, task % tasks
        into = k.offset(panels.ptr, matrix * (count * rows * width))
        for axis in reversed(range(axes)):
            source_ptr = k.offset(source_ptr, (matrix % batch[axis]) * b.stride(axis))
            matrix = matrix / batch[axis]
        p0, first = (at % parts) * task_rows, (at / parts) * task_panels
        packer = Panels(k, target, factors, along, b.stride(axes), b.stride(axes + 1))
        packer.rows_of_b = b.size(axes)
        with k.loop(first, k.min(first + task_panels, count)) as panel:
            j = panel * width
            packer.fill(k.offset(into, panel * (rows * width)), packer.at_column(source_ptr, j),
                        p0, k.min(p0 + task_rows, rows), columns - j)
    return k


class Panels:
    """Writes the part of a kernel that packs a panel.

    along: "rows" where the elements of a row of B are neighbours in memory, "columns" where those
    of a column are, "any" otherwise; "groups" where those of a row are, but elements of the panel
    hold several rows. row, column: the steps of B, where it is complex those of its parts.
    """

    rows_of_b: Value  # all of them; only groups ask for it

    def __init__(self, k: Kernel, target: Target, factors: Factors, along: str, row: Value,
                 column: Value) -> None:
        self.k, self.target, self.factors, self.along = k, target, factors, along
        self.element, self.parts = factors.element, factors.parts
        self.row, self.column = row, column
        self.width, self.lanes = tile_of(target, self.element).width, target.lanes(self.element)

    def at_column(self, b: Value, j: Value) -> Value:
        """B from column j on, a column of parts and the first of its number."""
        return self.k.offset(b, j / self.parts * self.column)

    def fill(self, into: Value, b: Value, p0: Value, p1: Value, left: Value) -> None:
        """Rows p0 to p1 of a panel of which `left` columns exist."""
        k, lanes = self.k, self.lanes
        if self.along == "columns":
            with k.loop(0, self.width, lanes) as first:
                self._transposed(k.offset(into, first), self.at_column(b, first), p0, p1,
                                 left - first)
        elif self.along in ("rows", "groups") and self.target.has_masks:
            self._masked(into, b, p0, p1, left)
        else:
            self._by_elements(into, b, p0, p1, left)

    def _masked(self, into: Value, b: Value, p0: Value, p1: Value, left: Value) -> None:
        """Rows of B in vectors."""
        k, lanes = self.k, self.lanes
        masks = [k.mask(left - v, lanes) for v in range(0, self.width, lanes)]
        with k.loop(p0, p1) as p:
            if self.along == "rows":
                k.prefetch(b, (p + _AHEAD) * self.row)
                k.prefetch(b, (p + _AHEAD) * self.row + (self.width - 1))
            for v, mask in enumerate(masks):
                self._put(into, p, v * lanes, self._loaded(b, p, v * lanes, lanes, mask))

    def _loaded(self, b: Value, p: Value, j: Value | int, lanes: int, mask: Value | None = None
                ) -> Value:
        """Elements of row p of the panel from column j on, which are neighbours in memory."""
        if self.along == "groups":
            return self._grouped(b, p, j, lanes, mask)
        return self.k.load(b, p * self.row + j, lanes, mask)

    def _grouped(self, b: Value, p: Value, j: Value | int, lanes: int, mask: Value | None
                 ) -> Value:
        """Groups of rows of B. Rows that are missing at the end count as zeros."""
        group = self.factors.group
        rows = [self._bits(self._row_of_b(b, p * group + r, j, lanes, mask)) << (
            r * (32 // group)) for r in range(group)]
        total = rows[0]
        for row in rows[1:]:
            total = total | row
        return total

    def _row_of_b(self, b: Value, row: Value, j: Value | int, lanes: int, mask: Value | None
                  ) -> Value:
        k = self.k
        exists = row < self.rows_of_b
        if self.target.has_masks:
            held = k.splat(exists, lanes)
            return k.load(b, row * self.row + j, lanes, held if mask is None else mask & held)
        last = k.select(exists, row, 0)  # any row: it is read for nothing
        value = k.load(b, last * self.row + j, lanes)
        return k.select(exists, value, 0)

    def _bits(self, value: Value) -> Value:
        """A member's bits as an element, zeros above them."""
        assert self.factors.members is not None
        member = self.factors.members[1]
        if not member.is_float:
            value = value.cast(member)
        return value.bits(_UNSIGNED[member.size]).cast(self.element)

    def _put(self, into: Value, p: Value, column: int, value: Value) -> None:
        self.k.store(into, p * self.width + column, self._packed(value))

    def _packed(self, value: Value) -> Value:
        """As panels hold it."""
        if self.factors.is_shifted:
            return value ^ SHIFT
        return value.cast(self.element)

    def _by_elements(self, into: Value, b: Value, p0: Value, p1: Value, left: Value) -> None:
        """Whole vectors where they are neighbours and all exist, else number by number."""
        k, lanes = self.k, self.lanes
        vectors = k.choose((left >= self.width) & self.column.eq(self.parts))
        with vectors.then, k.loop(p0, p1) as p:
            for v in range(0, self.width, lanes):
                self._put(into, p, v, self._loaded(b, p, v, lanes))
        with vectors.otherwise, k.loop(p0, p1) as p:
            self._numbers(into, b, p, k.min(left, self.width), self.width)

    def _transposed(self, into: Value, b: Value, p0: Value, p1: Value, left: Value) -> None:
        """One vector of columns: squares of as many rows, then the last rows singly."""
        k, lanes, count = self.k, self.lanes, self.lanes // self.parts
        whole = k.choose(left >= lanes)
        with whole.then:
            end = p1 - (p1 - p0) % count
            with k.loop(p0, end, count) as p:
                columns = [self._packed(k.load(b, self.column * c + p * self.parts, lanes))
                           for c in range(count)]
                for r, value in enumerate(transpose(k, columns, self.parts)):
                    k.store(into, (p + r) * self.width, value)
            self._singly(into, b, end, p1, left)
        with whole.otherwise:
            self._singly(into, b, p0, p1, left)

    def _singly(self, into: Value, b: Value, p0: Value, p1: Value, left: Value) -> None:
        k = self.k
        count = k.max(k.min(left, self.lanes), 0)
        with k.loop(p0, p1) as p:
            self._numbers(into, b, p, count, self.lanes)

    def _numbers(self, into: Value, b: Value, p: Value, count: Value, all: int) -> None:
        """`count` columns of row p, and zeros up to `all`."""
        k, parts = self.k, self.parts
        to = k.offset(into, p * self.width)
        with k.loop(0, count, parts) as j:
            value = (self._grouped(self.at_column(b, j), p, 0, 1, None) if self.along == "groups"
                     else k.load(self.at_column(b, j), p * self.row, parts))
            k.store(to, j, self._packed(value))
        with k.loop(count, all) as j:
            k.store(to, j, k.const(0, self.element))


_UNSIGNED = {1: U8, 2: U16}


def each_vector(k: Kernel, target: Target, element: Type, count: Value,
                body: Callable[[Value, int, Value | None], None], lanes: int = 0) -> None:
    """Writes body(index, lanes, mask) for `count` elements: whole vectors, then what is left."""
    lanes = lanes or target.lanes(element)
    whole = count - count % lanes
    with k.loop(0, whole, lanes) as x:
        body(x, lanes, None)
    if target.has_masks:
        with k.when(whole < count):
            body(whole, lanes, k.mask(count - whole, lanes))
        return
    with k.loop(whole, count) as x:
        body(x, 1, None)


def transpose(k: Kernel, rows: Sequence[Value], unit: int = 1) -> list[Value]:
    """The columns of a square matrix whose rows are vectors; of `unit` lanes each.

    First within parts of 16 bytes, by interleaving; then the parts trade places.
    """
    if unit * rows[0].type.size == 16:
        return _trade(k, rows, unit)
    if unit > 1:
        kind, wide = rows[0].type, F64.vector(len(rows))
        turned = transpose(k, [k.emit("bitcast", (v,), wide) for v in rows])
        return [k.emit("bitcast", (v,), kind) for v in turned]
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
