"""Named results: `torch.return_types.max` and so on."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

__all__ = ["RETURN_TYPES", "result_tuple"]

RETURN_TYPES: dict[str, Any] = {}


def result_tuple(name: str, fields: str) -> Any:
    """The named tuple type of an operator with several results; printed as PyTorch prints it."""
    base: Any = namedtuple(name, fields)  # type: ignore[misc]

    def show(self: Any) -> str:
        parts = ",\n".join(f"{f}={v!r}" for f, v in zip(self._fields, self, strict=True))
        return f"torch.return_types.{name}(\n{parts})"
    made = type(name, (base,), {"__slots__": (), "__repr__": show,
                                "__module__": "torch.return_types"})
    RETURN_TYPES[name] = made
    return made
