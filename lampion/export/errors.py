"""What can be wrong with an export, or with a file of one."""

from __future__ import annotations

__all__ = ["ExportError"]


class ExportError(RuntimeError):
    """A function that cannot be exported, a file that is no program, or arguments amiss."""
