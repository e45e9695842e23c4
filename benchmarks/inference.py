"""Inference with compiled models: lampion compiled and eager, beside PyTorch eager.

    python benchmarks/inference.py [--only resnet18 ...] [--threads N] [--rounds N]
                                   [--torch-compile]

resnet18_1, _8   ResNet-18 on 224x224, a batch of 1 or 8
bert_384, _768   an encoder of 12 heads over 128 tokens: 8 sequences, 384 wide, or one, 768 wide
gpt_fixed        64 tokens by a 6-layer GPT whose cache has its full size; the position is a tensor
gpt_growing      the same with a cache that is cut at the position, a Python number

Results must agree before times are compared. Figures are the best of rounds that take turns.
onnxruntime runs beside them where it is installed, but for gpt_growing, which ONNX cannot say;
torch.compile, which takes up to a minute for each model, where it is asked for.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from inference_peers import peers
from interleaved import measure, torch_module
from step_workloads import Compile

Run = Callable[[], Any]


def _normal(torch: Any, *shape: int) -> Any:
    import numpy as np

    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def _compiled(torch: Any, compile: Compile, model: Any, x: Any) -> Run:
    model.eval()
    forward = compile(model.forward)

    def run() -> Any:
        with torch.no_grad():
            return forward(x)
    return run


# --- ResNet-18 ---------------------------------------------------------------------------------


def _resnet(torch: Any, compile: Compile, batch: int) -> Run:
    nn, F = torch.nn, torch.nn.functional

    def normed(i: int, o: int, size: int, stride: int) -> Any:
        return nn.Sequential(nn.Conv2d(i, o, size, stride, size // 2, bias=False),
                             nn.BatchNorm2d(o))

    class Block(nn.Module):
        def __init__(self, i: int, o: int, stride: int) -> None:
            super().__init__()
            self.first, self.second = normed(i, o, 3, stride), normed(o, o, 3, 1)
            self.side = normed(i, o, 1, stride) if stride != 1 else nn.Identity()

        def forward(self, x: Any) -> Any:
            return F.relu(self.second(F.relu(self.first(x))) + self.side(x))

    layers, width = [normed(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
    for o in (64, 128, 256, 512):
        layers += [Block(width, o, 1 if o == 64 else 2), Block(o, o, 1)]
        width = o
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))
    return _compiled(torch, compile, model, _normal(torch, batch, 3, 224, 224))


def resnet18_1(torch: Any, compile: Compile) -> Run:
    return _resnet(torch, compile, 1)


def resnet18_8(torch: Any, compile: Compile) -> Run:
    return _resnet(torch, compile, 8)


# --- an encoder --------------------------------------------------------------------------------


def _bert(torch: Any, compile: Compile, batch: int, width: int, layers: int) -> Run:
    nn, F, heads = torch.nn, torch.nn.functional, 12

    class Layer(nn.Module):
        """Attention and a perceptron, normalised after."""

        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.dense = (nn.Linear(width, width)
                                                            for _ in range(4))
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)

        def forward(self, x: Any) -> Any:
            B, T, C = x.shape
            q, k, v = (f(x).view(B, T, heads, C // heads).transpose(1, 2)
                       for f in (self.query, self.key, self.value))
            y = F.scaled_dot_product_attention(q, k, v)
            x = self.norm_1(x + self.dense(y.transpose(1, 2).reshape(B, T, C)))
            return self.norm_2(x + self.down(F.gelu(self.up(x))))

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(1000, width), nn.Embedding(128, width)
            self.norm = nn.LayerNorm(width)
            self.layers = nn.ModuleList(Layer() for _ in range(layers))
            self.pool = nn.Linear(width, width)

        def forward(self, tokens: Any) -> Any:
            x = self.norm(self.words(tokens) + self.places(torch.arange(tokens.shape[1])))
            for layer in self.layers:
                x = layer(x)
            return torch.tanh(self.pool(x[:, 0]))

    tokens = torch.arange(batch * 128).view(batch, 128) * 7 % 1000
    return _compiled(torch, compile, Encoder(), tokens)


def bert_384(torch: Any, compile: Compile) -> Run:
    return _bert(torch, compile, 8, 384, 4)


def bert_768(torch: Any, compile: Compile) -> Run:
    return _bert(torch, compile, 1, 768, 6)


# --- generation --------------------------------------------------------------------------------


def _gpt(torch: Any, compile: Compile, growing: bool, tokens: int = 64) -> Run:
    nn, F = torch.nn, torch.nn.functional
    width, heads, layers, block, letters = 384, 6, 6, 256, 65

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            for name in ("keys", "values"):
                self.register_buffer(name, torch.zeros(1, heads, block, width // heads))

        def forward(self, x: Any, at: Any, mask: Any) -> Any:
            q, k, v = (t.view(1, 1, heads, width // heads).transpose(1, 2)
                       for t in self.qkv(self.norm_1(x)).split(width, dim=2))
            y = self.attend(q, k, v, at, mask)
            x = x + self.proj(y.transpose(1, 2).reshape(1, 1, width))
            return x + self.down(F.gelu(self.up(self.norm_2(x))))

        def attend(self, q: Any, k: Any, v: Any, at: Any, mask: Any) -> Any:
            if growing:
                self.keys[:, :, at:at + 1], self.values[:, :, at:at + 1] = k, v
                return F.scaled_dot_product_attention(q, self.keys[:, :, :at + 1],
                                                      self.values[:, :, :at + 1])
            self.keys.index_copy_(2, at, k)
            self.values.index_copy_(2, at, v)
            return F.scaled_dot_product_attention(q, self.keys, self.values, attn_mask=mask)

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(letters, width), nn.Embedding(block, width)
            self.layers = nn.ModuleList(Layer() for _ in range(layers))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, letters, bias=False)

        def forward(self, token: Any, at: Any) -> Any:
            place, mask = (self.wpe.weight[at], None) if growing else (
                self.wpe(at), (torch.arange(block) <= at)[None])
            x = self.wte(token) + place
            for layer in self.layers:
                x = layer(x, at, mask)
            return self.head(self.norm(x))[:, -1].argmax(-1, keepdim=True)

    model = GPT().eval()
    forward = compile(model.forward)

    def run() -> Any:
        token, found = torch.zeros(1, 1, dtype=torch.long), []
        with torch.no_grad():
            for i in range(tokens):
                token = forward(token, i if growing else torch.tensor([i]))
                found.append(token)
        return torch.cat(found).float()
    return run


def gpt_fixed(torch: Any, compile: Compile) -> Run:
    return _gpt(torch, compile, False)


def gpt_growing(torch: Any, compile: Compile) -> Run:
    return _gpt(torch, compile, True)


WORKLOADS = {f.__name__: f for f in (
    resnet18_1, resnet18_8, bert_384, bert_768, gpt_fixed, gpt_growing)}


def runs_of(workload: str, others: dict[str, Compile]) -> dict[str, Run]:
    """One run of each library, from the same seed. others: PyTorch's compilers."""
    import lampion

    variants: dict[str, tuple[Any, Compile]] = {
        "lampion": (lampion, lambda fn: lampion.compile(fn, mode="wait")),
        "lampion eager": (lampion, lambda fn: fn)}
    if torch_module() is not None:
        variants["torch"] = torch_module(), lambda fn: fn
        variants |= {name: (torch_module(), compile) for name, compile in others.items()
                     if (name, workload) != ("onnxruntime", "gpt_growing")}
    runs = {}
    for name, (torch, compile) in variants.items():
        torch.manual_seed(0)
        runs[name] = WORKLOADS[workload](torch, compile)
    return runs


def agreeing(runs: dict[str, Run], workload: str) -> None:
    """Warms up, and refuses to compare what does not compute the same."""
    found = {}
    for name, run in runs.items():
        for _ in range(3):
            found[name] = run().numpy()
    first = found["lampion"]
    for name, values in found.items():
        if abs(values - first).max() > 2e-3 * abs(values).max():
            raise SystemExit(f"{workload}: the result of {name} differs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="parts of the workloads' names")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--torch-compile", action="store_true")
    args = parser.parse_args()
    os.environ.setdefault("LAMPION_KERNELS", "sync")
    import lampion

    lampion.set_num_threads(args.threads)
    if torch_module() is not None:
        torch_module().set_num_threads(args.threads)
    others = {} if torch_module() is None else peers(torch_module(), args.threads,
                                                     args.torch_compile)
    print("ms a call, and ratios to the first")
    for workload in WORKLOADS:
        if args.only and not any(part in workload for part in args.only):
            continue
        runs = runs_of(workload, others)
        agreeing(runs, workload)
        best = measure(runs, args.rounds)
        print(f"{workload:14s}" + "".join(
            f"{name:>16s}{s * 1e3:9.3f} {s / best['lampion']:5.2f}" for name, s in best.items()),
            flush=True)


if __name__ == "__main__":
    main()
