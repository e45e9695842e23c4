"""Autograd across the boundary of a compiled function: a forward and a backward program.

Both were captured together. What the backward needs of the forward is saved, but views and casts,
which it makes again for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..autograd.modes import state
from ..autograd.node import Node as History
from ..autograd.node import edge_of, new_node, overwritten
from ..capture.recorder import Recorder
from ..graph.interpret import interpret
from ..graph.node import Graph, Interner, Node
from ..graph.spec import check
from ..tensor.tensor import Tensor, wrap
from .inputs import Inputs, Source

__all__ = ["Backward", "CompiledFunctionBackward", "Spent", "attach", "named",
           "split"]


class Split(NamedTuple):
    """The backward's graph: its inputs are inputs of the forward, saved values, cotangents."""

    graph: Graph
    inputs: list[int]  # numbers of the recorder's inputs
    saved: list[Node]
    whole: Graph | None  # the same from the inputs on, for derivatives of gradients
    whole_inputs: list[int]


def split(recorder: Recorder, wanted: list[tuple[int, Node]], seeds: list[Node]) -> Split:
    """Cuts what computes the gradients `wanted` from the cotangents `seeds` out of a capture."""
    outputs = [n for _, n in wanted]
    whole = Graph("backward", seeds, [""] * len(seeds), outputs, [])
    order = whole.nodes()
    late = {n.digest for n in seeds}
    for node in order:
        if any(a.digest in late for a in node.operands()):
            late.add(node.digest)
    again = _made_again(order, late)
    saved, inputs = _frontier(order, outputs, late | again)
    numbers = {n.digest: i for i, n in enumerate(recorder.inputs)}
    used = [numbers[n.digest] for n in inputs]
    made = _rebuilt(order, [*inputs, *saved, *seeds], late | again)
    names = [f"input{i}" for i in used] + [f"saved{i}" for i in range(len(saved))] + [
        f"grad{i}" for i in range(len(seeds))]
    graph = Graph("backward", [made[n.digest] for n in (*inputs, *saved, *seeds)], names,
                  [made[n.digest] for n in outputs], [])
    check(graph)
    origin = [n for n in order if n.kind == "input" and n.digest not in {s.digest for s in seeds}]
    from_inputs = None
    if all(n.kind in ("input", "call", "result") for n in order):
        from_inputs = Graph("backward", [*origin, *seeds], [""] * (len(origin) + len(seeds)),
                            outputs, [])
    return Split(graph, used, saved, from_inputs, [numbers[n.digest] for n in origin])


def _made_again(order: Sequence[Node], late: set[str]) -> set[str]:
    """Views that the backward's own nodes look at, and the views that those are made of."""
    inside = set(late)
    for node in reversed(order):  # users come after what they use
        if node.digest in inside:
            inside.update(a.digest for a in node.operands() if _is_free(a))
    return inside - late


def _is_free(node: Node) -> bool:
    return node.kind == "call" and bool(node.op.view) and len(node.args) == 1


def _frontier(order: Sequence[Node], outputs: list[Node], inside: set[str]) -> tuple[
        list[Node], list[Node]]:
    """Values to save, and inputs, that the nodes inside take from outside."""
    saved: dict[str, Node] = {}
    inputs: dict[str, Node] = {}
    asked = [a for n in order if n.digest in inside for a in n.operands()]
    for node in (*asked, *(n for n in outputs if n.digest not in inside)):
        if node.digest in inside:
            continue
        (inputs if node.kind == "input" else saved).setdefault(node.digest, node)
    return list(saved.values()), list(inputs.values())


def _rebuilt(order: Sequence[Node], given: list[Node], inside: set[str]) -> dict[str, Node]:
    interner = Interner()
    made = {n.digest: interner.make("input", None, (), (i,), n.shape, n.dtype)
            for i, n in enumerate(given)}

    def replaced(value: Any) -> Any:
        if isinstance(value, Node):
            return made[value.digest]
        if isinstance(value, (tuple, list)):
            return type(value)(replaced(v) for v in value)
        return value

    for n in order:
        if n.digest in inside and n.digest not in made:
            new = made[n.digest] = interner.make(n.kind, n.op, replaced(n.args),
                                                 replaced(n.attrs), n.shape, n.dtype)
            new.where = n.where
    return made


class Backward:
    """The backward half of a captured call."""

    def __init__(self, part: Split, places: list[int], names: list[str], saved_from: int,
                 owners: list[Source], whole_owners: list[Source],
                 targets: list[Source]) -> None:
        self.graph, self.saved_from, self.n_saved = part.graph, saved_from, len(part.saved)
        self.places = places  # of the outputs that the cotangents belong to
        self.names = names  # of the nodes that made them
        # Where inputs come from, and what gets gradients.
        self.owners, self.targets = Inputs(owners), Inputs(targets)
        self.whole, self.whole_owners = part.whole, Inputs(whole_owners)
        self.program: Any = None  # set by the one who runs it


class CompiledFunctionBackward(History):
    """The history of a compiled call's results."""

    __slots__ = ("backward_of", "inputs", "outs", "saved", "versions", "whole_inputs")

    backward_of: Backward
    inputs: list[Tensor]
    outs: tuple[tuple[Any, Any], ...]
    saved: list[Any] | None
    versions: list[int]
    whole_inputs: list[Tensor]

    def output_count(self) -> int:
        return len(self.outs)

    def backward(self, grads: list[Any]) -> tuple[Any, ...]:
        if self.saved is None:
            raise RuntimeError(
                "Trying to backward through the graph a second time: what the compiled function "
                "saved was freed by the first backward. Specify retain_graph=True there.")
        for t, version in zip(self.inputs, self.versions, strict=True):
            if t._st is not None and t._st.version != version:
                raise overwritten(self, t, t._st, version)
        if state.grad:
            return self.differentiable(grads)
        seeds = [np.zeros(shape, d.np) if g is None else _as_given(g._a, d)
                 for g, (shape, d) in zip(grads, self.outs, strict=True)]
        found = self.backward_of.program([*(t._a for t in self.inputs), *self.saved, *seeds])
        return tuple(wrap(a) for a in found)

    def differentiable(self, grads: list[Any]) -> tuple[Any, ...]:
        """Gradients that have a history themselves: operator by operator, from the inputs on."""
        if self.backward_of.whole is None:
            raise RuntimeError("a compiled function that draws random numbers has no derivatives "
                               "of its gradients (create_graph=True): run it without torch.compile")
        seeds = [wrap(np.zeros(shape, d.np)) if g is None else g
                 for g, (shape, d) in zip(grads, self.outs, strict=True)]
        found, _ = interpret(self.backward_of.whole, [*self.whole_inputs, *seeds],
                             lambda op, args, attrs: op(list(args), *attrs) if op.takes_list
                             else op(*args, *attrs))
        return tuple(found)

    def release(self) -> None:
        self.saved = None


def _as_given(a: Any, d: Any) -> Any:
    """A cotangent as the program takes it: in rows."""
    return np.ascontiguousarray(a, d.np).reshape(a.shape)


class Spent(History):
    """The history of a result that a backward inside of the program has used up."""

    __slots__ = ()

    def backward(self, grads: list[Any]) -> tuple[Any, ...]:
        raise RuntimeError(
            "Trying to backward through the graph a second time: the compiled function ran "
            "backward() itself, which freed it. Specify retain_graph=True there.")


def attach(backward: Backward, values: list[Tensor], saved: list[Any],
           arguments: Sequence[Tensor]) -> None:
    """Gives results their history."""
    edges = list(map(edge_of, backward.targets.now(arguments)))
    inputs = backward.owners.now(arguments)
    alone = len(backward.places) == 1
    cls = named(backward.names[0], CompiledFunctionBackward) if alone else CompiledFunctionBackward
    node = new_node(cls, tuple([e for e, _ in edges]), tuple([n for _, n in edges]))
    node.out_st = None
    node.backward_of, node.saved, node.inputs = backward, saved, inputs
    node.whole_inputs = backward.whole_owners.now(arguments)
    node.versions = [0 if t._st is None else t._st.version for t in inputs]
    outs = [values[p] for p in backward.places]
    node.outs = tuple([(o._a.shape, o._dtype) for o in outs])
    for nr, (o, name) in enumerate(zip(outs, backward.names, strict=True)):
        o._fn, o._nr, o._rg = node, nr, True
        if not alone:
            o._fn, o._nr = new_node(named(name, OneOfSeveral), (node,), (nr,)), 0
            o._fn.out_st = None


class OneOfSeveral(History):
    """Stands between a compiled call and one of its results, under the name it has eagerly."""

    __slots__ = ()

    def backward(self, grads: list[Any]) -> tuple[Any, ...]:
        return tuple(grads)


@lru_cache(1024)
def named(name: str, base: Any) -> Any:
    """A class of nodes that shows itself under another name."""
    return type(name, (base,), {"__slots__": ()})
