"""Whole training steps: lampion compiled and eager, beside PyTorch eager and torch.compile.

    python benchmarks/compiled_steps.py [--only mlp gpt_tiny ...] [--threads N] [--quick]
                                        [--torch-compile] [--what steps replay start memory]

steps   medians of interleaved rounds in one process, after the losses were found to agree
replay  what one call of a program costs, by the number of its kernels
start   seconds until the program of a step runs, in new processes: no cache, then a warm one
memory  the peak of a step above what the process held after a step of a small model

torch.compile makes minutes of C++ before it runs, so it must be asked for.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interleaved import ROOT, seconds, torch_module
from step_workloads import WORKLOADS

WHAT = ("steps", "replay", "start", "memory")
VARIANTS = ("lampion compiled", "lampion", "torch", "torch compiled")


def library(variant: str) -> Any:
    if variant.startswith("lampion"):
        import lampion

        return lampion
    return torch_module()


def build(variant: str, workload: str) -> Callable[[], Any]:
    """One step of a workload, as a function that returns the loss."""
    torch = library(variant)
    torch.manual_seed(0)
    compiled = variant.endswith("compiled")
    return WORKLOADS[workload](torch, compiler(torch) if compiled else lambda fn: fn)


def compiler(torch: Any) -> Callable[[Any], Any]:
    """`torch.compile`; lampion's waits for its program, which is what is measured."""
    modes = getattr(getattr(torch, "compiler", None), "_MODES", ())
    options = {"mode": "wait"} if "wait" in modes else {}
    return lambda fn: torch.compile(fn, **options)


def set_threads(count: int) -> None:
    import lampion

    lampion.set_num_threads(count)
    torch = torch_module()
    if torch is not None:
        torch.set_num_threads(count)


def variants(with_compile: bool) -> list[str]:
    there = 2 if torch_module() is None else 4 if with_compile else 3
    return list(VARIANTS[:there])


# --- steps ------------------------------------------------------------------------------------


def measure(runs: dict[str, Callable[[], Any]], rounds: int, at_least: float) -> dict[str, float]:
    """Median seconds of a step of each; rounds take turns, as the machine may be shared."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, step in runs.items():
            times[name].append(seconds(step, at_least))
    return {name: statistics.median(found) for name, found in times.items()}


def agreeing(runs: dict[str, Callable[[], Any]], workload: str, steps: int = 4) -> None:
    """Warms up, and refuses to compare steps that do not learn the same."""
    curves = {name: [float(step()) for _ in range(steps)] for name, step in runs.items()}
    first = next(iter(curves.values()))
    for name, losses in curves.items():
        if any(not math.isclose(a, b, rel_tol=1e-2, abs_tol=1e-3) for a, b in zip(losses, first)):
            raise SystemExit(f"{workload}: losses of {name} differ: {losses}, {first}")


def show_steps(workloads: list[str], names: list[str], rounds: int, at_least: float) -> None:
    print(f"{'ms a step':16s}" + "".join(f"{n:>18s}" for n in names) + "   ratios to the first")
    gains: dict[str, list[float]] = {n: [] for n in names}
    for workload in workloads:
        runs = {name: build(name, workload) for name in names}
        agreeing(runs, workload)
        found = measure(runs, rounds, at_least)
        ours = found[names[0]]
        ratios = [found[n] / ours for n in names]
        for n, r in zip(names, ratios):
            gains[n].append(r)
        print(f"{workload:16s}" + "".join(f"{found[n] * 1e3:18.3f}" for n in names) + "   "
              + " ".join(f"{r:6.2f}" for r in ratios[1:]), flush=True)
    means = [statistics.geometric_mean(gains[n]) for n in names[1:]]
    print(f"{'geometric mean':16s}" + " " * 18 * len(names) + "   "
          + " ".join(f"{m:6.2f}" for m in means))


# --- replay -----------------------------------------------------------------------------------


def show_replay(rounds: int) -> None:
    """A chain of small products: as many kernels as links, which nothing can fuse."""
    import lampion

    def chain(links: int) -> Callable[[], Any]:
        a, b = lampion.randn(8, 8), lampion.randn(8, 8) / 4

        @compiler(lampion)
        def fn(x: Any) -> Any:
            for _ in range(links):
                x = x @ b
            return x
        return lambda: fn(a)

    runs = {str(n): chain(n) for n in (1, 11, 41)}
    with lampion.no_grad():
        for run in runs.values():
            run()
        found = measure(runs, rounds, 0.02)
    each = (found["41"] - found["1"]) / 40
    print(f"replay: {(found['1'] - each) * 1e6:.1f} us a call, {each * 1e6:.2f} us a product; "
          + ", ".join(f"{n} products {s * 1e6:.1f} us" for n, s in found.items()))


# --- measured in processes of their own --------------------------------------------------------


def child(what: str, variant: str, workload: str, threads: int, cache: str = "") -> Any:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "LAMPION_KERNELS": "sync"}
    if cache:
        environment |= {"LAMPION_CACHE_DIR": cache, "TORCHINDUCTOR_CACHE_DIR": cache}
    done = subprocess.run([sys.executable, __file__, "--child", what, variant, workload],
                          env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def first_steps(variant: str, workload: str) -> list[float]:
    """Seconds of the first steps in this process."""
    step, found = build(variant, workload), []
    for _ in range(4):
        start = time.perf_counter()
        float(step())
        found.append(time.perf_counter() - start)
    return found


def resident(field: str) -> float:
    """Megabytes that this process holds (VmRSS) or has held at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def peak(variant: str, workload: str) -> list[float]:
    """Megabytes above those of a small model: at most during the third step, and after it."""
    float(build(variant, "mlp_small")())  # loads what a library loads on first use
    before = resident("VmRSS")
    step = build(variant, workload)
    for _ in range(2):
        float(step())
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    float(step())
    return [resident("VmHWM") - before, resident("VmRSS") - before]


def show_start(workloads: list[str], names: list[str], threads: int) -> None:
    print("seconds until the program runs: without a cache, with a warm one; of a later step")
    for workload in workloads:
        for name in (n for n in names if n.endswith("compiled")):
            with tempfile.TemporaryDirectory() as cache:
                cold, warm = (child("start", name, workload, threads, cache) for _ in range(2))
            print(f"{workload:16s}{name:>18s}{cold[0] - cold[-1]:9.2f}{warm[0] - warm[-1]:9.2f}"
                  f"{warm[-1]:9.3f}", flush=True)


def show_memory(workloads: list[str], names: list[str], threads: int) -> None:
    print("peak of a step in MB above that of mlp_small, and its share of PyTorch's")
    for workload in workloads:
        found = {n: child("memory", n, workload, threads)[0] for n in names}
        base = found.get("torch", math.nan)
        print(f"{workload:16s}" + "".join(f"{n:>18s}{m:8.1f} {m / base:5.2f}"
                                          for n, m in found.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="parts of the workloads' names")
    parser.add_argument("--what", nargs="+", default=list(WHAT), choices=WHAT)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="three short rounds")
    parser.add_argument("--torch-compile", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        what, variant, workload = args.child
        library(variant).set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        print(json.dumps((first_steps if what == "start" else peak)(variant, workload)))
        return
    os.environ.setdefault("LAMPION_KERNELS", "sync")
    set_threads(args.threads)
    chosen = [w for w in WORKLOADS if not args.only or any(part in w for part in args.only)]
    names, rounds = variants(args.torch_compile), 3 if args.quick else args.rounds
    # OpenMP's threads wait for each other: on a busy machine PyTorch looks slower than it is.
    print(f"{args.threads} threads, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    if "steps" in args.what:
        show_steps(chosen, names, rounds, 0.02 if args.quick else 0.2)
    if "replay" in args.what:
        show_replay(rounds)
    if "start" in args.what:
        show_start([w for w in chosen if args.only or w == "gpt_nano"], names, args.threads)
    if "memory" in args.what:
        show_memory(chosen, names, args.threads)


if __name__ == "__main__":
    main()
