"""Launches that were noted before, noted again with other memory: of equal layers, the second on.

What a launcher does depends on the layout of its arrays, on which of them share memory, and on its
other arguments. Where all of that is as it was at an earlier call of the same recording, the steps
of then are repeated, and no launcher runs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .recording import Number, Recording
from .stream import Buffer, Noted, Site

__all__ = ["Repeats"]

Array = np.ndarray[Any, Any]


class _Done(NamedTuple):
    """What a call did. Buffers and numbers by their places: those of arguments, then new ones."""

    made: list[Buffer]
    steps: list[tuple[Noted, list[tuple[int, int, Site]], list[tuple[int, int]]]]
    results: list[tuple[int, Site | None]]  # an argument's place, or a buffer's with a site on it
    shape: type | None  # of several results


class _Arguments:
    """What the steps of a call depend on, with buffers and numbers told by their first use."""

    def __init__(self, recording: Recording, arrays: Sequence[Any]) -> None:
        self.buffers: dict[int, int] = {}
        self.numbers: dict[int, int] = {}
        self.held: list[Any] = []
        self.inside: list[Buffer] = []
        self.sites = [recording.site(a) if isinstance(a, np.ndarray) else a for a in arrays]
        self.key = tuple(map(self.fact, self.sites))

    def fact(self, value: Any) -> Hashable:
        if value.__class__ is Site:
            buffer = value.buffer
            if id(buffer) not in self.buffers:
                self.buffers[id(buffer)] = len(self.buffers)
                self.inside.append(buffer)
            return (self.buffers[id(buffer)], buffer.kind == "input", buffer.steady, value.offset,
                    value.shape, value.strides, value.dtype)
        if isinstance(value, np.ndarray):  # a constant
            self.held.append(value)
            return id(value)
        if value.__class__ is Number:
            return Number, self.numbers.setdefault(value.index, len(self.numbers))
        return value.__class__, repr(value)


class Repeats:
    """The calls of one recording."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.known: dict[Hashable, tuple[_Done, list[Any]]] = {}

    def attempt(self, what: Hashable, arrays: Sequence[Any], launch: Callable[[], Any]) -> Any:
        """`Recording.attempt(launch)`, or what it gave for arguments that differ in memory alone.

        what: all that the launch depends on but `arrays`, which are its arguments.
        """
        given = _Arguments(self.recording, arrays)
        key = what, given.key
        known = self.known.get(key)
        if known is not None:
            return self.again(known[0], given, arrays)
        recording = self.recording
        steps, buffers, asked = recording.count, len(recording.buffers), recording.asked
        found = recording.attempt(launch)
        if found is not None and asked == recording.asked:
            done = self.done(given, steps, buffers, found)
            if done is not None:
                self.known[key] = done, given.held
        return found

    # --- noting what a call did -------------------------------------------------------------------

    def done(self, given: _Arguments, first: int, start: int, found: Any) -> _Done | None:
        """What was noted since then; None where it cannot be repeated."""
        made = self.recording.buffers[start:]
        places = given.buffers | {id(b): len(given.buffers) + i for i, b in enumerate(made)}
        steps: list[Any] = []
        for step in self.recording.noted(first):
            if not isinstance(step, Noted) or step.flag is not None or any(
                    id(s.buffer) not in places for _, s in step.arrays) or any(
                    n not in given.numbers for _, n in step.numbers):
                return None
            steps.append((step, [(i, places[id(s.buffer)], s) for i, s in step.arrays],
                          [(i, given.numbers[n]) for i, n in step.numbers]))
        if any(b.kind != "arena" for b in made):
            return None
        several = found if found.__class__ in (tuple, list) else (found,)
        results = [self.result(a, given, places) for a in several]
        if None in results:
            return None
        return _Done(made, steps, results,  # type: ignore[arg-type]
                     found.__class__ if several is found else None)

    def result(self, array: Any, given: _Arguments,
               places: dict[int, int]) -> tuple[int, Site | None] | None:
        """How to find a result of another call; None where that is not known."""
        site = self.recording.site(array) if isinstance(array, np.ndarray) else None
        if not isinstance(site, Site) or id(site.buffer) not in places:
            return None
        if site in given.sites:
            return given.sites.index(site), None
        if places[id(site.buffer)] < len(given.buffers) or site.offset < 0:
            return None
        return places[id(site.buffer)] - len(given.buffers), site

    # --- once more --------------------------------------------------------------------------------

    def again(self, done: _Done, given: _Arguments, arrays: Sequence[Any]) -> Any:
        recording = self.recording
        start = len(recording.buffers)
        made = [recording.planned(b.kind, 0, b.shape, b.dtype) for b in done.made]
        buffers = [*given.inside, *recording.buffers[start:]]
        numbers = list(given.numbers)
        for step, sites, taken in done.steps:
            code, body, words, _, _, kept, facts, _ = step
            recording.note(Noted(code, body, words, [
                (i, Site(buffers[at], s.offset, s.shape, s.strides, s.dtype))
                for i, at, s in sites], [(i, numbers[n]) for i, n in taken], kept, facts, None))
        found = [arrays[at] if site is None else _window(made[at], site)
                 for at, site in done.results]
        return found[0] if done.shape is None else done.shape(found)


def _window(whole: Array, site: Site) -> Array:
    """What a site is on another buffer of the same layout."""
    if (site.offset, site.shape, site.strides, site.dtype) == (
            0, whole.shape, whole.strides, whole.dtype):
        return whole
    return np.ndarray(site.shape, site.dtype, whole.reshape(-1).view(np.uint8), site.offset,
                      site.strides)
