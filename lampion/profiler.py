"""torch.profiler: where the time of a program goes, operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

from .autograd.profiler import record_function
from .debug.timing import EventList, Timer

__all__ = ["ProfilerAction", "ProfilerActivity", "kineto_available", "profile", "record_function",
           "schedule", "supported_activities", "tensorboard_trace_handler"]


class ProfilerActivity(Enum):
    """Kinds of work that can be profiled; only CPU is."""

    CPU = 0
    XPU = 1
    MTIA = 2
    CUDA = 3
    HPU = 4
    PrivateUse1 = 5


class ProfilerAction(Enum):
    """What a profiler does in a step."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


def supported_activities() -> set[ProfilerActivity]:
    """The activities that are recorded."""
    return {ProfilerActivity.CPU}


def kineto_available() -> bool:
    """Whether PyTorch's tracing library is there: no, operators are timed by lampion itself."""
    return False


def schedule(*, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0,
             skip_first_wait: int = 0) -> Callable[[int], ProfilerAction]:
    """Which steps a profiler records: `wait` idle, `warmup`, `active` recorded, `repeat` times.

    >>> import lampion as torch
    >>> plan = torch.profiler.schedule(wait=1, warmup=0, active=1)
    >>> [plan(i).name for i in range(3)]
    ['NONE', 'RECORD_AND_SAVE', 'NONE']
    """
    if min(wait, warmup, repeat, skip_first) < 0 or active <= 0:
        raise ValueError(f"Invalid profiler schedule arguments: {wait=}, {warmup=}, {active=}, "
                         f"{repeat=}, {skip_first=}: active must be positive, the others not "
                         "negative")

    def action(step: int) -> ProfilerAction:
        if step < 0:
            raise ValueError(f"Step must be non-negative. Got {step}.")
        step -= skip_first
        if skip_first_wait:
            step += wait
        cycle = wait + warmup + active
        if step < (wait if skip_first_wait else 0) or (repeat > 0 and step // cycle >= repeat):
            return ProfilerAction.NONE
        place = step % cycle
        if place < wait:
            return ProfilerAction.NONE
        if place < wait + warmup:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD if place < cycle - 1 else ProfilerAction.RECORD_AND_SAVE
    return action


def tensorboard_trace_handler(dir_name: str, worker_name: str | None = None,
                              use_gzip: bool = False,
                              use_python_export: bool = False) -> Callable[[profile], None]:
    """For `on_trace_ready`: writes each trace into `dir_name`, where TensorBoard looks for it."""
    import os
    import socket
    import time

    def save(prof: profile) -> None:
        os.makedirs(dir_name, exist_ok=True)
        worker = worker_name or f"{socket.gethostname()}_{os.getpid()}"
        ending = "json.gz" if use_gzip else "json"
        name = f"{worker}.{time.time_ns()}.pt.trace.{ending}"
        prof.export_chrome_trace(os.path.join(dir_name, name))
    return save


_RECORDING = (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)


class profile:
    """Times every operator in its block, or in the steps that `schedule` names.

    With a schedule call `step()` after every step; `on_trace_ready(prof)` gets each finished
    stretch. `record_shapes` keeps the shapes of tensor arguments. Options of devices, memory,
    stacks and floating point counts are accepted and record nothing. Nothing is slower outside.

    >>> import lampion as torch
    >>> with torch.profiler.profile() as prof:
    ...     y = torch.ones(3) + 1
    >>> [event.key for event in prof.events()]
    ['aten::ones', 'aten::add']
    """

    def __init__(self, *, activities: Iterable[Any] | None = None,
                 schedule: Callable[[int], ProfilerAction] | None = None,
                 on_trace_ready: Callable[..., Any] | None = None, record_shapes: bool = False,
                 profile_memory: bool = False, with_stack: bool = False, with_flops: bool = False,
                 with_modules: bool = False, experimental_config: Any = None,
                 execution_trace_observer: Any = None, acc_events: bool = False,
                 use_cuda: bool | None = None, custom_trace_id_callback: Any = None,
                 post_processing_timeout_s: float | None = None) -> None:
        self.schedule = schedule or (lambda step: ProfilerAction.RECORD)
        self._in_steps = schedule is not None
        self.on_trace_ready, self.record_shapes = on_trace_ready, record_shapes
        self.acc_events, self.step_num = acc_events, 0
        self.current_action = self.schedule(0)
        self._metadata: dict[str, str] = {}
        self._timer: Timer | None = None
        self._events = EventList()
        self._step: Any = None

    # --- beginning and ending -------------------------------------------------------------------

    def start(self) -> None:
        """As entering the block."""
        self._enter_step()

    def stop(self) -> None:
        """As leaving the block."""
        if self._timer is not None:
            self._finish()
            self._hand_over()

    def __enter__(self) -> profile:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def step(self) -> None:
        """The next step of the schedule begins."""
        saved = self.current_action is ProfilerAction.RECORD_AND_SAVE
        self._leave_step()
        self.step_num += 1
        self.current_action = self.schedule(self.step_num)
        if self._timer is not None and (saved or self.current_action not in _RECORDING):
            self._finish()
            self._hand_over()
        self._enter_step()

    def _enter_step(self) -> None:
        if self.current_action not in _RECORDING:
            return
        if self._timer is None:
            self._timer = Timer(self.record_shapes)
            self._timer.start()
        if self._in_steps:
            self._step = self._timer.begin(f"ProfilerStep#{self.step_num}", annotation=True)

    def _leave_step(self) -> None:
        if self._step is not None and self._timer is not None:
            self._timer.end(self._step)
        self._step = None

    def _finish(self) -> None:
        assert self._timer is not None
        self._leave_step()
        self._timer.stop()
        kept = self._events if self.acc_events else []
        self._events = EventList([*kept, *self._timer.events])
        self._timer = None

    def _hand_over(self) -> None:
        if self.on_trace_ready is not None:
            self.on_trace_ready(self)

    # --- results --------------------------------------------------------------------------------

    def events(self) -> EventList:
        """The events of the last stretch, in the order in which they began."""
        return self._events if self._timer is None else self._timer.events

    def key_averages(self, group_by_input_shape: bool = False, group_by_stack_n: int = 0,
                     group_by_overload_name: bool = False) -> EventList:
        """The events put together by name; `.table(sort_by="cpu_time_total")` shows them."""
        return self.events().key_averages(group_by_input_shape, group_by_stack_n)

    def add_metadata(self, key: str, value: str) -> None:
        """Notes something about the run."""
        self._metadata[key] = value

    def add_metadata_json(self, key: str, value: str) -> None:
        """Notes something about the run, as JSON."""
        self._metadata[key] = value

    def export_chrome_trace(self, path: str) -> None:
        """Writes the events for chrome://tracing and Perfetto; compressed if named `.gz`."""
        self.events().export_chrome_trace(path)
