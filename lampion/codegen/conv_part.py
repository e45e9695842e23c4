"""Parts of planes, copied so that every tap of a convolution reads vectors of neighbours.

A task copies a part of a plane into memory of its own with zeros around it, the columns sorted by
their remainder by the step. For the gradient of the input the copy has zeros between the elements
instead, where the forward convolution had a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .gemm_pack import each_vector
from .ir import ArrayParam, Kernel, Value
from .target import Target
from .types import I64, Type

__all__ = ["PART", "PART_COLUMNS", "PART_FIELDS", "TAPS_TOGETHER", "Part", "PartVariant"]

PART_FIELDS = ("images", "groups", "ins", "outs", "padding0", "padding1", "weight_group",
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

TAPS_TOGETHER = 25  # whose sums, or weights, are kept in registers


class PartVariant(NamedTuple):
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

    @property
    def together(self) -> int:
        """Rows of the output that are computed at a time."""
        return 4 if self.taps[0] * self.taps[1] <= TAPS_TOGETHER else 2

    def shared_rows(self, rows: int, taps: range) -> dict[int, list[tuple[int, int]]]:
        """Of each row of the copy: which of `rows` rows of the output meet it, by which tap."""
        found: dict[int, list[tuple[int, int]]] = {}
        for r in range(rows):
            for ky in taps:
                found.setdefault(r * self.step[0] + ky * self.rate[0], []).append((r, ky))
        return found


class Part:
    """Writes the copy of a part of a plane."""

    def __init__(self, k: Kernel, target: Target, variant: PartVariant, x: ArrayParam,
                 numbers: ArrayParam) -> None:
        self.k, self.target, self.variant, self.x = k, target, variant, x
        self.element, self.lanes = variant.element, variant.lanes
        self.numbers = numbers

    def number(self, name: str) -> Value:
        """One of `PART_FIELDS`."""
        return self.k.load(self.numbers.ptr, PART_FIELDS.index(name))

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
