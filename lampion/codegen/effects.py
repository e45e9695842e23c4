"""Which of its arrays a kernel writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .ir import Kernel, Region, Value

__all__ = ["written"]


def written(kernel: Kernel) -> frozenset[str]:
    """The names of the array parameters that the kernel may store to.

    >>> from lampion.codegen.types import F32
    >>> k = Kernel("halved")
    >>> out, x = k.array("out", F32), k.array("x", F32)
    >>> k.store(out.ptr, 0, k.load(x.ptr, 0) * 0.5)
    >>> sorted(written(k))
    ['out']
    """
    origins = {id(v): frozenset([v.attr[2]]) for v in kernel.inputs if v.attr[0] == "data"}
    walk = _Walk(origins)
    walk.region(kernel.body)
    while walk.changed:  # by pointers that a loop carries on
        walk.changed = False
        walk.region(kernel.body)
    return frozenset(walk.names)


class _Walk:
    """The parameters that every pointer may come from."""

    def __init__(self, origins: dict[int, frozenset[str]]) -> None:
        self.origins, self.names = origins, set[str]()
        self.changed = False

    def region(self, region: Region) -> None:
        for value in region.values:
            for inner in value.regions:
                self.carried(value, inner)
                self.region(inner)
                self.meet(value.results, inner.gives)
            if value.op in ("store", "scatter"):
                self.names |= self.origins.get(id(value.args[0]), frozenset())
            elif value.kind is not None and value.kind.pointer:
                self.add(value, value.args)

    def carried(self, value: Value, inner: Region) -> None:
        """Values that enter a loop, at first and from the turn before."""
        if value.op == "loop":
            self.meet(inner.params[1:], value.args[3:])
            self.changed |= self.meet(inner.params[1:], inner.gives)

    def meet(self, targets: Sequence[Value], sources: Sequence[Value]) -> bool:
        news = [self.add(t, (s,)) for t, s in zip(targets, sources, strict=True)
                if t.type.pointer]
        return any(news)

    def add(self, target: Value, sources: Iterable[Value]) -> bool:
        """Whether that is news."""
        before = self.origins.get(id(target), frozenset())
        found = before.union(*(self.origins.get(id(s), frozenset()) for s in sources))
        self.origins[id(target)] = found
        return found != before
