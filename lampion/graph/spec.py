"""What is legal at the graph level."""

from __future__ import annotations

from .node import Graph, Node

__all__ = ["check", "IllegalGraph"]


class IllegalGraph(AssertionError):
    """A graph breaks a rule of its level: a bug of lampion, never of the user."""


def check(graph: Graph) -> None:
    """Raises IllegalGraph unless the graph is well formed."""
    order = graph.nodes()
    seen: set[str] = set()
    given = {n.digest for n in (*graph.inputs, *graph.numbers)}
    drawn = [n.digest for n in graph.draws]
    for node in order:
        _check_node(node, seen, given)
        if node.kind == "draw" and node.digest not in drawn:
            raise IllegalGraph("a draw that the graph does not list")
        seen.add(node.digest)
    turns = [n.attrs[0] for n in graph.draws]
    if turns != sorted(set(turns)):
        raise IllegalGraph(f"draws out of turn: {turns}")
    for w in graph.writes:
        if not 0 <= w.target < len(graph.inputs):
            raise IllegalGraph(f"a write to input {w.target} of {len(graph.inputs)}")
        target = graph.inputs[w.target]
        if (w.node.shape, w.node.dtype) != (target.shape, target.dtype):
            raise IllegalGraph(f"a write of {w.node.dtype}{list(w.node.shape)} to input "
                               f"{graph.names[w.target]}: {target.dtype}{list(target.shape)}")


def _check_node(node: Node, seen: set[str], given: set[str]) -> None:
    if node.kind in ("input", "number"):
        if node.digest not in given:
            raise IllegalGraph(f"an {node.kind} that the graph does not list")
        return
    for operand in node.operands():
        if operand.digest not in seen:
            raise IllegalGraph(f"{node.op and node.op.name} uses a value before it is made")
    if node.kind == "result":
        if len(node.args) != 1 or node.args[0] is None or node.args[0].kind != "call":
            raise IllegalGraph("a result must belong to one call")
        return
    if node.kind not in ("call", "draw"):
        raise IllegalGraph(f"unknown kind of node {node.kind!r}")
    if not node.op.takes_list and len(node.args) != node.op.n_tensors:
        raise IllegalGraph(f"{node.op.name} takes {node.op.n_tensors} tensors, got "
                           f"{len(node.args)}")
    n_attrs = len(node.attrs) - (node.kind == "draw")
    if n_attrs != len(node.op.params) - node.op.n_tensors:
        raise IllegalGraph(f"{node.op.name} takes attributes {node.op.params[node.op.n_tensors:]},"
                           f" got {n_attrs}")
