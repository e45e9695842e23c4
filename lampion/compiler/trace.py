"""One capture of a function as it is called: its graph, and how a run meets the real world.

Tensors among the arguments are inputs by position, all others by reference. What the function
returns is described by a plan that is filled in after each run.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from ..autograd.engine import grad
from ..autograd.modes import enable_grad, state
from ..capture.recorder import Recorder
from ..graph.node import Graph, Node, Write
from ..graph.spec import check
from ..nn.parameter import Parameter
from ..ops.autocast import set_dtype, switch
from ..passes.arrays import Extents
from ..runtime.collector import uncollected
from ..tensor.abstract import AbstractArray
from ..tensor.tensor import Tensor, wrap
from . import joint
from .calls import Follower
from .decisions import Decisions
from .inputs import Source
from .pending import Pending, read_back
from .steps import Steps
from .varying import Varying
from .varying import varying as number_of
from .watch import Break, Watcher

__all__ = ["Captured", "Leaves", "Output", "flatten", "is_one_tensor", "rebuild", "trace"]


class Output(NamedTuple):
    """One tensor of the result.

    kind: "value" (place: which output of the graph), "window" (on that value), "input" (the tensor
    of a source itself), "alias" (the same detached), "view" (of it), "number" (that value as a
    plain one). Windows and views have a geometry: shape, strides and offset in bytes, dtype.
    """

    kind: str
    place: int
    source: Source | None = None
    geometry: Any = None
    requires_grad: bool = False
    spent: str | None = None  # name of its node, whose history a backward inside has used up


class Captured:
    """A captured call."""

    def __init__(self, graph: Graph, sources: list[Source], watcher: Watcher, outputs: list[Output],
                 shape: Any, backward: Any) -> None:
        self.graph, self.sources, self.outputs, self.shape = graph, sources, outputs, shape
        self.guards, self.backward = watcher.guards, backward
        self.updates, self.after = watcher.steps.updates, watcher.steps.after
        self.counts = list(watcher.steps.counts.values())
        self.scalings = list(watcher.steps.scalings.values())
        self.followed = watcher.steps.followed
        self.effects, self.apply = watcher.effects, watcher.effects.apply
        # What numbers that vary told about themselves: how to ask again, the answer, what it is.
        self.facts: list[tuple[Callable[[Any], Any], Any, str]] = watcher.facts
        self.writes = [w for w in graph.writes if w.what == "data"]
        self.grads = [(sources[w.target], w) for w in graph.writes if w.what == "grad"]
        self.outside: list[Tensor] = []  # all tensors from outside that it saw
        self.dropped: list[Source] = []  # inputs whose gradient the function drops
        self.unread: list[Source] = []  # those whose gradient from before nothing reads
        self.early: list[Source] = []  # those of them that lose it before anything is computed
        self.branches: list[str] = []  # lines that decide by values, see `decisions.py`
        self.varying: list[Varying] = []  # numbers of the program that no optimizer gives
        self.seconds = 0.0  # that the capture took
        self.floats: list[tuple[int, float]] = []  # those among the arguments that must not differ

    def facts_hold(self, given: Sequence[float]) -> bool:
        """Whether numbers that vary still answer as they did."""
        return not self.facts or self.changed_fact(given) is None

    def changed_fact(self, given: Sequence[float]) -> str | None:
        """The first of them that does not."""
        for read, was, text in self.facts:
            try:
                now = read(given)
            except (ArithmeticError, TypeError, ValueError) as error:
                now = error
            if now.__class__ is not was.__class__ or str(now) != str(was):
                return f"{text} was {was}, is {now}"
        return None


# --- arguments and results ------------------------------------------------------------------------


class Leaves:
    """Arguments as a key, and the tensors and floats among them, which the key leaves out.

    loose: whether it leaves out ints too. has_ints: whether there are any.
    """

    __slots__ = ("floats", "has_ints", "key", "loose", "tensors")

    def __init__(self, args: Any, kwargs: Any, loose: bool = False) -> None:
        self.tensors: list[Tensor] = []
        self.floats: list[float] = []
        self.loose, self.has_ints = loose, False
        self.key: Any = tuple(map(self._key, args)), (
            self._key(kwargs) if kwargs else None), None
        if len(self.tensors) > 1 and _may_share(self.tensors):
            self.key = *self.key[:2], _sharing(self.tensors)

    def _key(self, value: Any) -> Any:
        if value.__class__ in _TENSORS or isinstance(value, Tensor):
            self.tensors.append(value)
            if not value._rg and value._fn is value._base is None and value.__class__ is Tensor:
                return _FACTS(value)
            return (*_FACTS(value), value._rg, value._fn is None, value._base is None,
                    value.__class__, value._rg and bool(value._hooks or value._post_hooks))
        kind = value.__class__
        if kind is float:
            self.floats.append(value)
            return kind
        if kind is int:
            self.has_ints = True
            if self.loose:
                self.floats.append(value)
                return kind
        if isinstance(value, dict):
            return kind, *[(k, self._key(v)) for k, v in value.items()]
        if isinstance(value, tuple) or kind is list:
            return kind, *[self._key(v) for v in value]
        return kind, value if kind in _BY_VALUE else Same(value)


_BY_VALUE = (int, bool, str, bytes, type(None), complex)


class Same:
    """Equal to others around the very same object, which it keeps alive."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.value is self.value


_TENSORS = frozenset((Tensor, Parameter))
_FACTS = attrgetter("_a.shape", "_a.strides", "_a.dtype.num")
_STORAGE = attrgetter("_st")


def _may_share(tensors: list[Tensor]) -> bool:
    return len(set(map(id, tensors))) < len(tensors) or any(map(_STORAGE, tensors))


def _sharing(tensors: list[Tensor]) -> Any:
    """Which arguments are the same tensor or share a storage."""
    first: dict[int, int] = {}
    places = [first.setdefault(id(t), i) for i, t in enumerate(tensors)]
    storages = [None if t._st is None else first.setdefault(id(t._st), i)
                for i, t in enumerate(tensors)]
    plain = all(p == i and s in (None, i) for i, (p, s) in enumerate(zip(
        places, storages, strict=True)))
    return None if plain else (tuple(places), tuple(storages))


def rebuild(value: Any, tensors: Any, floats: Any = None, loose: bool = False,
            unwrap: bool = True) -> Any:
    """The same structure with each tensor replaced by the next of `tensors`, floats likewise.

    loose: ints too. unwrap: whether what stands for itself (`Same`) is taken out.
    """
    if isinstance(value, (Tensor, Pending)):
        return next(tensors)
    if isinstance(value, float):
        return float(value) if floats is None else next(floats)
    if loose and value.__class__ is int:
        return next(floats)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[rebuild(v, tensors, floats, loose, unwrap) for v in value])
    if value.__class__ is tuple or value.__class__ is list:
        return value.__class__([rebuild(v, tensors, floats, loose, unwrap) for v in value])
    if isinstance(value, dict):
        made = value.copy() if value.__class__ is not dict else {}
        made.update((k, rebuild(v, tensors, floats, loose, unwrap)) for k, v in value.items())
        return made
    return value.value if unwrap and value.__class__ is Same else value


def flatten(value: Any, found: list[Any]) -> None:
    """Appends the tensors (and numbers read from some) of a structure, as `rebuild` meets them."""
    if isinstance(value, (Tensor, Pending)):
        found.append(value)
    elif isinstance(value, (tuple, list)):
        for v in value:
            flatten(v, found)
    elif isinstance(value, dict):
        for v in value.values():
            flatten(v, found)


# --- the capture ----------------------------------------------------------------------------------


def trace(fn: Callable[..., Any], args: Any, kwargs: Any, leaves: Leaves,
          varying: Sequence[Any] = (), branching: bool = True) -> Captured:
    """Captures `fn(*args, **kwargs)`; raises Break or CaptureError and leaves all as it was.

    varying: what may differ from run to run: places of floats among the arguments, and entries
    of dicts as (id of the dict, key). branching: whether values may decide, see `decisions.py`.
    """
    recorder = Recorder()
    recorder.decisions = Decisions(recorder, branching)
    steps = Steps(recorder)
    watcher = Follower(steps)
    recorder.watcher = watcher
    stand_ins = _stand_ins(leaves.tensors)
    modes = state.grad, state.inference, switch.dtype
    try:
        for t in stand_ins:
            if id(t) not in recorder.places:
                recorder.lift(t)
        steps.arguments = {id(t) for t in stand_ins}
        steps.twins = {id(s) for s, t in zip(stand_ins, leaves.tensors, strict=True) if s is not t}
        given, floats = iter(stand_ins), iter(_floats(leaves, watcher, varying))
        seen = tuple(rebuild(x, given, floats, leaves.loose) for x in (args, kwargs))
        watcher.take(seen)
        with recorder, _undisturbed():
            result = watcher.call(fn, *seen[0], **seen[1])
            recorder.decisions.close()
            result = _with_effects(result, watcher)
            result = _settled(result, watcher.guards.objects() - watcher.own.keys())
        _check_modes(modes)
        if watcher.broken is not None:
            raise watcher.broken
        if recorder.failed is not None:
            raise recorder.failed
        if recorder.switched():
            raise Break("requires_grad of a tensor from outside, which is left changed", "its end")
        _check_result(result, watcher)
        return _Finish(recorder, watcher, stand_ins, leaves, result, fn).captured()
    finally:
        watcher.effects.restore()
        recorder.restore()
        recorder.decisions.values.known.clear()


def _with_effects(result: Any, watcher: Watcher) -> Any:
    """What the program has to give: the result, and the values that are kept outside, if any."""
    effects = watcher.effects
    try:
        effects.close()
    except LookupError as error:
        raise Break(f"deleting {error}", "its end") from None
    if not effects.apply:
        return result
    for update in watcher.steps.updates:
        group = update.optimizer.param_groups[update.place]
        own = {key[1] for key in watcher.guards.own if key[0] == id(group)}
        if own - update.options.keys() or (own and id(group) in watcher.steps.moved):
            raise Break("setting an option of an optimizer that has stepped", "its end")
    both = (result, effects.values)
    _check_apart(both, effects.logged, set())
    return both


def _check_apart(value: Any, changed: Any, seen: set[int]) -> None:
    """Containers are made anew after every run: each of them once, and none from outside."""
    if isinstance(value, (list, dict)):
        if id(value) in seen or id(value) in changed:
            raise Break("keeping one container in two places", "its end")
        seen.add(id(value))
    if isinstance(value, (list, tuple, dict)):
        for v in value.values() if isinstance(value, dict) else value:
            _check_apart(v, changed, seen)


def _settled(value: Any, outside: Container[int]) -> Any:
    """The same structure; numbers that vary are read from the program.

    outside: ids of objects that every run finds as they are; containers among them are given
    themselves, not made anew.
    """
    if isinstance(value, Varying):
        return read_back(value)
    if isinstance(value, (list, dict)) and id(value) in outside:
        return Same(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[_settled(v, outside) for v in value])
    if value.__class__ is tuple or value.__class__ is list:
        return value.__class__([_settled(v, outside) for v in value])
    if isinstance(value, dict) and any(isinstance(v, (Varying, list, tuple, dict))
                                       for v in value.values()):
        made = value.copy()
        made.update((k, _settled(v, outside)) for k, v in value.items())
        return made
    return value


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No other thread runs meanwhile: it would meet tensors that record."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(60.0)
    try:
        with uncollected():
            yield
    finally:
        sys.setswitchinterval(before)


def _check_modes(before: tuple[Any, ...]) -> None:
    now = state.grad, state.inference, switch.dtype
    if now != before:
        state.grad, state.inference = before[:2]
        set_dtype(before[2])
        raise Break("a switch (gradients, inference, autocast) that is left changed", "its end")


def _check_result(value: Any, watcher: Watcher) -> None:
    """What a program can return: tensors, plain values, and containers of them."""
    if isinstance(value, (tuple, list)):
        for v in value:
            _check_result(v, watcher)
    elif isinstance(value, dict):
        if any(isinstance(k, (Pending, Varying)) for k in value):
            raise Break("a number read from a tensor as a key", "its end")
        if isinstance(getattr(value, "default_factory", None), functools.partial):
            raise Break("returning a defaultdict whose function was made here", "its end")
        _check_result(list(value.values()), watcher)
    elif not isinstance(value, _RESULTS) and (
            watcher.is_own(value) or isinstance(value, _MADE_ANEW)):
        raise Break(f"returning a {type(value).__name__}", "its end")


_RESULTS = (Tensor, int, float, str, bool, complex, bytes, type(None), slice, range)
_MADE_ANEW = (types.FunctionType, types.MethodType, types.GeneratorType, functools.partial)


def _floats(leaves: Leaves, watcher: Watcher, varying: Sequence[Any]) -> list[Any]:
    """The floats among the arguments, those that vary as numbers of the program."""
    watcher.varying = {v for v in varying if isinstance(v, tuple)}
    for i in varying:
        if isinstance(i, int):
            read = functools.partial(_nth, i)
            watcher.numbers[i] = number_of(leaves.floats[i], read)
            watcher.every.append(watcher.numbers[i])
    return [watcher.numbers.get(i, x) for i, x in enumerate(leaves.floats)]


def _nth(i: int, floats: Sequence[float]) -> float:
    return floats[i]


def _stand_ins(tensors: list[Tensor]) -> list[Tensor]:
    """What stands for the arguments: leaves themselves, others by tensors without a past."""
    known: dict[int, Tensor] = {}
    for t in tensors:
        if id(t) in known:
            continue
        if type(t._a) is not np.ndarray:
            raise Break("an argument without data (device 'meta')", "the call")
        if t._rg and (t._hooks or t._post_hooks):
            raise Break("an argument with hooks", "the call")
        if t._fn is None and t._base is None:
            known[id(t)] = t
        else:
            twin = known[id(t)] = wrap(t._a, t._dtype)
            twin._rg = t._rg
    return [known[id(t)] for t in tensors]


class _Finish:
    """What remains to do when the function has returned."""

    def __init__(self, recorder: Recorder, watcher: Watcher, stand_ins: list[Tensor],
                 leaves: Leaves, result: Any, fn: Any) -> None:
        self.recorder, self.watcher, self.result, self.fn = recorder, watcher, result, fn
        self.stand_ins, self.arguments = stand_ins, leaves.tensors
        self.floats = leaves.floats
        self.place = {id(t): i for i, t in reversed(list(enumerate(stand_ins)))}

    def captured(self) -> Captured:
        recorder = self.recorder
        found: list[Any] = []
        flatten(self.result, found)
        self.values: list[Node] = []
        self.tensors: list[Tensor] = []  # behind the values
        outputs = self.outputs(found)
        writes = self.writes()
        backward = self.joint(outputs)
        self.values += recorder.decisions.nodes
        sources = [self.source(i) for i in range(len(recorder.inputs))]
        graph = Graph(getattr(self.fn, "__name__", type(self.fn).__name__), recorder.inputs,
                      self.names(sources), self.values, writes, recorder.numbers, recorder.draws)
        outside = [s.value for s in sources if s.kind == "tensor"]
        graph, kept = graph.pruned()
        sources = [sources[i] for i in kept]
        check(graph)
        self.result = rebuild(self.result, iter([_Slot(i) for i in range(len(found))]),
                              unwrap=False)
        made = Captured(graph, sources, self.watcher, outputs, self.result, backward)
        made.dropped, made.outside = self.dropped(), outside
        made.unread, made.early = self.owners(recorder.settled), self.owners(recorder.early)
        made.branches = recorder.decisions.where
        made.varying = [n for n in self.watcher.every if n.node is not None]
        made.floats = [(i, x) for i, x in enumerate(self.floats) if i not in self.watcher.numbers]
        self.watcher.guards.close()
        self.watcher.effects.release()
        for scaling in made.scalings:
            scaling.release()
        self.check_sharing(made)
        return made

    # --- inputs

    def source(self, number: int) -> Source:
        t = self.recorder.tensors[number]
        if number in self.recorder.constants:
            return Source("constant", self.recorder.originals[number][0])
        if id(t) in self.place:
            return Source("argument", self.place[id(t)])
        for owner, held in self.recorder.grads.values():
            if held is t:
                return Source("grad", self.owner(owner))
        if t._fn is not None and t._rg and state.grad:
            raise Break("a tensor from outside that has a history of its own; pass it as an "
                        "argument", "the call")
        return Source("tensor", t)

    def owner(self, t: Tensor) -> Source:
        return Source("argument", self.place[id(t)]) if id(t) in self.place else Source(
            "tensor", t)

    def owners(self, keys: Collection[int]) -> list[Source]:
        """Those of tensors from outside."""
        return [self.owner(t) for key, (t, _) in self.recorder.grads.items()
                if key in keys and t.__dict__.get("_born_in") is not self.recorder]

    def names(self, sources: list[Source]) -> list[str]:
        names: dict[str, None] = {}
        for i, s in enumerate(sources):
            base = f"{s.kind}{s.value}" if s.kind == "argument" else (
                self.recorder.labels.get(i) or f"{s.kind}{i}")
            names.setdefault(base if base not in names else f"{base}_{i}", None)
        return list(names)

    # --- effects

    def writes(self) -> list[Write]:
        recorder, found = self.recorder, []
        for number, t in enumerate(list(recorder.tensors)):
            if number in recorder.written and number not in recorder.constants:
                found.append(Write("data", number, recorder.value_of(t)))
        for t, original in list(recorder.grads.values()):
            if t._grad is original or t.__dict__.get("_born_in") is recorder:
                continue
            if t._grad is not None:
                self.check_grad(t)
                node = recorder.value_of(t._grad)
                found.append(Write("grad", recorder.places[id(t)], node))
        self.guard_grads()
        return found

    def check_grad(self, t: Tensor) -> None:
        place = self.place.get(id(t))
        if place is not None and self.arguments[place]._fn is not None:
            raise Break("a gradient that flows on into the history of an argument", "the call")
        if id(t) not in self.recorder.places:
            self.recorder.lift(t)

    def guard_grads(self) -> None:
        for key in self.recorder.read:
            t, original = self.recorder.grads[key]
            if id(t) in self.place:
                if original is not None:
                    raise Break("the gradient of an argument from before the call", "the call")
                continue
            self.watcher.guards.other((key, "grad"), _grad_facts(t, original), "a gradient")

    def dropped(self) -> list[Source]:
        return [self.owner(t) for t, original in self.recorder.grads.values()
                if t._grad is None and (original is not None or id(t) in self.recorder.settled)
                and t.__dict__.get("_born_in") is not self.recorder]

    def check_sharing(self, made: Captured) -> None:
        """A program that writes must not have two inputs over one memory."""
        if not made.writes:
            return
        arrays = [self.recorder.originals[n.attrs[0]][0] for n in made.graph.inputs]
        extents = Extents(arrays)
        if any(extents.shared(arrays[w.target]) not in ([w.target], []) for w in made.writes):
            raise Break("writing to memory that two of its tensors share", "the call")

    # --- results

    def outputs(self, found: list[Tensor]) -> list[Output]:
        made: dict[int, Output] = {}
        self.whole: dict[int, int] = {}  # values by the memory that they are
        tensors = [t for t in found if isinstance(t, Tensor)]
        self.watcher.prefixes.tell(tensors)
        for t in sorted(tensors, key=lambda t: t._base is not None):  # bases before their views
            if id(t) not in made:
                made[id(t)] = self.output(t)
        return [made[id(t)] if isinstance(t, Tensor) else self.number(t) for t in found]

    def number(self, read: Pending) -> Output:
        """A value that the function reads and returns."""
        kind = float if isinstance(read, float) else int
        return Output("number", self.value(read.tensor), geometry=kind)

    def output(self, t: Tensor) -> Output:
        recorder = self.recorder
        place = recorder.places.get(id(t))
        if place is not None and place not in recorder.constants:
            return Output("input", -1, self.source(place))
        base = t if t._base is None else t._base
        if id(base) in recorder.unreturned:
            raise Break("returning what was read at a position that varies, which is a view",
                        "its end")
        if type(t._a) is AbstractArray and t._a.recorder is not None:
            place = recorder.places.get(id(base), recorder.arrays.get(id(base._a)))
            if place is not None and place not in recorder.constants:
                return self.of_input(t, place)
        return self.of_value(t, base)

    def of_input(self, t: Tensor, place: int) -> Output:
        whole = self.recorder.tensors[place]._a
        if t._rg:
            raise Break("returning a view of an input that requires grad", "the call")
        if t._a is whole:
            return Output("alias", -1, self.source(place))
        return Output("view", -1, self.source(place), _geometry(t, whole))

    def of_value(self, t: Tensor, base: Tensor) -> Output:
        """A value of its own; where it looks at memory of another, that one, and a window."""
        key = id(base._a)
        if t is base and key not in self.whole:
            self.whole[key] = self.value(t)
            return Output("value", self.whole[key], requires_grad=t._rg and t._fn is None)
        if t._rg or base._rg:
            if key in self.whole:
                raise Break("results with gradients that share memory", "the call")
            self.whole[key] = -1
            return Output("value", self.value(t), requires_grad=t._rg and t._fn is None)
        if key not in self.whole:
            self.whole[key] = self.value(base)
        elif self.whole[key] < 0:
            raise Break("results with gradients that share memory", "the call")
        return Output("window", self.whole[key], geometry=_geometry(t, base._a))

    def value(self, t: Tensor) -> int:
        """The place of a new output of the graph."""
        self.values.append(self.recorder.value_of(t))
        self.tensors.append(t)
        return len(self.values) - 1

    def joint(self, outputs: list[Output]) -> Any:
        """The backward of results that keep a history."""
        live = [(i, o) for i, o in enumerate(outputs)
                if o.kind == "value" and self.tensors[o.place]._fn is not None]
        unique = {o.place: self.tensors[o.place] for _, o in live}
        if not unique or not state.grad:
            return None
        places, tensors = list(unique), list(unique.values())
        try:
            return self.differentiate(places, tensors)
        except RuntimeError as error:
            if "second time" not in str(error):
                raise
        for i, o in live:
            name = self.tensors[o.place]._fn.name()
            outputs[i] = o._replace(spent=name)
        return None

    def differentiate(self, places: list[int], tensors: list[Tensor]) -> Any:
        recorder = self.recorder
        targets = [(i, t) for i, t in enumerate(list(recorder.tensors))
                   if t._rg and t._fn is None and i not in recorder.constants
                   and recorder.places.get(id(t)) == i]
        seeds = [wrap(np.empty(t._a.shape, t._dtype.np), t._dtype) for t in tensors]
        first = len(recorder.inputs)
        for seed in seeds:
            recorder.lift(seed)
        with recorder, enable_grad():
            grads = grad(tensors, [t for _, t in targets], seeds, allow_unused=True)
        if any(t._hooks for _, t in targets):
            raise Break("a tensor with hooks whose gradient comes from a backward outside",
                        "the call")
        kept = [(i, recorder.value_of(g)) for (i, _), g in zip(targets, grads, strict=True)
                if g is not None]
        split = joint.split(recorder, kept, recorder.inputs[first:first + len(seeds)])
        saved_from = len(self.values)
        self.values.extend(split.saved)
        owners = [self.source(i) for i in split.inputs]
        names = [t._fn.name() for t in tensors]
        whole = [self.source(i) for i in split.whole_inputs]
        return joint.Backward(split, places, names, saved_from, owners, whole,
                              [self.source(i) for i, _ in kept])


def _geometry(t: Tensor, whole: Any) -> Any:
    a = t._a
    return tuple(a.shape), tuple(a.strides), a.offset - whole.offset, t._dtype, whole.strides


class _Slot(Tensor):
    """Marks the place of a tensor in a result."""

    __slots__ = ("place",)

    place: int

    def __new__(cls, place: int) -> _Slot:
        made = object.__new__(cls)
        made.place = place
        return made

    def __init__(self, place: int) -> None:
        return None


def is_one_tensor(shape: Any) -> bool:
    """Whether a result is a tensor alone."""
    return shape.__class__ is _Slot


def _grad_facts(t: Tensor, original: Any) -> Callable[[], Any]:
    def facts() -> Any:
        g = t._grad
        return None if g is None or type(g._a) is not np.ndarray else (
            g._a.shape, g._a.strides, g._a.dtype.num)

    return _Frozen(facts, original)


class _Frozen:
    """Facts of a gradient; while it is captured, those of the array it had before."""

    def __init__(self, read: Callable[[], Any], original: Any) -> None:
        self.read, self.first, self.was = read, True, None
        if original is not None:
            a = original._a
            self.was = tuple(a.shape), tuple(a.strides), a.dtype.num

    def __call__(self) -> Any:
        if self.first:
            self.first = False
            return self.was
        return self.read()
