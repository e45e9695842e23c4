"""What a kernel would be, told from its expression alone: for choosing what goes into one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

from .bodies import COST
from .expression import Node, Symbol, Trace
from .plan import COLUMNS, FEW, LONG, Place, follows, reachable, reduced_axes

__all__ = ["Survey", "survey"]

_DEAR = 15  # instructions of an exponential; see nest.py:keepers


class Survey(NamedTuple):
    """One kernel for some results."""

    total: int  # points of its space
    kept: int  # results of its reductions; without any: all points
    reduces: bool
    rows: bool  # reductions run along the last axis
    whole: bool  # some result has a value for every point
    fits: bool  # every result has one for every point, or one for every kept place
    splits: bool  # a long reduction, made in windows: nothing but its results may be read after it
    cost: int  # instructions a point
    again: int  # instructions of dear terms that more than one stage computes
    operands: int  # arrays


def survey(trace: Trace, roots: Sequence[Symbol]) -> Survey:
    """Looks at the kernel of these results; Untraceable where reductions differ in their axes."""
    terms = reachable([r.node for r in roots])
    reduced = reduced_axes(trace, roots)
    of_roots = [_atoms(trace, r.dims) for r in roots]
    space = reduced.union(*of_roots, *(_atoms(trace, t.axes) for t in terms))
    kept = space - reduced
    cost = sum(COST.get(t.op, 1) for t in terms if t.args)
    inputs = [t for t in terms if t.op == "input"]
    total, few = (prod(trace.sizes[a] for a in axes) for axes in (space, kept))
    rows = bool(reduced) and _last(trace, roots, inputs) in reduced
    return Survey(
        total, few, bool(reduced), rows, space in of_roots,
        all(axes in (space, kept) for axes in of_roots) and all(r.node.args for r in roots),
        bool(reduced) and _splits(trace, terms, roots, total, few, rows), cost,
        _again(terms, [r.node for r, axes in zip(roots, of_roots, strict=True)
                       if axes & reduced]), len(inputs) + len(roots))


def _splits(trace: Trace, terms: Sequence[Node], roots: Sequence[Symbol], total: int, few: int,
            rows: bool) -> bool:
    """Whether `plan.py` makes windows of the reduction."""
    most = FEW if rows or total < 256 * few else COLUMNS
    sums = {t.number for t in terms if t.op == "reduce"}
    return (total >= LONG and few <= most and all(follows(r.node, sums) for r in roots)
            and not any(isinstance(trace.numbers[t.attr], Place) for t in terms
                        if t.op == "number"))


def _atoms(trace: Trace, axes: Iterable[int | None]) -> frozenset[int]:
    return frozenset(x for a in axes if a is not None for x in trace.atoms(a))


def _last(trace: Trace, roots: Sequence[Symbol], inputs: Sequence[Node]) -> int | None:
    """The last axis of the array that has the most of them."""
    every = [r.dims for r in roots] + [trace.input_axes[n.attr] for n in inputs]
    atoms = [[x for d in dims if d is not None for x in trace.atoms(d)] for dims in every]
    longest = max(atoms, key=len, default=[])
    return longest[-1] if longest else None


def _again(terms: Sequence[Node], whole: Sequence[Node]) -> int:
    """Instructions of dear terms in stages after the first that computes them."""
    stage: dict[int, int] = {}
    for t in terms:
        stage[t.number] = max((stage[a.number] for a in t.args), default=0) + (t.op == "reduce")
    count: Counter[Node] = Counter()
    for s in range(1 + max(stage.values(), default=0)):
        starts = [t.args[0] for t in terms if t.op == "reduce" and stage[t.number] == s + 1]
        starts += [t for t in whole if stage[t.number] == s]
        count.update(_points(starts))
    return sum(COST[t.op] * (n - 1) for t, n in count.items() if COST.get(t.op, 1) >= _DEAR)


def _points(starts: list[Node]) -> set[Node]:
    """What a stage computes point by point."""
    found: set[Node] = set()
    stack = list(starts)
    while stack:
        term = stack.pop()
        if term not in found and term.op != "reduce":
            found.add(term)
            stack.extend(term.args)
    return found
