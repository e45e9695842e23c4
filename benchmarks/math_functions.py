"""Vector functions beside PyTorch in one run: arrays that fit the second-level cache, and 16 MB.

    python benchmarks/math_functions.py [--threads N] [--rounds N] [--only TEXT]

float32. GB/s count what is read and written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from interleaved import Case, main

SIZES = (1 << 15, 1 << 22)
ALIASES = {"softplus": "functional.softplus", "gelu": "functional.gelu", "silu": "functional.silu",
           "mish": "functional.mish", "gelu_tanh": "functional.gelu"}


def cases(torch: Any) -> Iterator[Case]:
    from lampion.codegen.math import FUNCTIONS
    from lampion.runtime import memory

    for name in [n for n in FUNCTIONS if n != "gelu_slope"]:  # PyTorch has no such function
        for size in SIZES:
            x, out = (memory.empty((size,), np.dtype(np.float32)) for _ in range(2))
            x[...] = np.random.default_rng(0).uniform(0.1, 0.99, size)
            if name == "acosh":
                x += 1
            run = kernel(name)
            runs = {"lampion": lambda a=(out, x), run=run: run(*a)}
            if torch is not None:
                runs["torch"] = theirs(torch, name, torch.from_numpy(x))
            yield f"{name} {4 * size >> 10} KB", 8 * size, runs


def kernel(name: str) -> Any:
    """out = name(x), tasks of 8,192 elements."""
    from lampion.codegen import service
    from lampion.codegen.ir import Kernel
    from lampion.codegen.math import FUNCTIONS
    from lampion.codegen.target import host
    from lampion.codegen.types import F32

    k, lanes, part = Kernel(name), host().lanes(F32), 8192
    out, x = k.array("out", F32), k.array("x", F32)
    with (k.parallel(x.size(0) / part) as (task, _),
          k.loop(task * part, (task + 1) * part, lanes) as i):
        k.store(out.ptr, i, FUNCTIONS[name](k.load(x.ptr, i, lanes)))
    return service.make(k)


def theirs(torch: Any, name: str, x: Any) -> Any:
    out = torch.empty_like(x)
    if name not in ALIASES:
        return lambda: getattr(torch, name)(x, out=out)
    function = getattr(torch.nn.functional, ALIASES[name].rpartition(".")[2])
    return lambda: function(x, **({"approximate": "tanh"} if name == "gelu_tanh" else {}))


if __name__ == "__main__":
    main(cases, "GB/s", __doc__)
