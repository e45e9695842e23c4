"""Gradient rules that are repeated record what they record when they are called."""

from __future__ import annotations

import pytest

import lampion as torch
import lampion.nn.functional as F
from lampion import nn
from lampion.capture import capture
from lampion.capture.rules import Rules


class Block(nn.Module):
    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(size), nn.Linear(size, size)

    def forward(self, x):
        y = self.fc(F.gelu(self.norm(x)))
        q, k = y.view(*x.shape[:2], 2, -1).transpose(1, 2).chunk(2, -1)
        y = F.scaled_dot_product_attention(torch.cat((q, k), -1), torch.cat((k, q), -1), y.view(
            *x.shape[:2], 2, -1).transpose(1, 2)).transpose(1, 2).reshape(x.shape)
        return x + y * torch.softmax(x, -1) + y.mean(1, keepdim=True)


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4),
                                                  nn.ReLU()) for _ in range(3))

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return F.max_pool2d(x, 2)


MODELS = {
    "transformer": (lambda: nn.Sequential(Block(), Block(), Block()), (2, 6, 8)),
    "perceptron": (lambda: nn.Sequential(*(m for _ in range(4) for m in (
        nn.Linear(5, 5), nn.Tanh(), nn.Dropout(0.1)))), (3, 5)),
    "convolutions": (Convolutions, (2, 4, 6, 6)),
    "recurrent": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 4)), (3, 4)),
}


def graph_of(name):
    torch.manual_seed(0)
    make, shape = MODELS[name]
    model, x = make(), torch.randn(shape)

    def step(x):
        loss = (model(x) ** 2).mean()
        loss.backward()
        return loss
    return str(capture(step, x, state=[model]).graph)


@pytest.mark.parametrize("name", MODELS)
def test_repeated_rules_record_the_same(name, monkeypatch):
    repeated = []
    again = Rules.again
    monkeypatch.setattr(Rules, "again", lambda *args: (repeated.append(args[1]), again(*args))[1])
    found = graph_of(name)
    assert repeated
    monkeypatch.setattr(Rules, "call", lambda self, rule, args, told=None: rule(*args))
    assert found == graph_of(name)


def test_a_rule_that_makes_an_argument_anew_is_called_each_time():
    """exp of the first is among the saved values of the second product, not of the third."""
    def fn(x, y):
        e = x.exp()
        total = (e * x).sum() + (e * y).sum() + (x * y).sum()
        total.backward()
        return total
    x, y = torch.randn(4).requires_grad_(), torch.randn(4).requires_grad_()
    program = capture(fn, x, y)
    text = str(program.graph)
    program(x, y)
    gx, gy = x.grad.tolist(), y.grad.tolist()
    x.grad = y.grad = None
    fn(x, y)
    assert "exp" in text
    assert torch.allclose(x.grad, torch.tensor(gx)) and torch.allclose(y.grad, torch.tensor(gy))
