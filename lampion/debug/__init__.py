"""Looking inside: knobs, user frames, timing of operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Each lets a timer see the calls of one room, and returns how to undo that; the rooms above add
# theirs. Nothing is changed in a call as long as no timer is active.
INSTRUMENTS: list[Callable[[Any], Callable[[], None]]] = []
