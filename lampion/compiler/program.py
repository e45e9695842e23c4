"""A captured call as a program: made in the background, run by one native call."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Collection
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from ..autograd.node import new_node
from ..capture.program import apply_eagerly
from ..debug.knobs import knobs
from ..graph.interpret import interpret
from ..ops import as_strided
from ..ops.optimize import note_writes
from ..tensor.dtype import from_numpy_dtype
from ..tensor.tensor import Tensor, share, wrap
from .decisions import generators
from .inputs import Inputs, Memory, tensor_of
from .joint import Spent, attach, named
from .quick import Facts
from .steady import Steady
from .steps import tell_schedulers
from .trace import Captured, Output, is_one_tensor, rebuild

__all__ = ["Native", "Options", "Program", "steady_inputs"]


_WANTS_GRAD, _HISTORY = attrgetter("_rg"), attrgetter("_fn")
_ARRAY = attrgetter("_a")
_LAYOUT = attrgetter("_a.shape", "_a.strides", "_a.dtype")


class Options(NamedTuple):
    """How a function is compiled; see `torch.compile`."""

    fullgraph: bool = False
    wait: bool = False
    interpret: bool = False  # the captured graph, operator by operator
    checked: bool = False  # beside an eager run


class Program:
    """Runs a captured call with new arguments."""

    def __init__(self, captured: Captured, options: Options) -> None:
        self.captured = captured
        self.native = Native(captured.graph, options, steady_inputs(captured))
        self.steady: Steady | None = None  # of what the values that `prepared_by` keeps follow from
        self.prepared_by: Any = None
        self.generators = generators(captured.graph.draws)
        self.inputs = Inputs(captured.sources)
        self.memory = Memory(captured.sources, [w.target for w in captured.writes])
        self.owners = Inputs([source for source, _ in captured.grads])  # of new gradients
        self.unread, self.early = Inputs(captured.unread), Inputs(captured.early)
        self.dropped = Inputs(captured.dropped)
        self.outside = captured.outside
        self.outside_ids = set(map(id, self.outside))
        self.flags = list(map(_WANTS_GRAD, self.outside))
        self.histories = list(map(_HISTORY, self.outside))
        read = {id(t) for t in self.inputs.known}
        self.unused = [t for t in self.outside if id(t) not in read]
        self.layouts = list(map(_LAYOUT, self.unused))
        self.quick: Any = None
        self.quick = self._quick()
        outputs = captured.graph.outputs
        self.kinds = [from_numpy_dtype(n.dtype) for n in outputs]  # type: ignore[arg-type]
        kept = () if captured.backward is None else captured.backward.places
        self.wrapped = {o.place for o in captured.outputs if o.place >= 0} | {*kept}
        self.is_one = is_one_tensor(captured.shape)
        self.is_plain = self.is_one and captured.backward is None and captured.outputs == [
            Output("value", 0)]
        self.looks_at_numbers = bool(captured.floats or captured.updates or captured.varying
                                     or captured.facts)
        self.has_effects = bool(captured.writes or captured.grads or captured.dropped
                                or captured.updates or captured.followed or captured.scalings
                                or captured.counts or captured.after)
        if captured.backward is not None:
            captured.backward.program = Native(captured.backward.graph, options)

    @property
    def seconds(self) -> float:
        """What planning has taken so far."""
        return self.captured.seconds + self.native.seconds

    def numbers(self, arguments: list[Tensor], floats: list[float]) -> list[float] | None:
        """The floats of this run; None where this call is not as it was captured."""
        found: list[float] | None = self._numbers(floats) if self.looks_at_numbers else []
        if self.outside and not (self.outside_ids.isdisjoint(map(id, arguments))
                                 and self._tensors_fit()):
            return None
        return found if not self.memory.targets or self.memory.apart(arguments) else None

    def _numbers(self, floats: list[float]) -> list[float] | None:
        captured = self.captured
        for i, x in captured.floats:
            if floats[i] != x or str(floats[i]) != str(x):
                return None
        found = [0.0] * len(captured.graph.numbers)
        for update in captured.updates:
            numbers = update.numbers(floats)
            if numbers is None:
                return None
            found[update.first:update.first + len(numbers)] = numbers
        for number in captured.varying:
            value = number.now(floats)
            if value is None:
                return None
            found[number.node.attrs[0]] = value  # type: ignore[union-attr]
        return found if captured.facts_hold(floats) else None

    def _quick(self) -> Any:
        """Gives None while all tensors from outside are as they are now; None if there is none."""
        facts = Facts()
        for name in ("_rg", "_fn"):
            facts.fields(self.outside, name)
        facts.fields(self.unused, "_a")
        made = facts.close() if self.outside else None
        return made if self._tensors_fit() else None

    def _tensors_fit(self) -> bool:
        """Whether the tensors from outside still are what was captured."""
        if self.quick is not None and self.quick() is None:
            return True
        outside, unused = self.outside, self.unused
        return list(map(_WANTS_GRAD, outside)) == self.flags and (
            list(map(_HISTORY, outside)) == self.histories) and (
            not unused or list(map(_LAYOUT, unused)) == self.layouts)

    def ready(self, arguments: list[Tensor]) -> bool:
        """Whether the machine code is there; otherwise it is being made."""
        made = self.native.executable
        if (made is not None and made.stream.is_current) or self.native.options.interpret:
            return True
        return self.native.ready([t._a for t in self.inputs.now(arguments)])

    def run(self, arguments: list[Tensor], numbers: list[float]) -> Any:
        """One call: the result, with all effects."""
        return self.finish(arguments, self.compute(arguments, numbers))

    def compute(self, arguments: list[Tensor], numbers: list[float]) -> list[Any]:
        """The first half: outputs and gradients. Where it raises, nothing has changed.

        But for gradients that the function drops unread, where it does so before it can fail:
        their memory serves the new ones.
        """
        made = self.native.executable
        safe = made is not None and not made.stream.can_fail
        for t in (self.unread if safe else self.early).now(arguments):
            t._grad = None
        arrays = list(map(_ARRAY, self.inputs.now(arguments)))
        if not self.generators:
            return self._computed(arrays, numbers)
        streams = [g.stream for g in self.generators]
        marks = [s.mark() for s in streams]
        try:
            return self._computed(arrays, numbers)
        except Exception:
            for stream, mark in zip(streams, marks, strict=True):
                stream.back_to(mark)
            raise

    def _computed(self, arrays: list[Any], numbers: list[float]) -> list[Any]:
        """The native run, which leaves out what is prepared and still right."""
        made = self.native.executable
        if made is None or not made.steady:
            return self._run(arrays, numbers, None)
        steady = self.steady
        if steady is None or made is not self.prepared_by:
            sources = [self.captured.sources[i] for i in made.steady]
            steady = self.steady = Steady([s.value for s in sources if s.kind == "tensor"])
            self.prepared_by = made
        now = steady.look()
        if steady.holds(now):
            return self._run(arrays, numbers, True)
        steady.note(None)
        found = self._run(arrays, numbers, False)
        steady.note(now)
        return found

    def _run(self, arrays: list[Any], numbers: list[float], is_prepared: bool | None) -> list[Any]:
        made = self.native.executable
        if made is not None and self.memory.is_checked(made):
            return made.stream(arrays, numbers, is_prepared)  # type: ignore[no-any-return]
        found = self.native(arrays, numbers, is_prepared)
        self.memory.note(self.native.executable)
        return found

    def finish(self, arguments: list[Tensor], found: list[Any]) -> Any:
        """The second half: the result, and what the call leaves behind."""
        if self.has_effects:
            self._effects(arguments, found[len(self.kinds):])
        result = self._result(arguments, found)
        if not self.captured.apply:
            return result
        for action, value in zip(self.captured.apply, result[1], strict=True):
            action(value)
        return result[0]

    def _effects(self, arguments: list[Tensor], grads: list[Any]) -> None:
        captured = self.captured
        if self.memory.targets:
            note_writes(self.memory.inputs.now(arguments), captured.graph.name)
        for t in self.dropped.now(arguments):
            t._grad = None
        for t, array in zip(self.owners.now(arguments), grads, strict=True):
            t._grad = wrap(array, t._dtype)
        for update in captured.updates:
            update.commit()
        for optimizer in captured.followed:
            tell_schedulers(optimizer)
        for scaling in captured.scalings:
            scaling.commit()
        for table, name, step in captured.counts:
            table[name] += step
        for scheduler, args in captured.after:
            if args is not None:
                scheduler.step()

    def _result(self, arguments: list[Tensor], found: list[Any]) -> Any:
        captured, backward = self.captured, self.captured.backward
        if self.is_plain:
            return wrap(found[0], self.kinds[0])
        values: list[Any] = [None] * len(found)
        for i in self.wrapped:
            values[i] = wrap(found[i], self.kinds[i])
        tensors = [self._output(o, arguments, values) for o in captured.outputs]
        if backward is not None:
            saved = found[backward.saved_from:backward.saved_from + backward.n_saved]
            attach(backward, values, saved, arguments)
        return tensors[0] if self.is_one else rebuild(captured.shape, iter(tensors))

    def _output(self, o: Any, arguments: list[Tensor], values: list[Tensor]) -> Tensor:
        if o.kind == "value":
            t = values[o.place]
            t._rg = o.requires_grad or o.spent is not None
            if o.spent is not None:
                t._fn = new_node(named(o.spent, Spent), (), ())
                t._fn.out_st = None
            return t
        if o.kind == "number":
            return o.geometry(values[o.place].item())  # type: ignore[no-any-return]
        if o.kind == "window":
            return _view(values[o.place], *o.geometry)
        t = tensor_of(o.source, arguments)
        if o.kind == "input":
            return t
        return t.detach() if o.kind == "alias" else _view(t.detach() if t._rg else t, *o.geometry)


def _view(t: Tensor, shape: Any, strides: Any, offset: int, dtype: Any, whole: Any) -> Tensor:
    """A window on the memory of `t`, which should lie as `whole` says; all in bytes."""
    width, a = dtype.itemsize, t._a
    if t._dtype is dtype and t._base is None and not t._rg and a.strides == whole and (
            a.flags.c_contiguous):  # as nearly always, and much quicker than an operator
        return share(t, np.ndarray(shape, a.dtype, a, offset, strides))
    if t._dtype is not dtype:
        t = t.view(dtype)
    elif t._base is None and t._a.strides != whole:
        t._a = _laid_out(t._a, whole)
    made: Tensor = as_strided(t, shape, [s // width for s in strides],
                              t.storage_offset() + offset // width)
    return made


def _laid_out(a: Any, strides: Any) -> Any:
    """A copy of a result that lies in memory as it does eagerly."""
    order = sorted(range(a.ndim), key=lambda i: -strides[i])
    made = np.ascontiguousarray(a.transpose(order))
    return made.transpose(np.argsort(order))


def steady_inputs(captured: Captured) -> set[int]:
    """Inputs that runs mostly find unchanged: state of a function that trains nothing."""
    if captured.backward is not None or captured.grads or captured.updates:
        return set()
    written = {w.target for w in captured.writes}
    return {i for i, s in enumerate(captured.sources)
            if s.kind in ("tensor", "constant") and i not in written}


class Native:
    """A graph's machine code; until it is there, the graph is interpreted.

    steady: inputs that runs mostly find unchanged. error: why it could not be made.
    """

    def __init__(self, graph: Any, options: Options, steady: Collection[int] = ()) -> None:
        self.graph, self.options, self.steady = graph, options, steady
        self.executable: Any = None
        self.examples: list[Any] = []  # arrays without elements that lie as the inputs do
        self.error: str | None = None
        self.seconds = 0.0  # that making it took
        self.thread: threading.Thread | None = None
        self.lock = threading.Lock()

    def ready(self, examples: list[Any]) -> bool:
        """Whether the program can run natively; if not, its making has begun."""
        with self.lock:
            self._start(examples)
        if self.options.wait and self.thread is not None:
            self.thread.join()
        return self.executable is not None

    def _start(self, examples: list[Any]) -> None:
        """Begins to make the machine code, unless somebody did or it is there."""
        if self.executable is not None and not self.executable.stream.is_current:
            self.executable = self.thread = None  # there are more threads now
        if self.executable is None and self.thread is None:
            self.examples = [_like(a) for a in examples]
            self.thread = threading.Thread(target=self._make, args=(examples,), daemon=True,
                                           name="lampion-program")
            self.thread.start()

    def _make(self, examples: list[Any]) -> None:
        try:
            from ..passes import compile_graph

            start = time.thread_time()
            self.executable = compile_graph(self.graph, examples, steady=self.steady)
            self.seconds = time.thread_time() - start
        except Exception as error:
            self.error = f"its program could not be made: {type(error).__name__}: {error}"
            if knobs.debug:
                traceback.print_exc()

    def __call__(self, arrays: list[Any], numbers: list[float] | tuple[()] = (),
                 is_prepared: bool | None = None) -> list[Any]:
        """Outputs, then the values of gradient writes; data writes are done in place."""
        if self.executable is not None or (not self.options.interpret and self.ready(arrays)):
            return self.executable.run(  # type: ignore[no-any-return]
                arrays, list(numbers), is_prepared)
        return self._interpreted(arrays, numbers)

    def copies(self) -> list[Any]:
        """Zeros that lie as the inputs do."""
        made = [_like(a) for a in self.examples]
        for a in made:
            a.fill(0)
        return made

    def some_numbers(self) -> list[float]:
        """As many numbers as a run takes."""
        return [0.5] * len(self.graph.numbers)

    def _interpreted(self, arrays: list[Any], numbers: Any) -> list[Any]:
        values = [wrap(a, from_numpy_dtype(a.dtype)) for a in arrays]
        outputs, written = interpret(self.graph, values, apply_eagerly, numbers)
        grads = []
        for w, value in zip(self.graph.writes, written, strict=True):
            if w.what == "data":
                arrays[w.target][...] = value._a
            else:
                grads.append(value._a.copy("K"))
        return [*(_own(o._a, arrays) for o in outputs), *grads]


def _like(a: Any) -> Any:
    """An array of the same shape, strides and dtype."""
    if not a.size:
        return np.ndarray(a.shape, a.dtype, b"", 0, a.strides)
    span = sum((n - 1) * abs(s) for n, s in zip(a.shape, a.strides, strict=True)) + a.itemsize
    start = -sum((n - 1) * s for n, s in zip(a.shape, a.strides, strict=True) if s < 0)
    return np.ndarray(a.shape, a.dtype, np.empty(span, np.uint8), start, a.strides)


def _own(a: Any, arrays: list[Any]) -> Any:
    """A result in memory of its own."""
    return a.copy("K") if a.base is not None or any(a is b for b in arrays) else a

