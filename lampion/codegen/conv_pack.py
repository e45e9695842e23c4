"""Panels of windows: what a convolution multiplies with its weights, packed as it is needed.

The matrix of windows (im2col) has a row for each channel and tap of the kernel and a column for
each position of the output. It is never made as a whole: a task packs one panel of 32 columns and
some channels at a time, and multiplies it at once.

Along each of the three spatial axes the element of the input that a tap meets lies at
`position * step + tap * rate + start`; beyond the input it is zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .gemm_pack import each_vector, tile_of
from .ir import ArrayParam, Kernel, Loop, Value
from .target import Target
from .types import I1, I32, I64, U8, U16, Type

__all__ = ["FIELDS", "Geometry", "Run", "Windows", "bits_between", "mask_of"]

FIELDS = ("groups", "images", "rows", "channels", *(
    f"{name}{axis}" for name in ("taps", "step", "rate", "start", "size", "to")
    for axis in range(3)), "to_image", "to_row", "weight_row",
    "task_rows", "task_columns", "block")
"""A convolution's numbers, in the order of the kernel's integer array.

rows, channels: of one group. size: positions along each axis. to: steps in the output's memory
between positions, to_image and to_row between images and channels; weight_row: in the weight from
one row to the next. block: channels of a block.
"""


_TOGETHER = 128  # rows of a panel that are packed at a time: what they read stays near


class Geometry:
    """The numbers of a convolution inside a kernel, by name."""

    def __init__(self, k: Kernel, numbers: ArrayParam) -> None:
        self.k, self.numbers = k, numbers

    def __getitem__(self, name: str) -> Value:
        return self.k.load(self.numbers.ptr, FIELDS.index(name))

    def three(self, name: str) -> list[Value]:
        """A number for each axis."""
        return [self[f"{name}{axis}"] for axis in range(3)]


class Run(NamedTuple):
    """Neighbouring columns of a vector or panel within one row of positions."""

    at: tuple[Value, Value, Value]  # the position of the first one
    image: Value
    first: Value  # column
    length: Value


class Windows:
    """Writes the part of a kernel that packs a panel of windows.

    pieces: how many rows of positions a vector of columns may touch, for targets with masks; 0
    where runs are copied one after another. step: along the last axis, 1 or 2 with pieces.
    """

    def __init__(self, k: Kernel, target: Target, element: Type, x: ArrayParam, g: Geometry,
                 pieces: int, step: int) -> None:
        self.k, self.target, self.element, self.x, self.pieces = k, target, element, x, pieces
        self.tile, self.narrow = tile_of(target, element), step
        self.taps, self.step, self.rate = g.three("taps"), g.three("step"), g.three("rate")
        self.start, self.size = g.three("start"), g.three("size")
        self.inside = [x.size(2 + axis) for axis in range(3)]
        self.strides = [x.stride(2 + axis) for axis in range(3)]
        self.all_taps = self.taps[0] * self.taps[1] * self.taps[2]

    def fill(self, into: Value, x: Value, q: Value, left: Value, channels: Value) -> None:
        """`channels` channels from `x` on of the panel at column q, of which `left` are left."""
        k, width, lanes = self.k, self.tile.width, self.tile.lanes
        left = k.min(left, width)
        if not self.pieces:
            self._fill_runs(into, x, q, left, channels)
            return
        together = k.max(k.index(_TOGETHER) / k.max(self.all_taps, 1), _TOGETHER // 8)
        with k.loop(0, width, lanes) as v:
            runs = self.runs(q + v, k.min(k.max(left - v, 0), lanes))
            with k.loop(0, channels, together) as c0, k.loop(0, self.taps[2]) as w:
                stop = k.min(c0 + together, channels)
                ends = [self._ends_along(run, w) for run in runs]
                with k.loop(0, self.taps[0]) as d, k.loop(0, self.taps[1]) as h:
                    places = [self._place(run, end, d, h)
                              for run, end in zip(runs, ends, strict=True)]
                    row = (d * self.taps[1] + h) * self.taps[2] + w
                    with k.loop(c0, stop) as c:
                        plane = k.offset(x, c * self.x.stride(1))
                        k.store(into, (c * self.all_taps + row) * width + v,
                                self._vector(plane, places))

    def _each_tap(self) -> _Taps:
        return _Taps(self.k, self.taps)

    def position(self, q: Value) -> tuple[Value, tuple[Value, Value, Value]]:
        """The image and the position of column q."""
        w = q % self.size[2]
        rest = q / self.size[2]
        h, rest = rest % self.size[1], rest / self.size[1]
        return rest / self.size[0], (rest % self.size[0], h, w)

    def runs(self, q: Value, count: Value) -> list[Run]:
        """The runs of `count` columns from q on, at most as many as `pieces`; later ones empty."""
        runs, first = [], self.k.index(0)
        for _ in range(self.pieces):
            runs.append(self.run(q, count, first))
            first = first + runs[-1].length
        return runs

    def run(self, q: Value, count: Value, first: Value) -> Run:
        """The run that begins with the column `first` of `count` columns from q on."""
        image, at = self.position(q + first)
        length = self.k.max(self.k.min(self.size[2] - at[2], count - first), 0)
        return Run(at, image, first, length)

    def _inside(self, at: Sequence[Value], tap: Sequence[Value]) -> tuple[list[Value], Value]:
        """The element that a tap meets, and whether it is inside along the first two axes."""
        places = [at[a] * self.step[a] + tap[a] * self.rate[a] + self.start[a] for a in range(3)]
        holds = [(self.k.const(-1, I64) < places[a]) & (places[a] < self.inside[a])
                 for a in range(2)]
        return places, holds[0] & holds[1]

    def _offset(self, image: Value, places: Sequence[Value]) -> Value:
        terms = [p * s for p, s in zip(places, self.strides, strict=True)]
        return image * self.x.stride(0) + terms[0] + terms[1] + terms[2]

    # --- vectors --------------------------------------------------------------------------------

    def _ends_along(self, run: Run, w: Value) -> tuple[Value, list[Value]]:
        """Along the last axis: where lane 0 of a run is read, and the bits of lanes to read.

        With a step of 2 two vectors are read, of which a window takes every other element.
        """
        k, lanes, step = self.k, self.tile.lanes, self.narrow
        place = run.at[2] * step + w * self.rate[2] + self.start[2]
        first = place - run.first * step
        low = k.max(run.first * step, k.const(0, I64) - first)
        high = k.min((run.first + run.length) * step, self.inside[2] - first)
        return first, [bits_between(k, low - part, high - part, lanes)
                       for part in range(0, lanes * step, lanes)]

    def _place(self, run: Run, end: tuple[Value, list[Value]], d: Value, h: Value
               ) -> tuple[Value, list[Value]]:
        """Where lane 0 of a run is read and which lanes, for a tap of the first two axes."""
        k, (first, words) = self.k, end
        places, holds = self._inside(run.at, (d, h, k.index(0)))
        masks = [mask_of(k, k.select(holds, word, k.const(0, word.type)), self.tile.lanes)
                 for word in words]
        return self._offset(run.image, (places[0], places[1], first)), masks

    def _vectors(self, plane: Value, places: Sequence[tuple[Value, list[Value]]]) -> list[Value]:
        """What is read of one channel: the runs together, each zero where the others are not."""
        k, lanes, found = self.k, self.tile.lanes, []
        whole = I32 if self.element.size == 4 else I64
        for part in range(self.narrow):
            total = None
            for place, masks in places:
                bits = k.load(k.offset(plane, place), part * lanes, lanes, masks[part]).bits(whole)
                total = bits if total is None else total | bits
            if total is not None:
                found.append(total.bits(self.element))
        return found

    def _vector(self, plane: Value, places: Sequence[tuple[Value, list[Value]]]) -> Value:
        """A vector of windows of one channel."""
        parts = self._vectors(plane, places)
        if self.narrow == 1:
            return parts[0]
        return self.k.shuffle(parts[0], parts[1], range(0, 2 * self.tile.lanes, 2))

    # --- runs -----------------------------------------------------------------------------------

    def _fill_runs(self, into: Value, x: Value, q: Value, left: Value, channels: Value) -> None:
        """Each row of positions that the panel touches, one after another."""
        k, width = self.k, self.tile.width
        first, last = q / self.size[2], (q + left - 1) / self.size[2]
        with self._each_tap() as (tap, row):
            with k.loop(first, last + 1) as line:
                start = k.max(line * self.size[2], q)
                stop = k.min((line + 1) * self.size[2], q + left)
                image, at = self.position(start)
                self._copy(Run(at, image, start - q, stop - start), tap, into, x, row, channels)
            with k.loop(0, channels) as c:
                self._zeros(k.offset(into, (c * self.all_taps + row) * width), left,
                            k.const(width, I64))

    def _copy(self, run: Run, tap: Sequence[Value], into: Value, x: Value, row: Value,
              channels: Value) -> None:
        """A run in all channels: zeros before the input, elements of it, zeros behind it."""
        k, (low, high, source) = self.k, self._ends(run, tap)
        with k.loop(0, channels) as c:
            to = k.offset(into, (c * self.all_taps + row) * self.tile.width + run.first)
            plane = k.offset(x, c * self.x.stride(1) + source)
            self._zeros(to, k.index(0), low)
            self._elements(k.offset(to, low), k.offset(plane, low * self.step[2] * self.strides[2]),
                           high - low)
            self._zeros(to, high, run.length)

    def _ends(self, run: Run, tap: Sequence[Value]) -> tuple[Value, Value, Value]:
        """Which columns of a run are inside the input, and where its first one would be."""
        k, step = self.k, self.step[2]
        places, holds = self._inside(run.at, tap)
        before = k.max(k.const(0, I64) - places[2], 0)
        low = k.min((before + step - 1) / step, run.length)
        room = k.max(self.inside[2] - places[2], 0)
        high = k.max(k.min((room + step - 1) / step, run.length), low)
        return (k.select(holds, low, run.length), k.select(holds, high, run.length),
                self._offset(run.image, places))

    def _elements(self, to: Value, source: Value, count: Value) -> None:
        k, step = self.k, self.step[2] * self.strides[2]
        near = k.choose(step.eq(1))
        with near.then:
            each_vector(k, self.target, self.element, count, lambda i, lanes, mask: k.store(
                to, i, k.load(source, i, lanes, mask), mask))
        with near.otherwise, k.loop(0, count) as i:
            k.store(to, i, k.load(source, i * step))

    def _zeros(self, to: Value, start: Value, stop: Value) -> None:
        with self.k.loop(start, stop) as i:
            self.k.store(to, i, self.k.const(0.0, self.element))


def bits_between(k: Kernel, low: Value, high: Value, lanes: int) -> Value:
    """An integer whose bits from `low` on below `high` are ones, of `lanes` bits."""
    one, low = k.const(1, I64), k.min(k.max(low, 0), lanes)
    high = k.max(k.min(high, lanes), low)
    return ((one << high) - (one << low)).cast(U16 if lanes == 16 else U8)


def mask_of(k: Kernel, word: Value, lanes: int) -> Value:
    """The lowest bits of an integer as a mask."""
    mask = k.emit("bitcast", (word,), I1.vector(word.type.bits))
    return mask if word.type.bits == lanes else k.shuffle(mask, mask, range(lanes))


class _Taps:
    """Three loops over the taps: `with _Taps(k, taps) as ((d, h, w), number)`."""

    def __init__(self, k: Kernel, taps: Sequence[Value]) -> None:
        self.k, self.taps = k, taps
        self.loops: list[Loop] = []

    def __enter__(self) -> tuple[list[Value], Value]:
        at = []
        for count in self.taps:
            loop = self.k.loop(0, count)
            self.loops.append(loop)
            at.append(loop.__enter__())
        return at, (at[0] * self.taps[1] + at[1]) * self.taps[2] + at[2]

    def __exit__(self, *error: object) -> None:
        for loop in reversed(self.loops):
            loop.__exit__(*error)
