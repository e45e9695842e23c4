"""The gradient for the weight of a convolution by three by three taps, with few multiplications.

The transpose of `conv_winograd.py`: tiles of the input and of the output's gradient are
transformed, the 36 elements multiplied one by one and summed over all tiles of all images (36
matrix products, output channels by input channels), and the sums transformed back.
"""

from __future__ import annotations

from .conv_winograd import each_tile
from .conv_winograd_tiles import (
    PLANES,
    SIDE,
    STEP,
    TAPS,
    Numbers,
    Strips,
    folded,
    in_two_passes,
    of_gradient,
    of_input,
    parts,
)
from .gemm_pack import tile_of, transpose
from .ir import Kernel, Value
from .target import Target
from .types import Type

__all__ = ["build_gradient_result", "build_tiles"]


def build_tiles(target: Target, element: Type, last: bool, gradient: bool) -> Kernel:
    """The kernel that transforms tiles: of the input, B^T d B, or of a gradient, A y A^T.

    Arguments: to: the planes; images: see `Strips`; space: a strip for each thread; numbers: see
    `FIELDS`; channels are in panels as wide as a tile of products.
    """
    k = Kernel("winograd_tiles", True)
    to, images, space = (k.array(n, element) for n in ("to", "images", "space"))
    g, lanes, width = Numbers(k), target.lanes(element), tile_of(target, element).width
    blocks, each = parts(g["channels"], lanes), g["group"] * g["tiles_x"]
    with k.parallel(parts(g["last"] - g["first"], g["strips"]) * blocks) as (task, worker):
        strips = Strips(k, target, images, g, "x_run", last, 0 if gradient else SIDE - STEP)
        memory, c = k.scratch(element, PLANES * lanes), task % blocks * lanes
        strips.begin(k.offset(space.ptr, worker * space.size(1)))
        strips.clear()
        start = g["first"] + task / blocks * g["strips"]
        panel = k.offset(to.ptr, c / width * g["panel_step"] + c % width)
        with k.loop(start, k.min(start + g["strips"], g["last"])) as s:
            strips.at(s, c, g["channels"])
            strips.fill()
            first = k.offset(panel, (s - g["first"]) * each * g["tile_step"])
            each_tile(strips, g, memory, first, STEP if gradient else SIDE,
                      of_gradient if gradient else of_input)
    return k


def build_gradient_result(target: Target, element: Type) -> Kernel:
    """The kernel that transforms the sums back, G^T u G.

    Arguments: out (rows, columns, 9), contiguous; planes (36, rows, columns).
    """
    k = Kernel("winograd_gradient_result", True)
    out, planes = k.array("out", element), k.array("planes", element)
    rows, columns, lanes = planes.size(1), planes.size(2), target.lanes(element)
    plane = planes.stride(0)
    with k.parallel(rows) as (i, _):
        memory, taps = k.scratch(element, 3 * SIDE * lanes), k.scratch(element, TAPS * lanes)
        with k.loop(0, columns, lanes) as j:
            mask = k.mask(columns - j, lanes)
            u = k.offset(planes.ptr, i * columns + j)

            def read(r: Value, u: Value = u, mask: Value = mask) -> list[Value]:
                return [k.load(u, (r * SIDE + c) * plane, lanes, mask) for c in range(SIDE)]

            def write(c: Value, values: list[Value]) -> None:
                for r, value in enumerate(values):
                    k.store(taps, (c + r * 3) * lanes, value)
            in_two_passes(k, memory, SIDE, folded, read, write)
            _write_taps(k, lanes, k.offset(out.ptr, (i * columns + j) * TAPS), taps, columns - j)
    return k


def _write_taps(k: Kernel, lanes: int, to: Value, taps: Value, count: Value) -> None:
    """From a vector for each tap to nine taps for each of `count` columns."""
    for first in range(0, TAPS, lanes):
        mask = k.mask(k.index(TAPS - first), lanes)
        lines = [k.load(taps, min(first + r, TAPS - 1) * lanes, lanes) for r in range(lanes)]
        for column, line in enumerate(transpose(k, lines)):
            with k.when(count > column):
                k.store(to, column * TAPS + first, line, mask)
