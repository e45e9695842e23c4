"""Recipes for the gradient of a convolution for its weight."""

from __future__ import annotations

import math

import numpy as np

from ..debug.knobs import knobs
from ..runtime import memory
from ..runtime.threads import get_num_threads
from . import service
from .conv_problem import Array, Problem, Recipe, five, share
from .conv_weight import LINES, ROWS, WEIGHT_FIELDS, WeightVariant, build_weight
from .fused import as_contiguous, copy, fill
from .gemm_factors import plain
from .gemm_pack import build_pack, tile_of
from .target import target

__all__ = ["weight_recipe"]

_PACKED = 1 << 19  # elements of packed gradient at a time: they stay in a near cache
_PLANES = 1 << 17  # elements of a thread's copied planes, as far as one image allows
_POSITIONS = 1 << 11  # that are summed at a time before the sum is added to the others
_TASKS = 32


def weight_recipe(p: Problem) -> Recipe:
    """The gradient by `build_weight`, some images at a time."""
    taps = math.prod(p.w[2:])
    if not math.prod(p.w):
        return lambda *_: True
    if not math.prod(p.out):
        return _zero
    if taps > ROWS:
        return lambda *_: False
    plan = _Plan(p)
    element, variant = p.element, WeightVariant(p.element)

    def run(gw: Array, x: Array, g: Array, _: Array | None) -> bool:
        pack = service.kernel(("gemm pack", element.name, "columns", 2),
                              lambda target: build_pack(target, plain(element), "columns", 2))
        kernel = service.kernel(("conv weight", element.name),
                                lambda target: build_weight(target, variant))
        if pack is None or kernel is None:
            return False
        whole = gw if gw.flags.c_contiguous else memory.empty(gw.shape, gw.dtype)
        panels = memory.empty((plan.images * plan.packed,), gw.dtype)
        space = memory.empty((get_num_threads() * plan.space,), gw.dtype)
        given, columns = five(x), plan.columns(as_contiguous(g))
        for n in range(0, p.x[0], plan.images):
            some = slice(n, n + plan.images)
            pack(panels, columns[some], plan.positions, plan.pack_panels)
            kernel(whole, given[some], panels, space, plan.numbers(p.x[0] - n, n > 0))
        if whole is not gw:
            copy(gw, whole)
        return True
    return run


def _zero(gw: Array, *_: Array | None) -> bool:
    fill(gw, 0)
    return True


class _Plan:
    """Blocks and numbers of one gradient."""

    def __init__(self, p: Problem) -> None:
        self.p = p
        self.tile = tile_of(target(knobs.target), p.element)
        self.positions, self.taps = math.prod(p.out[2:]), math.prod(p.w[2:])
        self.group = p.w[0] // p.groups  # output channels of a group
        self.panels = -(-self.group // self.tile.width)
        self.packed = p.groups * self.panels * self.tile.width * self.positions
        self.images = max(1, min(p.x[0], _PACKED // self.packed))
        self.pack_panels = share(self.panels, 1, _TASKS // (self.images * p.groups))
        self.padded = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(
            p.out[2:], p.stride, p.w[2:], p.dilation, strict=True)]
        self._tasks()
        channels = min(p.w[1], -(-(self.rows - 1) // self.taps) + 1)
        one = channels * math.prod(self.padded)
        together = max(1, min(_POSITIONS // self.positions, _PLANES // one))
        self.together = min(self.images, together)
        self.space = one * self.together if any(p.padding) else 0

    def _tasks(self) -> None:
        """Rows and panels of a task: as many rows as share the copies of planes, then panels."""
        rows, most = self.p.w[1] * self.taps, ROWS // self.tile.rows * self.tile.rows
        wanted = -(-_TASKS // (2 * self.p.groups))
        self.rows = min(most, share(rows, self.tile.rows, min(wanted, -(-rows // 112))))
        blocks = -(-rows // self.rows)
        parts = max(1, wanted // blocks, -(-self.panels // max(1, ROWS // self.rows)))
        self.task_panels = share(self.panels, 1, parts)

    def columns(self, g: Array) -> Array:
        """The gradient of the output as (images, groups, positions, channels of a group)."""
        shape = (g.shape[0], self.p.groups, self.group, self.positions)
        return g.reshape(shape).swapaxes(2, 3)

    def numbers(self, images: int, add: bool) -> Array:
        """The kernel's integer array."""
        p, per_image = self.p, self.p.out[2] * self.p.out[3]
        lines = max(1, min(LINES, _POSITIONS // p.out[4], self.together * per_image))
        values = {"groups": p.groups, "images": min(images, self.images), "channels": p.w[1],
                  "columns": self.group, "to_row": 1, "to_column": p.w[1] * self.taps,
                  "add": int(add), "task_rows": self.rows, "task_panels": self.task_panels,
                  "together": self.together, "lines": lines, "space": self.space}
        for name, axes in (("taps", p.w[2:]), ("step", p.stride), ("rate", p.dilation),
                            ("padding", p.padding), ("size", p.out[2:]), ("padded", self.padded)):
            values |= {f"{name}{axis}": n for axis, n in enumerate(axes)}
        return np.array([values[name] for name in WEIGHT_FIELDS], np.int64)
