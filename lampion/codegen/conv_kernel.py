"""Convolution as a matrix product that packs its windows on the way.

C has a row for each output channel and a column for each position, A is the weights, B the matrix
of windows (`conv_pack.py`). With suitable numbers the same kernel is the convolution, its gradient
for the input and the transposed convolution.
"""

from __future__ import annotations

from typing import NamedTuple

from .conv_pack import Geometry, Windows
from .gemm_tiles import Rows, Strided, Tiles
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
    spread: bool = False  # vectors of columns lie in every other element of a row


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
        self.add, self.channels, self.block = k.index(0), g["channels"], g["block"]
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
        self.final, self.final_row = self.out_ptr, self.out_row
        sums = k.scratch(self.element, SUM_ROWS * width)
        self.places = k.scratch(I32, width)
        self.out_row = k.const(width, I64)
        self.out_ptr = k.offset(sums, k.index(0) - self.i0 * width)
        with k.loop(j0, j1, width) as j:
            count = k.min(j1 - j, width)
            self._find(j)
            with k.loop(0, k.max(self.channels, 1), self.block) as c:
                channels = self._block(c)
                self._fill(c, channels, j, count)
                self.panel(k.index(0), count, self.own, self.out_row)
            with k.loop(self.i0, self.i1) as i:
                self._row(k.offset(self.final, i * self.final_row),
                          k.offset(sums, (i - self.i0) * width), count)

    def fetch(self, rows: Rows, vectors: int) -> None:
        """Where the sums go in the end."""
        if not self.variant.scattered:
            super().fetch(rows, vectors)
            return
        k, half = self.k, self.tile.lanes // 2
        first = k.offset(self.final, self.i * self.final_row)
        places = [k.load(self.places, part).cast(I64)
                  for part in range(0, vectors * self.tile.lanes, half)]
        with k.loop(0, rows.existing) as r:
            for place in places:
                k.prefetch(first, self.final_row * r + place)

    def _find(self, j: Value) -> None:
        """Where each column of the panel lies in a row of the output; of those beyond, anywhere."""
        k, g = self.k, self.numbers
        steps, size, zero = [g["to_image"], *g.three("to")], g.three("size"), k.index(0)
        image, at = self.windows.position(j)
        lanes = k.loop(0, self.tile.width, 1, [image, *at])
        with lanes as (lane, *at):
            terms = [p * s for p, s in zip(at, steps, strict=True)]
            k.store(self.places, lane, (terms[0] + terms[1] + terms[2] + terms[3]).cast(I32))
            carry, after = k.index(1), []
            for p, n in zip(reversed(at[1:]), reversed(size), strict=True):
                ends = (p + carry).eq(n)
                after.append(k.select(ends, zero, p + carry))
                carry = k.select(ends, k.index(1), zero)
            lanes.next(at[0] + carry, *reversed(after))

    def _row(self, out: Value, sums: Value, count: Value) -> None:
        """One row of a panel to its places."""
        k, lanes, places = self.k, self.tile.lanes, self.places
        if not self.target.has_masks:
            with k.loop(0, count) as x:
                k.scatter(out, k.load(places, x).cast(I64), k.load(sums, x))
        for v in range(0, self.tile.width if self.target.has_masks else 0, lanes):
            value = k.load(sums, v, lanes)
            if not self.variant.spread:
                k.scatter(out, k.load(places, v, lanes), value, k.mask(count - v, lanes))
                continue
            with k.when(v < count):
                self._spread(k.offset(out, k.load(places, v).cast(I64)), value)

    def _spread(self, out: Value, value: Value) -> None:
        """A vector to every other element."""
        k, lanes = self.k, self.tile.lanes
        even = (k.iota(lanes, I32) & 1).eq(0)
        for half in range(2):
            picks = [(half * lanes + lane) // 2 for lane in range(lanes)]
            k.store(out, half * lanes, k.shuffle(value, value, picks), even)


def _parts(size: Value, part: Value) -> Value:
    return (size + part - 1) / part
