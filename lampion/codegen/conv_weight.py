"""The gradient of a convolution for its weight.

The transposed gradient is a matrix product: a row for each channel and tap, a column for each
output channel, summed over images and positions. A is the input itself, seen through shifted
windows: the element for a row and a position lies at an offset of the row plus an offset of the
position, so no matrix of windows is made; where windows reach beyond the input, a task first
copies the planes it needs with zeros around them. B is the gradient of the output, packed
(`gemm_pack.py`).
"""

from __future__ import annotations

from typing import NamedTuple

from .gemm_pack import each_vector
from .gemm_tiles import Rows, Tiles
from .ir import Kernel, Value
from .target import Target
from .types import I64, Type

__all__ = ["LINES", "ROWS", "WEIGHT_FIELDS", "WeightVariant", "build_weight"]

WEIGHT_FIELDS = ("groups", "images", "channels", "columns", *(
    f"{name}{axis}" for name in ("taps", "step", "rate", "padding", "size", "padded")
    for axis in range(3)), "to_row", "to_column", "add", "task_rows", "task_panels", "together",
    "lines", "space")
"""The kernel's numbers. channels, columns: input and output channels of one group. size: positions
along each axis; padded: what windows reach of the input. to_row, to_column: steps in the result.
together: images whose planes are copied at a time; lines: rows of positions in one block of sums;
space: elements of a thread's memory for planes, 0 where windows stay inside the input.
"""

ROWS = 1024  # of a task times its panels, at most
LINES = 2048  # rows of positions in one block, at most


class WeightVariant(NamedTuple):
    """What is fixed when the kernel is compiled."""

    element: Type


def build_weight(target: Target, variant: WeightVariant) -> Kernel:
    """The kernel. Its arguments: out (groups, columns, rows; to_column and to_row apart); x
    (images, channels of all groups, three axes); panels: the packed gradient, (images, groups,
    panels, positions, width); space: memory for each thread; numbers: see `WEIGHT_FIELDS`.
    """
    return _Weight(target, variant).build()


class _Weight(Tiles):
    def __init__(self, target: Target, variant: WeightVariant) -> None:
        k, element = Kernel("conv_weight", True), variant.element
        self.out, self.x = k.array("out", element), k.array("x", element)
        self.panels, self.space = k.array("panels", element), k.array("space", element)
        self.numbers = k.array("numbers", I64)
        super().__init__(k, target, element)

    def _number(self, name: str) -> Value:
        return self.k.load(self.numbers.ptr, WEIGHT_FIELDS.index(name))

    def _three(self, name: str) -> list[Value]:
        return [self._number(f"{name}{axis}") for axis in range(3)]

    def build(self) -> Kernel:
        """A task is some rows and panels of one group, over all images."""
        k = self.k
        groups, columns = self._number("groups"), self._number("columns")
        task_rows, task_panels = self._number("task_rows"), self._number("task_panels")
        taps = self._three("taps")
        rows = self._number("channels") * taps[0] * taps[1] * taps[2]
        panels = _parts(columns, k.const(self.tile.width, I64))
        row_blocks, panel_blocks = _parts(rows, task_rows), _parts(panels, task_panels)
        with k.parallel(groups * row_blocks * panel_blocks) as (task, worker):
            self.i0 = (task % row_blocks) * task_rows
            self.i1 = k.min(self.i0 + task_rows, rows)
            task = task / row_blocks
            first = (task % panel_blocks) * task_panels
            self._task(task / panel_blocks, worker, first, k.min(first + task_panels, panels))
        return k

    def _task(self, group: Value, worker: Value, panel0: Value, panel1: Value) -> None:
        k = self.k
        self.group, self.panel0, self.panel1 = group, panel0, panel1
        self.size, self.step = self._three("size"), self._three("step")
        self.taps, self.rate = self._three("taps"), self._three("rate")
        self.padding, self.padded = self._three("padding"), self._three("padded")
        self.all_taps = self.taps[0] * self.taps[1] * self.taps[2]
        self.columns, self.channels = self._number("columns"), self._number("channels")
        self.c0, self.c1 = self.i0 / self.all_taps, (self.i1 - 1) / self.all_taps + 1
        self.offsets = k.scratch(I64, ROWS)
        self.a_lines, self.b_lines = k.scratch(I64, LINES), k.scratch(I64, LINES)
        self.memory = k.scratch(self.element, ROWS * self.tile.width)
        space = self._number("space")
        self.copied_planes = space > 0
        self.own = k.offset(self.space.ptr, worker * space)
        self._strides()
        self._offsets_of_rows()
        images, together = self._number("images"), self._number("together")
        with k.loop(0, images, together) as n0:
            count = k.min(images - n0, together)
            self._planes(n0, count)
            self._blocks(n0, count * self.size[0] * self.size[1])
        with k.loop(panel0, panel1) as panel:
            self._store(panel)

    def _blocks(self, n0: Value, lines: Value) -> None:
        """Blocks of lines of the images from n0 on, against all panels of the task."""
        k, width, block = self.k, self.tile.width, self._number("lines")
        positions = self.size[0] * self.size[1] * self.size[2]
        with k.loop(0, lines, block) as line:
            self.line_count = k.min(lines - line, block)
            self._lines(n0, line)
            self.first = n0.eq(0) & line.eq(0)
            with k.loop(self.panel0, self.panel1) as panel:
                j = panel * width
                self.sums = self._sums(panel)
                packed = k.offset(self.panels.ptr, panel * positions * width)
                self.panel(j, self.columns - j, packed, k.index(0))

    def _sums(self, panel: Value) -> Value:
        rows = self.i1 - self.i0
        return self.k.offset(self.memory, (panel - self.panel0) * rows * self.tile.width)

    def _strides(self) -> None:
        """Steps of the input, or of the copied planes: image, channel and three axes."""
        k, own = self.k, [self.k.const(1, I64)]
        for n in reversed(self.padded):
            own.insert(0, own[0] * n)
        own.insert(0, own[0] * (self.c1 - self.c0))
        self.steps = [k.select(self.copied_planes, own[axis], self.x.stride(axis))
                      for axis in range(5)]

    def _offsets_of_rows(self) -> None:
        """Where each row's window begins, from the first channel on."""
        k, steps = self.k, self.steps
        with k.loop(self.i0, self.i1) as r:
            tap, c = r % self.all_taps, r / self.all_taps
            w, rest = tap % self.taps[2], tap / self.taps[2]
            h, d = rest % self.taps[1], rest / self.taps[1]
            terms = [t * rate * step for t, rate, step in zip(
                (d, h, w), self.rate, steps[2:], strict=True)]
            k.store(self.offsets, r - self.i0,
                    (c - self.c0) * steps[1] + terms[0] + terms[1] + terms[2])

    def _planes(self, n0: Value, count: Value) -> None:
        """Where images from n0 on are read: in the input, or in copies with zeros around."""
        k = self.k
        x = k.offset(self.x.ptr, n0 * self.x.stride(0)
                     + (self.group * self.channels + self.c0) * self.x.stride(1))
        branch = k.choose(self.copied_planes)
        with branch.then:
            with k.loop(0, count) as n, k.loop(0, self.c1 - self.c0) as c:
                source = k.offset(x, n * self.x.stride(0) + c * self.x.stride(1))
                self._plane(k.offset(self.own, n * self.steps[0] + c * self.steps[1]), source)
            branch.give(self.own)
        with branch.otherwise:
            branch.give(x)
        self.a_base = branch.results[0]

    def _plane(self, to: Value, source: Value) -> None:
        """One channel of one image with zeros around it."""
        k, inside = self.k, [self.x.size(2 + axis) for axis in range(3)]
        with k.loop(0, self.padded[0]) as d, k.loop(0, self.padded[1]) as h:
            line = k.offset(to, (d * self.padded[1] + h) * self.padded[2])
            y, z = d - self.padding[0], h - self.padding[1]
            nothing = k.const(-1, I64)
            holds = (nothing < y) & (y < inside[0]) & (nothing < z) & (z < inside[1])
            low = k.select(holds, k.min(self.padding[2], self.padded[2]), self.padded[2])
            high = k.max(k.min(self.padded[2], inside[2] + self.padding[2]), low)
            self._zeros(line, k.index(0), low)
            row = k.offset(source, y * self.x.stride(2) + z * self.x.stride(3))
            self._elements(k.offset(line, low), row, high - low)
            self._zeros(line, high, self.padded[2])

    def _zeros(self, to: Value, start: Value, stop: Value) -> None:
        with self.k.loop(start, stop) as i:
            self.k.store(to, i, self.k.const(0.0, self.element))

    def _elements(self, to: Value, source: Value, count: Value) -> None:
        k, step = self.k, self.x.stride(4)
        near = k.choose(step.eq(1))
        with near.then:
            each_vector(k, self.target, self.element, count, lambda i, lanes, mask: k.store(
                to, i, k.load(source, i, lanes, mask), mask))
        with near.otherwise, k.loop(0, count) as i:
            k.store(to, i, k.load(source, i * step))

    def _lines(self, n0: Value, line: Value) -> None:
        """Where rows of positions begin: in A from its first channel on, and in a panel of B."""
        k, steps, width = self.k, self.steps, self.tile.width
        positions = self.size[0] * self.size[1] * self.size[2]
        panels = _parts(self.columns, k.const(width, I64))
        with k.loop(0, self.line_count) as i:
            at = line + i
            h, rest = at % self.size[1], at / self.size[1]
            d, n = rest % self.size[0], rest / self.size[0]
            k.store(self.a_lines, i, n * steps[0] + d * self.step[0] * steps[2]
                    + h * self.step[1] * steps[3])
            matrix = ((n0 + n) * self._number("groups") + self.group) * panels
            place = (d * self.size[1] + h) * self.size[2]
            k.store(self.b_lines, i, (matrix * positions + place) * width)

    def _tile(self, i: Value, rows: Rows, vectors: int) -> None:
        """Some rows over the lines of the block, into the sums of the panel."""
        k, lanes = self.k, self.tile.lanes
        sums = self._over_lines(i, rows, vectors)
        row = k.offset(self.sums, (i - self.i0) * self.tile.width)
        places = [place * self.tile.width + v * lanes for place in rows.places
                  for v in range(vectors)]
        branch = k.choose(self.first)
        with branch.then:
            branch.give(*sums)
        with branch.otherwise:
            branch.give(*(s + k.load(row, p, lanes) for s, p in zip(sums, places, strict=True)))
        for value, place in zip(branch.results, places, strict=True):
            k.store(row, place, value)

    def _over_lines(self, i: Value, rows: Rows, vectors: int) -> tuple[Value, ...]:
        k, lanes, width = self.k, self.tile.lanes, self.tile.width
        offsets = [k.load(self.offsets, i - self.i0 + place) for place in rows.places]
        step = self.step[2] * self.steps[4]
        sums = [k.const(0.0, self.element.vector(lanes))] * (len(offsets) * vectors)
        outer = k.loop(0, self.line_count, 1, sums)
        with outer as (line, *sums):
            a = k.offset(self.a_base, k.load(self.a_lines, line))
            b = k.offset(self.panel_ptr, k.load(self.b_lines, line))
            inner = k.loop(0, self.size[2], 1, [a, b, *sums])
            with inner as (_, a, b, *sums):
                ys = [k.load(b, v * lanes, lanes) for v in range(vectors)]
                new = []
                for r, offset in enumerate(offsets):
                    one = k.splat(k.load(a, offset), lanes)
                    new += [k.fma(one, y, sums[r * vectors + v]) for v, y in enumerate(ys)]
                inner.next(k.offset(a, step), k.offset(b, width), *new)
            outer.next(*inner.results[2:])
        return outer.results

    def _store(self, panel: Value) -> None:
        """The sums of a panel to their places, on top of what is there where asked."""
        k, width = self.k, self.tile.width
        to_row, to_column = self._number("to_row"), self._number("to_column")
        start = self.group * self.columns + panel * width
        count = k.min(self.columns - panel * width, width)
        out = k.offset(self.out.ptr, start * to_column + self.i0 * to_row)
        add, sums = self._number("add"), self._sums(panel)
        with k.loop(0, count) as o, k.loop(0, self.i1 - self.i0) as r:
            value = k.load(sums, r * width + o)
            place = o * to_column + r * to_row
            branch = k.choose(add.ne(0))
            with branch.then:
                branch.give(value + k.load(out, place))
            with branch.otherwise:
                branch.give(value)
            k.store(out, place, branch.results[0])


def _parts(size: Value, part: Value) -> Value:
    return (size + part - 1) / part
