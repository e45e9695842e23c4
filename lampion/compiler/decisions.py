"""What a function decides by values: which way a branch goes, whether arguments are valid.

A program goes the way that the captured call went; that call's values are computed for it while it
is captured. At every run a check in the program sees whether it goes that way again. Where it does
not, nothing has been changed yet: another program serves the call, or the function itself.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..autograd.modes import no_grad, state
from ..capture.program import apply_eagerly
from ..debug.frames import describe, user_code
from ..graph.node import Graph, Node
from ..ops import logical_and
from ..ops.generator import Generator, default_generator
from ..ops.record import leaf, not_differentiable
from ..tensor.dtype import from_numpy_dtype
from ..tensor.tensor import Tensor, wrap

__all__ = ["Decisions", "Mispredicted", "generators", "is_branch"]

Array = Any

_MOST = 64  # decisions of one program


class Mispredicted(Exception):
    """A run of a program that goes another way; branch: whether another program may serve it."""

    def __init__(self, branch: bool) -> None:
        super().__init__("a branch" if branch else "a check")
        self.branch = branch


def is_branch(error: Exception) -> bool:
    """Whether a run failed because values decide for another way."""
    return isinstance(error, Mispredicted) and error.branch


@leaf(not_differentiable("a decision"), name="decided",
      shape=lambda a, branch: ((), np.dtype(bool)))
def _decided(input: Array, branch: bool) -> Array:
    """True; Mispredicted where `input` is not."""
    if not input.all():
        raise Mispredicted(branch)
    return np.array(True)


class Decisions:
    """Those of one capture. branching: whether branches may be decided, or only checks."""

    def __init__(self, recorder: Any, branching: bool) -> None:
        self.recorder, self.branching = recorder, branching
        self.values = _Values(recorder)
        self.checks: list[Tensor] = []
        self.branches: dict[str, Tensor] = {}
        self.where: list[str] = []  # the user's lines
        self.nodes: list[Node] = []

    def expect(self, flags: Tensor) -> None:
        """A run where not all of `flags` are true is not the program's to serve."""
        with no_grad():
            self.checks.append(flags.detach().all())

    def branch(self, t: Tensor, what: str) -> Any:
        """Whether the only element of `t` is true in the captured call, as an array."""
        if not self.branching or len(self.branches) >= _MOST or t._a.size != 1:
            return None
        with no_grad():
            flag = (t.detach() != 0).reshape(())
            node = self.recorder.value_of(flag)
            found = self.values.of(node)
            if node.digest not in self.branches:
                self.branches[node.digest] = flag if found else ~flag
                self.where.append(describe(*user_code(3)))
        return found

    def close(self) -> None:
        """The nodes that check the decisions at each run."""
        for flags, branch in ((self.checks, False), (list(self.branches.values()), True)):
            if flags:
                with no_grad():
                    every = functools.reduce(logical_and, flags)
                    self.nodes.append(self.recorder.value_of(_decided(every, branch)))


class _Values:
    """Values of nodes in the captured call, computed one by one and kept."""

    def __init__(self, recorder: Any) -> None:
        self.recorder = recorder
        self.known: dict[str, Any] = {}
        self.marks: list[tuple[Any, Any]] = []  # streams, and where drawing goes on

    def of(self, node: Node) -> Any:
        """The array of a node."""
        draws = self.recorder.draws
        streams = [g.stream for g in generators(draws)]
        before = [(s, s.mark()) for s in streams]
        current, state.recorder = state.recorder, None
        _back(self.marks)
        try:
            for n in Graph("", [], [], [node], [], [], draws).nodes():
                if n.digest not in self.known:
                    self.known[n.digest] = self._value(n)
        finally:
            state.recorder = current
            self.marks = [(s, s.mark()) for s in streams]
            _back(before)
        return self.known[node.digest]._a

    def _value(self, n: Node) -> Any:
        if n.kind == "input":
            a = self.recorder.originals[n.attrs[0]][0]
            return wrap(a, from_numpy_dtype(a.dtype))
        if n.kind == "number":
            return self.recorder.given[n.attrs[0]]
        args = self._known(n.args)
        if n.kind == "result":
            return args[0][n.attrs[0]]
        attrs = self._known(n.attrs[1:] if n.kind == "draw" else n.attrs)
        return apply_eagerly(n.op, args, attrs)

    def _known(self, value: Any) -> Any:
        if isinstance(value, Node):
            return self.known[value.digest]
        return type(value)(map(self._known, value)) if isinstance(value, (tuple, list)) else value


def _back(marks: Iterable[tuple[Any, Any]]) -> None:
    for stream, mark in marks:
        stream.back_to(mark)


def generators(draws: Iterable[Node]) -> list[Generator]:
    """The generators that nodes draw from."""
    draws = list(draws)
    found = {id(a): a for n in draws for a in n.attrs if isinstance(a, Generator)}
    if any(not isinstance(a, Generator) for n in draws for a in n.attrs[-1:]):
        found[id(default_generator)] = default_generator
    return list(found.values())
