"""NumPy functions of arrays as kernels, and the copies that launchers make of their arguments.

Small copies are NumPy's: it takes them faster than a plan is found. A recording takes kernels
alone, for what NumPy does happens only once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..runtime import memory
from ..runtime.recording import recording_here

__all__ = ["Fused", "as_contiguous", "copied", "copy", "fill", "reshaped"]

Array = Any

_MOST_PLANS = 1 << 12  # of one function; then all are made anew
_SMALL = 1 << 16  # elements that NumPy copies as quickly, if they lie in different orders
_FILLED = 1 << 18  # elements that it sets as quickly


class Fused:
    """A NumPy function of arrays and numbers, element by element, as one kernel.

    >>> import numpy as np
    >>> from lampion.codegen.fused import Fused
    >>> out = np.empty(3)
    >>> Fused(lambda a, b: (a * b,))([np.arange(3.0), 0.5], [out])
    >>> out.tolist()
    [0.0, 0.5, 1.0]
    """

    __slots__ = ("function", "launches", "name")

    def __init__(self, function: Callable[..., Sequence[Any]], name: str = "") -> None:
        self.function, self.name = function, name or function.__name__
        self.launches: dict[Any, Any] = {}

    def __call__(self, arrays: Sequence[Any], into: Sequence[Array]) -> None:
        """Writes the function's results into `into`."""
        self.run(self.plan(arrays, into), arrays, into)

    def plan(self, arrays: Sequence[Any], into: Sequence[Array]) -> Any:
        """What `run` takes for arrays of these shapes, strides and dtypes."""
        key = tuple([_facts(a) for a in (*arrays, *into)])
        plan = self.launches.get(key)
        if plan is None:
            if len(self.launches) >= _MOST_PLANS:
                self.launches.clear()
            plan = self.launches[key] = self._plan(arrays, into)
        return plan

    def run(self, plan: Any, arrays: Sequence[Any], into: Sequence[Array]) -> None:
        """A call whose plan is known."""
        if plan.run(arrays, into) is None:
            for target, value in zip(into, self.function(*arrays), strict=True):
                target[...] = value

    def _plan(self, arrays: Sequence[Any], into: Sequence[Array]) -> Any:
        from .expression import Trace
        from .plan import assemble, symbols_of

        trace = Trace()
        symbols, _ = symbols_of(trace, arrays, False, baked=False)
        roots = [r.astype(t.dtype, copy=False)
                 for r, t in zip(self.function(*symbols), into, strict=True)]
        if any(r.shape != t.shape for r, t in zip(roots, into, strict=True)):
            raise ValueError(f"{self.name}: results of shapes {[r.shape for r in roots]} into "
                             f"arrays of shapes {[t.shape for t in into]}")
        (part, _), = assemble(self.name, trace, roots, arrays, False, into=into).parts
        return part


def _facts(a: Any) -> Any:
    return (a.shape, a.strides, a.dtype.num) if isinstance(a, np.ndarray) else a.__class__


# --- copies -----------------------------------------------------------------------------------


_COPY = Fused(lambda a: (a,), "copy")
_BY_SIZE = {1: np.dtype(np.uint8), 2: np.dtype(np.uint16), 4: np.dtype(np.int32),
            8: np.dtype(np.int64)}  # a copy does not look into its elements


def copy(into: Array, a: Array) -> None:
    """`into[...] = a` of one dtype, which may be broadcast. They may not overlap."""
    if a.itemsize == 16:  # complex128
        copy(into.real, a.real)
        copy(into.imag, a.imag)
        return
    bits = _BY_SIZE.get(a.itemsize)
    if bits is None or (into.size < _SMALL and recording_here() is None) or not (
            _whole(a) and _whole(into)):
        into[...] = a
        return
    if a.shape != into.shape:
        a = np.broadcast_to(a, into.shape)
    if a.size:
        _COPY([a.view(bits)], [into.view(bits)])


def _whole(a: Array) -> bool:
    """Whether all strides are whole elements."""
    size = a.itemsize
    return not any(s % size for s in a.strides)


def copied(a: Array) -> Array:
    """A C-contiguous copy."""
    out = memory.empty(a.shape, a.dtype)
    copy(out, a)
    return out


def as_contiguous(a: Array) -> Array:
    """`a`, or a copy that is C-contiguous."""
    return a if a.flags.c_contiguous else copied(a)


def reshaped(a: Array, shape: Sequence[int]) -> Array:
    """`a.reshape(shape)`: a view where there is one, else of a copy."""
    if a.flags.c_contiguous:
        return a.reshape(shape)
    try:
        return a.reshape(shape, copy=False)
    except ValueError:
        return copied(a).reshape(shape)


def fill(out: Array, number: float) -> None:
    """`out[...] = number`."""
    if out.size < _FILLED and recording_here() is None:
        out.fill(number)
    else:
        copy(out, np.broadcast_to(np.asarray(number, out.dtype), out.shape))
