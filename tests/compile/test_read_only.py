"""Memory that NumPy says is read-only (a file that is mapped, say) is never written to."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import lampion as torch
from lampion import nn


def read_only():
    array = np.ones((64, 64), np.float32)
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(array)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Rprop", "ASGD"])
def test_optimizers_refuse(name):
    p = nn.Parameter(torch.ones(64, 64))
    p.data, p.grad = read_only(), torch.ones(64, 64)
    optimizer = getattr(torch.optim, name)([p], lr=0.1)
    with pytest.raises(RuntimeError, match="read-only"):
        optimizer.step()
    assert (p == 1).all() and not optimizer.state[p]


@pytest.mark.parametrize("first", [True, False])
def test_programs_that_write_to_an_argument_refuse(first):
    double = torch.compile(lambda x: x.mul_(2), mode="wait")
    for _ in range(0 if first else 2):
        double(torch.ones(64, 64))
    x = read_only()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="read-only"):
            double(x)
    assert (x == 1).all()
    assert (double(torch.ones(64, 64)) == 2).all()


def test_training_steps_refuse():
    model, x = nn.Linear(64, 64), torch.randn(8, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)

    @torch.compile(mode="wait")
    def step(x):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()
    for _ in range(3):
        step(x)
    model.weight.data = read_only()
    with pytest.raises(RuntimeError, match="read-only"):
        step(x)
    assert (model.weight == 1).all()
    assert optimizer.state[model.weight]["step"] == 3
