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

from .conv_pack import Geometry, Windows
from .gemm_pack import tile_of
from .gemm_tiles import Epilogue, Strided, Tiles
from .ir import Kernel, Value
from .target import Target
from .types import I32, I64, Type

__all__ = ["PLANES", "WinogradVariant", "build_winograd", "build_winograd_weight"]

PLANES = 16  # products, one for each element of a transformed tile


class WinogradVariant(NamedTuple):
    """What is fixed when the kernel is compiled; pieces: see `Windows`."""

    element: Type
    bias: bool
    pieces: int
    epilogue: Epilogue | None = None


def build_winograd(target: Target, variant: WinogradVariant) -> Kernel:
    """The kernel; its target has masks. Arguments: out (images, rows, 1, height, width), whose last
    axis is contiguous; x (images, channels, 1, height, width), likewise; planes: the transformed
    weight, see `build_winograd_weight`; bias or None; space: memory for each thread; numbers: see
    `FIELDS`, with size: tiles along each axis, task_columns: panels of a task.
    """
    return _Winograd(target, variant).build()


class _Winograd(Tiles):
    def __init__(self, target: Target, variant: WinogradVariant) -> None:
        k, element = Kernel("conv_winograd"), variant.element
        self.variant = variant
        self.out, self.x = k.array("out", element), k.array("x", element)
        self.planes, self.bias_array = k.array("planes", element), k.array("bias", element)
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
            own = (self.v_panel + self.m_panel) * panels * PLANES
            self.v_ptr = k.offset(self.space.ptr, worker * own)
            self.m_ptr = k.offset(self.v_ptr, self.v_panel * panels * PLANES)
            self.windows = Windows(k, self.target, self.element, self.x, g, self.variant.pieces, 2)
            self._each_vector(self._transform_input)
            self._multiply()
            self._each_vector(self._transform_output)
        return k

    def _each_vector(self, body: Callable[[Value, Value], None]) -> None:
        """body(panel, lane) for the task's vectors of tiles, with `runs` set."""
        k, lanes = self.k, self.tile.lanes
        with k.loop(0, self.panels) as panel, k.loop(0, self.tile.width, lanes) as lane:
            q = self.q + panel * self.tile.width + lane
            with k.when(q < self.tiles):
                self.runs = self.windows.runs(q, k.min(self.tiles - q, lanes))
                body(panel, lane)

    def _transform_input(self, panel: Value, lane: Value) -> None:
        """One vector of tiles, all channels: B^T d B."""
        k, windows, width = self.k, self.windows, self.tile.width
        zero = k.index(0)
        places = [[[windows.place(run, (zero, k.index(i), k.index(j))) for run in self.runs]
                   for j in (0, 2)] for i in range(4)]
        with k.loop(0, self.channels) as c:
            plane = k.offset(self.x.ptr, c * self.x.stride(1))
            rows = []
            for both in places:
                elements = []
                for pair in both:
                    elements += self._apart(*windows.vectors(plane, pair))
                rows.append(_input(elements))
            columns = [_input([row[j] for row in rows]) for j in range(4)]
            to = k.offset(self.v_ptr, panel * self.v_panel + c * width + lane)
            for i in range(4):
                for j in range(4):
                    k.store(to, self.v_panel * self.panels * (i * 4 + j), columns[j][i])

    def _apart(self, a: Value, b: Value) -> list[Value]:
        """Even and odd elements."""
        lanes = self.tile.lanes
        return [self.k.shuffle(a, b, range(start, 2 * lanes, 2)) for start in (0, 1)]

    def _multiply(self) -> None:
        """The sixteen products, panels and blocks of channels within each."""
        k, width = self.k, self.k.const(self.tile.width, I64)
        self.add, self.out_row = k.index(0), width
        self.chunk = chunk_of(self.channels, self.tile.rows)
        with k.loop(0, PLANES) as plane, k.loop(0, self.channels, self.block) as c:
            self.length = k.min(self.channels - c, self.block)
            self.first, self.last = c.eq(0), self.channels <= c + self.block
            first = (self.i0 / self.tile.rows * PLANES + plane) * self.chunk + c
            self.rows = Strided(k.offset(self.planes.ptr, first), self.channels, k.index(1))
            with k.loop(0, self.panels) as panel:
                at = plane * self.panels + panel
                v = k.offset(self.v_ptr, at * self.v_panel + c * width)
                self.out_ptr = k.offset(self.m_ptr, at * self.m_panel - self.i0 * width)
                self.panel(k.index(0), self.tiles - self.q - panel * width, v, width)

    def row_of_a(self, i: Value) -> Value:
        """Chunks of as many rows as a tile has follow one another, sixteen planes apart."""
        k, rows = self.k, self.tile.rows
        at = i - self.i0
        return k.offset(self.rows.ptr, (at / rows) * (self.chunk * PLANES)
                        + (at % rows) * self.channels)

    def _transform_output(self, panel: Value, lane: Value) -> None:
        """One vector of tiles, all rows: A^T m A, then two by two positions to their places."""
        k, width = self.k, self.tile.width
        places = [self._places(a) for a in range(2)]
        with k.loop(self.i0, self.i1) as i:
            m = k.offset(self.m_ptr, panel * self.m_panel + (i - self.i0) * width + lane)
            step = self.m_panel * self.panels
            planes = [[k.load(m, step * (r * 4 + c), self.tile.lanes) for c in range(4)]
                      for r in range(4)]
            halves = [_output([planes[r][c] for r in range(4)]) for c in range(4)]
            out = k.offset(self.out.ptr, i * self.out.stride(1))
            for a in range(2):
                values = [self._finished(i, v) for v in _output([half[a] for half in halves])]
                self._store(out, values, places[a])

    def _finished(self, i: Value, value: Value) -> Value:
        """With bias and epilogue."""
        if self.variant.bias:
            value = value + self.k.load(self.bias_array.ptr, i)
        if self.variant.epilogue:
            value = self.variant.epilogue.apply(self.k, value, i, None)
        return value

    def _places(self, a: int) -> list[tuple[Value, list[Value]]]:
        """For each run the place of lane 0 in row `a` of its tiles, and which lanes are inside."""
        k, lanes, found = self.k, self.tile.lanes, []
        for run in self.runs:
            y, x = run.at[1] * 2 + a, (run.at[2] - run.first) * 2
            low = run.first * 2
            high = k.min((run.first + run.length) * 2, self.out.size(4) - x)
            high = k.select(y < self.out.size(3), high, low)
            place = run.image * self.out.stride(0) + y * self.out.stride(3) + x
            found.append((place, [self.windows.between(low - p, high - p) for p in (0, lanes)]))
        return found

    def _store(self, out: Value, values: Sequence[Value],
               places: Sequence[tuple[Value, list[Value]]]) -> None:
        """The left and right positions of a row of tiles, alternately."""
        k, lanes = self.k, self.tile.lanes
        for part in range(2):
            picks = [part * lanes // 2 + x // 2 + x % 2 * lanes for x in range(lanes)]
            vector = k.shuffle(values[0], values[1], picks)
            for place, masks in places:
                k.store(k.offset(out, place), part * lanes, vector, masks[part])


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
    k = Kernel("winograd_weight")
    planes, weight = k.array("planes", element), k.array("weight", element)
    rows, columns, row, column, tap, start = (
        k.integer(n) for n in ("rows", "columns", "row", "column", "tap", "start"))
    lanes, each = target.lanes(element), tile_of(target, element).rows
    chunk = chunk_of(columns, each)
    with k.parallel(_parts(rows, k.const(each, I64))) as (task, _):
        at = k.iota(lanes, I32) * k.splat(column.cast(I32), lanes)
        first = task * each
        with k.loop(0, columns, lanes) as j, k.loop(first, k.min(first + each, rows)) as i:
            mask = k.mask(columns - j, lanes)
            source = k.offset(weight.ptr, i * row + j * column + start)
            g = [[k.gather(k.offset(source, tap * (r * 3 + c)), at, mask) for c in range(3)]
                 for r in range(3)]
            halves = [_weight([g[r][c] for r in range(3)]) for c in range(3)]
            to = k.offset(planes.ptr, task * PLANES * chunk + (i - first) * columns + j)
            for r in range(4):
                for c, value in enumerate(_weight([half[r] for half in halves])):
                    k.store(to, chunk * (r * 4 + c), value, mask)
    return k


def chunk_of(channels: Value, rows: int) -> Value:
    """Elements between a chunk of rows in one plane and in the next: no whole number of pages."""
    return channels * rows + 16


def _parts(size: Value, part: Value) -> Value:
    return (size + part - 1) / part
