"""`torch.functional`: another spelling of some functions of `torch`."""

from .ops.record import PUBLIC

_NAMES = ("atleast_1d", "atleast_2d", "atleast_3d", "block_diag", "broadcast_tensors",
          "cartesian_prod", "cdist", "chain_matmul", "einsum", "meshgrid", "norm", "split",
          "tensordot", "unique", "unique_consecutive")
globals().update({name: PUBLIC["torch"][name] for name in _NAMES})
__all__ = list(_NAMES)
