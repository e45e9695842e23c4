"""One step of Adam over 10 million parameters in 50 tensors, beside PyTorch's fused and foreach.

    python benchmarks/optimizer_step.py [--threads 1 2] [--rounds N] [--optimizer NAME]

float32. Rounds are interleaved, of each the median step counts, of all the least. `ceiling` is the
share of this machine's bandwidth for what a step must read (parameter, gradient, state) and write.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

TENSORS, ELEMENTS = 50, 10_000_000
# Arrays that a step reads and writes: parameter, gradient, state.
MOVED = {"Adam": (4, 3), "AdamW": (4, 3), "SGD": (2, 1), "RMSprop": (3, 2)}


def shapes() -> list[tuple[int, ...]]:
    """Matrices of several sizes and their biases, together about ELEMENTS."""
    unit = ELEMENTS // (TENSORS // 2) // 1000
    widths = [unit * f // 4 for f in (1, 2, 4, 6, 7)]
    return [shape for i in range(TENSORS // 2)
            for shape in ((1000, widths[i % len(widths)]), (1000,))]


def stepper(torch: Any, name: str, **options: Any) -> Callable[[], None]:
    """A step of an optimizer over new parameters with gradients."""
    rng = np.random.default_rng(0)
    parameters = []
    for shape in shapes():
        p = torch.from_numpy(rng.standard_normal(shape).astype(np.float32)).requires_grad_()
        p.grad = torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
        parameters.append(p)
    optimizer = getattr(torch.optim, name)(parameters, lr=1e-3, **options)
    optimizer.step()
    return optimizer.step


def median_step(step: Callable[[], None], count: int) -> float:
    times = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def steppers(name: str) -> dict[str, Callable[[], None]]:
    import lampion

    found = {"lampion": stepper(lampion, name)}
    try:
        import torch

        found["torch foreach"] = stepper(torch, name, foreach=True)
        if name != "RMSprop":  # PyTorch has no fused one
            found["torch fused"] = stepper(torch, name, fused=True)
    except ImportError:
        print("PyTorch is not installed: lampion alone")
    return found


def run(steps: dict[str, Callable[[], None]], name: str, threads: int, rounds: int) -> None:
    from lampion import set_num_threads
    from lampion.codegen.ceilings import ceilings

    set_num_threads(threads)
    if "torch fused" in steps or "torch foreach" in steps:
        import torch

        torch.set_num_threads(threads)
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(rounds):
        for label, step in steps.items():
            best[label] = min(best[label], median_step(step, 5))
    total = sum(int(np.prod(s)) for s in shapes())
    read, written = (4 * total * n for n in MOVED[name])
    least = ceilings(threads).seconds(read, written)
    print(f"\n{name}, {threads} thread{'s' * (threads > 1)}, load {os.getloadavg()[0]:.1f}, "
          f"{total / 1e6:.1f} M parameters in {len(shapes())} tensors")
    for label, seconds in best.items():
        print(f"{label:16s}{seconds * 1e3:9.2f} ms{(read + written) / seconds / 1e9:7.1f} GB/s"
              f"{least / seconds:6.0%} of the ceiling{seconds / best['lampion']:8.2f} x lampion's")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--optimizer", default="Adam", choices=sorted(MOVED))
    args = parser.parse_args()
    os.environ.setdefault("LAMPION_KERNELS", "sync")
    steps = steppers(args.optimizer)
    for threads in args.threads:
        run(steps, args.optimizer, threads, args.rounds)


if __name__ == "__main__":
    main()
