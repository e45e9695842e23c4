"""Where a program's time goes: what each line and module costs, in kernels, NumPy and Python.

An `Explainer` is a timer (`timing.py`) that adds up instead of keeping events. Every operator,
node of the history, optimizer step and batch is a frame; a frame's own time is that of the kernels
it launched, of making them, and of the rest: the NumPy reference where an operator had no kernel,
else Python. What happens between frames is the program's own Python.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter_ns
from types import CodeType, FrameType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from . import kernels
from .frames import _PACKAGE, line_of
from .timing import Timer

__all__ = ["Cost", "Explainer", "Frame", "Place"]

Place = tuple[str, int, str]  # file, line, function
NOWHERE: Place = ("", 0, "")
_LIBRARIES = tuple({p for p in (sys.prefix, sys.base_prefix) if p})
_INTERVAL = 0.002  # seconds between two looks at the program's own Python
_TRIALS = 200


class Cost:
    """Time in nanoseconds, by what it was spent on, and the launches in it."""

    __slots__ = ("backward", "calls", "kernels", "making", "numpy", "python", "runs")

    def __init__(self) -> None:
        self.calls = self.kernels = self.making = self.numpy = self.python = 0
        self.backward = 0  # of all these: of gradients
        self.runs: dict[kernels.Run, list[int]] = {}  # launches and nanoseconds

    @property
    def total(self) -> int:
        """All of it, but for making kernels."""
        return self.kernels + self.numpy + self.python

    def add(self, other: Cost) -> None:
        """Adds what another stands for."""
        for name in ("calls", "kernels", "making", "numpy", "python", "backward"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for run, (calls, ns) in other.runs.items():
            mine = self.runs.setdefault(run, [0, 0])
            mine[0] += calls
            mine[1] += ns


class Frame:
    """One call that is under way."""

    __slots__ = ("backward", "children", "cpu_parent", "inner_ns", "is_operator", "kernels_ns",
                 "making_ns", "module", "name", "place", "runs", "size", "start_ns")

    def __init__(self, name: str, parent: Frame | None) -> None:
        self.name, self.cpu_parent = name, parent
        self.children = self.inner_ns = self.kernels_ns = self.making_ns = self.size = 0
        self.runs: list[tuple[kernels.Run, int]] = []
        self.is_operator = name.startswith("aten::")
        self.backward = False
        self.place, self.module = NOWHERE, ""
        self.start_ns = 0


class Explainer(Timer):
    """Adds up the frames of the main thread by line, module and operator.

    why: says why an operator of this name and size ran on NumPy; None for one that has nothing to
    compute.
    """

    def __init__(self, why: Callable[[str, int], str | None]) -> None:
        super().__init__()
        self.why = why
        self.by_line: dict[Place, Cost] = {}
        self.by_module: dict[str, Cost] = {}
        self.by_operator: dict[tuple[str, str], Cost] = {}  # those on NumPy, with the reason
        self.by_frame: dict[str, Cost] = {}  # frames that are no operators
        self.module = ""  # the path of the module whose forward runs
        self.kinds: dict[str, str] = {}  # of modules, by path
        self.frames = 0
        self.wall_ns = 0
        self._innermost: Frame | None = None
        self._origins: WeakKeyDictionary[Any, tuple[Place, str]] = WeakKeyDictionary()
        self._journal: list[tuple[kernels.Run | None, int]] = []
        self._samples: list[Place] = []
        self._last_ns = self._start_ns = self._inside_ns = self._around_ns = 0
        self._thread = threading.get_ident()
        self._lines: dict[tuple[CodeType, int], Place] = {}

    # --- beginning and ending -----------------------------------------------------------------

    def start(self) -> None:
        self._calibrate()
        kernels.JOURNAL.append(self._journal)
        super().start()
        self._last_ns = self._start_ns = perf_counter_ns()

    def stop(self) -> None:
        self._between(perf_counter_ns(), NOWHERE)
        self.wall_ns = perf_counter_ns() - self._start_ns
        super().stop()
        kernels.JOURNAL.remove(self._journal)

    def _calibrate(self) -> None:
        """What a frame costs: within the time that it notes, and around it."""
        outer = self.begin("outer")
        start = perf_counter_ns()
        for _ in range(_TRIALS):
            self.end(self.begin("inner"))
        both = (perf_counter_ns() - start) // _TRIALS
        self.end(outer)
        self._inside_ns = self.by_frame["inner"].python // _TRIALS
        self._around_ns = both - self._inside_ns
        self.frames = 0
        for table in (self.by_line, self.by_module, self.by_frame):
            table.clear()  # type: ignore[attr-defined]

    @property
    def overhead_ns(self) -> int:
        """What explaining cost; the tables do not contain it."""
        return self.frames * (self._inside_ns + self._around_ns)

    @property
    def current(self) -> Any:
        return self._innermost if threading.get_ident() == self._thread else None

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Looks every few milliseconds which line of the program runs."""
        def look(number: int, frame: FrameType | None) -> None:
            if self._innermost is None:
                self._samples.append(self._place(frame))
        before = signal.signal(signal.SIGALRM, look)
        signal.setitimer(signal.ITIMER_REAL, _INTERVAL, _INTERVAL)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    # --- frames -------------------------------------------------------------------------------

    def begin(self, name: str, args: tuple[Any, ...] = (), annotation: bool = False,
              node: Any = None) -> Any:
        """Opens a frame; node: of the history, whose gradients are computed in it."""
        if threading.get_ident() != self._thread or kernels.is_planning():
            return None
        outer = self._innermost
        self._settle(outer)
        frame = Frame(name, outer)
        self.frames += 1
        self._find(frame, outer, node)
        frame.size = _size(args)
        self._innermost = frame
        frame.start_ns = now = perf_counter_ns()
        if outer is None:
            self._between(now, frame.place)
        else:
            outer.children += 1
        return frame

    def _find(self, frame: Frame, outer: Frame | None, node: Any) -> None:
        """The line and module that a frame belongs to: for gradients those of the forward."""
        if node is not None and node in self._origins:
            frame.place, frame.module = self._origins[node]
        elif outer is not None:
            frame.place, frame.module = outer.place, outer.module or self.module
        else:
            frame.place, frame.module = self._place(sys._getframe(2)), self.module
        frame.backward = node is not None or (outer is not None and outer.backward)

    def end(self, event: Any, result: Any = None) -> None:
        """Closes a frame."""
        if event is None:
            return
        self._settle(event)
        outer = event.cpu_parent
        self._innermost = outer
        self._note_nodes(event, result)
        now = perf_counter_ns()
        total = now - event.start_ns
        if outer is not None:
            outer.inner_ns += total
        else:
            self._last_ns = now
        rest = total - event.inner_ns - event.kernels_ns - event.making_ns
        self._add(event, max(rest - self._inside_ns - event.children * self._around_ns, 0))

    def _settle(self, frame: Frame | None) -> None:
        """The launches since the last look belong to this frame."""
        if frame is not None:
            for run, ns in self._journal:
                if run is None:
                    frame.making_ns += ns
                else:
                    frame.kernels_ns += ns
                    frame.runs.append((run, ns))
        self._journal.clear()

    def _note_nodes(self, frame: Frame, result: Any) -> None:
        for t in result if result.__class__ is tuple else (result,):
            node = getattr(t, "_fn", None)
            if node is not None and node not in self._origins:
                self._origins[node] = (frame.place, frame.module)

    def _add(self, frame: Frame, rest: int) -> None:
        """Adds a frame's own time to the tables."""
        cost = Cost()
        cost.calls, cost.kernels, cost.making = 1, frame.kernels_ns, frame.making_ns
        for run, ns in frame.runs:
            entry = cost.runs.setdefault(run, [0, 0])
            entry[0] += 1
            entry[1] += ns
        why = None
        if not (frame.runs or frame.children):
            why = self.why(frame.name.removeprefix("aten::"), frame.size)
        if why is None:
            cost.python = rest
        else:
            cost.numpy = rest
            _table(self.by_operator, (frame.name.removeprefix("aten::"), why)).add(cost)
        cost.backward = cost.total if frame.backward else 0
        if not frame.is_operator:
            _table(self.by_frame, frame.name).add(cost)
        _table(self.by_line, frame.place).add(cost)
        _table(self.by_module, frame.module).add(cost)

    # --- between frames -----------------------------------------------------------------------

    def _between(self, now: int, place: Place) -> None:
        """The program's own Python since the last frame: where it was seen, or the next line."""
        ns = max(now - self._last_ns - self._around_ns, 0)
        seen = self._samples or [place]
        for where in seen:
            cost = _table(self.by_line, where)
            cost.python += ns // len(seen)
        _table(self.by_module, self.module).python += ns
        self._samples.clear()

    def _place(self, frame: FrameType | None) -> Place:
        """The program's line that a Python frame stands for, looking outward."""
        nearest: FrameType | None = None
        while frame is not None:
            file = frame.f_code.co_filename
            if not file.startswith((_PACKAGE, "<frozen")):
                nearest = nearest or frame
                if not file.startswith(_LIBRARIES):
                    return self._line(frame)
            frame = frame.f_back
        return NOWHERE if nearest is None else self._line(nearest)

    def _line(self, frame: FrameType) -> Place:
        key = frame.f_code, frame.f_lasti
        found = self._lines.get(key)
        if found is None:
            code, offset = key
            found = self._lines[key] = (code.co_filename, line_of(code, offset), code.co_name)
        return found


def _table(table: dict[Any, Cost], key: Any) -> Cost:
    found = table.get(key)
    if found is None:
        found = table[key] = Cost()
    return found


def _size(args: tuple[Any, ...]) -> int:
    """Elements of the largest tensor; -1 where tensors have no data: a kernel is being planned."""
    largest = 0
    for a in args:
        array = getattr(a, "_a", None)
        if isinstance(array, np.ndarray):
            largest = max(largest, array.size)
        elif array is not None:
            return -1
    return largest
