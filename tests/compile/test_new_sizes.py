"""Training steps at many sizes: programs planned after one another do what eager steps do."""

from __future__ import annotations

import numpy as np
import pytest

import lampion as torch
import lampion.nn.functional as F
from lampion import nn, passes
from lampion.codegen import service
from lampion.passes.resize import Known

pytestmark = pytest.mark.skipif(not service.available(), reason="no kernels here")


class Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (p.view(b, t, self.heads, c // self.heads).transpose(1, 2)
                   for p in self.qkv(self.ln_1(x)).split(c, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, c))
        return x + self.out(F.gelu(self.fc(self.ln_2(x))))


class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(11, 12), nn.Embedding(40, 12)
        self.layers = nn.ModuleList(Layer(12, 2) for _ in range(3))
        self.head = nn.Linear(12, 11)

    def forward(self, x):
        y = self.words(x) + self.places(torch.arange(x.shape[1]))
        for layer in self.layers:
            y = layer(y)
        return self.head(y).flatten(0, 1)


class Images(nn.Module):
    """Of any size: broadcasts a mean of each channel, and of each image."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.head = nn.GroupNorm(2, 6), nn.Linear(6, 11)

    def forward(self, x):
        y = F.relu(self.norm(self.first(x)))
        y = y - y.mean((2, 3), keepdim=True) + self.second(y) * y.amax((1, 2, 3), keepdim=True)
        return self.head(y.mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.GRU(5, 7, batch_first=True), nn.Linear(7, 11)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


def _perceptron():
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(),
                         nn.Linear(16, 11))


# Shapes: ones, widths of the models, sizes at which other kernels serve.
CASES = {
    "language": (Language, [(3, 8), (3, 10), (4, 10), (3, 12), (12, 3), (1, 8), (3, 1), (1, 1),
                            (2, 2), (5, 36), (7, 9), (11, 4)]),
    "images": (Images, [(5, 3, 10, 9), (5, 3, 12, 9), (7, 3, 10, 9), (2, 3, 8, 8), (1, 3, 8, 8),
                        (2, 3, 1, 1), (6, 3, 6, 6), (3, 3, 3, 3)]),
    "recurrent": (Recurrent, [(17, 4, 5), (19, 4, 5), (3, 6, 5), (1, 4, 5), (3, 1, 5), (7, 7, 5)]),
    "perceptron": (_perceptron, [(n, 5) for n in (8, 9, 16, 1, 5, 2, 64, 300, 33, 11)]),
}


def _stepping(make, compile):
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    @compile
    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.detach(), norm
    return model, step


def _batch(name, shape):
    drawn = np.random.default_rng(sum(shape))
    if name == "language":
        x = torch.from_numpy(drawn.integers(0, 11, shape))
        return x, torch.from_numpy(drawn.integers(0, 11, shape[0] * shape[1]))
    x = torch.from_numpy(drawn.standard_normal(shape).astype(np.float32))
    return x, torch.from_numpy(drawn.integers(0, 11, shape[0]))


@pytest.mark.parametrize("name", CASES)
def test_steps_of_many_sizes(name, monkeypatch):
    hits = []
    find = Known.find
    monkeypatch.setattr(Known, "find", lambda *args: (hits.append(find(*args)), hits[-1])[1])
    monkeypatch.setattr(passes, "_known", Known())
    make, shapes = CASES[name]
    eager, eager_step = _stepping(make, lambda fn: fn)
    compiled, step = _stepping(make, lambda fn: torch.compile(fn, mode="wait"))
    for shape in [shapes[0], *shapes, *shapes[::-1]]:
        batch = _batch(name, shape)
        for got, want in zip(step(*batch), eager_step(*batch), strict=True):
            np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=2e-4, atol=2e-5)
        for p, q in zip(compiled.parameters(), eager.parameters(), strict=True):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=5e-3, atol=2e-4)
            with torch.no_grad():  # small differences do not add up
                p.copy_(q)
    assert not step.reasons
    assert any(found is not None for found in hits)


def test_inference_keeps_what_belongs_to_each_size():
    torch.manual_seed(0)
    model = _perceptron().eval()
    predict = torch.compile(lambda x: model(x).softmax(-1), mode="wait")
    for n in (64, 70, 64, 1, 70, 16, 128):
        x = torch.from_numpy(np.random.default_rng(n).standard_normal((n, 5)).astype(np.float32))
        with torch.no_grad():
            for _ in range(2):
                np.testing.assert_allclose(predict(x).numpy(), model(x).softmax(-1).numpy(),
                                           rtol=2e-5, atol=1e-6)
            model[0].weight.mul_(1.01)
