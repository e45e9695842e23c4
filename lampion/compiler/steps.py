"""Optimizers, schedulers and gradients inside a captured function.

An optimizer's update is one node of the graph; the numbers that it takes (learning rate, bias
corrections) are computed by the optimizer itself before each run and handed to the program.
Step counts and schedulers move on after the run, so a run that fails leaves them alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from ..amp.grad_scaler import GradScaler
from ..autograd.modes import no_grad
from ..capture.recorder import Recorder
from ..graph.node import Node
from ..nn.modules.module import Module
from ..optim import optimizer as hooks
from ..optim.elementwise import ElementwiseOptimizer, scalar_lr
from ..optim.lr_scheduler import LRScheduler
from ..optim.optimizer import Optimizer
from ..tensor.tensor import Tensor
from .pending import NotYet
from .scaling import Scaling
from .varying import Varying, plain

__all__ = ["NotYet", "Steps", "Update"]


_ARRAY = attrgetter("_a")


class Update:
    """One group of parameters that take the same numbers, as it was captured."""

    def __init__(self, optimizer: ElementwiseOptimizer, place: int, params: list[Tensor],
                 states: list[dict[str, Any]], options: dict[str, Any]) -> None:
        """options: those of the group that the function sets before the step."""
        self.optimizer, self.place, self.states = optimizer, place, states
        self.options = options
        group = optimizer.param_groups[place]
        self.params, self.size = group["params"], len(params)
        self.record, self.negate = optimizer._update_for(group), bool(group["maximize"])
        self.counts = [s["step"] for s in states] if optimizer._counts_steps else []
        raw = self.raw() or ()
        self.key = _key(raw)
        # A quicker way to the same answer, but for switches, whose value counts.
        switches = any(isinstance(kind, bool) for kind in self.key)
        self.classes = None if switches else [x.__class__ for x in raw]
        self.places = [i for i, kind in enumerate(self.key) if kind is float]
        self.first = 0  # place of its first number among those of the program

    def raw(self, given: Sequence[Any] | None = None) -> tuple[Any, ...] | None:
        """The numbers of the next step; None where the optimizer is not as it was captured.

        given: the numbers among the arguments, but while it is captured.
        """
        optimizer = self.optimizer
        if self.place >= len(optimizer.param_groups):
            return None
        group = optimizer.param_groups[self.place]
        if self.options:
            group = {**group, **{name: plain(v) if given is None or not isinstance(v, Varying)
                                 else v.read(given) for name, v in self.options.items()}}
        if (group["params"] is not self.params or group["differentiable"]
                or optimizer._update_for(group) is not self.record
                or bool(group["maximize"]) != self.negate):
            return None
        count = 0.0
        if self.counts:
            counts = [a.item() for a in map(_ARRAY, self.counts)]
            count = counts[0]
            if counts.count(count) != len(counts):
                return None
        return optimizer._scalars(group, scalar_lr(group), count + 1.0, self.states[0])

    def numbers(self, given: Sequence[Any]) -> list[float] | None:
        """Those of `raw` that are floats, if the others are as they were captured."""
        try:
            raw = self.raw(given)
        except (ArithmeticError, TypeError, ValueError):  # of numbers that the function computes
            if not self.options:
                raise
            return None
        if raw is None or ([x.__class__ for x in raw] != self.classes and _key(raw) != self.key):
            return None
        return [float(raw[i]) for i in self.places]

    def commit(self) -> None:
        """The step was made: counts it."""
        if self.counts:
            count = self.counts[0]._a.item() + 1
            for a in map(_ARRAY, self.counts):
                a.fill(count)
        if self.optimizer._scalars_differ:
            group = self.optimizer.param_groups[self.place]
            for state in self.states:
                self.optimizer._note_step(group, scalar_lr(group), state["step"]._a.item(), state)
        tell_schedulers(self.optimizer)


def tell_schedulers(optimizer: Optimizer) -> None:
    """Notes that an optimizer has made a step, which schedulers look at."""
    if hasattr(optimizer.__dict__.get("step"), "_wrapped_by_lr_sched"):
        optimizer._opt_called = True  # type: ignore[attr-defined]


def _key(raw: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple([x if x is None or x.__class__ is bool else float for x in raw])


class Steps:
    """What the watcher asks for while a function is captured."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.arguments: set[int] = set()  # ids of the tensors among the arguments
        self.twins: set[int] = set()  # those that stand for others, without their past
        self.updates: list[Update] = []
        # Counters, and how far they move.
        self.counts: dict[tuple[int, str], tuple[dict[str, Any], str, int]] = {}
        # Schedulers that step after the run; None: as an effect, with values of the program.
        self.after: list[tuple[LRScheduler, tuple[()] | None]] = []
        self.moved: set[int] = set()  # ids of the groups whose numbers they change
        self.stepped: set[int] = set()  # ids of the step counts that the updates change
        self.scalings: dict[int, Scaling] = {}
        self.followed: list[Optimizer] = []  # those whose own code makes their step
        self.places: dict[Any, Tensor] = {}  # positions that vary, see `positions.py`
        self.modules: list[Module] = []
        self.names: dict[int, str] = {}  # of the outermost module's parts

    # --- modules --------------------------------------------------------------------------------

    def enter(self, m: Module) -> None:
        """A module's `forward` begins: its nodes are named after it."""
        if not self.modules:
            self.names = {id(part): name for name, part in m.named_modules()}
        self.modules.append(m)
        self.recorder.path = self._path()

    def leave(self) -> None:
        """It ends."""
        self.modules.pop()
        self.recorder.path = self._path()

    def _path(self) -> str:
        """The innermost module by its name in the outermost."""
        if not self.modules:
            return ""
        return self.names.get(id(self.modules[-1])) or _kind(self.modules[-1])

    def lift(self, t: Tensor, label: str) -> None:
        """Makes a tensor from outside an input."""
        if type(t._a) is np.ndarray:
            self.recorder.lift(t)
        place = self.recorder.places.get(id(t))
        if label and place is not None:
            self.recorder.labels.setdefault(place, label)

    def label(self, owner: Any, name: Any) -> str:
        """What an attribute of an object is called in listings."""
        path = self.names.get(id(owner))
        return f"{path}.{name}" if path else str(name)

    # --- gradients ------------------------------------------------------------------------------

    def grad_of(self, t: Tensor) -> Tensor | None:
        """`t.grad`"""
        self.recorder.value_of(t)
        self.recorder.read_grad(t)
        if t._grad is not None:
            self.recorder.value_of(t._grad)
        return t.grad

    def set_grad(self, t: Tensor) -> None:
        """Before `t.grad` is set or dropped."""
        self.recorder.set_grad(t, id(t) not in self.recorder.read)

    # --- optimizers and schedulers --------------------------------------------------------------

    def scheduler(self, watcher: Any, scheduler: LRScheduler, *args: Any, **kwargs: Any) -> None:
        """`scheduler.step(...)`: after the run."""
        self.moved.update(map(id, scheduler.optimizer.param_groups))
        given = (*args, *kwargs.values())
        if not given and not any(done is None for _, done in self.after):
            self.after.append((scheduler, ()))
            return
        if not all(isinstance(a, (int, float, Tensor, type(None))) for a in given):
            watcher.refuse(f"{type(scheduler).__name__}.step() with other things than numbers")
        values = [a.detach() if isinstance(a, Tensor) else a for a in given]
        self.after.append((scheduler, None))
        watcher.effects.later(_stepping(scheduler, len(args), list(kwargs)), values)

    def optimizer(self, watcher: Any, optimizer: Optimizer, name: str, *args: Any,
                  **kwargs: Any) -> Any:
        """`optimizer.step()` or `optimizer.zero_grad()`."""
        self.watch_groups(watcher, optimizer)
        if name == "zero_grad":
            self._zero(optimizer, *args, **kwargs)
        elif args or kwargs:
            watcher.refuse(f"{type(optimizer).__name__}.step() with a closure, which it may call "
                           "any number of times")
        else:
            return self._step(watcher, optimizer)
        return None

    def watch_groups(self, watcher: Any, optimizer: Optimizer) -> None:
        """Guards on which parameters an optimizer has."""
        own = optimizer.__dict__
        for table in ("param_groups", "state"):
            watcher.guards.entry(own, table, own[table], f"the optimizer's {table}")
        watcher.guards.contents(optimizer.param_groups, "param_groups")
        for group in optimizer.param_groups:
            watcher.guards.entry(group, "params", group["params"], "the parameters of a group")
            watcher.guards.contents(group["params"], "the parameters of a group")

    def scaler(self, watcher: Any, scaler: GradScaler, name: str, *args: Any,
               **kwargs: Any) -> Any:
        """A method of a GradScaler."""
        found = self.scalings.get(id(scaler))
        if found is None:
            found = self.scalings[id(scaler)] = Scaling(watcher, scaler)
        return found.call(name, *args, **kwargs)

    def _zero(self, optimizer: Optimizer, set_to_none: bool = True) -> None:
        for group in optimizer.param_groups:
            for p in group["params"]:
                if set_to_none:
                    self.set_grad(p)
                    p._grad = None
                else:
                    self.grad_of(p)
        if not set_to_none:
            optimizer.zero_grad(set_to_none=False)

    def _step(self, watcher: Any, optimizer: Optimizer) -> Any:
        self._check(watcher, optimizer)
        step: Any = type(optimizer).step
        step = step.__wrapped__ if hasattr(step, "hooked") else step
        if step is not ElementwiseOptimizer.step:  # followed, operator by operator
            self.followed.append(optimizer)
            return watcher.call(step, optimizer)
        assert isinstance(optimizer, ElementwiseOptimizer)
        if any(u.optimizer is optimizer for u in self.updates):
            watcher.refuse(f"two steps of one {type(optimizer).__name__}")
        with no_grad():
            for place, group in enumerate(optimizer.param_groups):
                self._group(watcher, optimizer, place, group)
        return None

    def _check(self, watcher: Any, optimizer: Optimizer) -> None:
        kind = type(optimizer).__name__
        if self.after:
            watcher.refuse(f"{kind}.step() after a scheduler's step")
        tables = (optimizer._step_pre_hooks, optimizer._step_post_hooks, hooks._global_pre_hooks,
                  hooks._global_post_hooks)
        for table in tables:
            watcher.guards.contents(table, f"the hooks of {kind}")
        if any(tables):
            watcher.refuse(f"{kind}.step() with hooks")

    def _group(self, watcher: Any, optimizer: ElementwiseOptimizer, place: int,
               group: dict[str, Any]) -> None:
        if group["differentiable"]:
            watcher.refuse(f"a differentiable {type(optimizer).__name__}.step()")
        chosen = [p for p in group["params"] if self.grad_of(p) is not None]
        if not chosen:
            return
        record = optimizer._update_for(group)
        self._begin(watcher, optimizer, group, chosen)
        states = [self._state(watcher, optimizer, p, record) for p in chosen]
        if not optimizer._scalars_differ:
            self._update(watcher, optimizer, place, chosen, states)
        for p, state in zip(chosen, states, strict=True) if optimizer._scalars_differ else ():
            self._update(watcher, optimizer, place, [p], [state])

    def _update(self, watcher: Any, optimizer: ElementwiseOptimizer, place: int,
                chosen: list[Tensor], states: list[dict[str, Any]]) -> None:
        """The update of parameters that take the same numbers."""
        update = Update(optimizer, place, chosen, states, self._options(watcher, optimizer, place))
        if not update.key:
            watcher.stop(NotYet("parameters of one group have made different numbers of steps"))
        self.updates.append(update)
        self._count(watcher, update)
        update.first = len(self.recorder.numbers)
        scalars = tuple(self.recorder.number(float(x)) if kind is float else kind
                        for x, kind in zip(update.raw() or (), update.key, strict=True))
        for p, state in zip(chosen, states, strict=True):
            self._record(update, p, [state[name] for name in update.record.state], scalars)

    def _options(self, watcher: Any, optimizer: ElementwiseOptimizer, place: int
                 ) -> dict[str, Any]:
        """Options of a group that the function has set: numbers that are known before a run."""
        group = optimizer.param_groups[place]
        found = {key[1]: group[key[1]] for key in watcher.effects.places if key[0] == id(group)}
        for name, value in found.items():
            known = isinstance(value, Varying) or value.__class__ in (int, float)
            if not known or optimizer._scalars_differ or id(group) in self.moved:
                watcher.refuse(f"setting {name!r} of an optimizer that steps to a "
                               f"{type(value).__name__}")
        return found

    def _count(self, watcher: Any, update: Update) -> None:
        """Step counts move on after the run: the function must not look at them."""
        moving = {id(t) for state in update.states for name, t in state.items()
                  if isinstance(t, Tensor) and name not in update.record.state}
        if not moving.isdisjoint(self.recorder.places):
            watcher.refuse("looking at a step count that is about to change")
        self.stepped |= moving

    def _begin(self, watcher: Any, optimizer: ElementwiseOptimizer, group: dict[str, Any],
               chosen: list[Tensor]) -> None:
        """Before a first step the state begins as the optimizer itself would make it."""
        record = optimizer._update_for(group)
        needed = _state_names(optimizer, record)
        new = [p for p in chosen if any(
            optimizer.state.get(p, {}).get(name) is None for name in needed)]

        if not new:
            return
        if not optimizer._begins_with_zeros(group) or any(map(optimizer.state.get, new)):
            watcher.stop(NotYet("the optimizer has no state before its first step"))
        if any(p._base is not None for p in new):
            raise self.recorder._error("an update of a parameter that is a view")
        with self.recorder.paused():
            for p in new:
                optimizer.state[p].update(optimizer._begin(self.recorder.real(p), group, record))

    def _state(self, watcher: Any, optimizer: Any, p: Tensor, record: Any) -> dict[str, Any]:
        needed = _state_names(optimizer, record)
        if not needed:
            return {}
        state = optimizer.state[p]
        watcher.guards.entry(optimizer.state, p, state, "the state of a parameter")
        for name in needed:
            watcher.guards.entry(state, name, state[name], f"{name} of a parameter")
        return state  # type: ignore[no-any-return]

    def _record(self, update: Update, p: Tensor, state: list[Tensor],
                scalars: tuple[Any, ...]) -> None:
        recorder, grad = self.recorder, p._grad
        tensors = [p, grad, *state]
        args = tuple(recorder.value_of(t) for t in tensors)
        call = recorder.interner.make("call", update.record, args, (update.negate, scalars), None,
                                      None)
        recorder.place(call)
        label = recorder.labels.get(recorder.places[id(p)], "parameter")
        for name, t in zip(update.record.state, state, strict=True):
            recorder.labels.setdefault(recorder.places[id(t)], f"{label}.{name}")
        for i, t in enumerate([p, *state]):
            if t._base is not None:
                raise recorder._error("an update of a parameter that is a view")
            node: Node = recorder.interner.make("result", None, (call,), (i,), tuple(t._a.shape),
                                                t._a.dtype)
            recorder.assign(t, node)


def _stepping(scheduler: LRScheduler, count: int, names: list[str]) -> Callable[[Any], None]:
    """What steps a scheduler with values: so many by position, then those with names."""
    def step(values: list[Any]) -> None:
        scheduler.step(*values[:count], **dict(zip(names, values[count:], strict=True)))
    return step


def _state_names(optimizer: ElementwiseOptimizer, record: Any) -> tuple[str, ...]:
    return (*record.state, *(("step",) if optimizer._counts_steps else ()))


def _kind(m: Module) -> str:
    return type(m).__name__
