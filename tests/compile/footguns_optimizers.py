"""Optimizers of every kind inside compiled steps, and those that users write themselves."""

import math

import torch
import torch.nn.functional as F
from footguns import footgun
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def trained(compiled, net, opt, sched=None, steps=5):
    """The usual step, and what it leaves behind."""
    @compiled
    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        if sched is not None:
            sched.step()
        return loss

    for _ in range(steps):
        yield step(torch.randn(7, 4), torch.randint(0, 3, (7,))), net, opt


def story_of(make, most=3):
    def story(compiled):
        net = Net()
        opt = make(net.parameters())
        yield from trained(compiled, net, opt, torch.optim.lr_scheduler.StepLR(opt, 2, 0.5))
    return footgun("compiled", most)(story)


step_of_nadam = story_of(lambda p: torch.optim.NAdam(p, lr=1e-2, weight_decay=0.1))
step_of_asgd = story_of(lambda p: torch.optim.ASGD(p, lr=1e-2, t0=2))
step_of_radam = story_of(lambda p: torch.optim.RAdam(p, lr=1e-2))
step_of_rprop = story_of(lambda p: torch.optim.Rprop(p, lr=1e-2))
step_of_adamax = story_of(lambda p: torch.optim.Adamax(p, lr=1e-2))
step_of_adadelta = story_of(lambda p: torch.optim.Adadelta(p, lr=1e-1))
step_of_rmsprop = story_of(lambda p: torch.optim.RMSprop(p, lr=1e-2, momentum=0.9, centered=True))
step_of_adagrad = story_of(lambda p: torch.optim.Adagrad(p, lr=1e-2))
step_of_adafactor = story_of(lambda p: torch.optim.Adafactor(p, lr=1e-2))


@footgun("compiled", most=3)
def step_of_muon(compiled):
    net = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3, bias=False))
    opt = torch.optim.Muon(net.parameters(), lr=1e-2)
    sched = torch.optim.lr_scheduler.StepLR(opt, 2, 0.5)
    for loss, *_ in trained(compiled, net, opt, sched):
        yield (loss.item() > 0, opt.param_groups[0]["lr"],
               [p.abs().sum().item() < 100 for p in net.parameters()])


@footgun("correct")
def step_of_lbfgs(compiled):
    net = Net()
    opt = torch.optim.LBFGS(net.parameters(), max_iter=3)

    @compiled
    def step(x, y):
        def closure():
            opt.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            return loss
        return opt.step(closure)  # here

    for _ in range(3):
        yield step(torch.randn(7, 4), torch.randint(0, 3, (7,))), net


# --- written by users -----------------------------------------------------------------------------


class PlainDescent(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1, momentum=0.9):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "velocity" not in state:
                    state["velocity"] = torch.zeros_like(p)
                state["velocity"].mul_(group["momentum"]).add_(p.grad)
                p.add_(state["velocity"], alpha=-group["lr"])


class CountingAdam(torch.optim.Optimizer):
    """As in many repositories: `.data`, steps counted in a Python int."""

    def __init__(self, params, lr=1e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.01):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps,
                                  "weight_decay": weight_decay})

    def step(self, closure=None):
        loss = None
        if closure is not None:
            loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                grad = p.grad.data
                state = self.state[p]
                if len(state) == 0:
                    state["step"] = 0
                    state["exp_avg"] = torch.zeros_like(p.data)
                    state["exp_avg_sq"] = torch.zeros_like(p.data)
                mean, square = state["exp_avg"], state["exp_avg_sq"]
                state["step"] += 1
                mean.mul_(beta1).add_(grad, alpha=1 - beta1)
                square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                scale = math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])
                if group["weight_decay"] != 0:
                    p.data.add_(p.data, alpha=-group["weight_decay"] * group["lr"])
                p.data.addcdiv_(mean, square.sqrt().add_(group["eps"]),
                                value=-group["lr"] * scale)
        return loss


class SignDescent(torch.optim.Optimizer):
    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})
        self.steps = 0

    def step(self):
        self.steps += 1
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p -= group["lr"] / self.steps * p.grad.sign()


step_of_plain_descent = story_of(PlainDescent, 4)
step_of_counting_adam = story_of(CountingAdam, 4)
step_of_sign_descent = story_of(lambda p: SignDescent(p, 0.1), 4)


@footgun("compiled", most=4)
def scaled_steps_of_an_own_optimizer(compiled):
    net = Net()
    opt = CountingAdam(net.parameters())
    scaling = torch.amp.GradScaler("cpu", init_scale=64.0)

    @compiled
    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y)
        scaling.scale(loss).backward()
        scaling.step(opt)
        scaling.update()
        return loss

    for i in range(6):
        x = torch.randn(7, 4)
        x[0] *= 1.0 if i != 3 else float("inf")
        yield step(x, torch.randint(0, 3, (7,))), net, opt


@footgun("correct")
def own_optimizer_with_other_parameters(compiled):
    net = Net()
    opt = PlainDescent(net.first.parameters())
    step = trained(compiled, net, opt, steps=6)
    for i in range(6):
        yield next(step)
        if i == 2:
            opt.add_param_group({"params": list(net.second.parameters()), "lr": 0.01})
        if i == 3:
            opt.param_groups[0]["momentum"] = 0.5


@footgun("compiled", most=3)
def plateau(compiled):
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=0.5)
    sched = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=0, factor=0.5)

    @compiled
    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        sched.step(loss)
        return loss

    for _ in range(7):
        loss = step(torch.randn(7, 4), torch.randint(0, 3, (7,)))
        yield loss, net, opt.param_groups[0]["lr"], sched


@footgun("compiled", most=3)
def plateau_of_a_number(compiled):
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=0.5)
    sched = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, mode="max", patience=1)

    @compiled
    def step(x, y):
        opt.zero_grad()
        out = net(x)
        F.cross_entropy(out, y).backward()
        opt.step()
        correct = (out.argmax(-1) == y).sum().item()
        sched.step(correct / len(y))
        return correct

    for _ in range(7):
        yield step(torch.randn(7, 4), torch.randint(0, 3, (7,))), net, opt.param_groups[0]["lr"]
