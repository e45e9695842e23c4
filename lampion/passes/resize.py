"""What the passes gave for a graph, given again for one that differs from it in sizes alone.

Passes decide by operators, by which sizes are equal, and by which numbers are; how large sizes are
is a matter of speed, and they make no numbers of their own, which tests check. So where two graphs
are the same node by node, and one-to-one maps of sizes and of numbers lead from one to the other,
the passes' result for the first, with its sizes and numbers mapped, is one of the same meaning as
the second. 0, 1 and -1 are mapped to themselves. Anything else is left to the passes.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from ..graph.node import Graph, Node, Write, name_of, stable
from .body import Body
from .fused import Fused
from .schedule import size_of

__all__ = ["Known", "Resized", "structure_of"]

# Views whose attributes say which axes they are about.
_OF_AXES = frozenset(("t", "transpose", "permute", "squeeze", "unsqueeze"))
_KEPT = (0, 1, -1)
_MOST = 16  # structures that are remembered


class _Differs(Exception):
    """The graphs differ in more than sizes."""


class Structure(NamedTuple):
    """What a graph is but for sizes and numbers, and about how large: within a factor of four."""

    key: Hashable
    nodes: tuple[Node, ...]


def structure_of(graph: Graph) -> Structure:
    """That of a graph."""
    nodes, places = graph.nodes(), dict[str, int]()
    rows: list[Hashable] = []
    for i, n in enumerate(nodes):
        places[n.digest] = i
        rows.append((n.kind, n.op, name_of(n.dtype), None if n.shape is None else len(n.shape),
                     *[places[a.digest] if a.__class__ is Node else a.__class__ for a in n.args],
                     None, *[places[a.digest] for a in n.inner]))
    ends = [[places[n.digest] for n in some] for some in (
        graph.inputs, graph.outputs, graph.numbers, graph.draws)]
    writes = [(w.what, w.target, places[w.node.digest]) for w in graph.writes]
    size = sum(map(size_of, nodes)).bit_length() // 2
    return Structure((tuple(rows), str(ends), str(writes), size), nodes)


class _Maps:
    """Sizes and numbers of one graph as those of another."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self.back: dict[int, int] = {}
        self.scalars: dict[Hashable, Any] = {}  # by operator, place among its attributes and value
        self.origin: dict[Hashable, Any] = {}
        self.seen: set[tuple[Hashable, str, str]] = set()

    def pair(self, a: Node, b: Node) -> None:
        """Adds what two nodes tell."""
        if any(x.__class__ is not Node and x is not None for x in a.args):
            self.values((a.op, "args"), a.args, b.args)
        facts = a.op, a.facts, b.facts
        if facts in self.seen:
            return
        self.seen.add(facts)
        for x, y in zip(a.shape or (), b.shape or (), strict=True):
            self.size(x, y)
        fixed = 1 if a.kind == "draw" else 0 if (
            a.kind == "call" and a.op.name not in _OF_AXES) else len(a.attrs)
        if stable(a.attrs[:fixed]) != stable(b.attrs[:fixed]):
            raise _Differs
        if a.kind in ("call", "draw"):
            self.values((a.op,), a.attrs, b.attrs)

    def size(self, x: int, y: int) -> None:
        if self.sizes.setdefault(x, y) != y or self.back.setdefault(y, x) != x or (
                x != y and (x in _KEPT or y in _KEPT)):
            raise _Differs

    def values(self, path: tuple[Any, ...], a: Any, b: Any) -> None:
        """Nested attributes; nodes among them are part of the structure."""
        if a.__class__ is not b.__class__:
            raise _Differs
        if a.__class__ in (tuple, list):
            if len(a) != len(b):
                raise _Differs
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                self.values((*path, i), x, y)
        elif a.__class__ in (int, float):
            self.scalar(path, a, b)
        elif a.__class__ is not Node and a is not b and stable(a) != stable(b):
            raise _Differs

    def scalar(self, path: tuple[Any, ...], a: Any, b: Any) -> None:
        x, y = repr(a), repr(b)
        if repr(self.scalars.setdefault((path, x), b)) != y or (
                self.origin.setdefault((path, y), x) != x) or (
                x != y and (a in _KEPT or b in _KEPT)):
            raise _Differs

    # --- as they are in the other graph -----------------------------------------------------------

    def shape(self, shape: Any) -> Any:
        if shape is None:
            return None
        try:
            return tuple([self.sizes[n] for n in shape])
        except KeyError:
            raise _Differs from None

    def value(self, path: tuple[Any, ...], value: Any, nodes: dict[str, Node]) -> Any:
        """Nested attributes of the other graph."""
        if value.__class__ is Node:
            return nodes[value.digest]
        if value.__class__ in (tuple, list):
            return value.__class__([self.value((*path, i), x, nodes)
                                    for i, x in enumerate(value)])
        if value.__class__ not in (int, float):
            return value
        try:
            return self.scalars[path, repr(value)]
        except KeyError:
            raise _Differs from None


class Known:
    """Graphs that the passes have been over, by structure, with what they gave."""

    def __init__(self) -> None:
        # Several threads may plan: each step on the table is one that cannot be interrupted.
        self.table: dict[Hashable, tuple[tuple[Node, ...], Graph, int]] = {}

    def note(self, structure: Structure, result: Graph, hosts: int) -> None:
        """hosts: steps of the result that run in Python."""
        self.table.pop(structure.key, None)
        self.table[structure.key] = structure.nodes, result, hosts
        for oldest in list(self.table)[:-_MOST]:
            self.table.pop(oldest, None)

    def find(self, structure: Structure, graph: Graph) -> tuple[Graph, int] | None:
        """What the passes give for a graph, and the steps in Python; None where that is unknown."""
        known = self.table.pop(structure.key, None)
        if known is None:
            return None
        self.table[structure.key] = known  # as the one that was used last
        nodes, result, hosts = known
        maps = _Maps()
        try:
            for a, b in zip(nodes, structure.nodes, strict=True):
                maps.pair(a, b)
            return Resized(maps, result).graph(graph), hosts
        except _Differs:
            return None


class Resized:
    """A graph with other sizes. Its nodes keep their digests, which tell them apart as before."""

    def __init__(self, maps: _Maps, old: Graph) -> None:
        self.maps, self.old = maps, old
        self.new: dict[str, Node] = {}
        self.bodies: dict[str, Body] = {}  # by key of the old one

    def graph(self, like: Graph) -> Graph:
        """like: the graph of these sizes before the passes."""
        old, new = self.old, self.new
        for n in old.nodes():
            new[n.digest] = self.node(n, new)
        of = [[new[n.digest] for n in some]
              for some in (old.inputs, old.outputs, old.numbers, old.draws)]
        writes = [Write(w.what, w.target, new[w.node.digest]) for w in old.writes]
        return Graph(like.name, of[0], like.names, of[1], writes, of[2], of[3],
                     tuple([new[n.digest] for n in old.nodes()]))

    def node(self, n: Node, known: dict[str, Node]) -> Node:
        """One node, after its operands."""
        maps, shape = self.maps, self.maps.shape(n.shape)
        args = tuple([known[a.digest] if a.__class__ is Node else a if a is None
                      else maps.value((n.op, "args", i), a, known) for i, a in enumerate(n.args)])
        op = n.op if n.op.__class__ is not Fused else Fused(self.body(n.op.body), n.op.again)
        made = Node(n.kind, op, args, self.attrs(n, shape, known), shape, n.dtype, n.digest)
        made.where = n.where
        return made

    def attrs(self, n: Node, shape: Any, known: dict[str, Node]) -> Any:
        if n.kind in ("input", "number", "result") or n.op.name in _OF_AXES:
            return n.attrs
        if n.op.__class__ is Fused:
            return tuple([known[a.digest] for a in n.attrs])
        if n.op.name == "view":  # which passes may have made
            return (shape,)
        return self.maps.value((n.op,), n.attrs, known)

    def body(self, body: Body) -> Body:
        """Equal bodies are one."""
        found = self.bodies.get(body.key)
        if found is None:
            inside: dict[str, Node] = {}
            for n in (*body.inputs, *body.numbers):
                inside[n.digest] = Node("input" if n.kind != "number" else n.kind, None, (), n.attrs
                                        if n.kind == "number" else (), self.maps.shape(n.shape),
                                        n.dtype, n.digest)
            found = self.bodies[body.key] = Body([self.inner(c, inside) for c in body.calls],
                                                 [self.inner(r, inside) for r in body.roots])
        return found

    def inner(self, node: Node, inside: dict[str, Node]) -> Node:
        """A node of a body, after its operands."""
        stack = [node]
        while stack:
            at = stack[-1]
            missing = [a for a in at.operands() if a.digest not in inside
                       ] if at.digest not in inside else []
            stack += missing
            if not missing:
                stack.pop()
                if at.digest not in inside:
                    inside[at.digest] = self.node(at, inside)
        return inside[node.digest]
