"""Tensors that record instead of computing.

While a function is captured, its tensors hold an `AbstractArray` whose `value` is a graph node.
Operators see that there is nothing to compute on and hand the call to the recorder. Writes are
made functional: a write through a view becomes a new value of its base.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from gc import get_referrers
from sys import getrefcount
from typing import Any

import numpy as np

from ..autograd.modes import state
from ..autograd.node import NOT_TENSORS
from ..debug.frames import describe, user_code
from ..graph.node import Interner, Node
from ..ops.record import LEAVES, leaf, same_shape
from ..tensor.abstract import AbstractArray, contiguous_strides
from ..tensor.storage import address
from ..tensor.tensor import INFERENCE, Tensor, storage_of, wrap
from .rules import Rules

__all__ = ["Recorder", "CaptureError"]

Array = Any


class CaptureError(RuntimeError):
    """Something that cannot be recorded; the message names the user's line."""


@leaf({"input": lambda g: g}, name="write_window", shape=same_shape, exact=True)
def _write_window(input: Array, src: Array, size: Any, stride: Any, offset: int) -> Array:
    """A copy of `input` (dense) with `src` in a strided window (in elements)."""
    out = np.ascontiguousarray(input).copy()
    width = out.itemsize
    window = np.ndarray(size, out.dtype, out, offset * width, [s * width for s in stride])
    window[...] = src
    return out


@leaf({"input": lambda g: g}, name="read_window", exact=True,
      shape=lambda a, size, stride, offset: (size, a.dtype))
def _read_window(input: Array, size: Any, stride: Any, offset: int) -> Array:
    """A copy of a strided window (in elements) of `input` (dense)."""
    flat = np.ascontiguousarray(input)
    width = flat.itemsize
    return np.ndarray(size, flat.dtype, flat, offset * width, [s * width for s in stride]).copy()


class Recorder:
    """Notes what operators do, and which real tensors they touch."""

    level = 0  # what is mapped inside of a capture is above it

    def __init__(self) -> None:
        self.interner = Interner()
        self.inputs: list[Node] = []
        self.tensors: list[Tensor] = []  # the real tensor behind every input
        self.originals: list[tuple[Any, Any, Any]] = []  # its array, storage and gradient
        self.places: dict[int, int] = {}  # by id of the tensor
        self.arrays: dict[int, int] = {}  # by id of the array that records in its place
        self.written: set[int] = set()
        self.constants: set[int] = set()  # inputs made by the program itself, with data
        self.numbers: list[Node] = []  # given at each run
        self.given: list[float] = []  # what they are while the program is captured
        # Memory that must not change any more, since a copy of it stands for a view; such copies.
        self.frozen_memory: dict[int, Tensor] = {}
        self.unreturned: dict[int, Tensor] = {}
        self.decisions: Any = None  # takes questions about values, where somebody answers them
        self.rules = Rules(self)
        # Nodes that a rule is not to make anew, see `rules.py`, and whether it did.
        self.guarded: set[str] = set()
        self.coincided = False
        self.draws: list[Node] = []  # of random numbers, in their turn
        # Tensors whose gradient the program may change, with what they had, and those of them
        # whose gradient it set or dropped before anything read it.
        self.grads: dict[int, tuple[Tensor, Any]] = {}
        self.settled: set[int] = set()
        self.early: set[int] = set()  # those where that was before anything was computed
        self.placed = False  # whether anything was
        self.flags: list[tuple[Tensor, bool]] = []  # which inputs wanted gradients
        self.read: set[int] = set()  # those whose gradient from before was looked at
        self.failed: Exception | None = None  # what could not be recorded, even if it was caught
        self.path = ""  # of the module that runs; "backward"
        self.labels: dict[int, str] = {}  # names of inputs
        self.looks: Any = None  # is told which tensors are used, where somebody wants to know
        self.watcher: Any = None  # sees calls of modules, where somebody watches
        # Other tensors on the memory of an input, with what they had: array, storage, epoch, grad.
        self.sharers: list[tuple[Tensor, Any, Any, int, Any]] = []

    def __enter__(self) -> None:
        """From now on this thread's new tensors are known to be the program's own."""
        if state.recorder is not None:
            raise self._error("a capture inside a capture")
        state.recorder = self
        INFERENCE[0] += 1

    def __exit__(self, *exc: object) -> None:
        state.recorder = None
        INFERENCE[0] -= 1

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Meanwhile new tensors are real ones."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()

    def rename(self, path: str) -> str:
        """What the nodes that follow belong to: the path of a module, or "backward"."""
        before, self.path = self.path, path
        return before

    def real(self, t: Tensor) -> Tensor:
        """A tensor on the memory that an input had before it was lifted."""
        return wrap(self.originals[self.places[id(t)]][0], t._dtype)

    # --- values ---------------------------------------------------------------------------------

    def lift(self, t: Tensor) -> Node:
        """Makes a real tensor an input, by reference; it records until `restore`."""
        if t._base is not None:
            return self._lift_view(t)
        a = t._a
        number = len(self.inputs)
        if t.__dict__.get("_born_in") is self:
            self.constants.add(number)
        node = self.interner.make("input", None, (), (number,), tuple(a.shape), a.dtype)
        self.inputs.append(node)
        self.tensors.append(t)
        self.originals.append((a, t._st, t._grad))
        self.places[id(t)] = number
        self.grads.setdefault(id(t), (t, t._grad))
        self.flags.append((t, t._rg))
        storage = t._st
        t._a = AbstractArray(tuple(a.shape), a.dtype, tuple(a.strides), recorder=self,
                             value=(node, 0))
        self.arrays[id(t._a)] = number
        t._st = None
        storage_of(t)
        if storage is not None:
            self._lift_sharers(t, storage, a, number)
        return node

    def _lift_sharers(self, t: Tensor, storage: Any, array: Array, number: int) -> None:
        """Lets every other tensor on the same memory record too, so that none goes stale."""
        if getrefcount(storage) <= 4:  # the original's record, two locals, the call's own
            return
        others = [o for o in get_referrers(storage) if isinstance(o, Tensor) and o is not t
                  and type(o._a) is not AbstractArray]
        for o in others:
            if o._base is None:
                if (o._a.shape, o._a.strides, address(o._a)) != (
                        array.shape, array.strides, address(array)):
                    raise self._error("a tensor that shares memory with another in another shape")
                self._keep(o)
                o._a, o._st, self.places[id(o)] = t._a, t._st, number
        for o in others:
            if o._base is not None and type(o._base._a) is AbstractArray:
                self._lift_view(o)

    def _keep(self, t: Tensor) -> None:
        self.sharers.append((t, t._a, t._st, t._epoch, t._grad))

    def _lift_view(self, t: Tensor) -> Node:
        """Makes a real view a view of its base, which becomes an input."""
        base = t._base
        assert base is not None
        if type(base._a) is not AbstractArray:
            self.lift(base)
        if type(t._a) is not AbstractArray:  # lifting the base may have done it
            a, origin = t._a, self.originals[self.places[id(base)]][0]
            self._keep(t)
            t._a = AbstractArray(tuple(a.shape), a.dtype, tuple(a.strides),
                                 address(a) - address(origin), recorder=self, value=(None, -1))
            t._st, t._epoch = base._st, storage_of(base).history
        return self.value_of(t)  # type: ignore[no-any-return]

    def watch(self, t: Tensor) -> None:
        """Called before an in-place write: memory from outside the program must not change."""
        owner = t if t._base is None else t._base
        if type(t._a) is not AbstractArray and owner.__dict__.get("_born_in") is not self:
            self.lift(t)

    def restore(self) -> None:
        """Gives every lifted tensor its memory back."""
        for t, array, storage, epoch, grad in self.sharers:
            t._a, t._st, t._epoch, t._grad = array, storage, epoch, grad
        for t, (array, storage, grad) in zip(self.tensors, self.originals, strict=True):
            t._a, t._st, t._grad = array, storage, grad
            if t._fn is not None:
                t._fn.out_st = storage
        for t, grad in self.grads.values():
            t._grad = grad
        for t, flag in self.flags:
            t._rg = flag
        self.originals, self.sharers = [], []  # others ask how many hold a storage

    def switched(self) -> bool:
        """Whether the program left an input wanting gradients that did not, or the reverse."""
        return any(t._rg != flag for t, flag in self.flags if t._fn is None)

    # --- gradients, numbers ---------------------------------------------------------------------

    def set_grad(self, t: Tensor, settled: bool = True) -> None:
        """Called before the program sets or drops the gradient of `t`, whatever it was."""
        known = id(t) in self.grads
        _, original = self.grads.setdefault(id(t), (t, t._grad))
        if settled and (not known or t._grad is original):
            self.settled.add(id(t))
            if not self.placed:
                self.early.add(id(t))

    def read_grad(self, t: Tensor) -> None:
        """Called before the gradient of `t` is looked at."""
        _, original = self.grads.setdefault(id(t), (t, t._grad))
        if t._grad is original and id(t) not in self.settled:
            self.read.add(id(t))

    def number(self, value: float = 0.0) -> Node:
        """A float that every run brings along; `value` is that of the capture."""
        node = self.interner.make("number", None, (), (len(self.numbers),), (),
                                  np.dtype(np.float64))
        self.numbers.append(node)
        self.given.append(value)
        return node

    def assign(self, t: Tensor, node: Node) -> None:
        """Records that the memory of `t`, no view, now holds `node`."""
        self.value_of(t)
        st = storage_of(t)
        st.count_write()
        t._a.value = (node, st.version)
        self._mark(t._a)

    def value_of(self, t: Any) -> Any:
        """The node that stands for a tensor now."""
        if not isinstance(t, Tensor):
            return t
        if self.looks is not None:
            self.looks.tell(t)
        a = t._a
        if type(a) is not AbstractArray or a.recorder is None:
            return self.lift(t)
        node, version = a.value
        if t._base is None or t._st is None or t._st.version == version:
            return node
        base = t._base
        fresh = self._call(_read_window, (self.value_of(base),), self._window(t), t._a)
        a.value = (fresh, t._st.version)
        return fresh

    def frozen(self, t: Tensor) -> tuple[Node, int]:
        """The value of `t` as it is now, for an array of its own."""
        return self.value_of(t), 0

    def _window(self, t: Tensor) -> tuple[Any, ...]:
        """Where a view lies in its base, in elements; the base must be dense."""
        base = t._base
        width = t._dtype.itemsize
        assert base is not None
        if t._dtype is not base._dtype:
            raise self._error("a write through a view of another dtype")
        if base._a.strides != contiguous_strides(base._a.shape, width):
            raise self._error("a write through a view of a tensor that is not contiguous")
        return tuple(t._a.shape), t.stride(), (t._a.offset - base._a.offset) // width

    def _call(self, op: Any, args: tuple[Any, ...], attrs: tuple[Any, ...], out: Any) -> Node:
        node = self.interner.make("call", op, args, attrs, tuple(out.shape), out.dtype)
        self.place(node)
        return node

    # --- called by the operators ----------------------------------------------------------------

    def note(self, op: Any, tensors: tuple[Any, ...], attrs: tuple[Any, ...],
             outs: list[Tensor], many: bool) -> None:
        """Records `outs = op(*tensors, *attrs)`. many: the operator gives a tuple."""
        args = tuple([self.value_of(t) for t in tensors])
        fixed = self._attributes(attrs)
        if "generator" in op.params:
            nodes = [self._draw(op, args, fixed, outs)]
        elif not many:
            nodes = [self._call(op, args, fixed, outs[0]._a)]
        else:
            call = self.interner.make("call", op, args, fixed, None, None)
            self.place(call)
            nodes = [self.interner.make("result", None, (call,), (i,), tuple(o._a.shape),
                                        o._a.dtype) for i, o in enumerate(outs)]
        if self.guarded and many:
            self.coincided |= not self.guarded.isdisjoint(n.digest for n in nodes)
        for o, node in zip(outs, nodes, strict=True):
            o._a.recorder = self
            o._a.value = (node, 0 if o._st is None else o._st.version)

    def _draw(self, op: Any, args: tuple[Any, ...], attrs: Any, outs: list[Tensor]) -> Node:
        """Random numbers: every run draws them anew, in this turn."""
        if len(outs) != 1:
            raise self._error(f"drawing random numbers ({op.name})")
        node = self.interner.make("draw", op, args, (len(self.draws), *attrs),
                                  tuple(outs[0]._a.shape), outs[0]._a.dtype)
        self.draws.append(node)
        self.place(node)
        return node

    def place(self, node: Node) -> None:
        """Notes where the user asked for a node, once."""
        self.placed = True
        if node.digest in self.guarded:
            self.coincided = True
        if node.where is None:
            node.where = (*user_code(4), self.path)

    def _attributes(self, value: Any) -> Any:
        """Attributes with tensors (indices) replaced by their nodes."""
        if value.__class__ in NOT_TENSORS:
            return value
        if isinstance(value, Tensor):
            return self.value_of(value)
        if isinstance(value, (tuple, list)):
            return tuple([self._attributes(v) for v in value])
        return value

    def note_write(self, target: Tensor, source: Tensor) -> None:
        """Records that `target`'s memory now holds `source`; the caller counts the write."""
        self.value_of(target)  # lifts a real tensor
        owner = target if target._base is None else target._base
        if id(owner) in self.frozen_memory:
            raise self._error("a write to memory that was read at a position which varies")
        node = self.value_of(source)
        a = target._a
        if source._a.dtype != a.dtype:
            node = self._call(LEAVES["to_copy"], (node,), (target._dtype,),
                              AbstractArray(source._a.shape, a.dtype))
        if source._a.shape != a.shape:
            node = self._call(LEAVES["expand"], (node,), (tuple(a.shape),), a)
        st = storage_of(target)
        base = target._base
        if base is not None:
            whole = self._call(_write_window, (self.value_of(base), node), self._window(target),
                               base._a)
            base._a.value = (whole, st.version + 1)
            self._mark(base._a)
        a.value = (node, st.version + 1)
        self._mark(a)

    def _mark(self, array: Array) -> None:
        if id(array) in self.arrays:
            self.written.add(self.arrays[id(array)])

    def materialize(self, t: Tensor, what: str) -> Any:
        """Called when a program wants to look at a value that does not exist yet."""
        asks = what == "bool()" or (what == "item()" and t._dtype.kind == 0)
        if asks and self.decisions is not None:
            found = self.decisions.branch(t, what)
            if found is not None:
                return found
        raise self._error(f"reading a value with {what}",
                          "the value does not exist until the program runs")

    def draw(self, name: str) -> CaptureError:
        """The error for random numbers, which a program would repeat at every run."""
        return self._error(f"drawing random numbers ({name})", "every run would repeat them")

    def _error(self, what: str, why: str = "programs have no node for it") -> CaptureError:
        self.failed = CaptureError(
            f"{what} cannot be captured: {why}. It happened at {describe(*user_code(2))}. Move it "
            "out of the captured function, or return the tensor.")
        return self.failed
