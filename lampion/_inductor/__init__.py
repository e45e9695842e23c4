"""The names of `torch._inductor` that programs touch."""

from ..compiler import cudagraph_mark_step_begin
from . import config

__all__ = ["config", "cudagraph_mark_step_begin"]
