"""An optimizer's updates of all its parameters in one launch.

The updates are recorded as a launch stream: one native call walks a table of tensors. Where
several threads share the work, large tensors are cut into ranges, and the threads take ranges and
small tensors one by one. Every element is computed as by a launch of its own, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..debug.knobs import knobs
from ..runtime.recording import recording
from ..runtime.threads import get_num_threads
from .native import update_plan
from .optimize import Scalars, Update, flat_views, update_arrays

if TYPE_CHECKING:
    from ..runtime.stream import Group, Stream

__all__ = ["Job", "Together"]

Array = np.ndarray[Any, Any]
# What to compute with, and of every tensor the parameter, the gradient and the state.
Job = tuple[Scalars, list[list[Array]]]

_OFTEN = 4  # steps of one kind until they are recorded
_KINDS = 4  # that are kept of one optimizer's group: parameters may have gradients by turns
_LEAST, _MOST = 1 << 14, 1 << 18  # elements of a range
_RANGES = 8  # for each thread
_WAKES = 8_000_000  # bytes of all arrays that are worth waking threads for


class Together:
    """The updates of one group of parameters, step by step."""

    def __init__(self) -> None:
        self.seen: dict[Any, int] = {}
        self.streams: dict[Any, Stream] = {}

    def run(self, update: Update, jobs: Sequence[Job], negate: bool) -> None:
        """All updates: in one launch where it is known, else one by one.

        negate: the gradient is turned around (maximize).
        """
        if not self.launched(update, jobs, negate):
            for scalars, tensors in jobs:
                for arrays in tensors:
                    update_arrays(update, arrays, scalars, negate=negate)

    def launched(self, update: Update, jobs: Sequence[Job], negate: bool) -> bool:
        """Whether one launch did it."""
        if not jobs or knobs.check or knobs.kernels == "off":
            return False
        key = (update.name, negate, *[(s.key, len(tensors)) for s, tensors in jobs])
        stream = self.streams.get(key) or self.recorded(key, update, jobs, negate)
        return stream is not None and self.fits(key, stream, jobs)

    def fits(self, key: Any, stream: Stream, jobs: Sequence[Job]) -> bool:
        """Runs a stream, if the arrays are as those of its recording and share no memory."""
        inputs = [a for _, tensors in jobs for arrays in tensors for a in arrays]
        numbers = [float(x) for scalars, _ in jobs for x in scalars.raw if _is_number(x)]
        try:
            if stream.is_current:
                return stream.run_apart(inputs, numbers)
        except ValueError:  # another layout
            pass
        del self.streams[key]
        return False

    def recorded(self, key: Any, update: Update, jobs: Sequence[Job], negate: bool
                 ) -> Stream | None:
        """The stream of steps like this one, made at the fourth, the eighth, and so on."""
        if len(self.seen) > _KINDS:
            self.seen.clear()
            self.streams.clear()
        count = self.seen[key] = self.seen.get(key, 0) + 1
        if count < _OFTEN or count & (count - 1) or recording() is not None:
            return None  # of another thread: its turn may take long
        stream = _record(update, jobs, negate)
        if stream is not None:
            self.streams[key] = stream
        return stream


def _is_number(x: Any) -> bool:
    return x is not None and x.__class__ is not bool


# --- recording --------------------------------------------------------------------------------


def _record(update: Update, jobs: Sequence[Job], negate: bool) -> Stream | None:
    """The launches of all updates; None where one has no kernel, or not yet."""
    from ..codegen.stream import Recording, RecordingError

    most = _range(jobs)
    try:
        with Recording() as here:
            for scalars, tensors in jobs:
                given = [here.number(0.0) if _is_number(x) else x for x in scalars.raw]
                for arrays in tensors:
                    for part in _ranges([here.input(a) for a in arrays], most):
                        plan = update_plan(update, part, scalars, negate)
                        if plan is None or not plan(part, given):
                            return None
            return here.finish([], _arranged)
    except RecordingError:
        return None


def _range(jobs: Sequence[Job]) -> int:
    """Elements of a range, such that every thread gets several."""
    threads = get_num_threads()
    total = sum(arrays[0].size for _, tensors in jobs for arrays in tensors)
    return min(max(total // (threads * _RANGES), _LEAST), _MOST) if threads > 1 else total


def _ranges(arrays: list[Array], most: int) -> list[list[Array]]:
    """The arrays in parts of up to so many elements, those that lie in memory alike."""
    count = arrays[0].size
    flat = flat_views(arrays) if count > most else None
    if flat is None:
        return [arrays]
    step = -(-count // -(-count // most))
    step = -(-step // 64) * 64  # whole cache lines
    return [[a[start:start + step] for a in flat] for start in range(0, count, step)]


def _arranged(steps: Sequence[Any], prepared: int, results: Any
              ) -> tuple[list[int], list[Group]]:
    """All launches side by side, the longest first."""
    from ..runtime.stream import Group

    sizes = [sum(prod(site.shape) * site.dtype.itemsize for _, site in s.arrays) for s in steps]
    order = sorted(range(len(steps)), key=lambda i: -sizes[i])
    if get_num_threads() == 1:
        return list(range(len(steps))), []
    return order, [Group(0, len(steps), sum(sizes) >= _WAKES)]
