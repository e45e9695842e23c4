"""Gradient rules of equal operators: recorded once, then repeated node by node.

A rule is a function of its arguments alone. What it records for tensors of some layouts it records
for all others of the same layouts, with their values in place of the first ones; so the layers of
a model after the first need no operators to be called for their backward.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from ..graph.node import Node
from ..tensor.abstract import AbstractArray
from ..tensor.tensor import Tensor, wrap

__all__ = ["Rules"]

_PLAIN = frozenset((int, float, bool, str, type(None), complex))


_Placed = tuple[Node, list[int]]


class _Result(NamedTuple):
    """A tensor that a rule gives: an argument itself, or a new one with a value."""

    argument: int
    value: int = -1
    array: tuple[Any, ...] = ()  # shape, dtype, strides, offset, and bytes of the memory
    dtype: Any = None


class _Recorded(NamedTuple):
    """The nodes of a rule, each with the places of its operands (-1: it is none), and its results.

    Places: of the tensors among the arguments, then of the nodes.
    """

    nodes: list[_Placed]
    results: list[_Result | None]
    several: bool
    held: list[Any]  # what the key knows by identity


class _Arguments:
    """A rule's arguments: the tensors, their values, and all else that the rule depends on."""

    def __init__(self, recorder: Any, args: Any) -> None:
        self.recorder = recorder
        self.tensors: list[Tensor] = []
        self.values: list[Node] = []
        self.first: dict[Any, int] = {}
        self.held: list[Any] = []
        self.suits = True
        self.key = self.fact(args)

    def fact(self, value: Any) -> Hashable:
        kind = value.__class__
        if kind in _PLAIN:
            return kind, repr(value)
        if kind is tuple or kind is list:
            return kind, *[self.fact(v) for v in value]
        if not isinstance(value, Tensor):
            self.held.append(value)
            return id(value)
        a = value._a
        if a.__class__ is not AbstractArray or a.recorder is not self.recorder:
            self.suits = False
            return None
        node = self.recorder.value_of(value)
        place = len(self.tensors)
        self.tensors.append(value)
        self.values.append(node)
        return (self.first.setdefault(id(value), place), self.first.setdefault(node.digest, place),
                kind, a.shape, a.strides, a.offset, a.dtype, value._dtype, value._rg,
                value._fn is None, value._base is None)


class Rules:
    """Those of one capture."""

    def __init__(self, recorder: Any) -> None:
        self.recorder = recorder
        self.known: dict[Hashable, _Recorded | None] = {}

    def call(self, rule: Callable[..., Any], args: tuple[Any, ...], told: Any = None) -> Any:
        """`rule(*args)`. told: what tells the arguments, where that is not themselves."""
        given = _Arguments(self.recorder, args if told is None else told)
        if not given.suits:
            return rule(*args)
        key = rule, given.key
        if key not in self.known:
            return self.first(rule, args, given, key)
        known = self.known[key]
        return rule(*args) if known is None else self.again(known, given)

    def first(self, rule: Callable[..., Any], args: tuple[Any, ...], given: _Arguments,
              key: Hashable) -> Any:
        """Calls a rule, and keeps what it records."""
        recorder, before = self.recorder, self.others()
        outer, recorder.guarded = recorder.guarded, {n.digest for n in given.values}
        coincided, recorder.coincided = recorder.coincided, False
        try:
            result = rule(*args)
            apart = not recorder.coincided
        finally:
            recorder.guarded, recorder.coincided = outer, coincided
        self.known[key] = self.recorded(result, given) if (
            apart and not outer and before == self.others()) else None
        return result

    def others(self) -> tuple[Any, ...]:
        """What a rule that is repeated must not add to."""
        r, decisions = self.recorder, self.recorder.decisions
        asked = () if decisions is None else (len(decisions.checks), len(decisions.branches))
        return len(r.inputs), len(r.draws), len(r.numbers), len(r.written), r.failed, *asked

    def recorded(self, result: Any, given: _Arguments) -> _Recorded | None:
        """What leads from the arguments to the result; None where that cannot be repeated."""
        results = result if result.__class__ is tuple else (result,)
        memory = [id(t if t._base is None else t._base) for t in results if isinstance(t, Tensor)]
        if len(set(memory)) < len(memory):
            return None
        places: dict[str, int] = {}
        for i, n in enumerate(given.values):
            places.setdefault(n.digest, i)
        nodes: list[_Placed] = []
        found: list[_Result | None] = []
        for t in results:
            made = None if t is None else self.result(t, given)
            if made is not None and made.argument < 0:
                node = self.recorder.value_of(t)
                if not _walk(node, places, nodes, len(given.values)):
                    return None
                made = made._replace(value=places[node.digest])
            elif t is not None and made is None:
                return None
            found.append(made)
        return _Recorded(nodes, found, result.__class__ is tuple, given.held)

    def result(self, t: Any, given: _Arguments) -> _Result | None:
        """How a result is made again, but for its value."""
        if t.__class__ is not Tensor:
            return None
        for i, argument in enumerate(given.tensors):
            if t is argument:
                return _Result(i)
            if t._a is argument._a or t._base is argument or (
                    t._base is not None and t._base is argument._base):
                return None
        if t._a.__class__ is not AbstractArray or t._fn is not None or t._rg or (
                t._a.recorder is not self.recorder):
            return None
        a = t._a
        return _Result(-1, -1, (a.shape, a.dtype, a.strides, a.offset, a.storage_nbytes), t._dtype)

    def again(self, known: _Recorded, given: _Arguments) -> Any:
        """The same nodes of other values."""
        recorder, values = self.recorder, list(given.values)
        for node, operands in known.nodes:
            made = recorder.interner.with_args(node, tuple([
                a if i < 0 else values[i] for i, a in zip(operands, node.args, strict=True)]))
            if made.kind == "call":
                recorder.place(made)
            values.append(made)
        found = [None if r is None else given.tensors[r.argument] if r.argument >= 0 else
                 self.tensor(r, values[r.value]) for r in known.results]
        return tuple(found) if known.several else found[0]

    def tensor(self, result: _Result, node: Node) -> Tensor:
        made = AbstractArray(*result.array)
        made.recorder, made.value = self.recorder, (node, 0)
        return wrap(made, result.dtype)


def _walk(node: Node, places: dict[str, int], nodes: list[_Placed],
          start: int) -> bool:
    """Adds a node after its operands, down to the arguments; False where one comes from elsewhere.

    Nodes inside attributes are not followed.
    """
    stack = [node]
    while stack:
        at = stack[-1]
        if at.digest in places:
            stack.pop()
            continue
        if at.kind not in ("call", "result") or at.inner or not at.operands():
            return False
        missing = [a for a in at.operands() if a.digest not in places]
        stack += missing
        if not missing:
            stack.pop()
            places[at.digest] = start + len(nodes)
            nodes.append((at, [places[a.digest] if a.__class__ is Node else -1
                               for a in at.args]))
    return True
