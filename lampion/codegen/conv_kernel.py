"""Convolution as a matrix product that packs its windows on the way.

C has a row for each output channel and a column for each position, A is the weights, B the matrix
of windows (`conv_pack.py`). With suitable numbers the same kernel is the convolution, its gradient
for the input and the transposed convolution.
"""

from __future__ import annotations

from typing import NamedTuple

from .conv_pack import Geometry, Windows
from .gemm_tiles import Strided, Tiles
from .ir import Kernel, Value
from .target import Target
from .types import I32, I64, Type

__all__ = ["PANEL_ROWS", "SUM_ROWS", "ConvVariant", "build_conv"]

PANEL_ROWS = 512  # of a packed panel, at most: channels of a block times taps
SUM_ROWS = 1024  # of a task whose columns are scattered, at most


class ConvVariant(NamedTuple):
    """What is fixed when a convolution is compiled. pieces, step: see `Windows`."""

    element: Type
    bias: bool = False
    scattered: bool = False  # columns run through all images, and lie apart in the output
    pieces: int = 0
    step: int = 1


def build_conv(target: Target, variant: ConvVariant) -> Kernel:
    """The kernel of one variant. Its arguments: out; x (images, channels of all groups, and three
    spatial axes); weight: for each row of all groups its channels and taps, contiguous; bias or
    None; numbers: see `FIELDS`.
    """
    return _Conv(target, variant).build()


class _Conv(Tiles):
    def __init__(self, target: Target, variant: ConvVariant) -> None:
        k, element = Kernel("conv", True), variant.element
        self.variant = variant
        self.out, self.x = k.array("out", element), k.array("x", element)
        self.weight, self.bias_array = k.array("weight", element), k.array("bias", element)
        self.numbers = Geometry(k, k.array("numbers", I64))
        super().__init__(k, target, element, "row" if variant.bias else "")

    def build(self) -> Kernel:
        """A task is some columns of one group, of one image unless they are scattered."""
        k, g = self.k, self.numbers
        size = g.three("size")
        each = size[0] * size[1] * size[2]
        images = k.index(1) if self.variant.scattered else g["images"]
        columns = each * g["images"] if self.variant.scattered else each
        blocks = _parts(columns, g["task_columns"])
        row_blocks = _parts(g["rows"], g["task_rows"])
        with k.parallel(blocks * row_blocks * images * g["groups"]) as (task, _):
            at, task = task % blocks, task / blocks
            self.i0 = (task % row_blocks) * g["task_rows"]
            self.i1 = k.min(self.i0 + g["task_rows"], g["rows"])
            task = task / row_blocks
            self._begin(task / images, task % images)
            j0 = at * g["task_columns"]
            j1 = k.min(j0 + g["task_columns"], columns)
            if self.variant.scattered:
                self._scattered(j0, j1)
            else:
                self._by_blocks(j0, j1, columns)
        return k

    def _begin(self, group: Value, image: Value) -> None:
        """What is the same for all of a task."""
        k, g = self.k, self.numbers
        taps = g.three("taps")
        self.add, self.channels, self.block = g["add"], g["channels"], g["block"]
        self.all_taps = taps[0] * taps[1] * taps[2]
        self.out_row = g["to_row"]
        first = group * g["rows"]
        self.out_ptr = k.offset(self.out.ptr, first * self.out_row + image * g["to_image"])
        self.bias_ptr = k.offset(self.bias_array.ptr, first)
        self.x_ptr = k.offset(self.x.ptr, group * self.channels * self.x.stride(1)
                              + image * self.x.stride(0))
        self.a_row = g["weight_row"]
        self.a_ptr = k.offset(self.weight.ptr, (first + self.i0) * self.a_row)
        self.windows = Windows(k, self.target, self.element, self.x, g, self.variant.pieces,
                               self.variant.step)
        self.own = k.scratch(self.element, PANEL_ROWS * self.tile.width)
        self.reserve()

    def _block(self, c: Value) -> Value:
        """A block of channels from c on; how many it has."""
        k = self.k
        count = k.min(self.channels - c, self.block)
        self.first, self.last = c.eq(0), self.channels <= c + self.block
        self.length = count * self.all_taps
        self.rows = Strided(k.offset(self.a_ptr, c * self.all_taps), self.a_row, k.index(1))
        return count

    def _by_blocks(self, j0: Value, j1: Value, columns: Value) -> None:
        """Blocks of channels, within them panels, straight into the output."""
        k = self.k
        with k.loop(0, k.max(self.channels, 1), self.block) as c:
            count = self._block(c)
            with k.loop(j0, j1, self.tile.width) as j:
                self._fill(c, count, j, columns - j)
                self.panel(j, columns - j, self.own, k.const(self.tile.width, I64))

    def _fill(self, c: Value, count: Value, j: Value, left: Value) -> None:
        self.windows.fill(self.own, self.k.offset(self.x_ptr, c * self.x.stride(1)), j, left,
                          count)

    def _scattered(self, j0: Value, j1: Value) -> None:
        """Panels, within them blocks of channels, into memory of the task; then to its places."""
        k, width = self.k, self.tile.width
        out, row = self.out_ptr, self.out_row
        sums = k.scratch(self.element, SUM_ROWS * width)
        places = k.scratch(I32, width)
        add, self.add = self.add, k.index(0)
        self.out_row = k.const(width, I64)
        self.out_ptr = k.offset(sums, k.index(0) - self.i0 * width)
        with k.loop(j0, j1, width) as j:
            count = k.min(j1 - j, width)
            with k.loop(0, k.max(self.channels, 1), self.block) as c:
                channels = self._block(c)
                self._fill(c, channels, j, count)
                self.panel(k.index(0), count, self.own, self.out_row)
            self._places(places, j, count)
            with k.loop(self.i0, self.i1) as i:
                self._row(k.offset(out, i * row), k.offset(sums, (i - self.i0) * width), places,
                          count, add)

    def _places(self, table: Value, j: Value, count: Value) -> None:
        """Where each column of the panel lies in a row of the output."""
        k, g = self.k, self.numbers
        steps, image_step = g.three("to"), g["to_image"]
        with k.loop(0, count) as lane:
            image, at = self.windows.position(j + lane)
            terms = [p * s for p, s in zip(at, steps, strict=True)]
            k.store(table, lane, (image * image_step + terms[0] + terms[1] + terms[2]).cast(I32))

    def _row(self, out: Value, sums: Value, places: Value, count: Value, add: Value) -> None:
        """One row of a panel to its places, on top of what is there where asked."""
        k, lanes = self.k, self.tile.lanes
        if not self.target.has_masks:
            with k.loop(0, count) as x:
                self._to_places(out, k.load(sums, x), k.load(places, x).cast(I64), None, add)
            return
        for v in range(0, self.tile.width, lanes):
            self._to_places(out, k.load(sums, v, lanes), k.load(places, v, lanes),
                            k.mask(count - v, lanes), add)

    def _to_places(self, out: Value, value: Value, places: Value, mask: Value | None,
                   add: Value) -> None:
        k = self.k
        branch = k.choose(add.ne(0))
        with branch.then:
            branch.give(value + k.gather(out, places, mask))
        with branch.otherwise:
            branch.give(value)
        k.scatter(out, places, branch.results[0], mask)


def _parts(size: Value, part: Value) -> Value:
    return (size + part - 1) / part
