"""A place in an epoch: what was handed out, and how to get there again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .state import restore_streams, save_streams

__all__ = ["Position"]

_VERSION = 1


class Position:
    """Counts the batches that an iterator hands out.

    It also keeps the state of every random stream from just before the epoch began:
    replaying the sampler from there gives the same order, whatever sampler it is.
    """

    def __init__(self) -> None:
        self.yielded = 0
        self.num_workers = 0
        self.begun = False
        self.base_seed: int | None = None
        self.first_task = 0  # every task below was handed out
        self._ahead: set[int] = set()  # tasks handed out of order, beyond the first gap
        self._counts: dict[int, int] = {}  # batches by worker
        self._states: dict[int, Any] = {}  # each worker's state after its last batch
        self._last_worker: int | None = None
        self._origin: dict[str, Any] = {}
        self._outer: dict[str, Any] | None = None
        self._generators: list[Any] = []
        self._resumed = False

    def following(self, base_seed: int | None) -> Position:
        """The beginning of the next epoch; `base_seed` where the workers live on."""
        position = Position()
        if base_seed is not None:
            position.base_seed, position._states = base_seed, self._states
        return position

    def begin(self, loader: Any) -> None:
        """Note where the streams stand, or, when resuming, put them back there."""
        self._generators = _explicit_generators(loader)
        if self.begun:
            self._replay(loader)
            return
        self.begun = True
        self.num_workers = loader.num_workers
        self._origin = save_streams(shared=True)
        self._origin["generators"] = [_get_state(g) for g in self._generators]
        sampler = _stateful_sampler(loader)
        if sampler is not None:
            self._origin["sampler"] = sampler.state_dict()

    def _replay(self, loader: Any) -> None:
        self._outer = save_streams(shared=True)
        restore_streams(self._origin, shared=True)
        for generator, state in zip(self._generators, self._origin["generators"]):
            _set_state(generator, state)
        if "sampler" in self._origin:
            _stateful_sampler(loader).load_state_dict(self._origin["sampler"])
        if loader._iterable:  # its requests are all alike
            self.first_task, self._ahead = self.yielded, set()

    def skip(self, indices: Iterator[Any]) -> list[Any]:
        """Step over what was handed out; the requests that were skipped."""
        return [index for _, index in zip(range(self.first_task), indices)]

    def restored(self) -> None:
        """The replay is over: the program's own streams go on from where they were."""
        if self._outer is not None:
            restore_streams(self._outer, shared=True)
            self._outer = None

    def passed(self, task: int, worker: int, state: Any) -> None:
        """Batch `task` of `worker` was handed out."""
        self.yielded += 1
        self._counts[worker] = self._counts.get(worker, 0) + 1
        self._states[worker] = state
        self._last_worker = worker
        self._ahead.add(task)
        while self.first_task in self._ahead:
            self._ahead.remove(self.first_task)
            self.first_task += 1

    def is_done(self, task: int) -> bool:
        """Whether `task` was handed out, out of order."""
        return task in self._ahead

    def finish(self) -> None:
        """The epoch is over: a state saved from here on means the next one."""
        self.begun = False

    def first_worker(self, workers: int) -> int:
        """Whose turn it is."""
        return 0 if self._last_worker is None else (self._last_worker + 1) % workers

    def for_worker(self, worker: int, skipped: list[Any], workers: int) -> tuple[list[Any], Any]:
        """What `worker` has read already, and its state then."""
        if not self._resumed or self.num_workers != workers:
            return [], None
        return skipped[: self._counts.get(worker, 0)], self._states.get(worker)

    def state_dict(self, num_workers: int, persistent: bool) -> dict[str, Any]:
        """Plain data; see `DataLoader.state_dict`."""
        state: dict[str, Any] = {"version": _VERSION, "begun": self.begun}
        if self.begun or persistent:
            state |= {"base_seed": self.base_seed, "states": dict(self._states)}
            state["num_workers"] = num_workers
        if self.begun:
            state |= {
                "yielded": self.yielded,
                "first_task": self.first_task,
                "ahead": sorted(self._ahead),
                "counts": dict(self._counts),
                "last_worker": self._last_worker,
                "origin": self._origin,
            }
        return state

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Position:
        """The position that `state_dict` described."""
        if not isinstance(state, dict) or state.get("version") != _VERSION:
            raise ValueError(
                "expected a dict from DataLoader.state_dict(), "
                f"but got {type(state).__name__} without version {_VERSION}"
            )
        position = cls()
        position._resumed, position.begun = True, state["begun"]
        if "base_seed" in state:
            position.base_seed = state["base_seed"]
            position.num_workers = state["num_workers"]
            position._states = dict(state["states"])
        if position.begun:
            position.yielded = state["yielded"]
            position.first_task = state["first_task"]
            position._ahead = set(state["ahead"])
            position._counts = dict(state["counts"])
            position._last_worker = state["last_worker"]
            position._origin = state["origin"]
        return position


def _parts(loader: Any) -> list[Any]:
    """The loader and the samplers that its order may come from."""
    inner = getattr(loader.batch_sampler, "sampler", None)
    return [loader, loader.sampler, loader.batch_sampler, inner]


def _explicit_generators(loader: Any) -> list[Any]:
    found = (getattr(part, "generator", None) for part in _parts(loader))
    return list({id(g): g for g in found if g is not None}.values())


def _stateful_sampler(loader: Any) -> Any:
    """A sampler that keeps its own state."""
    parts = reversed(_parts(loader)[1:])
    return next((p for p in parts if hasattr(p, "load_state_dict")), None)


def _get_state(generator: Any) -> bytes:
    state: bytes = generator.get_state().numpy().tobytes()
    return state


def _set_state(generator: Any, state: bytes) -> None:
    from .... import ops

    generator.set_state(ops.from_numpy(np.frombuffer(state, np.uint8).copy()))
