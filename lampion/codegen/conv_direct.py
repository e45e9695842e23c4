"""Convolution of few channels: windows are read where they lie.

Packing a panel of windows pays where many output channels read it. With few, a task copies parts of
all input channels (`conv_part.py`), and the micro-kernel reads a row of windows, which is a row of
the copy, at an offset that a table gives for every channel and tap. Where rows of the output are
shorter than a register, the two vectors of a tile are two such rows.
"""

from __future__ import annotations

from .conv_part import Part, PartVariant
from .gemm_tiles import Rows, Strided, Tiles
from .ir import Kernel, Value
from .target import Target
from .types import I1, I64

__all__ = ["WINDOW_ROWS", "build_direct"]

WINDOW_ROWS = 512  # input channels times taps, at most


def build_direct(target: Target, variant: PartVariant, stacked: bool, most: int) -> Kernel:
    """The kernel; its target has masks. Arguments: out (images, groups * outs, 1, height, width),
    whose last axis is contiguous; x (images, groups * ins, 1, height, width); weight (groups *
    outs, ins * taps), contiguous; bias or None; numbers: see `PART_FIELDS`.

    stacked: the vectors of a tile are two rows, and not neighbours in one. most: output channels.
    """
    return _Direct(target, variant, stacked, most).build()


class _Direct(Tiles):
    def __init__(self, target: Target, variant: PartVariant, stacked: bool, most: int) -> None:
        k, element = Kernel("conv_direct", True), variant.element
        self.variant, self.stacked, self.known_rows = variant, stacked, most
        self.out, self.x = k.array("out", element), k.array("x", element)
        self.weight, self.bias_array = k.array("weight", element), k.array("bias", element)
        self.part = Part(k, target, variant, self.x, k.array("numbers", I64))
        super().__init__(k, target, element, "row" if variant.bias else "")

    def build(self) -> Kernel:
        """A task is some rows of one image and group."""
        k, number = self.k, self.part.number
        height = self.out.size(3)
        parts = (height + number("part_rows") - 1) / number("part_rows")
        with k.parallel(number("images") * number("groups") * parts) as (task, _):
            self.part.begin()
            self.reserve()
            self.table = k.scratch(I64, WINDOW_ROWS)
            y0, plane = (task % parts) * number("part_rows"), task / parts
            image, group = plane / number("groups"), plane % number("groups")
            self._tabulate(number("ins"))
            self._begin(image, group)
            rows = k.min(height - y0, number("part_rows"))
            with k.loop(0, self.out.size(4), number("part_columns")) as x0:
                columns = k.min(self.out.size(4) - x0, number("part_columns"))
                self._copy(image, group, y0, x0, rows)
                self._rows_of_output(y0, x0, rows, columns)
        return k

    def _tabulate(self, channels: Value) -> None:
        """Where the row of windows of each channel and tap begins in the copy."""
        k, v, part = self.k, self.variant, self.part
        with k.loop(0, channels) as c, k.loop(0, v.taps[0]) as y, k.loop(0, v.taps[1]) as x:
            column = x * v.rate[1]
            place = (column % v.step[1]) * part.phase + column / v.step[1]
            k.store(self.table, (c * v.taps[0] + y) * v.taps[1] + x,
                    c * part.buffer + y * v.rate[0] * part.row + place)

    def _begin(self, image: Value, group: Value) -> None:
        """What is the same for all of a task."""
        k, number, v = self.k, self.part.number, self.variant
        outs = number("outs")
        self.length = number("ins") * (v.taps[0] * v.taps[1])
        self.i0, self.i1, self.add = k.index(0), outs, k.index(0)
        self.first = self.last = k.const(True, I1)
        self.rows = Strided(k.offset(self.weight.ptr, group * outs * self.length), self.length,
                            k.index(1))
        self.bias_ptr = k.offset(self.bias_array.ptr, group * outs)
        self.plane = k.offset(self.out.ptr, image * self.out.stride(0)
                              + group * outs * self.out.stride(1))
        self.out_row = self.out.stride(1)

    def _copy(self, image: Value, group: Value, y0: Value, x0: Value, rows: Value) -> None:
        k, ins = self.k, self.part.number("ins")
        x = k.offset(self.x.ptr, image * self.x.stride(0) + group * ins * self.x.stride(1))
        with k.loop(0, ins) as c:
            self.part.use(c)
            self.part.fill(k.offset(x, c * self.x.stride(1)), y0, x0, rows)

    def _rows_of_output(self, y0: Value, x0: Value, rows: Value, columns: Value) -> None:
        k, lanes, many = self.k, self.tile.lanes, 2 if self.stacked else 1
        below = self.part.row * self.variant.step[0]
        self.apart = (below, self.out.stride(3)) if self.stacked else (lanes, lanes)
        with k.loop(0, rows, many) as y, k.loop(0, columns, lanes * (3 - many)) as x:
            self.j, left = k.index(0), columns - x
            self.out_ptr = k.offset(self.plane, (y0 + y) * self.out.stride(3) + x0 + x)
            self.panel_ptr = k.offset(self.part.buffers, y * below + x)
            second = k.select(y + 1 < rows, left, 0) if self.stacked else left - lanes
            self.masks = [k.mask(left, lanes), k.mask(second, lanes)]
            both = k.choose(second > 0)
            with both.then:
                self._rows(2)
            with both.otherwise:
                self._rows(1)

    def products(self, a: Value, rows: Rows, count: int) -> list[Value]:
        """As in any tile, but a row of B is found in the table."""
        k, lanes = self.k, self.tile.lanes
        zero = k.const(0.0, self.element.vector(lanes))
        starts, places = self.starts(a, rows)
        loop = k.loop(0, self.length, 1, [zero] * (len(places) * count))
        with loop as (p, *sums):
            b = k.offset(self.panel_ptr, k.load(self.table, p))
            vectors = [k.load(b, self.apart[0] * v, lanes, self.masks[v]) for v in range(count)]
            new: list[Value] = []
            for near, place in places:
                one = k.splat(k.load(starts[near], p + place), lanes)
                new += [k.fma(one, y, sums[len(new) + v]) for v, y in enumerate(vectors)]
            loop.next(*new)
        return list(loop.results)

    def column_of(self, vector: int) -> Value:
        return self.k.index(self.apart[1] * vector)
