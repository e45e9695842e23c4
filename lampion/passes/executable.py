"""A compiled graph: call `run` with arrays laid out as those it was compiled for."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Sequence
from functools import cached_property, partial
from math import prod
from typing import Any, NamedTuple
from weakref import ref

import numpy as np

from ..codegen import service
from ..codegen.stream import Recording, Stream
from ..graph.node import Graph, Node
from ..ops.forms import check_memory
from ..runtime.stream import Host, Noted
from ..runtime.threads import get_num_threads
from .arrays import Extents
from .beside import Arrangement, Launches
from .fused import Fused
from .lower import Lowering

__all__ = ["Executable", "Step", "lower"]

Array = np.ndarray[Any, Any]
Arranging = Callable[[Launches, int], Arrangement]


def lower(graph: Graph, examples: Sequence[Array], strides: Sequence[Sequence[int]],
          steady: Collection[int] = (),
          arrange: Arranging | None = None) -> Executable:
    """Records the graph as a launch stream; kernels that are missing are made here and now.

    strides: of the outputs, in bytes; their order alone matters. steady: see `compile_graph`.
    arrange: the pass over launches, for so many threads.
    """
    failing: set[str] = set()
    written = Extents([examples[w.target] for w in graph.writes if w.what == "data"])
    steady = {i for i in steady if not written.shared(examples[i])}
    shared, careful = _shared(graph, examples), False
    while True:
        with service.waiting(), Recording(careful) as recording:
            lowering = Lowering(graph, examples, recording, failing, steady)
            outputs = lowering.run(strides)
            if not careful and recording.touched():
                careful = True  # once more, to find out which step reads values
                continue
            found = lowering.steps_at(recording.late_failures()) - failing
            if not found:
                stream = recording.finish(outputs, None if arrange is None else partial(
                    _arranged, arrange, shared))
                sources = [(first - bisect_left(recording.left_out, first), node)
                           for first, node in lowering.sources]
                return Executable(graph, stream, sources, recording.order, examples)
        failing |= found  # once more, with writes to inputs after them


def _arranged(arrange: Arranging, shared: Collection[int], steps: Sequence[Noted | Host],
              prepared: int, results: Collection[int]) -> Arrangement:
    """As a recording asks for it."""
    return arrange(Launches(steps, prepared, results, shared), get_num_threads())


def _shared(graph: Graph, examples: Sequence[Array]) -> set[int]:
    """Inputs that share memory with others, some of which are written to."""
    targets = [w.target for w in graph.writes if w.what == "data"]
    written, found = Extents([examples[t] for t in targets]), set[int]()
    for i, a in enumerate(examples):
        others = {targets[n] for n in written.shared(a)} - {i}
        if others:
            found |= {i, *others}
    return found


class Step(NamedTuple):
    """A launch of a program. bytes: of the arrays that it reads and writes."""

    name: str
    operators: tuple[str, ...]  # that it computes; () for copies that only place values
    where: Any  # the user's line, see `graph/node.py:Node`
    bytes: int
    is_host: bool
    key: Any  # of the kernel, see `codegen/service.py`
    is_prepared: bool  # run once for many calls, see `runtime/stream.py:Stream`


def _steps(stream: Stream, sources: Sequence[tuple[int, Node | None]], order: Sequence[int]
           ) -> list[Step]:
    """Every launch with the operators behind it."""
    starts = [first for first, _ in sources]
    found = []
    for i, (launch, recorded) in enumerate(zip(stream.launches, order, strict=True)):
        place = bisect_right(starts, recorded) - 1
        node = sources[place][1] if place >= 0 else None
        size = sum(_touched(*a[:3]) for a in launch.arguments if isinstance(a, tuple))
        found.append(Step(launch.name, () if node is None else operators(node),
                          None if node is None else node.where, size, launch.is_host, launch.key,
                          i < stream.prepared))
    return found


def operators(node: Node) -> tuple[str, ...]:
    """The operators of a call, in order."""
    if isinstance(node.op, Fused):
        return tuple(c.op.name for c in node.op.body.calls)
    return (node.op.name,)


def _touched(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> int:
    """Bytes of the elements of an array, those that stand for several counted once."""
    return itemsize * prod(n for n, s in zip(shape, strides, strict=True) if s)


class Executable:
    """The native program of a graph.

    steady: inputs that prepared launches read. hosts: how many steps run in Python.
    """

    def __init__(self, graph: Graph, stream: Stream,
                 sources: Sequence[tuple[int, Node | None]], order: Sequence[int],
                 examples: Sequence[Array]) -> None:
        self.graph, self.stream = graph, stream
        self.hosts = sum(launch.is_host for launch in stream.launches)  # steps in Python
        self._told = sources, order
        self.steady = sorted(b.number for b in stream.prepared_from)
        self.written = sorted({w.target for w in graph.writes if w.what == "data"})
        written = Extents([examples[i] for i in self.written])
        self.shared = [written.shared(a) for a in examples]
        self.seen: list[Callable[[], Any]] = [_nothing] * len(examples)
        self.extents: Extents | None = None  # of the arrays that are written to

    def run(self, arrays: Sequence[Array], numbers: Sequence[float] = (),
            is_prepared: bool | None = None) -> list[Array]:
        """The outputs, then the values of "grad" writes, in memory of their own.

        is_prepared: see `runtime/stream.py:Stream`; None keeps nothing.
        "data" writes are done in the arrays' memory. ValueError where an array has another
        layout than its example, or shares memory that its example did not share; RuntimeError
        where one that is written to may only be read.
        """
        if self.written:
            self.check_memory(arrays)
        return self.stream(arrays, numbers, is_prepared)

    @cached_property
    def launches(self) -> list[Step]:
        """Every launch, in order."""
        return _steps(self.stream, *self._told)

    @property
    def arena_bytes(self) -> int:
        """The memory that values in between take together."""
        return self.stream.arena_bytes

    def check_memory(self, arrays: Sequence[Array]) -> None:
        """Refuses arrays that share memory with those that are written to, if examples did not.

        Arrays that the last run had too are known to be as they were.
        """
        new = [i for i, (seen, a) in enumerate(zip(self.seen, arrays, strict=False))
               if seen() is not a]
        if not new or len(arrays) != len(self.seen):  # of a wrong number the stream complains
            return
        if self.extents is None or not set(self.written).isdisjoint(new):
            for i in self.written:
                check_memory(arrays[i])
            self.extents = Extents([arrays[i] for i in self.written])
            new = list(range(len(arrays)))
        for i in new:
            if self.extents.shared(arrays[i]) != self.shared[i]:
                self.extents = None
                raise ValueError(f"program {self.graph.name}: input {self.graph.names[i]} shares "
                                 "memory with another that is written to, otherwise than when the "
                                 "program was compiled")
            self.seen[i] = ref(arrays[i])


def _nothing() -> None:
    return None
