"""Making a graph anew, node by node, with some nodes replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from ..graph.node import Graph, Interner, Node, Write

__all__ = ["Rewriter"]


class Rewriter:
    """Copies a graph from its inputs on; a rule sees every node with its operands replaced.

    rule(rewriter, node) gives the node itself, or one to stand in its place.
    """

    def __init__(self, graph: Graph, rule: Callable[[Rewriter, Node], Node]) -> None:
        self.old, self.rule = graph, rule
        self.interner = Interner()
        self.new: dict[str, Node] = {}  # by digest of the old node
        self.needed: Counter[str] = Counter()  # how often the old nodes behind a new one are used

    def graph(self) -> Graph:
        """The new graph; writes of an input to itself are gone."""
        nodes = self.old.nodes()
        count = Counter(operand.digest for node in nodes for operand in node.operands())
        count.update(n.digest for n in (*self.old.outputs, *(w.node for w in self.old.writes)))
        for node in nodes:
            made = self.new[node.digest] = self.rule(self, self.copied(node))
            self.needed[made.digest] += count[node.digest]
        of = self.of
        writes = [Write(w.what, w.target, of(w.node)) for w in self.old.writes]
        inputs = [of(n) for n in self.old.inputs]
        kept = [w for w in writes if w.what != "data" or w.node is not inputs[w.target]]
        return Graph(self.old.name, inputs, self.old.names, [of(n) for n in self.old.outputs],
                     kept, [of(n) for n in self.old.numbers], [of(n) for n in self.old.draws])

    def of(self, node: Node) -> Node:
        """What stands for an old node."""
        return self.new[node.digest]

    def copied(self, node: Node) -> Node:
        """The node with new operands; the same object where none has changed."""
        new = self.new
        args = tuple([new[a.digest] if a.__class__ is Node else a for a in node.args])
        if node.inner:
            return self.make(node, node.op, args, self.replaced(node.attrs), node.kind)
        made = self.interner.with_args(node, args)
        if made.where is None:
            made.where = node.where
        return made

    def replaced(self, value: Any) -> Any:
        """Nested values with new nodes."""
        if isinstance(value, Node):
            return self.of(value)
        if value.__class__ not in (tuple, list):
            return value
        return value.__class__(map(self.replaced, value))

    def make(self, like: Node, op: Any, args: tuple[Any, ...], attrs: tuple[Any, ...],
             kind: str = "call") -> Node:
        """A node of the shape, dtype and line of another."""
        made = self.interner.make(kind, op, args, attrs, like.shape, like.dtype)
        if made.where is None:
            made.where = like.where
        return made
