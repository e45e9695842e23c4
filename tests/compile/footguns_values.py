"""Values that decide: branches on tensors, early stops, ints that vary among the arguments."""

import copy
import math
import random

import torch
import torch.nn.functional as F
from footguns import footgun
from torch import nn


def batches(n, *shape):
    return [torch.randn(*shape) for _ in range(n)]


@footgun("compiled", most=2)
def a_branch_after_a_random_draw(compiled):
    @compiled
    def fn(x):
        y = F.dropout(x, 0.5)
        if y.sum() > 0:
            return y + torch.rand(4)
        return y - 1

    for x in batches(12, 4):
        yield fn(x)


@footgun("compiled")
def a_branch_before_changes(compiled):
    calls, w = torch.zeros(()), nn.Parameter(torch.ones(4))
    opt = torch.optim.SGD([w], lr=0.1, momentum=0.9)

    @compiled
    def step(x):
        calls.add_(1)
        loss = (w * x).square().sum()
        if loss > 4:
            loss = loss.sqrt()
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss

    for i, x in enumerate(batches(10, 4)):
        yield step(x * (1 + i % 5 // 4)), calls, w, opt


@footgun("correct")
def a_branch_that_always_changes(compiled):
    @compiled
    def fn(x):
        return x * 2 if x.sum() > 0 else x - 1  # here

    for i in range(24):
        yield fn(torch.ones(3) * (-1) ** i)


@footgun("correct")
def a_loop_until_it_is_small(compiled):
    @compiled
    def fn(x):
        turns = 0
        while x.abs().max() > 1:
            x = x / 2
            turns += 1
        return x, turns

    for scale in (1.0, 3.0, 3.0, 9.0, 3.0, 0.5, 3.0):
        yield fn(torch.ones(3) * scale)


@footgun("correct")
def losses_that_are_not_finite(compiled):
    w = nn.Parameter(torch.ones(3))
    opt = torch.optim.SGD([w], lr=0.1)

    @compiled
    def step(x):
        loss = (w * x).square().sum()
        if not torch.isfinite(loss):
            raise ValueError("the loss is not finite")
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss

    for i, x in enumerate(batches(6, 3)):
        try:
            yield step(x * (math.inf if i in (2, 4) else 1)), w, opt
        except ValueError as error:
            yield error, w, opt


@footgun("correct")
def old_gradients_when_a_check_fails(compiled):
    """Where the eager run has not dropped them yet, they are still there."""
    w = nn.Parameter(torch.ones(3))

    @compiled
    def step(x, index):
        loss = (w * x)[index].sum()
        w.grad = None
        loss.backward()
        return loss

    for i, x in enumerate(batches(6, 3)):
        try:
            step(x, torch.tensor([7 if i in (3, 4) else 1]))
        except IndexError:
            pass
        yield w


@footgun("compiled", most=2)
def gradients_are_clipped_where_they_are_long(compiled):
    w = nn.Parameter(torch.ones(3))

    @compiled
    def step(x):
        w.grad = None
        (w * x).square().sum().backward()
        norm = w.grad.norm()
        if norm.item() > 2.0:
            w.grad.mul_(2.0 / norm.item())
        return norm

    for i, x in enumerate(batches(8, 3)):
        yield step(x * (3 if i > 4 else 0.1)), w


@footgun("compiled", most=9)
def accumulation_by_the_batch_number(compiled):
    net = nn.Linear(3, 2)
    opt = torch.optim.SGD(net.parameters(), lr=0.1)

    @compiled
    def training_step(x, i):
        loss = net(x).square().mean() / 2
        loss.backward()
        if (i + 1) % 2 == 0:
            opt.step()
            opt.zero_grad()
        return loss

    for i, x in enumerate(batches(14, 4, 3)):
        yield training_step(x, i), net


@footgun("compiled", most=6)
def weights_by_the_step_number(compiled):
    @compiled
    def loss(x, step, warmup=10):
        return x.square().mean() * min(1.0, (step + 1) / warmup) + 0.9 ** step

    for i, x in enumerate(batches(14, 4)):
        yield loss(x, i)


@footgun("correct")
def sizes_by_arguments(compiled):
    @compiled
    def fn(x, n):
        return x[:n].sum(), x.reshape(n, -1) if 12 % n == 0 else n

    for n in (1, 2, 3, 4, 6, 12, 5, 7, 8, 2, 1):
        yield fn(torch.arange(12.0), n)


@footgun("correct")
def ints_of_several_kinds(compiled):
    @compiled
    def fn(x, i, table):
        return {i: x * i}, [i, i + 1, -i, i // 2, 2 ** i], table[i], f"{i}", bool(i), [0] * i

    for i in (0, 1, 2, 3, 4, 5, 3, 2, 6):
        yield fn(torch.ones(2), i, ("a", "b", "c", "d", "e", "f", "g"))


@footgun("correct")
def ints_and_bools(compiled):
    @compiled
    def fn(x, i):
        return x + 1 if i is True else x * i

    for i in (1, True, 2, False, 3, 4, 5, True, 6, 0):
        yield fn(torch.ones(2) * 3, i)


@footgun("correct")
def very_large_ints(compiled):
    @compiled
    def fn(x, i):
        return x + i, i * 3

    for i in (1, 2, 3, 4, 5, 1 << 40, (1 << 53) + 1, 1 << 62):
        yield fn(torch.ones(2, dtype=torch.int64), i)


@footgun("correct")
def numbers_of_tensors_in_sums(compiled):
    @compiled
    def fn(xs, y):
        total, right = 0.0, 0
        for x in xs:
            total += x.square().mean().item()
            right += (x > 0).sum().item()
        mean = total / len(xs)
        return mean, right, right / 7, -mean, max(mean, 0.5), math.sqrt(mean), y * mean, y + right

    for _ in range(4):
        yield fn(batches(3, 5), torch.randn(3))


@footgun("correct")
def dividing_by_a_count(compiled):
    @compiled
    def fn(x):
        return x.sum().item() / (x > 0).sum().item()

    for x in (torch.ones(3), -torch.ones(3), torch.ones(2), torch.ones(3) * 2):
        try:
            yield fn(x)
        except ZeroDivisionError as error:
            yield type(error).__name__


@footgun("correct")
def random_choices_of_python(compiled):
    @compiled
    def fn(x):
        return x * 2 if random.random() < 0.5 else x

    for x in batches(6, 3):
        yield fn(x)


@footgun("compiled", most=4)
def shadow_of_the_weights(compiled):
    net = nn.Linear(3, 2)
    shadow, opt = copy.deepcopy(net), torch.optim.SGD(net.parameters(), lr=0.1)
    steps = 0

    @compiled
    def step(x):
        nonlocal steps
        opt.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        opt.step()
        decay = min(0.99, (1 + steps) / (10 + steps))
        with torch.no_grad():
            for a, b in zip(shadow.parameters(), net.parameters(), strict=True):
                a.mul_(decay).add_(b, alpha=1 - decay)
        steps += 1
        return loss

    for x in batches(7, 4, 3):
        yield step(x), net, shadow, steps


@footgun("compiled", most=4)
def discriminator_and_generator(compiled):
    made, judge = nn.Linear(2, 3), nn.Linear(3, 1)
    opts = [torch.optim.Adam(m.parameters(), lr=1e-2) for m in (made, judge)]
    history = {"real": [], "fake": []}

    @compiled
    def step(x):
        noise = torch.randn(len(x), 2)
        opts[1].zero_grad()
        real = F.softplus(-judge(x)).mean()
        fake = F.softplus(judge(made(noise).detach())).mean()
        (real + fake).backward()
        opts[1].step()
        opts[0].zero_grad()
        loss = F.softplus(-judge(made(noise))).mean()
        loss.backward()
        opts[0].step()
        history["real"].append(real.item())
        history["fake"].append(fake.item())
        return loss

    for x in batches(5, 4, 3):
        yield step(x), made, judge, copy.deepcopy(history)
