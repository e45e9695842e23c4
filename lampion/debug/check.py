"""LAMPION_CHECK: every kernel's result beside the reference's."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np

__all__ = ["KernelMismatch", "compare", "tolerance"]

# By element type: relative, and as a share of the largest expected value. Sums are taken in
# another order than NumPy's, so the error grows with their length; these bounds hold for the
# sizes that programs use and are far below what a wrong kernel gives.
_TOLERANCE = {"float64": 1e-10, "float32": 2e-5, "float16": 4e-3, "bfloat16": 4e-2}


class KernelMismatch(AssertionError):
    """A kernel's result is not the reference's."""


def tolerance(dtype: np.dtype[Any]) -> float:
    """How far a kernel may be from the reference; 0 for integers and bools."""
    return _TOLERANCE.get(dtype.name, 0.0)


def compare(name: str, arguments: Any, attributes: Any, result: Any, expected: Any) -> None:
    """KernelMismatch, with a file that repeats it, unless both agree."""
    pairs = [(result, expected)] if not isinstance(result, tuple) else list(
        zip(result, expected, strict=True))
    for got, want in pairs:
        problem = _difference(got, np.asarray(want))
        if problem:
            place = _save(name, arguments, attributes, got, want)
            raise KernelMismatch(
                f"the kernel of {name} differs from its reference: {problem}. Arguments and both "
                f"results are in {place} (numpy.load); LAMPION_KERNELS=off runs without kernels")


def _difference(got: Any, want: Any) -> str:
    if got.shape != want.shape:
        return f"shape {got.shape}, expected {want.shape}"
    near = tolerance(got.dtype)
    with np.errstate(all="ignore"):
        a, b = (x.astype(np.float64) if near else x for x in (got, want))
        if not near:
            bad = a != b
        else:
            finite = np.isfinite(b)
            scale = np.abs(b[finite]).max(initial=0.0)
            bad = ~((np.abs(a - b) <= near * (np.abs(b) + scale)) | (a == b) | (
                np.isnan(a) & np.isnan(b)))
    if not bad.any():
        return ""
    where = tuple(int(i) for i in np.argwhere(bad)[0])
    return (f"{int(bad.sum())} of {bad.size} elements, first at {where}: got {got[where]}, "
            f"expected {want[where]}")


def _save(name: str, arguments: Any, attributes: Any, got: Any, want: Any) -> str:
    handle, place = tempfile.mkstemp(prefix=f"lampion-{name}-", suffix=".npz")
    arrays: dict[str, Any] = {f"argument{i}": a for i, a in enumerate(arguments)
                              if isinstance(a, np.ndarray)}
    with os.fdopen(handle, "wb") as file:
        np.savez(file, got=got, expected=want, attributes=repr(attributes), **arrays)
    return place
