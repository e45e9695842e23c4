"""From a graph to a program that runs: an ordered list of passes, then lowering.

Every pass takes a graph and gives one of the same meaning; the last one puts the launches that
lowering gives in order. A pass says what must hold before and what holds after; a test checks both
on many graphs, and that results stay when a pass is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from ..graph.node import Graph
from ..runtime.collector import uncollected
from .beside import Arrangement, Launches, check_arrangement, check_launches, side_by_side
from .conditions import is_merged, is_simple, is_well_formed, kernels_fit
from .executable import Executable, lower
from .fuse import fuse
from .layout import strides_of
from .recompute import recompute
from .resize import Known, structure_of
from .simplify import merge_equal, simplify

__all__ = ["BESIDE", "PASSES", "Executable", "LaunchPass", "Pass", "compile_graph"]

Condition = Callable[[Graph], None]


class Pass(NamedTuple):
    """A step from graph to graph. Conditions raise `graph.spec.IllegalGraph` where they fail."""

    name: str
    run: Callable[[Graph], Graph]
    requires: tuple[Condition, ...]
    ensures: tuple[Condition, ...]
    optional: bool
    doc: str


PASSES = [
    Pass("simplify", simplify, (is_well_formed,), (is_well_formed, is_simple), True,
         "takes out copies, x * 1, views of views: what changes no bit"),
    Pass("merge", merge_equal, (is_well_formed,), (is_well_formed, is_merged), True,
         "computes a + b and b + a once"),
    Pass("fuse", fuse, (is_well_formed,), (is_well_formed, kernels_fit), True,
         "puts groups of operators into one kernel each"),
    Pass("recompute", recompute, (is_well_formed,), (is_well_formed, kernels_fit), True,
         "makes large values again instead of keeping them"),
]


class LaunchPass(NamedTuple):
    """A step over launches: their order, and which run side by side on so many threads."""

    name: str
    run: Callable[[Launches, int], Arrangement]
    requires: tuple[Callable[[Launches], None], ...]
    ensures: tuple[Callable[[Launches, Arrangement], None], ...]
    optional: bool
    doc: str


BESIDE = LaunchPass("beside", side_by_side, (check_launches,), (check_arrangement,), True,
                    "puts small launches that are independent side by side")


def compile_graph(graph: Graph, examples: Sequence[Any], drop: Sequence[str] = (),
                  steady: Collection[int] = ()) -> Executable:
    """The native program of a graph.

    examples: an array for every input; only layout and what shares memory matter. drop: names of
    optional passes to leave out. steady: inputs that most runs find as the last one left them.
    """
    arrange = None if BESIDE.name in drop else BESIDE.run
    with uncollected():
        strides = strides_of(graph, examples)
        structure = structure_of(graph)
        known = None if drop else _known.find(structure, graph)
        if known is not None:
            made = lower(known[0], examples, strides, steady, arrange)
            if made.hosts <= known[1]:
                return made
        for p in PASSES:
            if p.name not in drop:
                graph = p.run(graph)
        made = lower(graph, examples, strides, steady, arrange)
        if not drop:
            _known.note(structure, graph, made.hosts)
        return made


_known = Known()
