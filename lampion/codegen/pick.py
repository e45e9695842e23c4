"""Kernels of the negative log likelihood: one element of every row, picked by its class.

Input (N, C, L), targets (N, L); L is 1 for plain classification. Classes are checked before
anything is read: `found[0]` tells that one is out of range.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..runtime.recording import raised
from . import service
from .ir import Kernel, Value
from .target import Target
from .types import F32, F64, I64, Type

__all__ = ["build_nll", "build_nll_backward", "nll", "nll_backward"]

Array = np.ndarray[Any, Any]

_ELEMENTS = {np.dtype(np.float32): F32, np.dtype(np.float64): F64}
_TASK = 1 << 15  # elements of the gradient that a task writes


class _Rows:
    """The parameters that both kernels share, and what one target means."""

    def __init__(self, name: str, element: Type, weighted: bool, others: str) -> None:
        k = self.k = Kernel(name)
        self.arrays = [k.array(n, element) for n in others.split()]
        self.target, self.weight = k.array("target", I64), k.array("weight", element)
        self.found = k.array("found", I64)
        self.classes, self.ignore = k.integer("classes"), k.integer("ignore")
        self.element, self.weighted = element, weighted

    def class_of(self, n: Value, i: Value) -> tuple[Value, Value, Value]:
        """(class, 0 where ignored or out of range; whether it counts; whether it is bad)."""
        k, t = self.k, self.target
        given = k.load(t.ptr, n * t.stride(0) + i * t.stride(1))
        counts = given.ne(self.ignore)
        inside = (given >= 0) & (given < self.classes)
        return k.select(counts & inside, given, 0), counts, counts & ~inside

    def share(self, place: Value, counts: Value) -> Value:
        """The weight of a target, 0 where it is ignored."""
        k = self.k
        one = (k.load(self.weight.ptr, place * self.weight.stride(0)) if self.weighted
               else k.const(1.0, self.element))
        return k.select(counts, one, k.const(0.0, self.element))

    def total_weight(self) -> Value:
        """The sum of all weights, in float64; `found` is set where a class is bad."""
        k = self.k
        outer = k.loop(0, self.target.size(0), 1, [k.const(0.0, F64), k.const(0, I64)])
        with outer as (n, total, wrong):
            inner = k.loop(0, self.target.size(1), 1, [total, wrong])
            with inner as (i, before, bad):
                place, counts, out_of_range = self.class_of(n, i)
                inner.next(before + self.share(place, counts).cast(F64),
                           bad | out_of_range.cast(I64))
            outer.next(*inner.results)
        k.store(self.found.ptr, 0, outer.results[1])
        return outer.results[0]


def build_nll(target: Target, element: Type, reduction: str, weighted: bool) -> Kernel:
    """out = -x at the targets times their weights: each (none), their sum, or over the weights.

    Arguments: out (N, L) or (1, 1), x (N, C, L), target, weight, found, classes, ignore.
    """
    rows = _Rows("nll", element, weighted, "out x")
    k, (out, x) = rows.k, rows.arrays
    total = rows.total_weight()
    outer = k.loop(0, rows.target.size(0), 1, [k.const(0.0, F64)])
    with outer as (n, start):
        inner = k.loop(0, rows.target.size(1), 1, [start])
        with inner as (i, before):
            place, counts, _ = rows.class_of(n, i)
            at = n * x.stride(0) + place * x.stride(1) + i * x.stride(2)
            loss = -k.load(x.ptr, at) * rows.share(place, counts)
            loss = k.select(counts, loss, k.const(0.0, element))
            if reduction == "none":
                k.store(out.ptr, n * out.stride(0) + i * out.stride(1), loss)
            inner.next(before + loss.cast(F64))
        outer.next(*inner.results)
    if reduction != "none":
        result = outer.results[0] / total if reduction == "mean" else outer.results[0]
        k.store(out.ptr, 0, result.cast(element))
    return k


def build_nll_backward(target: Target, element: Type, reduction: str, weighted: bool) -> Kernel:
    """dx = zeros, but minus grad times the weight at the targets (mean: over all weights).

    Arguments: dx (N, C, L) contiguous, grad (N, L) or (1, 1), target, weight, found, classes,
    ignore, rows of a task.
    """
    rows = _Rows("nll_backward", element, weighted, "dx grad")
    share = rows.k.integer("share")
    k, (dx, grad) = rows.k, rows.arrays
    total = rows.total_weight()
    count, plane = rows.target.size(0), rows.classes * rows.target.size(1)
    lanes = target.lanes(element)
    each = reduction == "none"
    with (k.parallel((count + share - 1) / share) as (task, _),
          k.loop(task * share, k.min(task * share + share, count)) as n):
        start = k.offset(dx.ptr, n * plane)
        _clear(k, start, plane, lanes)
        with k.loop(0, rows.target.size(1)) as i:
            place, counts, _ = rows.class_of(n, i)
            g = k.load(grad.ptr, n * grad.stride(0) + i * grad.stride(1) if each else 0)
            value = -g * rows.share(place, counts)
            if reduction == "mean":
                value = value / total.cast(element)
            with k.when(counts):
                k.store(start, place * rows.target.size(1) + i, value)
    return k


def _clear(k: Kernel, start: Value, count: Value, lanes: int) -> None:
    """Zeros in `count` neighbouring elements."""
    whole = count - count % lanes
    zero = k.const(0.0, start.type.pointee)
    with k.loop(0, whole, lanes) as c:
        k.store(start, c, k.splat(zero, lanes))
    with k.loop(whole, count) as c:
        k.store(start, c, zero)


def nll(out: Array, x: Array, target: Array, weight: Array | None, reduction: str,
        ignore: int) -> bool:
    """The loss of x (N, C, L) into out, (N, L) or (1, 1); False without a kernel (yet).

    False too where a class is out of range: the caller's reference says which.
    """
    kernel = _kernel("nll", build_nll, x, weight, reduction)
    if kernel is None or target.dtype != np.int64 or x.shape[1] == 0:
        return False
    return not raised(lambda found: kernel(
        out, x, target, weight, found, x.shape[1], ignore), target, "class", x.shape[1], ignore)


def nll_backward(dx: Array, grad: Array, target: Array, weight: Array | None, reduction: str,
                 ignore: int) -> bool:
    """dx (N, C, L) from the gradient of `nll`'s result; False as there."""
    kernel = _kernel("nll_backward", build_nll_backward, dx, weight, reduction)
    if kernel is None or target.dtype != np.int64 or dx.shape[1] == 0:
        return False
    plane = max(dx.shape[1] * dx.shape[2], 1)
    rows = max(_TASK // plane, 1)
    return not raised(lambda found: kernel(
        dx, grad, target, weight, found, dx.shape[1], ignore, rows), target, "class", dx.shape[1],
        ignore)


def _kernel(name: str, build: Any, x: Array, weight: Array | None, reduction: str) -> Any:
    element = _ELEMENTS.get(x.dtype)
    if element is None:
        return None
    weighted = weight is not None
    return service.kernel((name, element.name, reduction, weighted), partial(
        build, element=element, reduction=reduction, weighted=weighted))
