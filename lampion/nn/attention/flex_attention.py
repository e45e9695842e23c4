"""Attention with user-written scores and masks.

The functions get broadcast index tensors instead of one index at a time, so they run once over
the whole score tensor; what they compute must be element by element, as in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ...tensor import Tensor

__all__ = ["BlockMask", "and_masks", "create_block_mask", "create_mask", "flex_attention",
           "noop_mask", "or_masks"]

Mask = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Score = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def noop_mask(batch: Tensor, head: Tensor, token_q: Tensor, token_kv: Tensor) -> Tensor:
    """Every query may attend to every key."""
    return batch >= 0


def and_masks(*mask_mods: Mask) -> Mask:
    """Attention where all of the masks allow it."""
    def combined(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        allowed = mask_mods[0](b, h, q, kv)
        for mask in mask_mods[1:]:
            allowed = allowed & mask(b, h, q, kv)
        return allowed

    return combined


def or_masks(*mask_mods: Mask) -> Mask:
    """Attention where any of the masks allows it."""
    def combined(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        allowed = mask_mods[0](b, h, q, kv)
        for mask in mask_mods[1:]:
            allowed = allowed | mask(b, h, q, kv)
        return allowed

    return combined


def _indices(shape: tuple[int, int, int, int]) -> list[Tensor]:
    """Batch, head, query and key indices, each along its own dimension."""
    from ... import ops

    found = []
    for dim, n in enumerate(shape):
        size = [1, 1, 1, 1]
        size[dim] = n
        found.append(ops.arange(n).view(size))  # type: ignore[attr-defined]
    return found


def create_mask(mod_fn: Mask, B: int | None, H: int | None, Q_LEN: int, KV_LEN: int,
                device: Any = None) -> Tensor:
    """The mask (B, H, Q_LEN, KV_LEN) that a function describes; None stands for 1."""
    shape = (B or 1, H or 1, Q_LEN, KV_LEN)
    return mod_fn(*_indices(shape)).expand(shape)


class BlockMask:
    """A mask given by a function; it is evaluated as a whole (nothing is skipped by blocks)."""

    def __init__(self, mask_mod: Mask, shape: tuple[int, int, int, int],
                 block_size: tuple[int, int]) -> None:
        self.mask_mod, self.shape, self.BLOCK_SIZE = mask_mod, shape, block_size
        self.seq_lengths = shape[2:]

    def to_dense(self) -> Tensor:
        """Which blocks have anything to attend to, as 0 and 1."""
        from .. import functional as F

        full = create_mask(self.mask_mod, *self.shape).float()
        blocks = F.max_pool2d(full, self.BLOCK_SIZE, ceil_mode=True)
        return blocks.int()

    def __repr__(self) -> str:
        return f"BlockMask(shape={self.shape})"


def create_block_mask(mask_mod: Mask, B: int | None, H: int | None, Q_LEN: int, KV_LEN: int,
                      device: Any = None, BLOCK_SIZE: int | tuple[int, int] = 128,
                      _compile: bool = False) -> BlockMask:
    """A mask for `flex_attention` from a function of (batch, head, query, key) indices."""
    block = (BLOCK_SIZE, BLOCK_SIZE) if isinstance(BLOCK_SIZE, int) else BLOCK_SIZE
    return BlockMask(mask_mod, (B or 1, H or 1, Q_LEN, KV_LEN), block)


def flex_attention(query: Tensor, key: Tensor, value: Tensor, score_mod: Score | None = None,
                   block_mask: BlockMask | None = None, scale: float | None = None,
                   enable_gqa: bool = False, return_lse: bool = False,
                   kernel_options: Any = None) -> Any:
    """Attention over (B, H, L, E) with `score_mod(score, b, h, q, kv)` and a block mask.

    With `return_lse` also the log of the sum of exponentials of the scores.

    >>> import lampion as torch
    >>> from lampion.nn.attention.flex_attention import flex_attention
    >>> q = torch.ones(1, 1, 3, 4)
    >>> flex_attention(q, q, q, lambda s, b, h, i, j: torch.where(i >= j, s, -1e9)).shape
    torch.Size([1, 1, 3, 4])
    """
    for name, t in (("query", query), ("key", key), ("value", value)):
        if t.ndim != 4:
            raise ValueError(f"flex_attention(): {name} must be 4-D, received {list(t.shape)}")
    if query.shape[1] != key.shape[1]:
        if not enable_gqa:
            raise ValueError(
                f"Expect query and key/value to have the same number of heads but got "
                f"Hq={query.shape[1]} and Hkv={key.shape[1]}. Try setting enable_gqa=True for GQA."
            )
        repeats = query.shape[1] // key.shape[1]
        key, value = (t.repeat_interleave(repeats, 1) for t in (key, value))
    scores = _scores(query, key, score_mod, block_mask, scale)
    blank = (scores == -math.inf).all(-1, keepdim=True)
    out = scores.softmax(-1).masked_fill(blank, 0) @ value
    return (out, scores.logsumexp(-1)) if return_lse else out


def _scores(query: Tensor, key: Tensor, score_mod: Score | None, block_mask: BlockMask | None,
            scale: float | None) -> Tensor:
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query @ key.transpose(-2, -1)) * factor
    indices = _indices(tuple(scores.shape))  # type: ignore[arg-type]
    if score_mod is not None:
        scores = score_mod(scores, *indices)
    if block_mask is not None:
        scores = scores.masked_fill(~block_mask.mask_mod(*indices), -math.inf)
    return scores
