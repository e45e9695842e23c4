"""How results lie in memory when a graph runs eagerly: what a user of strides expects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph.node import Graph, Node
from ..ops.layout import order_of
from ..ops.native import TEMPLATES
from ..tensor.abstract import AbstractArray

__all__ = ["strides_of"]


def strides_of(graph: Graph, examples: Sequence[Any]) -> list[tuple[int, ...]]:
    """The strides of every output, in bytes."""
    known = {n.digest: AbstractArray(a.shape, a.dtype, a.strides)
             for n, a in zip(graph.inputs, examples, strict=True)}
    return [_layout(n, known).strides for n in graph.outputs]


def _layout(node: Node, known: dict[str, Any]) -> Any:
    """An array without memory that lies as the node's value does."""
    stack = [node]
    while stack:
        at = stack[-1]
        needed = [] if _is_plain(at) or at.digest in known else [
            a for a in at.args if isinstance(a, Node) and a.digest not in known]
        if needed:
            stack += needed
        else:
            stack.pop()
            if at.digest not in known:
                known[at.digest] = _made(at, known)
    return known[node.digest]


def _is_plain(node: Node) -> bool:
    """Whether there is only one way to lie."""
    return node.shape is not None and sum(n > 1 for n in node.shape) < 2


def _made(node: Node, known: dict[str, Any]) -> Any:
    if node.shape is None:
        return _several(node, known)
    if _is_plain(node):
        return AbstractArray(tuple(node.shape), node.dtype)  # type: ignore[arg-type]
    if node.kind == "result":
        several = known[node.args[0].digest]  # type: ignore[union-attr]
        return several.like(node) if several.__class__ is _Each else several[node.attrs[0]]
    if node.op.name == "read_window":  # of a value that is dense
        assert node.dtype is not None
        size, steps, _ = node.attrs
        return AbstractArray(size, node.dtype, tuple(s * node.dtype.itemsize for s in steps))
    args = [known[a.digest] for a in node.args if isinstance(a, Node)]
    return _viewed(node, args[0]) if node.op.view else _settled(node, args)


def _several(node: Node, known: dict[str, Any]) -> Any:
    """A call with several results: of a view its windows, else what each result is by itself."""
    args = [known[a.digest] for a in node.args if isinstance(a, Node)]
    return _viewed(node, args[0]) if node.op.view else _Each(node, args)


class _Each:
    """Results of one call, by number; their shapes stand in their own nodes."""

    def __init__(self, node: Node, args: list[Any]) -> None:
        self.node, self.args = node, args

    def like(self, result: Node) -> Any:
        return _settled(self.node, self.args, result)


def _viewed(node: Node, array: Any) -> Any:
    """The window of a view; rows where memory does not allow it."""
    try:
        return node.op.kernel(array, *node.attrs)
    except (RuntimeError, AssertionError):
        return AbstractArray(tuple(node.shape), node.dtype)  # type: ignore[arg-type]


def _settled(node: Node, args: list[Any], result: Node | None = None) -> Any:
    """As `ops/layout.py:settled` lays out a result."""
    result = node if result is None else result
    shape, dtype = tuple(result.shape), result.dtype
    assert dtype is not None
    if node.op.name == "clone":
        rows = node.attrs[0] is not None
    else:
        rows = node.op.name in TEMPLATES or node.kind == "draw"
    order = list(range(len(shape))) if rows else order_of(shape, args)
    strides, step = [0] * len(shape), dtype.itemsize
    for d in reversed(order):
        strides[d] = step
        step *= max(shape[d], 1)
    return AbstractArray(shape, dtype, tuple(strides))
