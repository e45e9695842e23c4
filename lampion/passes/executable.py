"""A compiled graph: call `run` with arrays laid out as those it was compiled for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

import numpy as np

from ..codegen import service
from ..codegen.stream import Recording, Stream
from ..graph.node import Graph, Node
from .arrays import Extents
from .lower import Lowering

__all__ = ["Executable", "lower"]

Array = np.ndarray[Any, Any]


def lower(graph: Graph, examples: Sequence[Array], strides: Sequence[Sequence[int]]) -> Executable:
    """Records the graph as a launch stream; kernels that are missing are made here and now.

    strides: of the outputs, in bytes; their order alone matters.
    """
    with service.waiting(), Recording() as recording:
        lowering = Lowering(graph, examples, recording)
        outputs = lowering.run(strides)
        stream = recording.finish(outputs)
    return Executable(graph, stream, lowering.sources, examples)


class Executable:
    """The native program of a graph."""

    def __init__(self, graph: Graph, stream: Stream, sources: list[tuple[int, Node]],
                 examples: Sequence[Array]) -> None:
        self.graph, self.stream, self.sources = graph, stream, sources
        self.written = sorted({w.target for w in graph.writes if w.what == "data"})
        self.shared = [Extents([examples[i] for i in self.written]).shared(a) for a in examples]
        self.seen: list[Callable[[], Any]] = [_nothing] * len(examples)
        self.extents: Extents | None = None  # of the arrays that are written to

    def run(self, arrays: Sequence[Array], numbers: Sequence[float] = ()) -> list[Array]:
        """The outputs, then the values of "grad" writes, in memory of their own.

        "data" writes are done in the arrays' memory. ValueError where an array has another
        layout than its example, or shares memory that its example did not share.
        """
        if self.written:
            self.check_memory(arrays)
        return self.stream(arrays, numbers)

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
