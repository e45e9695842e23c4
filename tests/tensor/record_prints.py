"""Write ``recorded_prints.json`` from PyTorch. Run by hand: it needs torch."""

import json
import warnings
from pathlib import Path

import numpy as np
import printing_cases as cases
import torch


def to_torch(array):
    name = array.dtype.name
    if array.dtype.isbuiltin == 1:
        return torch.from_numpy(array.copy())
    raw = array.copy().view(np.uint8 if array.itemsize == 1 else np.int16)
    return torch.from_numpy(raw).view(getattr(torch, name))


def text(tensor, options=None):
    if not options:
        return repr(tensor)
    torch.set_printoptions(**options)
    try:
        return repr(tensor)
    finally:
        torch.set_printoptions(profile="default")


def suffixed():
    x = torch.ones(3, requires_grad=True)
    yield "requires_grad", x
    yield "grad_fn", x * 2
    yield "both lines", torch.ones(5, 5, dtype=torch.float64, requires_grad=True) * 2
    for n in range(10, 30):
        yield f"wrap{n}", torch.full((n,), 7, dtype=torch.int32)
    for n in range(7, 15):
        yield f"wrapgrad{n}", torch.ones(n, requires_grad=True) * 2
        yield f"wrapdtype{n}", torch.ones(n, dtype=torch.float64, requires_grad=True) * 2
    for kind in (torch.float32, torch.float64, torch.int64, torch.bool, torch.complex64):
        yield f"meta{kind}", torch.empty(2, 3, device="meta", dtype=kind)
    yield "metagrad", torch.empty(2, device="meta", requires_grad=True)


def main():
    warnings.simplefilter("ignore")
    plain = {name: text(to_torch(array)) for name, array in cases.arrays()}
    chosen = {name: text(to_torch(a), options) for name, options, a in cases.with_options()}
    torch.set_default_dtype(torch.float64)
    default64 = {
        name: text(to_torch(array))
        for name, array in cases.arrays()
        if array.shape in [(3,), (0,), (0, 3)]
    }
    torch.set_default_dtype(torch.float32)
    recorded = {
        "arrays": plain,
        "options": chosen,
        "default64": default64,
        "suffixed": {name: text(tensor) for name, tensor in suffixed()},
    }
    path = Path(__file__).with_name("recorded_prints.json")
    path.write_text(json.dumps(recorded, indent=0, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
