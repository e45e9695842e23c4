"""Cost of an eager operation on small tensors, beside PyTorch in one run.

    python benchmarks/eager_overhead.py [--rounds N] [--json FILE]

Rounds of both frameworks are interleaved and medians are quoted; PyTorch uses one thread. Also
measured, in fresh processes: the time to import and the hello world.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def lines(torch: Any) -> dict[str, Callable[[], Any]]:
    """What is measured, for one framework."""
    nn = torch.nn
    torch.manual_seed(0)
    a, b, c = (torch.rand(8) for _ in range(3))
    g = torch.rand(8, requires_grad=True)
    x = torch.rand(4, 8)
    linear = nn.Linear(8, 4)
    mlp = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(),
                        nn.Linear(16, 4))
    one = torch.rand(1, 8)
    sgd = torch.optim.SGD(mlp.parameters(), lr=1e-6)

    def train() -> None:
        mlp(one).sum().backward()

    def update() -> None:
        sgd.zero_grad(set_to_none=False)
        sgd.step()
    train()
    return {
        "a + b": lambda: a + b, "a * b + c": lambda: a * b + c,
        "a + b, grad": lambda: g + b, "a * b + c, grad": lambda: g * b + c,
        "x.relu()": lambda: a.relu(), "x[0]": lambda: x[0], "x.view(8, 4)": lambda: x.view(8, 4),
        "x.sum()": lambda: x.sum(), "Linear(8, 4) forward": lambda: linear(x),
        "3-layer MLP forward + backward, batch 1": train, "zero_grad + step (SGD)": update,
    }


def once(fn: Callable[[], Any], seconds: float) -> float:
    """Microseconds per call, over about `seconds`."""
    count, start = 0, time.perf_counter()
    while True:
        for _ in range(50):
            fn()
        count += 50
        spent = time.perf_counter() - start
        if spent > seconds:
            return spent / count * 1e6


def process(code: str) -> float:
    """Milliseconds of a fresh interpreter that runs `code`."""
    # With compiled bytecode kept, as an installed package has it.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, env=env)
    return (time.perf_counter() - start) * 1e3


HELLO = ("import {m} as torch; torch.manual_seed(0); m = torch.nn.Linear(8, 4); "
         "y = m(torch.rand(3, 8)); print(y); print(y.argmax(1))")


def starts(modules: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Import and hello world as processes, in ms, less the bare interpreter for the import."""
    found: dict[str, dict[str, list[float]]] = {"import": {}, "hello world": {}}
    for m in modules:
        process(f"import {m}")
    bare = statistics.median(process("pass") for _ in range(rounds))
    for _ in range(rounds):
        for m in modules:
            found["import"].setdefault(m, []).append(process(f"import {m}") - bare)
            found["hello world"].setdefault(m, []).append(process(HELLO.format(m=m)))
    return {k: {m: statistics.median(v) for m, v in row.items()} for k, row in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.05)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    import lampion

    frameworks: dict[str, Any] = {"lampion": lampion}
    try:
        import torch

        torch.set_num_threads(1)
        frameworks["torch"] = torch
    except ImportError:
        print("PyTorch is not installed: lampion alone")
    cases = {name: lines(module) for name, module in frameworks.items()}
    times: dict[str, dict[str, list[float]]] = {}
    for _ in range(args.rounds):
        for label in cases["lampion"]:
            for name in cases:
                times.setdefault(label, {}).setdefault(name, []).append(
                    once(cases[name][label], args.seconds))
    rows = {k: {m: statistics.median(v) for m, v in row.items()} for k, row in times.items()}
    print(f"{'':44s}{'lampion':>10s}{'torch':>10s}{'ratio':>8s}")
    for label, row in rows.items():
        show(label, row, "us")
    processes = starts(list(frameworks), 5)
    for label, row in processes.items():
        show(label, row, "ms")
    if args.json:
        args.json.write_text(json.dumps(rows | processes, indent=1))


def show(label: str, row: dict[str, float], unit: str) -> None:
    """One line: both times and their ratio (below 1: lampion is faster)."""
    other = row.get("torch")
    tail = f"{other:10.2f}{row['lampion'] / other:8.2f}" if other else ""
    print(f"{label + ' (' + unit + ')':44s}{row['lampion']:10.2f}{tail}")


if __name__ == "__main__":
    main()
