"""Lets a timer see operators: while it is active, functions stand in for the public ones.

Outside of that nothing is changed, so timing costs nothing when it is off.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import wraps
from types import FunctionType, ModuleType
from typing import Any

from ..autograd.node import Node
from ..debug.timing import Timer
from ..tensor.tensor import Tensor
from .record import PUBLIC, Leaf

__all__ = ["instrument"]

Place = tuple[Any, str, Any, Any]  # owner, name, function, and its label or what replaces it

_ROOT = __name__.partition(".")[0]
_MODULES = {"torch": ("", ".ops"), "F": (".nn.functional",)}
# Questions about a tensor, and what only wraps others: not operators.
_QUIET = frozenset((
    "size", "dim", "ndimension", "numel", "nelement", "element_size", "stride", "get_device",
    "dim_order", "untyped_storage", "storage", "storage_type", "backward", "register_hook",
    "manual_seed", "seed", "initial_seed", "get_rng_state", "set_rng_state"))


def instrument(timer: Timer) -> Callable[[], None]:
    """Times leaf operators, public functions and nodes of the history; returns the undoing."""
    timed: list[Place] = [(owner, name, function, wraps(function)(timer.timed(label, function)))
                          for owner, name, function, label in [*_functions(), *_methods()]]
    timed += [(kind, "backward", kind.backward, _backward(timer, kind.backward))
              for kind in _node_classes()]
    timed.append((Leaf, "__call__", Leaf.__call__, _leaf_call(timer, Leaf.__call__)))
    for owner, name, _, stand_in in timed:
        setattr(owner, name, stand_in)

    def undo() -> None:
        for owner, name, function, _ in timed:
            setattr(owner, name, function)
    return undo


def _functions() -> Iterator[Place]:
    for place, table in PUBLIC.items():
        for suffix in _MODULES.get(place, (f".{place}",)):
            module = sys.modules.get(_ROOT + suffix)
            if place != "Tensor" and isinstance(module, ModuleType):
                yield from _of(module, table)


def _methods() -> Iterator[Place]:
    operators = {name: f for name, f in vars(Tensor).items() if name.startswith("__") and
                 getattr(f, "__module__", "").startswith(__package__)}
    yield from _of(Tensor, PUBLIC["Tensor"] | operators)


def _of(owner: Any, table: dict[str, Any]) -> Iterator[Place]:
    for name, function in table.items():
        is_question = name in _QUIET or name.startswith("is_")
        if (type(function) is FunctionType and not is_question
                and vars(owner).get(name) is function):
            yield owner, name, function, "aten::" + _label(name)


def _label(name: str) -> str:
    """`add` for `__add__` and `__radd__`, `add_` for `__iadd__`."""
    if not name.startswith("__"):
        return name
    plain = name.strip("_").replace("truediv", "div").replace("floordiv", "floor_divide")
    if hasattr(Tensor, plain):
        return plain
    return plain[1:] + ("_" if plain[0] == "i" else "")


def _node_classes() -> Iterator[type[Node]]:
    """Those that define what backward does."""
    kinds: list[type[Node]] = [Node]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if "backward" in vars(kind):
            yield kind


def _backward(timer: Timer, call: Callable[..., Any]) -> Callable[..., Any]:
    def timed(self: Node, grads: list[Any]) -> Any:
        event = timer.begin("autograd::engine::evaluate_function: " + self.name(), tuple(grads),
                            node=self)
        try:
            return call(self, grads)
        finally:
            timer.end(event)
    return timed


def _leaf_call(timer: Timer, call: Callable[..., Any]) -> Callable[..., Any]:
    def timed(self: Leaf, *args: Any) -> Any:
        name = "aten::" + self.name
        outer = timer.current
        if outer is not None and outer.name == name:
            return call(self, *args)
        event = timer.begin(name, tuple(args[0]) if self.takes_list else args[:self.n_tensors])
        result = None
        try:
            result = call(self, *args)
            return result
        finally:
            timer.end(event, result)
    return timed
