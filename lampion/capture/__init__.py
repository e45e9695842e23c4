"""From running Python to a graph."""

from .program import Program, capture
from .recorder import CaptureError

__all__ = ["CaptureError", "Program", "capture"]
