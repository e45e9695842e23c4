"""Random programs of views, reductions, products and writes: compiled beside interpreted."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from test_programs import run_both

import lampion as torch
from lampion.capture import capture
from lampion.codegen import service

pytestmark = pytest.mark.skipif(not service.available(), reason="no kernels here")

UNARY = (torch.relu, torch.tanh, torch.neg, torch.abs, torch.sigmoid, lambda a: a * 0.5,
         lambda a: a - 1, lambda a: a.exp().clamp(max=3.0))
BINARY = (torch.add, torch.mul, torch.sub, torch.maximum, lambda a, b: torch.where(a > b, a, b * 2))


class Maker:
    """Makes one random program; the same choices whenever it runs."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.dice = random.Random(self.seed)
        values = list(inputs)
        for _ in range(self.dice.randrange(4, 14)):
            made = self.made(values)
            if made is not None and 0 < made.numel() <= 512:
                values.append(made)
        return tuple(self.dice.sample(values, min(3, len(values))))

    def made(self, values: list[Any]) -> Any:
        a = self.dice.choice(values[-6:])
        kind = self.dice.choice(("unary", "unary", "binary", "binary", "binary", "reduce", "view",
                                 "view", "product", "write", "join", "softmax"))
        return getattr(self, kind)(a, values)

    def unary(self, a: Any, values: list[Any]) -> Any:
        return self.dice.choice(UNARY)(a)

    def binary(self, a: Any, values: list[Any]) -> Any:
        b = self.dice.choice(values)
        try:
            np.broadcast_shapes(a.shape, b.shape)
        except ValueError:
            b = b.sum() * 0.1
        return torch.tanh(self.dice.choice(BINARY)(a, b))

    def reduce(self, a: Any, values: list[Any]) -> Any:
        how = self.dice.choice((torch.sum, torch.mean, torch.amax))
        if a.ndim == 0:
            return a + 1
        return torch.tanh(how(a, self.dice.randrange(a.ndim), self.dice.random() < 0.5))

    def view(self, a: Any, values: list[Any]) -> Any:
        if a.ndim == 0:
            return a.expand(3)
        d = self.dice.randrange(a.ndim)
        return self.dice.choice((
            lambda: a.transpose(0, d), lambda: a.unsqueeze(d), lambda: a.reshape(-1),
            lambda: a.flatten(0, d), lambda: a.narrow(d, 0, max(1, a.shape[d] - 1)),
            lambda: a[None].expand(2, *a.shape), lambda: a.movedim(d, 0).contiguous(),
            lambda: a.select(d, 0)))()

    def product(self, a: Any, values: list[Any]) -> Any:
        b = self.dice.choice(values)
        if a.ndim == 2 and b.ndim == 2 and a.shape[1] == b.shape[0]:
            return torch.tanh(a @ b)
        return torch.tanh(a @ a.t()) if a.ndim == 2 else None

    def write(self, a: Any, values: list[Any]) -> Any:
        b = self.dice.choice(values)
        if 0 in a.stride() or (a.ndim and a.shape[0] == 0):
            return None
        if self.dice.random() < 0.5:
            a.mul_(0.5)
        elif b.shape == a.shape:
            a.copy_(b * 0.7)
        else:
            a.sub_(b.mean())
        return None

    def join(self, a: Any, values: list[Any]) -> Any:
        return None if a.ndim == 0 else torch.cat([a, a * 2], self.dice.randrange(a.ndim))

    def softmax(self, a: Any, values: list[Any]) -> Any:
        return None if a.ndim == 0 else torch.softmax(a, self.dice.randrange(a.ndim))


def inputs(seed: int) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=g) for s in ((3, 4), (4,), (2, 3, 4), (3, 1), (4, 3))]


@pytest.mark.parametrize("seed", range(40))
def test_random_program(seed):
    args = inputs(seed)
    program = capture(Maker(seed), *args)
    run_both(program, args, (("simplify",), ("fuse",), (), (), ())[seed % 5])
