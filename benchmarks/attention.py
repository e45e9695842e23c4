"""Attention beside PyTorch in one run: forward, and forward with backward.

    python benchmarks/attention.py [--threads N] [--rounds N] [--only TEXT]

float32. Operations count the products of both passes, half of them where attention is causal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from interleaved import Case, main

# batch, heads, heads of keys, queries, keys, size, causal
SHAPES = [(8, 6, 6, 256, 256, 64, True), (1, 12, 12, 2048, 2048, 64, True),
          (8, 6, 6, 256, 256, 64, False), (32, 3, 3, 65, 65, 64, False),
          (4, 8, 8, 197, 197, 48, False), (2, 16, 4, 512, 512, 64, True),
          (1, 8, 8, 1024, 1024, 128, True), (1, 12, 12, 16, 1024, 64, False)]


def cases(torch: Any) -> Iterator[Case]:
    for shape in SHAPES:
        batch, heads, _, queries, keys, size, causal = shape
        work = 4 * batch * heads * queries * keys * size // (2 if causal else 1)
        name = f"{shape[:6]}{' causal' if causal else ''}"
        forward, both = ours(shape)
        runs: list[dict[str, Callable[[], Any]]] = [{"lampion": forward}, {"lampion": both}]
        if torch is not None:
            for run, fn in zip(runs, theirs(torch, shape), strict=True):
                run["torch"] = fn
        yield name, work, runs[0]
        yield name + " + backward", work * 7 // 2, runs[1]


def arrays(shape: tuple[Any, ...]) -> list[np.ndarray]:
    batch, heads, shared, queries, keys, size, _ = shape
    rng = np.random.default_rng(0)
    return [rng.standard_normal((batch, h, n, size), np.float32)
            for h, n in ((heads, queries), (shared, keys), (shared, keys), (heads, queries))]


def ours(shape: tuple[Any, ...]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    from lampion.codegen.attention import attention_backward, attention_forward

    q, k, v, dout = arrays(shape)
    out, lse = np.empty_like(q), np.empty(q.shape[:3], q.dtype)
    gradients = [np.empty_like(a) for a in (q, k, v)]

    def forward() -> None:
        attention_forward(out, lse, q, k, v, None, shape[6])

    def both() -> None:
        forward()
        attention_backward(*gradients, dout, out, lse, q, k, v, None, shape[6])
    return forward, both


def theirs(torch: Any, shape: tuple[Any, ...]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    q, k, v, dout = map(torch.from_numpy, arrays(shape))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    attend = torch.nn.functional.scaled_dot_product_attention

    def forward() -> None:
        with torch.no_grad():
            attend(q, k, v, is_causal=shape[6], enable_gqa=shape[1] != shape[2])

    def both() -> None:
        out = attend(q, k, v, is_causal=shape[6], enable_gqa=shape[1] != shape[2])
        torch.autograd.grad(out, inputs, dout)
    return forward, both


if __name__ == "__main__":
    main(cases, "GFLOP/s", __doc__)
