"""Modules, parameters and optimizers that change between the calls of a compiled step."""

import copy
import io
import pickle

import torch
import torch.nn.functional as F
from footguns import footgun
from torch import nn
from torch.nn.utils import clip_grad_norm_


class Net(nn.Module):
    def __init__(self, p=0.0):
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3)
        self.norm, self.dropout = nn.BatchNorm1d(8, eps=0.1), nn.Dropout(p)

    def forward(self, x):
        return self.second(self.dropout(self.norm(torch.tanh(self.first(x)))))


def batch(n=6):
    return torch.randn(n, 4), torch.randint(0, 3, (n,))


def trainer(compiled, net, opt, **options):
    """The usual step."""
    @compiled(**options)
    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        return loss
    return step


# --- optimizers -------------------------------------------------------------------------------


@footgun("compiled", most=3)
def the_whole_step(compiled):
    net = Net(0.2)
    opt = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 10)

    @compiled
    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        sched.step()
        return loss

    for _ in range(6):
        yield step(*batch()), net, opt, sched


@footgun("compiled", most=3)
def learning_rate_set_by_hand(compiled):
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    step = trainer(compiled, net, opt)
    for lr in (0.1, 0.05, 0.0, 0.2, 1e-3):
        opt.param_groups[0]["lr"] = lr
        yield step(*batch()), net, opt


@footgun("compiled", most=3)
def scheduler_outside(compiled):
    net = Net()
    opt = torch.optim.Adam(net.parameters(), lr=0.1)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.1, total_steps=8)
    step = trainer(compiled, net, opt)
    for _ in range(5):
        yield step(*batch()), net, opt
        sched.step()  # changes beta1 too


@footgun("compiled")
def other_hyperparameters(compiled):
    net = Net()
    opt = torch.optim.Adam(net.parameters(), lr=0.01)
    step = trainer(compiled, net, opt)
    yield step(*batch()), net, opt
    for change in ({"betas": (0.5, 0.9)}, {"weight_decay": 0.1}, {"eps": 1e-2}, {"maximize": True}):
        opt.param_groups[0].update(change)
        yield step(*batch()), net, opt


@footgun("compiled")
def momentum_switched_on(compiled):
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    step = trainer(compiled, net, opt)
    for momentum, nesterov in ((0.0, False), (0.9, False), (0.9, True), (0.0, False)):
        opt.param_groups[0].update(momentum=momentum, nesterov=nesterov)
        yield step(*batch()), net, opt


@footgun("correct")
def group_added(compiled):
    net = Net()
    opt = torch.optim.SGD(net.first.parameters(), lr=0.1)
    step = trainer(compiled, net, opt)
    yield step(*batch()), net, opt
    opt.add_param_group({"params": net.second.parameters(), "lr": 0.01, "weight_decay": 0.1})
    for _ in range(2):
        yield step(*batch()), net, opt
    del opt.param_groups[0]
    yield step(*batch()), net


@footgun("correct")
def optimizer_replaced(compiled):
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)

    @compiled
    def step(x, y):
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()

    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop):
        opt = kind(net.parameters(), lr=0.01)
        for _ in range(2):
            yield step(*batch()), net, opt


@footgun("compiled")
def optimizer_state_loaded(compiled):
    net = Net()
    opt = torch.optim.Adam(net.parameters(), lr=0.01)
    step = trainer(compiled, net, opt)
    step(*batch())
    weights, state = copy.deepcopy(net.state_dict()), copy.deepcopy(opt.state_dict())
    x, y = batch()
    for _ in range(3):
        yield step(x, y), net, opt
    net.load_state_dict(weights)
    opt.load_state_dict(state)
    for _ in range(2):
        yield step(x, y), net, opt


@footgun("correct")
def optimizer_state_cleared(compiled):
    net = Net()
    opt = torch.optim.Adam(net.parameters(), lr=0.01)
    step = trainer(compiled, net, opt)
    for i in range(5):
        if i == 2:
            opt.state.clear()
        if i == 4:
            opt.state[net.first.weight]["exp_avg"].zero_()
        yield step(*batch()), net, opt


@footgun("compiled")
def gradients_kept_as_zeros(compiled):
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)

    @compiled
    def step(x, y):
        opt.zero_grad(set_to_none=False)
        F.cross_entropy(net(x), y).backward()
        opt.step()

    step(*batch())
    grads = [p.grad for p in net.parameters()]
    for _ in range(3):
        yield step(*batch()), net, [p.grad is g for p, g in zip(net.parameters(), grads)]


@footgun("compiled")
def gradients_accumulated_over_calls(compiled):
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)

    @compiled
    def micro(x, y):
        loss = F.cross_entropy(net(x), y) / 3
        loss.backward()
        return loss

    for i in range(7):
        yield micro(*batch()), net
        if i % 3 == 2:
            opt.step()
            opt.zero_grad()


@footgun("correct")
def gradients_set_by_hand(compiled):
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)

    @compiled
    def step(x):
        net(x).exp().mean().backward()
        opt.step()

    x, _ = batch()
    yield step(x), net
    net.first.weight.grad = torch.ones(8, 4)
    yield step(x), net
    net.first.weight.grad = None
    yield step(x), net
    for p in net.parameters():
        p.grad.zero_()
    yield step(x), net


@footgun("compiled")
def gradients_read_between_calls(compiled):
    net = Net()

    @compiled
    def fn(x):
        net.zero_grad()
        net(x).exp().mean().backward()
        return [p.grad.norm() for p in net.parameters()]

    kept = []
    for _ in range(3):
        yield fn(batch()[0]), kept
        kept.append(net.first.weight.grad)


@footgun("compiled")
def two_optimizers(compiled):
    one, other = nn.Linear(4, 4), nn.Linear(4, 1)
    opts = [torch.optim.Adam(one.parameters(), lr=0.1), torch.optim.SGD(other.parameters(), lr=1)]

    @compiled
    def step(x, which):
        for opt in opts:
            opt.zero_grad()
        other(one(x)).mean().backward()
        opts[which].step()

    for which in (0, 1, 1, 0):
        yield step(batch()[0], which), one, other, opts


@footgun("correct")
def scaler_that_skips(compiled):
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)

    @compiled
    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y)
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
        return loss

    for bad in (False, False, True, False, False, False):
        x, y = batch()
        yield step(x * float("inf") if bad else x, y), scaler, opt
    yield [p.isfinite().all() for p in net.parameters()]


@footgun("correct")
def line_search(compiled):
    net = nn.Linear(4, 1)
    opt = torch.optim.LBFGS(net.parameters(), lr=0.5, max_iter=3)
    x, _ = batch()

    @compiled
    def step():
        def closure():
            opt.zero_grad()
            loss = (net(x) - 1).pow(2).mean()
            loss.backward()
            return loss
        return opt.step(closure)

    for _ in range(3):
        yield step(), net


@footgun("correct")
def learning_rate_is_a_tensor(compiled):
    net = Net()
    opt = torch.optim.Adam(net.parameters(), lr=torch.tensor(0.01))
    step = trainer(compiled, net, opt)
    for _ in range(4):
        yield step(*batch()), net
        opt.param_groups[0]["lr"].mul_(0.5)


# --- modules ----------------------------------------------------------------------------------


@footgun("compiled")
def training_and_evaluation_in_turns(compiled):
    net = Net(0.5)
    fn = compiled(net)
    x, _ = batch()
    for train in (True, False, True, True, False):
        net.train(train)
        yield fn(x), net


@footgun("correct")
def part_of_the_model_in_evaluation(compiled):
    net = Net(0.5)
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    step = trainer(compiled, net, opt)
    for frozen in (False, True, False):
        net.norm.train(not frozen)
        yield step(*batch()), net


@footgun("correct")
def flags_of_the_compiled_module(compiled):
    net = Net(0.5)
    fn = compiled(net)
    x, _ = batch()
    for i in range(4):
        fn.eval() if i % 2 else fn.train()
        yield fn(x), net, fn.training, fn.dropout.training


@footgun("compiled")
def attributes_of_layers(compiled):
    net = Net(0.1)
    net.train()
    fn = compiled(net)
    x, _ = batch()
    yield fn(x), net
    for name, value in (("p", 0.9), ("p", 0.0), ("p", 0.5)):
        setattr(net.dropout, name, value)
        yield fn(x), net
    for name, value in (("eps", 1.0), ("momentum", 0.9), ("momentum", None)):
        setattr(net.norm, name, value)
        yield fn(x), net


@footgun("correct")
def layer_replaced(compiled):
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    step = trainer(compiled, net, opt)
    yield step(*batch()), net
    net.second = nn.Linear(8, 3)
    yield step(*batch()), net
    net.second = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    yield step(*batch()), net
    net.norm = nn.Identity()
    yield step(*batch()), net


@footgun("correct")
def layers_added_to_a_list(compiled):
    layers = nn.ModuleList([nn.Linear(4, 4)])

    @compiled
    def fn(x):
        for layer in layers:
            x = layer(x).tanh()
        return x

    for _ in range(3):
        yield fn(torch.ones(2, 4))
        layers.append(nn.Linear(4, 4))
    layers[0] = nn.Identity()
    yield fn(torch.ones(2, 4))


@footgun("correct")
def parameter_replaced(compiled):
    net = Net()
    fn = compiled(net)
    x, _ = batch()
    yield fn(x), net
    net.first.weight = nn.Parameter(torch.ones(8, 4))
    yield fn(x), net
    net.first.bias = None
    yield fn(x), net
    del net.first.weight
    net.first.weight = torch.zeros(8, 4)
    yield fn(x)


@footgun("compiled")
def parameter_frozen_and_not(compiled):
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    step = trainer(compiled, net, opt)
    for frozen in (False, True, True, False):
        net.first.requires_grad_(not frozen)
        yield step(*batch()), net


@footgun("compiled")
def data_of_a_parameter(compiled):
    net = Net()
    fn = compiled(net)
    x, _ = batch()
    yield fn(x), net
    net.first.weight.data = torch.ones(8, 4)
    yield fn(x), net
    net.first.weight.data.mul_(0.5)
    yield fn(x), net
    with torch.no_grad():
        net.first.weight[0] = 7.0
        net.second.bias.copy_(torch.arange(3.0))
    yield fn(x), net


@footgun("correct")
def data_assigned_inside(compiled):
    w = nn.Parameter(torch.ones(4))

    @compiled
    def fn(x):
        (w * x).sum().backward()
        w.data = w.data - 0.1 * w.grad
        w.grad = None
        return w.sum()

    for i in range(3):
        yield fn(torch.arange(4.0) + i), w


@footgun("compiled")
def weights_tied_and_untied(compiled):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x):
            return self.head(self.embed(x))

    net = Tied()
    opt = torch.optim.Adam(net.parameters(), lr=0.01)
    step = trainer(compiled, net, opt)
    x = torch.tensor([0, 1, 4])
    for i in range(5):
        if i == 3:
            net.head.weight = nn.Parameter(net.head.weight.detach().clone())
            opt.add_param_group({"params": [net.head.weight]})
        yield step(x, x), net, opt


@footgun("compiled")
def weights_loaded(compiled):
    net, other = Net(), Net()
    fn = compiled(net)
    x, _ = batch()
    net.eval()
    yield fn(x), net
    net.load_state_dict(other.state_dict())
    yield fn(x), net
    net.load_state_dict(other.state_dict(), assign=True)
    other.first.weight.data.zero_()
    yield fn(x), net


@footgun("compiled")
def buffers_written(compiled):
    class Count(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros((), dtype=torch.long))
            self.register_buffer("mean", torch.zeros(4))
            self.register_buffer("scratch", None, persistent=False)

        def forward(self, x):
            self.count += 1
            self.mean = self.mean + (x - self.mean) / self.count
            self.scratch = x * 2
            return x - self.mean

    net = Count()
    fn = compiled(net)
    for i in range(4):
        yield fn(torch.arange(4.0) * i), net
    net.mean = torch.full((4,), 9.0)
    net.count.zero_()
    yield fn(torch.arange(4.0)), net


@footgun("compiled")
def statistics_of_batches(compiled):
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    fn = compiled(net)
    for _ in range(3):
        yield fn(torch.randn(3, 2, 5, 5)), net


@footgun("correct")
def statistics_without_tracking(compiled):
    net = nn.BatchNorm1d(4, track_running_stats=False)
    fn = compiled(net)
    for train in (True, False, True):
        net.train(train)
        yield fn(torch.randn(5, 4)), net


@footgun("compiled")
def dtype_of_the_model(compiled):
    net = nn.Linear(4, 3)
    fn = compiled(net)
    x, _ = batch()
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float32):
        net.to(dtype)
        yield fn(x.to(dtype)), net


@footgun("correct")
def weights_normalised(compiled):
    net = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    step = trainer(compiled, net, opt)
    for _ in range(3):
        yield step(*batch()), net
    nn.utils.parametrize.remove_parametrizations(net, "weight")
    yield step(*batch()), net


@footgun("correct")
def spectral_norm_iterates(compiled):
    net = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))
    fn = compiled(net)
    x, _ = batch()
    for train in (True, True, False, True):
        net.train(train)
        yield fn(x), net


@footgun("correct")
def averaged_weights(compiled):
    net = Net()
    ema = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    opt = torch.optim.SGD(net.parameters(), lr=0.1)

    @compiled
    def step(x, y):
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()
        ema.update_parameters(net)

    for _ in range(3):
        yield step(*batch()), net, ema


@footgun("correct")
def unused_parameter(compiled):
    net = nn.ModuleDict({"used": nn.Linear(4, 3), "idle": nn.Linear(4, 3)})
    opt = torch.optim.Adam(net.parameters(), lr=0.1)

    @compiled
    def step(x, name):
        opt.zero_grad()
        net[name](x).sum().backward()
        opt.step()

    for name in ("used", "used", "idle", "used"):
        yield step(batch()[0], name), net, opt


@footgun("compiled")
def evaluation_between_steps(compiled):
    net = Net(0.3)
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    step = trainer(compiled, net, opt)
    x, _ = batch()
    for _ in range(4):
        net.train()
        loss = step(*batch())
        net.eval()
        with torch.no_grad():
            yield loss, net(x), net


# --- copies, names, files ---------------------------------------------------------------------


@footgun("correct")
def names_of_the_state(compiled):  # never _orig_mod
    net = compiled(Net())
    yield net(batch()[0])
    yield list(net.state_dict()), [n for n, _ in net.named_parameters()]
    plain = Net()
    plain.load_state_dict(net.state_dict())
    net.load_state_dict(plain.state_dict())
    yield plain.eval()(torch.ones(2, 4)), isinstance(net, Net), type(net).__name__


@footgun("correct")
def copy_of_a_compiled_module(compiled):
    net = compiled(Net())
    x, _ = batch()
    net.eval()
    yield net(x)
    other = copy.deepcopy(net)
    other.first.weight.data.zero_()
    yield net(x), other(x)
    net.second.weight.data.zero_()
    yield net(x), other(x)


@footgun("correct")
def module_through_pickle(compiled):
    net = compiled(Net())
    net.eval()
    x, _ = batch()
    before = net(x)
    other = pickle.loads(pickle.dumps(net))
    yield before, other(x), sorted(other.state_dict())


@footgun("correct")
def checkpoint_of_a_compiled_module(compiled):
    net = compiled(Net())
    opt = torch.optim.Adam(net.parameters(), lr=0.1)
    net(batch()[0]).exp().mean().backward()
    opt.step()
    file = io.BytesIO()
    torch.save({"net": net.state_dict(), "opt": opt.state_dict()}, file)
    file.seek(0)
    state = torch.load(file)
    fresh = Net()
    fresh.load_state_dict(state["net"])
    yield sorted(state["net"]), fresh, net


@footgun("correct")
def module_compiled_in_place(compiled):
    net = Net(0.2)
    if compiled(abs) is not abs:
        net.compile()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    for i in range(4):
        net.train(i != 2)
        opt.zero_grad()
        loss = F.cross_entropy(net(batch()[0]), torch.arange(6) % 3)
        loss.backward()
        opt.step()
        yield loss, net


@footgun("correct")
def part_of_a_module_compiled(compiled):
    net = Net()
    net.first = compiled(net.first)
    net.forward = compiled(net.forward)
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        opt.zero_grad()
        loss = F.cross_entropy(net(batch()[0]), torch.zeros(6, dtype=torch.long))
        loss.backward()
        opt.step()
        yield loss, list(net.state_dict()), net.second.weight


@footgun("compiled")
def update_alone_compiled(compiled):
    net = Net()
    opt = torch.optim.AdamW(net.parameters(), lr=0.1)
    update = compiled(lambda: opt.step())
    for i in range(4):
        opt.zero_grad()
        F.cross_entropy(net(batch()[0]), torch.zeros(6, dtype=torch.long)).backward()
        if i == 2:
            net.first.weight.grad = None
        update()
        yield net, opt


@footgun("correct")
def program_takes_over(compiled):
    net = Net(0.1)
    opt = torch.optim.Adam(net.parameters(), lr=0.01)
    step = trainer(compiled, net, opt, mode="default")
    losses = [step(*batch()) for _ in range(30)]
    yield torch.stack(losses), net, opt
