"""Which line of the user's program called us."""

from __future__ import annotations

import os
import sys
from types import CodeType

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def user_code(depth: int = 2) -> tuple[CodeType | None, int]:
    """Code object and instruction offset of the nearest frame outside lampion.

    Cheap: the line number is looked up only when an error is printed (`line_of`).
    """
    frame = sys._getframe(depth)
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(_PACKAGE):
            return code, frame.f_lasti
        frame = frame.f_back  # type: ignore[assignment]
    return None, 0


def line_of(code: CodeType, offset: int) -> int:
    """The source line of an instruction offset."""
    for start, end, line in code.co_lines():
        if start <= offset < end and line is not None:
            return line
    return code.co_firstlineno


def describe(code: CodeType | None, offset: int) -> str:
    """`file.py:12 in train: x.add_(1)` for a recorded frame."""
    if code is None:
        return "an unknown line"
    import linecache

    line = line_of(code, offset)
    text = linecache.getline(code.co_filename, line).strip()
    place = f"{code.co_filename}:{line} in {code.co_name}"
    return f"{place}: {text}" if text else place


def user_stack_level() -> int:
    """The `stacklevel` that makes a warning point at the user's line."""
    level, frame = 1, sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back  # type: ignore[assignment]
        level += 1
    return level
