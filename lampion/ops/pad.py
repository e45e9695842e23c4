"""Padding: a constant, or cells of the tensor itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..tensor.tensor import Tensor
from .errors import argument_type
from .families import Array
from .record import Leaf, leaf, op
from .reference import resample as reference

__all__ = ["constant_pad_nd", "pad"]

Ints = tuple[int, ...]


def _pairs(pad: Ints, ndim: int) -> list[tuple[int, int]]:
    """(before, after) of every dimension; `pad` lists the last dimension first."""
    found = [(0, 0)] * (ndim - len(pad) // 2)
    return found + [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]


def _constant_shape(input: Any, pad: Ints, value: Any) -> Any:
    pairs = _pairs(pad, len(input.shape))
    return tuple(s + a + b for s, (a, b) in zip(input.shape, pairs, strict=True)), input.dtype


@leaf(
    {"input": lambda g, pad: _constant(g, tuple(-p for p in pad), 0)},
    name="constant_pad_nd",
    node="ConstantPadNdBackward0",
    shape=_constant_shape,
    exact=True,
)
def _constant(input: Array, pad: Ints, value: Any) -> Any:
    """`value` around the tensor; negative amounts cut off."""
    shape, here, there = _windows(input.shape, pad)
    zero = value.__class__ is int and value == 0  # a float may be -0.0
    out = np.zeros(shape, input.dtype) if zero else np.full(shape, value, input.dtype)
    out[here] = input[there]
    return out


@lru_cache(256)
def _windows(shape: Ints, pad: Ints) -> tuple[Ints, tuple[slice, ...], tuple[slice, ...]]:
    """The shape of the result, where the input's elements go, and which of them."""
    padded, here, there = [], [], []
    for size, (before, after) in zip(shape, _pairs(pad, len(shape)), strict=True):
        padded.append(size + before + after)
        here.append(slice(max(before, 0), max(before, 0) + size + min(before, 0) + min(after, 0)))
        there.append(slice(max(-before, 0), size - max(-after, 0)))
    return tuple(padded), tuple(here), tuple(there)


def _own_shape(input: Any, pad: Ints, mode: str) -> Any:
    return _constant_shape(input, pad, 0)


def _own(input: Array, pad: Ints, mode: str) -> Any:
    """Cells of the tensor itself around it: reflect, replicate or circular."""
    for axis, (before, after) in enumerate(_pairs(pad, input.ndim)):
        if before or after:
            table = reference.pad_table(before, after, input.shape[axis], mode)
            input = input.take(table, axis)
    return input


@leaf(
    {"grad": lambda g, pad, mode: _OWN[mode, len(pad) // 2](g, pad, mode)},
    name="own_pad_backward",
    shape=lambda grad, pad, mode: _constant_shape(grad, tuple(-p for p in pad), 0),
)
def _own_backward(grad: Array, pad: Ints, mode: str) -> Any:
    """Adds the gradients of the padding to the cells it was copied from."""
    for axis, (before, after) in enumerate(_pairs(pad, grad.ndim)):
        if not (before or after):
            continue
        size = grad.shape[axis] - before - after
        table = reference.pad_table(before, after, size, mode)
        grad = np.moveaxis(_gathered(np.moveaxis(grad, axis, 0), table, before, after), 0, axis)
    return np.ascontiguousarray(grad)


def _gathered(grad: Array, table: Array, before: int, after: int) -> Array:
    """Adds up rows that were copied from the same one, as `table` tells."""
    cut, first = max(-before, 0), max(before, 0)
    size = len(table) - before - after
    last = first + size - cut - max(-after, 0)
    out = np.zeros((size, *grad.shape[1:]), grad.dtype)
    out[cut:cut + last - first] = grad[first:last]
    for part in (slice(0, first), slice(last, None)):
        cells = table[part]
        if len(np.unique(cells)) == len(cells):
            out[cells] += grad[part]
        elif cells.min() == cells.max():  # the edge, replicated
            out[cells[0]] += grad[part].sum(0)
        else:
            np.add.at(out, cells, grad[part])
    return out


def _own_leaf(mode: str, word: str, dims: int) -> Leaf:
    return leaf(
        {"input": lambda g, pad, mode: _own_backward(g, pad, mode)},
        name=f"{word}_pad{dims}d",
        node=f"{word.title()}Pad{dims}DBackward0",
        shape=_own_shape,
        exact=True,
    )(_own)


_WORDS = {"reflect": "reflection", "replicate": "replication", "circular": "circular"}
_OWN = {(m, d): _own_leaf(m, w, d) for m, w in _WORDS.items() for d in (1, 2, 3)}


@op("torch")
def constant_pad_nd(input: Tensor, pad: Sequence[int], value: Any = 0) -> Tensor:
    """`value` around the tensor; `pad` lists (before, after) of the last dimension first."""
    return _pad_constant(input, tuple(int(p) for p in pad), value)


def _pad_constant(input: Tensor, amounts: Ints, value: Any) -> Tensor:
    if len(amounts) // 2 > input.ndim:
        raise RuntimeError(
            "Length of pad should be no more than twice the number of dimensions of the input. Pad "
            f"length is {len(amounts)} while the input has {input.ndim} dimensions."
        )
    shape, _ = _constant_shape(input._a, amounts, value)
    for dim, size in enumerate(shape):
        if size < 0:
            before, after = _pairs(amounts, input.ndim)[dim]
            raise RuntimeError(
                f"The input size {input.shape[dim]}, plus negative padding {before} and {after} "
                f"resulted in a negative output size, which is invalid. Check dimension {dim} of "
                "your input."
            )
    out: Tensor = _constant(input, amounts, 0 if value is None else value)
    return out


@op("F")
def pad(input: Tensor, pad: Sequence[int], mode: str = "constant",
        value: float | None = None) -> Tensor:
    """Padding by `pad` = (left, right, top, bottom, ...), last dimension first.

    mode: 'constant' (with `value`), 'reflect', 'replicate', 'circular'.

    >>> import lampion as torch
    >>> torch.nn.functional.pad(torch.tensor([1., 2.]), (1, 2)).tolist()
    [0.0, 1.0, 2.0, 0.0, 0.0]
    """
    if not isinstance(input, Tensor):
        raise argument_type("pad", "input", "Tensor", input)
    amounts = tuple(int(p) for p in pad)
    if len(amounts) % 2:
        raise RuntimeError(f"Padding length must be divisible by 2, received {list(amounts)}")
    if mode == "constant":
        return _pad_constant(input, amounts, value)
    if value is not None and value != 0:
        raise ValueError(f'Padding mode "{mode}" doesn\'t take in value argument')
    if mode not in _WORDS:
        raise NotImplementedError(
            f"Unrecognised padding mode {mode}: use constant, reflect, replicate or circular"
        )
    _check_own(input, amounts, mode)
    out: Tensor = _OWN[mode, len(amounts) // 2](input, amounts, mode)
    return out


def _check_own(input: Tensor, amounts: Ints, mode: str) -> None:
    dims = len(amounts) // 2
    if dims not in (1, 2, 3) or input.ndim not in (dims + 1, dims + 2):
        raise NotImplementedError(
            f"Padding size {len(amounts)} is not supported for {input.ndim}D input tensor.\n"
            "Supported combinations for non-constant padding:\n"
            "  - 2D or 3D input: padding size = 2 (pads last dimension)\n"
            "  - 3D or 4D input: padding size = 4 (pads last 2 dimensions)\n"
            "  - 4D or 5D input: padding size = 6 (pads last 3 dimensions)"
        )
    checked = -dims if mode == "circular" else min(-dims, 1 - input.ndim)
    if 0 in input.shape[checked:]:
        raise RuntimeError(
            f"Expected {dims + 1}D or {dims + 2}D (batch mode) tensor with possibly 0 batch size "
            f"and other non-zero dimensions for input, but got: {list(input.shape)}"
        )
    padded = list(enumerate(_pairs(amounts, input.ndim)))[-dims:]
    for dim, (before, after) in padded:
        size = input.shape[dim]
        if mode == "reflect" and max(before, after) >= size:
            raise RuntimeError(
                "Argument #4: Padding size should be less than the corresponding input dimension, "
                f"but got: padding ({before}, {after}) at dimension {dim} of input "
                f"{list(input.shape)}"
            )
        if mode == "circular" and max(before, after) > size:
            raise RuntimeError(
                "Padding value causes wrapping around more than once: padding "
                f"({before}, {after}) at dimension {dim} of input {list(input.shape)}"
            )
        if size + before + after < 1:
            raise RuntimeError(
                f"input (dim {dim}: {size}) is too small. Calculated output size: "
                f"{size + before + after}"
            )
