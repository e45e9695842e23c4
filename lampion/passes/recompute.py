"""Save or recompute: large values that wait long for their last readers are made again instead.

A value that lives through the moment of most memory, and follows by one cheap kernel from values
that live until its late readers anyway, is computed a second time for them. This goes on until
memory is three fifths of what it was: what is left is better kept than made again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..graph.node import Graph, Node
from ..ops.native import TEMPLATES
from ..ops.record import Leaf
from .body import Body, base_of, surveyed
from .fused import Fused, job_of
from .rewrite import Rewriter
from .schedule import Schedule, size_of, step_of

__all__ = ["recompute"]

_LEAST = 32 << 20  # bytes: below, a step stays near the processor's caches
_GOAL = 0.6  # of the memory without
_MOST_COST = 64  # instructions an element
_WORTH = 0.004  # of the memory, that a value must take


class _Choice(NamedTuple):
    """A value to make again: how, for which steps, and how long it need not be kept."""

    value: Node
    body: Body
    args: tuple[Node, ...]
    readers: set[str]
    start: int
    stop: int


def recompute(graph: Graph) -> Graph:
    """Makes values again where that lowers the most memory that a run takes."""
    plan = _Plan(graph)
    if plan.most() < _LEAST:
        return graph
    goal, worth = _GOAL * plan.most(), _WORTH * plan.most()
    while plan.most() > goal and (choice := plan.best(worth)) is not None:
        plan.take(choice)
    return _Repeater(graph, plan.chosen).graph() if plan.chosen else graph


class _Plan:
    """When every value is made and read, and the memory taken at each step."""

    def __init__(self, graph: Graph) -> None:
        self.chosen: dict[str, _Choice] = {}
        self.refused: set[tuple[str, int]] = set()  # for a moment: stays so whatever is chosen
        self.order = Schedule(graph).order()
        at = {step.digest: i for i, step in enumerate(self.order)}
        self.at = at
        self.values: dict[str, list[Node]] = {}  # by step
        for n in graph.nodes():
            if n.shape is not None and not _is_view(n) and step_of(n).digest in at:
                self.values.setdefault(step_of(n).digest, []).append(n)
        self.uses: dict[str, set[int]] = {}  # of values, by position
        for i, step in enumerate(self.order):
            for o in step.operands():
                self.uses.setdefault(_owner(o).digest, set()).add(i)
        ends = [*graph.outputs, *(w.node for w in graph.writes)]
        self.kept = {_owner(n).digest for n in ends} | {n.digest for n in graph.inputs}
        self.memory = np.zeros(len(self.order) + 1, np.int64)
        for step in self.order:
            for v in self.values.get(step.digest, ()):
                if v.digest not in self.kept:
                    self.memory[at[step.digest]:self.last(v) + 1] += size_of(v)

    def last(self, value: Node) -> int:
        """Where a value is read last."""
        if value.digest in self.kept:
            return len(self.order)
        return max(self.uses.get(value.digest, ()), default=self.at.get(step_of(value).digest, 0))

    def most(self) -> int:
        return int(self.memory.max())

    def best(self, worth: float) -> _Choice | None:
        """The largest value that can be made again after the moment of most memory."""
        peak = int(self.memory.argmax())
        found = [(-size_of(v), i, v) for i, step in enumerate(self.order[:peak])
                 for v in self.values.get(step.digest, ()) if size_of(v) >= worth
                 and self.last(v) > peak and (v.digest, peak) not in self.refused]
        for _, _, v in sorted(found, key=lambda f: f[:2]):
            choice = self.choice(v, peak)
            if choice is not None:
                return choice
            self.refused.add((v.digest, peak))
        return None

    def choice(self, value: Node, peak: int) -> _Choice | None:
        if value.digest in self.kept or value.digest in self.chosen:
            return None
        uses = self.uses.get(value.digest, set())
        late = [u for u in uses if u > peak]
        step = step_of(value)
        start = max((u for u in uses if u <= peak), default=self.at[step.digest])
        if not late or not self.is_kernel(step):
            return None
        made = self.made(step, value, min(late))
        found = None if made is None else surveyed(made[0])
        if made is None or found is None or not found.fits or found.cost > _MOST_COST:
            return None
        return _Choice(value, *made, {self.order[u].digest for u in late}, start, min(late))

    def is_kernel(self, step: Node) -> bool:
        return step.kind == "call" and (isinstance(step.op, Fused) or (
            isinstance(step.op, Leaf) and step.op.name not in TEMPLATES))

    def made(self, step: Node, value: Node, until: int) -> tuple[Body, tuple[Node, ...]] | None:
        """A value's body and its operands, all there until then; None where one is not."""
        job = job_of(step, self.values[step.digest])
        if job.numbers:
            return None
        known = {b.digest: n for b, n in zip(job.body.inputs, job.inputs, strict=True)}
        known.update({b.digest: n for b, n in zip(job.body.roots, job.roots, strict=True)
                      if n is not None and n is not value and self.lives(n, until)})
        root = next(b for b, n in zip(job.body.roots, job.roots, strict=True) if n is value)
        body = Body(_needed(job.body, root, set(known)), [root])
        args = tuple(known[n.digest] for n in body.inputs)
        return (body, args) if all(self.lives(n, until) for n in args) else None

    def lives(self, value: Node, until: int) -> bool:
        """Whether a value is in memory at a position without being kept for it."""
        owner = _owner(value)
        return owner.digest not in self.chosen and self.last(owner) >= until

    def take(self, choice: _Choice) -> None:
        self.chosen[choice.value.digest] = choice
        self.memory[choice.start + 1:choice.stop] -= size_of(choice.value)


def _is_view(node: Node) -> bool:
    """Whether a node shows the memory of its first operand."""
    call = node.args[0] if node.kind == "result" else node
    return call is not None and call.kind == "call" and bool(call.op.view)


def _owner(node: Node) -> Node:
    """The value whose memory a view shows."""
    while _is_view(node):
        node = node.args[0]  # type: ignore[assignment]
    return node


def _needed(body: Body, root: Node, known: set[str]) -> list[Node]:
    """The calls of a body that make a root of what is known."""
    calls = {c.digest for c in body.calls}
    found: set[str] = set()
    stack = [root]
    while stack:
        at = base_of(stack.pop())
        call = at.args[0] if at.kind == "result" else at
        if at.digest not in known and call is not None and call.digest in calls - found:
            found.add(call.digest)
            stack += call.operands()
    return [c for c in body.calls if c.digest in found]


class _Repeater(Rewriter):
    """Gives late readers a value that is made for them."""

    def __init__(self, graph: Graph, chosen: dict[str, _Choice]) -> None:
        super().__init__(graph, lambda rewriter, node: node)
        self.chosen = chosen
        self.again: dict[str, Node] = {}
        self.late: dict[str, set[str]] = {}  # by reader: values
        for digest, choice in chosen.items():
            for reader in choice.readers:
                self.late.setdefault(reader, set()).add(digest)

    def copied(self, node: Node) -> Node:
        values = self.late.get(node.digest)
        if values is None:
            return super().copied(node)
        args = tuple(self.turned(a, values) for a in node.args)
        return self.make(node, node.op, args, self.turned(node.attrs, values), node.kind)

    def of(self, node: Node) -> Node:
        """A result may be asked for before its turn; its call has been made."""
        if node.digest not in self.new:
            self.new[node.digest] = self.copied(node)
        return self.new[node.digest]

    def turned(self, value: Any, values: set[str]) -> Any:
        """Operands of a late reader, views of the value included."""
        if value.__class__ in (tuple, list):
            return value.__class__(self.turned(v, values) for v in value)
        if not isinstance(value, Node):
            return value
        if value.digest in values:
            return self.repeated(value)
        if _owner(value).digest not in values:
            return self.of(value)
        args = tuple(self.turned(a, values) for a in value.args)
        return self.make(value, value.op, args, self.turned(value.attrs, values), value.kind)

    def repeated(self, value: Node) -> Node:
        found = self.again.get(value.digest)
        if found is None:
            choice = self.chosen[value.digest]
            call = self.interner.make("call", Fused(choice.body, True), tuple(
                map(self.of, choice.args)), (), None, None)
            call.where = step_of(value).where
            found = self.again[value.digest] = self.interner.make(
                "result", None, (call,), (0,), value.shape, value.dtype)
        return found
