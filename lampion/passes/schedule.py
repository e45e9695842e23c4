"""The order of a program's steps: what frees memory comes first, writes after every reader."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from ..graph.node import Graph, Node

__all__ = ["Schedule", "size_of", "step_of"]


def step_of(node: Node) -> Node:
    """The call behind results and views, or the input or number."""
    while node.kind == "result" or (node.kind == "call" and node.op.view):
        node = node.args[0]  # type: ignore[assignment]
    return node


def size_of(node: Node) -> int:
    """Bytes of a value; of several at once none."""
    return 0 if node.shape is None or node.dtype is None else prod(node.shape) * node.dtype.itemsize


def is_again(step: Node) -> bool:
    """Whether a step makes a value a second time, see `recompute.py`."""
    return bool(getattr(step.op, "again", False))


class Schedule:
    """Steps (calls that compute, and draws) with what each waits for."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        nodes = graph.nodes()
        self.steps = [n for n in nodes if n.kind == "draw" or (
            n.kind == "call" and not n.op.view)]
        self.places = {n.digest: i for i, n in enumerate(self.steps)}
        self.reads = [self.sources(n.operands()) for n in self.steps]
        self.before: list[set[int]] = [
            {self.places[d] for d in reads if d in self.places} for reads in self.reads]
        self.read_by: dict[str, list[int]] = {}
        for i, reads in enumerate(self.reads):
            for d in reads:
                self.read_by.setdefault(d, []).append(i)
        for first, second in zip(graph.draws, graph.draws[1:], strict=False):
            self.before[self.places[second.digest]].add(self.places[first.digest])
        self.waited = set[int]().union(*self.before)  # steps that others wait for
        for i, step in enumerate(self.steps):
            if is_again(step):
                self.wait(i)
        self.sizes = [0] * len(self.steps)
        for n in nodes:
            if n.kind in ("call", "draw", "result"):
                place = self.places.get(step_of(n).digest)
                if place is not None and not (n.kind == "call" and n.op.view):
                    self.sizes[place] += size_of(n)

    def wait(self, step: int) -> None:
        """What is made again is made when its first reader lacks nothing else."""
        first = min(self.readers(self.steps[step].digest), default=step)
        self.delay(step, self.before[first])

    def sources(self, nodes: Iterable[Node]) -> set[str]:
        """Digests of the calls and inputs that nodes come from."""
        return {step_of(n).digest for n in nodes}

    def readers(self, digest: str) -> list[int]:
        """The steps that read an input or what a call gives."""
        return self.read_by.get(digest, [])

    def delay(self, step: int, others: Iterable[int]) -> bool:
        """Lets a step wait for others too; False, and nothing done, where they wait for it."""
        late = {o for o in others if o != step}
        if self.leads_to(step, late):
            return False
        self.before[step] |= late
        self.waited |= late
        return True

    def leads_to(self, step: int, goals: set[int]) -> bool:
        """Whether any of the goals waits for `step`."""
        if step not in self.waited:
            return step in goals
        stack, seen = list(goals), set(goals)
        while stack:
            at = stack.pop()
            if at == step:
                return True
            for b in self.before[at]:
                if b not in seen:
                    seen.add(b)
                    stack.append(b)
        return False

    def order(self) -> list[Node]:
        """As the graph has them; a step that frees as much as it takes runs as soon as it can."""
        return _Order(self).run()


class _Order:
    def __init__(self, schedule: Schedule) -> None:
        self.s = schedule
        count = len(schedule.steps)
        self.waits = [len(b) for b in schedule.before]
        self.after: list[list[int]] = [[] for _ in range(count)]
        for i, before in enumerate(schedule.before):
            for b in before:
                self.after[b].append(i)
        self.left: dict[str, set[int]] = {}  # steps that still read what a step has made
        for i, reads in enumerate(schedule.reads):
            for d in reads:
                self.left.setdefault(d, set()).add(i)
        kept = schedule.sources([*schedule.graph.outputs,
                                 *(w.node for w in schedule.graph.writes)])
        self.kept = kept | {n.digest for n in schedule.graph.inputs}
        self.done = [False] * count
        self.found: list[Node] = []

    def run(self) -> list[Node]:
        for i in range(len(self.s.steps)):
            self.reach(i)
        return self.found

    def reach(self, step: int) -> None:
        """Runs a step after everything that it waits for."""
        stack = [step]
        while stack:
            at = stack[-1]
            missing = [b for b in sorted(self.s.before[at]) if not self.done[b]]
            if missing:
                stack += missing
                continue
            stack.pop()
            if not self.done[at]:
                self.emit(at)

    def emit(self, step: int) -> None:
        """Runs a step, and others that may run now and give memory back."""
        stack = [step]
        while stack:
            at = stack.pop()
            if self.done[at]:
                continue
            self.done[at] = True
            self.found.append(self.s.steps[at])
            candidates: set[int] = set()
            for d in self.s.reads[at]:
                self.left[d].discard(at)
                candidates |= self.left[d] if len(self.left[d]) == 1 else set()
            for a in self.after[at]:
                self.waits[a] -= 1
                candidates.add(a)
            stack += sorted(c for c in candidates if not self.done[c] and not self.waits[c]
                            and self.growth(c) <= 0)

    def growth(self, step: int) -> int:
        """Bytes that a step takes and does not give back."""
        own = self.s.steps[step].digest
        if is_again(self.s.steps[step]):  # its reader comes at once and frees it
            return 0
        taken = 0 if own in self.kept else self.s.sizes[step]
        freed = sum(self.s.sizes[self.s.places[d]] for d in self.s.reads[step]
                    if d in self.s.places and d not in self.kept and self.left[d] == {step})
        return taken - freed

