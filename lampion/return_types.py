"""`torch.return_types`: the named tuples that operators return."""

from .ops.results import RETURN_TYPES

globals().update(RETURN_TYPES)
__all__ = list(RETURN_TYPES)
