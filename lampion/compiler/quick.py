"""Facts that are compared by identity in one native call (`codegen/facts.py`).

What a fact says is checked in Python first. Then the same objects at the same places mean that it
still holds; anything else is looked at in Python again. Where this interpreter does not lay out
objects as the native code needs it, nothing here is used.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..runtime.native import KernelsUnavailable, function
from ..tensor.tensor import Tensor, wrap

__all__ = ["Facts", "layout"]

_WORD = 8
_HEAD = object.__basicsize__


class Layout(NamedTuple):
    """Where objects keep what facts are about, in bytes; the native function over a table."""

    cell: int
    code: int
    fields: dict[str, int]  # of tensors
    holds: Callable[[Any], Any]


def _at(obj: Any, offset: int) -> int:
    return ctypes.c_int64.from_address(id(obj) + offset).value


def _offset(obj: Any, value: Any) -> int:
    """Where an object points to another; LookupError where it does not."""
    for offset in range(_HEAD, type(obj).__basicsize__, _WORD):
        if _at(obj, offset) == id(value):
            return offset
    raise LookupError(type(obj).__name__)


def _check_containers() -> None:
    """LookupError where objects, lists and dicts are laid out in another way."""
    few, many = [object()], [object() for _ in range(9)]
    for items in (few, many):
        start = _at(items, _HEAD + _WORD)
        table = dict(enumerate(items))
        found = [ctypes.c_int64.from_address(start + _WORD * i).value for i in range(len(items))]
        if found != list(map(id, items)) or _at(items, _HEAD) != len(items) or _at(
                table, _HEAD) != len(items) or _at(table, _HEAD - _WORD) != id(dict):
            raise LookupError("containers")


@functools.cache
def layout() -> Layout | None:
    """That of this interpreter; None where there is no native code for it."""
    if hasattr(sys, "_is_gil_enabled") and not sys._is_gil_enabled():
        return None  # others may change a list while it is looked at
    from ..codegen.facts import image
    from ..runtime.loader import BadObject

    try:
        _check_containers()
        code = image(_HEAD, _HEAD + _WORD)
        t, marks = wrap(np.zeros(1, np.float32)), {n: object() for n in ("_rg", "_fn", "_a")}
        for name, mark in marks.items():
            setattr(t, name, mark)
        fields = {name: _offset(t, mark) for name, mark in marks.items()}
        return Layout(_offset(types.CellType(t), t), _offset(_check_containers,
                                                             _check_containers.__code__),
                      fields, function(code.symbols["lampion_facts"], "facts", code))
    except (LookupError, KernelsUnavailable, BadObject, ImportError):
        return None


class Facts:
    """A table of facts, filled with what is so now.

    >>> settings = {"rate": 0.1}
    >>> facts = Facts()
    >>> facts.entries([settings], ["rate"])
    >>> holds = facts.close()
    >>> holds is None or holds() is None
    True
    >>> settings["rate"] = 0.2
    >>> holds is None or holds() is None
    False
    """

    def __init__(self) -> None:
        self.words: list[int] = []
        self.rows: list[int] = []  # of entries
        self.lists: list[int] = []
        self.dicts: list[int] = []
        self.alive: list[Any] = []  # all that the table points to

    def _word(self, obj: Any, offset: int, value: int) -> None:
        self.alive.append(obj)
        self.words += [id(obj) + offset, value]

    def classes(self, objects: Iterable[Any]) -> None:
        """Objects are of the class they are of."""
        for obj in objects:
            self.alive.append(type(obj))
            self._word(obj, _HEAD - _WORD, id(type(obj)))

    def empty(self, tables: Iterable[dict[Any, Any]]) -> None:
        """Dicts hold nothing."""
        for table in tables:
            self._word(table, _HEAD, len(table))

    def fields(self, tensors: Iterable[Tensor], name: str) -> None:
        """Tensors have the same `_rg`, `_fn` or `_a`."""
        found = layout()
        for t in tensors if found is not None else ():
            value = getattr(t, name)
            self.alive.append(value)
            self._word(t, found.fields[name], id(value))  # type: ignore[union-attr]

    def cells(self, cells: Iterable[Any]) -> None:
        """Cells hold the same object."""
        found = layout()
        for cell in cells if found is not None else ():
            value = cell.cell_contents
            self.alive.append(value)
            self._word(cell, found.cell, id(value))  # type: ignore[union-attr]

    def codes(self, functions: Iterable[Any]) -> None:
        """Functions run the same code."""
        found = layout()
        for f in functions if found is not None else ():
            self.alive.append(f.__code__)
            self._word(f, found.code, id(f.__code__))  # type: ignore[union-attr]

    def entries(self, tables: Sequence[dict[Any, Any]], keys: Sequence[Any]) -> None:
        """`table[key]` is the same object, or still absent."""
        for table, key in zip(tables, keys, strict=True):
            there = dict.__contains__(table, key)
            value = dict.get(table, key)
            self.alive += [table, key, value]
            self.rows += [id(table), id(key), hash(key), id(value) if there else 0]

    def contents(self, containers: Iterable[Any]) -> None:
        """Lists and dicts hold the same objects in the same order."""
        for container in containers:
            is_list = container.__class__ is list
            items = list(container) if is_list else [x for pair in container.items() for x in pair]
            noted = np.array([id(x) for x in items], np.int64)
            self.alive += [container, items, noted]
            (self.lists if is_list else self.dicts).extend(
                (id(container), len(container), noted.ctypes.data))

    def close(self) -> Callable[[], Any] | None:
        """A function that gives None while all of it is so; None where there is no native code."""
        found = layout()
        if found is None:
            return None
        parts = [np.array(p, np.int64) for p in (self.words, self.rows, self.lists, self.dicts)]
        widths = (2, 4, 3, 3)
        table = np.array([x for p, w in zip(parts, widths, strict=True)
                          for x in (len(p) // w, p.ctypes.data)], np.int64)
        self.alive += [parts, table]
        holds = functools.partial(found.holds, table)
        holds.__dict__["alive"] = self.alive
        return holds
