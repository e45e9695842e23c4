"""Recipes for convolutions by three taps along both axes: Winograd's, where it pays."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..debug.knobs import knobs
from ..runtime import memory
from ..runtime.threads import get_num_threads
from . import service
from .conv_problem import Array, Problem, Recipe, five, share
from .conv_winograd import GAP, WinogradVariant, build_winograd, build_winograd_weight
from .conv_winograd_gradient import build_gradient_result, build_tiles
from .conv_winograd_tiles import FIELDS, PLANES, SIDE, STEP, TAPS
from .fused import as_contiguous, copied, copy
from .gemm import Packed
from .gemm_pack import tile_of
from .gemm_tiles import K_BLOCK
from .target import target
from .types import Type

__all__ = ["winograd_backward", "winograd_forward", "winograd_weight"]

_TASKS = 8  # at least, as far as rows can be divided
_NEAR = 150_000  # elements of a task's planes: they stay in the second-level cache
_TILES = 32  # of a task, at least: they share what is read of the weight
_STRIP = 16_384  # elements of a strip
_WEIGHT = 1 << 17  # elements of a weight that, transformed, does not stay in a near cache
_OWN_TILES = 128  # up to which tasks transform such a weight themselves
_OWN_BLOCK = 64  # channels of theirs
_LEAST = 256  # positions that make up for transforming the weight
_LEAST_STEADY = 128  # and for reading 36 planes of it instead of 9
_HELD = 1 << 19  # elements of tiles whose products are summed at a time, or as many as of sums
_MOST_HELD = 5 << 19  # but no more: they stay in the last-level cache
_SUMS = 1 << 19  # elements of sums made at a time, if their tiles need not be made again for it


class _Images(NamedTuple):
    """Images (N, C, H, W): sizes, steps in elements."""

    size: tuple[int, ...]
    steps: tuple[int, ...]

    @property
    def last(self) -> bool:
        """Whether channels are neighbours in memory."""
        return self.steps[1] == 1 and self.steps[3] != 1

    def run(self, lanes: int) -> int:
        """How many elements of a vector are neighbours in a row: see `Strips`."""
        width = self.size[3]
        short = width < lanes and lanes % width == 0 and self.steps[2] == width
        return width if short and self.steps[3] == 1 else lanes


class _Product(NamedTuple):
    """The convolution; weight: steps of rows, channels and taps; the first tap."""

    element: Type
    out: _Images
    x: _Images
    padding: tuple[int, int]
    weight: tuple[int, int, int, int]
    bias: bool
    rows: int
    channels: int
    steady: bool = False  # whether the weight is transformed once for many calls


def winograd_forward(p: Problem, steady: bool = False) -> Recipe | None:
    """The convolution by Winograd's algorithm, or None where it does not fit or pay.

    steady: the weight is transformed once for many calls.
    """
    return _recipe(_product(p)._replace(steady=steady)) if _fits(p, steady) else None


def winograd_backward(p: Problem) -> Recipe | None:
    """The gradient for the input likewise: the taps in reverse, rows and channels exchanged."""
    rows, columns = (2 - n for n in p.padding[1:])
    turned = p._replace(out=p.x, out_steps=p.x_steps, x=p.out, x_steps=p.out_steps,
                        padding=(0, rows, columns), w=(p.w[1], p.w[0], *p.w[2:]))
    return _recipe(_product(turned, (9, p.w[1] * 9, -1, 8))) if _fits(turned) else None


def winograd_weight(p: Problem) -> Recipe | None:
    """The gradient for the weight: some tiles at a time are transformed and multiplied."""
    return _Gradient(_product(p)).run if _fits(p) else None


def _product(p: Problem, weight: tuple[int, int, int, int] | None = None) -> _Product:
    return _Product(p.element, _images(p.out, p.out_steps), _images(p.x, p.x_steps),
                    (p.padding[1], p.padding[2]), weight or (p.w[1] * 9, 9, 1, 0), p.bias,
                    p.w[0], p.w[1])


def _images(size: tuple[int, ...], steps: tuple[int, ...]) -> _Images:
    """Without the first of three spatial axes."""
    return _Images((*size[:2], *size[3:]), (*steps[:2], *steps[3:]))


def _flat(a: Array) -> Array:
    return five(a)[:, :, 0]


def _fits(p: Problem, steady: bool = False) -> bool:
    """Whether the kernels take it, and it pays."""
    return (target(knobs.target).vector_bytes >= 32 and p.w[2:] == (1, 3, 3)
            and p.x[2] == 1 == p.groups and p.stride == p.dilation == (1, 1, 1)
            and p.padding[0] == 0 <= min(p.padding) and max(p.padding) <= 2 and _pays(p, steady)
            and all(steps[1] == 1 or steps[4] == 1 for steps in (p.out_steps, p.x_steps)))


def _pays(p: Problem, steady: bool) -> bool:
    """Against the transforms stand fewer multiplications, of channels, rows and positions."""
    rows, channels = p.w[:2]
    positions, tiles = math.prod(p.out[3:]), math.prod(-(-n // STEP) for n in p.out[3:])
    return (min(rows, channels) >= 16 and rows * channels >= 1024
            and p.out[0] * positions >= (_LEAST_STEADY if steady else _LEAST)
            and tiles * PLANES * 2 <= positions * TAPS)


class _Cut(NamedTuple):
    """How images are cut: tiles along their axes, rows of tiles of a strip, strips in all."""

    tiles: tuple[int, int]
    group: int
    strips: int
    space: int  # elements of a strip in memory

    @property
    def each(self) -> int:
        """Tiles of a strip."""
        return self.group * self.tiles[1]

    def numbers(self, p: _Product, lanes: int, **others: int) -> Array:
        """The kernels' integer array."""
        values = dict.fromkeys(FIELDS, 0) | {
            "images": p.x.size[0], "channels": p.channels, "rows": p.rows,
            "tiles_y": self.tiles[0], "tiles_x": self.tiles[1], "group": self.group,
            "last": self.strips, "pad_y": p.padding[0], "pad_x": p.padding[1],
            "x_run": p.x.run(lanes), "out_run": p.out.run(lanes)} | others
        return np.array([values[name] for name in FIELDS], np.int64)


def _cut(p: _Product, lanes: int) -> _Cut:
    """Strips of as many rows of tiles as fit the nearest cache."""
    y, x = (-(-n // STEP) for n in p.out.size[2:])
    pitch = (x * STEP + SIDE - STEP + lanes) * lanes
    fitting = [n for n in range(1, y + 1) if y % n == 0 and n * STEP * pitch <= _STRIP]
    group = max(fitting, default=1)
    return _Cut((y, x), group, p.x.size[0] * (y // group),
                (group * STEP + SIDE - STEP + lanes) * pitch)


# --- the convolution and the gradient for its input --------------------------------------------


def _recipe(p: _Product) -> Recipe:
    tile, element = tile_of(target(knobs.target), p.element), p.element
    cut = _cut(p, tile.lanes)
    own = not p.steady and cut.strips * cut.each <= _OWN_TILES and (
        p.rows * p.channels >= _WEIGHT)
    numbers, space = _sizes(p, cut, own)
    variant = WinogradVariant(element, p.bias, p.x.last, p.out.last, own)
    key = ("conv winograd", element.name, *variant[1:])
    planes = PLANES * (-(-p.rows // tile.width) * tile.width * p.channels + GAP)

    def run(out: Array, x: Array, w: Array, bias: Array | None) -> bool:
        kernel = service.kernel(key, lambda target: build_winograd(target, variant))
        transform = service.kernel(("winograd weight", element.name),
                                   lambda target: build_winograd_weight(target, element))
        if kernel is None or transform is None:
            return False
        weight = w = as_contiguous(w)
        if not own:
            weight = memory.empty((planes,), out.dtype)
            transform(weight, w, p.rows, p.channels, *p.weight)
        if bias is not None and bias.strides[0] != bias.itemsize:
            bias = copied(bias)
        mine = memory.empty((get_num_threads(), space), out.dtype)
        kernel(_flat(out), _flat(x), weight, bias, mine, numbers)
        return True
    return run


def _sizes(p: _Product, cut: _Cut, own: bool) -> tuple[Array, int]:
    """The kernel's numbers, and the elements that each thread needs."""
    tile = tile_of(target(knobs.target), p.element)
    most = _OWN_BLOCK if own else K_BLOCK
    block = -(-p.channels // -(-p.channels // most))
    tiles = max(_TILES, _NEAR // (PLANES * (p.rows + p.channels)))
    strips = cut.strips if own else max(1, min(tiles // cut.each, cut.strips))
    rows = share(p.rows, tile.width, min(
        _TASKS * strips // cut.strips, p.rows // (64 if own else 128)))
    tile_step = _spaced(p.channels, tile.lanes)
    plane_step = strips * cut.each * tile_step + GAP
    names = ("weight_row", "weight_column", "weight_tap", "weight_start")
    numbers = cut.numbers(
        p, tile.lanes, strips=strips, task_rows=rows, tile_step=tile_step, plane_step=plane_step,
        block=block, strip=cut.space, **dict(zip(names, p.weight, strict=True)))
    weight = own * (block * tile.width + GAP)
    return numbers, PLANES * (plane_step + strips * cut.each * rows + GAP + weight) + cut.space


def _spaced(channels: int, lanes: int) -> int:
    """Elements of a row of whole vectors: not a large power of two, as rows are read together."""
    size = -(-channels // lanes) * lanes
    return size + lanes if size % 128 == 0 else size


# --- the gradient for the weight ---------------------------------------------------------------


class _Gradient:
    """Some strips at a time are transformed, multiplied and summed, for some rows at a time."""

    def __init__(self, p: _Product) -> None:
        self.p, tile = p, tile_of(target(knobs.target), p.element)
        self.cut = cut = _cut(p, tile.lanes)
        rows, wide = (-(-n // tile.width) * tile.width for n in (p.rows, p.channels))
        sums = PLANES * p.rows * p.channels
        held = min(max(_HELD, sums), _MOST_HELD)
        self.strips = max(1, min(cut.strips, held // (PLANES * (rows + wide) * cut.each)))
        tiles = self.strips * cut.each
        self.held, self.panels = (PLANES, tiles * rows + GAP), (PLANES, tiles * wide + GAP)
        most = _SUMS if self.strips == cut.strips else _MOST_HELD
        some = share(p.rows, tile.rows, -(-sums // most))
        self.products = [(slice(r, min(r + some, p.rows)), Packed(
            p.element, PLANES, min(some, p.rows - r), p.channels, tiles, (1, rows),
            self.panels[1])) for r in range(0, p.rows, some)]
        each = max(1, min(_TILES // cut.each, self.strips))
        given = p._replace(x=p.out, channels=p.rows)
        self.numbers = (
            cut.numbers(p, tile.lanes, strips=each, tile_step=tile.width,
                        panel_step=tiles * tile.width, plane_step=self.panels[1]),
            cut.numbers(given, tile.lanes, strips=each, tile_step=rows, panel_step=tile.width,
                        plane_step=self.held[1]))

    def kernels(self) -> list[Any]:
        """Those for tiles of the input and of the gradient, and for the result."""
        name, element = self.p.element.name, self.p.element

        def tiles(last: bool, gradient: bool) -> Any:
            return service.kernel(("winograd tiles", name, last, gradient), lambda target:
                                  build_tiles(target, element, last, gradient))
        return [tiles(self.p.x.last, False), tiles(self.p.out.last, True), service.kernel(
            ("winograd gradient result", name), lambda target: build_gradient_result(
                target, element))]

    def run(self, gw: Array, x: Array, g: Array, _: Array | None) -> bool:
        made = self.kernels()
        if None in made:
            return False
        whole = gw if gw.flags.c_contiguous else memory.empty(gw.shape, gw.dtype)
        found, starts = None, range(0, self.cut.strips, self.strips)
        for rows, product in self.products:
            sums = memory.empty((PLANES, product.m, product.n), gw.dtype)
            for first in starts:
                if found is None or len(starts) > 1:
                    found = self.transformed(made, _flat(x), _flat(g), first)
                a, b = found
                launch = product.launch(a.shape[1])
                if not launch(sums, a.swapaxes(1, 2)[:, rows], b, None, first > 0, 1.0):
                    return False
            made[2](whole[rows], sums)
        if whole is not gw:
            copy(gw, whole)
        return True

    def transformed(self, made: list[Any], x: Array, g: Array, first: int) -> tuple[Array, Array]:
        """The tiles of the gradient (planes, tiles, rows) and of the input, from a strip on."""
        last = min(first + self.strips, self.cut.strips)
        held, panels = (memory.empty(shape, x.dtype) for shape in (self.held, self.panels))
        space = memory.empty((get_num_threads(), self.cut.space), x.dtype)
        made[0](panels, x, space, _between(self.numbers[0], first, last))
        made[1](held, g, space, _between(self.numbers[1], first, last))
        tiles, step = (last - first) * self.cut.each, self.products[0][1].a[1]
        return held[:, :tiles * step].reshape(PLANES, tiles, step), panels


def _between(numbers: Array, first: int, last: int) -> Array:
    """The numbers for some of the strips."""
    own = numbers.copy()
    own[FIELDS.index("first")], own[FIELDS.index("last")] = first, last
    return own
