"""flex_attention against scaled_dot_product_attention."""

import pytest

import lampion as torch
from lampion.nn.attention import SDPBackend, sdpa_kernel
from lampion.nn.attention.flex_attention import (
    and_masks,
    create_block_mask,
    create_mask,
    flex_attention,
)

SDPA = torch.nn.functional.scaled_dot_product_attention


def _causal(b, h, q, kv):
    return q >= kv


def _near(b, h, q, kv):
    return (q - kv).abs() < 3


def _tensors(heads=2):
    torch.manual_seed(0)
    return torch.randn(2, 2, 6, 4), *(torch.randn(2, heads, 6, 4) for _ in range(2))


def test_masks_are_those_of_sdpa():
    q, k, v = _tensors()
    block = create_block_mask(_causal, None, None, 6, 6)
    assert torch.allclose(flex_attention(q, k, v, block_mask=block),
                          SDPA(q, k, v, is_causal=True), atol=1e-6)
    both = and_masks(_causal, _near)
    found = flex_attention(q, k, v, block_mask=create_block_mask(both, None, None, 6, 6))
    mask = create_mask(both, None, None, 6, 6)
    assert torch.allclose(found, SDPA(q, k, v, attn_mask=mask), atol=1e-6)


def test_scores_can_be_changed_per_head():
    q, k, v = _tensors()
    slopes = torch.tensor([0.5, 0.25])
    found = flex_attention(q, k, v, lambda s, b, h, i, j: s - slopes[h] * (i - j).abs())
    distance = (torch.arange(6)[:, None] - torch.arange(6)).abs()
    bias = -slopes.view(1, 2, 1, 1) * distance
    assert torch.allclose(found, SDPA(q, k, v, attn_mask=bias), atol=1e-6)


def test_grouped_heads_must_be_asked_for():
    q, k, v = _tensors(heads=1)
    with pytest.raises(ValueError, match="enable_gqa=True"):
        flex_attention(q, k, v)
    assert torch.allclose(flex_attention(q, k, v, enable_gqa=True),
                          SDPA(q, k, v, enable_gqa=True), atol=1e-6)


def test_a_backend_can_be_named():
    q, k, v = _tensors()
    with sdpa_kernel([SDPBackend.MATH, SDPBackend.FLASH_ATTENTION]):
        assert torch.equal(SDPA(q, k, v), SDPA(q, k, v))
    with pytest.raises(AssertionError, match="Backend must be an instance of SDPBackend"), \
            sdpa_kernel([]):
        pass
