"""Recipes for depthwise convolutions: one input channel, or one output channel, to a group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..debug.knobs import knobs
from ..runtime import memory
from . import service
from .conv_depthwise import build_depthwise, build_depthwise_weight
from .conv_part import PART, PART_COLUMNS, PART_FIELDS, PartVariant
from .conv_problem import Array, Problem, Recipe, five, share
from .fused import as_contiguous, copied, copy
from .target import target
from .types import Type

__all__ = ["depthwise_backward", "depthwise_forward", "depthwise_weight"]

_TASKS = 32
_MOST_TAPS = 64


def _fits(p: Problem) -> bool:
    """One channel of the input to each group, and what `_written_out` asks."""
    return p.w[1] == 1 < p.groups and _written_out(p)


def _written_out(p: Problem) -> bool:
    """Two axes, and taps that may be written out."""
    reach = max((k - 1) * d for k, d in zip(p.w[2:], p.dilation, strict=True))
    return (p.w[2] == 1 == p.x[2] == p.stride[0] == p.dilation[0]
            and p.padding[0] == 0 and math.prod(p.w[2:]) <= _MOST_TAPS and reach <= 32
            and max(p.stride) <= 4 and math.prod(p.out) > 0 < math.prod(p.x))


def _two(values: Sequence[int]) -> tuple[int, int]:
    """Of the last two axes."""
    return values[-2], values[-1]


def _lanes(element: Type, width: int) -> int:
    """Half a register does for short rows."""
    lanes = target(knobs.target).lanes(element)
    return lanes if width > lanes // 2 or lanes <= 4 else lanes // 2


def _name(v: PartVariant) -> tuple[Any, ...]:
    return (v.element.name, *v[1:])


def depthwise_forward(p: Problem) -> Recipe | None:
    """The convolution, or None where it is none of this kind."""
    if not _fits(p) or p.out_steps[4] != 1:
        return None
    taps = p.w[3] * p.w[4]
    variant = PartVariant(p.element, _two(p.w), _two(p.dilation), _two(p.stride), (1, 1),
                               _lanes(p.element, p.out[4]), p.bias)
    outs = p.w[0] // p.groups
    numbers = _numbers(variant, p.x[0], p.groups, (1, outs), p.padding[1:], p.out[3:], {
        "weight_group": outs * taps, "weight_in": 0, "weight_out": taps,
        "weight_row": p.w[4], "weight_column": 1, "weight_start": 0})
    return _recipe(variant, numbers)


def depthwise_backward(p: Problem) -> Recipe | None:
    """The gradient for the input likewise: taps in reverse, over the gradient spread by steps."""
    if not _fits(p) or p.x_steps[4] != 1 or any(
            pad > (k - 1) * d for pad, k, d in zip(p.padding, p.w[2:], p.dilation, strict=True)):
        return None
    taps, outs = p.w[3] * p.w[4], p.w[0] // p.groups
    padding = [(k - 1) * d - pad for k, d, pad in zip(p.w[3:], p.dilation[1:], p.padding[1:],
                                                      strict=True)]
    variant = PartVariant(p.element, _two(p.w), _two(p.dilation), (1, 1), _two(p.stride),
                               _lanes(p.element, p.x[4]), p.bias)
    numbers = _numbers(variant, p.x[0], p.groups, (outs, 1), padding, p.x[3:], {
        "weight_group": outs * taps, "weight_in": taps, "weight_out": 0,
        "weight_row": -p.w[4], "weight_column": -1, "weight_start": taps - 1})
    return _recipe(variant, numbers)


def _recipe(variant: PartVariant, numbers: Array) -> Recipe:
    key = ("conv depthwise", *_name(variant))

    def run(out: Array, x: Array, w: Array, bias: Array | None) -> bool:
        kernel = service.kernel(key, lambda target: build_depthwise(target, variant))
        if kernel is None:
            return False
        if bias is not None and bias.strides[0] != bias.itemsize:
            bias = copied(bias)
        kernel(five(out), five(x), as_contiguous(w), bias, numbers)
        return True
    return run


def depthwise_weight(p: Problem) -> Recipe | None:
    """The gradient for the weight, or None where it is none of this kind.

    Of few channels too, where a register would not be filled by output channels.
    """
    few = p.groups == 1 and p.w[0] <= 8 and p.w[1] <= 4 and _written_out(p)
    if not few and not _fits(p):
        return None
    variant = PartVariant(p.element, _two(p.w), _two(p.dilation), _two(p.stride), (1, 1),
                               _lanes(p.element, p.out[4]))
    key = ("conv depthwise weight", *_name(variant))
    planes = p.w[0] * p.w[1]
    groups, outs = (planes, 1) if few else (p.groups, p.w[0] // p.groups)
    numbers = _numbers(variant, p.x[0], groups, (p.x[1], outs), p.padding[1:], p.out[3:],
                       {"weight_in": p.w[1]}, planes)

    def run(gw: Array, x: Array, g: Array, _: Array | None) -> bool:
        kernel = service.kernel(key, lambda target: build_depthwise_weight(target, variant))
        if kernel is None:
            return False
        whole = gw if gw.flags.c_contiguous else memory.empty(gw.shape, gw.dtype)
        kernel(whole, five(x), five(g), numbers)
        if whole is not gw:
            copy(gw, whole)
        return True
    return run


def _numbers(v: PartVariant, images: int, groups: int, channels: tuple[int, int],
             padding: Any, size: Any, weight: dict[str, int], planes: int = 0) -> Array:
    """The kernel's integer array; size: of the output, planes: what tasks divide."""
    columns = 2 * min(size[1], PART_COLUMNS)
    rows = 0
    while rows < v.together:  # long reaches leave less room for columns
        columns = -(-columns // 2)
        phase = share(columns + (v.taps[1] - 1) * v.rate[1] // v.step[1], v.lanes, 1)
        rows = (PART // (phase * v.step[1]) - 1 - (v.taps[0] - 1) * v.rate[0]) // v.step[0] + 1
        rows -= rows % v.together
    planes = planes or images * groups
    part_rows = min(size[0], rows)
    each = ((part_rows - 1) * v.step[0] + (v.taps[0] - 1) * v.rate[0] + 1
            + v.together * v.step[0]) * phase * v.step[1]
    values = dict.fromkeys(PART_FIELDS, 0) | weight | {
        "images": images, "groups": groups, "ins": channels[0], "outs": channels[1],
        "padding0": padding[0], "padding1": padding[1], "part_rows": part_rows,
        "part_columns": columns, "phase": phase,
        "together": max(1, min(8, PART // each)), "task_planes": share(planes, 1, _TASKS)}
    return np.array([values[name] for name in PART_FIELDS], np.int64)
