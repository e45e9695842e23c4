"""Captured functions and models that the tests of passes share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lampion as torch
import lampion.nn.functional as F
from lampion import nn
from lampion.capture import Program, capture


def r(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


class Block(nn.Module):
    """A transformer's."""

    def __init__(self, size: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(size), nn.LayerNorm(size, bias=False)
        self.attend, self.project = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.up, self.down = nn.Linear(size, 4 * size, bias=False), nn.Linear(4 * size, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, c = x.shape
        parts = self.attend(self.ln_1(x)).split(c, dim=2)
        q, k, v = (p.view(b, t, self.heads, c // self.heads).transpose(1, 2) for p in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(y.transpose(1, 2).contiguous().view(b, t, c))
        return x + self.down(F.gelu(self.up(self.ln_2(x))))


class Language(nn.Module):
    def __init__(self, layers: int = 1, size: int = 32, words: int = 17) -> None:
        super().__init__()
        self.words = nn.Embedding(words, size)
        self.blocks = nn.Sequential(*(Block(size) for _ in range(layers)))
        self.head = nn.Linear(size, words)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.words(x))).flatten(0, 1)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(5, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x)[0][-1])


def step_of(model: nn.Module, loss: Any = F.cross_entropy, rate: float = 0.1) -> Callable[..., Any]:
    """A training step with an optimizer written by hand."""
    momenta = [torch.zeros_like(p) for p in model.parameters()]

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        model.zero_grad()
        found = loss(model(x), y)
        found.backward()
        with torch.no_grad():
            for p, m in zip(model.parameters(), momenta, strict=True):
                m.mul_(0.9).add_(p.grad)
                p.sub_(m, alpha=rate)
        return found

    return step


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


def labels(count: int, top: int) -> torch.Tensor:
    return torch.arange(count) * 7 % top


MODELS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor, torch.Tensor]]] = {
    "mlp": lambda: (nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh(),
                                  nn.Linear(16, 3)), r(8, 6), labels(8, 3)),
    "convolutions": lambda: (
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                      nn.MaxPool2d(2), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4), nn.SiLU(),
                      nn.Flatten(), nn.Linear(16, 3)), r(4, 3, 8, 8), labels(4, 3)),
    "transformer": lambda: (Language(2), labels(24, 17).view(3, 8).clone(), labels(24, 17)),
    "lstm": lambda: (Recurrent(), r(4, 3, 5), labels(3, 3)),
}


def training(name: str) -> tuple[Program, tuple[torch.Tensor, ...]]:
    """A captured training step of one of the models."""
    model, x, y = _seeded(lambda: MODELS[name]())  # type: ignore[arg-type, return-value, misc]
    return capture(step_of(model), x, y, state=[model]), (x, y)


def _swapped(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    kept = a.clone()
    a.copy_(b)
    b.copy_(kept)
    return kept * 2


def _written(a: torch.Tensor) -> torch.Tensor:
    b = a.clone()
    b[0].mul_(2)
    b.t()[1].add_(1)
    b.view(-1)[3:5].zero_()
    a[1] = b[2]
    return b


def _old_and_new(a: torch.Tensor, b: torch.Tensor) -> Any:
    before = a.view(-1)
    old = before * 1.0
    a.add_(b)
    return old, before, a, a * old.view(3, 4)


FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "add": (lambda a, b: a + b * 2, r(3, 4), r(4)),
    "one element": (lambda a: a * 2 + 1, r()),
    "nothing": (lambda a: (a * 2).sum(), r(0, 3)),
    "softmax": (lambda a: F.softmax(a * 2, -1), r(3, 4)),
    "log softmax of turned rows": (lambda a: F.log_softmax(a.t() + 1, 0).t(), r(3, 4)),
    "layer norm": (lambda a, b, w: F.layer_norm(a + b, (4,), w) * 2, r(5, 3, 4),
                   r(5, 3, 4, seed=1), r(4)),
    "sums": (lambda a: (a.sum(0), (a * a).sum(1), a.mean(), a.amax(1), a.var(0)), r(6, 5)),
    "views between": (lambda a, b: ((a * 2).view(6, 5).relu() + b).view(3, 2, 5).sum((0, 1)),
                      r(2, 3, 5), r(6, 5)),
    "turned": (lambda a: ((a.t() + 1) * 2, a.t() * 3, a.t().contiguous()), r(3, 4)),
    "pieces": (lambda a: torch.cat([p * 2 for p in a.split(2, 1)], 1), r(3, 6)),
    "pieces of other shapes": (lambda a: torch.cat([a.permute(0, 2, 1).reshape(2, 12), a.view(
        2, 12)], 1), r(2, 3, 4)),
    "products": (lambda a, b: (a @ b).relu() @ b.t(), r(5, 3), r(3, 4)),
    "products of batches": (lambda a, b: torch.tanh(a @ b) * 0.5, r(2, 5, 3), r(2, 3, 4)),
    "casts": (lambda a: (a.half() * 2).float() + a.to(torch.int32), r(3, 4)),
    "narrow floats": (lambda a, b: F.gelu(a * b) + 1, r(3, 4).bfloat16(), r(4).bfloat16()),
    "masks": (lambda a: torch.where(a > 0, a, a * 0.1).masked_fill(a < -1, 0.0), r(3, 4)),
    "indices": (lambda a, i: (a[i], a.gather(1, i[:, None]), a.topk(2)), r(4, 4),
                torch.tensor([0, 2, 1, 3])),
    "complex numbers": (lambda a: torch.complex(a, a * 2).abs() + torch.fft.rfft(a).real.sum(),
                        r(3, 4)),
    "losses": (lambda a, b, t: (F.mse_loss(a, b), F.smooth_l1_loss(a, b), F.cross_entropy(
        a, t, label_smoothing=0.1), F.kl_div(a, b.softmax(1), reduction="batchmean")), r(4, 3),
        r(4, 3, seed=1), torch.tensor([0, 2, 1, 0])),
    "written": (_written, r(3, 3)),
    "swapped": (_swapped, r(3, 4), r(3, 4, seed=1)),
    "old and new values": (_old_and_new, r(3, 4), r(3, 4, seed=1)),
    "an input as it is": (lambda a: (a, a.t(), a.view(-1), a.clone()), r(3, 4)),
    "one value twice": (lambda a: (lambda b: (b, b, b.view(-1), b.clone()))(a * 2), r(3, 4)),
    "numbers that change nothing": (lambda a: (a.neg().neg() * 1 / 1 - 0, a.expand(3, 4), a.view(
        12).view(4, 3), a.t().t(), a.to(torch.float32)), r(3, 4)),
    "a value and a window on it": (lambda a, b: (b * b, (a.sigmoid() - a.sigmoid()[0]) + 2 * (
        b * b)), r(4, 4), r(4)),
    "signs of zeros": (lambda a: (a - 0.0, a + 0.0, 1 / (a * 1), 1 / (a + 0)),
                       torch.tensor([0.0, -0.0, float("nan"), float("-inf")])),
}


def captured(name: str) -> tuple[Program, tuple[Any, ...]]:
    """A captured function of the list."""
    fn, *args = FUNCTIONS[name]
    return capture(fn, *args), tuple(args)
