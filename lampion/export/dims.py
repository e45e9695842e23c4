"""Which sizes of the arguments may vary, and over what range."""

from __future__ import annotations

from typing import Any

from .errors import ExportError

__all__ = ["Dim", "Range", "dims", "requested"]

Range = tuple[int, int | None]  # the smallest and the largest size


class _Hint:
    """`Dim.AUTO` and the like."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Dim.{self.name}"


class Dim:
    """A size that may vary, by name; dimensions with the same name are of the same size.

    >>> import lampion as torch
    >>> batch = torch.export.Dim("batch", max=64)
    >>> model, x = torch.nn.ReLU(), torch.ones(4, 3)
    >>> program = torch.export(model, (x,), dynamic_shapes={"input": {0: batch}})
    >>> program.range_constraints
    {'batch': (1, 64)}
    """

    AUTO, DYNAMIC, STATIC = _Hint("AUTO"), _Hint("DYNAMIC"), _Hint("STATIC")

    def __init__(self, name: str, *, min: int | None = None, max: int | None = None) -> None:
        if not isinstance(name, str) or not name.isidentifier() or not name.isascii():
            raise ValueError(f"Dim: a name as of a variable is wanted, received {name!r}")
        self.__name__, self.min, self.max = name, 1 if min is None else min, max
        if self.min < 0 or (max is not None and max < self.min):
            raise ValueError(f"Cannot create Dim {name} with inconsistent min={min}, max={max}")

    def __repr__(self) -> str:
        return f"Dim({self.__name__!r}, min={self.min}, max={self.max})"


def dims(*names: str, min: int | None = None, max: int | None = None) -> tuple[Dim, ...]:
    """Several sizes that may vary."""
    return tuple(Dim(name, min=min, max=max) for name in names)


class Requested:
    """What was asked for: for each tensor argument the names of its sizes, and their ranges."""

    def __init__(self, shapes: list[tuple[int, ...]]) -> None:
        self.axes: list[dict[int, str]] = [{} for _ in shapes]
        self.ranges: dict[str, Range] = {}
        self.examples: dict[str, int] = {}
        self.shapes = shapes

    def add(self, argument: int, dim: int, name: str, among: Range) -> None:
        """Lets a dimension vary."""
        shape = self.shapes[argument]
        if not -len(shape) <= dim < len(shape):
            raise ExportError(f"dynamic_shapes names dimension {dim} of a tensor of shape "
                              f"{list(shape)}")
        size = shape[dim]
        if self.examples.setdefault(name, size) != size:
            raise ExportError(f"Dim {name!r} stands for sizes {self.examples[name]} and {size}: "
                              "give them two names")
        self.axes[argument][dim % len(shape)] = name
        self.ranges[name] = among


def requested(dynamic_shapes: Any, places: list[tuple[Any, ...]],
              shapes: list[tuple[int, ...]]) -> Requested:
    """The dimensions that `dynamic_shapes` names; `places` are the paths of the tensors.

    None: the first dimension of all tensors that have the size of that of the first one.
    """
    found = Requested(shapes)
    if dynamic_shapes is None:
        first = next((s[0] for s in shapes if s), None)
        for i, shape in enumerate(shapes):
            if shape and shape[0] == first:
                found.add(i, 0, "batch", (1, None))
        return found
    if not isinstance(dynamic_shapes, (dict, tuple, list)):
        raise ExportError("dynamic_shapes is a dict by argument, or a tuple, as the arguments")
    for i, place in enumerate(places):
        for dim, wanted in _entries(dynamic_shapes, place):
            _add(found, i, dim, wanted)
    return found


def _entries(tree: Any, place: tuple[Any, ...]) -> list[tuple[int, Any]]:
    """What is said of one tensor: (dimension, what)."""
    for number, (index, name) in enumerate(place):
        if tree is None:
            return []
        if isinstance(tree, dict):
            tree = tree.get(name)
        elif isinstance(tree, (tuple, list)) and isinstance(index, int) and index < len(tree):
            tree = tree[index]
        else:
            raise ExportError(f"dynamic_shapes does not fit the arguments at {place[:number + 1]}")
    if tree is None:
        return []
    return list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree))


def _add(found: Requested, argument: int, dim: int, wanted: Any) -> None:
    if wanted is None or wanted is Dim.STATIC or isinstance(wanted, int):
        return
    if isinstance(wanted, Dim):
        found.add(argument, dim, wanted.__name__, (wanted.min, wanted.max))
    elif isinstance(wanted, str):
        found.add(argument, dim, Dim(wanted).__name__, (1, None))
    elif isinstance(wanted, _Hint):  # sizes that are equal in the example are the same
        size = found.shapes[argument][dim]
        found.add(argument, dim, f"s{size}", (1, None))
    else:
        raise ExportError(f"dynamic_shapes: {wanted!r} is no Dim, name or None")
