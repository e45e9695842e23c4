"""A compiled graph: call `run` with arrays laid out as those it was compiled for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..codegen import service
from ..codegen.stream import Recording, Stream
from ..graph.node import Graph, Node
from .arrays import overlap
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
        self.shared = _sharing(self.written, examples)
        self.seen: list[int] = []

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
        """Refuses arrays that share memory where the examples did not."""
        if _sharing(self.written, arrays) != self.shared:
            raise ValueError(f"program {self.graph.name}: arguments that are written to share "
                             "memory with others, which those it was compiled for did not")


def _sharing(written: Sequence[int], arrays: Sequence[Array]) -> set[tuple[int, int]]:
    """Pairs of a written array and another that may share memory."""
    return {(i, j) for i in written for j, b in enumerate(arrays)
            if i != j and overlap(arrays[i], b)}
