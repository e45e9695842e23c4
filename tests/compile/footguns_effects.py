"""Steps that keep books: losses in lists, meters, counters, caches, variables around."""

import collections
import dataclasses
import math

import torch
import torch.nn.functional as F
from footguns import footgun
from torch import nn

TOTAL = 0.0
SEEN = 0


def batches(n, *shape):
    return [torch.randn(*shape) for _ in range(n)]


class Meter:
    """As in many training scripts."""

    made = 0

    def __init__(self):
        self.last = self.sum = self.mean = 0.0
        self.count = 0

    def update(self, value, n=1):
        self.last = value
        self.sum += value * n
        self.count += n
        self.mean = self.sum / self.count
        Meter.made += 1


@footgun("compiled", most=1)
def losses_appended_to_lists(compiled):
    losses, kept = [], []

    @compiled
    def step(x):
        loss = x.square().mean()
        losses.append(loss.item())
        kept.append(loss.detach())
        return loss

    for x in batches(4, 5):
        yield step(x), list(losses), list(kept)


@footgun("compiled", most=4)
def meters(compiled):
    meter, Meter.made = Meter(), 0

    @compiled
    def step(x):
        loss = x.square().mean()
        meter.update(loss.item(), x.shape[0])
        return loss

    for x in batches(8, 5):
        yield step(x), vars(meter).copy(), Meter.made


@footgun("compiled", most=3)
def statistics_of_steps(compiled):
    stats = {"steps": 0, "loss": None}

    @compiled
    def step(x):
        loss = x.square().mean()
        stats["loss"] = loss
        stats["steps"] += 1
        stats["largest"] = x.max().item()
        stats.update(mean=x.mean().detach())
        return loss

    for x in batches(6, 5):
        yield step(x), dict(stats)


@footgun("compiled", most=4)
def globals_and_closures(compiled):
    global TOTAL, SEEN
    TOTAL, SEEN = 0.0, 0
    steps, last = 0, None

    @compiled
    def step(x):
        global TOTAL, SEEN
        nonlocal steps, last
        loss = x.square().mean()
        TOTAL += loss.item()
        SEEN = SEEN + len(x)
        steps += 1
        last = loss
        return loss

    for x in batches(8, 5):
        yield step(x), TOTAL, SEEN, steps, last


@footgun("compiled", most=1)
def last_results_on_an_object(compiled):
    class Trainer:
        pass

    trainer = Trainer()

    @compiled
    def step(x):
        trainer.loss = x.square().mean()
        trainer.all = [x, x * 2]
        trainer.named = {"x": x + 1, "n": x.numel()}
        return trainer.loss

    for x in batches(3, 4):
        got = step(x)
        yield got, trainer.all, trainer.named, trainer.loss is got, trainer.all[0] is x


@footgun("compiled", most=1)
def a_history_of_bounded_length(compiled):
    history = collections.deque(maxlen=3)

    @compiled
    def step(x):
        history.append({"mean": x.mean(), "n": len(x)})
        return x * 2

    for x in batches(5, 4):
        yield step(x), list(history)


@footgun("compiled", most=3)
def epsilon_that_decays(compiled):
    class Agent:
        epsilon = 0.5

        def __init__(self):
            self.epsilon = 1.0
            self.steps = 0

    agent, net = Agent(), nn.Linear(4, 3)

    @compiled
    def act(x):
        values = net(x) * (1 - agent.epsilon) + torch.rand(3) * agent.epsilon
        agent.epsilon = max(0.05, agent.epsilon * 0.9)
        agent.steps += 1
        return values.argmax(-1)

    for x in batches(7, 2, 4):
        yield act(x), agent.epsilon, agent.steps


@footgun("compiled", most=4)
def cosine_by_hand(compiled):
    class Schedule:
        step = 0

    schedule = Schedule()
    schedule.step = 0
    w = torch.ones(3, requires_grad=True)

    @compiled
    def train(x):
        rate = 0.1 * 0.5 * (1 + math.cos(math.pi * schedule.step / 20))
        (g,) = torch.autograd.grad((w * x).square().sum(), [w])
        with torch.no_grad():
            w.sub_(g * rate)
        schedule.step += 1
        return rate

    for x in batches(8, 3):
        yield train(x), w, schedule.step


@footgun("compiled", most=5)
def every_third_step(compiled):
    w = nn.Parameter(torch.ones(3))
    opt = torch.optim.SGD([w], lr=0.1)

    class Loop:
        i = 0

    loop = Loop()
    loop.i = 0

    @compiled
    def train(x):
        loss = (w * x).square().sum() / 3
        loss.backward()
        if (loop.i + 1) % 3 == 0:
            opt.step()
            opt.zero_grad()
        loop.i += 1
        return loss

    for x in batches(11, 3):
        yield train(x), w, loop.i


@footgun("compiled", most=4)
def moving_average_in_a_float(compiled):
    class State:
        average = None

    state = State()

    @compiled
    def step(x):
        loss = x.square().mean()
        state.average = loss.item() if state.average is None else (
            0.9 * state.average + 0.1 * loss.item())
        return loss

    for x in batches(7, 3):
        yield step(x), state.average


@footgun("compiled")
def the_least_loss_so_far(compiled):
    class State:
        best = math.inf

    state = State()
    state.best = math.inf

    @compiled
    def step(x):
        loss = x.square().mean()
        if loss.item() < state.best:
            state.best = loss.item()
        return loss

    for scale in (3.0, 2.0, 4.0, 1.0, 5.0, 6.0, 7.0, 0.1):
        yield step(torch.ones(3) * scale), state.best


@footgun("correct")
def looking_at_the_list_it_appends_to(compiled):
    losses = []

    @compiled
    def step(x):
        losses.append(x.sum())
        return x * len(losses)  # here

    for x in batches(3, 3):
        yield step(x), list(losses)


@footgun("correct")
def looking_at_the_list_before(compiled):
    buffer = []

    @compiled
    def step(x):
        if len(buffer) > 2:
            buffer.clear()
        buffer.append(x + 1)  # here
        return x * 2

    for x in batches(5, 3):
        yield step(x), list(buffer)


@footgun("correct")
def one_list_kept_twice(compiled):
    kept = []

    @compiled
    def step(x):
        row = [x + 1, x + 2]
        kept.append(row)
        return row

    for x in batches(3, 3):
        row = step(x)
        row[0] = None
        yield row, list(kept)


@footgun("correct")
def deleted_again(compiled):
    class State:
        pass

    state = State()

    @compiled
    def step(x):
        state.x = x
        y = state.x * 2
        del state.x
        return y

    for x in batches(3, 3):
        yield step(x), vars(state).copy()


@footgun("correct")
def an_error_after_a_change(compiled):
    seen = []

    class State:
        steps = 0

    state = State()
    state.steps = 0

    @compiled
    def step(x, index):
        seen.append(x.sum())
        state.steps += 1
        return x[index]

    for i, x in enumerate(batches(5, 3)):
        try:
            yield step(x, torch.tensor([i])), list(seen), state.steps
        except IndexError:
            yield "IndexError", list(seen), state.steps


@footgun("correct")
def read_before_and_after(compiled):
    @dataclasses.dataclass
    class State:
        scale: float = 1.0
        turn: int = 0

    state = State()

    @compiled
    def step(x):
        before = state.scale
        state.scale = before * 0.5
        state.turn = state.turn + 1
        y = x * state.scale + before
        state.scale += 0.25
        return y, state.turn

    for x in batches(7, 3):
        yield step(x), state


@footgun("correct")
def learning_rate_set_inside(compiled):
    net = nn.Linear(3, 2)
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    steps = 0

    @compiled
    def step(x):
        nonlocal steps
        steps += 1
        for group in opt.param_groups:
            group["lr"] = 0.1 / steps
        opt.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        opt.step()
        return loss

    for x in batches(5, 4, 3):
        yield step(x), net, opt


@footgun("correct")
def attributes_of_a_module(compiled):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 3)
            self.register_buffer("mean", torch.zeros(3))
            self.calls, self.last, self.hidden = 0, None, None

        def forward(self, x):
            y = self.inner(x)
            self.mean = 0.9 * self.mean + 0.1 * y.detach().mean(0)
            self.calls += 1
            self.last = y
            self.hidden = y.detach() if self.hidden is None else self.hidden * 0.5 + y.detach()
            return y + self.mean + self.hidden

    net = Net()
    run = compiled(net)
    for x in batches(6, 2, 3):
        y = run(x)
        F.relu(y).sum().backward()
        yield y, net, net.calls, net.last, net.hidden


# --- positions ------------------------------------------------------------------------------------


class Cache:
    def __init__(self, *shape):
        self.keys, self.position = torch.zeros(*shape), 0


@footgun("compiled", most=3)
def a_cache_written_at_a_position(compiled):
    cache = Cache(2, 12, 3)

    @compiled
    def step(x):
        cache.keys[:, cache.position] = x
        cache.position += 1
        return (cache.keys.sum(1) * x).sum()

    for x in batches(9, 2, 3):
        yield step(x), cache.keys, cache.position


@footgun("compiled", most=3)
def a_cache_written_in_pieces(compiled):
    cache = Cache(2, 12, 3)

    @compiled
    def step(x):
        n = x.shape[1]
        cache.keys[:, cache.position:cache.position + n] = x
        cache.position += n
        return cache.keys.sum()

    for x in batches(6, 2, 2, 3):
        yield step(x), cache.keys, cache.position


@footgun("correct")
def a_cache_that_is_full(compiled):
    cache = Cache(4, 2)

    @compiled
    def step(x):
        cache.keys[cache.position] = x
        cache.position += 1
        return cache.keys * 2

    for x in batches(7, 2):
        try:
            yield step(x), cache.keys, cache.position
        except IndexError:
            yield "full", cache.keys, cache.position


@footgun("correct")
def rows_read_at_a_position(compiled):
    state = Cache(8, 3)
    state.keys += torch.arange(8.0)[:, None]

    @compiled
    def step(x):
        row = state.keys[state.position]
        y = row * x
        state.position += 1
        return y

    for x in batches(6, 3):
        yield step(x), state.position


@footgun("correct")
def a_view_at_a_position_is_written_to(compiled):
    state = Cache(8, 3)

    @compiled
    def step(x):
        row = state.keys[state.position]
        row += x
        state.position += 1
        return state.keys.sum()

    for x in batches(5, 3):
        yield step(x), state.keys


@footgun("correct")
def a_view_at_a_position_is_returned(compiled):
    state = Cache(8, 3)

    @compiled
    def step(x):
        state.keys[2] = x
        row = state.keys[state.position]
        state.position += 1
        return row

    for x in batches(5, 3):
        row = step(x)
        row += 1
        yield row, state.keys


@footgun("correct")
def positions_as_keys(compiled):
    state = Cache(1)

    @compiled
    def step(x):
        found = {state.position: x * 2}
        found[state.position + 100] = x
        rows = [x, x + 1, x + 2]
        rows[state.position % 3] = x * 5
        state.position += 1
        return found, rows

    for x in batches(5, 3):
        yield step(x)


@footgun("correct")
def positions_from_the_end(compiled):
    state = Cache(6, 2)
    state.position = 2

    @compiled
    def step(x):
        state.keys[state.position] = x
        state.keys[state.position:state.position + 1] += 1
        state.position -= 1
        return state.keys.sum()

    for x in batches(6, 2):
        yield step(x), state.keys
