"""Nodes and graphs. Nodes are immutable and interned: equal nodes are one object."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from operator import is_
from typing import Any

import numpy as np

__all__ = ["Node", "Graph", "Write", "Interner", "name_of", "nodes_in", "stable"]


class Node:
    """One value of a graph: an operator applied to values, a result of one, or given at each run.

    kind: "input" (attrs: its place), "number" (a float that every run brings along; attrs: its
    place; it stands inside the attributes of calls), "call" (attrs of the operator), "draw" (a call
    of a random operator; attrs: its turn, then those of the operator), "result" (attrs: which of
    several results of its only argument).

    where: the user's line that asked for it, or None; equal nodes keep the first.
    """

    __slots__ = ("kind", "op", "args", "attrs", "shape", "dtype", "digest", "where", "inner",
                 "_facts", "_operands")

    def __init__(self, kind: str, op: Any, args: tuple[Node | None, ...], attrs: tuple[Any, ...],
                 shape: Any, dtype: np.dtype[Any] | None, digest: str,
                 facts: str | None = None) -> None:
        self.kind, self.op, self.args, self.attrs = kind, op, args, attrs
        self.shape, self.dtype, self.digest = shape, dtype, digest
        self.where: Any = None
        self._facts = facts
        self.inner = tuple(nodes_in(attrs)) if attrs else ()  # operands inside attributes
        self._operands = (*[a for a in args if a.__class__ is Node], *self.inner)

    @property
    def facts(self) -> str:
        """The part of the content that is no argument, as a text."""
        if self._facts is None:
            self._facts = _facts(self.kind, self.op, self.attrs, self.shape, self.dtype)
        return self._facts

    def operands(self) -> tuple[Node, ...]:
        """Every node that this one needs, those inside attributes included."""
        return self._operands


def _facts(kind: str, op: Any, attrs: tuple[Any, ...], shape: Any,
           dtype: np.dtype[Any] | None) -> str:
    name = "" if op is None else op.name
    return f"{kind}|{name}|{stable(attrs)}|{shape}|{name_of(dtype)}"


def nodes_in(value: Any) -> list[Node]:
    """The nodes inside nested attributes (index tensors travel there)."""
    found: list[Node] = []
    _collect(value if isinstance(value, (tuple, list)) else (value,), found)
    return found


def _collect(values: Any, found: list[Node]) -> None:
    for x in values:
        kind = x.__class__
        if kind is Node:
            found.append(x)
        elif kind is not int and isinstance(x, (tuple, list)):
            _collect(x, found)


class Write:
    """An effect: after the run, `target` (an input's number) holds the value of `node`.

    what: "data" for an in-place write, "grad" for an accumulated gradient.
    """

    __slots__ = ("what", "target", "node")

    def __init__(self, what: str, target: int, node: Node) -> None:
        self.what, self.target, self.node = what, target, node


class Interner:
    """Makes nodes; the same content gives the same node, known by its content hash."""

    def __init__(self) -> None:
        self.table: dict[str, Node] = {}

    def make(self, kind: str, op: Any, args: tuple[Node | None, ...], attrs: tuple[Any, ...],
             shape: Any, dtype: np.dtype[Any] | None) -> Node:
        """The node with this content."""
        return self._found(kind, op, args, attrs, shape, dtype,
                           _facts(kind, op, attrs, shape, dtype))

    def with_args(self, node: Node, args: tuple[Node | None, ...]) -> Node:
        """The node with other arguments; the same object where they are its own."""
        if all(map(is_, args, node.args)):
            return self.table.setdefault(node.digest, node)
        return self._found(node.kind, node.op, args, node.attrs, node.shape, node.dtype, node.facts)

    def _found(self, kind: str, op: Any, args: tuple[Node | None, ...], attrs: tuple[Any, ...],
               shape: Any, dtype: np.dtype[Any] | None, facts: str) -> Node:
        text = f"{stable(args)}|{facts}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:24]
        found = self.table.get(digest)
        if found is None:
            found = self.table[digest] = Node(kind, op, args, attrs, shape, dtype, digest, facts)
        return found


@lru_cache(256)
def name_of(dtype: np.dtype[Any] | None) -> str:
    """Of a dtype: NumPy makes it anew each time."""
    return str(dtype)


def stable(value: Any) -> str:
    """A text that is equal for equal content, in every process."""
    kind = value.__class__
    if kind is Node:
        return value.digest  # type: ignore[no-any-return]
    if kind is int:
        return f"int:{value}"
    if isinstance(value, (tuple, list)):
        return f"({','.join([stable(x) for x in value])})"
    return f"{type(value).__name__}:{value!r}"


class Graph:
    """A captured program: inputs, outputs, writes; nodes in an order that respects operands.

    numbers: floats given at each run. draws: random operators in their turn; every run makes all.
    """

    __slots__ = ("name", "inputs", "names", "outputs", "writes", "numbers", "draws", "_order")

    def __init__(self, name: str, inputs: list[Node], names: list[str], outputs: list[Node],
                 writes: list[Write], numbers: list[Node] | None = None,
                 draws: list[Node] | None = None,
                 order: tuple[Node, ...] | None = None) -> None:
        """order: of all nodes, where it is known; see `nodes`."""
        self.name, self.inputs, self.names = name, inputs, names
        self.outputs, self.writes = outputs, writes
        self.numbers, self.draws = numbers or [], draws or []
        self._order = order

    def nodes(self) -> tuple[Node, ...]:
        """All nodes that the outputs, writes and draws need, operands first.

        The first call fixes them: a graph is changed only while it is made.
        """
        if self._order is None:
            self._order = tuple(self._ordered())
        return self._order

    def pruned(self, first: int = 0) -> tuple[Graph, list[int]]:
        """The graph without inputs that nothing needs, but for the first; places of those kept."""
        writes, targets = self.writes, {w.target for w in self.writes}
        used = {n.digest for n in Graph("", [], [], self.outputs, writes, None, self.draws).nodes()}
        keep = [i for i, n in enumerate(self.inputs)
                if i < first or i in targets or n.digest in used]
        place = {old: new for new, old in enumerate(keep)}
        writes = [Write(w.what, place[w.target], w.node) for w in writes]
        return Graph(self.name, [self.inputs[i] for i in keep], [self.names[i] for i in keep],
                     self.outputs, writes, self.numbers, self.draws), keep

    def _ordered(self) -> list[Node]:
        order: list[Node] = []
        done: set[str] = set()
        stack = [(n, False) for n in reversed([*self.inputs, *self.numbers, *self.draws,
                                               *self.outputs, *(w.node for w in self.writes)])]
        while stack:
            node, ready = stack.pop()
            if node.digest in done:
                continue
            if ready:
                done.add(node.digest)
                order.append(node)
                continue
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.operands()))
        return order

    def __str__(self) -> str:
        from .printer import to_text

        return to_text(self)
