"""The graph level: what a captured program is, how it prints, what is legal, what it means."""

from .interpret import interpret
from .node import Graph, Node, Write
from .printer import to_text
from .spec import check

__all__ = ["Graph", "Node", "Write", "check", "interpret", "to_text"]
