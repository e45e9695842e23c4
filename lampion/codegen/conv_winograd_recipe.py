"""Recipes for convolutions by three taps along both axes: Winograd's, where it pays."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..debug.knobs import knobs
from ..runtime import memory
from ..runtime.threads import get_num_threads
from . import service
from .conv_pack import FIELDS
from .conv_problem import Array, Problem, Recipe, five, share
from .conv_winograd import CHUNKS, PLANES, WinogradVariant, build_winograd, build_winograd_weight
from .conv_winograd_gradient import (
    build_gradient_result,
    build_gradient_tiles,
    build_input_tiles,
)
from .fused import as_contiguous, copied, copy
from .gemm import Packed
from .gemm_pack import tile_of
from .gemm_tiles import K_BLOCK
from .target import target
from .types import Type

__all__ = ["winograd_backward", "winograd_forward", "winograd_weight"]

_TASKS = 8  # at least, as far as rows can be divided
_SUMMED = 512  # tiles, at most, whose products are summed at a time
_HELD = 1 << 21  # elements of their transforms: they stay in the last-level cache
_LARGE = 1 << 17  # elements of a weight that, transformed, does not stay in a near cache


class _Product(NamedTuple):
    """The convolution: steps are those of the weight, padding that of its input."""

    element: Type
    images: int
    rows: int
    channels: int
    size: tuple[int, int]  # of the output
    padding: tuple[int, int]
    weight: tuple[int, int, int, int]  # steps of rows, channels and taps; the first tap
    bias: bool


def winograd_forward(p: Problem) -> Recipe | None:
    """The convolution by Winograd's algorithm, or None where it does not fit or pay."""
    if not _fits(p) or p.out_steps[4] != 1 or p.x_steps[4] != 1:
        return None
    product = _Product(p.element, p.x[0], p.w[0], p.w[1], (p.out[3], p.out[4]), p.padding[1:],
                       (p.w[1] * 9, 9, 1, 0), p.bias)
    return _recipe(product) if _pays(product) else None


def winograd_backward(p: Problem) -> Recipe | None:
    """The gradient for the input likewise: the taps in reverse, rows and channels exchanged."""
    if not _fits(p) or p.out_steps[4] != 1 or p.x_steps[4] != 1 or max(p.padding) > 2:
        return None
    product = _Product(p.element, p.x[0], p.w[1], p.w[0], (p.x[3], p.x[4]),
                       (2 - p.padding[1], 2 - p.padding[2]), (9, p.w[1] * 9, -1, 8), p.bias)
    return _recipe(product) if _pays(product) else None


def winograd_weight(p: Problem) -> Recipe | None:
    """The gradient for the weight: some tiles at a time are transformed and multiplied."""
    product = _Product(p.element, p.x[0], p.w[0], p.w[1], (p.out[3], p.out[4]), p.padding[1:],
                       (0, 0, 0, 0), False)
    if not _fits(p) or p.out_steps[4] != 1 or p.x_steps[4] != 1 or not _pays(product):
        return None
    # Without masks the transforms take longer.
    pays = target(knobs.target).has_masks or min(product.rows, product.channels) >= 128
    return _gradient(product) if pays else None


def _gradient(p: _Product) -> Recipe:
    element, width = p.element, tile_of(target(knobs.target), p.element).width
    tiles = [-(-n // 2) for n in p.size]
    total = math.prod(tiles) * p.images
    some = max(width, min(_SUMMED, _HELD // (PLANES * (p.rows + p.channels)) // width * width,
                          -(-total // width) * width))
    pieces = _pieces(tiles[1], target(knobs.target).lanes(element))
    product = Packed(element, PLANES, p.rows, p.channels, some)
    size, gap = -(-p.channels // width) * width * some, 16
    numbers = [_numbers(q, tiles, 0, 4 * width) for q in (p, p._replace(
        channels=p.rows, padding=(0, 0)))]
    numbers[0][FIELDS.index("to_row")], numbers[1][FIELDS.index("to_row")] = some, some + gap

    def kernels() -> list[Any]:
        name = element.name
        return [service.kernel(("winograd input tiles", name, pieces),
                               lambda target: build_input_tiles(target, element, pieces)),
                service.kernel(("winograd gradient tiles", name, pieces),
                               lambda target: build_gradient_tiles(target, element, pieces)),
                service.kernel(("winograd gradient result", name),
                               lambda target: build_gradient_result(target, element))]

    def run(gw: Array, x: Array, g: Array, _: Array | None) -> bool:
        made = kernels()
        if None in made:
            return False
        whole = gw if gw.flags.c_contiguous else memory.empty(gw.shape, gw.dtype)
        panels = memory.empty((PLANES * size,), gw.dtype)
        held = memory.empty((PLANES, p.rows, some + gap), gw.dtype)
        sums = memory.empty((PLANES, p.rows, p.channels), gw.dtype)
        for q in range(0, total, some):
            count = min(some, total - q)
            made[0](panels, five(x), _between(numbers[0], q, q + count))
            made[1](held, five(g), _between(numbers[1], q, q + count))
            if not product.launch(count)(sums, held[:, :, :count], panels, None, q > 0, 1.0):
                return False
        made[2](whole, sums)
        if whole is not gw:
            copy(gw, whole)
        return True
    return run


def _between(numbers: Array, first: int, last: int) -> Array:
    """The numbers for some of the tiles."""
    own = numbers.copy()
    own[FIELDS.index("to0")], own[FIELDS.index("to1")] = first, last
    return own


def _fits(p: Problem) -> bool:
    return (target(knobs.target).vector_bytes >= 32 and p.w[2:] == (1, 3, 3)
            and p.x[2] == 1 == p.groups
            and p.stride == p.dilation == (1, 1, 1) and p.padding[0] == 0)


def _pays(p: _Product) -> bool:
    """Against the transforms stand fewer multiplications, of channels, rows and positions."""
    return (min(p.rows, p.channels) >= 16 and p.rows * p.channels >= 1024
            and p.images * math.prod(p.size) >= 256)


def _recipe(p: _Product) -> Recipe:
    chosen = target(knobs.target)
    tile = tile_of(chosen, p.element)
    tiles = [-(-n // 2) for n in p.size]
    pieces = _pieces(tiles[1], tile.lanes)
    all_panels = -(-math.prod(tiles) * p.images // tile.width)
    rows, panels = _tasks(p, all_panels, tile.rows)
    own = all_panels <= panels
    variant = WinogradVariant(p.element, p.bias, pieces, own)
    element = p.element
    numbers = _numbers(p, tiles, rows, panels)
    chunk = PLANES * (tile.rows * p.channels + 16)
    space = PLANES * tile.width * panels * (p.channels + min(rows, p.rows)) + own * CHUNKS * chunk

    def run(out: Array, x: Array, w: Array, bias: Array | None) -> bool:
        kernel = service.kernel(("conv winograd", element.name, p.bias, pieces, own),
                                lambda target: build_winograd(target, variant))
        transform = service.kernel(("winograd weight", element.name),
                                   lambda target: build_winograd_weight(target, element))
        if kernel is None or transform is None:
            return False
        w = as_contiguous(w)
        if not own:
            planes = memory.empty((-(-p.rows // tile.rows) * chunk,), out.dtype)
            transform(planes, w, p.rows, p.channels, *p.weight)
            w = planes
        mine = memory.empty((get_num_threads() * space,), out.dtype)
        if bias is not None and bias.strides[0] != bias.itemsize:
            bias = copied(bias)
        kernel(five(out), five(x), w, bias, mine, numbers)
        return True
    return run


def _pieces(row: int, lanes: int) -> int:
    """How many rows of tiles a vector of tiles may touch."""
    return 1 if row % lanes == 0 else lanes // row if lanes % row == 0 else (lanes - 2) // row + 2


def _tasks(p: _Product, panels: int, unit: int) -> tuple[int, int]:
    """Rows and panels of a task: large weights are read for several panels at a time."""
    together = min(panels, 4 if p.rows * p.channels >= _LARGE else 1)
    groups = -(-panels // together)
    return share(p.rows, unit, min(-(-_TASKS // groups), p.rows // 128)), together


def _numbers(p: _Product, tiles: list[int], task_rows: int, panels: int) -> Array:
    blocks = -(-p.channels // K_BLOCK)
    values = dict.fromkeys(FIELDS, 0) | {
        "groups": 1, "images": p.images, "rows": p.rows, "channels": p.channels,
        "task_rows": task_rows, "task_columns": panels, "block": -(-p.channels // blocks)}
    names = ("weight_row", "weight_column", "weight_tap", "weight_start")
    values |= dict(zip(names, p.weight, strict=True))
    for name, axes in (("step", (1, 2, 2)), ("rate", (1, 1, 1)), ("size", (1, *tiles)),
                       ("start", (0, -p.padding[0], -p.padding[1]))):
        values |= {f"{name}{axis}": n for axis, n in enumerate(axes)}
    return np.array([values[name] for name in FIELDS], np.int64)
