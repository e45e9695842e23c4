"""Compiled functions: which program serves a call, and what happens where none does."""

from __future__ import annotations

import functools
import sys
import threading
import time
import traceback
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Any

from ..autograd.modes import state
from ..capture.recorder import CaptureError
from ..debug.frames import describe
from ..debug.knobs import knobs
from ..ops.autocast import switch
from ..tensor import get_default_device, get_default_dtype
from .decisions import Mispredicted, is_branch
from .program import Options, Program
from .rules import is_lampion_file
from .steps import NotYet
from .trace import Captured, Leaves, trace
from .watch import TOLD, Break

__all__ = ["EVERY", "MOST_PROGRAMS", "CompileWarning", "Compiled", "Stance"]

MOST_PROGRAMS = 64  # of one function; then those go whose kind came longest ago
_MOST_KINDS = 4 * MOST_PROGRAMS  # of arguments, whose calls are counted
# Kinds of arguments that get a program at their first call, others as `Kind.earns` says: where
# calls wait for programs, and where they run eagerly meanwhile.
_AT_ONCE, _AT_ONCE_BEHIND = 8, 2
_UNKNOWN = 0.1  # seconds that planning takes, as long as no program is there to tell
_MOST_INTS = 3  # kinds that differ in ints alone; then ints may be numbers of a program
_MOST_VARIANTS = 8  # captures for one kind of arguments, which differ in what they read
_MOST_MISSES = 8  # runs in vain, from which on no more than each fourth may be
_MOST_CAPTURES = 24  # of one kind of arguments; what changes so often is better run eagerly
EVERY: weakref.WeakSet[Compiled] = weakref.WeakSet()


class _Running:
    """Held by calls of programs; a capture, which changes the tensors they read, waits for them."""

    def __init__(self) -> None:
        self.count: list[None] = []  # one element for each; appending is atomic

    def __enter__(self) -> None:
        self.count.append(None)
        while Gate.capturing.owner not in (None, threading.get_ident()):
            self.count.pop()
            with Gate.capturing.lock:  # until no tensor records any more
                pass
            self.count.append(None)

    def __exit__(self, *exc: object) -> None:
        self.count.pop()


class _Capturing:
    """Held by the one thread that captures."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.owner: int | None = None

    def __enter__(self) -> None:
        self.lock.acquire()
        self.owner = threading.get_ident()
        while Gate.running.count:
            time.sleep(0.0002)

    def __exit__(self, *exc: object) -> None:
        self.owner = None
        self.lock.release()


class Gate:
    """Keeps captures and runs apart."""

    running, capturing = _Running(), _Capturing()


class Kind:
    """Calls with arguments of one kind: their programs, and why there may be none."""

    def __init__(self, price: float) -> None:
        """price: seconds that eager calls take before there is a program, see `earns`."""
        self.programs: list[Program] = []
        self.captures = 0
        self.calls = 0
        self.price = price
        self.again = 1  # the call at which capturing is tried again
        self.varying: dict[Any, None] = {}  # see `trace`
        self.missed = 0  # runs of programs that turned out to go another way
        self.branching = True  # whether programs may be made for one way of several

    @property
    def earns(self) -> bool:
        """Whether a program may be made: eager calls have taken as long as planning one does.

        So planning never takes longer than what runs eagerly, whichever kinds come and how often.
        """
        return self.price <= 0 and self.calls >= self.again

    def miss(self) -> None:
        """Counts such a run; where they are many, values that decide are left to eager runs."""
        self.missed += 1
        if self.missed > _MOST_MISSES and self.missed * 4 > self.calls:
            self.branching, self.again = False, 0
            self.programs = [p for p in self.programs if not p.captured.branches]


class Compiled:
    """A function that runs as one native program where it can.

    programs: how many programs there are. reasons: why calls ran eagerly, said once each.
    """

    def __init__(self, function: Callable[..., Any], options: Options) -> None:
        self.function, self.options = function, options
        self.reasons: list[str] = []
        self.changes: list[str] = []  # why calls of one kind were captured more than once
        self.kinds: OrderedDict[Any, Kind] = OrderedDict()
        self.ints: dict[Any, int] = {}  # by kind without its ints: how many kinds there have been
        functools.update_wrapper(self, function, updated=())
        EVERY.add(self)

    @property
    def programs(self) -> int:
        """The number of programs that serve calls."""
        return sum(len(k.programs) for k in self.kinds.values())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if state.recorder is not None or state.batcher is not None or Stance.eager or (
                knobs.kernels == "off"):
            return self.function(*args, **kwargs)
        leaves = Leaves(args, kwargs)
        key = self._key(leaves)
        kind = self.kinds.get(key)
        if kind is None:
            leaves, kind = self._new_kind(leaves, args, kwargs)
        elif len(self.kinds) > _AT_ONCE_BEHIND:
            self.kinds.move_to_end(key)
        kind.calls += 1
        failed: Exception | None = None
        tried: list[Program] = []
        with Gate.running:
            chosen, numbers = self._choose(kind, leaves)
            while chosen is not None and not self.options.checked and chosen.ready(leaves.tensors):
                try:
                    found = chosen.compute(leaves.tensors, numbers)
                except Exception as error:
                    failed = error
                else:
                    return chosen.finish(leaves.tensors, found)
                tried.append(chosen)
                chosen, numbers = self._after(failed, kind, leaves, tried)
        if failed is not None and not is_branch(failed):  # and nothing has changed
            return self.function(*args, **kwargs)  # it comes again, at its own place
        if chosen is None:
            return self._miss(kind, leaves, args, kwargs)
        return self._otherwise(chosen, leaves, numbers, args, kwargs)

    def _after(self, error: Exception, kind: Kind, leaves: Leaves,
               tried: list[Program]) -> tuple[Program | None, list[float]]:
        """Another program that may serve a call, after some have failed."""
        if isinstance(error, MemoryError):
            raise self._too_large(tried[-1], leaves, error) from None
        if not is_branch(error):
            return None, []
        kind.miss()
        return self._choose(kind, leaves, tried)

    def _too_large(self, program: Program, leaves: Leaves, error: MemoryError) -> MemoryError:
        """The error with what takes the memory."""
        from .report import memory_of

        return MemoryError(f"{error}\n{memory_of(program, leaves.tensors)}")

    def _choose(self, kind: Kind, leaves: Leaves,
                tried: Collection[Program] = ()) -> tuple[Program | None, list[float]]:
        """The program that holds for this call, and the numbers that it takes."""
        for i, program in enumerate(kind.programs):
            if program not in tried and program.captured.guards.hold():
                numbers = program.numbers(leaves.tensors, leaves.floats)
                if numbers is not None:
                    if i:
                        kind.programs.insert(0, kind.programs.pop(i))
                    return program, numbers
        return None, []

    def explain(self) -> str:
        """What the programs consist of: kernels with time, FLOPs, bytes and roofline fraction.

        Times are measured here, on copies. Also why calls were captured again or ran eagerly.
        """
        from .report import explain

        return explain(self)

    def memory(self, *args: Any, **kwargs: Any) -> Any:
        """Bytes that a call would take, by parameter, gradient, activation and optimizer state.

        Nothing is run. `.largest_batch(budget)` of the result tells how many rows would fit.
        """
        from .report import memory

        with Gate.capturing:
            return memory(self.function, args, kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """As a method."""
        return self if instance is None else functools.partial(self, instance)

    def _key(self, leaves: Leaves) -> Any:
        return (leaves.key, state.grad, state.inference, switch.dtype, get_default_dtype(),
                get_default_device())

    def _new_kind(self, leaves: Leaves, args: Any, kwargs: Any) -> tuple[Leaves, Kind]:
        """A kind of arguments that has not come before, but perhaps with other ints."""
        key, found = self._key(leaves), None
        if leaves.has_ints:
            loose = Leaves(args, kwargs, loose=True)
            other = self._key(loose)
            if len(self.ints) > 16 * MOST_PROGRAMS:
                self.ints.clear()
            self.ints[other] = self.ints.get(other, 0) + 1
            if self.ints[other] > _MOST_INTS:
                leaves, key, found = loose, other, self.kinds.get(other)
        if found is None:
            found = self.kinds[key] = Kind(self._price())
            if len(self.kinds) > _MOST_KINDS:
                self.kinds.popitem(last=False)
        else:
            self.kinds.move_to_end(key)
        return leaves, found

    def _tighten(self, leaves: Leaves, captured: Captured) -> None:
        """Where a program holds for one value of an int, ints tell kinds apart after all."""
        if leaves.loose and any(text == TOLD for _, _, text in captured.facts):
            self.ints[self._key(leaves)] = -sys.maxsize

    def _trim(self) -> None:
        """Lets programs go whose kind came longest ago, where there are too many."""
        while self.programs > MOST_PROGRAMS:
            oldest = next(k for k in self.kinds.values() if k.programs)
            oldest.price = self._price()
            oldest.programs, oldest.captures = [], 0

    def _price(self) -> float:
        """Seconds that it takes to plan a program; nothing for the first few kinds."""
        if len(self.kinds) < (_AT_ONCE if self.options.wait else _AT_ONCE_BEHIND):
            return 0.0
        return min((p.seconds for k in self.kinds.values() for p in k.programs
                    if p.native.executable is not None), default=_UNKNOWN)

    def _miss(self, kind: Kind, leaves: Leaves, args: Any, kwargs: Any) -> Any:
        """No program fits: captures one, or runs eagerly."""
        captured, error = None, None
        if kind.earns:
            captured, error = self._capture(kind, leaves, args, kwargs)
        if captured is not None:
            self._tighten(leaves, captured)
            if kind.programs:
                self.changes.append(self._change(kind, leaves))
            kind.programs.insert(0, Program(captured, self.options))
            del kind.programs[_MOST_VARIANTS:]
            self._trim()
            if kind.programs[0].numbers(leaves.tensors, leaves.floats) is not None:
                kind.calls -= 1
                return self(*args, **kwargs)
        if isinstance(error, (Break, CaptureError)):
            self._refused(kind, str(error))
        start = time.thread_time()
        result = self.function(*args, **kwargs)  # raises what the capture met, if it is its own
        kind.price -= time.thread_time() - start
        if isinstance(error, Exception) and not isinstance(error, CaptureError):
            self._refused(kind, f"{type(error).__name__} in its capture, at {_user_line(error)}: "
                          f"{error}")
            if knobs.debug:
                traceback.print_exception(error)
        return result

    def _otherwise(self, program: Program, leaves: Leaves, numbers: list[float], args: Any,
                   kwargs: Any) -> Any:
        """A call whose program is to be checked, or is not there yet: eagerly."""
        if program.ready(leaves.tensors):
            from .checked import run_checked

            try:
                return run_checked(self.function, program, leaves, numbers, args, kwargs)
            except Mispredicted:
                return self.function(*args, **kwargs)
        if program.native.error is not None:
            self._say(program.native.error)
        return self.function(*args, **kwargs)

    def _capture(self, kind: Kind, leaves: Leaves, args: Any,
                 kwargs: Any) -> tuple[Captured | None, BaseException | None]:
        """A new capture, or what stood in its way."""
        if kind.captures >= _MOST_CAPTURES:
            kind.again = sys.maxsize
            self._say(f"what it reads changes at every call: {self._change(kind, leaves)}")
            return None, None
        start = time.thread_time()
        try:
            with Gate.capturing:
                captured = trace(self.function, args, kwargs, leaves, _varying(kind, leaves),
                                 kind.branching)
        except NotYet:
            return None, None
        except (Break, Exception) as error:
            return None, error
        kind.captures += 1
        captured.seconds = time.thread_time() - start
        return captured, None

    def _change(self, kind: Kind, leaves: Leaves) -> str:
        """Why the program that was used last does not hold: old and new value."""
        captured = kind.programs[0].captured
        for i, x in captured.floats:
            if str(leaves.floats[i]) != str(x):
                return f"a number among the arguments was {x}, is {leaves.floats[i]}"
        return captured.guards.change() or captured.changed_fact(leaves.floats) or (
            f"which way is taken at {', '.join(captured.branches)}" if captured.branches else
            "which memory is shared, or the settings of an optimizer")

    def _refused(self, kind: Kind, reason: str) -> None:
        if self.options.fullgraph:
            raise RuntimeError(f"torch.compile with fullgraph=True: {reason}")
        kind.again = kind.calls * 2 + 1
        self._say(reason)

    def _say(self, reason: str) -> None:
        if reason in self.reasons:
            return
        self.reasons.append(reason)
        if Stance.speaks:
            import warnings

            from ..debug.frames import user_stack_level

            name = getattr(self.function, "__name__", type(self.function).__name__)
            warnings.warn(f"{name} runs eagerly: {reason}", CompileWarning,
                          stacklevel=user_stack_level())

    def forget(self) -> None:
        """Drops all programs."""
        self.kinds.clear()
        self.ints.clear()
        self.reasons.clear()


def _varying(kind: Kind, leaves: Leaves) -> list[Any]:
    """Floats that this call has other than earlier ones, or earlier ones had."""
    for program in kind.programs:
        kind.varying.update((i, None) for i, x in program.captured.floats if leaves.floats[i] != x)
        kind.varying.update((e, None) for e in program.captured.guards.changed_numbers())
    return list(kind.varying)


def _user_line(error: BaseException) -> str:
    """Where the user's own code last was when an error came."""
    found = "the call"
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if not is_lampion_file(code.co_filename):
            found = describe(code, step.tb_lasti)
        step = step.tb_next
    return found


class CompileWarning(UserWarning):
    """A compiled function runs eagerly, and why."""


class Stance:
    """Switches of the process."""

    eager = False
    speaks = True
