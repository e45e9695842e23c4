"""Knobs: everything that an environment variable changes, in one list.

Read once, at the first question. `describe()` prints them; `override` sets some for a block.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

__all__ = ["KNOBS", "Knob", "KnobError", "Knobs", "describe", "knobs", "override"]


class KnobError(ValueError):
    """A knob has a value that it cannot take."""


class Knob(NamedTuple):
    """One knob: its name, what it is set to when nothing is said, and how its text is read."""

    name: str
    default: Any
    read: Callable[[str], Any]
    allowed: str
    meaning: str

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"LAMPION_{self.name.upper()}"

    def parse(self, text: str) -> Any:
        """The value that `text` stands for; raises KnobError with what is allowed."""
        try:
            return self.read(text.strip())
        except (KeyError, ValueError):
            raise KnobError(
                f"{self.variable}={text!r}: {self.meaning}; expected {self.allowed}") from None


def _number(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not low <= int(text) <= high:
            raise ValueError(text)
        return int(text)
    return read


_SWITCH = {"1": True, "true": True, "on": True, "yes": True,
           "0": False, "false": False, "off": False, "no": False}


def _switch(name: str, default: bool, meaning: str) -> Knob:
    return Knob(name, default, lambda text: _SWITCH[text.lower()], "0 or 1", meaning)


def _whole(name: str, default: int, low: int, high: int, meaning: str) -> Knob:
    return Knob(name, default, _number(low, high), f"a whole number from {low} to {high}", meaning)


def _choice(name: str, values: tuple[str, ...], meaning: str) -> Knob:
    table = {value: value for value in values}
    return Knob(name, values[0], lambda text: table[text.lower()], " or ".join(values), meaning)


class Knobs:
    """The values. An attribute is read from the environment when it is first asked for."""

    debug: int
    check: bool
    kernels: str
    target: str
    threads: int
    spin_us: int
    cache_dir: str
    cache_mb: int
    pool: bool
    invariant_rows: bool

    def __getattr__(self, name: str) -> Any:
        knob = _BY_NAME.get(name)
        if knob is None:
            raise AttributeError(f"no knob '{name}'")
        text = os.environ.get(knob.variable, "")
        value = knob.parse(text) if text.strip() else knob.default
        setattr(self, name, value)
        return value


KNOBS = (
    _whole("debug", 0, 0, 6, "how much kernels tell: 1 list with times, 2 loops, 3 schedules, "
           "4 LLVM IR, 5 assembly, 6 everything"),
    _switch("check", False, "every kernel is checked against NumPy as it runs"),
    _choice("kernels", ("auto", "off", "sync"), "native kernels: made in the background while "
            "NumPy serves (auto), never (off), or waited for (sync)"),
    _choice("target", ("native", "avx512", "avx2", "sse", "neon"),
            "instruction set that kernels are made for"),
    _whole("threads", 0, 0, 1024, "threads that share a kernel's work; 0 is one per processor"),
    _whole("spin_us", 50, 0, 100_000, "microseconds that an idle thread looks for work before it "
           "sleeps"),
    Knob("cache_dir", "", str, "a folder", "where compiled kernels are kept; empty is the "
         "user's cache folder"),
    _whole("cache_mb", 256, 0, 1 << 20, "size of the kernels on disk in MiB; 0 keeps none"),
    _switch("pool", True, "memory of dead arrays is kept for new ones"),
    _switch("invariant_rows", False, "a row of a matrix product has the same bits whatever the "
            "other rows and their number are; few rows may take longer"),
)
_BY_NAME = {knob.name: knob for knob in KNOBS}

knobs = Knobs()


@contextmanager
def override(**values: Any) -> Iterator[Knobs]:
    """Sets knobs for a block, as their environment variables would.

    >>> from lampion.debug.knobs import knobs, override
    >>> with override(kernels="sync"):
    ...     knobs.kernels
    'sync'
    """
    before = dict(vars(knobs))
    for name in values:
        if name not in _BY_NAME:
            raise KnobError(f"no knob '{name}'; there are {', '.join(_BY_NAME)}")
    vars(knobs).update({name: _BY_NAME[name].parse(_text(value)) for name, value in values.items()})
    try:
        yield knobs
    finally:
        vars(knobs).clear()
        vars(knobs).update(before)


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def describe() -> str:
    """A line for each knob: variable, value, meaning."""
    width = max(len(knob.variable) for knob in KNOBS)
    return "\n".join(f"{knob.variable:{width}} = {getattr(knobs, knob.name)!s:8} {knob.meaning}"
                     for knob in KNOBS)
