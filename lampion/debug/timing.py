"""Timed events: a timer that collects them, their averages, tables and traces."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from time import perf_counter_ns
from typing import Any

from . import INSTRUMENTS

__all__ = ["EventList", "FunctionEvent", "FunctionEventAvg", "Timer", "active"]

ACTIVE: list[Timer] = []


class FunctionEvent:
    """One timed call; times in microseconds."""

    count = 1

    def __init__(self, name: str, parent: FunctionEvent | None, input_shapes: list[Any],
                 annotation: bool) -> None:
        self.name = self.key = name
        self.cpu_parent, self.input_shapes = parent, input_shapes
        self.is_user_annotation = annotation
        self.thread = threading.get_ident()
        self.cpu_children: list[FunctionEvent] = []
        if parent is not None:
            parent.cpu_children.append(self)
        self.end_ns = self.start_ns = perf_counter_ns()

    @property
    def cpu_time_total(self) -> float:
        """From the beginning to the end."""
        return (self.end_ns - self.start_ns) / 1e3

    cpu_time = cpu_time_total

    @property
    def self_cpu_time_total(self) -> float:
        """Without the events inside."""
        return self.cpu_time_total - sum(child.cpu_time_total for child in self.cpu_children)

    def __repr__(self) -> str:
        return (f"<FunctionEvent name={self.name} cpu_time={_duration(self.cpu_time_total)} "
                f"input_shapes={self.input_shapes}>")


class FunctionEventAvg:
    """All events of one name together."""

    def __init__(self, key: str, events: Iterable[FunctionEvent]) -> None:
        chosen = list(events)
        self.key, self.count = key, len(chosen)
        self.input_shapes = chosen[0].input_shapes if chosen else []
        self.self_cpu_time_total = sum(e.self_cpu_time_total for e in chosen)
        # Of an event inside another of its name only the outer one counts.
        self.cpu_time_total = sum(e.cpu_time_total for e in chosen if not _inside_same(e))

    @property
    def cpu_time(self) -> float:
        """The mean time of a call."""
        return self.cpu_time_total / self.count if self.count else 0.0

    def __repr__(self) -> str:
        return (f"<FunctionEventAvg key={self.key} self_cpu_time="
                f"{_duration(self.self_cpu_time_total)} cpu_time={_duration(self.cpu_time)} "
                f"input_shapes={self.input_shapes}>")


def _inside_same(event: FunctionEvent) -> bool:
    outer = event.cpu_parent
    while outer is not None and outer.key != event.key:
        outer = outer.cpu_parent
    return outer is not None


class EventList(list[Any]):
    """Events or averages, with ways to show them."""

    @property
    def self_cpu_time_total(self) -> float:
        """The time of all, each moment counted once."""
        return sum(e.self_cpu_time_total for e in self)

    def key_averages(self, group_by_input_shape: bool = False, group_by_stack_n: int = 0,
                     group_by_overload_name: bool = False) -> EventList:
        """The events put together by name (and by the shapes of the inputs)."""
        groups: dict[Any, list[FunctionEvent]] = {}
        for event in self:
            key = (event.key, str(event.input_shapes) if group_by_input_shape else "")
            groups.setdefault(key, []).append(event)
        return EventList(FunctionEventAvg(key[0], events) for key, events in groups.items())

    def total_average(self) -> FunctionEventAvg:
        """All events as one."""
        return FunctionEventAvg("Total", self)

    def table(self, sort_by: str | None = None, row_limit: int = 100,
              max_src_column_width: int = 75, max_name_column_width: int = 55,
              max_shapes_column_width: int = 80, header: str | None = None,
              top_level_events_only: bool = False, time_unit: str | None = None) -> str:
        """A table of the entries, the greatest `sort_by` first, as PyTorch prints it."""
        chosen = [e for e in self if not top_level_events_only
                  or getattr(e, "cpu_parent", None) is None]
        if sort_by is not None:
            chosen.sort(key=lambda e: getattr(e, _column(sort_by)), reverse=True)
        total = self.self_cpu_time_total
        rows = [_row(e, total, max_name_column_width) for e in chosen[:max(row_limit, 0) or None]]
        if any(e.input_shapes for e in chosen):
            for row, e in zip(rows, chosen):
                row.append(str(e.input_shapes)[:max_shapes_column_width])
        lines = _aligned([*_COLUMNS, "Input Shapes"][:max(map(len, rows), default=7)], rows)
        return "\n".join([*([header] if header else []), *lines,
                          f"Self CPU time total: {_duration(total)}", ""])

    def export_chrome_trace(self, path: str) -> None:
        """Writes the events as JSON that chrome://tracing and Perfetto show (`.gz`: packed)."""
        import gzip
        import json

        trace = [{"ph": "X", "cat": "user_annotation" if e.is_user_annotation else "cpu_op",
                  "name": e.name, "pid": os.getpid(), "tid": e.thread, "ts": e.start_ns / 1e3,
                  "dur": e.cpu_time_total, "args": {"Input Dims": e.input_shapes}} for e in self]
        with (gzip.open if path.endswith(".gz") else open)(path, "wt", encoding="utf-8") as file:
            json.dump({"schemaVersion": 1, "displayTimeUnit": "ms", "traceEvents": trace}, file)

    def __str__(self) -> str:
        return self.table()


_COLUMNS = ["Name", "Self CPU %", "Self CPU", "CPU total %", "CPU total", "CPU time avg",
            "# of Calls"]
_SORTABLE = ("cpu_time", "cpu_time_total", "self_cpu_time_total", "count")


def _column(sort_by: str) -> str:
    if sort_by not in _SORTABLE:
        raise AttributeError(f"cannot sort by {sort_by!r}: the columns are {', '.join(_SORTABLE)}")
    return sort_by


def _row(event: Any, total: float, width: int) -> list[str]:
    name = event.key if len(event.key) <= width else event.key[:width - 3] + "..."
    shares = [f"{100 * t / total if total else 0:.2f}%" for t in (
        event.self_cpu_time_total, event.cpu_time_total)]
    return [name, shares[0], _duration(event.self_cpu_time_total), shares[1],
            _duration(event.cpu_time_total), _duration(event.cpu_time), str(event.count)]


def _aligned(titles: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(12, *(len(cell) for cell in column)) for column in zip(titles, *rows)]
    rule = "  ".join("-" * w for w in widths)
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths)) for row in [titles, *rows]]
    return [rule, lines[0], rule, *lines[1:], rule]


def _duration(us: float) -> str:
    if us >= 1e6:
        return f"{us / 1e6:.3f}s"
    return f"{us / 1e3:.3f}ms" if us >= 1e3 else f"{us:.3f}us"


class Timer:
    """Collects events from `start` to `stop`, of all threads."""

    def __init__(self, record_shapes: bool = False) -> None:
        self.events = EventList()
        self.record_shapes = record_shapes
        self._local = threading.local()
        self._undo: list[Callable[[], None]] = []

    def start(self) -> None:
        """From now on calls are timed; RuntimeError if another timer is active."""
        if ACTIVE:
            raise RuntimeError("Profiler is already enabled on this thread: leave the outer "
                               "profile first")
        ACTIVE.append(self)
        self._undo = [instrument(self) for instrument in INSTRUMENTS]

    def stop(self) -> None:
        """Calls run as before."""
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()
        if self in ACTIVE:
            ACTIVE.remove(self)

    @property
    def current(self) -> FunctionEvent | None:
        """The innermost open event of this thread."""
        return getattr(self._local, "event", None)

    def begin(self, name: str, args: tuple[Any, ...] = (), annotation: bool = False,
              node: Any = None) -> FunctionEvent:
        """Opens an event. node: of the history, where its `backward` is what is timed."""
        shapes = [list(getattr(a, "shape", ())) for a in args] if self.record_shapes else []
        event = FunctionEvent(name, self.current, shapes, annotation)
        self._local.event = event
        self.events.append(event)
        return event

    def end(self, event: FunctionEvent, result: Any = None) -> None:
        """Closes it. result: what the call returned."""
        event.end_ns = perf_counter_ns()
        self._local.event = event.cpu_parent

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` as one event; a call from an event of the same name is part of that."""
        def call(*args: Any, **kwargs: Any) -> Any:
            outer = self.current
            if outer is not None and outer.name == name:
                return function(*args, **kwargs)
            event, result = self.begin(name, args), None
            try:
                result = function(*args, **kwargs)
                return result
            finally:
                self.end(event, result)
        return call


def active() -> Timer | None:
    """The timer that collects now."""
    return ACTIVE[0] if ACTIVE else None
