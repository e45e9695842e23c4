"""A group of operators that has become one operator of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..graph.node import Node
from ..tensor.tensor import Tensor, wrap
from .body import Body
from .reference import run_body

__all__ = ["Fused", "Job", "job_of"]


class Fused:
    """An operator made of others: its tensors are the body's inputs, its attributes the numbers."""

    takes_list = view = False
    exact = True

    def __init__(self, body: Body, again: bool = False) -> None:
        """again: makes values a second time, when they are needed once more."""
        self.body, self.again = body, again
        self.name = f"{'again_' * again}{body.name}.{body.key}"
        self.n_tensors = len(body.inputs)
        self.params = tuple([f"x{i}" for i in range(len(body.inputs))]
                            + [f"n{i}" for i in range(len(body.numbers))])

    def __repr__(self) -> str:
        return f"<operator {self.name}>"

    def __call__(self, *args: Any) -> tuple[Tensor, ...]:
        """Every operator's reference, one after the other."""
        tensors, numbers = args[:self.n_tensors], args[self.n_tensors:]
        return tuple(wrap(a) for a in run_body(self.body, [t._a for t in tensors], numbers))


class Job(NamedTuple):
    """A step as a body, with the graph's nodes that it takes and gives (None: nobody wants it)."""

    body: Body
    inputs: list[Node]
    numbers: list[Node]
    roots: list[Node | None]


def job_of(step: Node, results: Sequence[Node]) -> Job:
    """The job of a call or draw. results: those of its results that are used."""
    if step.op.__class__ is Fused:
        by_place = {r.attrs[0]: r for r in results}
        return Job(step.op.body, list(step.args), list(step.attrs),  # type: ignore[arg-type]
                   [by_place.get(i) for i in range(len(step.op.body.roots))])
    body = Body([step], [step] if step.shape is not None else list(results))
    return Job(body, body.inputs, body.numbers, list(body.roots))
