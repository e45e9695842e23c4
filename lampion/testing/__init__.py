"""What tests of tensor programs need: comparing with tolerances, making random tensors."""

from ._comparison import assert_allclose, assert_close
from ._creation import make_tensor

__all__ = ["assert_allclose", "assert_close", "make_tensor"]
