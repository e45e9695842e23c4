"""Write ``recorded_streams.json`` from PyTorch's own generator. Run by hand: it needs torch."""

import hashlib
import json
from pathlib import Path

import torch

SIZES = [1, 2, 7, 15, 16, 17, 31, 32, 33, 63, 100, 1000, 1025, 40000]
EXACT = {
    "uniform": [(0.0, 1.0), (-0.3, 0.7)],
    "normal": [(0.0, 1.0), (0.5, 0.02)],
    "random": [(0, 10), (-5, 2**27), (0, 2**40), ()],
    "bernoulli": [(0.5,), (0.1,)],
    "randperm": [()],
}
DTYPES = {
    "uniform": ["float32", "float64", "float16", "bfloat16"],
    "normal": ["float32", "float16", "bfloat16"],
    "random": ["int64"],
    "bernoulli": ["float32", "bool"],
    "randperm": ["int64"],
}
CLOSE = {
    "normal": [(0.0, 1.0)],
    "exponential": [(1.5,)],
    "cauchy": [(0.0, 2.0)],
    "log_normal": [(0.0, 1.0)],
    "geometric": [(0.2,)],
}


def draw(kind, n, parameters, dtype):
    dtype = getattr(torch, dtype)
    if kind == "randperm":
        return torch.randperm(n)
    return getattr(torch.empty(n, dtype=dtype), kind + "_")(*parameters)


def digest(tensor):
    raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(raw).hexdigest()[:16]


def exact_cases():
    for kind, settings in EXACT.items():
        for dtype in DTYPES[kind]:
            for parameters in settings:
                for seed, n in enumerate(SIZES):
                    torch.manual_seed(seed)
                    if kind == "normal" and n < 16:
                        continue
                    values = draw(kind, n, parameters, dtype)
                    state = digest(torch.get_rng_state())
                    yield [kind, seed, n, parameters, dtype, digest(values), state]


def close_cases():
    for kind, settings in CLOSE.items():
        for dtype in ["float32", "float64"]:
            for parameters in settings:
                for seed, n in enumerate([1, 2, 7, 15, 20]):
                    torch.manual_seed(seed)
                    values = draw(kind, n, parameters, dtype).tolist()
                    yield [kind, seed, n, parameters, dtype, values]


def rejection_cases():
    torch.manual_seed(6)
    rates = [0.0, 0.3, 1.0, 5.0, 9.99, 10.0, 25.0, 400.0] * 4
    shapes = [0.05, 0.5, 1.0, 3.0, 40.0] * 4
    counts, probs = [5.0, 40.0, 100.0, 1000.0] * 4, [0.1] * 4 + [0.5] * 4 + [0.7] * 4 + [0.98] * 4
    yield ["poisson", [rates], torch.poisson(torch.tensor(rates)).tolist()]
    yield ["standard_gamma", [shapes], torch._standard_gamma(torch.tensor(shapes)).tolist()]
    drawn = torch.binomial(torch.tensor(counts), torch.tensor(probs))
    yield ["binomial", [counts, probs], drawn.tolist()]


def dropout_mask():
    torch.manual_seed(0)
    return torch.nn.functional.dropout(torch.ones(64), 0.5).tolist()


def main():
    cases = {
        "exact": list(exact_cases()),
        "close": list(close_cases()),
        "rejection": list(rejection_cases()),
        "dropout": dropout_mask(),
    }
    lines = ",\n".join(
        f'"{name}": [\n' + ",\n".join(json.dumps(case) for case in values) + "\n]"
        for name, values in cases.items()
    )
    Path(__file__).with_name("recorded_streams.json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
