"""Training steps in plain PyTorch style, for any library with that API.

`WORKLOADS[name](torch, compile)` builds model, optimizer and batches from a seed and returns a
function that does one step and returns the loss. `compile` is `torch.compile` or leaves functions
alone; it gets the whole step, as a user would write it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import cycle, pairwise
from typing import Any

import numpy as np

Compile = Callable[[Any], Any]
Step = Callable[[], Any]

BATCHES = 4


def _trained(torch: Any, compile: Compile, model: Any, optimizer: Any, loss_of: Any,
             batches: list[tuple[Any, ...]]) -> Step:
    def step(*batch: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(*batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    model.train()
    step, following = compile(step), cycle(batches)
    return lambda: step(*next(following))


def _tensors(torch: Any, seed: int, *shapes: tuple[int, ...], classes: int = 10
             ) -> list[tuple[Any, Any]]:
    """Batches of normal numbers and classes: the same for every library."""
    rng = np.random.default_rng(seed)
    return [(torch.from_numpy(rng.standard_normal(shapes[0]).astype(np.float32)),
             torch.from_numpy(rng.integers(0, classes, shapes[1]))) for _ in range(BATCHES)]


def _classifier(torch: Any, compile: Compile, model: Any, optimizer: Any, shape: tuple[int, ...],
                classes: int = 10) -> Step:
    batches = _tensors(torch, 1, shape, shape[:1], classes=classes)
    return _trained(torch, compile, model, optimizer,
                    lambda x, y: torch.nn.functional.cross_entropy(model(x), y), batches)


# --- multi-layer perceptrons, convolutions -----------------------------------------------------


def _mlp(torch: Any, sizes: tuple[int, ...]) -> Any:
    nn, layers = torch.nn, []
    for i, o in pairwise(sizes):
        layers += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def mlp_small(torch: Any, compile: Compile) -> Step:
    """784-128-10, batch 64, SGD with momentum."""
    model = _mlp(torch, (784, 128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    return _classifier(torch, compile, model, optimizer, (64, 784))


def mlp_big(torch: Any, compile: Compile) -> Step:
    """1024-4096-4096-10, batch 256, Adam."""
    model = _mlp(torch, (1024, 4096, 4096, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    return _classifier(torch, compile, model, optimizer, (256, 1024))


def lenet(torch: Any, compile: Compile) -> Step:
    """Two convolutions with pooling and two linear layers on 28x28, batch 64, Adam."""
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return _classifier(torch, compile, model, optimizer, (64, 1, 28, 28))


def _block(torch: Any, inputs: int, outputs: int, stride: int) -> Any:
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
            self.shortcut = nn.Sequential()
            if stride != 1 or inputs != outputs:
                self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                                              nn.BatchNorm2d(outputs))

        def forward(self, x: Any) -> Any:
            y = F.relu(self.bn1(self.conv1(x)))
            return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))
    return Block()


def resnet18_cifar(torch: Any, compile: Compile) -> Step:
    """ResNet-18 with a 3x3 stem on 32x32, batch 32, SGD with momentum."""
    nn = torch.nn
    blocks, inputs = [], 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks += [_block(torch, inputs, outputs, stride), _block(torch, outputs, outputs, 1)]
        inputs = outputs
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
                          *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return _classifier(torch, compile, model, optimizer, (32, 3, 32, 32))


# --- transformers ------------------------------------------------------------------------------


def _layer(torch: Any, width: int, heads: int, causal: bool, bias: bool) -> Any:
    nn, F = torch.nn, torch.nn.functional

    class Layer(nn.Module):
        """Attention and a perceptron, normalised before."""

        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = (nn.LayerNorm(width, bias=bias) for _ in range(2))
            self.qkv = nn.Linear(width, 3 * width, bias=bias)
            self.proj = nn.Linear(width, width, bias=bias)
            self.fc = nn.Linear(width, 4 * width, bias=bias)
            self.out = nn.Linear(4 * width, width, bias=bias)

        def forward(self, x: Any) -> Any:
            B, T, C = x.shape
            q, k, v = (t.view(B, T, heads, C // heads).transpose(1, 2)
                       for t in self.qkv(self.ln_1(x)).split(C, dim=2))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
            x = x + self.proj(y.transpose(1, 2).reshape(B, T, C))
            return x + self.out(F.gelu(self.fc(self.ln_2(x))))
    return Layer()


def _gpt(torch: Any, compile: Compile, layers: int, width: int, heads: int, block: int,
         batch: int, letters: int = 65) -> Step:
    nn, F = torch.nn, torch.nn.functional

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(letters, width), nn.Embedding(block, width)
            self.h = nn.ModuleList(_layer(torch, width, heads, True, False) for _ in range(layers))
            self.ln_f = nn.LayerNorm(width, bias=False)
            self.lm_head = nn.Linear(width, letters, bias=False)
            self.wte.weight = self.lm_head.weight

        def forward(self, idx: Any) -> Any:
            x = self.wte(idx) + self.wpe(torch.arange(idx.shape[1]))
            for layer in self.h:
                x = layer(x)
            return self.lm_head(self.ln_f(x))

    model = GPT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    tokens = np.random.default_rng(1).integers(0, letters, (BATCHES, batch, block + 1))
    batches = [(torch.from_numpy(t[:, :-1].copy()), torch.from_numpy(t[:, 1:].copy()))
               for t in tokens]
    return _trained(torch, compile, model, optimizer, lambda x, y: F.cross_entropy(
        model(x).flatten(0, 1), y.flatten()), batches)


def gpt_tiny(torch: Any, compile: Compile) -> Step:
    """2 layers, 64 wide, 4 heads, block 64, batch 16, AdamW."""
    return _gpt(torch, compile, 2, 64, 4, 64, 16)


def gpt_nano(torch: Any, compile: Compile) -> Step:
    """6 layers, 384 wide, 6 heads, block 256, batch 8, AdamW."""
    return _gpt(torch, compile, 6, 384, 6, 256, 8)


def vit(torch: Any, compile: Compile) -> Step:
    """ViT-Tiny/16 on 224x224: 12 layers, 192 wide, 3 heads, batch 8, AdamW."""
    nn, width, patch = torch.nn, 192, 16
    places = (224 // patch) ** 2 + 1

    class ViT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, width, patch, patch)
            self.cls = nn.Parameter(torch.zeros(1, 1, width))
            self.pos = nn.Parameter(torch.zeros(1, places, width))
            self.h = nn.ModuleList(_layer(torch, width, 3, False, True) for _ in range(12))
            self.ln, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

        def forward(self, x: Any) -> Any:
            x = self.patch(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
            for layer in self.h:
                x = layer(x)
            return self.head(self.ln(x)[:, 0])

    model = ViT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    return _classifier(torch, compile, model, optimizer, (8, 3, 224, 224), 1000)


# --- recurrent, variational, reinforcement -----------------------------------------------------


def lstm(torch: Any, compile: Compile) -> Step:
    """2 layers, 128 to 256 wide, 64 steps, batch 32, classified by the last state, Adam."""
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.fc = nn.LSTM(128, 256, 2, batch_first=True), nn.Linear(256, 10)

        def forward(self, x: Any) -> Any:
            y, _ = self.lstm(x)
            return self.fc(y[:, -1])

    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return _classifier(torch, compile, model, optimizer, (32, 64, 128))


def vae(torch: Any, compile: Compile) -> Step:
    """784-400-20-400-784, batch 128, cross-entropy and divergence, noise drawn inside, Adam."""
    nn, F = torch.nn, torch.nn.functional

    class VAE(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.mu, self.logvar = (nn.Linear(784, 400), nn.Linear(400, 20),
                                              nn.Linear(400, 20))
            self.fc3, self.fc4 = nn.Linear(20, 400), nn.Linear(400, 784)

        def forward(self, x: Any) -> Any:
            h = F.relu(self.fc1(x))
            mu, logvar = self.mu(h), self.logvar(h)
            z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
            return self.fc4(F.relu(self.fc3(z))), mu, logvar

    def loss_of(x: Any) -> Any:
        logits, mu, logvar = model(x)
        bce = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        return (bce - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())) / len(x)

    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    images = np.random.default_rng(1).random((BATCHES, 128, 784), np.float32) ** 3
    return _trained(torch, compile, model, optimizer, loss_of,
                    [(torch.from_numpy(x),) for x in images])


class CartPole:
    """A pole on a cart in plain Python; every observation is a list of four floats."""

    def __init__(self) -> None:
        self.state = [0.01, 0.02, -0.03, 0.01]

    def step(self, right: bool) -> bool:
        x, v, angle, spin = self.state
        push = ((10.0 if right else -10.0) + 0.05 * spin * spin * math.sin(angle)) / 1.1
        turn = (9.8 * math.sin(angle) - math.cos(angle) * push) / (
            0.5 * (4 / 3 - 0.1 * math.cos(angle) ** 2 / 1.1))
        pull = push - 0.05 * turn * math.cos(angle) / 1.1
        self.state = [x + 0.02 * v, v + 0.02 * pull, angle + 0.02 * spin, spin + 0.02 * turn]
        done = abs(self.state[0]) > 2.4 or abs(self.state[2]) > 0.21
        if done:
            self.state = [0.01, 0.02, -0.03, 0.01]
        return done


def rl_loop(torch: Any, compile: Compile) -> Step:
    """100 actions of a 4-64-64-2 policy, each read on the host, and a REINFORCE update by Adam."""
    nn, F = torch.nn, torch.nn.functional
    model = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(),
                          nn.Linear(64, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    cart, numbers = CartPole(), cycle(np.random.default_rng(3).random(1 << 14).tolist())

    @compile
    def act(x: Any) -> Any:
        with torch.no_grad():
            return F.softmax(model(x), -1)[0, 1]

    @compile
    def update(x: Any, action: Any, returns: Any) -> Any:
        optimizer.zero_grad()
        logp = F.log_softmax(model(x), -1).gather(1, action[:, None])[:, 0]
        loss = -(logp * (returns - returns.mean()) / (returns.std() + 1e-6)).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def step() -> Any:
        seen, actions, ends = [], [], []
        for _ in range(100):
            seen.append(cart.state)
            actions.append(int(next(numbers) < act(torch.tensor([cart.state])).item()))
            ends.append(cart.step(actions[-1] == 1))
        returns, total = [], 0.0
        for end in reversed(ends):
            total = 1.0 + 0.99 * total * (not end)
            returns.append(total)
        return update(torch.tensor(seen), torch.tensor(actions), torch.tensor(returns[::-1]))
    return step


WORKLOADS: dict[str, Callable[[Any, Compile], Step]] = {f.__name__: f for f in (
    mlp_small, mlp_big, lenet, resnet18_cifar, gpt_tiny, gpt_nano, lstm, vae, vit, rl_loop)}
