"""Profiling: which operators ran, how often and for how long."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from ..debug.timing import EventList, FunctionEvent, FunctionEventAvg, Timer, active

__all__ = ["EventList", "FunctionEvent", "FunctionEventAvg", "profile", "record_function"]


class record_function:
    """Names a stretch of the program in profiles; a context manager and a decorator.

    >>> import lampion as torch
    >>> with torch.profiler.profile() as prof, torch.profiler.record_function("work"):
    ...     y = torch.ones(3) + 1
    >>> prof.key_averages()[0].key
    'work'
    """

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name, self.args = name, args
        self._open: list[Any] = []

    def __enter__(self) -> record_function:
        timer = active()
        self._open.append(timer and (timer, timer.begin(self.name, annotation=True)))
        return self

    def __exit__(self, *exc: object) -> None:
        opened = self._open.pop()
        if opened is not None:
            opened[0].end(opened[1])

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with record_function(self.name, self.args):
                return function(*args, **kwargs)
        return wrapped


class profile:
    """Times every operator in its block: `torch.profiler.profile` without schedules.

    `record_shapes` keeps the shapes of tensor arguments. Options of devices, memory, stacks and
    floating point counts are accepted and record nothing.
    """

    def __init__(self, enabled: bool = True, *, use_cuda: bool = False, use_device: Any = None,
                 record_shapes: bool = False, with_flops: bool = False,
                 profile_memory: bool = False, with_stack: bool = False,
                 with_modules: bool = False, use_kineto: bool = False, use_cpu: bool = True,
                 experimental_config: Any = None, acc_events: bool = False,
                 custom_trace_id_callback: Any = None,
                 post_processing_timeout_s: float | None = None) -> None:
        self.enabled, self.record_shapes = enabled, record_shapes
        self._timer = Timer(record_shapes)

    def __enter__(self) -> profile:
        if self.enabled:
            self._timer.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.enabled:
            self._timer.stop()

    @property
    def function_events(self) -> EventList:
        """The events, in the order in which they began."""
        return self._timer.events

    @property
    def self_cpu_time_total(self) -> float:
        """The time of all events, in microseconds."""
        return self._timer.events.self_cpu_time_total

    def key_averages(self, *args: Any, **kwargs: Any) -> EventList:
        """The events put together by name."""
        return self._timer.events.key_averages(*args, **kwargs)

    def total_average(self) -> FunctionEventAvg:
        """All events as one."""
        return self._timer.events.total_average()

    def table(self, *args: Any, **kwargs: Any) -> str:
        """A table of the events."""
        return self._timer.events.table(*args, **kwargs)

    def export_chrome_trace(self, path: str) -> None:
        """Writes the events for chrome://tracing and Perfetto."""
        self._timer.events.export_chrome_trace(path)

    def __str__(self) -> str:
        return self.table()
