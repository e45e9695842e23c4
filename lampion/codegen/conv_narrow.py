"""Convolution of narrow images: a vector is some channels of one position of the output.

Where rows are shorter than a register, vectors of neighbours would leave lanes empty. Here a tile
is a whole row of positions by a vector of output channels: each element of the input is read once
for all the taps that meet it. What lies beyond the input is never read nor multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .gemm_pack import transpose
from .ir import Kernel, Value
from .target import Target
from .types import I64, Type

__all__ = ["NARROW_FIELDS", "NarrowVariant", "build_narrow"]

NARROW_FIELDS = ("images", "ins", "outs", "padding", "task_rows")
"""The kernel's numbers. ins, outs: channels; padding: rows above the input; task_rows: of the
output.
"""


class NarrowVariant(NamedTuple):
    """What is fixed when the kernel is compiled. taps, rate, step: along height and width each.
    padding, columns, width: along the width, of the input and the output.
    """

    element: Type
    taps: tuple[int, int]
    rate: tuple[int, int]
    step: tuple[int, int]
    padding: int
    columns: int
    width: int
    bias: bool

    def meetings(self) -> dict[int, list[tuple[int, int]]]:
        """Of each column of the input: which columns of the output meet it, by which tap."""
        found: dict[int, list[tuple[int, int]]] = {}
        for x in range(self.width):
            for kx in range(self.taps[1]):
                column = x * self.step[1] + kx * self.rate[1] - self.padding
                if 0 <= column < self.columns:
                    found.setdefault(column, []).append((x, kx))
        return dict(sorted(found.items()))


def build_narrow(target: Target, variant: NarrowVariant) -> Kernel:
    """The kernel; its target has masks. Arguments: out (images, outs, 1, height, width), whose
    last axis is contiguous; x (images, ins, 1, rows, columns); weight (ins * taps, outs),
    contiguous, outs whole vectors; bias or None; numbers: see `NARROW_FIELDS`.
    """
    return _Narrow(target, variant).build()


class _Narrow:
    def __init__(self, target: Target, variant: NarrowVariant) -> None:
        self.k = k = Kernel("conv_narrow", True)
        self.variant, element = variant, variant.element
        self.lanes = target.lanes(element)
        self.out, self.x = k.array("out", element), k.array("x", element)
        self.weight, self.bias = k.array("weight", element), k.array("bias", element)
        numbers = k.array("numbers", I64)
        self.images, self.ins, self.outs, self.padding, self.task_rows = (
            k.load(numbers.ptr, place) for place in range(len(NARROW_FIELDS)))

    def build(self) -> Kernel:
        """A task is some rows of one image."""
        k, height = self.k, self.out.size(3)
        parts = (height + self.task_rows - 1) / self.task_rows
        with k.parallel(self.images * parts) as (task, _):
            image, y0 = task / parts, (task % parts) * self.task_rows
            self.plane = k.offset(self.x.ptr, image * self.x.stride(0))
            self.result = k.offset(self.out.ptr, image * self.out.stride(0))
            with k.loop(0, self.outs, self.lanes) as o, k.loop(
                    y0, k.min(y0 + self.task_rows, height)) as y:
                self._store(y, o, self._row(y, o))
        return k

    def _row(self, y: Value, o: Value) -> list[Value]:
        """A vector of channels from o on for each position of row y."""
        k, v = self.k, self.variant
        top, rate = y * v.step[0] - self.padding, v.rate[0]
        low = k.max((rate - 1 - top) / rate, 0)
        high = k.min((self.x.size(3) - top + (rate - 1)) / rate, v.taps[0])
        start = (k.load(self.bias.ptr, o, self.lanes) if v.bias
                 else k.const(0.0, v.element.vector(self.lanes)))
        channels = k.loop(0, self.ins, 1, [start] * v.width)
        with channels as (c, *sums):
            taps = k.loop(low, high, 1, sums)
            with taps as (ky, *sums):
                line = k.offset(self.plane, c * self.x.stride(1)
                                + (top + ky * rate) * self.x.stride(3))
                weight = k.offset(self.weight.ptr, (c * v.taps[0] + ky) * v.taps[1] * self.outs + o)
                taps.next(*self._taps(line, weight, sums))
            channels.next(*taps.results)
        return list(channels.results)

    def _taps(self, line: Value, weight: Value, sums: list[Value]) -> list[Value]:
        """The sums with one row of the input, by one row of taps, added."""
        k, lanes = self.k, self.lanes
        scales = [k.load(weight, self.outs * kx, lanes) for kx in range(self.variant.taps[1])]
        for column, uses in self.variant.meetings().items():
            given = k.splat(k.load(line, self.x.stride(4) * column), lanes)
            for x, kx in uses:
                sums[x] = k.fma(given, scales[kx], sums[x])
        return sums

    def _store(self, y: Value, o: Value, sums: Sequence[Value]) -> None:
        """A row of each channel to its place."""
        k, lanes = self.k, self.lanes
        zero = k.const(0.0, self.variant.element.vector(lanes))
        out = k.offset(self.result, o * self.out.stride(1) + y * self.out.stride(3))
        for x in range(0, len(sums), lanes):
            part = sums[x:x + lanes]
            mask = None if len(part) == lanes else k.mask(k.index(len(part)), lanes)
            whole = [*part, *[zero] * (lanes - len(part))]
            for channel, line in enumerate(transpose(k, whole)):
                k.store(out, self.out.stride(1) * channel + x, line, mask)
