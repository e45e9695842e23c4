"""Simplification: what a call gives without computing, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..graph.node import Graph, Node
from ..ops.record import LEAVES
from .rewrite import Rewriter

__all__ = ["simplify", "merge_equal"]

Rule = Callable[[Rewriter, Node], Node]
_RULES: dict[str, Rule] = {}


def _rule(names: str) -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(names.split(), rule))
        return rule
    return add


def simplify(graph: Graph) -> Graph:
    """Takes out what changes nothing: copies, x * 1, views of views, turned products.

    NaNs and the signs of zeros stay what they are. Where copies were asked for to have memory of
    one's own, lowering gives every result and every written input its own.
    """
    def apply(rewriter: Rewriter, node: Node) -> Node:
        while node.kind == "call":
            rule = _RULES.get(node.op.name)
            simpler = node if rule is None else rule(rewriter, node)
            if simpler is node:
                break
            node = simpler
        return node

    return Rewriter(graph, apply).graph()


def _same_type(a: Any, b: Node) -> bool:
    return isinstance(a, Node) and a.shape == b.shape and a.dtype == b.dtype


@_rule("clone to_copy to_device alias expand")
def _unchanged(r: Rewriter, node: Node) -> Node:
    """A copy, cast or expansion to what its operand is."""
    first = node.args[0]
    return first if _same_type(first, node) else node  # type: ignore[return-value]


# --- numbers that change nothing --------------------------------------------------------------


def _is(value: Any, number: float) -> bool:
    """Whether a Python number is this one, the sign of zeros included."""
    return value.__class__ in (int, float) and str(float(value)) == str(float(number))


@_rule("mul")
def _times_one(r: Rewriter, node: Node) -> Node:
    for one, other in (node.args, node.args[::-1]):
        if _is(one, 1) and _same_type(other, node):
            return other  # type: ignore[return-value]
    return node


@_rule("div")
def _over_one(r: Rewriter, node: Node) -> Node:
    first, second = node.args
    return first if _is(second, 1) and _same_type(first, node) else node  # type: ignore[return-value]


@_rule("sub")
def _minus_zero(r: Rewriter, node: Node) -> Node:
    first, second = node.args
    return first if _is(second, 0) and _same_type(first, node) else node  # type: ignore[return-value]


@_rule("neg")
def _negated_twice(r: Rewriter, node: Node) -> Node:
    first = node.args[0]
    twice = isinstance(first, Node) and first.kind == "call" and first.op is node.op
    return first.args[0] if twice else node  # type: ignore[return-value, union-attr]


# --- views ------------------------------------------------------------------------------------


def _is_call(node: Any, name: str) -> bool:
    return isinstance(node, Node) and node.kind == "call" and node.op.name == name


@_rule("view unsqueeze squeeze")
def _reshaped(r: Rewriter, node: Node) -> Node:
    """One view with all its sizes written out; none to the same shape."""
    first = node.args[0]
    assert first is not None
    while _is_call(first, "view"):
        first = first.args[0]
        assert first is not None
    if _same_type(first, node):
        return first
    if node.op.name == "view" and first is node.args[0] and node.attrs == (node.shape,):
        return node
    return r.make(node, LEAVES["view"], (first,), (tuple(node.shape),))


@_rule("t transpose permute")
def _turned(r: Rewriter, node: Node) -> Node:
    """One permutation of the axes, or none; of a product: the product the other way around."""
    first, order = node.args[0], _order(node)
    assert first is not None
    while _is_call(first, "permute"):
        order = tuple(first.attrs[0][d] for d in order)
        first = first.args[0]
        assert first is not None
    if order == tuple(range(len(order))):
        return first
    if order == (1, 0) and _is_call(first, "mm") and r.needed[first.digest] == 1:
        return _product(r, node, first)
    if node.op.name == "permute" and first is node.args[0] and node.attrs == (order,):
        return node
    return r.make(node, LEAVES["permute"], (first,), (order,))


def _order(node: Node) -> tuple[int, ...]:
    """Which axis of the operand each axis is."""
    ndim = len(node.shape)
    order = list(range(ndim))
    if node.op.name == "permute":
        return tuple(int(d) % ndim for d in node.attrs[0])
    if ndim > 1:
        a, b = (0, 1) if node.op.name == "t" else node.attrs
        order[a], order[b] = order[b], order[a]
    return tuple(order)


def _product(r: Rewriter, node: Node, product: Node) -> Node:
    """(a @ b).T = b.T @ a.T: the same sums, written as they will be read."""
    def turned(m: Any) -> Node:
        made = r.interner.make("call", LEAVES["permute"], (m,), ((1, 0),), m.shape[::-1], m.dtype)
        return _turned(r, made)
    a, b = product.args
    return r.make(node, product.op, (turned(b), turned(a)), ())


# --- equal values -----------------------------------------------------------------------------


_EITHER_WAY = frozenset(("add", "mul", "eq", "ne", "logical_and", "logical_or", "bitwise_and",
                         "bitwise_or", "bitwise_xor"))


def merge_equal(graph: Graph) -> Graph:
    """Common subexpressions: a + b and b + a are computed once.

    Equal calls are one node already; this finds those that differ by the order of operands whose
    order changes no bit.
    """
    known: dict[Any, Node] = {}

    def apply(rewriter: Rewriter, node: Node) -> Node:
        if node.kind != "call" or node.op.name not in _EITHER_WAY or len(node.args) != 2 or not all(
                isinstance(a, Node) for a in node.args):
            return node
        pair = frozenset(a.digest for a in node.args if a is not None)
        return known.setdefault((node.op.name, pair, str(node.attrs), str(node.dtype)), node)

    return Rewriter(graph, apply).graph()
