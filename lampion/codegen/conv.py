"""Convolutions on ndarrays: which kernels run, with which numbers.

Layouts are PyTorch's: input (N, C, *S), weight (O, C/groups, *K), output (N, O, *L), one to three
spatial axes. Everything that follows from shapes and strides is decided once and remembered.
"""

from __future__ import annotations

from typing import Any

from ..debug.knobs import knobs
from ..runtime.recording import is_steady
from .conv_depthwise_recipe import depthwise_backward, depthwise_forward, depthwise_weight
from .conv_direct_recipe import direct_backward, direct_forward
from .conv_narrow_recipe import narrow_forward
from .conv_problem import Array, Ints, Recipe, in_rows, neighbours, problem
from .conv_recipes import backward_recipe, forward_recipe
from .conv_weight_recipe import weight_recipe
from .conv_winograd_recipe import winograd_backward, winograd_forward, winograd_weight

__all__ = ["conv_forward", "conv_grad_input", "conv_grad_weight"]


def conv_forward(out: Array, x: Array, w: Array, bias: Array | None, stride: Ints, padding: Ints,
                 dilation: Ints, groups: int) -> bool:
    """`out` = convolution of x and w, plus bias.

    out (N, O, *L), x (N, C, *S), w (O, C/groups, *K), bias (O,), of one dtype, float32 or float64;
    one to three spatial axes. ValueError where shapes or dtypes do not fit. False, and `out` as it
    was, where a kernel is being made or there is none for the case: the caller has the reference.

    >>> import numpy as np
    >>> from lampion.debug.knobs import override
    >>> x, w = np.ones((1, 1, 4), np.float32), np.ones((1, 1, 2), np.float32)
    >>> out = np.empty((1, 1, 3), np.float32)
    >>> with override(kernels="sync"):
    ...     conv_forward(out, x, w, None, (1,), (0,), (1,), 1)
    True
    >>> out.tolist()
    [[[2.0, 2.0, 2.0]]]
    """
    steady = is_steady(w)
    key = ("forward", _facts(out, x, w, bias), *map(tuple, (stride, padding, dilation)), groups,
           steady)
    recipe = _recipes.get(key)
    if recipe is None:
        p = problem(out, x, w, bias, stride, padding, dilation, groups)
        recipe = winograd_forward(p, steady)
        if recipe is None:
            p = p._replace(x_steps=in_rows(p.x, p.x_steps))
            recipe = _of_rows(depthwise_forward(p) or narrow_forward(p) or direct_forward(p)
                              or forward_recipe(p))
        _remember(key, recipe)
    return recipe(out, x, w, bias)


def conv_grad_input(gx: Array, g: Array, w: Array, bias: Array | None, stride: Ints,
                    padding: Ints, dilation: Ints, groups: int) -> bool:
    """`gx` = the gradient of `conv_forward` for x, of a gradient g for its output, plus bias.

    This is also the transposed convolution of g; bias (C,) or None. Otherwise as `conv_forward`.
    """
    key = ("input", _facts(gx, g, w, bias), *map(tuple, (stride, padding, dilation)), groups)
    recipe = _recipes.get(key)
    if recipe is None:
        p = problem(g, gx, w, None, stride, padding, dilation, groups)
        if bias is not None and (bias.shape != (gx.shape[1],) or bias.dtype != gx.dtype):
            raise ValueError(f"a bias of shape {bias.shape} and dtype {bias.dtype} for a gradient "
                             f"of shape {gx.shape} and dtype {gx.dtype}")
        p = p._replace(bias=bias is not None)
        recipe = winograd_backward(p)
        if recipe is None:
            p = p._replace(out_steps=in_rows(p.out, p.out_steps))
            recipe = _of_rows(depthwise_backward(p) or direct_backward(p) or backward_recipe(p))
        _remember(key, recipe)
    return recipe(gx, g, w, bias)


def conv_grad_weight(gw: Array, x: Array, g: Array, stride: Ints, padding: Ints, dilation: Ints,
                     groups: int) -> bool:
    """`gw` = the gradient of `conv_forward` for w, of a gradient g for its output.

    Otherwise as `conv_forward`.
    """
    key = ("weight", _facts(gw, x, g), *map(tuple, (stride, padding, dilation)), groups)
    recipe = _recipes.get(key)
    if recipe is None:
        p = problem(g, x, gw, None, stride, padding, dilation, groups)
        recipe = winograd_weight(p)
        if recipe is None:
            p = p._replace(out_steps=in_rows(p.out, p.out_steps),
                           x_steps=in_rows(p.x, p.x_steps))
            recipe = _of_rows(depthwise_weight(p) or weight_recipe(p), True)
        _remember(key, recipe)
    return recipe(gw, x, g, None)


_recipes: dict[Any, Recipe] = {}


def _facts(*arrays: Array | None) -> tuple[Any, ...]:
    return (knobs.target, *(None if a is None else (a.shape, a.strides, a.dtype) for a in arrays))


def _of_rows(recipe: Recipe, both: bool = False) -> Recipe:
    """With copies of operands whose rows are scattered: the first, or both."""
    def run(out: Array, a: Array, b: Array, bias: Array | None) -> bool:
        return recipe(out, neighbours(a), neighbours(b) if both else b, bias)
    return run


def _remember(key: Any, recipe: Recipe) -> None:
    if len(_recipes) >= 1024:  # programs whose sizes change all the time
        _recipes.clear()
    _recipes[key] = recipe
