"""Convolution by three taps along both axes with a quarter of the multiplications.

A task transforms the tiles of some strips (`conv_winograd_tiles.py`), multiplies each of the 36
planes with that of the weight, tiles by channels of the output, and transforms back, all in memory
of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .conv_winograd_tiles import (
    PLANES,
    SIDE,
    STEP,
    TAPS,
    Numbers,
    Strips,
    in_two_passes,
    of_input,
    of_output,
    of_weight,
    parts,
)
from .gemm_pack import tile_of, transpose
from .gemm_tiles import Strided, Tiles
from .ir import Kernel, Value
from .target import Target
from .types import I64, Type

__all__ = ["GAP", "WinogradVariant", "build_winograd", "build_winograd_weight", "each_tile"]

GAP = 16
"""Elements between planes: a whole number of pages would make them compete for cache lines."""


class WinogradVariant(NamedTuple):
    """What is fixed when the kernel is compiled; last: channels of input, output are neighbours.

    own_weight: tasks transform the weight themselves, for no two use the same part of it.
    """

    element: Type
    bias: bool
    x_last: bool
    out_last: bool
    own_weight: bool = False


def build_winograd(target: Target, variant: WinogradVariant) -> Kernel:
    """The kernel. Arguments: out, x: (images, channels, height, width), see `Strips`; the weight,
    transformed by `build_winograd_weight` unless tasks do it; bias or None; space: for each thread
    the planes of x and of out, a block of the weight if it is transformed here, and a strip;
    numbers: see `FIELDS`.
    """
    return _Winograd(target, variant).build()


class _Winograd(Tiles):
    def __init__(self, target: Target, variant: WinogradVariant) -> None:
        k, element = Kernel("conv_winograd", True), variant.element
        self.variant = variant
        self.out, self.x = k.array("out", element), k.array("x", element)
        self.weight, self.bias_array = k.array("weight", element), k.array("bias", element)
        self.space, self.numbers = k.array("space", element), Numbers(k)
        super().__init__(k, target, element)

    def build(self) -> Kernel:
        """A task is some strips and some channels of the output."""
        k, g, v = self.k, self.numbers, self.variant
        self.channels, self.most_rows = g["channels"], g["task_rows"]
        blocks, own = parts(g["rows"], self.most_rows), self.space.size(1)
        with k.parallel(parts(g["last"], g["strips"]) * blocks) as (task, worker):
            self.k0 = (task % blocks) * self.most_rows
            self.k1 = k.min(self.k0 + self.most_rows, g["rows"])
            self.s0 = task / blocks * g["strips"]
            self.s1 = k.min(self.s0 + g["strips"], g["last"])
            self.each = g["group"] * g["tiles_x"]
            self.tiles = (self.s1 - self.s0) * self.each
            self.v_ptr = k.offset(self.space.ptr, worker * own)
            self.m_ptr = k.offset(self.v_ptr, g["plane_step"] * PLANES)
            self.m_plane = g["strips"] * self.each * self.most_rows + GAP
            self.memory = k.scratch(self.element, PLANES * self.tile.lanes)
            self.reserve()
            strip = k.offset(self.v_ptr, own - g["strip"])
            self._read(Strips(k, self.target, self.x, g, "x_run", v.x_last, SIDE - STEP), strip)
            self.add, self.i0, self.i1 = k.index(0), k.index(0), self.tiles
            self.out_row = self.most_rows
            if v.own_weight:
                self._multiply_own()
            else:
                self._multiply()
            self._write(Strips(k, self.target, self.out, g, "out_run", v.out_last, 0), strip)
        return k

    def _read(self, strips: Strips, memory: Value) -> None:
        """V: the transformed tiles, each a row of all channels."""
        k, g, lanes = self.k, self.numbers, self.tile.lanes
        strips.begin(memory)
        strips.clear()
        with k.loop(0, self.channels, lanes) as c, k.loop(self.s0, self.s1) as s:
            strips.at(s, c, self.channels)
            strips.fill()
            first = k.offset(self.v_ptr, (s - self.s0) * self.each * g["tile_step"] + c)
            each_tile(strips, g, self.memory, first, SIDE, of_input)

    def _multiply(self) -> None:
        """The products, blocks of channels within each."""
        k, g, width = self.k, self.numbers, self.tile.width
        panel_size = self.channels * width
        plane_step = parts(g["rows"], width) * panel_size + GAP
        with k.loop(0, PLANES) as plane, k.loop(0, self.channels, g["block"]) as c:
            self._block(plane, c)
            weight = k.offset(self.weight.ptr, plane * plane_step + c * width)
            with k.loop(self.k0, self.k1, width) as j:
                self._panel(j, k.offset(weight, j / width * panel_size))

    def _multiply_own(self) -> None:
        """Panel by panel, some channels of whose weight are transformed just before."""
        k, g, lanes, width = self.k, self.numbers, self.tile.lanes, self.tile.width
        plane_step = g["block"] * width + GAP
        own = k.offset(self.m_ptr, self.m_plane * PLANES)
        weight = Weight(k, self.target, self.element, self.weight.ptr, g["rows"], [
            g[f"weight_{name}"] for name in ("row", "column", "tap", "start")])
        with k.loop(self.k0, self.k1, width) as j, k.loop(0, self.channels, g["block"]) as c:
            end = k.min(c + g["block"], self.channels)
            with k.loop(j, k.min(j + width, self.k1), lanes) as row:
                weight.transform(k.offset(own, row - j), plane_step, row, c, end)
            with k.loop(0, PLANES) as plane:
                self._block(plane, c)
                self._panel(j, k.offset(own, plane * plane_step))

    def _block(self, plane: Value, c: Value) -> None:
        """Chooses a plane and a block of channels."""
        k, g = self.k, self.numbers
        self.length = k.min(self.channels - c, g["block"])
        self.first, self.last = c.eq(0), self.channels <= c + g["block"]
        self.rows = Strided(k.offset(self.v_ptr, plane * g["plane_step"] + c), g["tile_step"],
                            k.index(1))
        self.out_ptr = k.offset(self.m_ptr, plane * self.m_plane)

    def _panel(self, j: Value, panel: Value) -> None:
        """All tiles by one panel of the weight; half of it where no more is left."""
        k, (_, _, lanes), width = self.k, self.tile, self.tile.width
        room = k.select(self.k1 - j > lanes, k.index(width), k.index(lanes))
        self.panel(j - self.k0, room, panel, k.const(width, I64))

    def masks_of(self, left: Value) -> list[Value | None]:
        """There is room for whole vectors, in panels as in planes."""
        return [None] * self.tile.vectors

    def _write(self, strips: Strips, memory: Value) -> None:
        """A^T m A, a vector of channels of a strip at a time, to their places."""
        k, lanes = self.k, self.tile.lanes
        strips.begin(memory)
        with k.loop(self.k0, self.k1, lanes) as i, k.loop(self.s0, self.s1) as s:
            strips.at(s, i, self.k1)
            bias = k.load(self.bias_array.ptr, i, lanes, k.mask(
                self.k1 - i, lanes)) if self.variant.bias else None
            m = k.offset(self.m_ptr, (s - self.s0) * self.each * self.most_rows + (i - self.k0))
            self._each_result(strips, m, bias)
            strips.drain()

    def _each_result(self, strips: Strips, m: Value, bias: Value | None) -> None:
        k, g, lanes = self.k, self.numbers, self.tile.lanes
        with k.loop(0, g["group"]) as y, k.loop(0, g["tiles_x"]) as x:
            source = k.offset(m, (y * g["tiles_x"] + x) * self.most_rows)
            to = k.offset(strips.memory, (y * strips.pitch + x) * (STEP * lanes))

            def read(i: Value) -> list[Value]:
                return [k.load(source, (i * SIDE + j) * self.m_plane, lanes) for j in range(SIDE)]

            def write(j: Value, values: list[Value]) -> None:
                for r, value in enumerate(values):
                    k.store(to, (strips.pitch * r + j) * lanes,
                            value if bias is None else value + bias)
            in_two_passes(k, self.memory, SIDE, of_output, read, write)


def each_tile(strips: Strips, g: Numbers, memory: Value, to: Value, size: int,
              transform: Callable[[Kernel, Sequence[Value]], list[Value]]) -> None:
    """Transforms the tiles of a strip, of `size` rows and columns, one after another to `to`."""
    k, lanes = strips.k, strips.lanes
    with k.loop(0, g["group"]) as y, k.loop(0, g["tiles_x"]) as x:
        source = k.offset(strips.memory, (y * strips.pitch + x) * (STEP * lanes))
        planes = k.offset(to, (y * g["tiles_x"] + x) * g["tile_step"])

        def read(i: Value) -> list[Value]:
            return [k.load(source, (i * strips.pitch + j) * lanes, lanes) for j in range(size)]

        def write(j: Value, values: list[Value]) -> None:
            for i, value in enumerate(values):
                k.store(planes, (j + i * SIDE) * g["plane_step"], value)
        in_two_passes(k, memory, size, transform, read, write)


def build_winograd_weight(target: Target, element: Type) -> Kernel:
    """The kernel that transforms weights, G g G^T.

    Arguments: planes: 36, `GAP` apart, of panels of channels of the output, each of a row for
    every channel of the input; weight; rows, columns: its channels; row, column, tap: its steps in
    elements; start: its first tap (with a negative step of taps: the last one).
    """
    k = Kernel("winograd_weight", True)
    planes, weight = k.array("planes", element), k.array("weight", element)
    rows, columns = k.integer("rows"), k.integer("columns")
    steps = [k.integer(name) for name in ("row", "column", "tap", "start")]
    width, lanes = tile_of(target, element).width, target.lanes(element)
    plane_step = parts(rows, width) * columns * width + GAP
    with k.parallel(parts(rows, lanes)) as (task, _):
        first = task * lanes
        to = k.offset(planes.ptr, first / width * (columns * width) + first % width)
        Weight(k, target, element, weight.ptr, rows, steps).transform(
            to, plane_step, first, k.index(0), columns)
    return k


class Weight:
    """Writes the transform of weights, a vector of rows at a time."""

    def __init__(self, k: Kernel, target: Target, element: Type, weight: Value, rows: Value,
                 steps: Sequence[Value]) -> None:
        self.k, self.weight, self.rows = k, weight, rows
        self.row, self.column, self.tap, self.start = steps
        self.lanes, self.width = target.lanes(element), tile_of(target, element).width
        self.taps = k.scratch(element, TAPS * self.lanes)
        self.memory = k.scratch(element, 3 * SIDE * self.lanes)

    def transform(self, to: Value, plane_step: Value, first: Value, c0: Value, c1: Value) -> None:
        """The rows from `first` on, the columns c0 to c1."""
        k, lanes = self.k, self.lanes
        with k.loop(c0, c1) as c:
            self._read(k.offset(self.weight, first * self.row + c * self.column), first)

            def read(i: Value) -> list[Value]:
                return [k.load(self.taps, ((i * 3 + j) * self.tap + self.start) * lanes, lanes)
                        for j in range(3)]

            def write(j: Value, values: list[Value], c: Value = c) -> None:
                for i, value in enumerate(values):
                    k.store(to, (j + i * SIDE) * plane_step + (c - c0) * self.width, value)
            in_two_passes(k, self.memory, 3, of_weight, read, write)

    def _read(self, weight: Value, first: Value) -> None:
        """The nine taps, each a vector; rows that are missing are the last one."""
        k, lanes = self.k, self.lanes
        for tap in range(0, TAPS, lanes):
            mask = k.mask(k.index(TAPS - tap), lanes)
            lines = [k.load(k.offset(weight, k.min(self.rows - first - 1, r) * self.row), tap,
                            lanes, mask) for r in range(lanes)]
            for t, value in enumerate(transpose(k, lines)[:TAPS - tap], tap):
                k.store(self.taps, t * lanes, value)
