"""Nested arguments and results as plain data: tuples, lists, dicts, tensors and plain values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..tensor import Tensor
from .errors import ExportError

__all__ = ["flattened", "rebuilt", "well_formed"]

Structure = dict[str, Any]


def flattened(value: Any, found: list[Tensor], what: str) -> Structure:
    """The structure of a value, whose tensors are appended to `found`."""
    if isinstance(value, Tensor):
        found.append(value)
        return {"tensor": len(found) - 1}
    if value is None or isinstance(value, (bool, int, str)):
        return {"value": value}
    if isinstance(value, float):
        return {"float": repr(value)}
    if type(value) is dict and all(isinstance(k, str) for k in value):
        return {"dict": [[k, flattened(v, found, what)] for k, v in value.items()]}
    if type(value) in (tuple, list):
        return {type(value).__name__: [flattened(v, found, what) for v in value]}
    raise ExportError(f"{what} of a program are tensors, plain values, and tuples, lists and dicts "
                      f"of them, received {type(value).__name__}")


def rebuilt(structure: Structure, tensors: Sequence[Tensor]) -> Any:
    """A value of the structure around these tensors."""
    (kind, what), = structure.items()
    if kind == "tensor":
        return tensors[what]
    if kind == "value":
        return what
    if kind == "float":
        return float(what)
    if kind == "dict":
        return {k: rebuilt(v, tensors) for k, v in what}
    parts = [rebuilt(v, tensors) for v in what]
    return tuple(parts) if kind == "tuple" else parts


def well_formed(structure: Any, count: int, depth: int = 0) -> bool:
    """Whether data from a file is a structure over `count` tensors."""
    if not isinstance(structure, dict) or len(structure) != 1 or depth > 32:
        return False
    (kind, what), = structure.items()
    if kind == "tensor":
        return type(what) is int and 0 <= what < count
    if kind == "value":
        return what is None or isinstance(what, (bool, int, str))
    if kind == "float":
        return isinstance(what, str) and _is_float(what)
    if kind == "dict":
        return isinstance(what, list) and all(
            isinstance(e, list) and len(e) == 2 and isinstance(e[0], str)
            and well_formed(e[1], count, depth + 1) for e in what)
    return kind in ("tuple", "list") and isinstance(what, list) and all(
        well_formed(v, count, depth + 1) for v in what)


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def places(structure: Structure) -> Iterator[tuple[Any, ...]]:
    """The way to each tensor: (index, key) of every step."""
    (kind, what), = structure.items()
    if kind == "tensor":
        yield ()
    elif kind in ("tuple", "list", "dict"):
        for i, part in enumerate(what):
            key, inner = part if kind == "dict" else (i, part)
            for rest in places(inner):
                yield ((i, key), *rest)
