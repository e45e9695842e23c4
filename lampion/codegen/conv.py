"""Convolutions on ndarrays: which kernels run, with which numbers.

Layouts are PyTorch's: input (N, C, *S), weight (O, C/groups, *K), output (N, O, *L), one to three
spatial axes. Everything that follows from shapes and strides is decided once and remembered.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..debug.knobs import knobs
from . import service
from .conv_kernel import PANEL_ROWS, SUM_ROWS, ConvVariant, build_conv
from .conv_pack import FIELDS
from .gemm_pack import tile_of
from .gemm_tiles import K_BLOCK, Epilogue
from .target import Target, target
from .types import F32, F64, Type

__all__ = ["conv_forward", "conv_grad_input"]

Array = np.ndarray[Any, Any]
Ints = Sequence[int]
Three = tuple[int, int, int]
Recipe = Callable[[Array, Array, Array, Array | None], bool]

_TASKS = 32  # tasks of one convolution, at most as far as its blocks allow
_TASK = 1 << 19  # multiply-adds worth a task
_ELEMENTS = {np.dtype(np.float32): F32, np.dtype(np.float64): F64}


def conv_forward(out: Array, x: Array, w: Array, bias: Array | None, stride: Ints, padding: Ints,
                 dilation: Ints, groups: int, epilogue: Epilogue | None = None) -> bool:
    """`out` = convolution of x and w, plus bias.

    out (N, O, *L), x (N, C, *S), w (O, C/groups, *K), bias (O,), of one dtype, float32 or float64;
    one to three spatial axes. ValueError where shapes or dtypes do not fit. False, and `out` as it
    was, where a kernel is being made or there is none for the case: the caller has the reference.
    """
    key = ("forward", _facts(out, x, w, bias), *map(tuple, (stride, padding, dilation)), groups,
           epilogue and epilogue.key)
    recipe = _recipes.get(key)
    if recipe is None:
        p = _problem(out, x, w, bias, stride, padding, dilation, groups, epilogue)
        recipe = _remember(key, _forward(p))
    return recipe(out, x, w, bias)


def conv_grad_input(gx: Array, g: Array, w: Array, bias: Array | None, stride: Ints,
                    padding: Ints, dilation: Ints, groups: int) -> bool:
    """`gx` = the gradient of `conv_forward` for x, of a gradient g for its output, plus bias.

    This is also the transposed convolution of g; bias (C,) or None. Otherwise as `conv_forward`.
    """
    key = ("input", _facts(gx, g, w, bias), *map(tuple, (stride, padding, dilation)), groups)
    recipe = _recipes.get(key)
    if recipe is None:
        p = _problem(g, gx, w, None, stride, padding, dilation, groups, None)
        if bias is not None and (bias.shape != (gx.shape[1],) or bias.dtype != gx.dtype):
            raise ValueError(f"a bias of shape {bias.shape} and dtype {bias.dtype} for a gradient "
                             f"of shape {gx.shape} and dtype {gx.dtype}")
        recipe = _remember(key, _backward(p._replace(bias=bias is not None)))
    return recipe(gx, g, w, bias)


_recipes: dict[Any, Recipe] = {}


def _facts(*arrays: Array | None) -> tuple[Any, ...]:
    return (knobs.target, *(None if a is None else (a.shape, a.strides, a.dtype) for a in arrays))


def _remember(key: Any, recipe: Recipe) -> Recipe:
    if len(_recipes) >= 1024:  # programs whose sizes change all the time
        _recipes.clear()
    _recipes[key] = recipe
    return recipe


# --- the problem --------------------------------------------------------------------------------


class _Problem(NamedTuple):
    """A convolution before it runs; three spatial axes, of which the first may be dummies."""

    element: Type
    out: tuple[int, ...]
    x: tuple[int, ...]
    w: tuple[int, ...]
    out_steps: tuple[int, ...]
    x_steps: tuple[int, ...]
    stride: Three
    padding: Three
    dilation: Three
    groups: int
    bias: bool
    epilogue: Epilogue | None


def _problem(out: Array, x: Array, w: Array, bias: Array | None, stride: Ints, padding: Ints,
             dilation: Ints, groups: int, epilogue: Epilogue | None) -> _Problem:
    """Everything checked; ValueError where something does not fit."""
    element = _ELEMENTS.get(out.dtype)
    arrays = [a for a in (out, x, w, bias) if a is not None]
    if element is None or any(a.dtype != out.dtype for a in arrays):
        raise ValueError(f"a convolution of dtypes {', '.join(str(a.dtype) for a in arrays)}: "
                         "expected one of float32 or float64")
    if any(s % a.itemsize for a in arrays for s in a.strides):
        raise ValueError("strides that are no multiples of the element size: copy the array first")
    axes = x.ndim - 2
    if not (1 <= axes <= 3 and out.ndim == w.ndim == x.ndim
            and len(stride) == len(padding) == len(dilation) == axes):
        raise ValueError(f"a convolution of {x.shape} by {w.shape} into {out.shape}: expected one "
                         "to three spatial axes, the same everywhere")
    p = _Problem(element, _five(out).shape, _five(x).shape, _five(w).shape, _steps(out), _steps(x),
                 _three(stride, 1), _three(padding, 0), _three(dilation, 1), groups,
                 bias is not None, epilogue)
    _check(p, bias)
    return p


def _check(p: _Problem, bias: Array | None) -> None:
    sizes = [(n + 2 * pad - d * (k - 1) - 1) // s + 1 for n, pad, d, k, s in zip(
        p.x[2:], p.padding, p.dilation, p.w[2:], p.stride, strict=True)]
    fits = (p.groups > 0 and p.w[0] % p.groups == 0 and p.x[1] == p.w[1] * p.groups
            and p.out[0] == p.x[0] and p.out[1] == p.w[0] and min(p.stride) > 0
            and min(p.dilation) > 0 and min(p.padding) >= 0 and min(p.w[2:]) > 0
            and all(0 <= n <= s for n, s in zip(p.out[2:], sizes, strict=True)))
    if not fits or (bias is not None and bias.shape != (p.w[0],)):
        raise ValueError(
            f"a convolution of {p.x} by {p.w} into {p.out} with stride {p.stride}, padding "
            f"{p.padding}, dilation {p.dilation}, {p.groups} groups: the shapes do not fit")


def _five(a: Array) -> Array:
    """With dummy spatial axes in front, three in all."""
    return a[(slice(None), slice(None), *(None,) * (5 - a.ndim))]


def _three(values: Ints, dummy: int) -> Three:
    a, b, c = (*(dummy,) * (3 - len(values)), *values)
    return a, b, c


def _steps(a: Array) -> tuple[int, ...]:
    return tuple(s // a.itemsize for s in _five(a).strides)


# --- as products --------------------------------------------------------------------------------


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
    epilogue: Epilogue | None


def _forward(p: _Problem) -> Recipe:
    """The convolution itself."""
    run = _recipe(_Product(
        p.element, p.groups, p.w[0] // p.groups, p.w[1], _three(p.w[2:], 1), p.stride, p.dilation,
        _three([-n for n in p.padding], 0), _three(p.out[2:], 1), p.out_steps, p.x, p.x_steps,
        p.bias, p.epilogue))

    def forward(out: Array, x: Array, w: Array, bias: Array | None) -> bool:
        return run(_five(out), _five(x), np.ascontiguousarray(w), bias)
    return forward


def _backward(p: _Problem) -> Recipe:
    """The gradient for the input: one convolution for each remainder by the strides.

    A position i of the input meets tap t where (i + padding - t * dilation) is a multiple of the
    stride. Positions with one remainder meet the same taps, each a fixed distance apart.
    """
    phases = [_phases(*numbers) for numbers in zip(p.stride, p.padding, p.dilation, p.w[2:],
                                                   strict=True)]
    runs = [(_slices(found, p.stride), _recipe(_phase(p, found)))
            for found in itertools.product(*phases)]

    def backward(gx: Array, g: Array, w: Array, bias: Array | None) -> bool:
        whole, given, weight = _five(gx), _five(g), _five(w)
        return all(run(whole[to], given, _rows_of_inputs(weight[taps], p.groups), bias)
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


def _phase(p: _Problem, found: Sequence[_Phase]) -> _Product:
    axes = list(zip(found, p.x[2:], p.stride, strict=True))
    to = (*p.x_steps[:2], *(step * s for step, s in zip(p.x_steps[2:], p.stride, strict=True)))
    return _Product(
        p.element, p.groups, p.w[1], p.w[0] // p.groups, _three([f.number for f in found], 1),
        (1, 1, 1), _three([f.rate for f in found], 1), _three([f.start for f in found], 1),
        _three([len(range(f.remainder, n, s)) for f, n, s in axes], 1), to, p.out, p.out_steps,
        p.bias, None)


def _rows_of_inputs(w: Array, groups: int) -> Array:
    """The weight (O, C/groups, taps) as a row for each input channel of each group."""
    o, c = w.shape[:2]
    return np.ascontiguousarray(w.reshape(groups, o // groups, c, *w.shape[2:]).swapaxes(1, 2))


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
    variant = ConvVariant(p.element, p.bias, scattered, *_pieces(p, chosen), p.epilogue)
    key = ("conv", p.element.name, *variant[1:-1], p.epilogue.key if p.epilogue else "")
    numbers = _numbers(p, scattered, chosen)

    def run(out: Array, x: Array, w: Array, bias: Array | None) -> bool:
        kernel = service.kernel(key, lambda target: build_conv(target, variant))
        if kernel is None:
            return False
        if bias is not None and bias.strides[0] != bias.itemsize:
            bias = bias.copy()
        kernel(out, x.reshape(*x.shape[:2], 1, 1, -1) if flat else x, w, bias, numbers)
        return True
    return run


def _contiguous(steps: Sequence[int], size: Sequence[int]) -> bool:
    """Whether positions are neighbours in memory."""
    expected = 1
    for step, n in zip(reversed(steps), reversed(size), strict=True):
        if n != 1 and step != expected:
            return False
        expected *= n
    return True


def _span(p: _Product) -> int:
    """How far apart two positions of one channel may lie in the output."""
    return sum(abs(step) * (n - 1) for step, n in zip(
        (p.to[0], *p.to[2:]), (p.x[0], *p.size), strict=True))


def _is_flat(p: _Product) -> bool:
    """One tap that meets each position itself: the three axes are as good as one."""
    return (p.taps == p.step == (1, 1, 1) and p.start == (0, 0, 0) and p.size == p.x[2:]
            and _contiguous(p.x_steps[2:], p.size) and _contiguous(p.to[2:], p.size))


def _is_scattered(p: _Product, lanes: int) -> bool:
    """Columns run through all images where those of one would leave many lanes empty."""
    positions = math.prod(p.size)
    wasted = -(-positions // lanes) * lanes - positions
    return not _contiguous(p.to[2:], p.size) or wasted * 10 > positions


def _pieces(p: _Product, chosen: Target) -> tuple[int, int]:
    """How windows are packed, see `Windows`: by vectors of so many pieces, or run by run."""
    lanes, row, step = tile_of(chosen, p.element).lanes, p.size[2], p.step[2]
    pieces = 1 if row % lanes == 0 else (
        lanes // row if lanes % row == 0 else (lanes - 2) // row + 2)
    by_vectors = chosen.has_masks and pieces <= 5 and step <= 2 and p.x_steps[4] == 1
    return (pieces, step) if by_vectors else (0, 1)


def _numbers(p: _Product, scattered: bool, chosen: Target) -> Array:
    """The kernel's integer array."""
    tile, images = tile_of(chosen, p.element), p.x[0]
    taps, positions = math.prod(p.taps), math.prod(p.size)
    columns, matrices = (positions * images, p.groups) if scattered else (
        positions, p.groups * images)
    work = images * p.groups * p.rows * p.channels * taps * positions
    tasks = min(_TASKS, max(1, work // _TASK))
    by_columns = min(-(-columns // tile.width), max(1, tasks // matrices))
    by_rows = max(1, min(tasks // (matrices * by_columns), p.rows // (4 * tile.rows)))
    rows = _share(p.rows, tile.rows, by_rows)
    blocks = -(-p.channels // max(1, K_BLOCK // max(taps, 1)))
    values = {"groups": p.groups, "images": images, "rows": p.rows, "channels": p.channels,
              "to_image": p.to[0], "to_row": p.to[1], "add": 0,
              "task_rows": min(rows, SUM_ROWS) if scattered else rows,
              "task_columns": _share(columns, tile.width, by_columns),
              "block": -(-p.channels // max(blocks, 1)) or 1}
    for name, three in (("taps", p.taps), ("step", p.step), ("rate", p.rate), ("start", p.start),
                        ("size", p.size), ("to", p.to[2:])):
        values |= {f"{name}{axis}": n for axis, n in enumerate(three)}
    return np.array([values[name] for name in FIELDS], np.int64)


def _share(size: int, unit: int, parts: int) -> int:
    """A multiple of `unit` that cuts `size` into about `parts`."""
    units = -(-size // unit)
    return -(-units // max(1, min(parts, units))) * unit
