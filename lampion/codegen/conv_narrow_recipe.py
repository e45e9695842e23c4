"""Recipes for convolutions of narrow images, by the kernel of `conv_narrow.py`."""

from __future__ import annotations

import math

import numpy as np

from ..debug.knobs import knobs
from ..runtime import memory
from . import service
from .conv_narrow import NARROW_FIELDS, NarrowVariant, build_narrow
from .conv_problem import Array, Problem, Recipe, five, share
from .fused import as_contiguous, copied, copy
from .target import target

__all__ = ["narrow_forward"]

_LEAST = 5  # positions of a row: as many sums at a time as a multiply-add takes cycles, and more
_TAPS = 11  # along the width, at most: they are kept in registers
_ROWS = 512  # input channels times taps, at most
_TASKS = 32


def narrow_forward(p: Problem) -> Recipe | None:
    """The convolution, or None where it is none of this kind."""
    chosen = target(knobs.target)
    lanes, width = chosen.lanes(p.element), p.out[4]
    full = p.groups == 1 and p.w[0] % lanes == 0 and math.prod(p.w[1:]) <= _ROWS
    flat = p.w[2] == p.x[2] == p.stride[0] == p.dilation[0] == 1 and p.padding[0] == 0
    if not (chosen.has_masks and full and flat and _LEAST <= width < 16 and width % lanes
            and 1 < p.w[4] <= _TAPS and p.out_steps[4] == 1 and math.prod(p.out) > 0):
        return None
    variant = NarrowVariant(p.element, (p.w[3], p.w[4]), (p.dilation[1], p.dilation[2]),
                            (p.stride[1], p.stride[2]), p.padding[2], p.x[4], width, p.bias)
    rows = share(p.out[3], 1, -(-_TASKS // p.x[0]))
    values = {"images": p.x[0], "ins": p.w[1], "outs": p.w[0], "padding": p.padding[1],
              "task_rows": rows}
    return _recipe(variant, np.array([values[name] for name in NARROW_FIELDS], np.int64))


def _recipe(variant: NarrowVariant, numbers: Array) -> Recipe:
    key = ("conv narrow", variant.element.name, *variant[1:])

    def run(out: Array, x: Array, w: Array, bias: Array | None) -> bool:
        kernel = service.kernel(key, lambda target: build_narrow(target, variant))
        if kernel is None:
            return False
        if bias is not None and bias.strides[0] != bias.itemsize:
            bias = copied(bias)
        weight = memory.empty((w.size // len(w), len(w)), w.dtype)
        copy(weight, as_contiguous(w).reshape(len(w), -1).T)
        kernel(five(out), five(x), weight, bias, numbers)
        return True
    return run
