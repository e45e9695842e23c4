"""Kernels that follow indices, scans, topk and pooling beside PyTorch in one run.

    python benchmarks/indexing.py [--threads N] [--rounds N] [--only TEXT]

float32 and int64 indices. GB/s count every element of inputs and outputs once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from interleaved import Case, main

TABLES = [(50257, 768, 2048), (65, 384, 2048), (10000, 64, 65536), (30000, 16, 100000)]
MATRICES = [(1000, 1000), (64, 50000), (50000, 64)]
PLANES = [((8, 64, 112, 112), 3, 2, 1), ((64, 6, 28, 28), 2, 2, 0), ((32, 64, 32, 32), 2, 2, 0)]


def cases(torch: Any) -> Iterator[Case]:
    yield from rows(torch)
    for shape in MATRICES:
        for axis in (0, 1):
            yield from elements(torch, shape, axis)
            yield from scans(torch, shape, axis)
    yield from pools(torch)


def case(name: str, arrays: list[np.ndarray], ours: Callable[[], Any], theirs: Any) -> Case:
    runs = {"lampion": ours} if theirs is None else {"lampion": ours, "torch": theirs}
    return name, sum(a.nbytes for a in arrays), runs


def empty(shape: tuple[int, ...]) -> np.ndarray:
    from lampion.runtime import memory

    return memory.empty(shape, np.dtype(np.float32))


def normal(shape: tuple[int, ...]) -> np.ndarray:
    out = empty(shape)
    out[...] = np.random.default_rng(0).standard_normal(shape, np.float32)
    return out


def tensors(torch: Any, *arrays: np.ndarray) -> list[Any]:
    return [None] * len(arrays) if torch is None else [torch.from_numpy(a) for a in arrays]


def rows(torch: Any) -> Iterator[Case]:
    """Lookups in a table and their gradients."""
    from lampion.codegen.gather import add_rows, sum_rows, take

    for size, width, count in TABLES:
        table, source, out = normal((size, width)), normal((count, width)), empty((count, width))
        index = np.random.default_rng(1).integers(0, size, count)
        t, s, o, i = tensors(torch, table, source, out, index)

        def gradient(shape: tuple[int, int] = (size, width), index: Any = index,
                     source: Any = source) -> None:
            sum_rows(empty(shape), index, source, 0)
        at = f"{size}x{width}, {count}"
        yield case(f"index_select {at}", [out, out, index],
                   lambda a=(table, index): take(*a, 0),
                   torch and (lambda a=(t, 0, i), o=o: torch.index_select(*a, out=o)))
        yield case(f"embedding backward {at}", [table, source, index], gradient,
                   torch and (lambda a=(s, i, size): torch.ops.aten.embedding_dense_backward(
                       *a, -1, False)))
        yield case(f"index_add {at}", [source, source, source, index],
                   lambda a=(table, index, source): add_rows(*a, 0),
                   torch and (lambda t=t, a=(0, i, s): t.index_add_(*a)))


def elements(torch: Any, shape: tuple[int, int], axis: int) -> Iterator[Case]:
    from lampion.codegen.gather import add_along, take_along

    x, out, total = normal(shape), empty(shape), normal(shape)
    index = np.random.default_rng(1).integers(0, shape[axis], shape)
    t, o, s, i = tensors(torch, x, out, total, index)
    at = f"{shape[0]}x{shape[1]} axis {axis}"
    yield case(f"gather {at}", [x, out, index], lambda: take_along(x, index, axis),
               torch and (lambda: torch.gather(t, axis, i, out=o)))
    yield case(f"scatter_add {at}", [x, total, total, index],
               lambda: add_along(total, index, x, axis),
               torch and (lambda: s.scatter_add_(axis, i, t)))


def scans(torch: Any, shape: tuple[int, int], axis: int) -> Iterator[Case]:
    from lampion.codegen.scan import scan, topk

    x, out, places = normal(shape), empty(shape), np.empty(shape, np.int64)
    (t,) = tensors(torch, x)
    at = f"{shape[0]}x{shape[1]} axis {axis}"
    for name in ("cumsum", "cummax", "logcumsumexp"):
        more = [places] if name == "cummax" else []
        yield case(f"{name} {at}", [x, out, *more],
                   lambda a=(name, out, x, axis, *more): scan(*a),
                   torch and (lambda name=name: getattr(torch, name)(t, axis)))
    sizes = (10, shape[1]) if axis == 0 else (shape[0], 10)
    best, found = empty(sizes), np.empty(sizes, np.int64)
    yield case(f"topk 10 {at}", [x], lambda: topk(best, found, x, axis),
               torch and (lambda: torch.topk(t, 10, axis)))


def pools(torch: Any) -> Iterator[Case]:
    from lampion.codegen.pooling import max_pool2d, max_pool2d_backward

    for shape, size, stride, padding in PLANES:
        x = normal(shape)
        side = (shape[3] + 2 * padding - size) // stride + 1
        out, places = empty((*shape[:2], side, side)), np.empty((*shape[:2], side, side), np.int64)
        dx, window = empty(shape), [(n, n) for n in (size, stride, padding)]
        t, dout = tensors(torch, x, out)
        at = f"{'x'.join(map(str, shape))} {size}/{stride}"
        yield case(f"max_pool2d {at}", [x, out, places],
                   lambda a=(out, places, x, *window): max_pool2d(*a),
                   torch and (lambda a=(t, *window): torch.nn.functional.max_pool2d(
                       *a, return_indices=True)))
        if torch is not None:
            found = torch.nn.functional.max_pool2d(t, *window, return_indices=True)[1]
        yield case(f"max_pool2d backward {at}", [x, out, places],
                   lambda a=(dx, out, places): max_pool2d_backward(*a),
                   torch and (lambda g=dout, t=t, w=window, f=found:
                              torch.ops.aten.max_pool2d_with_indices_backward(
                                  g, t, *w, (1, 1), False, f)))


if __name__ == "__main__":
    main(cases, "GB/s", __doc__)
