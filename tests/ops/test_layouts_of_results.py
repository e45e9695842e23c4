"""Results lie in memory the same way, whether a kernel or a reference makes them."""

from __future__ import annotations

import pytest

import lampion as torch
from lampion.debug.knobs import override

INPUTS = {
    "turned": lambda: torch.randn(65, 33).t(),
    "spread": lambda: torch.randn(128, 5).expand(13, 128, 5),
    "narrow spread": lambda: torch.randn(128, 5).bfloat16().expand(13, 128, 5),
    "channels last": lambda: torch.randn(5, 16, 9, 8).permute(0, 3, 1, 2),
    "reversed": lambda: torch.randn(17, 7, 31).permute(2, 1, 0),
}
PROGRAMS = {
    "clamp": lambda x: x.clamp(max=6.7), "sum": lambda x: x.sum(0), "exp": torch.exp,
    "amin": lambda x: x.amin(-1), "prod": lambda x: x.exp().prod(1, keepdim=True),
    "add bools": lambda x: x + torch.ones(1, dtype=torch.bool).expand(x.shape),
    "maximum": lambda x: torch.maximum(x.int(), torch.ones(x.shape, dtype=torch.int32)),
    "where": lambda x: torch.where(x > 0, x, torch.ones(x.shape)),
    "turned convolution": lambda x: torch.nn.functional.conv_transpose2d(
        torch.ones(2, 4, 16, 17), torch.ones(4, 3, 3, 3), padding=(2, 0)) * x.float().mean(),
    "indices": lambda x: x.index_select(0, torch.tensor([0, 1, 3])),
    "softmax": lambda x: x.softmax(0), "cat": lambda x: torch.cat([x, x], -1),
    "double": lambda x: x.double(), "repeated": lambda x: x.repeat_interleave(2, 1),
    "finite": lambda x: (x / 0).nan_to_num(), "remainder": lambda x: x % 0.3 + x // 0.7,
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("layout", INPUTS)
def test_kernels_and_references_agree_on_strides(layout, name):
    x = INPUTS[layout]()
    with override(kernels="off"):
        expected = PROGRAMS[name](x)
    with override(kernels="sync"):
        got = PROGRAMS[name](x)
    assert got.stride() == expected.stride()
    assert torch.allclose(got.double(), expected.double(), rtol=1e-2, atol=1e-5)
