"""Which values are computed in the memory of the inputs that they are written to.

A write becomes visible only after every reader of the old value has run, and a kernel reads each
element before it writes it; and after every step that may fail, so that a run that fails has
changed nothing. Where that cannot be had, the value is computed aside and copied last.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..codegen.expression import Trace
from ..codegen.plan import reduced_axes
from ..graph.node import Graph, Node, Write
from ..ops.native import TEMPLATES
from .arrays import Extents
from .body import Body, PerBody, trace_body
from .fused import Job, job_of
from .schedule import Schedule, step_of

__all__ = ["in_place"]

Array = np.ndarray[Any, Any]

_INTO_FIRST = ("write_window", "index_copy", "index_put")  # change some elements of the first


def in_place(graph: Graph, schedule: Schedule, examples: Sequence[Array],
             failing: Collection[str] = ()) -> dict[str, int]:
    """By digest of the value: the input whose memory takes it. Makes steps wait for readers.

    failing: digests of steps that may fail, for which they wait too.
    """
    first = [schedule.places[d] for d in failing]
    chosen: dict[str, int] = {}
    extents = Extents(examples)
    shown = {step_of(w.node).digest for w in graph.writes if w.what == "data"}
    for w in graph.writes:
        target = graph.inputs[w.target]
        if w.what != "data" or w.node.digest in chosen or target.digest in shown:
            continue
        if _is_apart(w.target, examples[w.target], extents) and _fits(w, target, graph):
            step = schedule.places[step_of(w.node).digest]
            if schedule.delay(step, [*schedule.readers(target.digest), *first]):
                chosen[w.node.digest] = w.target
    return chosen


def _is_apart(place: int, a: Array, extents: Extents) -> bool:
    """Whether an input has memory of its own, and a place of its own for every element."""
    reach = 0
    for s, n in sorted((abs(s), n) for s, n in zip(a.strides, a.shape, strict=True) if n > 1):
        if s <= reach:
            return False
        reach += s * (n - 1)
    return extents.shared(a) in ([], [place])


def _fits(w: Write, target: Node, graph: Graph) -> bool:
    """Whether the step that makes the value can put it there."""
    step = step_of(w.node)
    is_view = w.node.kind == "call" and w.node.op.view
    if step.kind != "call" or is_view:
        return False
    if step.op.name in _INTO_FIRST:
        others = [n for n in step.operands() if n is not target]
        return step.args[0] is target and len(others) == len(list(step.operands())) - 1 and all(
            step_of(n) is not target for n in others)
    if step.op.name in TEMPLATES or step.op.name in ("read_window", "to_device"):
        return False
    job = job_of(step, [w.node])
    root = next((i for i, r in enumerate(job.roots) if r is not None
                 and r.digest == w.node.digest), None)
    return root is not None and _reads_first(job, root, target)


def _reads_first(job: Job, root: int, target: Node) -> bool:
    """Whether the kernel has read an element whenever it writes it."""
    places = [i for i, n in enumerate(job.inputs) if step_of(n).digest == target.digest]
    if not places:
        return True
    if len(places) > 1 or job.inputs[places[0]].digest != target.digest:
        return False
    found = _footprint(job.body)
    if found is None:  # the step will run in Python, on memory of its own
        return False
    read = found.inputs[places[0]]
    return read == found.roots[root] and found.reduced.isdisjoint(read)


class _Footprint(NamedTuple):
    """The axes along which a kernel reads each input and makes each root, and sums."""

    inputs: list[list[int]]
    roots: list[list[int]]
    reduced: set[int]


@PerBody
def _footprint(body: Body) -> _Footprint | None:
    """None where a body has no expression."""
    trace = Trace()
    try:
        roots = trace_body(body, trace)
    except Exception:
        return None
    axes = dict(zip(trace.places, trace.input_axes, strict=True))
    return _Footprint([_atoms(trace, axes.get(i, ())) for i in range(len(body.inputs))],
                      [_atoms(trace, r.dims) for r in roots], set(reduced_axes(trace, roots)))


def _atoms(trace: Trace, dims: Sequence[int | None]) -> list[int]:
    return [x for d in dims if d is not None for x in trace.atoms(d)]
