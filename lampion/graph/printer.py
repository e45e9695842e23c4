"""Graphs as text."""

from __future__ import annotations

import json
import re
from typing import Any

from .node import Graph, Node

__all__ = ["to_text"]


def type_text(node: Node) -> str:
    """`float32[3, 4]`; several results have no type of their own."""
    return "" if node.dtype is None else f"{node.dtype.name}{list(node.shape)}"


def to_text(graph: Graph) -> str:
    """The whole graph, one node a line, in order of execution."""
    names = {n.digest: _name(name) for n, name in zip(graph.inputs, graph.names, strict=True)}
    names.update((n.digest, f"%number{i}") for i, n in enumerate(graph.numbers))
    header = ", ".join(f"{names[n.digest]}: {type_text(n)}" for n in graph.inputs)
    header += "".join(f", {names[n.digest]}" for n in graph.numbers)
    lines = [f"graph {graph.name}({header}):"]
    count, taken = len(names), set(names.values())
    for node in graph.nodes():
        if node.digest not in names:
            while f"%{count}" in taken:
                count += 1
            names[node.digest], count = f"%{count}", count + 1
            lines.append(f"  {names[node.digest]} = {_call_text(node, names)}"
                         f"{_suffix(type_text(node))}")
    for w in graph.writes:
        mark = ".grad" if w.what == "grad" else ""
        lines.append(f"  write {_name(graph.names[w.target])}{mark} <- {names[w.node.digest]}")
    lines.append(f"  return {', '.join(names[n.digest] for n in graph.outputs)}")
    return "\n".join(lines)


def _name(name: str) -> str:
    return f"%{name}" if re.fullmatch(r"[\w.]+", name) else f"%{json.dumps(name)}"


def _suffix(text: str) -> str:
    return f" : {text}" if text else ""


def _call_text(node: Node, names: dict[str, str]) -> str:
    args = [_value_text(a, names) for a in node.args]
    if node.kind == "result":
        return f"{args[0]}[{node.attrs[0]}]"
    labels = node.op.params[node.op.n_tensors:]
    if node.op.takes_list:
        args = [f"[{', '.join(args)}]"]
    attrs = node.attrs[1:] if node.kind == "draw" else node.attrs
    named = [f"{k}={_value_text(v, names)}" for k, v in zip(labels, attrs, strict=True)]
    return f"{node.op.name}({', '.join(args + named)})"


def _value_text(value: Any, names: dict[str, str]) -> str:
    if isinstance(value, Node):
        return names[value.digest]
    if isinstance(value, (tuple, list)):
        inner = ", ".join(_value_text(v, names) for v in value)
        return f"({inner})"
    if isinstance(value, complex):
        return f"complex({value.real!r}, {value.imag!r})"
    return repr(value)
