"""Overhead of a launch stream: nearly empty kernels, many inputs, many results.

    python benchmarks/replay.py [--seconds S]

Each kernel adds up eight numbers, so what is left is the launch. The goal is 15 us a call and
0.3 us a kernel.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lampion.codegen import service
from lampion.codegen.ir import Kernel
from lampion.codegen.stream import Recording, Stream
from lampion.codegen.types import F32
from lampion.runtime import memory

GOAL_CALL, GOAL_KERNEL = 15.0, 0.3  # microseconds


def tiny() -> Any:
    """out[0] = a[0] * factor + b[0]."""
    k = Kernel("tiny")
    out, a, b = (k.array(name, F32) for name in ("out", "a", "b"))
    factor = k.number("factor", F32)
    k.store(out.ptr, 0, k.load(a.ptr, 0) * factor + k.load(b.ptr, 0))
    return service.make(k)


def stream(kernel: Any, launches: int, inputs: int, results: int) -> Stream:
    """Launches that each read two inputs and the result before."""
    like = np.zeros(8, np.float32)
    with Recording() as r:
        given = [r.input(like) for _ in range(inputs)]
        factor = r.number(0.0)
        last, made = given[0], []
        for i in range(launches):
            out = memory.empty((8,), like.dtype)
            kernel(out, last, given[i % inputs], factor)
            made.append(out)
            last = out
        return r.finish(made[-results:])


def per_call(run: Stream, inputs: int, seconds: float) -> float:
    """Microseconds, the best of several rounds."""
    arrays, numbers = [np.zeros(8, np.float32) for _ in range(inputs)], [0.5]
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(20):
            run(arrays, numbers)
        best = min(best, (time.perf_counter() - start) / 20)
    return best * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.5)
    seconds = parser.parse_args().seconds
    kernel = tiny()
    print(f"{'kernels':>8}{'inputs':>8}{'results':>8}{'us':>9}{'goal':>9}{'planned in ms':>15}")
    for launches, inputs, results in ((1, 1, 1), (10, 2, 1), (100, 2, 1), (1000, 2, 1),
                                      (1, 200, 1), (1000, 200, 1), (1000, 200, 200)):
        start = time.perf_counter()
        made = stream(kernel, launches, inputs, results)
        planned = (time.perf_counter() - start) * 1e3
        us = per_call(made, inputs, seconds)
        goal = GOAL_CALL + GOAL_KERNEL * launches
        print(f"{launches:>8}{inputs:>8}{results:>8}{us:>9.2f}{goal:>9.1f}{planned:>15.1f}")


if __name__ == "__main__":
    main()
