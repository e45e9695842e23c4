"""Looking inside: knobs, user frames, timing of operators, kernels that ran and their checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Each lets a timer see the calls of one room, and returns how to undo that; the rooms above add
# theirs. Nothing is changed in a call as long as no timer is active.
INSTRUMENTS: list[Callable[[Any], Callable[[], None]]] = []

# Runs a kernel and its reference again, by kind: (name, arguments) -> both results and what gives
# the reference's in float64, see `check`.
REPLAY: dict[str, Callable[[str, tuple[Any, ...]], tuple[Any, Any, Any]]] = {}
