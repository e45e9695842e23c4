"""Pointwise chains, reductions, normalisation, indexing beside PyTorch in one run, float32.

    python benchmarks/kernels.py [--threads 1 2] [--sizes 16M 256K] [--rounds N] [--only TEXT]
                                 [--seconds S] [--json FILE]

Everything goes through the public functions of both frameworks, forward and backward each. Rounds
are interleaved; of each round the median call counts, of all rounds the least median, because the
machine may be shared. `ceiling` is the share of the bandwidth that this machine showed for the
bytes that the operation must read and write and for a working set of that size.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

UNITS = {"K": 1 << 10, "M": 1 << 20}


class Case(NamedTuple):
    """An operation: its arguments, and what it must read and write.

    inputs: for a number of elements, arrays of which the first `grads` require grad. Bytes are in
    units of the first array; None where backward has nothing to compute.
    """

    name: str
    inputs: Callable[[int], list[Any]]
    run: Callable[..., Any]
    forward: tuple[float, float]
    backward: tuple[float, float] | None = None
    grads: int = 1
    inner: float = 0.0  # bytes that are read and written on the way: operations of a chain


def normal(*shapes: tuple[int, ...]) -> Callable[..., list[Any]]:
    """Standard normal arrays; -1 in a shape is what makes the number of elements right."""
    def make(n: int) -> list[Any]:
        rng = np.random.default_rng(0)
        return [rng.standard_normal(_filled(s, n)).astype(np.float32) for s in shapes]
    return make


def _filled(shape: tuple[int, ...], n: int) -> tuple[int, ...]:
    rest = -math.prod(shape)
    return tuple(n // rest if s == -1 else s for s in shape)


def with_indices(shape: tuple[int, ...], high: int,
                 tail: tuple[tuple[int, ...], ...] = ()) -> Callable[..., list[Any]]:
    """A normal array, an index below `high` for every element, and more normal arrays."""
    def make(n: int) -> list[Any]:
        arrays = normal(shape, *tail)(n)
        index = np.random.default_rng(1).integers(0, high, arrays[0].shape)
        return [arrays[0], index, *arrays[1:]]
    return make


def with_rows(shape: tuple[int, ...], high: int = 0, axis: int = 0) -> Callable[..., list[Any]]:
    """A normal array and an index below `high` (0: the number of rows) for every row."""
    def make(n: int) -> list[Any]:
        array, = normal(shape)(n)
        rows = array.shape[axis]
        return [array, np.random.default_rng(1).integers(0, high or rows, rows)]
    return make


def cases(torch: Any) -> Iterator[Case]:
    """What is measured, for one framework."""
    f, row, rows = torch.nn.functional, (-1, 1024), normal((-1, 1024))
    flat = normal((-1,))
    for name in ("exp", "tanh"):
        yield Case(name, flat, getattr(torch, name), (1, 1), (2, 1))
    yield Case("gelu", flat, f.gelu, (1, 1), (2, 1))
    yield Case("add", normal((-1,), (-1,)), lambda a, b: a + b, (2, 1))
    yield Case("a * b + c", normal(*[(-1,)] * 3), lambda a, b, c: a * b + c, (3, 1), (3, 2),
               grads=2, inner=2)
    yield Case("sum", flat, lambda a: a.sum(), (1, 0))
    yield Case("sum rows", rows, lambda a: a.sum(1), (1, 0))
    yield Case("sum columns", rows, lambda a: a.sum(0), (1, 0))
    yield Case("max", flat, lambda a: a.max(), (1, 0), (1, 1))
    yield Case("max rows", rows, lambda a: a.max(1).values, (1, 0), (0, 1))
    yield Case("softmax", rows, lambda a: a.softmax(1), (1, 1), (2, 1))
    yield Case("log_softmax", rows, lambda a: a.log_softmax(1), (1, 1), (2, 1))
    yield Case("layer_norm", normal(row, (1024,), (1024,)),
               lambda a, w, b: f.layer_norm(a, (1024,), w, b), (1, 1), (2, 1), grads=3)
    yield Case("rms_norm", normal(row, (1024,)), lambda a, w: f.rms_norm(a, (1024,), w),
               (1, 1), (2, 1), grads=2)
    yield Case("batch_norm", normal((-1, 64, 16, 16), (64,), (64,)),
               lambda a, w, b: f.batch_norm(a, None, None, w, b, True), (1, 1), (2, 1), grads=3)
    yield Case("cross_entropy", with_rows(row, 1024), f.cross_entropy, (1, 0), (1, 1))
    yield from indexing(torch)


def indexing(torch: Any) -> Iterator[Case]:
    """Operations that move elements; an index is as large as two elements."""
    f = torch.nn.functional
    yield Case("embedding", with_rows((-1, 256)), lambda w, i: f.embedding(i, w), (1, 1), (1, 1))
    yield Case("gather", with_indices((-1, 1024), 1024),
               lambda a, i: a.gather(1, i), (3, 1), (3, 1))
    yield Case("gather rows", with_indices((-1, 1024), 64),
               lambda a, i: a.gather(0, i), (3, 1), (3, 1))
    yield Case("scatter_add", with_indices((-1, 1024), 1024, ((-1, 1024),)),
               lambda a, i, s: a.scatter_add(1, i, s), (4, 1))
    yield Case("index_select", with_rows((-1, 256)), lambda a, i: a.index_select(0, i),
               (1, 1), (1, 1))
    yield Case("index_select columns", with_rows((256, -1), axis=1),
               lambda a, i: a.index_select(1, i), (1, 1), (1, 1))
    yield Case("x[index]", with_rows((-1, 256)), lambda a, i: a[i], (1, 1), (1, 1))
    yield Case("cumsum", normal((-1, 1024)), lambda a: a.cumsum(1), (1, 1), (1, 1))
    yield Case("cumsum columns", normal((-1, 1024)), lambda a: a.cumsum(0), (1, 1), (1, 1))
    yield Case("cumprod", normal((-1, 1024)), lambda a: a.cumprod(1), (1, 1), (3, 1))
    yield Case("logcumsumexp", normal((-1, 1024)), lambda a: a.logcumsumexp(1), (1, 1), (3, 1))
    yield Case("sort", normal((-1, 1024)), lambda a: a.sort(1).values, (1, 3))
    yield Case("topk", normal((-1, 1024)), lambda a: a.topk(8, 1).values, (1, 0))


class Job(NamedTuple):
    """One direction of a case in one framework: a call, and the bytes it must move."""

    call: Callable[[], Any]
    read: float
    written: float


def jobs(case: Case, torch: Any, n: int) -> dict[str, Job]:
    """Forward and backward of a case for tensors of `n` elements."""
    arrays = case.inputs(n)
    unit = arrays[0].nbytes
    tensors = [torch.from_numpy(a) for a in arrays]

    def forward() -> Any:
        with torch.no_grad():
            return case.run(*tensors)
    read, written = (unit * x for x in case.forward)
    found = {"": Job(forward, read + unit * case.inner / 2, written + unit * case.inner / 2)}
    if case.backward is not None:
        leaves = [t.requires_grad_() for t in (torch.from_numpy(a) for a in arrays[:case.grads])]
        out = case.run(*leaves, *tensors[case.grads:])
        g = torch.from_numpy(np.random.default_rng(2).standard_normal(
            tuple(out.shape)).astype(np.float32))
        read, written = (unit * x for x in case.backward)
        found[" backward"] = Job(
            lambda: torch.autograd.grad(out, leaves, g, retain_graph=True), read, written)
    return found


def median_call(call: Callable[[], Any], seconds: float) -> float:
    """Seconds of the median call, over about so many seconds."""
    times, end = [], time.perf_counter() + seconds
    while not times or (time.perf_counter() < end and len(times) < 1000):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(pair: dict[str, Job], rounds: int, seconds: float) -> dict[str, float]:
    """The least median of the rounds, by framework."""
    best = dict.fromkeys(pair, math.inf)
    for job in pair.values():
        job.call()
    for _ in range(rounds):
        for name, job in pair.items():
            best[name] = min(best[name], median_call(job.call, seconds))
    return best


def run(args: argparse.Namespace, frameworks: dict[str, Any], threads: int,
        size: str) -> list[dict[str, Any]]:
    """One table."""
    from lampion.codegen.ceilings import ceilings

    for module in frameworks.values():
        module.set_num_threads(threads)
    limits = ceilings(threads)
    n = int(size[:-1]) * UNITS[size[-1].upper()] // 4
    print(f"\n{size}B, {threads} thread{'s' * (threads > 1)}, load {os.getloadavg()[0]:.1f}")
    print(f"{'':26s}{'lampion':>10s}{'torch':>10s}{'ratio':>7s}{'GB/s':>8s}{'ceiling':>9s}")
    rows = []
    for pair in zip(*(cases(module) for module in frameworks.values()), strict=True):
        if args.only not in pair[0].name:
            continue
        both = {name: jobs(case, module, n)
                for (name, module), case in zip(frameworks.items(), pair, strict=True)}
        for what, job in both["lampion"].items():
            times = measure({name: found[what] for name, found in both.items()}, args.rounds,
                            args.seconds)
            moved = job.read + job.written
            row = {"name": pair[0].name + what, "size": size, "threads": threads, **times,
                   "bandwidth": moved / times["lampion"],
                   "ceiling": limits.seconds(job.read, job.written) / times["lampion"]}
            rows.append(row)
            show(row)
    return rows


def show(row: dict[str, Any]) -> None:
    """One line: both times, how many times faster, bytes a second, share of the ceiling."""
    other = row.get("torch")
    tail = f"{other * 1e6:10.1f}{other / row['lampion']:7.2f}" if other else " " * 17
    good = other and (other / row["lampion"] >= 1.5 or row["ceiling"] >= 0.8)
    print(f"{row['name']:26s}{row['lampion'] * 1e6:10.1f}{tail}{row['bandwidth'] / 1e9:8.1f}"
          f"{row['ceiling']:9.0%}{'' if good else '  <'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sizes", nargs="+", default=["16M", "256K"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.02)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.environ.setdefault("LAMPION_KERNELS", "sync")
    import lampion

    frameworks: dict[str, Any] = {"lampion": lampion}
    try:
        import torch

        frameworks["torch"] = torch
    except ImportError:
        print("PyTorch is not installed: lampion alone")
    rows = [row for threads in args.threads for size in args.sizes
            for row in run(args, frameworks, threads, size)]
    ratios = [row["torch"] / row["lampion"] for row in rows if "torch" in row]
    if ratios:
        print(f"\ngeometric mean of the ratios: {statistics.geometric_mean(ratios):.2f}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
