"""Mixed precision, scaled gradients and distributions inside compiled steps."""

import torch
import torch.nn.functional as F
from footguns import footgun
from torch import distributions as D
from torch import nn
from torch.nn.utils import clip_grad_norm_


class Net(nn.Module):
    def __init__(self, p=0.0):
        super().__init__()
        self.first, self.second = nn.Linear(4, 8, bias=False), nn.Linear(8, 3)
        self.norm, self.dropout = nn.BatchNorm1d(8), nn.Dropout(p)

    def forward(self, x):
        return self.second(self.dropout(self.norm(torch.tanh(self.first(x)))))


def batch(n=6):
    return torch.randn(n, 4), torch.randint(0, 3, (n,))


def scaler(**options):
    return torch.amp.GradScaler("cpu", **{"init_scale": 256.0, "growth_interval": 3, **options})


def books(scaler):
    """What a scaler keeps, without what the libraries call it."""
    return scaler.get_scale(), scaler.state_dict().get("_growth_tracker")


@footgun("compiled", most=1)
def scaled_step(compiled):
    net = Net(0.2)
    opt = torch.optim.AdamW(net.parameters(), lr=1e-2)
    sched = torch.optim.lr_scheduler.StepLR(opt, 3, 0.5)
    scaling = scaler()

    @compiled
    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y)
        scaling.scale(loss).backward()
        scaling.unscale_(opt)
        norm = clip_grad_norm_(net.parameters(), 1.0)
        scaling.step(opt)
        scaling.update()
        sched.step()
        return loss, norm

    for _ in range(8):
        yield step(*batch()), net, opt, sched, books(scaling)


@footgun("compiled", most=1)
def steps_with_overflow_are_skipped(compiled):
    net = Net()
    opt = torch.optim.Adam(net.parameters(), lr=1e-2)
    scaling = scaler()

    @compiled
    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y)
        scaling.scale(loss).backward()
        scaling.step(opt)
        scaling.update()
        return loss

    for i in range(9):
        x, y = batch()
        if i in (3, 4, 7):
            x[0, 0] = float("inf")
        yield step(x, y), net, opt, books(scaling)


@footgun("compiled", most=1)
def a_scaler_that_is_off(compiled):
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    scaling = scaler(enabled=False)

    @compiled
    def step(x, y):
        loss = F.cross_entropy(net(x), y)
        scaling.scale(loss).backward()
        scaling.unscale_(opt)
        scaling.step(opt)
        scaling.update()
        opt.zero_grad()
        return loss, scaling.get_scale()

    for _ in range(4):
        yield step(*batch()), net, opt


@footgun("compiled")
def scheduler_after_steps_that_were_made(compiled):
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    sched = torch.optim.lr_scheduler.StepLR(opt, 2, 0.5)
    scaling = scaler()

    @compiled
    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y)
        scaling.scale(loss).backward()
        before = scaling.get_scale()
        scaling.step(opt)
        scaling.update()
        if before <= scaling.get_scale():
            sched.step()
        return loss

    for i in range(7):
        x, y = batch()
        if i == 4:
            x[0, 0] = float("inf")
        yield step(x, y), net, opt, sched, books(scaling)


@footgun("compiled", most=1)
def two_optimizers_and_one_scaler(compiled):
    first, second = Net(), Net()
    opts = [torch.optim.SGD(n.parameters(), lr=0.1) for n in (first, second)]
    scaling = scaler()

    @compiled
    def step(x, y):
        losses = [F.cross_entropy(n(x), y) for n in (first, second)]
        for loss in scaling.scale(losses):
            loss.backward()
        for opt in opts:
            scaling.step(opt)
        scaling.update()
        for opt in opts:
            opt.zero_grad()
        return losses

    for i in range(6):
        x, y = batch()
        x[1] *= 1.0 if i != 3 else float("nan")
        yield step(x, y), first, second, books(scaling)


@footgun("correct")
def scaler_updated_outside(compiled):
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    scaling = scaler()

    @compiled
    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y)
        scaling.scale(loss).backward()
        scaling.step(opt)
        return loss

    for _ in range(5):
        yield step(*batch()), net
        scaling.update()
        yield books(scaling)


@footgun("correct")
def scaler_loaded_between(compiled):
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    scaling = scaler()

    @compiled
    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y)
        scaling.scale(loss).backward()
        scaling.step(opt)
        scaling.update()
        return loss

    for i in range(5):
        yield step(*batch()), net, books(scaling)
        if i == 2:
            state = {**scaling.state_dict(), "scale": 64.0, "_growth_tracker": 0}
            scaling.load_state_dict(state)


@footgun("compiled", most=1)
def clipping_that_refuses_infinities(compiled):
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)

    @compiled
    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        clip_grad_norm_(net.parameters(), 1.0, error_if_nonfinite=True)
        opt.step()
        return loss

    for i in range(6):
        x, y = batch()
        if i == 3:
            x[0, 0] = float("inf")
        try:
            yield step(x, y), net
        except RuntimeError:
            yield "refused", net


@footgun("compiled", most=1)
def autocast_steps(compiled):
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)

    @compiled
    def step(x, y):
        opt.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        return [p.grad.dtype for p in net.parameters()] == [torch.float32] * 5

    for _ in range(4):
        yield step(*batch())


# --- distributions --------------------------------------------------------------------------------


@footgun("compiled", most=1)
def variational_autoencoder(compiled):
    encode, decode = nn.Linear(6, 4), nn.Linear(2, 6)
    opt = torch.optim.Adam([*encode.parameters(), *decode.parameters()], lr=1e-2)

    @compiled
    def step(x):
        opt.zero_grad()
        mean, log_deviation = encode(x).chunk(2, -1)
        posterior = D.Independent(D.Normal(mean, log_deviation.exp()), 1)
        prior = D.Independent(D.Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
        z = posterior.rsample()
        likelihood = D.Independent(D.Bernoulli(logits=decode(z)), 1).log_prob((x > 0).float())
        loss = (D.kl_divergence(posterior, prior) - likelihood).mean()
        loss.backward()
        opt.step()
        return loss, z, posterior.log_prob(z)

    for _ in range(4):
        yield step(torch.randn(5, 6)), encode, decode


@footgun("compiled", most=1)
def clipped_policy_gradient(compiled):
    policy = nn.Linear(4, 3)
    opt = torch.optim.SGD(policy.parameters(), lr=0.1)

    @compiled
    def step(seen, done, old, advantage):
        opt.zero_grad()
        chosen = D.Categorical(logits=policy(seen))
        ratio = (chosen.log_prob(done) - old).exp()
        gain = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        loss = -gain.mean() - 0.01 * chosen.entropy().mean()
        loss.backward()
        opt.step()
        return loss, chosen.sample()

    for _ in range(4):
        yield step(torch.randn(7, 4), torch.randint(0, 3, (7,)), torch.randn(7),
                   torch.randn(7)), policy


@footgun("compiled", most=1)
def parameters_that_are_not_valid(compiled):
    calls = torch.zeros(())

    @compiled
    def draw(mean, scale, values):
        calls.add_(1)
        return D.Normal(mean, scale).log_prob(values) + torch.rand(3)

    for i in range(6):
        scale = torch.rand(3) + 0.1
        if i == 2:
            scale[1] = -1.0
        if i == 4:
            scale[1] = float("nan")
        try:
            yield draw(torch.randn(3), scale, torch.randn(3)), calls
        except ValueError as error:
            yield error, calls


@footgun("compiled", most=1)
def values_outside_of_the_support(compiled):
    @compiled
    def score(probabilities, values):
        return D.Categorical(probabilities).log_prob(values)

    for i in range(4):
        try:
            yield score(torch.rand(3, 4) + 0.1, torch.tensor([0, 1, 7 if i == 2 else 3]))
        except ValueError as error:
            yield error
