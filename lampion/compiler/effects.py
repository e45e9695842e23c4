"""Changes of objects from outside: made after every run, with what the program gave.

While a function is captured, what it assigns to attributes, items, globals and variables around it
is assigned for real, so that it is there when it is read again, and taken back at the end. What it
appends to lists is noted only: nothing may look at them any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .guards import MISSING
from .kinds import class_dict

__all__ = ["LOGGED", "CellPlace", "ClassPlace", "Effects", "EntryPlace", "Place"]

# Methods of containers that change them, give nothing, and need not know what is in them.
LOGGED = {"append", "extend", "appendleft", "add", "clear", "insert"}


class Place:
    """Something that can be assigned to."""

    key: tuple[int, Any]
    label: str

    def get(self) -> Any:
        """What is there; MISSING where nothing is."""
        raise NotImplementedError

    def set(self, value: Any) -> None:
        """Puts it there."""
        raise NotImplementedError

    def remove(self) -> None:
        """Leaves nothing there."""
        raise NotImplementedError

    def put(self, value: Any) -> None:
        """Puts back what `get` gave."""
        if value is not MISSING:
            self.set(value)
        elif self.get() is not MISSING:
            self.remove()


class EntryPlace(Place):
    """An entry of a dict: an item, an attribute, a global."""

    def __init__(self, table: dict[Any, Any], name: Any, label: str) -> None:
        self.table, self.name, self.label = table, name, label
        self.key = id(table), name

    def get(self) -> Any:
        return dict.get(self.table, self.name, MISSING)

    def set(self, value: Any) -> None:
        self.table[self.name] = value

    def remove(self) -> None:
        del self.table[self.name]


class ClassPlace(Place):
    """An attribute of a class."""

    def __init__(self, cls: type, name: str) -> None:
        self.cls, self.name, self.label = cls, name, f"{cls.__name__}.{name}"
        self.key = id(class_dict(cls)), name

    def get(self) -> Any:
        return self.cls.__dict__.get(self.name, MISSING)

    def set(self, value: Any) -> None:
        type.__setattr__(self.cls, self.name, value)

    def remove(self) -> None:
        type.__delattr__(self.cls, self.name)


class CellPlace(Place):
    """A variable of a function around."""

    def __init__(self, cell: Any, name: str) -> None:
        self.cell, self.label = cell, name
        self.key = id(cell), None

    def get(self) -> Any:
        try:
            return self.cell.cell_contents
        except ValueError:
            return MISSING

    def set(self, value: Any) -> None:
        self.cell.cell_contents = value

    def remove(self) -> None:
        del self.cell.cell_contents


class Effects:
    """Those of one capture, and of its runs.

    apply: what is done with each of `values` after a run, in order.
    """

    def __init__(self) -> None:
        self.places: dict[Any, tuple[Place, Any]] = {}  # with what was there
        self.logged: dict[int, Any] = {}  # containers
        self.log: list[tuple[Any, str, tuple[Any, ...]]] = []
        self.values: list[Any] = []
        self.apply: list[Callable[[Any], Any]] = []

    def before(self, place: Place) -> None:
        """Before something is assigned there."""
        if place.key not in self.places:
            self.places[place.key] = place, place.get()

    def note(self, container: Any, name: str, args: tuple[Any, ...]) -> None:
        """`container.name(*args)`, which is not done."""
        self.logged[id(container)] = container
        self.log.append((container, name, args))

    def later(self, action: Callable[[Any], Any], value: Any) -> None:
        """`action(value)` after a run."""
        self.apply.append(action)
        self.values.append(value)

    def close(self) -> None:
        """Takes back what was assigned, and keeps it for the runs."""
        for place, original in self.places.values():
            value = place.get()
            if value is MISSING and original is not MISSING:
                raise LookupError(place.label)
            if value is not MISSING:
                self.later(place.set, value)
        for container, name, args in self.log:
            self.later(_Call(container, name), args)
        self.restore()

    def restore(self) -> None:
        """Makes all as it was."""
        for place, original in self.places.values():
            place.put(original)
        self.places = {}

    def release(self) -> None:
        """The capture is over: lets go of what it recorded."""
        self.values, self.log = [], []

    def saved(self) -> Callable[[], None]:
        """What makes all that runs change as it is now."""
        owners = [getattr(a, "__self__", None) for a in self.apply]
        places = [(place, place.get()) for place in owners if isinstance(place, Place)]
        contents = [(c, c.copy()) for c in self.logged.values()]

        def back() -> None:
            for place, value in places:
                place.put(value)
            for container, was in contents:
                container.clear()
                (container.update if hasattr(container, "update") else container.extend)(was)
        return back


class _Call:
    """A method of a container, called with a tuple of arguments."""

    def __init__(self, container: Any, name: str) -> None:
        self.container, self.name = container, name

    def __call__(self, args: tuple[Any, ...]) -> None:
        getattr(self.container, self.name)(*args)
