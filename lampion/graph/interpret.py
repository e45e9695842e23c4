"""The meaning of a graph: every operator's NumPy reference, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .node import Graph, Node

__all__ = ["interpret"]


def interpret(graph: Graph, values: Sequence[Any],
              apply: Callable[[Any, tuple[Any, ...], tuple[Any, ...]], Any],
              numbers: Sequence[float] = ()) -> tuple[list[Any], list[Any]]:
    """Runs the graph on the inputs' `values`; returns the outputs and the values to write.

    `apply(op, args, attrs)` runs one operator (graphs know operators only by their record).
    """
    for what, given, wanted in (("inputs", values, graph.inputs),
                                ("numbers", numbers, graph.numbers)):
        if len(given) != len(wanted):
            raise ValueError(f"graph {graph.name} takes {len(wanted)} {what}, received "
                             f"{len(given)}")
    known = {n.digest: v for n, v in zip([*graph.inputs, *graph.numbers], [*values, *numbers],
                                         strict=True)}
    for node in graph.nodes():
        if node.digest in known:
            continue
        args = tuple(_value(a, known) for a in node.args)
        if node.kind == "result":
            known[node.digest] = args[0][node.attrs[0]]
        else:
            attrs = node.attrs[1:] if node.kind == "draw" else node.attrs
            known[node.digest] = apply(node.op, args, _value(attrs, known))
    return ([known[n.digest] for n in graph.outputs],
            [known[w.node.digest] for w in graph.writes])


def _value(value: Any, known: dict[str, Any]) -> Any:
    if isinstance(value, Node):
        return known[value.digest]
    if isinstance(value, (tuple, list)):
        return type(value)(_value(v, known) for v in value)
    return value
