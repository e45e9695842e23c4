"""Thread-local switches: whether operations are recorded, and how."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ..tensor.tensor import INFERENCE, Tensor

__all__ = [
    "enable_grad",
    "followed",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "made",
    "no_grad",
    "set_grad_enabled",
    "state",
]

F = TypeVar("F", bound=Callable[..., Any])


class State(threading.local):
    """Switches of the current thread."""

    grad: bool = True
    inference: bool = False
    anomaly: bool = False
    anomaly_check_nan: bool = True
    saved_hooks: tuple[tuple[Callable[..., Any], Callable[..., Any]], ...] = ()
    recorder: Any = None  # of the capture that runs in this thread
    batcher: Any = None  # of the innermost vmap that runs in this thread
    into: Any = None  # of an in-place operator: its last operators, and where the result may go


state = State()
# How many threads have anomaly detection or saved-tensor hooks on: read by every recording, where
# the thread-local switches would cost more.
WATCHED = [0]


def _note_birth(t: Tensor) -> None:
    if state.inference:
        t._is_inference = True
    if state.recorder is not None:
        t.__dict__["_born_in"] = state.recorder


def followed(fn: F) -> F:
    """A function of the user's as a capture wants it called; itself where none runs."""
    recorder = state.recorder
    if recorder is None or recorder.watcher is None:
        return fn
    return recorder.watcher.callback(fn)  # type: ignore[no-any-return]


def made(value: Any) -> Any:
    """`value`, whose containers are new: a capture takes them for the function's own."""
    recorder = state.recorder
    if recorder is not None and recorder.watcher is not None:
        recorder.watcher.made(value)
    return value


Tensor._note_birth = staticmethod(_note_birth)  # type: ignore[assignment]


def is_grad_enabled() -> bool:
    """Whether operations on tensors that require grad are recorded in this thread."""
    return state.grad


def is_inference_mode_enabled() -> bool:
    """Whether `inference_mode` is on in this thread."""
    return state.inference


class Switch:
    """A context manager that is also a decorator of functions and generator functions."""

    def __enter__(self) -> Any:
        raise NotImplementedError

    def __exit__(self, *exc: object) -> None:
        raise NotImplementedError

    def clone(self) -> Switch:
        """A fresh context with the same arguments, for one call of a decorated function."""
        return type(self)()

    def __call__(self, fn: F) -> F:
        return decorate(self.clone, fn)


def decorate(context: Callable[[], Any], fn: F) -> F:
    """`fn` run inside a fresh `context()`; a generator holds it only while it runs."""
    from functools import wraps
    from inspect import isgeneratorfunction

    if isinstance(fn, type):
        fn.__init__ = decorate(context, fn.__init__)  # type: ignore[misc]
        return fn
    if isgeneratorfunction(fn):
        @wraps(fn)
        def stepwise(*args: Any, **kwargs: Any) -> Any:
            return _drive(context, fn(*args, **kwargs))
        return stepwise  # type: ignore[return-value]

    @wraps(fn)
    def inside(*args: Any, **kwargs: Any) -> Any:
        with context():
            return fn(*args, **kwargs)
    return inside  # type: ignore[return-value]


def _drive(context: Callable[[], Any], generator: Any) -> Any:
    """Runs a generator, entering the context around each of its steps only."""
    with context():
        try:
            item = next(generator)
        except StopIteration as stop:
            return stop.value
    while True:
        try:
            sent = yield item
        except GeneratorExit:
            with context():
                generator.close()
            raise
        except BaseException as error:
            step, args = generator.throw, (error,)
        else:
            step, args = generator.send, (sent,)
        with context():
            try:
                item = step(*args)
            except StopIteration as stop:
                return stop.value


class _GradSwitch(Switch):
    value: bool

    def __new__(cls, fn: Any = None) -> Any:
        """`@no_grad` without parentheses decorates, as in PyTorch."""
        self = object.__new__(cls)
        return self if fn is None else self(fn)

    def __enter__(self) -> None:
        self.previous = state.grad
        state.grad = self.value

    def __exit__(self, *exc: object) -> None:
        state.grad = self.previous


class no_grad(_GradSwitch):
    """Operations inside are not recorded.

    >>> import lampion as torch
    >>> x = torch.ones(2, requires_grad=True)
    >>> with torch.no_grad():
    ...     (x * 2).requires_grad
    False
    """

    value = False


class enable_grad(_GradSwitch):
    """Operations inside are recorded, even within `no_grad`."""

    value = True


class set_grad_enabled(Switch):
    """Turns recording on or off, at once; as a context manager, until its end."""

    def __init__(self, mode: bool) -> None:
        self.previous, self.mode = state.grad, bool(mode)
        state.grad = self.mode

    def __enter__(self) -> None:
        state.grad = self.mode

    def __exit__(self, *exc: object) -> None:
        state.grad = self.previous

    def clone(self) -> set_grad_enabled:
        return set_grad_enabled(self.mode)

    def __call__(self, fn: F) -> F:
        state.grad = self.previous
        return decorate(self.clone, fn)


class inference_mode(Switch):
    """Like `no_grad`; tensors made inside can never take part in backward."""

    def __new__(cls, mode: Any = True) -> Any:
        self = object.__new__(cls)
        self.mode = True if callable(mode) else bool(mode)
        return self(mode) if callable(mode) else self

    mode: bool

    def __enter__(self) -> None:
        self.previous = (state.grad, state.inference)
        self._set(not self.mode and self.previous[0], self.mode)

    def __exit__(self, *exc: object) -> None:
        self._set(*self.previous)

    @staticmethod
    def _set(grad: bool, inference: bool) -> None:
        INFERENCE[0] += inference - state.inference
        INFERENCE[1] |= inference
        state.grad, state.inference = grad, inference

    def clone(self) -> inference_mode:
        return inference_mode(self.mode)
