"""Handles of registered hooks."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from itertools import count
from typing import Any

__all__ = ["RemovableHandle"]

_next_id = count().__next__


class RemovableHandle:
    """What a `register_*hook` returns: `remove()` takes the hook back."""

    __slots__ = ("__weakref__", "_tables", "id")

    def __init__(self, hooks_dict: Any, *, extra_dict: Any = None) -> None:
        self.id = _next_id()
        extra = extra_dict if isinstance(extra_dict, (list, tuple)) else [extra_dict]
        self._tables = [_reference(t) for t in (hooks_dict, *extra) if t is not None]

    @classmethod
    def add(cls, table: dict[int, Callable[..., Any]], fn: Callable[..., Any]) -> RemovableHandle:
        """Puts `fn` into `table` under a new handle."""
        handle = cls(table)
        table[handle.id] = fn
        return handle

    def remove(self) -> None:
        """Removes the hook; a second call does nothing."""
        for reference in self._tables:
            table = reference()
            if table is not None:
                table.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def _reference(table: Any) -> Callable[[], Any]:
    """A weak reference where the table allows one (plain dicts do not)."""
    try:
        return weakref.ref(table)
    except TypeError:
        return lambda: table
