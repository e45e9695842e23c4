"""What the benchmarks of single kernels share: interleaved rounds, the best of each, ratios."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

Case = tuple[str, int, dict[str, Callable[[], Any]]]
"""A name, bytes or operations of one call, and what to run: "lampion" and perhaps "torch"."""


def seconds(fn: Callable[[], Any], at_least: float) -> float:
    """Of one call, over a time that the clock resolves."""
    count, start = 0, time.perf_counter()
    while True:
        fn()
        count += 1
        spent = time.perf_counter() - start
        if spent > at_least:
            return spent / count


def measure(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Best seconds of each; rounds take turns, as the machine may be shared."""
    best = dict.fromkeys(runs, math.inf)
    for fn in runs.values():
        fn()
    for _ in range(rounds):
        for key, fn in runs.items():
            best[key] = min(best[key], seconds(fn, 0.01))
    return best


def torch_module() -> Any:
    """PyTorch, or None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch


def main(cases: Callable[[Any], Iterable[Case]], unit: str, doc: str | None) -> None:
    """Prints a line for each case: time, rate, PyTorch's rate, how many times faster."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    from lampion.debug.knobs import override
    from lampion.runtime.threads import set_num_threads

    torch = torch_module()
    set_num_threads(args.threads)
    if torch is not None:
        torch.set_num_threads(args.threads)
    print(f"{'':44s}{'us':>10s}{unit:>9s}{'torch':>9s}{'ratio':>7s}")
    ratios = []
    with override(kernels="sync"):
        for name, work, runs in cases(torch):
            if args.only in name:
                ratios += show(name, work, measure(runs, args.rounds))
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"geometric mean of {len(ratios)} ratios: {mean:.2f}, least {min(ratios):.2f}")


def show(name: str, work: int, best: dict[str, float]) -> list[float]:
    ours = best["lampion"]
    line = f"{name:44s}{ours * 1e6:10.1f}{work / ours * 1e-9:9.1f}"
    if "torch" not in best:
        print(line, flush=True)
        return []
    ratio = best["torch"] / ours
    print(f"{line}{work / best['torch'] * 1e-9:9.1f}{ratio:7.2f}", flush=True)
    return [ratio]
