"""Groups of operators as one expression: run on symbols, they become one kernel.

A group is a list of calls, operands first. Values from outside are its inputs; views between that
only rename axes belong to it and cost nothing. The same group with other arrays is known by its
key, so identical layers are looked at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from ..codegen.expression import Symbol, Trace, Untraceable
from ..codegen.plan import Given, traced
from ..codegen.survey import Survey, survey
from ..graph.node import Node, name_of, nodes_in, stable
from ..ops.native import renamed
from ..ops.optimize import Update

__all__ = ["Body", "PerBody", "base_of", "is_renaming", "surveyed", "trace_body"]

T = TypeVar("T")

_RENAMES = frozenset(("view", "unsqueeze", "squeeze", "alias", "expand", "permute", "t",
                      "transpose"))
_F32 = np.dtype(np.float32)


def is_renaming(node: Node) -> bool:
    """Whether a call is a view that only renames, cuts or takes together axes."""
    return node.kind == "call" and node.op.name in _RENAMES


def base_of(node: Node) -> Node:
    """The value behind renaming views."""
    while is_renaming(node):
        node = node.args[0]  # type: ignore[assignment]
    return node


class Body:
    """Calls that become one kernel, what they read and what others need of them."""

    __slots__ = ("calls", "inputs", "key", "numbers", "roots")

    def __init__(self, calls: Sequence[Node], roots: Sequence[Node]) -> None:
        self.calls, self.roots = list(calls), list(roots)
        self.inputs: list[Node] = []
        self.numbers: list[Node] = []
        self.key = _Key(self).text()

    @property
    def name(self) -> str:
        """For people: the operators that matter, and a word that tells bodies apart."""
        seen = dict.fromkeys(c.op.name.removeprefix("native_") for c in self.calls)
        return "_".join(list(seen)[-5:])


class _Key:
    """A text for everything that determines a body; finds its inputs and numbers on the way."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.places: dict[str, str] = {}

    def text(self) -> str:
        lines = []
        for i, call in enumerate(self.body.calls):
            args = ",".join(map(self.value, call.args))
            attrs = ",".join(map(self.value, call.attrs))
            lines.append(f"{call.op.name}({args};{attrs}):{call.shape}{name_of(call.dtype)}")
            self.places[call.digest] = f"c{i}"
        lines.append(",".join(map(self.value, self.body.roots)))
        return hashlib.blake2b("\n".join(lines).encode(), digest_size=12).hexdigest()

    def value(self, value: Any) -> str:
        if not isinstance(value, Node):
            if value.__class__ in (tuple, list):
                return f"({','.join(map(self.value, value))})"
            return stable(value)
        found = self.places.get(value.digest)
        if found is None:
            found = self.places[value.digest] = self.new(value)
        return found

    def new(self, node: Node) -> str:
        if is_renaming(node):
            attrs = node.attrs if node.op.name == "permute" else ""
            return f"{node.op.name}{attrs}{node.shape}<{self.value(node.args[0])}>"
        if node.kind == "result" and node.args[0].digest in self.places:  # type: ignore[union-attr]
            return f"{self.places[node.args[0].digest]}.{node.attrs[0]}"  # type: ignore[union-attr]
        if node.kind == "number":
            self.body.numbers.append(node)
            return f"n{len(self.body.numbers)}"
        self.body.inputs.append(node)
        return f"i{len(self.body.inputs)}:{node.shape}{name_of(node.dtype)}"


# --- on symbols -------------------------------------------------------------------------------


def trace_body(body: Body, trace: Trace) -> list[Symbol]:
    """The roots as expressions of the inputs and numbers; Untraceable where there is none."""
    runner = _Runner(body, trace)
    with np.errstate(all="ignore"):
        for call in body.calls:
            runner.run(call)
        return [runner.symbol(r) for r in body.roots]


class _Runner:
    def __init__(self, body: Body, trace: Trace) -> None:
        self.trace = trace
        self.known: dict[str, Any] = {n.digest: trace.input(n, i)
                                      for i, n in enumerate(body.inputs)}
        for i, n in enumerate(body.numbers):
            self.known[n.digest] = Given(trace, len(body.inputs) + i, float)

    def run(self, call: Node) -> None:
        results = self.results(call)
        if call.shape is not None:
            self.known[call.digest] = _typed(results[0], call)
        else:
            for i, r in enumerate(results):
                self.known[f"{call.digest}.{i}"] = r

    def results(self, call: Node) -> tuple[Any, ...]:
        args = [self.value(a) for a in call.args]
        if not call.op.exact:
            args = [_widened(a) for a in args]
        if isinstance(call.op, Update):
            return _updated(call, args, self.value(call.attrs[1]))
        attrs = self.value(call.attrs)
        if call.op.takes_list:
            result = call.op.kernel(args, *attrs)
        elif any(True for _ in nodes_in(call.attrs)):
            result = call.op.kernel(*args, *attrs)
        else:
            result = traced(call.op.name, call.op.kernel, args, attrs)
        return result if result.__class__ is tuple else (result,)

    def value(self, value: Any) -> Any:
        """What stands for an argument or an attribute."""
        if isinstance(value, Node):
            symbol = self.symbol(value)
            if symbol.__class__ is not Symbol:
                return symbol
            return Symbol(self.trace, symbol.node, symbol.dims, symbol.shape, symbol.dtype)
        if value.__class__ in (tuple, list):
            return value.__class__(map(self.value, value))
        return value

    def symbol(self, node: Node) -> Any:
        found = self.known.get(node.digest)
        if found is None:
            found = self.known[node.digest] = self.found(node)
        return found

    def found(self, node: Node) -> Symbol:
        if node.kind == "result":
            return _typed(self.known[f"{node.args[0].digest}.{node.attrs[0]}"], node)  # type: ignore[union-attr]
        return renamed(node.op.name, self.symbol(node.args[0]), node.attrs, node.shape)  # type: ignore[arg-type]


def _typed(symbol: Any, node: Node) -> Symbol:
    """In the dtype that the graph says: narrow floats are computed in float32."""
    if not isinstance(symbol, Symbol) or symbol.shape != tuple(node.shape):
        raise Untraceable("a result in another shape than the shape rule's")
    return symbol if symbol.dtype == node.dtype else symbol.astype(node.dtype)


def _widened(a: Any) -> Any:
    if a.__class__ is Symbol and a.dtype.itemsize < 4 and a.node.kind.is_float:
        return a.astype(_F32)
    return a


def _updated(call: Node, args: list[Any], scalars: Any) -> tuple[Any, ...]:
    """An optimizer's update, which writes into its arguments."""
    p, g, *rest = args
    call.op.body(np, p, -g if call.attrs[0] else g, *rest, *scalars)
    return (p, *rest)


# --- what a kernel would be -------------------------------------------------------------------


_MOST_KNOWN = 1 << 14


class PerBody(Generic[T]):
    """A function of bodies, computed once for each: equal layers have equal bodies."""

    def __init__(self, function: Callable[[Body], T]) -> None:
        self.function = function
        self.known: dict[str, T] = {}  # by key of the body

    def __call__(self, body: Body) -> T:
        if body.key not in self.known:
            if len(self.known) >= _MOST_KNOWN:
                self.known.clear()
            self.known[body.key] = self.function(body)
        return self.known[body.key]


@PerBody
def surveyed(body: Body) -> Survey | None:
    """What a body's kernel would be; None where there is none."""
    trace = Trace()
    try:
        return survey(trace, trace_body(body, trace))
    except (Untraceable, NotImplementedError, TypeError, ValueError, AttributeError, IndexError):
        return None  # what a reference does that symbols cannot
