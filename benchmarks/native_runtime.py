"""What the native runtime costs: launches, the thread pool, memory, objects; PyTorch beside it.

    python benchmarks/native_runtime.py [--seconds S]

Best of interleaved repetitions, in microseconds. PyTorch appears where it has the same thing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from lampion.codegen import allocator, service  # noqa: E402
from lampion.codegen.compile import compile_object  # noqa: E402
from lampion.codegen.emit import emit  # noqa: E402
from lampion.codegen.ir import Kernel  # noqa: E402
from lampion.codegen.target import host  # noqa: E402
from lampion.codegen.types import F32, I64  # noqa: E402
from lampion.debug.knobs import override  # noqa: E402
from lampion.runtime import cache, loader, memory, threads  # noqa: E402

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]


def best(functions: dict[str, Callable[[], Any]], seconds: float,
         pause: float = 0.0) -> dict[str, float]:
    """The least time of one call of each, in microseconds."""
    found = dict.fromkeys(functions, float("inf"))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, function in functions.items():
            time.sleep(pause)
            count = 1 if pause else max(1, min(1000, int(1000 / found[name])))  # about 1 ms
            start = time.perf_counter()
            for _ in range(count):
                function()
            found[name] = min(found[name], (time.perf_counter() - start) / count * 1e6)
    return found


def add_kernel() -> Kernel:
    kernel = Kernel("add")
    out, x, y = (kernel.array(name, F32) for name in ("out", "x", "y"))
    kernel.store(out.ptr, 0, kernel.load(x.ptr, 0, 16) + kernel.load(y.ptr, 0, 16))
    return kernel


def tasks_kernel() -> Kernel:
    """Task i writes its number."""
    kernel = Kernel("tasks")
    out, count = kernel.array("out", I64), kernel.integer("count")
    with kernel.parallel(count) as (task, _):
        kernel.store(out.ptr, task, task)
    return kernel


def launches(seconds: float) -> dict[str, float]:
    add, tasks = service.make(add_kernel()), service.make(tasks_kernel())
    x, y, z = (np.ones(16, np.float32) for _ in range(3))
    many = np.zeros(64, np.int64)
    found = best({"launch, 3 arrays": lambda: add(x, y, z), "np.add, 3 arrays": lambda: np.add(
        x, y, z), "launch, 1 task": lambda: tasks(many, 1)}, seconds)
    for n in (2, 16):
        job = {f"launch, {n} tasks, 2 threads": lambda n=n: tasks(many, n)}
        threads.set_num_threads(2)
        found |= best(job, seconds)
        found |= {f"{name}, parked": took for name, took in best(job, seconds, 1e-3).items()}
    return found


def written(empty: Callable[[], Any], count: int) -> Callable[[], None]:
    """As a training step: many arrays written, then all dropped."""
    def run() -> None:
        kept = []
        for _ in range(count):
            kept.append(empty())
            kept[-1].fill(1)
    return run


def allocations(seconds: float) -> dict[str, float]:
    allocator.install()
    single, kind, found = np.dtype("float32"), np.dtype("float32"), {}
    for size in (1000, 100_000, 4_000_000):
        shape = (size,)
        found |= best({
            f"np.empty {size * 4:,} B": lambda s=shape: np.empty(s, single),
            f"pool     {size * 4:,} B": lambda s=shape: memory.empty(s, kind)}, seconds)
    for size, count in ((1_000_000, 30), (4_000_000, 10)):
        shape = (size,)
        sides = {"NumPy": lambda s=shape: np.empty(s, single),
                 "pool": lambda s=shape: memory.empty(s, kind)}
        if torch is not None:
            sides["PyTorch"] = lambda s=shape: torch.empty(s).numpy()
        found |= best({f"{count} x {size * 4 >> 20} MiB written, {name}": written(empty, count)
                       for name, empty in sides.items()}, seconds * 4)
    return found


def objects(seconds: float) -> dict[str, float]:
    text, target = emit(add_kernel(), host()), host()
    data = compile_object(text, target)
    with tempfile.TemporaryDirectory() as folder, override(cache_dir=folder):
        cache.put("add", data)
        return best({"compile a small kernel": lambda: compile_object(text, target),
                     "load its object": lambda: loader.load(data),
                     "find it on disk": lambda: cache.get("add")}, seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=0.5, help="for each group")
    seconds = parser.parse_args().seconds
    print(f"{host().name}, {os.cpu_count()} processors")
    for group in (launches, allocations, objects):
        for name, took in group(seconds).items():
            print(f"{name:40} {took:12.3f} us")


if __name__ == "__main__":
    main()
