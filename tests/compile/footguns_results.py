"""Foot-guns: results that are objects from outside, and options of optimizers set in the step."""

import torch
from footguns import footgun
from torch import nn


def told(found, *owners):
    """A result beside the objects that it should be, or should not be."""
    return [(repr(x), *(x is o for o in owners)) for x in found]


@footgun("compiled", most=1)
def a_list_from_outside_is_returned(compiled):
    class State:
        table, nested = [1, 2], {"a": [3]}

    @compiled
    def fn(x):
        return x * 2, State.table, State.nested["a"], {"in": State.table}

    for i in range(4):
        y, table, nested, more = fn(torch.ones(2))
        yield y, told([table, nested, more["in"]], State.table, State.nested["a"])
        table.append(i)
        State.nested["a"].append(-i)


@footgun("correct")
def rows_of_a_list_are_returned(compiled):
    rows = [[1, 2], [3]]

    @compiled
    def fn(x):
        first, last = rows
        every = [*rows]
        return x + 1, last, every, [r for r in rows if r is not first]

    for i in range(4):
        y, last, every, some = fn(torch.ones(2))
        yield y, told([last, every[0], some[0]], *rows), len(every)
        rows[i % 2].append(i)
        every.append(None)


@footgun("correct")
def a_list_from_outside_is_kept(compiled):
    class State:
        table, held = [1], None

    @compiled
    def fn(x):
        State.held = State.table
        return x.sum()

    for i in range(4):
        yield fn(torch.ones(2)), told([State.held], State.table)
        State.table = [*State.table, i] if i % 2 else State.table
        State.table.append(i)


@footgun("correct")
def lists_made_in_the_function_are_others_each_time(compiled):
    def keywords(**options):
        return options

    @compiled
    def fn(x):
        return x + 1, [1, 2], keywords(a=1), [[x, 3]]

    kept = []
    for _ in range(3):
        found = fn(torch.ones(2))
        yield repr(found[1:3])
        kept.append(found)
        found[1].append(5)
        found[2]["b"] = 2
    yield kept[0][1] is kept[1][1], kept[1][2] is kept[2][2]


@footgun("compiled", most=5)
def learning_rate_by_a_number(compiled):
    net = nn.Linear(3, 2)
    opt = torch.optim.AdamW(net.parameters(), lr=0.1)

    @compiled
    def step(x, i):
        rate = 0.1 * min(1.0, (i + 1) / 6)
        for group in opt.param_groups:
            group["lr"] = rate
        opt.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        opt.step()
        return loss

    for i in range(8):
        yield step(torch.randn(4, 3), i), net, opt.param_groups[0]["lr"]


@footgun("compiled", most=4)
def learning_rate_that_decays_by_itself(compiled):
    net = nn.Linear(3, 2)
    opt = torch.optim.Adam(net.parameters(), lr=0.1)

    @compiled
    def step(x):
        opt.param_groups[0]["lr"] *= 0.9
        opt.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        opt.step()
        return loss

    for i in range(7):
        yield step(torch.randn(4, 3)), net, opt.param_groups[0]["lr"]
        if i == 4:
            opt.param_groups[0]["lr"] = 0.5


@footgun("correct")
def options_set_before_and_after_the_step(compiled):
    net = nn.Linear(3, 2)
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.5)

    @compiled
    def step(x, i):
        group = opt.param_groups[0]
        group["lr"] = 0.1 / (i + 1)
        group["momentum"] = 0.5 + 0.01 * i
        opt.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        opt.step()
        group["lr"] = 0.7
        return loss

    for i in range(6):
        yield step(torch.randn(4, 3), i), net, opt.param_groups[0]["lr"]


@footgun("correct")
def learning_rate_of_a_value(compiled):
    net = nn.Linear(3, 2)
    opt = torch.optim.SGD(net.parameters(), lr=0.1)

    @compiled
    def step(x):
        opt.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        opt.param_groups[0]["lr"] = 0.1 / (1 + loss.item())
        opt.step()
        return loss

    for _ in range(4):
        yield step(torch.randn(4, 3)), net


@footgun("correct")
def learning_rate_and_a_scheduler(compiled):
    net = nn.Linear(3, 2)
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    sched = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)

    @compiled
    def step(x, i):
        if i % 3 == 2:
            opt.param_groups[0]["lr"] = 0.3
        opt.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        opt.step()
        sched.step()
        return loss

    for i in range(7):
        yield step(torch.randn(4, 3), i), net, opt.param_groups[0]["lr"], sched.get_last_lr()


@footgun("correct")
def learning_rates_that_are_no_rates(compiled):
    net = nn.Linear(3, 2)
    opt = torch.optim.SGD(net.parameters(), lr=0.1)

    @compiled
    def step(x, rate):
        opt.param_groups[0]["lr"] = 0.1 / rate
        opt.zero_grad()
        net(x).sum().backward()
        opt.step()
        return net.bias * 1

    for rate in (1.0, 2.0, 3.0, 4.0, 0.0, 5.0):
        try:
            yield step(torch.ones(1, 3), rate), net
        except ZeroDivisionError:
            yield "refused", net
