"""Hooks of tensors, of parameters and of modules around compiled code."""

import torch
from footguns import footgun
from torch import nn


def batches(n, *shape):
    return [torch.randn(*shape) for _ in range(n)]


@footgun("compiled", most=1)
def hooks_registered_inside(compiled):
    w = nn.Parameter(torch.ones(3))

    @compiled
    def step(x):
        w.grad = None
        y = w * x
        y.register_hook(lambda g: g * 3)
        (y * y).sum().backward()
        return y.detach()

    for x in batches(4, 3):
        yield step(x), w


@footgun("compiled", most=2)
def hooks_of_parameters(compiled):
    w = nn.Parameter(torch.ones(3))
    handle = w.register_hook(lambda g: g.clamp(-0.5, 0.5))
    opt = torch.optim.SGD([w], lr=0.1)

    @compiled
    def step(x):
        opt.zero_grad()
        loss = (w * x).square().sum()
        loss.backward()
        opt.step()
        return loss

    for i, x in enumerate(batches(6, 3)):
        yield step(x), w
        if i == 3:
            handle.remove()


@footgun("correct")
def a_hook_that_comes_later(compiled):
    w = nn.Parameter(torch.ones(3))

    @compiled
    def step(x):
        w.grad = None
        (w * x).sum().backward()

    for i, x in enumerate(batches(5, 3)):
        if i == 2:
            w.register_hook(lambda g: g * 10)
        step(x)
        yield w


@footgun("correct")
def a_hook_of_a_parameter_and_backward_outside(compiled):
    w = nn.Parameter(torch.ones(3))
    w.register_hook(lambda g: g * 10)

    @compiled
    def forward(x):
        return (w * x).sum()

    for x in batches(3, 3):
        w.grad = None
        forward(x).backward()
        yield w


@footgun("correct")
def a_hook_of_an_argument(compiled):
    @compiled
    def step(x):
        (x * x).sum().backward()

    for i, x in enumerate(batches(4, 3)):
        x.requires_grad_()
        if i % 2:
            x.register_hook(lambda g: g * 10)
        step(x)
        yield x


@footgun("compiled", most=2)
def hooks_of_a_forward(compiled):
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    seen = []
    net[0].register_forward_pre_hook(lambda m, args: (args[0] + 1,))
    net[0].register_forward_hook(lambda m, args, out: out * 2)
    net[1].register_forward_hook(lambda m, args, out: seen.append(out.detach().mean()))
    net.register_forward_hook(lambda m, args, kwargs, out: out - 1, with_kwargs=True)

    @compiled
    def step(x):
        net.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        return loss

    for x in batches(4, 2, 3):
        yield step(x), net, list(seen)


@footgun("compiled", most=3)
def hooks_of_a_forward_that_go(compiled):
    net = nn.Linear(3, 3)
    run = compiled(net)
    handle = net.register_forward_hook(lambda m, args, out: out * 2)
    for i, x in enumerate(batches(6, 2, 3)):
        yield run(x)
        if i == 1:
            handle.remove()
        if i == 3:
            net.register_forward_pre_hook(lambda m, args: (args[0] * 3,))


@footgun("correct")
def hooks_of_a_backward(compiled):
    net = nn.Linear(3, 3)
    net.register_full_backward_hook(lambda m, given, out: (given[0] * 2,))

    @compiled
    def step(x):
        net.zero_grad()
        x = (x * 1).requires_grad_()
        net(x).sum().backward()
        return x.grad

    for x in batches(3, 2, 3):
        yield step(x), net


@footgun("correct")
def steps_in_hooks(compiled):
    w = nn.Parameter(torch.ones(3))
    opt = torch.optim.SGD([w], lr=0.1, momentum=0.9)

    def update(p):
        opt.step()
        opt.zero_grad()

    w.register_post_accumulate_grad_hook(update)

    @compiled
    def step(x):
        loss = (w * x).square().sum()
        loss.backward()
        return loss

    for x in batches(5, 3):
        yield step(x), w, opt


@footgun("correct")
def features_taken_by_a_hook(compiled):
    net, features = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), {}

    def keep(m, args, out):
        features["hidden"] = out

    net[1].register_forward_hook(keep)

    @compiled
    def step(x):
        y = net(x)
        return y.sum() + features["hidden"].square().sum()

    for x in batches(4, 2, 3):
        net.zero_grad()
        step(x).backward()
        yield net, features
