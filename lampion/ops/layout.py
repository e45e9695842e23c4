"""How results of references lie in memory: as their kernels' do, whichever of the two serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["DENSE", "ROWS", "in_rows", "order_of", "settled"]

Array = Any

# Operators of rows, whose results are contiguous however their input lies, as PyTorch's are.
ROWS = frozenset(("softmax", "log_softmax", "native_layer_norm", "rms_norm", "native_group_norm"))

DENSE = ROWS | {"index"}  # whose results alone are


def in_rows(a: Array) -> Array:
    """The array itself, or a contiguous copy."""
    return a if a.flags.c_contiguous else np.ascontiguousarray(a)


def settled(result: Any, arrays: list[Any], in_rows: bool = False) -> Any:
    """A reference's result, or several, where a kernel would have put them.

    in_rows: the kernel writes contiguous results. Others are loop nests: a result with all axes
    of the largest dense operand lies as that does, others lie in rows. NumPy itself decides by
    all operands, which `expand` confuses, and keeps their order in reductions.
    """
    if result.__class__ is tuple:
        return tuple(settled(r, arrays, in_rows) for r in result)
    if result.__class__ is not np.ndarray:
        return result
    if in_rows:
        return np.ascontiguousarray(result) if result.ndim else result
    plain = result.flags.c_contiguous
    if plain and all(a.__class__ is not np.ndarray or a.flags.c_contiguous for a in arrays):
        return result
    order = order_of(result.shape, [a for a in arrays if a.__class__ is np.ndarray])
    made = result.transpose(order)
    if made.flags.c_contiguous:
        return result
    return np.ascontiguousarray(made).transpose(np.argsort(order))


def order_of(shape: tuple[int, ...], arrays: Sequence[Array]) -> list[int]:
    """The axes of a loop nest's result, outermost first; arrays: its operands."""
    plain = list(range(len(shape)))
    best = max(arrays, key=_walked, default=None)
    if best is None or best.shape != shape or _walked(best) < sum(
            n > 1 for n in shape) or not _is_dense(best):
        return plain
    long = [i for i in plain if shape[i] > 1]
    turned = iter(sorted(long, key=lambda i: -best.strides[i]))
    return [next(turned) if shape[i] > 1 else i for i in plain]


def _walked(a: Array) -> int:
    """Axes along which different elements lie."""
    return sum(n > 1 and s != 0 for n, s in zip(a.shape, a.strides, strict=True))


def _is_dense(a: Array) -> bool:
    """Whether elements lie side by side in some order of the axes."""
    step = a.itemsize
    for s, n in sorted((s, n) for n, s in zip(a.shape, a.strides, strict=True) if n > 1):
        if s != step:
            return False
        step *= n
    return True
