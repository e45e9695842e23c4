"""Operators, layers and losses on small tensors, forward and backward, beside PyTorch in one run.

    python benchmarks/small_tensors.py [--rounds N] [--only TEXT]

One thread. Microseconds of a call, the best of rounds that take turns, after enough calls for
lampion to have its kernels (`docs/kernels.md`); how many times faster it is than PyTorch.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

from interleaved import measure, torch_module

WARM = 260  # calls: kernels for small tensors are made after a hundred

Run = Callable[[], Any]
# Functions of tensors by the shapes of these; the results' sums are differentiated.
OPERATORS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "add": (lambda a, b: a + b, ((8, 16), (8, 16))), "mul": (lambda a, b: a * b, ((8, 16), (16,))),
    "pow": (lambda a: a**2, ((8, 16),)), "exp": (lambda a: a.exp(), ((8, 16),)),
    "mean": (lambda a: a.mean(-1), ((8, 16),)), "var": (lambda a: a.var(-1), ((8, 16),)),
    "norm": (lambda a: a.norm(), ((8, 16),)), "max": (lambda a: a.max(-1)[0], ((8, 16),)),
    "softmax": (lambda a: a.softmax(-1), ((4, 8, 16),)),
    "log_softmax": (lambda a: a.log_softmax(-1), ((4, 8, 16),)),
    "logsumexp": (lambda a: a.logsumexp(-1), ((8, 16),)),
    "mm": (lambda a, b: a @ b, ((8, 16), (16, 8))),
    "bmm": (lambda a, b: a @ b, ((4, 8, 16), (4, 16, 8))),
    "matmul of 4-D": (lambda a, b: a @ b, ((2, 2, 5, 8), (2, 2, 8, 5))),
    "view": (lambda a: a.view(-1), ((8, 16),)), "t": (lambda a: a.t(), ((8, 16),)),
    "permute": (lambda a: a.permute(0, 2, 1), ((4, 8, 16),)),
    "expand": (lambda a: a.expand(8, 16), ((1, 16),)), "slice": (lambda a: a[:, 2:9], ((8, 16),)),
    "chunk": (lambda a: a.chunk(2, 1)[1], ((8, 16),)), "item": (lambda a: a[:, 3], ((8, 16),)),
    "clamp": (lambda a: a.clamp(0, 1), ((8, 16),)), "cumsum": (lambda a: a.cumsum(1), ((8, 16),)),
    "sort": (lambda a: a.sort()[0], ((8, 16),)), "topk": (lambda a: a.topk(3)[0], ((8, 16),)),
    "where": (lambda a: a.where(a > 0, a * 2), ((8, 16),)),
    "masked_fill": (lambda a: a.masked_fill(a > 0, 0.0), ((8, 16),)),
}
# Modules by their constructor, the arguments of that, and the shape of the input.
LAYERS: dict[str, tuple[tuple[Any, ...], tuple[int, ...]]] = {
    "Linear": ((16, 16), (8, 16)), "Conv1d": ((8, 8, 3), (4, 8, 16)),
    "Conv2d": ((4, 8, 3), (2, 4, 8, 8)), "BatchNorm1d": ((16,), (8, 16)),
    "BatchNorm2d": ((4,), (2, 4, 8, 8)), "LayerNorm": ((16,), (4, 8, 16)),
    "GroupNorm": ((2, 4), (2, 4, 8, 8)), "RMSNorm": ((16,), (4, 8, 16)),
    "MaxPool2d": ((2,), (2, 4, 8, 8)), "AvgPool2d": ((2,), (2, 4, 8, 8)),
    "Dropout": ((0.3,), (4, 8, 16)), "LSTM": ((32, 32), (32, 4, 32)),
    "GRU": ((32, 32), (32, 4, 32)), "RNN": ((8, 16), (5, 2, 8)),
    **dict.fromkeys(("ReLU", "GELU", "SiLU", "ELU", "Softplus", "Tanh", "Sigmoid", "LeakyReLU",
                     "Hardswish"), ((), (4, 8, 16))),
}
DRAWN = {  # without gradients
    "rand": lambda torch: torch.rand(8, 16), "randn": lambda torch: torch.randn(8, 16),
    "randint": lambda torch: torch.randint(0, 9, (8,)), "zeros": lambda torch: torch.zeros(8, 16),
    "arange": lambda torch: torch.arange(8), "tensor": lambda torch: torch.tensor([1.0, 2.0, 3.0]),
}


def backward(result: Any) -> None:
    """Of the sum of the first result."""
    (result[0] if isinstance(result, tuple) else result).sum().backward()


def runs(torch: Any) -> dict[str, Run]:
    """What is measured, for one framework."""
    found: dict[str, Run] = {}
    for name, (function, shapes) in OPERATORS.items():
        inputs = [torch.randn(shape).requires_grad_() for shape in shapes]
        found[name] = lambda f=function, x=inputs: backward(f(*x))
    for name, (arguments, shape) in LAYERS.items():
        layer, x = getattr(torch.nn, name)(*arguments), torch.randn(shape).requires_grad_()
        found[name] = lambda layer=layer, x=x: backward(layer(x))
    logits, target = torch.randn(8, 16).requires_grad_(), torch.randint(0, 16, (8,))
    loss = torch.nn.functional.cross_entropy
    found["cross_entropy"] = lambda: loss(logits, target).backward()
    found |= {name: lambda draw=draw: draw(torch) for name, draw in DRAWN.items()}
    return found


def main() -> None:
    """A line for each case, and the geometric mean."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    import lampion

    frameworks = {"lampion": lampion, "torch": torch_module()}
    frameworks = {name: module for name, module in frameworks.items() if module is not None}
    for module in frameworks.values():
        module.set_num_threads(1)
    found = {name: runs(module) for name, module in frameworks.items()}
    chosen = [name for name in found["lampion"] if args.only in name]
    for _ in range(WARM):
        for name in chosen:
            found["lampion"][name]()
    time.sleep(2.0)  # until the kernels that were asked for are there
    print(f"{'us':20s}{'lampion':>10s}{'torch':>10s}{'ratio':>7s}")
    ratios = []
    for name in chosen:
        best = measure({key: cases[name] for key, cases in found.items()}, args.rounds)
        line = f"{name:20s}{best['lampion'] * 1e6:10.1f}"
        if "torch" in best:
            ratios.append(best["torch"] / best["lampion"])
            line += f"{best['torch'] * 1e6:10.1f}{ratios[-1]:7.2f}"
        print(line, flush=True)
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"geometric mean of {len(ratios)} ratios: {mean:.2f}, least {min(ratios):.2f}")


if __name__ == "__main__":
    main()
