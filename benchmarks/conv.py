"""Convolutions beside PyTorch in one run: forward and both gradients, ResNet, UNet, MobileNet.

    python benchmarks/conv.py [--threads N] [--rounds N] [--only TEXT] [--json FILE]

float32. Rounds of both are interleaved, the best of each is quoted (the machine may be shared):
milliseconds, and how many times faster lampion is. GFLOP/s count the multiplications of the direct
sum, so Winograd's algorithm may pass the processor's peak. With one thread processor time is
measured, otherwise time that passes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("LAMPION_KERNELS", "sync")

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


class Case(NamedTuple):
    """A square convolution with padding that keeps the size, but for the stride."""

    name: str
    images: int
    channels: int
    size: int
    filters: int
    taps: int
    stride: int = 1
    depthwise: bool = False


CASES = [
    Case("resnet cifar stem", 32, 3, 32, 64, 3),
    Case("resnet cifar 64", 32, 64, 32, 64, 3),
    Case("resnet cifar 64-128 /2", 32, 64, 32, 128, 3, 2),
    Case("resnet cifar 256", 32, 256, 8, 256, 3),
    Case("resnet cifar 512", 32, 512, 4, 512, 3),
    Case("resnet stem 7x7 /2", 8, 3, 224, 64, 7, 2),
    Case("resnet 64", 8, 64, 56, 64, 3),
    Case("resnet 1x1 64-256", 8, 64, 56, 256, 1),
    Case("resnet 128", 8, 128, 28, 128, 3),
    Case("resnet 256", 8, 256, 14, 256, 3),
    Case("resnet 512", 8, 512, 7, 512, 3),
    Case("unet 64", 8, 64, 128, 64, 3),
    Case("lenet 1-6", 64, 1, 28, 6, 5),
    Case("lenet 6-16", 64, 6, 14, 16, 5),
    Case("mobilenet 32", 8, 32, 112, 32, 3, 1, True),
    Case("mobilenet 144 /2", 8, 144, 56, 144, 3, 2, True),
    Case("mobilenet 384", 8, 384, 14, 384, 3, 1, True),
]


def runs(case: Case, torch: Any) -> tuple[int, dict[str, dict[str, Callable[[], Any]]]]:
    """Multiply-adds of one run, and what is measured of each framework."""
    from lampion.codegen.conv import conv_forward, conv_grad_input, conv_grad_weight

    rng, pad = np.random.default_rng(0), case.taps // 2
    groups = case.channels if case.depthwise else 1
    x = rng.standard_normal((case.images, case.channels, case.size, case.size), np.float32)
    w = rng.standard_normal((case.filters, case.channels // groups, case.taps, case.taps),
                            np.float32)
    bias = rng.standard_normal(case.filters, np.float32)
    size = (case.size + 2 * pad - case.taps) // case.stride + 1
    g = rng.standard_normal((case.images, case.filters, size, size), np.float32)
    out, gx, gw = (np.empty_like(a) for a in (g, x, w))
    args = ((case.stride,) * 2, (pad,) * 2, (1, 1), groups)
    found: dict[str, dict[str, Callable[[], Any]]] = {
        "forward": {"lampion": lambda: conv_forward(out, x, w, bias, *args)},
        "input": {"lampion": lambda: conv_grad_input(gx, g, w, None, *args)},
        "weight": {"lampion": lambda: conv_grad_weight(gw, x, g, *args)}}
    if torch is not None:
        tx, tw, tb, tg = (torch.from_numpy(a) for a in (x, w, bias, g))
        found["forward"]["torch"] = lambda: torch.conv2d(tx, tw, tb, *args)

        def backward(*which: bool) -> Any:
            return torch.ops.aten.convolution_backward(
                tg, tx, tw, [case.filters], *args[:3], False, [0, 0], groups, [*which, False])
        found["input"]["torch"] = lambda: backward(True, False)
        found["weight"]["torch"] = lambda: backward(False, True)
    return g.size * w[0].size, found


def best(fns: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float]
         ) -> dict[str, float]:
    """The least seconds of one run of each, in rounds that take turns."""
    least = dict.fromkeys(fns, math.inf)
    for fn in fns.values():
        fn()
    for _ in range(rounds):
        for name, fn in fns.items():
            end = time.perf_counter() + 0.03
            while time.perf_counter() < end:
                start = clock()
                fn()
                least[name] = min(least[name], clock() - start)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
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
    clock = time.thread_time if args.threads == 1 else time.perf_counter
    print(f"{args.threads} threads{'':16s}" + "".join(
        f"{name:>12s}{'GFLOP/s':>9s}{'torch':>9s}{'ratio':>7s}"
        for name in ("forward", "input", "weight")))
    rows = []
    for case in CASES:
        if args.only in case.name:
            work, found = runs(case, torch)
            rows.append({"name": case.name, "work": work, "depthwise": case.depthwise} | {
                kind: best(fns, args.rounds, clock) for kind, fns in found.items()})
            show(rows[-1])
    for title, depthwise in (("convolutions", False), ("depthwise", True)):
        ratios = [r[kind]["torch"] / r[kind]["lampion"] for r in rows
                  for kind in ("forward", "input", "weight")
                  if r["depthwise"] == depthwise and "torch" in r[kind]]
        if ratios:
            print(f"{title}: geometric mean of the ratios "
                  f"{math.exp(np.mean(np.log(ratios))):.2f}, least {min(ratios):.2f}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


def show(row: dict[str, Any]) -> None:
    """One line: milliseconds, speed, PyTorch's milliseconds and the ratio, three times."""
    text = f"{row['name']:25s}"
    for kind in ("forward", "input", "weight"):
        ours = row[kind]["lampion"]
        text += f"{ours * 1e3:12.2f}{2e-9 * row['work'] / ours:9.1f}"
        other = row[kind].get("torch")
        text += f"{other * 1e3:9.2f}{other / ours:7.2f}" if other else ""
    print(text, flush=True)


if __name__ == "__main__":
    main()
