"""Recipes for convolutions and their gradients for the input, by the kernel of `conv_kernel.py`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..debug.knobs import knobs
from ..runtime import memory
from . import service
from .conv_kernel import PANEL_ROWS, SUM_ROWS, ConvVariant, build_conv
from .conv_pack import FIELDS
from .conv_problem import (
    Array,
    Problem,
    Recipe,
    Three,
    contiguous,
    five,
    rows_of_inputs,
    share,
    three,
)
from .fused import copied, copy
from .gemm_pack import tile_of
from .gemm_tiles import K_BLOCK
from .target import Target, target
from .types import Type

__all__ = ["backward_recipe", "forward_recipe"]

_TASKS = 32  # tasks of one convolution, at most as far as its blocks allow
_TASK = 1 << 19  # multiply-adds worth a task


class _Product(NamedTuple):
    """A convolution as its kernel sees it: see `FIELDS`. Steps are (image, channel, three axes)."""

    element: Type
    groups: int
    rows: int
    channels: int
    taps: Three
    step: Three
    rate: Three
    start: Three
    size: Three
    to: tuple[int, ...]
    x: tuple[int, ...]
    x_steps: tuple[int, ...]
    bias: bool


def forward_recipe(p: Problem) -> Recipe:
    """The convolution itself."""
    run = _recipe(_Product(
        p.element, p.groups, p.w[0] // p.groups, p.w[1], three(p.w[2:], 1), p.stride, p.dilation,
        three([-n for n in p.padding], 0), three(p.out[2:], 1), p.out_steps, p.x, p.x_steps,
        p.bias))

    def forward(out: Array, x: Array, w: Array, bias: Array | None) -> bool:
        return run(five(out), five(x), w, bias)
    return forward


def backward_recipe(p: Problem) -> Recipe:
    """The gradient for the input: one convolution for each remainder by the strides.

    A position i of the input meets tap t where (i + padding - t * dilation) is a multiple of the
    stride. Positions with one remainder meet the same taps, each a fixed distance apart.
    """
    phases = [_phases(*numbers) for numbers in zip(p.stride, p.padding, p.dilation, p.w[2:],
                                                   strict=True)]
    runs = [(_slices(found, p.stride), _recipe(_phase(p, found)))
            for found in itertools.product(*phases)]

    def backward(gx: Array, g: Array, w: Array, bias: Array | None) -> bool:
        whole, given, weight = five(gx), five(g), five(w)
        return all(run(whole[to], given, rows_of_inputs(weight[taps], p.groups), bias)
                   for (to, taps), run in runs)
    return backward


class _Phase(NamedTuple):
    """Positions of one remainder along one axis: the taps that they meet, and where."""

    remainder: int
    first: int  # tap
    every: int
    number: int
    rate: int
    start: int


def _phases(stride: int, padding: int, dilation: int, taps: int) -> list[_Phase]:
    common = math.gcd(stride, dilation)
    every, found = stride // common, []
    for remainder in range(stride):
        first = next((t for t in range(min(every, taps))
                      if (remainder + padding - t * dilation) % stride == 0), taps)
        start = (remainder + padding - first * dilation) // stride
        count = len(range(first, taps, every))
        found.append(_Phase(remainder, first, every, count, -dilation // common, start))
    return found


def _slices(found: Sequence[_Phase], stride: Three) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of the input's gradient, and of the weight, that belong to a phase."""
    both = (slice(None), slice(None))
    return ((*both, *(slice(f.remainder, None, s) for f, s in zip(found, stride, strict=True))),
            (*both, *(slice(f.first, None, f.every) for f in found)))


def _phase(p: Problem, found: Sequence[_Phase]) -> _Product:
    axes = list(zip(found, p.x[2:], p.stride, strict=True))
    to = (*p.x_steps[:2], *(step * s for step, s in zip(p.x_steps[2:], p.stride, strict=True)))
    return _Product(
        p.element, p.groups, p.w[1], p.w[0] // p.groups, three([f.number for f in found], 1),
        (1, 1, 1), three([f.rate for f in found], 1), three([f.start for f in found], 1),
        three([len(range(f.remainder, n, s)) for f, n, s in axes], 1), to, p.out, p.out_steps,
        p.bias)


# --- recipes ------------------------------------------------------------------------------------


def _recipe(p: _Product) -> Recipe:
    """A convolution by `build_conv`, of arrays with three spatial axes and the weight as rows."""
    if not p.x[0] * p.groups * p.rows * math.prod(p.size):
        return lambda *_: True
    if math.prod(p.taps) > PANEL_ROWS or _span(p) >= 1 << 31:
        return lambda *_: False
    flat = _is_flat(p)
    if flat:
        p = p._replace(size=(1, 1, math.prod(p.size)), to=(*p.to[:2], 0, 0, 1),
                       x=(*p.x[:2], 1, 1, math.prod(p.x[2:])), x_steps=(*p.x_steps[:2], 0, 0, 1))
    chosen = target(knobs.target)
    lanes = tile_of(chosen, p.element).lanes
    scattered = _is_scattered(p, lanes)
    pieces = _pieces(p, chosen)
    spread = scattered and chosen.has_masks and p.size[2] % lanes == 0 and p.to[4] == 2
    variant = ConvVariant(p.element, p.bias, scattered, *pieces, spread)
    key = ("conv", p.element.name, *variant[1:])
    gap = _gap(p)
    numbers = _numbers(p, scattered, chosen, gap)

    def run(out: Array, x: Array, w: Array, bias: Array | None) -> bool:
        kernel = service.kernel(key, lambda target: build_conv(target, variant))
        if kernel is None:
            return False
        if bias is not None and bias.strides[0] != bias.itemsize:
            bias = copied(bias)
        kernel(out, x.reshape(*x.shape[:2], 1, 1, -1) if flat else x,
               w if w.flags.c_contiguous and not gap else _in_rows(w, gap), bias, numbers)
        return True
    return run


def _gap(p: _Product) -> int:
    """Elements between rows of the weight: rows a whole number of pages apart would compete for the
    same few cache lines.
    """
    return 16 if p.channels * math.prod(p.taps) * p.element.size % 4096 == 0 < p.channels else 0


def _in_rows(w: Array, gap: int) -> Array:
    """The weight in rows with a gap between them; a tap at a time where it lies otherwise."""
    taps = math.prod(w.shape[2:])
    wide = memory.empty((w.shape[0], w.shape[1] * taps + gap), w.dtype)
    rows = wide[:, :w.shape[1] * taps]
    if w.flags.c_contiguous:
        copy(rows, w.reshape(rows.shape))
    else:
        each = rows.reshape(*w.shape[:2], taps, copy=False)
        for tap, at in enumerate(np.ndindex(w.shape[2:])):
            copy(each[:, :, tap], w[:, :, *at])
    return wide


def _span(p: _Product) -> int:
    """How far apart two positions of one channel may lie in the output."""
    return sum(abs(step) * (n - 1) for step, n in zip(
        (p.to[0], *p.to[2:]), (p.x[0], *p.size), strict=True))


def _is_flat(p: _Product) -> bool:
    """One tap that meets each position itself: the three axes are as good as one."""
    return (p.taps == p.step == (1, 1, 1) and p.start == (0, 0, 0) and p.size == p.x[2:]
            and contiguous(p.x_steps[2:], p.size) and contiguous(p.to[2:], p.size))


def _is_scattered(p: _Product, lanes: int) -> bool:
    """Columns run through all images where those of one would leave many lanes empty."""
    positions = math.prod(p.size)
    wasted = -(-positions // lanes) * lanes - positions
    return not contiguous(p.to[2:], p.size) or wasted * 10 > positions


def _pieces(p: _Product, chosen: Target) -> tuple[int, int]:
    """How windows are packed, see `Windows`: by vectors of so many pieces, or run by run."""
    lanes, row, step = tile_of(chosen, p.element).lanes, p.size[2], p.step[2]
    pieces = 1 if row % lanes == 0 else (
        lanes // row if lanes % row == 0 else (lanes - 2) // row + 2)
    by_vectors = chosen.has_masks and pieces <= 5 and step <= 2 and p.x_steps[4] == 1
    return (pieces, step) if by_vectors else (0, 1)


def _numbers(p: _Product, scattered: bool, chosen: Target, gap: int) -> Array:
    """The kernel's integer array."""
    tile, images = tile_of(chosen, p.element), p.x[0]
    taps, positions = math.prod(p.taps), math.prod(p.size)
    columns, matrices = (positions * images, p.groups) if scattered else (
        positions, p.groups * images)
    work = images * p.groups * p.rows * p.channels * taps * positions
    tasks = min(_TASKS, max(1, work // _TASK))
    by_columns = min(-(-columns // tile.width), max(1, tasks // matrices))
    by_rows = max(1, min(tasks // (matrices * by_columns), p.rows // (4 * tile.rows)))
    rows = share(p.rows, tile.rows, by_rows)
    blocks = -(-p.channels // max(1, K_BLOCK // max(taps, 1)))
    values = dict.fromkeys(FIELDS, 0) | {
        "groups": p.groups, "images": images, "rows": p.rows, "channels": p.channels,
        "to_image": p.to[0], "to_row": p.to[1], "weight_row": p.channels * taps + gap,
        "task_rows": min(rows, SUM_ROWS) if scattered else rows,
        "task_columns": share(columns, tile.width, by_columns),
        "block": -(-p.channels // max(blocks, 1)) or 1}
    for name, axes in (("taps", p.taps), ("step", p.step), ("rate", p.rate), ("start", p.start),
                       ("size", p.size), ("to", p.to[2:])):
        values |= {f"{name}{axis}": n for axis, n in enumerate(axes)}
    return np.array([values[name] for name in FIELDS], np.int64)
