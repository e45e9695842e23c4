"""The gradient for the weight of a convolution by three by three taps, with fewer multiplications.

The transpose of `conv_winograd.py`: tiles of the input and of the output's gradient are
transformed, the sixteen elements multiplied one by one and summed over all tiles of all images
(sixteen matrix products, output channels by input channels), and the sums transformed back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .conv_pack import Geometry, Windows
from .conv_places import Places
from .conv_winograd import PLANES, apart, find_reads, transformed_input
from .gemm_pack import tile_of, transpose
from .ir import Kernel, Value
from .target import Target
from .types import I32, I64, Type

__all__ = ["build_gradient_result", "build_gradient_tiles", "build_input_tiles"]


class _Tiles:
    """What both kernels share that transform the tiles `to0` to `to1` of some channels.

    numbers: see `FIELDS`, with size: tiles along each axis, to_row: tiles in a row of the result
    (there is room for whole registers), task_columns: tiles of a task.
    """

    def __init__(self, name: str, target: Target, element: Type, pieces: int) -> None:
        self.k = k = Kernel(name, True)
        self.target, self.element = target, element
        self.width, self.lanes = tile_of(target, element).width, target.lanes(element)
        self.to, self.x = k.array("to", element), k.array("x", element)
        self.numbers = g = Geometry(k, k.array("numbers", I64))
        self.pieces = pieces
        self.channels, self.first, self.last = g["channels"], g["to0"], g["to1"]
        self.row = g["to_row"]

    def build(self, rows: int, body: Callable[[Value, Value, Value], None]) -> Kernel:
        """A task is some tiles of as many channels as a register has lanes.

        body(first channel, first tile, tiles)
        """
        k, some = self.k, self.numbers["task_columns"]
        blocks = _parts(self.channels, k.const(self.lanes, I64))
        with k.parallel(blocks * _parts(self.last - self.first, some)) as (task, _):
            self.memory = k.scratch(self.element, PLANES * self.lanes * (self.lanes + 1))
            self.reads = Places(k, self.lanes, self.pieces, rows)
            self.windows = Windows(k, self.target, self.element, self.x, self.numbers,
                                   self.pieces, 2)
            c0, start = (task % blocks) * self.lanes, self.first + task / blocks * some
            self.count = k.min(self.channels - c0, self.lanes)
            with k.loop(start, k.min(start + some, self.last), self.lanes) as q:
                body(c0, q, k.min(self.last - q, self.lanes))
        return k


def build_input_tiles(target: Target, element: Type, pieces: int) -> Kernel:
    """The kernel that transforms tiles of the input, B^T d B, into panels for a product.

    Arguments: panels (16 planes, panels of channels, to_row tiles, width); x; numbers.
    """
    t = _Tiles("winograd_input_tiles", target, element, pieces)
    k, lanes = t.k, t.lanes

    def body(c0: Value, q: Value, count: Value) -> None:
        find_reads(t.reads, t.windows, q, count)
        memory = k.offset(t.memory, PLANES * lanes * lanes)
        with k.loop(0, t.count) as c:
            planes = transformed_input(t.windows, t.reads, memory,
                                       k.offset(t.x.ptr, (c0 + c) * t.x.stride(1)))
            for plane, value in enumerate(planes):
                k.store(t.memory, (plane * lanes + c) * lanes, value)
        _turn(t, c0, q - t.first)
    return t.build(8, body)


def _turn(t: _Tiles, c0: Value, q: Value) -> None:
    """From a row for each channel to a row for each tile; what channels are missing is garbage."""
    k, lanes = t.k, t.lanes
    panel_size = t.row * t.width
    panels = _parts(t.channels, k.const(t.width, I64))
    to = k.offset(t.to.ptr, c0 / t.width * panel_size + c0 % t.width + q * t.width)
    with k.loop(0, PLANES) as plane:
        rows = [k.load(t.memory, (plane * lanes + c) * lanes, lanes) for c in range(lanes)]
        out = k.offset(to, plane * panels * panel_size)
        for tile, row in enumerate(transpose(k, rows)):
            k.store(out, tile * t.width, row)


def build_gradient_tiles(target: Target, element: Type, pieces: int) -> Kernel:
    """The kernel that transforms tiles of the output's gradient, A y A^T.

    Arguments: to (16 planes, channels, to_row); g; numbers.
    """
    t = _Tiles("winograd_gradient_tiles", target, element, pieces)
    k = t.k

    def body(c0: Value, q: Value, count: Value) -> None:
        zero = k.index(0)
        t.reads.find(t.windows, q, count, lambda run, i: t.windows.span(run, (zero, i, zero)))
        place = q - t.first
        mask = k.mask(t.row - place, t.lanes)
        with k.loop(c0, c0 + t.count) as c:
            plane = k.offset(t.x.ptr, c * t.x.stride(1))
            rows = [_spread(apart(k, *t.windows.vectors(plane, t.reads.row(k.index(i)))))
                    for i in range(2)]
            to = k.offset(t.to.ptr, c * t.row + place)
            for j in range(4):
                for i, value in enumerate(_spread([row[j] for row in rows])):
                    k.store(to, t.channels * t.row * (i * 4 + j), value, mask)
    return t.build(2, body)


def _spread(y: Sequence[Value]) -> list[Value]:
    """A y."""
    return [y[0], y[0] + y[1], y[0] - y[1], -y[1]]


def build_gradient_result(target: Target, element: Type) -> Kernel:
    """The kernel that transforms the sums back, G^T u G.

    Arguments: out (rows, columns, 9), contiguous; planes (16, rows, columns).
    """
    k = Kernel("winograd_gradient_result", True)
    out, planes = k.array("out", element), k.array("planes", element)
    rows, columns, lanes = planes.size(1), planes.size(2), target.lanes(element)
    at = k.iota(lanes, I32) * 9
    with k.parallel(rows) as (i, _), k.loop(0, columns, lanes) as j:
        mask = k.mask(columns - j, lanes)
        u = k.offset(planes.ptr, i * columns + j)
        read = [[k.load(u, rows * columns * (r * 4 + c), lanes, mask) for c in range(4)]
                for r in range(4)]
        halves = [_folded([read[r][c] for r in range(4)]) for c in range(4)]
        to = k.offset(out.ptr, (i * columns + j) * 9)
        for r in range(3):
            for c, value in enumerate(_folded([half[r] for half in halves])):
                k.scatter(k.offset(to, r * 3 + c), at, value, mask)
    return k


def _folded(u: Sequence[Value]) -> list[Value]:
    """G^T u."""
    ends, middle = (u[1] + u[2]) * 0.5, (u[1] - u[2]) * 0.5
    return [u[0] + ends, middle, ends + u[3]]


def _parts(size: Value, part: Value) -> Value:
    return (size + part - 1) / part
