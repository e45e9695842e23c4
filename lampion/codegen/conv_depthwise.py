"""Depthwise convolution: each channel by itself, so there is no matrix product in it.

A task copies a part of a plane into memory of its own with zeros around it, the columns sorted by
their remainder by the step; then every tap reads whole vectors of neighbours, and rows of the
output that lie below each other share what they read. For the gradient of the input the copy has
zeros between the elements instead, where the forward convolution had a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .gemm_dot import sums_of
from .gemm_pack import each_vector
from .gemm_tiles import Epilogue
from .ir import ArrayParam, Kernel, Value
from .target import Target
from .types import I64, Type

__all__ = ["DEPTHWISE_FIELDS", "PART", "PART_COLUMNS", "DepthwiseVariant", "build_depthwise",
           "build_depthwise_weight"]

DEPTHWISE_FIELDS = ("images", "groups", "ins", "outs", "padding0", "padding1", "weight_group",
                    "weight_in", "weight_out", "weight_row", "weight_column", "weight_start",
                    "task_planes", "part_rows", "part_columns", "phase", "together")
"""The kernel's numbers. ins, outs: channels of a group that are read and written. weight: steps of
the weight's elements, and the first one. part: of the output that is done at a time; phase: columns
of a copied row with one remainder, whole vectors of them; together: planes that are copied before
the first of them is read, for what was just written is read slowly.
"""

PART = 1 << 14
"""Elements of a copied part of a plane, at most."""

PART_COLUMNS = 512  # of the output, at most

_TOGETHER = 25  # taps whose sums are kept in registers


class DepthwiseVariant(NamedTuple):
    """What is fixed when the kernel is compiled. Along height and width each: the taps, their
    distance, the step, and how far apart elements of the input are spread. lanes: of a vector.
    """

    element: Type
    taps: tuple[int, int]
    rate: tuple[int, int]
    step: tuple[int, int]
    spread: tuple[int, int]
    lanes: int
    bias: bool = False
    epilogue: Epilogue | None = None

    @property
    def together(self) -> int:
        """Rows of the output that are computed at a time."""
        return 4 if self.taps[0] * self.taps[1] <= _TOGETHER else 2


class _Part:
    """Writes the copy of a part of a plane."""

    def __init__(self, k: Kernel, target: Target, variant: DepthwiseVariant, x: ArrayParam,
                 numbers: ArrayParam) -> None:
        self.k, self.target, self.variant, self.x = k, target, variant, x
        self.element, self.lanes = variant.element, variant.lanes
        self.numbers = numbers

    def number(self, name: str) -> Value:
        """One of `DEPTHWISE_FIELDS`."""
        return self.k.load(self.numbers.ptr, DEPTHWISE_FIELDS.index(name))

    def begin(self) -> None:
        """What is the same for all parts of a task."""
        k, v = self.k, self.variant
        self.memory = k.scratch(self.element, PART)
        self.phase = self.number("phase")
        self.row = self.phase * v.step[1]
        self.padding = [self.number(f"padding{axis}") for axis in range(2)]
        self.buffers = self.memory
        self.buffer = self.rows_for(self.number("part_rows")) * self.row

    def use(self, index: Value) -> None:
        """The copy of the plane of that index among those that are copied together."""
        self.memory = self.k.offset(self.buffers, index * self.buffer)

    def rows_for(self, rows: int | Value) -> Value:
        """Rows of the copy that `rows` rows of the output meet."""
        v = self.variant
        return (self.k.index(rows) - 1) * v.step[0] + ((v.taps[0] - 1) * v.rate[0] + 1)

    def fill(self, plane: Value, y0: Value, x0: Value, rows: Value) -> None:
        """The copy for `rows` rows of the output from y0 on, columns from x0 on."""
        k, v = self.k, self.variant
        count = self.rows_for(rows)
        top = y0 * v.step[0] - self.padding[0]  # the row of the spread input that row 0 shows
        shift = self.padding[1] - x0 * v.step[1]  # element i is in column i * spread + shift
        if self.target.has_masks and (v.step[1], v.spread[1]) in ((1, 1), (2, 1), (1, 2)):
            with k.loop(0, self.phase, self.lanes) as t:
                self._strip(plane, top, count, t, shift)
            return
        with k.loop(0, count) as r:
            line = k.offset(self.memory, r * self.row)
            each_vector(k, self.target, self.element, self.row, lambda i, lanes, mask: k.store(
                line, i, k.const(0.0, self.element.vector(lanes)), mask))
            y = top + r
            with k.when(self._exists(y)):
                source = k.offset(plane, y / v.spread[0] * self.x.stride(3))
                self._line(line, source, shift)

    def _exists(self, y: Value) -> Value:
        """Whether the spread input has something in row y."""
        spread = self.variant.spread[0]
        holds = ~(y < 0) & (y < self.x.size(3) * spread)
        return holds & (y % spread).eq(0) if spread > 1 else holds

    # --- by vectors -----------------------------------------------------------------------------

    def _strip(self, plane: Value, top: Value, count: Value, t: Value, shift: Value) -> None:
        """All rows of the columns from t on that fill a vector, of each remainder."""
        k, v, lanes = self.k, self.variant, self.lanes
        if v.spread[1] == 2:
            odd = (t - shift) & 1
            starts = [(t - shift + odd) / 2]
        else:
            odd = k.index(0)
            starts = [t * v.step[1] - shift + part for part in range(0, lanes * v.step[1], lanes)]
        masks = [k.mask(self.x.size(4) - s, lanes) & ~k.mask(k.const(0, I64) - s, lanes)
                 for s in starts]
        zero = k.const(0.0, self.element.vector(lanes))
        with k.loop(0, count) as r:
            y = top + r
            branch = k.choose(self._exists(y))
            with branch.then:
                source = k.offset(plane, y / v.spread[0] * self.x.stride(3))
                found = [k.load(source, s, lanes, m) for s, m in zip(starts, masks, strict=True)]
                branch.give(*self._sorted(found, odd))
            with branch.otherwise:
                branch.give(*[zero] * v.step[1])
            for remainder, value in enumerate(branch.results):
                k.store(self.memory, r * self.row + self.phase * remainder + t, value)

    def _sorted(self, found: Sequence[Value], odd: Value) -> list[Value]:
        """Vectors for each remainder; with a spread of 2 only half of the elements are used."""
        k, v, lanes = self.k, self.variant, self.lanes
        if v.step[1] == 2:
            return [k.shuffle(found[0], found[1], range(r, 2 * lanes, 2)) for r in range(2)]
        if v.spread[1] == 1:
            return list(found)
        zero = k.const(0.0, self.element.vector(lanes))
        even, other = ([x // 2 + (lanes if x % 2 != start else 0) for x in range(lanes)]
                       for start in (0, 1))
        return [k.select(odd.eq(0), k.shuffle(found[0], zero, even),
                         k.shuffle(found[0], zero, other))]

    # --- element by element ---------------------------------------------------------------------

    def _line(self, line: Value, source: Value, shift: Value) -> None:
        """Elements of one row of the input to their places."""
        k, v = self.k, self.variant
        first = (k.max(k.const(0, I64) - shift, 0) + (v.spread[1] - 1)) / v.spread[1]
        room = k.max(self.row - shift + (v.spread[1] - 1), 0) / v.spread[1]
        with k.loop(first, k.min(self.x.size(4), room)) as i:
            at = i * v.spread[1] + shift
            place = (at % v.step[1]) * self.phase + at / v.step[1]
            k.store(line, place, k.load(source, i * self.x.stride(4)))

    def tap(self, row: Value, ky: int, kx: int) -> Value:
        """Where a tap reads for the first column, `row` rows below the top of the part."""
        v = self.variant
        column = self.phase * (kx * v.rate[1] % v.step[1]) + kx * v.rate[1] // v.step[1]
        return self.k.offset(self.memory, (row + ky * v.rate[0]) * self.row + column)


def build_depthwise(target: Target, variant: DepthwiseVariant) -> Kernel:
    """The kernel. Arguments: out (images, groups * outs, 1, height, width), whose last axis is
    contiguous; x (images, groups * ins, 1, height, width); weight; bias or None; numbers: see
    `DEPTHWISE_FIELDS`.
    """
    return _Depthwise(target, variant).build()


class _Depthwise:
    def __init__(self, target: Target, variant: DepthwiseVariant) -> None:
        self.k = k = Kernel("conv_depthwise", True)
        self.target, self.variant, element = target, variant, variant.element
        self.out, x = k.array("out", element), k.array("x", element)
        self.weight, self.bias = k.array("weight", element), k.array("bias", element)
        self.x, self.part = x, _Part(k, target, variant, x, k.array("numbers", I64))

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
        for below in range((len(lines) - 1) * v.step[0] + (v.taps[0] - 1) * v.rate[0] + 1):
            uses = [(r, (below - r * v.step[0]) // v.rate[0]) for r in range(len(lines))
                    if (below - r * v.step[0]) % v.rate[0] == 0
                    and 0 <= (below - r * v.step[0]) // v.rate[0] < v.taps[0]]
            for kx in range(v.taps[1] if uses else 0):
                read = k.load(self.part.tap(y * v.step[0] + below, 0, kx), x, lanes, mask)
                for r, ky in uses:
                    scale = k.splat(k.load(weight, row * ky + column * kx), lanes)
                    sums[r] = k.fma(scale, read, sums[r])
        for line, value in zip(lines, sums, strict=True):
            if v.epilogue:
                value = v.epilogue.apply(k, value, channel, mask)
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


def build_depthwise_weight(target: Target, variant: DepthwiseVariant) -> Kernel:
    """The kernel of the gradient for the weight. Arguments: out (groups * outs, taps), contiguous;
    x as `build_depthwise`; g (images, groups * outs, 1, height, width), whose last axis is
    contiguous; numbers.
    """
    return _Weight(target, variant).build()


class _Weight:
    def __init__(self, target: Target, variant: DepthwiseVariant) -> None:
        self.k = k = Kernel("conv_depthwise_weight", True)
        self.target, self.variant, element = target, variant, variant.element
        self.lanes = variant.lanes
        self.out, self.x, self.g = (k.array(n, element) for n in ("out", "x", "g"))
        self.part = _Part(k, target, variant, self.x, k.array("numbers", I64))

    def build(self) -> Kernel:
        """A task is some output channels, one after another, over all images."""
        k, number = self.k, self.part.number
        outs = number("outs")
        channels, each = number("groups") * outs, number("task_planes")
        taps = self.variant.taps[0] * self.variant.taps[1]
        with k.parallel((channels + each - 1) / each) as (task, _):
            self.part.begin()
            self.sums = k.scratch(self.variant.element, (taps + self.lanes) * self.lanes)
            with k.loop(task * each, k.min((task + 1) * each, channels)) as channel:
                with k.loop(0, taps + self.lanes) as tap:
                    k.store(self.sums, tap * self.lanes, self._zero())
                images, together = number("images"), number("together")
                with k.loop(0, images, together) as image:
                    self._images(image, k.min(images - image, together), channel, channel / outs)
                self._store(k.offset(self.out.ptr, channel * taps), taps)
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
        some = max(1, _TOGETHER // width)
        for ky in range(0, height, some):
            self._some([(y, x) for y in range(ky, min(ky + some, height)) for x in range(width)],
                       g, rows, columns)

    def _some(self, taps: Sequence[tuple[int, int]], g: Value, rows: Value, columns: Value
              ) -> None:
        k, lanes, width = self.k, self.lanes, self.variant.taps[1]
        places = [(ky * width + kx) * lanes for ky, kx in taps]
        whole = columns - columns % lanes
        outer = k.loop(0, rows, 1, [k.load(self.sums, p, lanes) for p in places])
        with outer as (y, *sums):
            line = k.offset(g, y * self.g.stride(3))
            reads = [self.part.tap(y * self.variant.step[0], ky, kx) for ky, kx in taps]
            inner = k.loop(0, whole, lanes, sums)
            with inner as (x, *sums):
                given = k.load(line, x, lanes)
                inner.next(*(k.fma(given, k.load(read, x, lanes), s)
                             for read, s in zip(reads, sums, strict=True)))
            outer.next(*self._rest(line, reads, whole, columns, inner.results))
        for place, total in zip(places, outer.results, strict=True):
            k.store(self.sums, place, total)

    def _rest(self, line: Value, reads: Sequence[Value], whole: Value, columns: Value,
              sums: Sequence[Value]) -> list[Value]:
        """The columns of a row beyond whole vectors."""
        k, lanes = self.k, self.lanes
        if self.target.has_masks:
            mask = k.mask(columns - whole, lanes)
            given = k.load(line, whole, lanes, mask)
            return [k.fma(given, k.load(read, whole, lanes, mask), s)
                    for read, s in zip(reads, sums, strict=True)]
        loop = k.loop(whole, columns, 1, sums)
        with loop as (x, *state):
            given = k.load(line, x)
            loop.next(*(k.emit("insert", (s, k.fma(given, k.load(read, x), k.extract(s, 0))), 0)
                        for read, s in zip(reads, state, strict=True)))
        return list(loop.results)

    def _store(self, out: Value, taps: int) -> None:
        """The sums of all taps, added up over lanes."""
        k, lanes = self.k, self.lanes
        for first in range(0, taps, lanes):
            total = sums_of(k, [k.load(self.sums, (first + t) * lanes, lanes)
                                for t in range(lanes)])
            for t in range(min(lanes, taps - first)):
                k.store(out, first + t, k.extract(total, t))
