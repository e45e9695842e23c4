"""What new sizes cost a compiled training step: sequences of many lengths.

    python benchmarks/new_sizes.py [--only gpt_nano ...] [--seen N ...] [--threads N] [--rounds N]

planning  milliseconds that the first call of a new length takes longer than those after it, where
          it waits for its program: the median and the quickest of some lengths
loop      seconds of a training loop over 20 lengths in mixed order, each seen 1 to 5 times:
          compiled in the background as is the default, eagerly, and PyTorch eagerly

All is the processor's time, background threads included.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import step_workloads
from compiled_steps import set_threads
from interleaved import torch_module

Batch = tuple[Any, Any]
# Of sequences; none is a width of the model.
LENGTHS = {"gpt_tiny": range(23, 63, 2), "gpt_nano": range(67, 187, 6)}


def _step(torch: Any, workload: str, compile: Callable[[Any], Any]) -> Callable[..., Any]:
    """The training step of a GPT, which takes batches of any length."""
    found: list[Any] = []

    def kept(fn: Any) -> Any:
        found.append(compile(fn))
        return found[0]
    torch.manual_seed(0)
    step_workloads.WORKLOADS[workload](torch, kept)
    step: Callable[..., Any] = found[0]
    return step


def _batch(torch: Any, length: int, rows: int = 5) -> Batch:
    tokens = np.random.default_rng(length).integers(0, 65, (rows, length + 1))
    return torch.from_numpy(tokens[:, :-1].copy()), torch.from_numpy(tokens[:, 1:].copy())


def _seconds(run: Callable[..., Any], *args: Any) -> float:
    start = time.process_time()
    run(*args)
    return time.process_time() - start


def planning(workload: str) -> list[float]:
    """Milliseconds of planning for some lengths that were not seen, once kernels are there."""
    import lampion as torch

    step = _step(torch, workload, lambda fn: torch.compile(fn, mode="wait"))
    found = []
    for n, length in enumerate(LENGTHS[workload][:10]):
        batch = _batch(torch, length)
        first = _seconds(step, *batch)
        later = min(_seconds(step, *batch) for _ in range(3))
        if n > 1:  # at the first two there are no gradients yet, and no plan to follow
            found.append(1e3 * (first - later))
    return found


def loop(torch: Any, workload: str, times: int, compile: Callable[[Any], Any]) -> float:
    """Seconds for every length `times` times, in mixed order."""
    step = _step(torch, workload, compile)
    lengths = LENGTHS[workload]
    order = np.random.default_rng(times).permutation(np.repeat(list(lengths), times)).tolist()
    batches = {n: _batch(torch, n) for n in lengths}

    def run() -> None:
        for n in order:
            step(*batches[n])
    for _ in range(2):  # kernels, gradients, the optimizer's state, and a first program
        step(*_batch(torch, lengths.start - 2))
        time.sleep(1)
    return _seconds(run)


def _variants() -> dict[str, tuple[Any, Callable[[Any], Any]]]:
    import lampion

    def as_it_is(fn: Any) -> Any:
        return fn
    found = {"compiled": (lampion, lampion.compile), "eager": (lampion, as_it_is)}
    torch = torch_module()
    return found if torch is None else {**found, "torch": (torch, as_it_is)}


def show(workload: str, rounds: int, times_seen: list[int]) -> None:
    """Prints both parts."""
    spent = planning(workload)
    print(f"{workload}: planning of a new length {statistics.median(spent):.0f} ms, "
          f"the quickest {min(spent):.0f} ms")
    variants = _variants()
    print(f"{'seen':>6s}" + "".join(f"{name:>12s}" for name in variants), flush=True)
    for seen in times_seen:
        best = {name: min(loop(torch, workload, seen, compile) for _ in range(rounds))
                for name, (torch, compile) in variants.items()}
        print(f"{seen:6d}" + "".join(f"{s:11.2f}s" for s in best.values()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=list(LENGTHS))
    parser.add_argument("--seen", nargs="+", type=int, default=[1, 2, 3, 5])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    set_threads(args.threads)
    for workload in args.only:
        show(workload, args.rounds, args.seen)


if __name__ == "__main__":
    from lampion.debug.knobs import override

    with tempfile.TemporaryDirectory() as cache, override(cache_dir=cache):
        main()
    sys.exit(0)
