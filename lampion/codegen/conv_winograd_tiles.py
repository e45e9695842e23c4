"""Tiles of Winograd's F(4x4, 3x3): their transforms, and images cut into strips of tiles.

Four by four positions of the output come from six by six elements of the input. Transformed, the 36
elements of input and weight are multiplied one by one: 36 multiplications where there were 144.
Transforms run on vectors of channels, whatever the layout of the images: a strip, some rows of
tiles of one image and one vector of channels, is turned so that channels are innermost first.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016. Polynomials are
evaluated at 0, +-5/8, +-3/2 and infinity: near one in size, as Barabasz et al. advise ("Error
Analysis and Improving the Accuracy of Winograd Convolution", ACM TOMS 46, 2020), and exact in
binary. The error is about five times that of the direct sum (tests/codegen).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .gemm_pack import transpose
from .ir import ArrayParam, Kernel, Value
from .target import Target
from .types import I64

__all__ = ["FIELDS", "PLANES", "SIDE", "STEP", "TAPS", "Numbers", "Strips", "folded",
           "in_two_passes", "of_gradient", "of_input", "of_output", "of_weight", "parts"]

STEP = 4  # positions of the output that a tile has along each axis
SIDE = 6  # elements of the input
TAPS = 9
PLANES = SIDE * SIDE  # products, one for each element of a transformed tile

_P, _Q = 0.625, 1.5
_P2, _Q2 = _P * _P, _Q * _Q
_AT_ZERO = 1 / (_P2 * _Q2)
_AT_P, _AT_Q = 1 / (2 * _P2 * (_P2 - _Q2)), 1 / (2 * _Q2 * (_Q2 - _P2))

Values = Sequence[Value]


def of_input(k: Kernel, d: Values) -> list[Value]:
    """B^T d: six of six."""
    rows = [_at_ends(k, d[0], d[2], d[4])]
    for point, other in ((_P, _Q2), (_Q, _P2)):
        even, odd = k.fma(d[2], -other, d[4]), k.fma(d[1], -other, d[3])
        rows += [k.fma(odd, point, even), k.fma(odd, -point, even)]
    return [*rows, _at_ends(k, d[1], d[3], d[5])]


def _at_ends(k: Kernel, a: Value, b: Value, c: Value) -> Value:
    return k.fma(a, _P2 * _Q2, k.fma(b, -(_P2 + _Q2), c))


def of_output(k: Kernel, m: Values) -> list[Value]:
    """A^T m: four of six."""
    even_p, odd_p, even_q, odd_q = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    return [m[0] + even_p + even_q, k.fma(odd_q, _Q, odd_p * _P),
            k.fma(even_q, _Q2, even_p * _P2), k.fma(odd_q, _Q2 * _Q, k.fma(odd_p, _P2 * _P, m[5]))]


def of_gradient(k: Kernel, y: Values) -> list[Value]:
    """A y: six of four, the transpose of `of_output`."""
    rows = [y[0]]
    for point in (_P, _Q):
        even, odd = k.fma(y[2], point ** 2, y[0]), k.fma(y[3], point ** 3, y[1] * point)
        rows += [even + odd, even - odd]
    return [*rows, y[3]]


def of_weight(k: Kernel, g: Values) -> list[Value]:
    """G g: six of three."""
    rows = [g[0] * _AT_ZERO]
    for point, scale in ((_P, _AT_P), (_Q, _AT_Q)):
        even, odd = k.fma(g[2], point ** 2 * scale, g[0] * scale), g[1] * (point * scale)
        rows += [even + odd, even - odd]
    return [*rows, g[2]]


def folded(k: Kernel, u: Values) -> list[Value]:
    """G^T u: three of six."""
    even_p, odd_p = (u[1] + u[2]) * _AT_P, (u[1] - u[2]) * _AT_P
    even_q, odd_q = (u[3] + u[4]) * _AT_Q, (u[3] - u[4]) * _AT_Q
    return [k.fma(u[0], _AT_ZERO, even_p + even_q), k.fma(odd_q, _Q, odd_p * _P),
            k.fma(even_q, _Q2, k.fma(even_p, _P2, u[5]))]


def in_two_passes(k: Kernel, memory: Value, size: int,
                  transform: Callable[[Kernel, Values], list[Value]],
                  read: Callable[[Value], list[Value]],
                  write: Callable[[Value, list[Value]], None]) -> None:
    """Transforms `size` rows by way of memory, then their columns.

    read(i): row i; write(j, values): column j of the result.
    """
    made = 0
    with k.loop(0, size) as i:
        values = transform(k, read(i))
        made, lanes = len(values), values[0].type.lanes
        for j, value in enumerate(values):
            k.store(memory, (i * made + j) * lanes, value)
    with k.loop(0, made) as j:
        write(j, transform(k, [k.load(memory, (j + i * made) * lanes, lanes)
                               for i in range(size)]))


FIELDS = ("images", "channels", "rows", "tiles_y", "tiles_x", "group", "strips", "first", "last",
          "task_rows", "block", "pad_y", "pad_x", "x_run", "out_run", "tile_step", "panel_step",
          "plane_step", "strip", "weight_row", "weight_column", "weight_tap", "weight_start")
"""A convolution's numbers, in the order of the kernels' integer array.

rows, channels: of the output and the input. tiles_y, tiles_x: of an image; group: rows of tiles of
a strip; strips: of a task, of those from `first` to `last`. task_rows: channels of the output of a
task; block: those of the input summed at a time. pad: rows and columns of zeros before an image.
run: see `Strips`. step: between tiles, panels of channels and planes of the transformed input.
strip: elements of a strip in memory. weight: see `build_winograd_weight`.
"""


class Numbers:
    """The numbers inside a kernel, by name."""

    def __init__(self, k: Kernel) -> None:
        self.k, self.array = k, k.array("numbers", I64)

    def __getitem__(self, name: str) -> Value:
        return self.k.load(self.array.ptr, FIELDS.index(name))


class Strips:
    """Copies strips between images and memory of a task, where channels are innermost.

    images (N, C, H, W): channels are neighbours in memory (`last`), or those of a row are.
    halo: rows and columns of a strip beyond those of its tiles' output. run: elements of a vector
    that are neighbours in a row; fewer than its lanes where rows are short and follow each other.
    """

    def __init__(self, k: Kernel, target: Target, images: ArrayParam, numbers: Numbers, run: str,
                 last: bool, halo: int) -> None:
        self.k, self.images, self.last = k, images, last
        self.element = images.ptr.type.pointee
        self.lanes = target.lanes(self.element)
        self.group, self.run = numbers["group"], numbers[run]
        self.tiles_y, self.halo = numbers["tiles_y"], halo
        self.pads = [numbers["pad_y"] if halo else k.index(0),
                     numbers["pad_x"] if halo else k.index(0)]
        self.pitch = numbers["tiles_x"] * STEP + (SIDE - STEP + self.lanes)
        self.height, self.width = images.size(2), images.size(3)
        self.count = self.group * STEP + halo

    def begin(self, memory: Value) -> None:
        """memory: rows of `pitch` vectors of channels, `lanes` of them beyond the strip's."""
        self.memory = memory
        k, lanes = self.k, self.lanes
        places = k.scratch(I64, lanes)
        with k.loop(0, lanes) as i:
            k.store(places, i, (i / self.run * self.pitch + i % self.run) * lanes)
        self.places = [k.load(places, i) for i in range(lanes)]

    def clear(self) -> None:
        """Zeros everywhere: those around what `fill` writes stay."""
        self._clear(self.k.index(0), self.count)

    def _clear(self, first: Value, last: Value) -> None:
        k, lanes = self.k, self.lanes
        zero = k.const(0.0, self.element.vector(lanes))
        with k.loop(first * self.pitch, last * self.pitch) as at:
            k.store(self.memory, at * lanes, zero)

    def at(self, strip: Value, channel: Value, channels: Value) -> None:
        """Chooses a strip and the first of its channels, of which `channels` exist."""
        k, each = self.k, self.tiles_y / self.group
        self.top = (strip % each) * (self.group * STEP) - self.pads[0]
        self.left = channels - channel
        self.plane = k.offset(self.images.ptr, strip / each * self.images.stride(0)
                              + channel * self.images.stride(1))

    def fill(self) -> None:
        """Copies the strip from its image, zeros for what lies beyond."""
        k = self.k
        low, high = k.max(self.top, 0), k.min(self.top + self.count, self.height)
        self._clear(k.index(0), low - self.top)
        if self.last:
            self._each_element(low, high, lambda place, at, mask: k.store(
                self.memory, place, k.load(self.plane, at, self.lanes, mask)))
        else:
            self._each_block(low, high, self.height, self._turn_in)
        self._clear(high - self.top, self.count)

    def drain(self) -> None:
        """Copies the strip to its image."""
        k, high = self.k, self.k.min(self.top + self.count, self.height)
        if self.last:
            self._each_element(self.top, high, lambda place, at, mask: k.store(
                self.plane, at, k.load(self.memory, place, self.lanes), mask))
        else:
            self._each_block(self.top, high, high, self._turn_out)

    def _each_element(self, low: Value, high: Value,
                      body: Callable[[Value, Value, Value], None]) -> None:
        """body(place in memory, place in the plane, mask of channels)"""
        k, images = self.k, self.images
        mask = k.mask(self.left, self.lanes)
        with k.loop(low, high) as y, k.loop(0, self.width) as x:
            body(self._place(y, x), y * images.stride(2) + x * images.stride(3), mask)

    def _place(self, y: Value, x: Value) -> Value:
        return ((y - self.top) * self.pitch + x + self.pads[1]) * self.lanes

    def _each_block(self, low: Value, high: Value, end: Value,
                    body: Callable[[Value, Value, Value], None]) -> None:
        """body(place in memory, place in the plane, elements): vectors of what is contiguous."""
        k, lanes = self.k, self.lanes
        rows = k.const(lanes, I64) / self.run
        with k.loop(low, high, rows) as y, k.loop(0, self.width, lanes) as x:
            left = k.select(rows > 1, (end - y) * self.width, self.width - x)
            body(self._place(y, x), y * self.images.stride(2) + x, left)

    def _turn_in(self, place: Value, at: Value, left: Value) -> None:
        k, lanes, mask = self.k, self.lanes, self.k.mask(left, self.lanes)
        step, most = self.images.stride(1), self.left - 1
        rows = [k.load(k.offset(self.plane, k.min(most, c) * step), at, lanes, mask)
                for c in range(lanes)]
        to = k.offset(self.memory, place)
        for i, value in enumerate(transpose(k, rows)):
            k.store(to, self.places[i], value)

    def _turn_out(self, place: Value, at: Value, left: Value) -> None:
        k, lanes, mask = self.k, self.lanes, self.k.mask(left, self.lanes)
        source, step = k.offset(self.memory, place), self.images.stride(1)
        rows = transpose(k, [k.load(source, p, lanes) for p in self.places])
        for c, row in reversed(list(enumerate(rows))):  # rows beyond the last one lie under it
            k.store(k.offset(self.plane, k.min(self.left - 1, c) * step), at, row, mask)


def parts(size: Value, part: Value | int) -> Value:
    """How many parts hold `size`."""
    return (size + part - 1) / part
