"""From a graph to a program that runs: an ordered list of passes, then lowering.

Every pass takes a graph and gives one with the same meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..graph.node import Graph
from .executable import Executable, lower
from .fuse import fuse
from .layout import strides_of
from .simplify import merge_equal, simplify

__all__ = ["PASSES", "Executable", "Pass", "compile_graph"]


class Pass(NamedTuple):
    """A step from graph to graph."""

    name: str
    run: Callable[[Graph], Graph]
    doc: str


PASSES = [
    Pass("simplify", simplify, "takes out what changes no bit"),
    Pass("merge", merge_equal, "computes equal values once"),
    Pass("fuse", fuse, "puts groups of operators into one kernel each"),
]


def compile_graph(graph: Graph, examples: Sequence[Any], drop: Sequence[str] = ()) -> Executable:
    """The native program of a graph.

    examples: an array for every input; only layout and what shares memory matter. drop: names of
    passes to leave out.
    """
    strides = strides_of(graph, examples)
    for p in PASSES:
        if p.name not in drop:
            graph = p.run(graph)
    return lower(graph, examples, strides)
