"""What a capture saw of Python's state, and whether it is still so."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter, is_
from typing import Any

from .quick import Facts

__all__ = ["MISSING", "Guards"]

MISSING = object()
_MOST_TABLES = 16  # what changes so often is looked at in Python
_PLAIN = (int, float, str, bool, complex, bytes, type(None))


class Guards:
    """Facts about mutable objects: entries of dicts, contents of containers, cells, and others.

    Each is noted as it was first seen. `hold` is cheap while nothing changes: facts are compared by
    identity in one native call, or in sweeps in C; what is not the same object is looked at closer.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[int, Any], tuple[dict[Any, Any], Any, Any, str]] = {}
        self._contents: dict[int, tuple[Any, tuple[Any, ...], str]] = {}
        self._cells: dict[int, tuple[Any, Any, str]] = {}
        self._kinds: dict[int, tuple[Any, type]] = {}
        self._codes: dict[int, tuple[Any, Any]] = {}
        self._others: dict[Any, tuple[Callable[[], Any], Any, str]] = {}
        self.own: set[tuple[int, Any]] = set()  # entries and cells that the function has set
        self._quick: Callable[[], Any] | None = None  # gives None while most of it is so
        self._tables_made = 0

    def entry(self, table: dict[Any, Any], key: Any, value: Any, text: str) -> None:
        """`table[key]` is `value`."""
        if (id(table), key) not in self.own:
            self._entries.setdefault((id(table), key), (table, key, value, text))

    def absent(self, table: dict[Any, Any], key: Any, text: str) -> None:
        """`table` has no such key."""
        self.entry(table, key, MISSING, text)

    def knows(self, table: dict[Any, Any], key: Any) -> bool:
        """Whether something was noted of `table[key]`."""
        return (id(table), key) in self._entries

    def contents(self, container: Any, text: str) -> None:
        """A list, dict or set holds what it holds now."""
        if id(container) not in self._contents:
            self._contents[id(container)] = container, _listed(container), text

    def looks_through(self, container: Any) -> bool:
        """Whether something was noted of all that a container holds."""
        return id(container) in self._contents

    def looks_at_size(self, container: Any) -> bool:
        """Whether something was noted of how much it holds."""
        return any((id(container), what) in self._others for what in ("any", "len"))

    def objects(self) -> set[int]:
        """The ids of all objects that facts name."""
        found = {id(e[2]) for e in self._entries.values()}
        found.update(id(c[1]) for c in self._cells.values())
        for container, was, _ in self._contents.values():
            found.update((id(container), *map(id, was)))
        return found

    def cell(self, cell: Any, text: str) -> None:
        """A variable around a function is what it is now."""
        if id(cell) not in self._cells and (id(cell), None) not in self.own:
            self._cells[id(cell)] = cell, _held(cell), text

    def kind(self, obj: Any) -> None:
        """An object is of the class that it is of now."""
        self._kinds.setdefault(id(obj), (obj, type(obj)))

    def code(self, function: Any) -> None:
        """A function runs the code that it runs now."""
        self._codes.setdefault(id(function), (function, function.__code__))

    def other(self, key: Any, read: Callable[[], Any], text: str) -> None:
        """`read()` gives what it gives now."""
        if key not in self._others:
            self._others[key] = read, read(), text

    def close(self) -> None:
        """No more facts come: puts those of one kind side by side."""
        tables = [e[0] for e in self._entries.values()]
        self._bare = list({id(t): t for t in tables if not t}.values())
        self._line_up()
        self._empty = [c for c, was, _ in self._contents.values() if not was]
        full = [(c, was) for c, was, _ in self._contents.values() if was]
        self._dicts = [(c, was[::2], was[1::2]) for c, was in full if c.__class__ is dict]
        self._full = [(c, was) for c, was in full if c.__class__ is not dict]
        bound = [c for c in self._cells.values() if c[1] is not MISSING]
        self._objects, self._classes = _columns(self._kinds.values())
        self._functions, self._texts = _columns(self._codes.values())
        self._bound, self._held = [c[0] for c in bound], [c[1] for c in bound]
        self._slow = bool(self._others) or not all(isinstance(c, dict) for c in self._empty) or any(
            c.__class__ is not list for c, _ in self._full)

    def _line_up(self) -> None:
        """Puts the entries side by side; tables that hold nothing at all are no entries."""
        bare = set(map(id, self._bare))
        entries = [e for e in self._entries.values() if id(e[0]) not in bare]
        self._lined = ([e[0] for e in entries], [e[1] for e in entries], [e[2] for e in entries],
                       [MISSING] * len(entries), [e[3] for e in entries])

    def hold(self) -> bool:
        """Whether all is as it was."""
        if self._quick is not None and self._quick() is None and (
                not self._slow or self._rest_holds()):
            return True
        try:
            found = self._hold()
            if found and self._tables_made < _MOST_TABLES:
                self._note()
            return found
        except ValueError:  # a variable that was deleted
            return False

    def _note(self) -> None:
        """What is so now becomes a table for the next calls."""
        self._tables_made += 1
        facts, (tables, keys, *_) = Facts(), self._lined
        facts.entries(tables, keys)
        facts.empty([*self._bare, *(c for c in self._empty if isinstance(c, dict))])
        facts.classes(self._objects)
        facts.codes(self._functions)
        facts.cells(self._bound)
        facts.contents([d for d, *_ in self._dicts])
        facts.contents([c for c, _ in self._full if c.__class__ is list])
        made = facts.close()
        self._quick = made if self._hold() else None  # nothing changed meanwhile

    def _rest_holds(self) -> bool:
        """Facts that no table holds."""
        return not any(c for c in self._empty if not isinstance(c, dict)) and all(
            len(c) == len(was) and _all_same(_listed(c), was) for c, was in self._full
            if c.__class__ is not list) and self._others_hold()

    def _others_hold(self) -> bool:
        return all(_same(read(), was) for read, was, _ in self._others.values())

    def _hold(self) -> bool:
        if any(self._empty):
            return False
        if any(self._bare):
            self._fill()
        tables, keys, values, missing, _ = self._lined
        if not all(map(is_, map(dict.get, tables, keys, missing), values)) and (
                self._changed_entry() is not None):
            return False
        if not (all(map(is_, map(type, self._objects), self._classes))
                and all(map(is_, map(_CODE, self._functions), self._texts))):
            return False
        if self._bound and not _all_same(list(map(_CONTENTS, self._bound)), self._held):
            return False
        return self._contents_hold() and (not self._others or self._others_hold())

    def _contents_hold(self) -> bool:
        for table, keys, values in self._dicts:
            if len(table) != len(keys) or not _all_same(table, keys) or not _all_same(
                    table.values(), values):
                return False
        for container, was in self._full:
            now = container if container.__class__ is list else _listed(container)
            if len(now) != len(was) or not _all_same(now, was):
                return False
        return True

    def _fill(self) -> None:
        """Tables that held nothing hold something now: from now on their entries are compared."""
        self._bare = [t for t in self._bare if not t]
        self._line_up()

    def _changed_entry(self) -> str | None:
        tables, keys, values, _, labels = self._lined
        for i, (table, key, value) in enumerate(zip(tables, keys, values, strict=True)):
            now = dict.get(table, key, MISSING)
            if not _same(now, value):
                return f"{labels[i]} was {_short(value)}, is {_short(now)}"
            values[i] = now  # equal, and the same object from now on
        return None

    def changed_numbers(self) -> list[tuple[int, Any]]:
        """Entries and cells that hold a number of the same kind, but another: (id, key)."""
        cells = [(place, _held(cell), was) for place, (cell, was, _) in self._cells.items()]
        return [place for place, (table, key, was, _) in self._entries.items()
                if _is_other_number(dict.get(table, key), was)] + [
                    (place, None) for place, now, was in cells if _is_other_number(now, was)]

    def change(self) -> str | None:
        """The first fact that no longer holds, with its old and new value."""
        self._fill()
        found = self._changed_entry()
        if found is not None:
            return found
        for container, was, text in self._contents.values():
            now = _listed(container)
            if len(now) != len(was) or not all(map(_same, now, was)):
                return f"the contents of {text} were {_short(was)}, are {_short(now)}"
        cells = [(_held(c), was, text) for c, was, text in self._cells.values()]
        others = [(read(), was, text) for read, was, text in self._others.values()]
        for now, was, text in cells + others:
            if not _same(now, was):
                return f"{text} was {_short(was)}, is {_short(now)}"
        for obj, kind in self._kinds.values():
            if type(obj) is not kind:
                return f"an object was a {kind.__name__}, is a {type(obj).__name__}"
        for f, code in self._codes.values():
            if f.__code__ is not code:
                return f"{f.__qualname__} was given other code"
        return None


_CODE = attrgetter("__code__")
_CONTENTS = attrgetter("cell_contents")


def _columns(pairs: Iterable[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    rows = list(pairs)
    return [a for a, _ in rows], [b for _, b in rows]


def _held(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def _listed(container: Any) -> tuple[Any, ...]:
    if isinstance(container, dict):
        return tuple(x for pair in container.items() for x in pair)
    return tuple(sorted(container, key=id) if isinstance(container, (set, frozenset))
                 else container)


def _is_other_number(now: Any, was: Any) -> bool:
    return was.__class__ in (int, float) and now.__class__ is was.__class__ and not _same(now, was)


def _same(now: Any, was: Any) -> bool:
    """The same object, or plain values that nobody can tell apart."""
    if now is was:
        return True
    if now.__class__ is not was.__class__:
        return False
    if now.__class__ is float:
        return bool(now == was or (now != now and was != was)) and str(now) == str(was)
    if now.__class__ is tuple:
        return len(now) == len(was) and all(map(_same, now, was))
    return isinstance(now, _PLAIN) and bool(now == was)


def _all_same(now: Iterable[Any], was: Iterable[Any]) -> bool:
    """Whether two sweeps of equal length meet the same."""
    return all(map(is_, now, was)) or all(map(_same, now, was))


def _short(value: Any) -> str:
    if value is MISSING:
        return "absent"
    text = repr(value) if isinstance(value, (*_PLAIN, tuple)) else (
        f"a {type(value).__name__}")
    return text if len(text) <= 60 else text[:57] + "..."
