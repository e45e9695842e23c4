"""From a graph to a launch stream: every step is launched once, on arrays that are only planned.

Operators run as they do eagerly: by their template, by a kernel traced from their reference, or,
where there is neither, by the reference itself between two native stretches.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from ..codegen.expression import Untraceable
from ..codegen.stream import Recording
from ..graph.node import Graph, Node
from ..ops.native import TEMPLATES, explained
from ..ops.record import Leaf
from ..runtime import memory
from ..runtime.repeats import Repeats
from ..tensor.tensor import wrap
from .arrays import Extents, bounds, copy_into, dense_like, launch_body, store_number
from .fused import Fused, Job, job_of
from .places import Places, part_of
from .reference import run_body
from .schedule import Schedule, step_of
from .writes import in_place

__all__ = ["Lowering"]

Array = np.ndarray[Any, Any]


class Lowering:
    """One graph being recorded.

    names: by launch, the operators and the user's line that it comes from.
    """

    def __init__(self, graph: Graph, examples: Sequence[Array], recording: Recording,
                 failing: Collection[str] = (), steady: Collection[int] = ()) -> None:
        self.graph, self.examples, self.recording = graph, examples, recording
        self.failing = failing  # digests of steps that may fail; inputs change only after them
        self.values: dict[str, Any] = {}
        self.repeats = Repeats(recording)
        self.inputs = [recording.input(a, i in steady) for i, a in enumerate(examples)]
        self.values.update({n.digest: a for n, a in zip(graph.inputs, self.inputs, strict=True)})
        self.values.update({n.digest: recording.number(1.0) for n in graph.numbers})
        self.extents = Extents(self.inputs)
        self.results = _results(graph)
        self.sources: list[tuple[int, Node | None]] = []  # first launch, and its step

    def run(self, strides: Sequence[Sequence[int]]) -> list[Array]:
        """Records everything; the outputs, then the values of gradients to be written."""
        schedule = Schedule(self.graph)
        self.places = Places(self.graph)
        self.targets = in_place(self.graph, schedule, self.examples, self.failing)
        outputs = Outputs(self, strides)
        outputs.copy_inputs()
        for step in schedule.order():
            self.sources.append((self.recording.count, step))
            self.step(step)
        self.sources.append((self.recording.count, None))
        given = outputs.found()
        self.write_rest()
        return given

    def steps_at(self, launches: Sequence[int]) -> set[str]:
        """Digests of the steps that these launches belong to."""
        starts = [first for first, _ in self.sources]
        nodes = [self.sources[bisect_right(starts, i) - 1][1] for i in launches]
        return {n.digest for n in nodes if n is not None}

    # --- steps --------------------------------------------------------------------------------

    def step(self, step: Node) -> None:
        """Launches a call or a draw."""
        special = _SPECIAL.get(step.op.name)
        if special is not None and special(self, step):
            return
        found = None
        if step.kind == "call" and isinstance(step.op, Leaf) and step.op.name in TEMPLATES:
            found = self.by_template(step)
        elif step.kind == "call":
            found = self.by_body(step)
        if found is None:
            self.by_host(step)

    def by_template(self, step: Node) -> Any:
        """By the launcher of the operator; None where it does not serve these arguments."""
        if any(n.kind == "number" for n in step.operands()):
            return None
        args, attrs = [self.value(a) for a in step.args], self.attribute(step.attrs)
        launcher = TEMPLATES[step.op.name]
        self.recording.wanted = wanted = self.wanted(step)
        def launch() -> Any:
            return explained(step.op, launcher, args, attrs)
        found = self.recording.attempt(launch) if step.inner else self.repeats.attempt(
            (step.op, step.facts, *wanted), [*args, *wanted.values()], launch)
        self.recording.wanted = {}
        if found is None:
            return None
        many = found if found.__class__ is tuple else (found,)
        if step.shape is not None:
            self.values[step.digest] = many[0]
        for r in self.results.get(step.digest, ()):
            self.values[r.digest] = many[r.attrs[0]]
        return many

    def wanted(self, step: Node) -> dict[int, Array]:
        """Where the results of a template should go, by number."""
        results = [(0, step)] if step.shape is not None else [
            (r.attrs[0], r) for r in self.results.get(step.digest, ())]
        found = {i: self.target(r) for i, r in results}
        return {i: a for i, a in found.items() if a is not None}

    def by_body(self, step: Node) -> list[Array] | None:
        """By one kernel (or a few) made of the references."""
        job = self.job(step)
        arrays = [self.value(n) for n in job.inputs]
        numbers = [self.values[n.digest] for n in job.numbers]
        into = [self.target(r) for r in job.roots]
        together = step.op.__class__ is Fused
        try:
            found = self.repeats.attempt(
                (job.body.key, together), [*arrays, *numbers, *into],
                lambda: launch_body(job.body, arrays, numbers, into, together))
        except (Untraceable, NotImplementedError, TypeError, ValueError, AttributeError,
                IndexError):
            return None  # what a reference does that symbols cannot
        if found is not None:
            self.keep(job, found)
        return found

    def by_host(self, step: Node) -> None:
        """By the references, in Python."""
        body, inputs, numbers, roots = self.job(step)
        arrays = [self.value(n) for n in inputs]
        held = [self.held(self.values[n.digest]) for n in numbers]
        outs = [memory.empty(tuple(r.shape), r.dtype) for r in body.roots]  # type: ignore[arg-type]
        count = len(arrays)

        def run(reads: list[Array], writes: list[Array]) -> None:
            found = run_body(body, reads[:count], [float(a[()]) for a in reads[count:]])
            for out, value in zip(writes, found, strict=True):
                out[...] = value
        self.recording.host(run, [*arrays, *held], outs, body.name)
        for r in roots:
            if r is not None:
                self.targets.pop(r.digest, None)
        self.keep(self.job(step), outs)

    def held(self, number: float) -> Array:
        """A number that is given at each run, in memory, for steps in Python."""
        out = memory.empty((), np.dtype(np.float64))
        store_number(out, number)
        return out

    def job(self, step: Node) -> Job:
        return job_of(step, self.results.get(step.digest, ()))

    def keep(self, job: Job, found: Sequence[Array]) -> None:
        for r, a in zip(job.roots, found, strict=True):
            if r is not None:
                self.values[r.digest] = a

    def target(self, root: Node | None) -> Array | None:
        """The memory that takes a value as soon as it is made, where it is known."""
        place = None if root is None else self.targets.get(root.digest)
        return self.places.place(root) if place is None else self.inputs[place]

    # --- values -------------------------------------------------------------------------------

    def value(self, node: Any) -> Any:
        """What stands for an argument: an array, a number or None."""
        if not isinstance(node, Node):
            return node
        found = self.values.get(node.digest)
        if found is None:
            found = self.values[node.digest] = self.derived(node)
        return found

    def derived(self, node: Node) -> Any:
        """A result of a view, or a view; a copy where memory does not allow it."""
        first = self.value(node.args[0])
        if node.kind == "result":
            return first[node.attrs[0]]
        if node.op.name in ("view", "unsqueeze", "squeeze"):
            try:
                return first.reshape(node.shape, copy=False)
            except ValueError:
                return self.copied(first).reshape(node.shape)
        return node.op.kernel(first, *node.attrs)

    def attribute(self, value: Any) -> Any:
        """Attributes with tensors in the place of nodes."""
        if isinstance(value, Node):
            return wrap(self.value(value))
        if value.__class__ in (tuple, list):
            return value.__class__(map(self.attribute, value))
        return value

    def copied(self, array: Array, strides: Sequence[int] | None = None) -> Array:
        """A copy in rows, or with axes in the order of these strides."""
        made = memory.empty(array.shape, array.dtype) if strides is None else dense_like(
            array.shape, array.dtype, strides)
        self.copy(made, array)
        return made

    def copy(self, out: Array, source: Array) -> None:
        if not self.repeats.attempt("copy", [out, source],
                                    lambda: (out,) if copy_into(out, source) else None):
            def run(reads: list[Array], writes: list[Array]) -> None:
                writes[0][...] = reads[0]
            self.recording.host(run, [source], [out], "copy", can_fail=False)

    # --- effects ------------------------------------------------------------------------------

    def write_rest(self) -> None:
        """Copies what was not computed in the inputs' own memory, when nobody reads them more."""
        rest = [(w.target, self.value(w.node)) for w in self.graph.writes
                if w.what == "data" and self.targets.get(w.node.digest) != w.target]
        taken = Extents([self.examples[target] for target, _ in rest])
        ready = []
        for target, source in rest:
            origin = self.origin(source)
            moved = origin is not None and taken.shared(self.examples[origin])
            ready.append((target, self.copied(source) if moved else source))
        for target, source in ready:
            self.copy(self.inputs[target], source)

    def origin(self, array: Array) -> int | None:
        """The place of the input whose memory an array shows."""
        return next(iter(self.extents.shared(array)), None)


class Outputs:
    """What a run gives: each in memory of its own, as the eager path lays it out."""

    def __init__(self, lowering: Lowering, strides: Sequence[Sequence[int]]) -> None:
        self.low = lowering
        graph = lowering.graph
        grads = [w for w in graph.writes if w.what == "grad"]
        self.nodes = [*graph.outputs, *(w.node for w in grads)]
        self.layouts = [*strides, *(lowering.examples[w.target].strides for w in grads)]
        self.early: dict[int, Array] = {}

    def copy_inputs(self) -> None:
        """Copies outputs that show an input, before anything is written."""
        for i, node in enumerate(self.nodes):
            if step_of(node).kind == "input":
                self.early[i] = self.low.copied(self.low.value(node), self.layouts[i])

    def found(self) -> list[Array]:
        """The outputs; copies where one would share memory or lies otherwise."""
        given: list[Array] = []
        taken: list[tuple[int, int]] = []
        for i, node in enumerate(self.nodes):
            a = self.early.get(i)
            if a is None:
                a = self.low.value(node)
                if self.moves(a, self.layouts[i], taken):
                    a = self.low.copied(a, self.layouts[i])
            given.append(a)
            taken.append(bounds(a))
        return given

    def moves(self, a: Array, strides: Sequence[int], taken: list[tuple[int, int]]) -> bool:
        """Whether an output needs a copy. taken: the bounds of those before."""
        wanted = dense_strides(a.shape, a.itemsize, strides)
        low, high = bounds(a)
        return (a.size > 0 and any(s != w for n, s, w in zip(
            a.shape, a.strides, wanted, strict=True) if n > 1)) or any(
            low < end and start < high for start, end in taken) or self.low.origin(a) is not None


def dense_strides(shape: Sequence[int], itemsize: int, strides: Sequence[int]) -> list[int]:
    """The strides of `dense_like`."""
    found, step = [0] * len(shape), itemsize
    for d in sorted(range(len(shape)), key=lambda d: (-abs(strides[d]), d))[::-1]:
        found[d] = step
        step *= shape[d]
    return found


def _results(graph: Graph) -> dict[str, list[Node]]:
    """The results in use, by call."""
    found: dict[str, list[Node]] = {}
    for n in graph.nodes():
        if n.kind == "result":
            assert n.args[0] is not None
            found.setdefault(n.args[0].digest, []).append(n)
    return found


# --- operators that only move ---------------------------------------------------------------------


def _clone(low: Lowering, step: Node) -> bool:
    """Any dtype, dense in the order that was asked for."""
    low.values[step.digest] = low.copied(low.value(step.args[0]))
    return True


def _window(array: Array, size: Any, stride: Any, offset: int) -> Array:
    """A strided window, in elements, of a dense array."""
    flat = array.reshape(-1, copy=False)[offset:]
    width = array.itemsize
    if 0 in size or flat.size < 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True)):
        return array.reshape(-1)[:0].reshape(size)
    return np.lib.stride_tricks.as_strided(flat, size, [s * width for s in stride])


def _read_window(low: Lowering, step: Node) -> bool:
    """A view: values do not change."""
    whole = low.value(step.args[0])
    whole = whole if whole.flags.c_contiguous else low.copied(whole)
    low.values[step.digest] = _window(whole, *step.attrs)
    return True


def _write_window(low: Lowering, step: Node) -> bool:
    """In place where the old value dies, else on a copy."""
    place = low.targets.get(step.digest)
    out = low.copied(low.value(step.args[0])) if place is None else low.inputs[place]
    low.copy(_window(out, *step.attrs), low.value(step.args[1]))
    low.values[step.digest] = out
    return True


def _cat(low: Lowering, step: Node) -> bool:
    """Every part is made in its place, or copied there."""
    dim, start = step.attrs[0] % len(step.shape), 0
    if any(part is None or part.dtype != step.dtype for part in step.args):
        return False
    out = low.places.whole(step)
    for part in step.args:
        assert part is not None
        if len(part.shape) != len(step.shape):  # an empty part of any shape
            continue
        stop = start + part.shape[dim]
        _place(low, part_of(out, dim, start, stop), part)
        start = stop
    low.values[step.digest] = out
    return True


def _place(low: Lowering, window: Array, part: Node) -> None:
    """Copies a value into a window; a reshaped one in the shape that it has in memory."""
    if part.digest not in low.values and part.kind == "call" and part.op.name == "view":
        source = low.value(part.args[0])
        try:
            source.reshape(part.shape, copy=False)
        except ValueError:
            try:
                low.copy(window.reshape(source.shape, copy=False), source)
                return
            except ValueError:
                pass
    source = low.value(part)
    if source.strides != window.strides or bounds(source) != bounds(window):
        low.copy(window, source)


def _given_number(low: Lowering, step: Node) -> bool:
    """A number of the run in an array of one element, where no kernel takes it as it is."""
    if step.kind != "call" or step.shape or step.dtype is None or step.dtype.kind not in "iu":
        return False
    out = memory.empty((), step.dtype)
    store_number(out, low.values[step.attrs[0].digest])
    low.targets.pop(step.digest, None)
    low.values[step.digest] = out
    return True


_SPECIAL: dict[str, Callable[[Lowering, Node], bool]] = {
    "clone": _clone, "read_window": _read_window, "write_window": _write_window, "cat": _cat,
    "given_number": _given_number,
}
