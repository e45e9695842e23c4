"""Depthwise convolution: each channel by itself, so there is no matrix product in it.

A task copies a part of a plane (`conv_part.py`); then every tap reads whole vectors of neighbours,
and rows of the output that lie below each other share what they read.
"""

from __future__ import annotations

from collections.abc import Sequence

from .conv_part import PART_COLUMNS, TAPS_TOGETHER, Part, PartVariant
from .gemm_dot import sums_of
from .gemm_pack import each_vector
from .ir import Kernel, Value
from .target import Target
from .types import I64

__all__ = ["build_depthwise", "build_depthwise_weight"]


def build_depthwise(target: Target, variant: PartVariant) -> Kernel:
    """The kernel. Arguments: out (images, groups * outs, 1, height, width), whose last axis is
    contiguous; x (images, groups * ins, 1, height, width); weight; bias or None; numbers: see
    `PART_FIELDS`.
    """
    return _Depthwise(target, variant).build()


class _Depthwise:
    def __init__(self, target: Target, variant: PartVariant) -> None:
        self.k = k = Kernel("conv_depthwise", True)
        self.target, self.variant, element = target, variant, variant.element
        self.out, x = k.array("out", element), k.array("x", element)
        self.weight, self.bias = k.array("weight", element), k.array("bias", element)
        self.x, self.part = x, Part(k, target, variant, x, k.array("numbers", I64))

    def build(self) -> Kernel:
        """A task is some planes: a group of one image each."""
        k, number = self.k, self.part.number
        groups = number("groups")
        planes, each = number("images") * groups, number("task_planes")
        with k.parallel((planes + each - 1) / each) as (task, _):
            self.part.begin()
            self.nowhere = k.scratch(self.variant.element, PART_COLUMNS)
            stop, together = k.min((task + 1) * each, planes), number("together")
            with k.loop(task * each, stop, together) as plane:
                self._planes(plane, k.min(stop - plane, together), groups)
        return k

    def _planes(self, first: Value, count: Value, groups: Value) -> None:
        """Some planes, part by part: copied, then read."""
        k, number = self.k, self.part.number
        ins, outs = number("ins"), number("outs")
        height, width = self.out.size(3), self.out.size(4)
        with k.loop(0, height, number("part_rows")) as y0, k.loop(
                0, width, number("part_columns")) as x0, k.loop(0, ins) as i:
            rows = k.min(height - y0, number("part_rows"))
            with k.loop(0, count) as p:
                image, group = (first + p) / groups, (first + p) % groups
                self.part.use(p)
                self.part.fill(k.offset(self.x.ptr, image * self.x.stride(0)
                                        + (group * ins + i) * self.x.stride(1)), y0, x0, rows)
            with k.loop(0, count) as p, k.loop(0, outs) as o:
                image, group = (first + p) / groups, (first + p) % groups
                channel = group * outs + o
                self.part.use(p)
                out = k.offset(self.out.ptr, image * self.out.stride(0)
                               + channel * self.out.stride(1) + x0)
                weight = k.offset(self.weight.ptr, group * number("weight_group")
                                  + number("weight_start") + i * number("weight_in")
                                  + o * number("weight_out"))
                self._part(out, weight, y0, rows, k.min(width - x0, number("part_columns")), i,
                           channel)

    def _part(self, out: Value, weight: Value, y0: Value, rows: Value, columns: Value, i: Value,
              channel: Value) -> None:
        """Rows and columns of one plane of the output, of one plane of the input."""
        k, together = self.k, self.variant.together
        with k.loop(0, rows, together) as y:
            # What is computed for rows beyond the last one goes nowhere.
            lines = [k.select(y + r < rows, k.offset(out, (y0 + y + r) * self.out.stride(3)),
                              self.nowhere) for r in range(together)]
            each_vector(k, self.target, self.variant.element, columns,
                        lambda x, lanes, mask: self._vectors(
                            lines, weight, y, x, lanes, mask, i, channel), self.variant.lanes)

    def _vectors(self, lines: Sequence[Value], weight: Value, y: Value, x: Value, lanes: int,
                 mask: Value | None, i: Value, channel: Value) -> None:
        """The same columns in some rows that lie below each other."""
        k, v, sums = self.k, self.variant, self._starts(lines, x, lanes, mask, i, channel)
        row, column = self.part.number("weight_row"), self.part.number("weight_column")
        for below, uses in v.shared_rows(len(lines), range(v.taps[0])).items():
            for kx in range(v.taps[1]):
                read = k.load(self.part.tap(y * v.step[0] + below, 0, kx), x, lanes, mask)
                for r, ky in uses:
                    scale = k.splat(k.load(weight, row * ky + column * kx), lanes)
                    sums[r] = k.fma(scale, read, sums[r])
        for line, value in zip(lines, sums, strict=True):
            k.store(line, x, value, mask)

    def _starts(self, lines: Sequence[Value], x: Value, lanes: int, mask: Value | None, i: Value,
                channel: Value) -> list[Value]:
        """The bias, or what earlier planes of the input gave."""
        k = self.k
        branch = k.choose(i > 0)
        with branch.then:
            branch.give(*(k.load(line, x, lanes, mask) for line in lines))
        with branch.otherwise:
            value = (k.splat(k.load(self.bias.ptr, channel), lanes) if self.variant.bias
                     else k.const(0.0, self.variant.element.vector(lanes)))
            branch.give(*[value] * len(lines))
        return list(branch.results)


def build_depthwise_weight(target: Target, variant: PartVariant) -> Kernel:
    """The kernel of the gradient for the weight. Arguments: out (planes, taps), contiguous; x
    (images, ins, 1, height, width); g (images, channels, 1, height, width), whose last axis is
    contiguous; numbers: groups * outs planes of the weight, of which `outs` neighbours read one
    channel of x, in turn, and `weight_in` neighbours one of g. This serves any few channels.
    """
    return _Weight(target, variant).build()


class _Weight:
    def __init__(self, target: Target, variant: PartVariant) -> None:
        self.k = k = Kernel("conv_depthwise_weight", True)
        self.target, self.variant, element = target, variant, variant.element
        self.lanes = variant.lanes
        self.out, self.x, self.g = (k.array(n, element) for n in ("out", "x", "g"))
        self.part = Part(k, target, variant, self.x, k.array("numbers", I64))

    def build(self) -> Kernel:
        """A task is some planes of the weight, one after another, over all images."""
        k, number = self.k, self.part.number
        outs = number("outs")
        planes, each = number("groups") * outs, number("task_planes")
        ins, pairs = number("ins"), number("weight_in")
        taps = self.variant.taps[0] * self.variant.taps[1]
        with k.parallel((planes + each - 1) / each) as (task, _):
            self.part.begin()
            self.sums = k.scratch(self.variant.element, (taps + self.lanes) * self.lanes)
            with k.loop(task * each, k.min((task + 1) * each, planes)) as plane:
                with k.loop(0, taps + self.lanes) as tap:
                    k.store(self.sums, tap * self.lanes, self._zero())
                images, together = number("images"), number("together")
                with k.loop(0, images, together) as image:
                    self._images(image, k.min(images - image, together), plane / pairs,
                                 plane / outs % ins)
                self._store(k.offset(self.out.ptr, plane * taps), taps)
        return k

    def _zero(self) -> Value:
        return self.k.const(0.0, self.variant.element.vector(self.lanes))

    def _images(self, first: Value, count: Value, channel: Value, group: Value) -> None:
        """Planes of the gradient against planes of the input, part by part."""
        k, number = self.k, self.part.number
        height, width = self.g.size(3), self.g.size(4)
        with k.loop(0, height, number("part_rows")) as y0, k.loop(
                0, width, number("part_columns")) as x0:
            rows = k.min(height - y0, number("part_rows"))
            with k.loop(0, count) as n:
                self.part.use(n)
                self.part.fill(k.offset(self.x.ptr, (first + n) * self.x.stride(0)
                                        + group * self.x.stride(1)), y0, x0, rows)
            with k.loop(0, count) as n:
                self.part.use(n)
                g = k.offset(self.g.ptr, (first + n) * self.g.stride(0)
                             + channel * self.g.stride(1) + y0 * self.g.stride(3) + x0)
                self._taps(g, rows, k.min(width - x0, number("part_columns")))

    def _taps(self, g: Value, rows: Value, columns: Value) -> None:
        """As many taps at a time as sums fit into registers."""
        height, width = self.variant.taps
        some = max(1, TAPS_TOGETHER // width)
        for ky in range(0, height, some):
            self._some(range(ky, min(ky + some, height)), g, rows, columns)

    def _some(self, taps: range, g: Value, rows: Value, columns: Value) -> None:
        """Some rows at a time, for they share what they read of the input; then single ones."""
        k, lanes, width = self.k, self.lanes, self.variant.taps[1]
        places = [(ky * width + kx) * lanes for ky in taps for kx in range(width)]
        start, sums = k.index(0), [k.load(self.sums, p, lanes) for p in places]
        for many in (self.variant.together, 1):
            stop = rows - (rows - start) % many
            loop = k.loop(start, stop, many, sums)
            with loop as (y, *state):
                lines = [k.offset(g, (y + r) * self.g.stride(3)) for r in range(many)]
                loop.next(*self._lines(lines, y * self.variant.step[0], taps, columns, state))
            start, sums = stop, list(loop.results)
        for place, total in zip(places, sums, strict=True):
            k.store(self.sums, place, total)

    def _lines(self, lines: Sequence[Value], y: Value, taps: range, columns: Value,
               sums: Sequence[Value]) -> list[Value]:
        """Rows of the gradient, the first of which meets the input from its row y on."""
        k, lanes, masked = self.k, self.lanes, self.target.has_masks
        whole = columns if masked else columns - columns % lanes
        loop = k.loop(0, whole, lanes, sums)
        with loop as (x, *state):
            mask = k.mask(columns - x, lanes) if masked else None
            loop.next(*self._vectors(lines, y, taps, x, mask, state))
        if masked:
            return list(loop.results)
        rest = k.loop(whole, columns, 1, loop.results)
        with rest as (x, *state):
            single = self._vectors(lines, y, taps, x, None, [k.extract(s, 0) for s in state])
            rest.next(*(k.emit("insert", (s, one), 0)
                        for s, one in zip(state, single, strict=True)))
        return list(rest.results)

    def _vectors(self, lines: Sequence[Value], y: Value, taps: range, x: Value,
                 mask: Value | None, sums: list[Value]) -> list[Value]:
        """The sums with the products of a vector of each row, or of a number, added."""
        k, width, lanes = self.k, self.variant.taps[1], sums[0].type.lanes
        given = [k.load(line, x, lanes, mask) for line in lines]
        for below, uses in self.variant.shared_rows(len(lines), taps).items():
            for kx in range(width):
                read = k.load(self.part.tap(y + below, 0, kx), x, lanes, mask)
                for r, ky in uses:
                    at = (ky - taps.start) * width + kx
                    sums[at] = k.fma(given[r], read, sums[at])
        return sums

    def _store(self, out: Value, taps: int) -> None:
        """The sums of all taps, added up over lanes."""
        k, lanes = self.k, self.lanes
        for first in range(0, taps, lanes):
            total = sums_of(k, [k.load(self.sums, (first + t) * lanes, lanes)
                                for t in range(lanes)])
            for t in range(min(lanes, taps - first)):
                k.store(out, first + t, k.extract(total, t))
