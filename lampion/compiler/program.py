"""A captured call as a program: made in the background, run by one native call."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Collection, Sequence
from operator import attrgetter, is_
from typing import Any, NamedTuple

import numpy as np

from ..autograd.node import new_node
from ..capture.program import apply_eagerly
from ..debug.knobs import knobs
from ..graph.interpret import interpret
from ..ops import as_strided
from ..ops.optimize import note_writes
from ..passes.arrays import Extents, overlap
from ..tensor.dtype import from_numpy_dtype
from ..tensor.tensor import Tensor, share, wrap
from .decisions import generators
from .joint import Spent, attach, named
from .steady import Steady
from .steps import tell_schedulers
from .trace import Captured, Source, rebuild

__all__ = ["Native", "Options", "Program", "steady_inputs", "tensor_of"]


_FLAGS = attrgetter("_rg", "_fn")
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
        self.fixed = [s.value if s.kind == "tensor" else None for s in captured.sources]
        self.written: list[Any] = []  # arrays that an earlier run wrote to, and where they lie
        self.extents = Extents([])
        self.fixed_ids = {id(t) for t in self.fixed if t is not None}
        self.outside = captured.outside
        self.outside_ids = set(map(id, self.outside))
        self.flags = list(map(_FLAGS, self.outside))
        self.unused = [t for t in self.outside if id(t) not in self.fixed_ids]
        self.layouts = list(map(_LAYOUT, self.unused))
        if captured.backward is not None:
            captured.backward.program = Native(captured.backward.graph, options)

    def numbers(self, arguments: list[Tensor], floats: list[float]) -> list[float] | None:
        """The floats of this run; None where this call is not as it was captured."""
        captured = self.captured
        for i, x in captured.floats:
            if floats[i] != x or str(floats[i]) != str(x):
                return None
        found = [0.0] * len(captured.graph.numbers)
        for update in captured.updates:
            numbers = update.numbers()
            if numbers is None:
                return None
            found[update.first:update.first + len(numbers)] = numbers
        for number in captured.varying:
            value = number.now(floats)
            if value is None:
                return None
            found[number.node.attrs[0]] = value  # type: ignore[union-attr]
        if not captured.facts_hold(floats):
            return None
        if not self.outside_ids.isdisjoint(map(id, arguments)):
            return None
        return found if self._tensors_fit() and self._apart(arguments) else None

    def _apart(self, arguments: list[Tensor]) -> bool:
        """Whether no argument shares memory with what the program writes, nor the reverse."""
        captured = self.captured
        if not captured.writes:
            return True
        suspects = [i for i, t in enumerate(arguments)
                    if t._st is not None or t._a.base is not None or id(t) in self.fixed_ids]
        if not suspects:
            return True
        written = [_array(captured.sources[w.target], arguments) for w in captured.writes]
        if len(written) != len(self.written) or not all(map(is_, written, self.written)):
            self.written, self.extents = written, Extents(written)
        mine = [captured.sources[w.target].value for w in captured.writes
                if captured.sources[w.target].kind == "argument"]
        if not set(mine).isdisjoint(suspects):
            return self._all_apart(arguments)
        return not any(self.extents.shared(arguments[i]._a) for i in suspects)

    def _all_apart(self, arguments: list[Tensor]) -> bool:
        """The same where an argument itself is written to."""
        arrays = [_array(s, arguments) for s in self.captured.sources]
        targets = {w.target for w in self.captured.writes}
        return not any(overlap(arrays[i], arrays[j]) for i in targets
                       for j in range(len(arrays)) if i != j)

    def _tensors_fit(self) -> bool:
        """Whether the tensors from outside still are what was captured."""
        return list(map(_FLAGS, self.outside)) == self.flags and (
            list(map(_LAYOUT, self.unused)) == self.layouts)

    def ready(self, arguments: list[Tensor]) -> bool:
        """Whether the machine code is there; otherwise it is being made."""
        made = self.native.executable
        if (made is not None and made.stream.is_current) or self.native.options.interpret:
            return True
        return self.native.ready([_array(s, arguments) for s in self.captured.sources])

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
        for source in self.captured.unread if safe else self.captured.early:
            tensor_of(source, arguments)._grad = None
        arrays = [_array(s, arguments) for s in self.captured.sources]
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
            return self.native(arrays, numbers)
        steady = self.steady
        if steady is None or made is not self.prepared_by:
            sources = [self.captured.sources[i] for i in made.steady]
            steady = self.steady = Steady([s.value for s in sources if s.kind == "tensor"])
            self.prepared_by = made
        now = steady.look()
        if steady.holds(now):
            return self.native(arrays, numbers, True)
        steady.note(None)
        found = self.native(arrays, numbers, False)
        steady.note(now)
        return found

    def finish(self, arguments: list[Tensor], found: list[Any]) -> Any:
        """The second half: the result, and what the call leaves behind."""
        captured = self.captured
        n = len(captured.graph.outputs)
        self._effects(arguments, found[n:])
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
        result = self._result(arguments, found[:n])
        if not captured.apply:
            return result
        for action, value in zip(captured.apply, result[1], strict=True):
            action(value)
        return result[0]

    def _effects(self, arguments: list[Tensor], grads: list[Any]) -> None:
        captured = self.captured
        if captured.writes:
            note_writes([tensor_of(captured.sources[w.target], arguments)
                         for w in captured.writes], captured.graph.name)
        for source in captured.dropped:
            tensor_of(source, arguments)._grad = None
        for (source, _), array in zip(captured.grads, grads, strict=True):
            tensor_of(source, arguments)._grad = wrap(array)

    def _result(self, arguments: list[Tensor], found: list[Any]) -> Any:
        captured = self.captured
        values = [wrap(a) for a in found]
        tensors = [self._output(o, arguments, values) for o in captured.outputs]
        backward = captured.backward
        if backward is not None:
            saved = found[backward.saved_from:backward.saved_from + backward.n_saved]
            attach(backward, values, saved, lambda source: tensor_of(source, arguments))
        return rebuild(captured.shape, iter(tensors))

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


def tensor_of(source: Source, arguments: Sequence[Tensor]) -> Tensor:
    """The tensor of a source at this call."""
    if source.kind == "tensor":
        return source.value  # type: ignore[no-any-return]
    if source.kind == "argument":
        return arguments[source.value]
    if source.kind == "constant":
        return wrap(source.value)
    assert source.kind == "grad"
    held = tensor_of(source.value, arguments)._grad
    assert held is not None
    return held


def _array(source: Source, arguments: list[Tensor]) -> Any:
    if source.kind == "tensor":
        return source.value._a
    if source.kind == "argument":
        return arguments[source.value]._a
    return source.value if source.kind == "constant" else tensor_of(source, arguments)._a


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

            self.executable = compile_graph(self.graph, examples, steady=self.steady)
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

