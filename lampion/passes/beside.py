"""Which launches of a program run side by side: small ones that do not depend on one another.

A large launch is shared out among the threads by itself; a small one would leave all but one idle.
So small launches that are ready at the same time become a group, and the threads take them one by
one. Launches move forward to where they are ready, as long as no moment needs more memory than the
fullest needs anyway. What nobody waits for, as the updates of parameters, gathers at the end.

Steps in Python and launches that may raise stay where they are, and nothing passes them but what
gathers at the end: writes that come later than planned.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterable, Sequence
from math import inf, prod, sqrt
from typing import Any, NamedTuple

import numpy as np

from ..graph.spec import IllegalGraph
from ..runtime.recording import written
from ..runtime.stream import Buffer, Group, Host, Noted, used

__all__ = ["Arrangement", "Launches", "check_arrangement", "check_launches",
           "nanoseconds", "side_by_side"]

Step = Noted | Host

# Estimates decide who runs beside whom, never results. Nanoseconds, measured on a Zen 4.
_LAUNCH, _PER_BYTE, _PER_PRODUCT = 300.0, 1 / 25, 1 / 45
_SMALL = 16_000  # longer launches are several tasks by themselves
_SMALL_PRODUCT = 1 << 21  # multiply-adds, likewise: see `codegen/gemm.py`
_PAYS = 2_000  # what handing a group to the threads must save, while they look for work
_WAKES = 40_000  # what it and those soon after it must save while they sleep
_AWAKE = 50_000  # how long threads look for work: the default of the knob `spin_us`
_MOST = 16  # launches that are asked whether they join another


class Launches(NamedTuple):
    """The steps of a program, ready to be arranged.

    first: those before it stay where they are. results: ids of buffers that a run gives out.
    shared: numbers of inputs that share memory with others, some of which are written to.
    """

    steps: Sequence[Step]
    first: int = 0
    results: Collection[int] = ()
    shared: Collection[int] = ()


class Arrangement(NamedTuple):
    """The steps in a new order, by their places in the old one, and groups in the new one."""

    order: list[int]
    groups: list[Group]


def side_by_side(launches: Launches, threads: int) -> Arrangement:
    """An order that keeps every dependence, and groups of launches that are independent."""
    if threads == 1:
        return Arrangement(list(range(len(launches.steps))), [])
    return _Arranger(launches, threads).run()


def nanoseconds(step: Noted) -> float:
    """About how long a launch takes on one thread."""
    return _LAUNCH + _bytes(step) * _PER_BYTE + _products(step) * _PER_PRODUCT


def _bytes(step: Noted) -> int:
    return sum(_elements(a) * a[2] for a in step.facts if isinstance(a, tuple))


def _elements(fact: tuple[tuple[int, ...], tuple[int, ...], int]) -> int:
    """Elements of an array, those that stand for several counted once."""
    return prod([n for n, s in zip(fact[0], fact[1], strict=True) if s])


def _products(step: Noted) -> float:
    """Multiply-adds of a matrix product: of (m, k), (k, n) and (m, n) the sizes tell m * k * n."""
    if not step.code.name.startswith("gemm") or step.code.name == "gemm pack":
        return 0.0
    arrays = [a for a in step.facts if isinstance(a, tuple)][:3]
    batch = prod(arrays[0][0][:-2])
    return sqrt(prod([float(_elements(a)) for a in arrays]) / max(batch, 1))


def _is_small(step: Step) -> bool:
    """Whether a launch is no more than one task or two, and may move."""
    if isinstance(step, Host) or step.flag is not None:
        return False
    products = _products(step)
    return products < _SMALL_PRODUCT if products else nanoseconds(step) < _SMALL


def _makespan(times: Iterable[float], threads: int) -> float:
    """How long the threads take, each for the longest that is left whenever it is free."""
    ends = [0.0] * threads
    for t in sorted(times, reverse=True):
        ends[ends.index(min(ends))] += t
    return max(ends)


# --- dependences ------------------------------------------------------------------------------


class _Uses:
    """What memory the steps read and write, and so which must come before which."""

    def __init__(self, launches: Launches) -> None:
        self.launches = launches
        self.used = [{self.name(b): b for b in used(s)} for s in launches.steps]
        self.written = [{self.name(site.buffer) for site in written(s)} for s in launches.steps]
        self.before: list[set[int]] = [set() for _ in launches.steps]
        self.after: list[set[int]] = [set() for _ in launches.steps]
        self.link()

    def name(self, b: Buffer) -> int:
        """Tells memory apart; of inputs that share some, all count as one."""
        return 0 if b.kind == "input" and b.number in self.launches.shared else id(b)

    def link(self) -> None:
        """A step waits for the last writer of what it uses, a writer for its readers too."""
        writer: dict[int, int] = {}
        readers: dict[int, list[int]] = {}
        for i, names in enumerate(self.used):
            for name in names:
                self.edge(writer.get(name), i)
                if name not in self.written[i]:
                    readers.setdefault(name, []).append(i)
                    continue
                for reader in readers.pop(name, ()):
                    self.edge(reader, i)
                writer[name] = i

    def edge(self, first: int | None, second: int) -> None:
        if first is not None and first != second:
            self.before[second].add(first)
            self.after[first].add(second)


# --- arranging --------------------------------------------------------------------------------


class _Arranger:
    def __init__(self, launches: Launches, threads: int) -> None:
        self.launches, self.threads, self.steps = launches, threads, launches.steps
        self.uses = _Uses(launches)
        self.small = [_is_small(s) for s in self.steps]
        self.fixed = [isinstance(s, Host) or s.flag is not None for s in self.steps]
        self.time = [inf if isinstance(s, Host) else nanoseconds(s) for s in self.steps]
        self.waits = [len(b) for b in self.uses.before]
        self.done = [i < launches.first for i in range(len(self.steps))]
        self.memory = _Memory(launches)
        self.ready: list[int] = []  # small launches that wait for nothing
        self.order = list(range(launches.first))
        self.groups: list[Group] = []

    def run(self) -> Arrangement:
        first, count = self.launches.first, len(self.steps)
        late = {i for i in range(first, count) if self.small[i] and self.is_late(i)}
        self.small = [small and i not in late for i, small in enumerate(self.small)]
        self.ready = [i for i in range(first, count) if self.small[i] and not self.waits[i]]
        for i in range(first):
            self.release(i)
        barrier = self.barriers()
        for i in range(first, count):
            if not self.done[i] and i not in late:
                self.emit(self.group_of(i, [r for r in self.ready[:_MOST] if r < barrier[i]]))
        self.gather(sorted(late))
        return Arrangement(self.order, self.woken())

    def is_late(self, step: int) -> bool:
        """Whether nobody waits for a launch, and no memory of the arena waits with it."""
        return not self.uses.after[step] and self.memory.holds_nothing(step)

    def barriers(self) -> list[int]:
        """For every step the next one that nothing passes."""
        found, following = [], len(self.steps)
        for i in reversed(range(len(self.steps))):
            found.append(following)
            following = i if self.fixed[i] else following
        return found[::-1]

    def group_of(self, step: int, ready: Sequence[int]) -> list[int]:
        """The step, and others for which there is memory, if running them together pays."""
        if not self.small[step]:
            return [step]
        found = [step]
        for other in ready:
            if other != step and self.memory.admits(other, found, step):
                found.append(other)
        return found if self.saves(found) >= _PAYS else [step]

    def saves(self, group: Sequence[int]) -> float:
        times = [self.time[i] for i in group]
        return sum(times) - _makespan(times, self.threads)

    def emit(self, group: list[int]) -> None:
        """Longest first: what is taken last should be short."""
        if len(group) > 1:
            group = sorted(group, key=lambda i: -self.time[i])
            self.groups.append(Group(len(self.order), len(group), False))
            self.memory.move(group)
        for i in group:
            self.done[i] = True
            self.order.append(i)
            if i in self.ready:
                self.ready.remove(i)
            self.release(i)

    def woken(self) -> list[Group]:
        """The groups; threads are woken where that one, and those they stay awake for, save much.
        """
        found: list[Group] = []
        saved, start = 0.0, len(self.order)
        for g in reversed(self.groups):
            between = self.order[g.first + g.size:start]
            if sum(self.time[i] for i in between) > _AWAKE:
                saved = 0.0
            saved += self.saves(self.order[g.first:g.first + g.size])
            found.append(g._replace(wakes=saved >= _WAKES))
            start = g.first
        return found[::-1]

    def gather(self, late: list[int]) -> None:
        """What nobody waited for, side by side where that pays."""
        if self.saves(late) >= _PAYS and self.memory.has_room(late):
            self.emit(late)
            return
        for i in late:
            self.emit([i])

    def release(self, step: int) -> None:
        """Those that waited for it alone are ready."""
        for i in self.uses.after[step]:
            self.waits[i] -= 1
            if not self.waits[i] and self.small[i] and not self.done[i]:
                insort(self.ready, i)


class _Memory:
    """Bytes of the arena that live at every step, as the steps came."""

    def __init__(self, launches: Launches) -> None:
        self.uses = [self.held(s, launches.results) for s in launches.steps]
        self.first: dict[int, int] = {}
        self.last: dict[int, int] = {}
        for i, buffers in enumerate(self.uses):
            for name in buffers:
                self.first.setdefault(name, i)
                self.last[name] = i
        self.level = self.levels()
        self.most = int(self.level.max(initial=0))

    def held(self, step: Step, results: Collection[int]) -> dict[int, int]:
        """Buffers of the arena with their bytes."""
        return {id(b): b.size for b in used(step) if b.kind == "arena" and id(b) not in results}

    def levels(self) -> Any:
        change = np.zeros(len(self.uses) + 1, np.int64)
        for i, buffers in enumerate(self.uses):
            for name, size in buffers.items():
                if self.first[name] == i:
                    change[i] += size
                if self.last[name] == i:
                    change[i + 1] -= size
        return np.cumsum(change)

    def new(self, step: int) -> int:
        """Bytes that live from a step on."""
        return sum(size for name, size in self.uses[step].items() if self.first[name] == step)

    def holds_nothing(self, step: int) -> bool:
        """Whether a step uses no memory together with others."""
        return all(self.first[name] == step == self.last[name] for name in self.uses[step])

    def has_room(self, group: Sequence[int]) -> bool:
        """Whether launches that hold nothing may run at one time, after all others."""
        return sum(map(self.new, group)) <= self.most

    def admits(self, step: int, group: Sequence[int], at: int) -> bool:
        """Whether a step may join a group that runs in the place of step `at`."""
        taken = self.new(step) + sum(self.new(i) for i in group if i != at)
        return not taken or int(self.level[at:step + 1].max()) + taken <= self.most

    def move(self, group: Sequence[int]) -> None:
        """Counts what lives earlier from now on."""
        at = min(group)
        for i in group:
            self.level[at:i] += self.new(i)


# --- what holds before and afterwards ---------------------------------------------------------


def check_launches(launches: Launches) -> None:
    """Raises IllegalGraph where a launch reads memory of the arena before one has written it."""
    known: set[int] = set()
    for i, step in enumerate(launches.steps):
        known |= {id(site.buffer) for site in written(step)}
        if any(b.kind == "arena" and b.size and id(b) not in known for b in used(step)):
            raise IllegalGraph(f"step {i} reads what no step has written")


def check_arrangement(launches: Launches, found: Arrangement) -> None:
    """Raises IllegalGraph unless every step is there once, comes after what it waits for, and no
    launch of a group waits for another or may raise.
    """
    steps = launches.steps
    if sorted(found.order) != list(range(len(steps))):
        raise IllegalGraph("an arrangement that is no permutation")
    if found.order[:launches.first] != list(range(launches.first)):
        raise IllegalGraph("a prepared launch has moved")
    turn = {step: i for i, step in enumerate(found.order)}
    for g in found.groups:
        members = found.order[g.first:g.first + g.size]
        if any(isinstance(s := steps[i], Host) or s.flag is not None for i in members):
            raise IllegalGraph("a step that may raise is in a group")
        turn.update(dict.fromkeys(members, g.first))
    for i, before in enumerate(_Uses(launches).before):
        if any(turn[b] >= turn[i] for b in before):
            raise IllegalGraph(f"step {i} comes no later than what it waits for")
