"""The kernels that ran: how often, how long, how near to what the machine can do.

LAMPION_DEBUG=1 prints a table when the program ends, 2 to 5 also every kernel's loops, schedule,
LLVM IR and assembly as it is made, 6 every launch. Kernels are watched from the moment they are
loaded or not at all, so a program that nobody watches runs the native functions themselves.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter_ns
from typing import Any, Protocol

import numpy as np

from .knobs import knobs

__all__ = ["HIDDEN", "LAUNCHES", "REASONS", "Launches", "Run", "clear", "facts_of", "is_planning",
           "planning", "report", "table", "text", "watch", "watching"]

Native = Callable[..., None]
_MOST_SIZES = 32  # of one kernel that are told apart
_PLAN = 64  # integers that a kernel may be given as an array


class Subject(Protocol):
    """What the room that makes kernels knows of one."""

    name: str
    seconds: float
    compiled: bool

    def text(self, level: int) -> str:
        """What LAMPION_DEBUG shows at a level."""

    def label(self, arguments: Sequence[Any]) -> str:
        """The name and the sizes of a launch."""

    def roof(self, arguments: Sequence[Any]) -> Any:
        """Bytes and operations of a launch, and the least seconds that they take."""


class Run:
    """All launches of one kernel with arguments of one kind; time in nanoseconds."""

    __slots__ = ("arguments", "calls", "ns", "subject", "_roof")

    def __init__(self, subject: Subject, arguments: tuple[Any, ...]) -> None:
        self.subject, self.arguments = subject, arguments
        self.calls = self.ns = 0
        self._roof: Any = None

    @property
    def roof(self) -> Any:
        """Of one launch; worked out when it is asked for."""
        if self._roof is None:
            self._roof = self.subject.roof(self.arguments)
        return self._roof

    @property
    def label(self) -> str:
        """The kernel's name and the sizes."""
        return self.subject.label(self.arguments)


class Launches:
    """All launches of one kernel."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.runs: dict[tuple[Any, ...], Run] = {}

    def note(self, arguments: tuple[Any, ...], ns: int) -> Run:
        """Adds a launch, see `note_facts`."""
        return self.note_facts(tuple([facts_of(a) for a in arguments]), ns)

    def note_facts(self, facts: tuple[Any, ...], ns: int) -> Run:
        """Adds a launch; beyond _MOST_SIZES kinds of arguments it counts as the last one."""
        run = self.runs.get(facts)
        if run is None:
            full = len(self.runs) >= _MOST_SIZES
            run = next(reversed(self.runs.values())) if full else Run(self.subject, facts)
            self.runs[run.arguments] = run
        run.calls += 1
        run.ns += ns
        for journal in JOURNAL:
            journal.append((run, ns))
        return run

    @property
    def calls(self) -> int:
        return sum(run.calls for run in self.runs.values())

    @property
    def ns(self) -> int:
        return sum(run.ns for run in self.runs.values())


LAUNCHES: list[Launches] = []  # of every kernel that is watched
REASONS: dict[str, str] = {}  # why an operator or gradient rule is no kernel of its own
FAILED: list[Callable[[], dict[Any, str]]] = []  # gives the kernels that could not be made
MADE: list[Callable[[], list[Subject]]] = []  # gives those that were made or loaded
HIDDEN: list[Callable[[], bool]] = []  # whether this thread's launches are only noted for later
JOURNAL: list[list[tuple[Run | None, int]]] = []  # each gets launches (None: a kernel was made)


class _State:
    at_exit = False
    planning = 0


def is_planning() -> bool:
    """Whether operators run on symbols now, to find out what a kernel must compute."""
    return _State.planning > 0


@contextmanager
def planning() -> Iterator[None]:
    """The time in it counts as that of making kernels."""
    start = perf_counter_ns()
    _State.planning += 1
    try:
        yield
    finally:
        _State.planning -= 1
        for journal in JOURNAL:
            journal.append((None, perf_counter_ns() - start))


def watching() -> bool:
    """Whether kernels that are made from now on are watched."""
    return knobs.debug > 0 or bool(JOURNAL)


def watch(subject: Subject, native: Native) -> Native:
    """The kernel with its launches noted; called when it has just been made or loaded."""
    if not _State.at_exit and knobs.debug:
        _State.at_exit = True
        atexit.register(report)
    _tell(subject)
    for journal in JOURNAL:
        journal.append((None, int(subject.seconds * 1e9)))
    launches = Launches(subject)
    LAUNCHES.append(launches)

    code: Any = getattr(native, "__self__", None)
    if code is not None:
        code.watched = launches  # streams run the code itself

    def launch(*arguments: Any) -> None:
        start = perf_counter_ns()
        native(*arguments)
        ns = perf_counter_ns() - start
        if any(hides() for hides in HIDDEN):
            return
        launches.note(arguments, ns)
        if knobs.debug >= 6:
            print(f"lampion: {subject.name} {_list(arguments)} {ns / 1e3:.1f} us",
                  file=sys.stderr)
    return launch


def text(name: str, level: int = 2) -> str:
    """The kernels of that name in this process: their loops, or another level of LAMPION_DEBUG.

    level: 2 loops, 3 schedule, 4 LLVM IR, 5 assembly. KeyError where there is none of that name.

    >>> import lampion as torch
    >>> from lampion.debug.knobs import override
    >>> with override(kernels="sync"):
    ...     y = torch.ones(100, 300).softmax(1)
    >>> "def softmax(out0: f32*, in0: f32*, n0: i64" in text("softmax")
    True
    """
    found = [subject for made in MADE for subject in made()]
    chosen = [subject for subject in found if subject.name == name]
    if not chosen:
        names = ", ".join(sorted({subject.name for subject in found})) or "none yet"
        raise KeyError(f"no kernel {name!r} was made in this process; there are: {names}")
    return "\n".join(subject.text(level) for subject in chosen)


def clear() -> None:
    """Forgets the launches so far."""
    for launches in LAUNCHES:
        launches.runs.clear()


def facts_of(a: Any) -> Any:
    """What a launch costs depends on: not on the values of floats."""
    if isinstance(a, np.ndarray):
        plan = a.ndim == 1 and a.size <= _PLAN and a.dtype == np.int64
        return a.shape, a.strides, a.itemsize, tuple(a.tolist()) if plan else None
    return 0.0 if a.__class__ is float else a


def _list(arguments: Iterable[Any]) -> str:
    return " ".join(f"{a.dtype.name}{list(a.shape)}" if isinstance(a, np.ndarray) else str(a)
                    for a in arguments)


def _tell(subject: Subject) -> None:
    """A new kernel, as far as LAMPION_DEBUG wants it."""
    if knobs.debug < 2:
        return
    how = "compiled" if subject.compiled else "from disk"
    lines = [f"--- kernel {subject.name}, {how} in {subject.seconds * 1e3:.1f} ms"]
    for level in range(2, min(knobs.debug, 5) + 1):
        lines += [_TITLES[level], subject.text(level)]
    print("\n".join(lines), file=sys.stderr, flush=True)


_TITLES = {2: "loops:", 3: "schedule:", 4: "LLVM IR:", 5: "assembly:"}


# --- the table --------------------------------------------------------------------------------


def report() -> None:
    """Prints the kernels that ran to the standard error stream; `table()` is the text.

    Needs LAMPION_DEBUG=1 or higher from the start of the program.
    """
    print(table(), file=sys.stderr)


def table(most: int = 40) -> str:
    """The kernels that ran, those that took longest first, and what they are measured against."""
    ran = sorted((e for e in LAUNCHES if e.calls), key=lambda e: -e.ns)
    if not ran:
        return "no kernel ran" + ("" if watching() else ": LAMPION_DEBUG=1 watches them")
    lines = [_HEAD, *(_row(e) for e in ran[:most])]
    if len(ran) > most:
        rest = ran[most:]
        lines.append(f"and {len(rest)} more kernels, {sum(e.ns for e in rest) / 1e6:.2f} ms")
    made = [e.subject for e in LAUNCHES]
    compiled = [s.seconds for s in made if s.compiled]
    lines.append(f"{len(made)} kernels, {sum(e.calls for e in ran)} launches, "
                 f"{sum(e.ns for e in ran) / 1e6:.1f} ms; {len(compiled)} compiled in "
                 f"{sum(compiled) * 1e3:.0f} ms, {len(made) - len(compiled)} from disk")
    for failures in FAILED:
        lines += [f"no kernel for {_key_name(key)}: {why}"[:200]
                  for key, why in failures().items()]
    lines += [f"no fused kernel for {name}: {why}"[:200] for name, why in sorted(REASONS.items())]
    return "\n".join(lines)


_HEAD = (f"{'kernel':<40}{'calls':>7}{'ms':>10}{'us/call':>9}{'GB/s':>7}{'GFLOP/s':>9}"
         f"{'ceiling':>9}  made")


def _row(launches: Launches) -> str:
    subject, calls, ns = launches.subject, launches.calls, launches.ns
    longest = max(launches.runs.values(), key=lambda run: run.ns)
    label = longest.label
    more = f" +{len(launches.runs) - 1}" if len(launches.runs) > 1 else ""
    how = f"{subject.seconds * 1e3:.0f} ms" if subject.compiled else "disk"
    return (f"{label[:39 - len(more)] + more:<40}{calls:>7}{ns / 1e6:>10.2f}"
            f"{ns / calls / 1e3:>9.1f}{_rates(list(launches.runs.values()))}  {how}")


def _rates(runs: list[Run]) -> str:
    """GB/s, GFLOP/s and the share of the ceiling of some launches."""
    ns = sum(run.ns for run in runs)
    moved = sum(run.calls * (run.roof.read + run.roof.written) for run in runs)
    flops = sum(run.calls * run.roof.flops for run in runs)
    least = sum(run.calls * run.roof.seconds for run in runs)
    memory = sum(run.calls * run.roof.seconds for run in runs if run.roof.bound == "memory")
    bound = "mem" if memory * 2 >= least else "ops"
    operations = f"{flops / ns:.1f}" if flops else ""
    share = f"{least / ns * 1e9:.0%} {bound}" if least else ""
    return f"{moved / ns:>7.1f}{operations:>9}{share:>9}"


def _key_name(key: Any) -> str:
    return str(key[0]) if isinstance(key, tuple) and key else str(key)
