"""Matrix products beside PyTorch in one run: squares, layers of GPT and ResNet, batches, few rows.

    python benchmarks/matmul.py [--threads N] [--rounds N] [--only TEXT] [--dtype D] [--json FILE]

float32, or what `--dtype` says; int8 into int32. Rounds of both are interleaved, the best of each
is quoted (the machine may be shared). `peak` is the share of multiply-adds of such operands that
this processor can do, measured in the same run; one of complex numbers counts as one.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

SQUARES = [(n, n, n) for n in (32, 64, 128, 256, 512, 1024, 2048)]
LAYERS = [(2048, 1536, 384), (2048, 384, 1536), (2048, 384, 384), (2048, 1152, 384),
          (2048, 65, 384), (512, 3072, 768), (512, 768, 3072), (64, 3072, 768), (256, 1024, 1024),
          (128, 10, 512)]
ROWS = [(m, 3072, 768) for m in (1, 2, 4, 8, 16, 32)] + [(1, 1024, 1024), (1, 384, 384)]
BATCHES = [(48, 256, 256, 64), (48, 256, 64, 256), (96, 64, 64, 32), (384, 16, 16, 64)]


def cases() -> list[tuple[str, tuple[int, ...], str]]:
    """Name, sizes and layout: `nn` as they are, `nt` with B transposed, `tn` with A transposed."""
    found = [(f"{m}x{k} @ {k}x{n}", (1, m, n, k), "nn") for m, n, k in SQUARES]
    for m, n, k in LAYERS + ROWS:
        found += [(f"linear {m}x{k} -> {n}", (1, m, n, k), "nt")]
    for m, n, k in LAYERS[:2]:
        found += [(f"its input gradient {m}x{n} -> {k}", (1, m, k, n), "nn"),
                  (f"its weight gradient {n}x{m}x{k}", (1, n, k, m), "tn")]
    found += [(f"rows {m}x{k} @ {k}x{n}", (1, m, n, k), "nn") for m, n, k in ROWS[:5]]
    for z, m, n, k in BATCHES:
        found += [(f"batch {z}x{m}x{n}x{k}", (z, m, n, k), "nt" if k < n else "nn")]
    return found


DTYPES = ("float32", "float64", "float16", "bfloat16", "complex64", "complex128", "int8", "uint8",
          "int16", "int32", "int64")


def random(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Normal numbers, or integers of a byte."""
    import ml_dtypes

    rng = np.random.default_rng(0)
    if "int" in dtype:
        return rng.integers(0, 128, shape).astype(dtype)
    x = rng.standard_normal(shape)
    if dtype.startswith("complex"):
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def operands(sizes: tuple[int, ...], layout: str, dtype: str
             ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """out, a and b; of a batch of one without the batch axis."""
    z, m, n, k = sizes
    a = random((z, k, m) if layout[0] == "t" else (z, m, k), dtype)
    b = random((z, n, k) if layout[1] == "t" else (z, k, n), dtype)
    a = a.swapaxes(1, 2) if layout[0] == "t" else a
    b = b.swapaxes(1, 2) if layout[1] == "t" else b
    out = np.empty((z, m, n), np.int32 if dtype == "int8" else a.dtype)
    return (out, a, b) if z > 1 else (out[0], a[0], b[0])


def seconds(fn: Callable[[], Any], at_least: float) -> float:
    """Of one call, over a time that the clock resolves."""
    count, start = 0, time.perf_counter()
    while True:
        fn()
        count += 1
        spent = time.perf_counter() - start
        if spent > at_least:
            return spent / count


def peak(threads: int, dtype: str) -> float:
    """Multiply-adds per second: a product that stays in the near caches, per thread."""
    from lampion.codegen.gemm import gemm

    sizes = 420, 64, 1024 // random((1,), dtype).itemsize
    out, a, b = operands((1, *sizes), "nn", dtype)
    gemm(out, a, b)
    return max(math.prod(sizes) / seconds(lambda: gemm(out, a, b), 0.02)
               for _ in range(20)) * threads


def tensor(torch: Any, array: np.ndarray) -> Any:
    """An array as PyTorch's tensor on the same memory."""
    if array.dtype.name != "bfloat16":
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)


def measure(case: tuple[str, tuple[int, ...], str], dtype: str, rounds: int, torch: Any
            ) -> dict[str, Any]:
    """Best seconds of both for one case."""
    from lampion.codegen.gemm import bmm, gemm

    name, sizes, layout = case
    out, a, b = operands(sizes, layout, dtype)
    ours = bmm if out.ndim == 3 else gemm
    runs: dict[str, Callable[[], Any]] = {"lampion": lambda: ours(out, a, b)}
    if torch is not None and (dtype != "int8" or out.ndim == 2):
        x, y, z = (tensor(torch, v) for v in (out, a, b))
        multiply = torch._int_mm if dtype == "int8" else torch.matmul
        runs["torch"] = lambda: multiply(y, z, out=x)
    best = dict.fromkeys(runs, math.inf)
    for fn in runs.values():
        fn()
    for _ in range(rounds):
        for key, fn in runs.items():
            best[key] = min(best[key], seconds(fn, 0.01))
    return {"name": name, "layout": layout, "work": math.prod(sizes), **best}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="")
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    from lampion.runtime.threads import set_num_threads

    set_num_threads(args.threads)
    try:
        import torch

        torch.set_num_threads(args.threads)
    except ImportError:
        torch = None
        print("PyTorch is not installed: lampion alone")
    top = peak(args.threads, args.dtype)
    print(f"{args.dtype}, peak of {args.threads} threads: {2e-9 * top:.0f} GFLOP/s")
    print(f"{'':36s}{'':4s}{'us':>10s}{'GFLOP/s':>9s}{'peak':>6s}{'torch':>9s}{'ratio':>7s}")
    rows = []
    for case in cases():
        if args.only in case[0]:
            rows.append(measure(case, args.dtype, args.rounds, torch))
            show(rows[-1], top)
    ratios = [r["torch"] / r["lampion"] for r in rows if "torch" in r]
    if ratios:
        print(f"geometric mean of the ratios: {math.exp(np.mean(np.log(ratios))):.2f}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


def show(row: dict[str, Any], top: float) -> None:
    """One line: time, speed, share of the peak, PyTorch's speed and how many times faster."""
    rate = row["work"] / row["lampion"]
    tail = (f"{2e-9 * row['work'] / row['torch']:9.1f}{row['torch'] / row['lampion']:7.2f}"
            if "torch" in row else "")
    print(f"{row['name']:36s}{row['layout']:4s}{row['lampion'] * 1e6:10.1f}{2e-9 * rate:9.1f}"
          f"{rate / top:6.0%}{tail}", flush=True)


if __name__ == "__main__":
    main()
