"""Images read at given places, several for each position: `grid_sample` and its gradients.

Each position has corners: places in a plane of the image (whole numbers in float64, for expressions
make no integers of floats) and their weights, (corners, N, O). A few channels share one look at
them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from . import service
from .ir import Kernel, Value
from .target import Target
from .types import F64, I64, Type, dtype_name, of_numpy

__all__ = ["build_dots", "build_read", "build_spread", "dots", "read", "spread"]

Array = np.ndarray[Any, Any]

_TOGETHER = 4  # channels
_POSITIONS = 256  # of a task that sums over the channels


class _Corners:
    """Parameters: values (N, C, O), image (N, C, S), places and weights (corners, N, O)."""

    def __init__(self, name: str, element: Type, count: int) -> None:
        self.k = k = Kernel(name)
        self.element, self.count = element, count
        self.values, self.image = k.array("values", element), k.array("image", element)
        self.places, self.weights = k.array("places", F64), k.array("weights", element)
        self.cells = self.values.size(2)

    def corner(self, array: Any, t: int, n: Value) -> Value:
        return self.k.offset(array.ptr, t * array.stride(0) + n * self.cells)

    def planes(self, array: Any, n: Value, channels: Sequence[Value]) -> list[Value]:
        return [self.k.offset(array.ptr, n * array.stride(0) + c * array.stride(1))
                for c in channels]

    def together(self, write: Callable[..., None]) -> Kernel:
        """write(position, corners, values, images) for a few channels at a time.

        Where channels are fewer, the last ones stand there again.
        """
        k, channels = self.k, self.values.size(1)
        groups = (channels + _TOGETHER - 1) / _TOGETHER
        with k.parallel(self.values.size(0) * groups) as (task, _):
            n, first = task / groups, task % groups * _TOGETHER
            listed = [first + i for i in range(_TOGETHER)]
            with k.choose(first + _TOGETHER <= channels).then:
                self.positions(n, listed, write)
            with k.when(channels < first + _TOGETHER), k.loop(first, channels) as c:
                self.positions(n, [c], write)
        return k

    def positions(self, n: Value, channels: list[Value], write: Callable[..., None]) -> None:
        k = self.k
        values, images = (self.planes(a, n, channels) for a in (self.values, self.image))
        places = [self.corner(self.places, t, n) for t in range(self.count)]
        weights = [self.corner(self.weights, t, n) for t in range(self.count)]
        with k.loop(0, self.cells) as o:
            seen = [(k.load(p, o).cast(I64), k.load(w, o))
                    for p, w in zip(places, weights, strict=True)]
            write(o, seen, values, images)


def build_read(target: Target, element: Type, count: int) -> Kernel:
    """values[n, c, o] = sum over corners t of weights[t, n, o] * image[n, c, places[t, n, o]].

    Arguments: values, image, places (float64), weights, all contiguous.
    """
    corners = _Corners("sample_read", element, count)
    k = corners.k

    def write(o: Value, seen: Any, values: list[Value], images: list[Value]) -> None:
        for value, image in zip(values, images, strict=True):
            total = k.const(0.0, element)
            for place, weight in seen:
                total = k.fma(weight, k.load(image, place), total)
            k.store(value, o, total)
    return corners.together(write)


def build_spread(target: Target, element: Type, count: int) -> Kernel:
    """image[n, c, places[t, n, o]] += weights[t, n, o] * values[n, c, o].

    Arguments as `build_read`.
    """
    corners = _Corners("sample_spread", element, count)
    k = corners.k

    def write(o: Value, seen: Any, values: list[Value], images: list[Value]) -> None:
        for value, image in zip(values, images, strict=True):
            given = k.load(value, o)
            for place, weight in seen:
                k.store(image, place, k.fma(weight, given, k.load(image, place)))
    return corners.together(write)


def build_dots(target: Target, element: Type, count: int) -> Kernel:
    """weights[t, n, o] = sum over c of image[n, c, places[t, n, o]] * values[n, c, o].

    Arguments as `build_read`.
    """
    corners = _Corners("sample_dots", element, count)
    k, cells = corners.k, corners.cells
    parts = (cells + _POSITIONS - 1) / _POSITIONS
    with k.parallel(corners.values.size(0) * parts) as (task, _):
        n, first = task / parts, task % parts * _POSITIONS
        with k.loop(first, k.min(first + _POSITIONS, cells)) as o:
            places = [k.load(corners.corner(corners.places, t, n), o).cast(I64)
                      for t in range(count)]
            loop = k.loop(0, corners.values.size(1), 1, [k.const(0.0, element)] * count)
            with loop as (c, *totals):
                (value,), (image,) = (corners.planes(a, n, [c])
                                      for a in (corners.values, corners.image))
                given = k.load(value, o)
                loop.next(*[k.fma(given, k.load(image, place), total)
                            for place, total in zip(places, totals, strict=True)])
            for t, total in enumerate(loop.results):
                k.store(corners.corner(corners.weights, t, n), o, total)
    return k


# --- launchers --------------------------------------------------------------------------------


def read(values: Array, image: Array, places: Array, weights: Array) -> bool:
    """As `build_read`; False without a kernel (yet).

    values (N, C, O), image (N, C, S), places (float64) and weights (corners, N, O), contiguous.
    ValueError where they do not fit. The caller answers for places within [0, S).
    """
    return _run("sample_read", build_read, values, image, places, weights)


def spread(image: Array, values: Array, places: Array, weights: Array) -> bool:
    """Adds as `build_spread`; False without a kernel (yet). Arguments as in `read`."""
    return _run("sample_spread", build_spread, values, image, places, weights)


def dots(weights: Array, values: Array, image: Array, places: Array) -> bool:
    """As `build_dots`; False without a kernel (yet). Arguments as in `read`."""
    return _run("sample_dots", build_dots, values, image, places, weights)


def _run(name: str, build: Callable[..., Kernel], *arrays: Array) -> bool:
    values, image, places, weights = arrays
    if (values.shape[:2] != image.shape[:2] or places.shape != weights.shape
            or places.shape[1:] != (values.shape[0], values.shape[2]) or places.dtype != np.float64
            or not values.dtype == image.dtype == weights.dtype):
        raise ValueError(f"{name}: {places.shape} places do not fit {values.shape} of "
                         f"{image.shape}")
    if dtype_name(values.dtype) not in ("float32", "float64") or not all(
            a.flags.c_contiguous for a in arrays) or not math.prod(image.shape):
        return False
    element, count = of_numpy(dtype_name(values.dtype)), len(places)
    kernel = service.kernel((name, element.name, count),
                            partial(build, element=element, count=count))
    if kernel is None:
        return False
    kernel(*arrays)
    return True
