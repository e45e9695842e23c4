"""Random tensors for tests."""

from __future__ import annotations

import math
from typing import Any

from .. import ops
from ..tensor import Tensor, device, dtype, float32
from ..tensor.dtype import finfo, iinfo

__all__ = ["make_tensor"]


def make_tensor(
    *shape: Any, dtype: dtype, device: str | device, low: float | None = None,
    high: float | None = None, requires_grad: bool = False, noncontiguous: bool = False,
    exclude_zero: bool = False, memory_format: Any = None,
) -> Tensor:
    """A tensor of uniform random elements in ``[low, high)``.

    Without bounds: booleans both values, uint8 ``[0, 10)``, other integers and floats
    ``[-9, 10)`` and ``[-9, 9)``. `exclude_zero` puts the smallest positive number (or 1) in place
    of zeros; `noncontiguous` spreads the last dimension. Bounds out of order raise ValueError.

    >>> import lampion as torch
    >>> torch.testing.make_tensor(3, dtype=torch.int64, device="cpu", low=4, high=5)
    tensor([4, 4, 4])
    """
    size = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    if noncontiguous and memory_format is not None:
        raise ValueError("The parameters `noncontiguous` and `memory_format` are mutually "
                         "exclusive: leave one of them out")
    if requires_grad and not (dtype.is_floating_point or dtype.is_complex):
        raise ValueError("`requires_grad=True` is not supported for boolean and integral dtypes, "
                         f"but got dtype={dtype}")
    size, spread = tuple(size), noncontiguous and math.prod(size) > 1
    drawn = (*size[:-1], 2 * size[-1]) if spread else size
    made = _random(drawn, dtype, device, *_bounds(dtype, low, high))
    if spread:
        made = made[..., 1::2]
    elif memory_format is not None:
        made = made.clone(memory_format=memory_format)
    if exclude_zero:
        made[made == 0] = _least(dtype)
    return made.requires_grad_() if requires_grad else made


def _bounds(dtype: dtype, low: float | None, high: float | None) -> tuple[float, float]:
    """The bounds asked for, within what the dtype can hold."""
    defaults, least, most = _range(dtype)
    low, high = defaults[0] if low is None else low, defaults[1] if high is None else high
    if math.isnan(low) or math.isnan(high):
        raise ValueError(f"`low` and `high` cannot be NaN, but got {low=} and {high=}")
    if low > high or (low == high and not dtype.is_floating_point):
        raise ValueError(f"`low` must be less than `high`, but got {low} >= {high}")
    low, high = min(max(low, least), most), max(min(high, most), least)
    if not dtype.is_floating_point and not dtype.is_complex:
        return math.ceil(low), math.ceil(high)
    return low, high


def _range(dtype: dtype) -> tuple[tuple[float, float], float, float]:
    """Default bounds, and the least and greatest value."""
    if dtype.is_floating_point or dtype.is_complex:
        info = finfo(dtype)
        return (-9, 9), info.min, info.max
    if dtype.name == "bool":
        return (0, 2), 0, 2
    limits = iinfo(dtype)
    return ((0, 10) if limits.min == 0 else (-9, 10)), limits.min, limits.max


def _random(size: tuple[int, ...], dtype: dtype, device: Any, low: float, high: float) -> Tensor:
    if dtype.is_complex:
        made = ops.empty(size, dtype=dtype, device=device)
        ops.view_as_real(made).uniform_(low, high)
        return made
    if not dtype.is_floating_point:
        return ops.randint(int(low), int(high), size, dtype=dtype, device=device)
    if dtype.itemsize == 1:  # drawn in float32: nothing can be drawn in 8 bits
        return ops.empty(size, device=device, dtype=float32).uniform_(low, high).to(dtype)
    return ops.empty(size, dtype=dtype, device=device).uniform_(low, high)


def _least(dtype: dtype) -> float:
    return finfo(dtype).tiny if dtype.is_floating_point or dtype.is_complex else 1
