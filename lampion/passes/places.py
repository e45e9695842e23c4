"""Where values are best put as they are made: into a concatenation, or as a reader wants them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph.node import Graph, Node
from ..runtime import memory
from .body import base_of, is_renaming

__all__ = ["Places", "part_of"]

Array = np.ndarray[Any, Any]


def part_of(out: Array, dim: int, start: int, stop: int) -> Array:
    """A stretch of one axis."""
    return out[(*[slice(None)] * dim, slice(start, stop))]


class Places:
    """Places of values, found by what reads them."""

    def __init__(self, graph: Graph) -> None:
        self.users: dict[str, list[Node]] = {}
        for n in graph.nodes():
            for a in n.operands():
                self.users.setdefault(a.digest, []).append(n)
        self.joined: dict[str, Array] = {}  # the results of concatenations
        self.taken: dict[str, Array | None] = {}  # by value

    def whole(self, cat: Node) -> Array:
        """The result of a concatenation, whose parts may be put there before it is a step."""
        found = self.joined.get(cat.digest)
        if found is None:
            found = self.joined[cat.digest] = memory.empty(tuple(cat.shape), cat.dtype)  # type: ignore[arg-type]
        return found

    def place(self, value: Node | None) -> Array | None:
        """Where a value should go; None where it does not matter."""
        if value is None:
            return None
        if value.digest not in self.taken:
            self.taken[value.digest] = self.found(value)
        return self.taken[value.digest]

    def found(self, value: Node) -> Array | None:
        turned = None
        for path in self.paths(value):
            end = path[-1] if path else value
            for user in self.users.get(end.digest, ()):
                if user.kind == "call" and user.op.name == "cat" and user.dtype == value.dtype:
                    window = self.window(user, end)
                    found = None if window is None else _back(window, value, path)
                    if found is not None and _is_plain(found):
                        return found
            if len(path) > 1 and path[-2].op.name == "permute":
                turned = path[-2]
        return None if turned is None else self.for_reader(value, turned)

    def paths(self, value: Node) -> list[list[Node]]:
        """Renaming views of a value, one after the other."""
        found: list[list[Node]] = [[]]
        for path in found:
            end = path[-1] if path else value
            found += [[*path, u] for u in self.users.get(end.digest, ()) if is_renaming(u)
                      and u.op.name in ("view", "permute")]
        return found

    def window(self, cat: Node, part: Node) -> Array | None:
        """Where a part of a concatenation goes; None where it is there twice."""
        if sum(base_of(a) is base_of(part) for a in cat.args if a is not None) != 1:
            return None
        dim, start = cat.attrs[0] % len(cat.shape), 0
        for a in cat.args:
            assert a is not None
            if len(a.shape) != len(cat.shape) or a.dtype != cat.dtype:
                return None
            if a is part:
                return part_of(self.whole(cat), dim, start, start + a.shape[dim])
            start += a.shape[dim]
        return None

    def for_reader(self, value: Node, turned: Node) -> Array | None:
        """Memory in which the turned value, which will be reshaped, lies in rows."""
        made = memory.empty(tuple(turned.shape), turned.dtype)  # type: ignore[arg-type]
        found = _back(made, value, [turned])
        return found if found is not None and _is_plain(found) else None


def _back(window: Array, value: Node, path: list[Node]) -> Array | None:
    """What the value is, when the views of the path show a window."""
    for view in reversed(path):
        if view.op.name == "permute":
            window = window.transpose(np.argsort(view.attrs[0]))
            continue
        source = view.args[0]
        assert source is not None
        try:
            window = window.reshape(source.shape, copy=False)
        except ValueError:
            return None
    return window if window.shape == tuple(value.shape) else None


def _is_plain(a: Array) -> bool:
    """Whether rows are contiguous, as kernels write best."""
    return a.ndim > 0 and a.strides[-1] == a.itemsize
