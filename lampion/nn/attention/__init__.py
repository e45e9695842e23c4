"""Choosing how scaled dot-product attention is computed.

There is one implementation, so a choice changes nothing; it is accepted and remembered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

__all__ = ["SDPBackend", "sdpa_kernel"]


class SDPBackend(IntEnum):
    """The implementations that PyTorch names."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4


_chosen: list[SDPBackend] = [SDPBackend.MATH]


def _cur_sdpa_kernel_backends(with_priority: bool = False) -> list[SDPBackend]:
    return list(_chosen)


@contextmanager
def sdpa_kernel(backends: list[SDPBackend] | SDPBackend,
                set_priority: bool = False) -> Iterator[dict[str, object]]:
    """Within the block, prefer the named implementations; the results are the same.

    >>> import lampion as torch
    >>> from lampion.nn.attention import SDPBackend, sdpa_kernel
    >>> with sdpa_kernel(SDPBackend.MATH):
    ...     q = torch.ones(1, 2, 4)
    ...     out = torch.nn.functional.scaled_dot_product_attention(q, q, q)
    """
    listed = [backends] if isinstance(backends, SDPBackend) else list(backends)
    if not listed or not all(isinstance(b, SDPBackend) for b in listed):
        raise AssertionError(
            "Backend must be an instance of SDPBackend or a list of SDPBackend instances"
        )
    global _chosen
    before, _chosen = _chosen, listed
    try:
        yield {}
    finally:
        _chosen = before
