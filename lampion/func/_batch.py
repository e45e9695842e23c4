"""Tensors that stand for one element of a batch while a function is mapped over it.

Such a tensor has the shape of one element and no data; its `value` is the tensor with the whole
batch in front. Operators see that there is nothing to compute on and hand the call to the
`Batcher`, which runs it once for all elements: by its rule (_rules.py), or in a loop. History is
recorded on both sides: for `grad` inside of the function on the elements, for everyone outside on
the batches. A level inside a level, or inside a capture, is nothing special.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.modes import state
from ..autograd.node import record
from ..ops import stack
from ..ops.forms import keep_old_value
from ..tensor import Tensor
from ..tensor.abstract import AbstractArray
from ..tensor.tensor import wrap

__all__ = ["SHAPED", "Batcher", "NeedsLoop", "NoDraws"]

# Draws that only look at the shape of their tensor.
SHAPED = frozenset(("uniform", "normal", "random", "bernoulli", "exponential", "geometric",
                     "cauchy", "log_normal"))
# Draws whose parameters are tensors of the shape of the result.
_PARAMETRIC = frozenset(("bernoulli_of", "bernoulli_each", "normal_mean", "normal_std",
                         "normal_both", "poisson", "binomial", "standard_gamma"))


class NeedsLoop(BaseException):
    """The function asks for what only single elements have; no `except Exception` hides it."""

    def __init__(self, batcher: Batcher) -> None:
        super().__init__("vmap goes through the batch one by one")
        self.batcher = batcher


class Batcher:
    """One run of a mapped function. level: how many others it runs in, plus one."""

    def __init__(self, size: int, randomness: str) -> None:
        self.size, self.randomness = size, randomness
        self.outer: Any = state.batcher
        self.level: int = 1 if self.outer is None else self.outer.level + 1
        self.copies: set[int] = set()  # storages of which some views are copies
        self.kept: list[Any] = []  # which keeps their ids

    def __enter__(self) -> Batcher:
        state.batcher = self
        return self

    def __exit__(self, *exc: object) -> None:
        state.batcher = self.outer

    # --- values ---------------------------------------------------------------------------------

    def element(self, batch: Tensor) -> Tensor:
        """What stands for one element of `batch`, whose first dimension counts them."""
        a = batch._a
        t = wrap(AbstractArray(tuple(a.shape[1:]), a.dtype, tuple(a.strides[1:]), recorder=self,
                               value=batch), batch._dtype)
        t._rg = batch.requires_grad
        return t

    def holds(self, t: Any) -> bool:
        """Whether a value differs from element to element."""
        return isinstance(t, Tensor) and type(t._a) is AbstractArray and t._a.recorder is self

    def value_of(self, t: Any) -> Any:
        """The whole batch behind an element; anything else is the same for all of them."""
        return t._a.value if self.holds(t) else t

    def full(self, t: Tensor) -> Tensor:
        """The batch behind `t`, repeated where it is the same for all elements."""
        if self.holds(t):
            return t._a.value  # type: ignore[no-any-return]
        return t.unsqueeze(0).expand(self.size, *t._a.shape)  # type: ignore[no-any-return]

    def lifted(self, t: Any, ndim: int) -> Any:
        """The batch with ones behind its first dimension, so that elements broadcast as `ndim`."""
        if not self.holds(t):
            return t
        batch, missing = t._a.value, ndim - t._a.ndim
        if missing <= 0:
            return batch
        return batch.reshape(self.size, *(1,) * missing, *t._a.shape)

    def frozen(self, t: Tensor) -> Any:
        """The value of `t` as it is now, for an array of its own."""
        return self.full(t).clone()

    def keep_old_value(self, t: Tensor, result: Tensor, start: int) -> None:
        """The same for the batches, whose history is another."""
        if self.holds(t) and self.holds(result) and self.value_of(result).requires_grad:
            keep_old_value(self.value_of(t), self.value_of(result), start)

    # --- called by the operators ----------------------------------------------------------------

    def note(self, op: Any, tensors: tuple[Any, ...], attrs: tuple[Any, ...],
             outs: list[Tensor], many: bool) -> None:
        """Runs `outs = op(*tensors, *attrs)` for all elements, be it one tensor or a tuple."""
        from ._rules import RULES

        rule = RULES.get(op.name)
        found = None if rule is None else rule(self, op, tensors, attrs, outs)
        if found is None:
            if op.view:
                self.mark_copied(outs[0])
            found = self.by_loop(op, tensors, attrs, outs)
        for out, batch in zip(outs, found if isinstance(found, tuple) else (found,), strict=True):
            shape = (self.size, *out._a.shape)
            out._a.recorder = self
            out._a.value = batch if batch._a.shape == shape else batch.reshape(shape)

    def by_loop(self, op: Any, tensors: tuple[Any, ...], attrs: tuple[Any, ...],
                outs: list[Tensor]) -> tuple[Tensor, ...]:
        """An operator without a rule: once for each element."""
        if op.name == "as_strided":
            raise NeedsLoop(self)
        rows = []
        for i in range(self.size):
            args, rest = self.at(tensors, i), self.at(attrs, i)
            found = op(list(args), *rest) if op.takes_list else op(*args, *rest)
            rows.append(found if isinstance(found, tuple) else (found,))
        return tuple(stack(column) for column in zip(*rows, strict=True))

    def at(self, value: Any, i: int) -> Any:
        """The i-th element in the place of the batch, in nested arguments."""
        if isinstance(value, (tuple, list)):
            return tuple(self.at(v, i) for v in value)
        return value._a.value.select(0, i) if self.holds(value) else value

    def mark_copied(self, view: Tensor) -> None:
        """Notes that a view shares no memory with what it was taken of."""
        self.copies.add(id(view._st))
        self.kept.append(view._st)

    def note_write(self, target: Tensor, source: Tensor) -> None:
        """Writes to all elements; NeedsLoop where that has no meaning for them together."""
        if not self.holds(target) or id(target._st) in self.copies:
            raise NeedsLoop(self)
        target._a.value.copy_(self.lifted(source, target._a.ndim))

    def materialize(self, t: Tensor, what: str) -> Any:
        """Called when the function wants to look at a value."""
        raise NeedsLoop(self)

    # --- random numbers -------------------------------------------------------------------------

    def draw(self, op: Any, tensors: tuple[Any, ...], attrs: tuple[Any, ...]) -> Any:
        """A random operator, as `randomness` wants it."""
        if self.randomness == "error":
            raise _drawn()
        state.batcher = self.outer  # draws of this level are those of the one around it
        try:
            if self.randomness == "same":
                return self._draw_once(op, tensors, attrs)
            found = self._draw_all(op, tensors, attrs)
        finally:
            state.batcher = self
        out = self.element(found)
        out._rg = False
        if state.grad:
            record(op, out, tensors, attrs)
        return out

    def _draw_once(self, op: Any, tensors: tuple[Any, ...], attrs: tuple[Any, ...]) -> Any:
        if not any(map(self.holds, tensors)):
            return op(*tensors, *attrs)
        if op.name not in SHAPED:
            raise NeedsLoop(self)
        return op(_empty(tensors[0]._a.shape, tensors[0]), *attrs)

    def _draw_all(self, op: Any, tensors: tuple[Any, ...], attrs: tuple[Any, ...]) -> Tensor:
        if op.name in SHAPED:
            return op(_empty((self.size, *tensors[0]._a.shape), tensors[0]),  # type: ignore[no-any-return]
                      *attrs)
        if op.name in _PARAMETRIC:
            ndim = max(t._a.ndim for t in tensors)
            shape = np.broadcast_shapes(*(t._a.shape for t in tensors))
            first = self.lifted(tensors[0], ndim).expand(self.size, *shape)
            return op(first, *(self.lifted(t, ndim) for t in tensors[1:]),  # type: ignore[no-any-return]
                      *attrs)
        return stack([op(*self.at(tensors, i), *attrs)  # type: ignore[no-any-return]
                      for i in range(self.size)])


class NoDraws:
    """In the place of a Batcher while elements are run one by one: random numbers are refused."""

    def __init__(self) -> None:
        self.outer = state.batcher
        self.level: int = 0 if self.outer is None else self.outer.level

    def __enter__(self) -> None:
        state.batcher = self

    def __exit__(self, *exc: object) -> None:
        state.batcher = self.outer

    def draw(self, op: Any, tensors: tuple[Any, ...], attrs: tuple[Any, ...]) -> Any:
        raise _drawn()


def _drawn() -> RuntimeError:
    return RuntimeError("vmap: called random operation while in randomness error mode. Please "
                        "either use the 'same' or 'different' randomness flags on vmap or perform "
                        "the randomness operation out of vmap")


def _empty(shape: Any, like: Tensor) -> Tensor:
    return wrap(np.empty(shape, like._dtype.np), like._dtype)
