"""Optimizer updates: one record each, what a step does to one parameter, element by element.

A body takes the math namespace `x`, the parameter, its gradient, the state and then scalars, and
writes into parameter and state in place. The same body becomes one kernel over all of them, runs
on NumPy arrays, block by block so that temporaries stay in the cache, and on tensors, where it is
recorded or captured. The order
of the arithmetic is PyTorch's, so results agree to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..debug.frames import user_code
from ..tensor.tensor import Tensor, storage_of
from .native import LEAST, launch_update

__all__ = ["UPDATES", "Scalars", "Update", "flat_views", "note_writes", "update_arrays"]

_BLOCK = 1 << 15  # elements: with a few temporaries of float32 this fits the second-level cache
_WIDE: np.dtype[Any] = np.dtype(np.float32)
_REAL: dict[str, np.dtype[Any]] = {"complex64": _WIDE, "complex128": np.dtype(np.float64)}

UPDATES: dict[str, Update] = {}


class Update:
    """One optimizer's update: its name, the state it uses and its body."""

    __slots__ = ("body", "launches", "name", "state")

    def __init__(self, name: str, state: tuple[str, ...], body: Callable[..., None]) -> None:
        self.name, self.state, self.body = name, state, body
        self.launches: dict[Any, Any] = {}  # kernels, by the facts of their arguments
        UPDATES[name] = self

    # As an operator of a graph: takes p, g and the state, gives the new p and the new state.
    takes_list = view = exact = False

    @property
    def n_tensors(self) -> int:
        return 2 + len(self.state)

    @property
    def params(self) -> tuple[str, ...]:
        return ("p", "g", *self.state, "negate", "scalars")

    def __call__(self, p: Tensor, g: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        """The new parameter and state; the old stay as they are."""
        *old, negate, numbers = rest
        new = [t.clone() for t in (p, *old)]
        scalars = Scalars(numbers, p._a.dtype)
        update_arrays(self, [new[0]._a, g._a, *(t._a for t in new[1:])], scalars, negate=negate)
        return tuple(new)


def _update(*state: str) -> Callable[[Callable[..., None]], Update]:
    def declare(body: Callable[..., None]) -> Update:
        return Update(body.__name__, state, body)

    return declare


@_update()
def sgd(x: Any, p: Any, g: Any, lr: Any, decay: Any) -> None:
    if decay is not None:
        g = g + decay * p
    p -= lr * g


@_update("momentum_buffer")
def sgd_momentum(
    x: Any, p: Any, g: Any, buffer: Any, lr: Any, decay: Any, momentum: Any, rate: Any,
    nesterov: bool,
) -> None:
    if decay is not None:
        g = g + decay * p
    buffer *= momentum
    buffer += rate * g
    p -= lr * (g + momentum * buffer if nesterov else buffer)


@_update("exp_avg", "exp_avg_sq")
def adam(
    x: Any, p: Any, g: Any, mean: Any, square: Any, keep: Any, decay: Any, rate1: Any,
    beta2: Any, rate2: Any, scale: Any, eps: Any, size: Any,
) -> None:
    g = _decayed(p, g, keep, decay)
    mean += rate1 * (g - mean)
    square *= beta2
    square += rate2 * g * g
    p -= size * mean / (x.sqrt(square) * scale + eps)


@_update("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
def adam_amsgrad(
    x: Any, p: Any, g: Any, mean: Any, square: Any, top: Any, keep: Any, decay: Any, rate1: Any,
    beta2: Any, rate2: Any, scale: Any, eps: Any, size: Any,
) -> None:
    g = _decayed(p, g, keep, decay)
    mean += rate1 * (g - mean)
    square *= beta2
    square += rate2 * g * g
    _store(top, x.maximum(top * 1.0, square))  # of a copy: what is recorded must not change
    p -= size * mean / (x.sqrt(top) * scale + eps)


def _decayed(p: Any, g: Any, keep: Any, decay: Any) -> Any:
    """Weight decay, decoupled (`keep`: what is left of `p`) or added to the gradient."""
    if keep is not None:
        p *= keep
    return g if decay is None else g + decay * p


def _store(target: Any, value: Any) -> None:
    target[...] = value


@_update("exp_avg", "exp_inf")
def adamax(
    x: Any, p: Any, g: Any, mean: Any, norm: Any, decay: Any, rate1: Any, beta2: Any, eps: Any,
    size: Any,
) -> None:
    g = _decayed(p, g, None, decay)
    mean += rate1 * (g - mean)
    _store(norm, x.maximum(norm * beta2, x.abs(g) + eps))
    p -= size * mean / norm


@_update("exp_avg", "exp_avg_sq")
def nadam(
    x: Any, p: Any, g: Any, mean: Any, square: Any, keep: Any, decay: Any, rate1: Any,
    beta2: Any, rate2: Any, correction: Any, eps: Any, size_g: Any, size_m: Any,
) -> None:
    g = _decayed(p, g, keep, decay)
    mean += rate1 * (g - mean)
    square *= beta2
    square += rate2 * g * g
    scale = x.sqrt(square / correction) + eps
    p -= size_g * g / scale
    p -= size_m * mean / scale


@_update("exp_avg", "exp_avg_sq")
def radam(
    x: Any, p: Any, g: Any, mean: Any, square: Any, keep: Any, decay: Any, rate1: Any,
    beta2: Any, rate2: Any, correction: Any, lr: Any, eps: Any, root: Any, rectify: Any,
) -> None:
    g = _decayed(p, g, keep, decay)
    mean += rate1 * (g - mean)
    square *= beta2
    square += rate2 * g * g
    step = mean / correction * lr
    if rectify is not None:
        step = step * (root / (x.sqrt(square) + eps)) * rectify
    p -= step


@_update("sum")
def adagrad(x: Any, p: Any, g: Any, total: Any, decay: Any, lr: Any, eps: Any) -> None:
    g = _decayed(p, g, None, decay)
    total += g * g
    p -= lr * g / (x.sqrt(total) + eps)


@_update("square_avg", "acc_delta")
def adadelta(
    x: Any, p: Any, g: Any, square: Any, moved: Any, decay: Any, rho: Any, rest: Any, eps: Any,
    lr: Any,
) -> None:
    g = _decayed(p, g, None, decay)
    square *= rho
    square += rest * g * g
    delta = x.sqrt(moved + eps) / x.sqrt(square + eps) * g
    moved *= rho
    moved += rest * delta * delta
    p -= lr * delta


@_update("square_avg")
def rmsprop(
    x: Any, p: Any, g: Any, square: Any, decay: Any, alpha: Any, rest: Any, eps: Any, lr: Any,
    momentum: Any,
) -> None:
    g = _decayed(p, g, None, decay)
    square *= alpha
    square += rest * g * g
    p -= lr * g / (x.sqrt(square) + eps)


@_update("square_avg", "momentum_buffer")
def rmsprop_momentum(
    x: Any, p: Any, g: Any, square: Any, buffer: Any, decay: Any, alpha: Any, rest: Any,
    eps: Any, lr: Any, momentum: Any,
) -> None:
    g = _decayed(p, g, None, decay)
    square *= alpha
    square += rest * g * g
    buffer *= momentum
    buffer += g / (x.sqrt(square) + eps)
    p -= lr * buffer


@_update("square_avg", "grad_avg")
def rmsprop_centered(
    x: Any, p: Any, g: Any, square: Any, mean: Any, decay: Any, alpha: Any, rest: Any, eps: Any,
    lr: Any, momentum: Any,
) -> None:
    g = _decayed(p, g, None, decay)
    square *= alpha
    square += rest * g * g
    mean += rest * (g - mean)
    p -= lr * g / (x.sqrt(square - mean * mean) + eps)


@_update("square_avg", "momentum_buffer", "grad_avg")
def rmsprop_centered_momentum(
    x: Any, p: Any, g: Any, square: Any, buffer: Any, mean: Any, decay: Any, alpha: Any,
    rest: Any, eps: Any, lr: Any, momentum: Any,
) -> None:
    g = _decayed(p, g, None, decay)
    square *= alpha
    square += rest * g * g
    mean += rest * (g - mean)
    buffer *= momentum
    buffer += g / (x.sqrt(square - mean * mean) + eps)
    p -= lr * buffer


@_update("prev", "step_size")
def rprop(
    x: Any, p: Any, g: Any, previous: Any, size: Any, down: Any, up: Any, low: Any, high: Any
) -> None:
    sign = x.sign(g * previous)
    scaled = x.where(sign > 0, size * up, x.where(sign < 0, size * down, size))
    _store(size, x.clip(scaled, low, high))
    g = x.where(sign < 0, 0.0, g)  # a step that overshot is not taken back, only shortened
    p -= x.sign(g) * size
    _store(previous, g)


@_update("ax")
def asgd(x: Any, p: Any, g: Any, average: Any, decay: Any, keep: Any, eta: Any, mu: Any) -> None:
    g = _decayed(p, g, None, decay)
    p *= keep
    p -= eta * g
    if mu is None:
        _store(average, p)
    else:
        average += mu * (p - average)


class Scalars:
    """What an update takes beside its arrays: numbers, None and booleans that choose a branch."""

    __slots__ = ("_fixed", "key", "kind", "raw")

    def __init__(self, raw: Sequence[Any], kind: np.dtype[Any]) -> None:
        """`kind` is the parameters' dtype."""
        self.raw, self.kind = raw, kind
        self.key = tuple([s if s is None or s.__class__ is bool else float for s in raw])
        self._fixed: list[Any] | None = None

    @property
    def fixed(self) -> list[Any]:
        """The numbers as 0-d arrays, which NumPy takes faster than Python floats."""
        if self._fixed is None:
            wide: np.dtype[Any] = _REAL.get(self.kind.name, self.kind)
            wide = wide if wide.itemsize >= 4 else _WIDE
            self._fixed = [s if s is None or isinstance(s, bool) else np.array(s, wide)
                           for s in self.raw]
        return self._fixed


def update_arrays(
    update: Update, arrays: Sequence[Any], scalars: Scalars, *, negate: bool = False
) -> None:
    """Run `update` on ``[parameter, gradient, *state]``, NumPy arrays of one shape.

    Complex arrays are taken as pairs of reals, as PyTorch does. Types narrower than float32 are
    computed in float32 and rounded when stored. `negate` turns the gradient around (maximize).
    """
    if arrays[0].size >= LEAST and launch_update(update, arrays, scalars, negate):
        return
    kind = arrays[0].dtype
    if kind.kind == "c":
        arrays = [a[..., None].view(_REAL[kind.name]) for a in arrays]
    run = _run if kind.itemsize >= 4 else _run_wide
    flat = None if arrays[0].size <= _BLOCK else flat_views(arrays)
    if flat is None:
        run(update, arrays, scalars.fixed, negate)
        return
    for start in range(0, flat[0].size, _BLOCK):
        run(update, [a[start : start + _BLOCK] for a in flat], scalars.fixed, negate)


def _run(update: Update, arrays: Sequence[Any], scalars: Sequence[Any], negate: bool) -> None:
    p, g, *state = arrays
    update.body(np, p, -g if negate else g, *state, *scalars)


def _run_wide(update: Update, arrays: Sequence[Any], scalars: Sequence[Any], negate: bool) -> None:
    wide = [a.astype(_WIDE) for a in arrays]
    _run(update, wide, scalars, negate)
    for array, result in zip(arrays, wide):
        if array is not arrays[1]:
            array[...] = result


def flat_views(arrays: Sequence[Any]) -> list[Any] | None:
    """One-dimensional views of the arrays, element by element alike; None if there are none."""
    if all(a.flags.c_contiguous for a in arrays):
        return [a.reshape(-1) for a in arrays]
    order = np.argsort([-s for s in arrays[0].strides], kind="stable")
    turned = [a.transpose(order) for a in arrays]
    if all(a.flags.c_contiguous for a in turned):
        return [a.reshape(-1) for a in turned]
    return None


def note_writes(tensors: Sequence[Tensor], writer: str) -> None:
    """Count a write to each tensor, so that a backward through its old value is noticed."""
    origin = (writer, *user_code(3))
    for t in tensors:
        st = t._st
        if st is None:
            st = storage_of(t)
        if st.aside is None:
            st.version += 1
        else:
            st.count_write()
        st.writer = origin
