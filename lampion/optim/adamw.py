"""AdamW under the name of its own file."""

from .adam import AdamW

__all__ = ["AdamW"]
