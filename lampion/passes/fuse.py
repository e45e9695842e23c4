"""Fusion: groups of operators become one, where that saves memory traffic.

Groups grow along the values between operators, the largest first, and side by side where two read
the same large array. A cheap operator that several groups need is computed in each of them. Every
group is looked at as the kernel that it would be (`codegen/survey.py`) before it is accepted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b
from heapq import heappop, heappush
from math import prod
from typing import Any

from ..codegen.survey import Survey
from ..graph.node import Graph, Interner, Node, Write
from ..graph.spec import IllegalGraph
from ..ops.native import TEMPLATES
from ..ops.optimize import Update
from ..ops.record import Leaf
from .body import Body, base_of, is_renaming, surveyed
from .fused import Fused
from .schedule import Schedule, step_of

__all__ = ["fuse"]

_ALONE = frozenset(("read_window", "write_window", "to_device"))  # lowered as moves
_CHEAP = 8  # instructions an element that may be computed again elsewhere
_MOST_OPERANDS = 24  # arrays of one kernel
_MOST_COST = 400  # instructions an element: beyond, compilation takes long
_MOST_AGAIN = 40  # instructions of dear terms that further stages may repeat
_SMALL = 1 << 14  # elements that one thread handles as well as two
_TASKS = 16  # results of a reduction that keep the threads busy


def fuse(graph: Graph) -> Graph:
    """Makes groups and puts each into one node.

    A graph that differs from an earlier one in sizes alone gets the same groups, where they are
    kernels at its sizes too.
    """
    groups = _Groups(graph)
    key = _structure(graph, groups)
    known = _chosen.get(key)
    if known is None or not groups.repeat(*known):
        groups = _Groups(graph) if known is not None else groups
        groups.choose()
        groups.grow()
        _chosen[key] = groups.found()
        if len(_chosen) > _MOST_CHOSEN:
            del _chosen[next(iter(_chosen))]
    return _Contracted(graph, groups).graph()


# By structure: the steps that are computed again, and those of each group.
_Choice = tuple[frozenset[int], list[list[int]]]
_chosen: dict[bytes, _Choice] = {}
_MOST_CHOSEN = 256


def _structure(graph: Graph, groups: _Groups) -> bytes:
    """What a graph is but for sizes: its operators and which values they take."""
    places: dict[str, int] = {}
    rows: list[Any] = []
    for i, n in enumerate(graph.nodes()):
        places[n.digest] = i
        rows.append((n.kind, n.op.name if n.op is not None else n.attrs, is_renaming(n),
                     [places[a.digest] for a in n.operands()]))
    rows.append([places[n.digest] for n in graph.outputs])
    rows.append([(w.what, w.target, places[w.node.digest]) for w in graph.writes])
    rows.append([u.number for u in groups.units.values()])
    return blake2b(repr(rows).encode(), digest_size=16).digest()


def _size(node: Node) -> int:
    return prod(node.shape)


def _bytes(node: Node) -> int:
    assert node.dtype is not None
    return _size(node) * node.dtype.itemsize


class _Unit:
    """An operator that can be part of a kernel."""

    __slots__ = ("call", "group", "number", "survey", "values")

    def __init__(self, number: int, call: Node, values: list[Node], survey: Survey) -> None:
        self.number, self.call, self.values, self.survey = number, call, values, survey
        self.group: _Group | None = None  # None: computed in every group that needs it


class _Step:
    """Steps as bits: this one (or these), and those that come before and after it."""

    __slots__ = ("after", "before", "mask")

    def __init__(self, mask: int, before: int, after: int) -> None:
        self.mask, self.before, self.after = mask, before, after


class _Group(_Step):
    """Units that become one kernel; the values that they read from others, and make."""

    __slots__ = ("makes", "reads", "survey", "units")

    def __init__(self, unit: _Unit, before: int, after: int, reads: Iterable[Node]) -> None:
        super().__init__(1 << unit.number, before, after)
        self.units, self.survey = [unit], unit.survey
        self.makes, self.reads = list(unit.values), {v.digest: v for v in reads}


class _Groups:
    def __init__(self, graph: Graph) -> None:
        self.schedule = Schedule(graph)
        self.results: dict[str, list[Node]] = {}
        for n in graph.nodes():
            if n.kind == "result":
                self.results.setdefault(n.args[0].digest, []).append(n)  # type: ignore[union-attr]
        self.units: dict[str, _Unit] = {}  # by digest of the call
        for i, step in enumerate(self.schedule.steps):
            self.add(i, step)
        self.used: dict[str, set[int]] = {}  # by value: the steps that read it, by renamings alone
        self.pinned: set[str] = set()  # values that must be in memory
        self.find_uses(graph)
        self.needed: dict[str, set[int]] = {}  # as `used`, through what is computed again
        self.repeated: set[int] = set()
        self.groups: list[_Group] = []
        self.reading: dict[str, list[_Group]] = {}  # the groups that read a value
        self.pairs = 0

    def choose(self) -> None:
        """What is computed again, and a group for everything else."""
        self.choose_repeated()
        self.begin()

    def found(self) -> _Choice:
        """What was chosen, by numbers of steps."""
        return frozenset(self.repeated), [[u.number for u in g.units] for g in self.groups]

    def repeat(self, repeated: frozenset[int], groups: list[list[int]]) -> bool:
        """Makes the groups chosen for the same structure; False where one is no kernel."""
        units = {u.number: u for u in self.units.values()}
        for step in reversed(self.schedule.steps):
            for v in self.units[step.digest].values if step.digest in self.units else ():
                self.needed[v.digest] = self.readers(v, repeated)
        for numbers in groups:
            members = [units[i] for i in numbers]
            for unit in members:
                unit.group = members[0].group or _Group(unit, 0, 0, ())
            members[0].group.units = members  # type: ignore[union-attr]
        return all(len(numbers) == 1 or _is_kernel(surveyed(self.body([units[i] for i in numbers])))
                   for numbers in groups)

    def add(self, number: int, step: Node) -> None:
        """Makes a unit of an operator that has an expression."""
        if step.kind != "call" or not isinstance(step.op, (Leaf, Update)):
            return
        if step.op.name in TEMPLATES or step.op.name in _ALONE:
            return
        values = [step] if step.shape is not None else self.results.get(step.digest, [])
        if not values or any(0 in v.shape for v in values) or any(
                isinstance(a, Node) and a.dtype is not None and a.dtype.kind == "c"
                for a in (*step.args, *values)):
            return
        found = surveyed(Body([step], values))
        if found is not None and found.fits:
            self.units[step.digest] = _Unit(number, step, values, found)

    # --- who needs what -----------------------------------------------------------------------

    def find_uses(self, graph: Graph) -> None:
        for i, step in enumerate(self.schedule.steps):
            taken = [a for a in step.args if isinstance(a, Node)]
            fusable = step.digest in self.units
            for o in step.operands():
                base = base_of(o)
                if fusable and any(o is a for a in taken) and not self.is_window(base):
                    self.used.setdefault(base.digest, set()).add(i)
                else:
                    self.pin(base)
        for n in (*graph.outputs, *(w.node for w in graph.writes)):
            self.pin(base_of(n))

    def is_window(self, node: Node) -> bool:
        """Whether a value is a view that does more than rename axes."""
        call = node.args[0] if node.kind == "result" else node
        return call is not None and call.kind == "call" and bool(call.op.view)

    def pin(self, base: Node) -> None:
        self.pinned.add(base.digest)
        while self.is_window(base):
            call = base.args[0] if base.kind == "result" else base
            base = base_of(call.args[0])  # type: ignore[union-attr, arg-type]
            self.pinned.add(base.digest)

    def unit_of(self, value: Node) -> _Unit | None:
        """The unit that gives a value."""
        call = value.args[0] if value.kind == "result" else value
        return None if call is None else self.units.get(call.digest)

    def sources(self, unit: _Unit) -> list[Node]:
        """The values that a unit reads."""
        found = {b.digest: b for a in unit.call.args if isinstance(a, Node)
                 for b in (base_of(a),)}
        return list(found.values())

    # --- what is computed again ---------------------------------------------------------------

    def choose_repeated(self) -> None:
        """Finds cheap units that are better computed by each of their readers."""
        repeated: set[int] = set()
        steps = self.schedule.steps
        for step in reversed(steps):
            unit = self.units.get(step.digest)
            if unit is None:
                continue
            for v in unit.values:
                self.needed[v.digest] = self.readers(v, repeated)
            if self.pays(unit):
                repeated.add(unit.number)
        self.repeated = repeated

    def readers(self, value: Node, repeated: Collection[int]) -> set[int]:
        """The steps that need a value for themselves."""
        found: set[int] = set()
        for i in self.used.get(value.digest, ()):
            if i in repeated:
                found |= self.needed[self.schedule.steps[i].digest]
            else:
                found.add(i)
        return found

    def pays(self, unit: _Unit) -> bool:
        """Whether reading a unit's operands several times beats writing and reading its result."""
        if len(unit.values) > 1 or unit.survey.reduces or unit.survey.cost > _CHEAP:
            return False
        value = unit.values[0]
        count = len(self.needed[value.digest])
        if value.digest in self.pinned or count < 2:
            return False
        large = sum(1 for b in self.sources(unit) if 2 * _bytes(b) > _bytes(value))
        return large * count <= large + 1 + count

    # --- growing ------------------------------------------------------------------------------

    def begin(self) -> None:
        """A group of its own for every unit; the order of all steps.

        What is computed again is part of its readers, so paths lead through it, not to it.
        """
        count = len(self.schedule.steps)
        own = [0 if i in self.repeated else 1 << i for i in range(count)]
        before, after = [0] * count, [0] * count
        for i, waits in enumerate(self.schedule.before):
            for b in waits:
                before[i] |= before[b] | own[b]
        for i in reversed(range(count)):
            for b in self.schedule.before[i]:
                after[b] |= after[i] | own[i]
        for unit in self.units.values():
            if unit.number not in self.repeated:
                group = unit.group = _Group(unit, before[unit.number], after[unit.number],
                                            self.reads(unit))
                self.groups.append(group)
                for digest in group.reads:
                    self.reading.setdefault(digest, []).append(group)
        self.others = [_Step(1 << i, before[i], after[i]) for i, s in enumerate(
            self.schedule.steps) if s.digest not in self.units]

    def grow(self) -> None:
        """Joins groups, always the two that save the most memory traffic."""
        queue: list[tuple[int, int, _Group, _Group]] = []
        for g in self.groups:
            self.offer(queue, g)
        while queue:
            saved, _, a, b = heappop(queue)
            if a.units and b.units and -saved == self.saved(a, b) and self.join(a, b):
                self.offer(queue, a)

    def offer(self, queue: list[tuple[int, int, _Group, _Group]], group: _Group) -> None:
        """Puts pairs of a group and those that make or read what it reads or makes in line."""
        others: dict[int, _Group] = {}
        for value in group.reads.values():
            maker = self.unit_of(value)
            if maker is not None and maker.group is not None:
                others[id(maker.group)] = maker.group
            if 2 * _size(value) > group.survey.total:
                others.update((id(g), g) for g in self.reading[value.digest])
        for value in group.makes:
            others.update((id(g), g) for g in self.reading.get(value.digest, ()))
        for other in others.values():
            if other is not group and _alike(group.survey, other.survey):
                saved = self.saved(group, other)
                self.pairs += 1
                heappush(queue, (-saved, self.pairs, group, other))

    def saved(self, a: _Group, b: _Group) -> int:
        """Bytes that need not move when two groups are one; what is written is fetched first."""
        total = sum(_bytes(v) for d, v in a.reads.items() if d in b.reads)
        for maker, reader in ((a, b), (b, a)):
            for v in maker.makes:
                if v.digest in reader.reads:
                    sole = v.digest not in self.pinned and len(self.needed[v.digest]) == 1
                    total += _bytes(v) * (3 if sole else 1)
        return total

    def reads(self, unit: _Unit) -> list[Node]:
        """The values that a unit reads, through what it computes again."""
        found: dict[str, Node] = {}
        stack = self.sources(unit)
        while stack:
            value = stack.pop()
            maker = self.unit_of(value)
            if maker is not None and maker.group is None:
                stack += self.sources(maker)
            elif value.digest not in found:
                found[value.digest] = value
        return list(found.values())

    def join(self, a: _Group, b: _Group) -> bool:
        """Makes the first group of both, where that is legal and no worse."""
        if not _alike(a.survey, b.survey) or a.after & b.before or b.after & a.before or (
                self.looks_at(a, b) or self.looks_at(b, a)):
            return False
        found = surveyed(self.body([*a.units, *b.units]))
        if found is None or not _worth(found, a.survey, b.survey):
            return False
        mask = a.mask | b.mask
        a.before, a.after, a.mask = (a.before | b.before) & ~mask, (a.after | b.after) & ~mask, mask
        self.move(b, a)
        a.survey = found
        rest: list[_Step] = [*self.groups, *self.others]
        for step in rest:
            if step.before & mask:
                step.before |= a.before | mask
            if step.after & mask:
                step.after |= a.after | mask
        return True

    def looks_at(self, reader: _Group, maker: _Group) -> bool:
        """Whether one reads a window on what the other makes, which must then be in memory."""
        windows = [v for v in reader.reads.values() if self.is_window(v)]
        units = [self.units.get(step_of(v).digest) for v in windows]
        return any(u is not None and u.group is maker for u in units)

    def move(self, b: _Group, a: _Group) -> None:
        """Puts what is in `b` into `a`."""
        for unit in b.units:
            unit.group = a
        for digest in b.reads:
            others = [g for g in self.reading[digest] if g is not b]
            self.reading[digest] = others if a in others else [*others, a]
        a.units, b.units = [*a.units, *b.units], []
        a.makes = [*a.makes, *b.makes]
        made = {v.digest for v in a.makes}
        a.reads = {d: v for d, v in (a.reads | b.reads).items() if d not in made}
        self.groups.remove(b)

    def body(self, units: Sequence[_Unit]) -> Body:
        """The units with what they compute again, and the values that others need."""
        members = {u.number: u for u in units}
        stack = list(units)
        while stack:
            for value in self.sources(stack.pop()):
                maker = self.unit_of(value)
                if maker is not None and maker.group is None and maker.number not in members:
                    members[maker.number] = maker
                    stack.append(maker)
        roots = [v for u in sorted(units, key=lambda u: u.number) for v in u.values
                 if v.digest in self.pinned or not self.needed[v.digest] <= members.keys()]
        return Body([members[i].call for i in sorted(members)], roots)


def _alike(a: Survey, b: Survey) -> bool:
    """Whether two kernels may have one space; a small one may be part of a large one."""
    small, large = sorted((a, b), key=lambda s: s.total)
    if a.reduces and b.reduces:
        return (a.total, a.kept) == (b.total, b.kept)
    if small.total == large.total or small.reduces:
        return small.total == large.total
    return small.total == large.kept or small.cost <= _CHEAP


def _is_kernel(found: Survey | None) -> bool:
    """Whether a group is one kernel of a size that compiles soon."""
    return found is not None and found.fits and found.operands <= _MOST_OPERANDS and (
        found.cost <= _MOST_COST)


def _worth(found: Survey, a: Survey, b: Survey) -> bool:
    """Whether one kernel is legal and no worse than two."""
    if not _is_kernel(found):
        return False
    if found.again > max(a.again, b.again) + _MOST_AGAIN or found.total > max(a.total, b.total):
        return False
    busy = found.rows and found.kept >= _TASKS
    if (a.splits or b.splits) and not (found.splits or busy):
        return False
    if not (found.reduces and found.whole) or any(s.reduces and s.whole for s in (a, b)):
        return True
    return found.total <= _SMALL or busy


# --- the new graph ----------------------------------------------------------------------------


class _Contracted:
    """Builds the graph in which every group is one call."""

    def __init__(self, graph: Graph, groups: _Groups) -> None:
        self.old, self.groups = graph, groups
        self.interner = Interner()
        self.new: dict[str, Node] = {}
        self.bodies: dict[int, Body] = {}

    def graph(self) -> Graph:
        old = self.old
        ends = [*old.inputs, *old.numbers, *old.draws, *old.outputs, *(w.node for w in old.writes)]
        for n in ends:
            self.make(n)
        of = [[self.new[n.digest] for n in some] for some in (
            old.inputs, old.outputs, old.numbers, old.draws)]
        writes = [Write(w.what, w.target, self.new[w.node.digest]) for w in old.writes]
        return Graph(old.name, of[0], old.names, of[1], writes, of[2], of[3])

    def make(self, node: Node) -> None:
        """Makes a node's new one, after those that it needs."""
        stack, begun = [node], set[str]()
        while stack:
            at = stack[-1]
            missing = [] if at.digest in self.new else [
                n for n in self.needs(at) if n.digest not in self.new]
            if missing:
                if at.digest in begun:
                    raise IllegalGraph("groups that wait for each other")
                begun.add(at.digest)
                stack += missing
                continue
            stack.pop()
            if at.digest not in self.new:
                self.finish(at)

    def needs(self, node: Node) -> Iterable[Node]:
        body = self.body(node)
        return list(node.operands()) if body is None else [*body.inputs, *body.numbers]

    def body(self, node: Node) -> Body | None:
        """The body of the group that makes a value; None where one call makes it alone."""
        unit = None if is_renaming(node) else self.groups.unit_of(node)
        if unit is None or unit.group is None:
            return None
        key = id(unit.group)
        if key not in self.bodies:
            self.bodies[key] = self.groups.body(unit.group.units)
        found = self.bodies[key]
        return found if len(found.calls) > 1 else None

    def finish(self, node: Node) -> None:
        body = self.body(node)
        if body is None:
            self.new[node.digest] = self.copied(node)
            return
        args = tuple(self.new[n.digest] for n in body.inputs)
        numbers = tuple(self.new[n.digest] for n in body.numbers)
        call = self.interner.make("call", Fused(body), args, numbers, None, None)
        call.where = next((c.where for c in body.calls if c.where is not None), None)
        for i, r in enumerate(body.roots):
            self.new[r.digest] = self.interner.make("result", None, (call,), (i,), r.shape, r.dtype)

    def copied(self, node: Node) -> Node:
        args = self.replaced(node.args)
        made = self.interner.with_args(node, args) if not node.inner else self.interner.make(
            node.kind, node.op, args, self.replaced(node.attrs), node.shape, node.dtype)
        made.where = made.where or node.where
        return made

    def replaced(self, value: Any) -> Any:
        if isinstance(value, Node):
            return self.new[value.digest]
        if value.__class__ in (tuple, list):
            return value.__class__(map(self.replaced, value))
        return value
