"""Convolution by three taps along both axes with fewer multiplications: Winograd's F(2x2, 3x3).

Two by two positions of the output come from four by four elements of the input. Transformed, the
sixteen elements of input and weight are multiplied one by one and summed over channels: sixteen
matrix products with 4 multiplications for an output where there were 9. A task transforms the
tiles of one panel, multiplies them and transforms back, all in memory of its own.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016. The transforms need
additions and halving only; the error is about twice that of the direct sum (tests/codegen).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .conv_pack import Geometry, Run, Windows
from .conv_places import Places
from .gemm_pack import tile_of
from .gemm_tiles import Strided, Tiles
from .ir import Kernel, Value
from .target import Target
from .types import I32, I64, Type

__all__ = ["CHUNKS", "PLANES", "WinogradVariant", "apart", "build_winograd",
           "build_winograd_weight", "find_reads", "transformed_input"]

PLANES = 16  # products, one for each element of a transformed tile
CHUNKS = 4  # of the weight that a task transforms for itself at a time


class WinogradVariant(NamedTuple):
    """What is fixed when the kernel is compiled; pieces: see `Windows`.

    own_weight: tasks transform the weight themselves, for no two use the same part of it.
    """

    element: Type
    bias: bool
    pieces: int
    own_weight: bool = False


def build_winograd(target: Target, variant: WinogradVariant) -> Kernel:
    """The kernel; its target has masks. Arguments: out (images, rows, 1, height, width), whose last
    axis is contiguous; x (images, channels, 1, height, width), likewise; the weight, transformed
    by `build_winograd_weight` unless tasks do it; bias or None; space: memory for each thread;
    numbers: see `FIELDS`, with size: tiles along each axis, task_columns: panels of a task.
    """
    return _Winograd(target, variant).build()


class _Winograd(Tiles):
    fours = False  # no tile reaches into the next chunk of the weight

    def __init__(self, target: Target, variant: WinogradVariant) -> None:
        k, element = Kernel("conv_winograd", True), variant.element
        self.variant = variant
        self.out, self.x = k.array("out", element), k.array("x", element)
        self.weight, self.bias_array = k.array("weight", element), k.array("bias", element)
        self.space, self.numbers = k.array("space", element), Geometry(k, k.array("numbers", I64))
        super().__init__(k, target, element)

    def build(self) -> Kernel:
        """A task is some panels of tiles and some rows."""
        k, g = self.k, self.numbers
        size, width = g.three("size"), self.tile.width
        self.tiles = size[0] * size[1] * size[2] * g["images"]
        panels, blocks = g["task_columns"], _parts(g["rows"], g["task_rows"])
        groups = _parts(self.tiles, panels * width)
        with k.parallel(groups * blocks) as (task, worker):
            self.panels, self.q = panels, (task / blocks) * panels * width
            self.i0 = (task % blocks) * g["task_rows"]
            self.i1 = k.min(self.i0 + g["task_rows"], g["rows"])
            self.channels, self.block = g["channels"], g["block"]
            rows = k.min(g["task_rows"], g["rows"])
            self.v_panel, self.m_panel = self.channels * width, rows * width
            self.chunk = chunk_of(self.channels, self.tile.rows)
            own = (self.v_panel + self.m_panel) * panels * PLANES
            if self.variant.own_weight:
                own = own + self.chunk * (CHUNKS * PLANES)
            self.v_ptr = k.offset(self.space.ptr, worker * own)
            self.m_ptr = k.offset(self.v_ptr, self.v_panel * panels * PLANES)
            self.windows = Windows(k, self.target, self.element, self.x, g, self.variant.pieces, 2)
            self.reserve()
            pieces, lanes = self.variant.pieces, self.tile.lanes
            self.reads, self.writes = Places(k, lanes, pieces, 8), Places(k, lanes, pieces, 2)
            self.memory = k.scratch(self.element, PLANES * lanes)
            self._each_vector(self._transform_input)
            self.add, self.out_row = k.index(0), k.const(width, I64)
            if self.variant.own_weight:
                self._multiply_in_chunks()
            else:
                self._multiply(k.offset(
                    self.weight.ptr, self.i0 / self.tile.rows * PLANES * self.chunk), self.i0)
            self._each_vector(self._transform_output)
        return k

    def _each_vector(self, body: Callable[[Value, Value, Value, Value], None]) -> None:
        """body(panel, lane, first tile, tiles) for the task's vectors of tiles."""
        k, lanes = self.k, self.tile.lanes
        with k.loop(0, self.panels) as panel, k.loop(0, self.tile.width, lanes) as lane:
            q = self.q + panel * self.tile.width + lane
            with k.when(q < self.tiles):
                body(panel, lane, q, k.min(self.tiles - q, lanes))

    def _transform_input(self, panel: Value, lane: Value, q: Value, count: Value) -> None:
        """One vector of tiles, all channels."""
        k, width = self.k, self.tile.width
        find_reads(self.reads, self.windows, q, count)
        with k.loop(0, self.channels) as c:
            planes = transformed_input(self.windows, self.reads, self.memory,
                                       k.offset(self.x.ptr, c * self.x.stride(1)))
            to = k.offset(self.v_ptr, panel * self.v_panel + c * width + lane)
            for plane, value in enumerate(planes):
                k.store(to, self.v_panel * self.panels * plane, value)

    def _multiply_in_chunks(self) -> None:
        """Some rows at a time, whose weight is transformed just before."""
        k, g, start, stop = self.k, self.numbers, self.i0, self.i1
        planes = k.offset(self.m_ptr, self.m_panel * self.panels * PLANES)
        steps = [g[f"weight_{name}"] for name in ("row", "column", "tap", "start")]
        some = CHUNKS * self.tile.rows
        with k.loop(start, stop, some) as first:
            self.i0, self.i1 = first, k.min(first + some, stop)
            with k.loop(first, self.i1, self.tile.rows) as i:
                _transform_rows(
                    k, self.target, self.element,
                    k.offset(planes, (i - first) / self.tile.rows * PLANES * self.chunk),
                    self.weight.ptr, i, k.min(i + self.tile.rows, self.i1), self.channels, steps)
            self._multiply(planes, start)
        self.i0, self.i1 = start, stop

    def _multiply(self, planes: Value, top: Value) -> None:
        """The sixteen products, panels and blocks of channels within each; top: M's first row."""
        k, width = self.k, self.k.const(self.tile.width, I64)
        with k.loop(0, PLANES) as plane, k.loop(0, self.channels, self.block) as c:
            self.length = k.min(self.channels - c, self.block)
            self.first, self.last = c.eq(0), self.channels <= c + self.block
            self.rows = Strided(k.offset(planes, plane * self.chunk + c), self.channels,
                                k.index(1))
            with k.loop(0, self.panels) as panel:
                at = plane * self.panels + panel
                v = k.offset(self.v_ptr, at * self.v_panel + c * width)
                self.out_ptr = k.offset(self.m_ptr, at * self.m_panel - top * width)
                self.panel(k.index(0), self.tiles - self.q - panel * width, v, width)

    def row_of_a(self, i: Value) -> Value:
        """Chunks of as many rows as a tile has follow one another, sixteen planes apart."""
        k, rows = self.k, self.tile.rows
        at = i - self.i0
        return k.offset(self.rows.ptr, (at / rows) * (self.chunk * PLANES)
                        + (at % rows) * self.channels)

    def _transform_output(self, panel: Value, lane: Value, q: Value, count: Value) -> None:
        """One vector of tiles, all rows: A^T m A, then two by two positions to their places."""
        k, width = self.k, self.tile.width
        self.writes.find(self.windows, q, count, self._written)
        with k.loop(self.i0, self.i1) as i:
            m = k.offset(self.m_ptr, panel * self.m_panel + (i - self.i0) * width + lane)
            step = self.m_panel * self.panels
            planes = [[k.load(m, step * (r * 4 + c), self.tile.lanes) for c in range(4)]
                      for r in range(4)]
            halves = [_output([planes[r][c] for r in range(4)]) for c in range(4)]
            out = k.offset(self.out.ptr, i * self.out.stride(1))
            for a in range(2):
                values = [self._finished(i, v) for v in _output([half[a] for half in halves])]
                self._store(out, values, self.writes.row(k.index(a)))

    def _finished(self, i: Value, value: Value) -> Value:
        """With bias."""
        return value + self.k.load(self.bias_array.ptr, i) if self.variant.bias else value

    def _written(self, run: Run, a: Value) -> tuple[Value, Value, Value]:
        """Where row `a` of a run's tiles is written."""
        k = self.k
        y, x = run.at[1] * 2 + a, (run.at[2] - run.first) * 2
        low = run.first * 2
        high = k.min((run.first + run.length) * 2, self.out.size(4) - x)
        place = run.image * self.out.stride(0) + y * self.out.stride(3) + x
        return place, low, k.select(y < self.out.size(3), high, low)

    def _store(self, out: Value, values: Sequence[Value],
               places: Sequence[tuple[Value, list[Value]]]) -> None:
        """The left and right positions of a row of tiles, alternately."""
        k, lanes = self.k, self.tile.lanes
        for part in range(2):
            picks = [part * lanes // 2 + x // 2 + x % 2 * lanes for x in range(lanes)]
            vector = k.shuffle(values[0], values[1], picks)
            for place, masks in places:
                k.store(k.offset(out, place), part * lanes, vector, masks[part])


def find_reads(reads: Places, windows: Windows, q: Value, count: Value) -> None:
    """Where the four rows of the tiles from q on are read, from the first and the third column."""
    zero = windows.k.index(0)
    reads.find(windows, q, count, lambda run, n: windows.span(run, (zero, n / 2, n % 2 * 2)))


def transformed_input(windows: Windows, reads: Places, memory: Value, plane: Value) -> list[Value]:
    """B^T d B of a vector of tiles of one channel: row by row through memory, then columns."""
    k, lanes = windows.k, windows.tile.lanes
    with k.loop(0, 4) as i:
        elements = []
        for half in range(2):
            elements += apart(k, *windows.vectors(plane, reads.row(i * 2 + half)))
        for j, value in enumerate(_input(elements)):
            k.store(memory, (i * 4 + j) * lanes, value)
    columns = [_input([k.load(memory, (i * 4 + j) * lanes, lanes) for i in range(4)])
               for j in range(4)]
    return [columns[j][i] for i in range(4) for j in range(4)]


def apart(k: Kernel, a: Value, b: Value) -> list[Value]:
    """Even and odd elements of two vectors."""
    return [k.shuffle(a, b, range(start, 2 * a.type.lanes, 2)) for start in (0, 1)]


def _input(d: Sequence[Value]) -> list[Value]:
    """B^T d."""
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _output(m: Sequence[Value]) -> list[Value]:
    """A^T m."""
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _weight(g: Sequence[Value]) -> list[Value]:
    """G g."""
    ends, middle = (g[0] + g[2]) * 0.5, g[1] * 0.5
    return [g[0], ends + middle, ends - middle, g[2]]


def build_winograd_weight(target: Target, element: Type) -> Kernel:
    """The kernel that transforms weights: G g G^T.

    Arguments: planes: chunks of as many rows as a tile has, each sixteen times, `chunk_of` apart;
    weight; rows, columns: its channels; row, column, tap: its steps in elements; start: its first
    tap (with a negative step: the last one).
    """
    k = Kernel("winograd_weight", True)
    planes, weight = k.array("planes", element), k.array("weight", element)
    rows, columns = k.integer("rows"), k.integer("columns")
    steps = [k.integer(n) for n in ("row", "column", "tap", "start")]
    each = tile_of(target, element).rows
    with k.parallel(_parts(rows, k.const(each, I64))) as (task, _):
        first = task * each
        _transform_rows(k, target, element,
                        k.offset(planes.ptr, task * PLANES * chunk_of(columns, each)), weight.ptr,
                        first, k.min(first + each, rows), columns, steps)
    return k


def _transform_rows(k: Kernel, target: Target, element: Type, to: Value, weight: Value,
                    first: Value, last: Value, columns: Value, steps: Sequence[Value]) -> None:
    """One chunk of the transformed weight, in the order in which the weight lies in memory."""
    lanes, (row, column, tap, start) = target.lanes(element), steps
    chunk = chunk_of(columns, tile_of(target, element).rows)
    at = k.iota(lanes, I32) * k.splat(column.cast(I32), lanes)
    by_rows, vectors = column < row, _parts(columns, k.const(lanes, I64))
    outer = k.select(by_rows, last - first, vectors)
    inner = k.select(by_rows, vectors, last - first)
    with k.loop(0, outer) as x, k.loop(0, inner) as y:
        i, j = first + k.select(by_rows, x, y), k.select(by_rows, y, x) * lanes
        mask = k.mask(columns - j, lanes)
        source = k.offset(weight, i * row + j * column + start)
        g = [[k.gather(k.offset(source, tap * (r * 3 + c)), at, mask) for c in range(3)]
             for r in range(3)]
        halves = [_weight([g[r][c] for r in range(3)]) for c in range(3)]
        place = k.offset(to, (i - first) * columns + j)
        for r in range(4):
            for c, value in enumerate(_weight([half[r] for half in halves])):
                k.store(place, chunk * (r * 4 + c), value, mask)


def chunk_of(channels: Value, rows: int) -> Value:
    """Elements between a chunk of rows in one plane and in the next: no whole number of pages."""
    return channels * rows + 16


def _parts(size: Value, part: Value) -> Value:
    return (size + part - 1) / part
