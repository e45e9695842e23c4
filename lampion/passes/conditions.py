"""What holds of a graph before and after passes: each raises IllegalGraph where it does not."""

from __future__ import annotations

from collections.abc import Iterable

from ..graph.node import Graph, Node
from ..graph.spec import IllegalGraph, check
from .body import surveyed
from .fused import Fused

__all__ = ["is_merged", "is_simple", "is_well_formed", "kernels_fit"]

_ONCE = frozenset(("view", "permute"))  # two of them in a row are one
_SPELLINGS = frozenset(("t", "transpose", "unsqueeze", "squeeze", "alias", "clone"))
_EITHER_WAY = frozenset(("add", "mul"))


def is_well_formed(graph: Graph) -> None:
    """Values are made before they are used, writes have the type of what they change."""
    check(graph)


def _calls(graph: Graph) -> Iterable[Node]:
    return (n for n in graph.nodes() if n.kind == "call")


def is_simple(graph: Graph) -> None:
    """Views are `view` or `permute` and never in a row; no copy of a value in its own dtype."""
    for n in _calls(graph):
        first = n.args[0] if n.args else None
        if n.op.name in _SPELLINGS and n.shape == getattr(first, "shape", None):
            raise IllegalGraph(f"{n.op.name} is left in a simplified graph")
        if n.op.name in _ONCE and isinstance(first, Node) and first.kind == "call" and (
                first.op is n.op):
            raise IllegalGraph(f"{n.op.name} of {n.op.name} is left in a simplified graph")


def is_merged(graph: Graph) -> None:
    """No sum or product is there in both orders."""
    seen: dict[tuple[str, frozenset[str]], str] = {}
    for n in _calls(graph):
        if n.op.name in _EITHER_WAY and all(isinstance(a, Node) for a in n.args):
            key = n.op.name, frozenset(a.digest for a in n.args if a is not None)
            if seen.setdefault(key, n.digest) != n.digest:
                raise IllegalGraph(f"{n.op.name} of the same values in both orders")


def kernels_fit(graph: Graph) -> None:
    """Every group is one kernel."""
    for n in _calls(graph):
        if isinstance(n.op, Fused):
            found = surveyed(n.op.body)
            if found is None or not found.fits:
                raise IllegalGraph(f"{n.op.name} is no kernel")
