"""SummaryWriter: files that TensorBoard reads."""

from .writer import SummaryWriter

__all__ = ["SummaryWriter"]
