"""Recipes for convolutions of few channels, by the kernel of `conv_direct.py`."""

from __future__ import annotations

import math

import numpy as np

from ..debug.knobs import knobs
from . import service
from .conv_direct import WINDOW_ROWS, build_direct
from .conv_narrow_recipe import narrow_forward
from .conv_part import PART, PART_COLUMNS, PART_FIELDS, PartVariant
from .conv_problem import Array, Problem, Recipe, five, rows_of_inputs, share, three
from .fused import as_contiguous, copied
from .target import target

__all__ = ["direct_backward", "direct_forward"]

_FEW = 64  # output channels of a group


def direct_forward(p: Problem) -> Recipe | None:
    """The convolution, or None where it is none of this kind."""
    chosen = target(knobs.target)
    taps = p.w[3] * p.w[4]
    if not (chosen.has_masks and p.w[2] == p.x[2] == p.stride[0] == p.dilation[0] == 1
            and p.padding[0] == 0 and p.w[0] // p.groups <= _FEW and p.w[1] * taps <= WINDOW_ROWS
            and max(p.stride) <= 2 and p.out_steps[4] == 1 == p.x_steps[4]
            and math.prod(p.out) > 0 < math.prod(p.w)):
        return None
    lanes = chosen.lanes(p.element)
    full = p.out[4] * 5 >= share(p.out[4], lanes, 1) * 4  # hardly a lane is empty
    if taps == 1 or not (full or p.w[0] // p.groups <= 16):
        return None
    stacked = p.out[4] <= lanes
    variant = PartVariant(p.element, (p.w[3], p.w[4]), (p.dilation[1], p.dilation[2]),
                          (p.stride[1], p.stride[2]), (1, 1), lanes, p.bias)
    numbers = _numbers(p, variant)
    outs = p.w[0] // p.groups
    most = outs if outs < 4 else _FEW
    return None if numbers is None else _recipe(variant, stacked, most, numbers)


def direct_backward(p: Problem) -> Recipe | None:
    """The gradient for the input likewise, without a stride: taps in reverse, over the gradient."""
    padding = tuple((k - 1) * d - pad for k, d, pad in zip(p.w[2:], p.dilation, p.padding,
                                                           strict=True))
    if max(p.stride) > 1 or min(padding) < 0 or not math.prod(p.out):
        return None
    channels = (p.w[1] * p.groups, p.w[0] // p.groups)
    turned = p._replace(out=p.x, x=p.out, w=(*channels, *p.w[2:]), out_steps=p.x_steps,
                        x_steps=p.out_steps, padding=three(padding, 0))
    inner = narrow_forward(turned) or direct_forward(turned)
    if inner is None:
        return None
    launch = inner

    def run(gx: Array, g: Array, w: Array, bias: Array | None) -> bool:
        return launch(gx, g, rows_of_inputs(five(w)[..., ::-1, ::-1], p.groups), bias)
    return run


def _recipe(variant: PartVariant, stacked: bool, most: int, numbers: Array) -> Recipe:
    key = ("conv direct", variant.element.name, *variant[1:], stacked, most)

    def run(out: Array, x: Array, w: Array, bias: Array | None) -> bool:
        kernel = service.kernel(key, lambda target: build_direct(target, variant, stacked,
                                                                  most))
        if kernel is None:
            return False
        if bias is not None and bias.strides[0] != bias.itemsize:
            bias = copied(bias)
        kernel(five(out), five(x), as_contiguous(w), bias, numbers)
        return True
    return run


def _numbers(p: Problem, v: PartVariant) -> Array | None:
    """The kernel's integer array; None where no few rows of all channels fit the memory."""
    reach = [(k - 1) * d for k, d in zip(v.taps, v.rate, strict=True)]
    columns = min(p.out[4], PART_COLUMNS)
    phase = share(columns + reach[1] // v.step[1], v.lanes, 1)
    room = PART // (p.w[1] * phase * v.step[1])  # rows of a plane
    rows = (room - 1 - reach[0]) // v.step[0] + 1
    if rows < min(p.out[3], 4):
        return None
    values = dict.fromkeys(PART_FIELDS, 0) | {
        "images": p.x[0], "groups": p.groups, "ins": p.w[1], "outs": p.w[0] // p.groups,
        "padding0": p.padding[1], "padding1": p.padding[2], "part_columns": columns,
        "part_rows": share(p.out[3], 2, -(-p.out[3] // rows)), "phase": phase}
    if values["part_rows"] > rows:
        values["part_rows"] = rows
    return np.array([values[name] for name in PART_FIELDS], np.int64)
