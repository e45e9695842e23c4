"""Gradients, hooks, modes and random numbers around and inside compiled functions."""

import copy
import threading

import torch
import torch.nn.functional as F
from footguns import footgun
from torch import nn
from torch.utils.checkpoint import checkpoint


def ramp(n=4):
    return torch.arange(1.0, n + 1) / 2


# --- gradients over the border ----------------------------------------------------------------


@footgun("compiled")
def backward_outside(compiled):
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
    fn = compiled(net)
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(4):
        x = torch.randn(3, 4, requires_grad=True)
        opt.zero_grad()
        (fn(x) * 2).pow(2).mean().backward()
        opt.step()
        yield net, x


@footgun("compiled")
def gradients_wanted_or_not(compiled):
    w = torch.ones(4)

    @compiled
    def fn(x):
        return (x * w).exp()

    for of_x, of_w in ((False, False), (True, False), (True, True), (False, True)):
        x = ramp().requires_grad_(of_x)
        w.requires_grad_(of_w)
        w.grad = None
        y = fn(x)
        if y.requires_grad:
            y.sum().backward()
        yield y, x, w


@footgun("correct")
def result_detached_or_not(compiled):
    w = torch.ones(3, requires_grad=True)

    @compiled
    def fn(x):
        y = x * w
        return y, y.detach(), y.sum().item() > 0

    for i in range(3):
        y, d, _ = fn(ramp(3) - i)
        yield y.requires_grad, d.requires_grad, y, d


@footgun("correct")
def backward_twice(compiled):
    w = torch.ones(3, requires_grad=True)

    @compiled
    def fn(x):
        return (x * w).exp().sum()

    for keep in (True, False):
        loss = fn(ramp(3))
        loss.backward(retain_graph=keep)
        try:
            loss.backward()
            yield w
        except RuntimeError as error:
            yield "freed" in str(error) or "second time" in str(error), w


@footgun("compiled")
def backward_twice_inside(compiled):
    w = torch.ones(3, requires_grad=True)

    @compiled
    def fn(x):
        w.grad = None
        loss = (x * w).pow(2).sum()
        loss.backward(retain_graph=True)
        first = w.grad.clone()
        loss.backward()
        return first

    for i in range(3):
        yield fn(ramp(3) + i), w


@footgun("correct")
def penalty_on_a_gradient(compiled):
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

    @compiled
    def fn(x):
        net.zero_grad()
        x = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        loss = (g.norm(dim=1) - 1).pow(2).mean()
        loss.backward()
        return loss, g

    for _ in range(3):
        yield fn(torch.randn(2, 3)), net


@footgun("correct")
def second_derivative_outside(compiled):
    @compiled
    def fn(x):
        return (x**3).sum()

    for i in range(3):
        x = (ramp(3) + i).requires_grad_()
        (g,) = torch.autograd.grad(fn(x), x, create_graph=True)
        (h,) = torch.autograd.grad(g.sum(), x)
        yield g, h


@footgun("correct")
def gradient_of_an_inner_value(compiled):
    @compiled
    def fn(x):
        y = x * 2
        y.retain_grad()
        (y * y).sum().backward()
        return y.grad, y.is_leaf

    for i in range(3):
        x = (ramp(3) + i).requires_grad_()
        yield fn(x), x


@footgun("correct")
def value_saved_and_overwritten(compiled):
    @compiled
    def fn(x):
        y = x.exp()
        y.add_(1)
        return y.sum()

    for _ in range(2):
        x = ramp(3).requires_grad_()
        try:
            fn(x).backward()
        except RuntimeError as error:
            yield "modified by an inplace operation" in str(error), x


@footgun("correct")
def own_function(compiled):
    class Clip(torch.autograd.Function):
        limit = 0.5

        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.clamp(-1, 1)

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * (x.abs() < Clip.limit)

    w = torch.ones(4, requires_grad=True)

    @compiled
    def fn(x):
        w.grad = None
        Clip.apply(x * w).sum().backward()

    for limit in (0.5, 0.5, 2.0):
        Clip.limit = limit
        yield fn(ramp() - 0.9), w


@footgun("correct")
def function_that_recomputes(compiled):
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Tanh())

    @compiled
    def fn(x):
        net.zero_grad()
        y = checkpoint(net, x, use_reentrant=False)
        y.sum().backward()
        return y

    for _ in range(3):
        yield fn(torch.randn(3, 4)), net


@footgun("correct")
def transforms(compiled):
    @compiled
    def fn(w, x):
        loss = lambda w, x: (torch.tanh(w * x)).sum()
        return (torch.func.grad(loss)(w, x),
                torch.func.vmap(torch.func.grad(loss), (None, 0))(w, x.expand(2, 4)))

    for i in range(3):
        yield fn(ramp(), ramp() - i)


@footgun("compiled")
def eager_first_with_large_tensors(compiled):
    net = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))

    def step(x):
        net.zero_grad()
        net(x).square().mean().backward()

    x = torch.randn(40, 64)
    yield step(x), net
    fn = compiled(step)
    for _ in range(3):
        yield fn(x), net
        yield step(x), net


# --- hooks ------------------------------------------------------------------------------------


@footgun("correct")
def hooks_of_modules(compiled):
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    fn = compiled(net)
    seen = []
    x = torch.randn(2, 4)
    yield fn(x), seen
    watch = net[0].register_forward_hook(lambda m, args, out: seen.append(out.detach().clone()))
    yield fn(x), seen
    change = net[1].register_forward_pre_hook(lambda m, args: (args[0] * 10,))
    yield fn(x), seen
    watch.remove()
    yield fn(x), seen
    change.remove()
    yield fn(x), seen


@footgun("correct")
def hooks_of_gradients(compiled):
    w = torch.ones(4, requires_grad=True)

    @compiled
    def fn(x):
        w.grad = None
        (w * x).pow(2).sum().backward()

    log = []
    yield fn(ramp()), w
    double = w.register_hook(lambda g: g * 2)
    yield fn(ramp()), w
    w.register_post_accumulate_grad_hook(lambda p: log.append(p.grad.sum().item()))
    yield fn(ramp()), w, log
    double.remove()
    yield fn(ramp()), w, log


@footgun("correct")
def hook_inside(compiled):
    w = torch.ones(4, requires_grad=True)

    @compiled
    def fn(x, factor):
        w.grad = None
        y = w * x
        y.register_hook(lambda g: g * factor)
        y.sum().backward()

    for factor in (1.0, 3.0, -1.0):
        yield fn(ramp(), factor), w


@footgun("correct")
def hooks_on_the_way_back(compiled):
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    norms = []

    @compiled
    def fn(x):
        net.zero_grad()
        net(x).sum().backward()

    x = torch.randn(2, 4)
    yield fn(x), net
    hook = net[1].register_full_backward_hook(
        lambda m, gi, go: norms.append(go[0].norm().item()))
    yield fn(x), net, norms
    hook.remove()
    yield fn(x), net, norms


@footgun("correct")
def hooks_of_all_modules(compiled):
    net = nn.Linear(4, 3)
    fn = compiled(net)
    names = []
    x = torch.randn(2, 4)
    yield fn(x)
    hook = nn.modules.module.register_module_forward_hook(
        lambda m, args, out: names.append(type(m).__name__))
    try:
        yield fn(x), names
    finally:
        hook.remove()
    yield fn(x), names


@footgun("correct")
def update_in_the_backward(compiled):
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    opts = {p: torch.optim.SGD([p], lr=0.1) for p in net.parameters()}

    def update(p):
        opts[p].step()
        opts[p].zero_grad()

    for p in net.parameters():
        p.register_post_accumulate_grad_hook(update)

    @compiled
    def fn(x):
        loss = net(x).pow(2).mean()
        loss.backward()
        return loss

    for _ in range(3):
        yield fn(torch.randn(2, 4)), net


# --- modes ------------------------------------------------------------------------------------


@footgun("compiled")
def without_gradients_around(compiled):
    net = nn.Linear(4, 3)
    fn = compiled(net)
    x = torch.randn(2, 4)
    yield fn(x)
    with torch.no_grad():
        yield fn(x)
    with torch.inference_mode():
        y = fn(x)
        yield y.is_inference(), y.requires_grad
    with torch.set_grad_enabled(False), torch.enable_grad():
        yield fn(x)
    yield fn(x)


@footgun("compiled")
def without_gradients_inside(compiled):
    net = nn.Linear(4, 3)

    @compiled
    def fn(x):
        with torch.no_grad():
            target = net(x).softmax(-1)
        return F.cross_entropy(net(x + 1), target)

    for _ in range(3):
        net.zero_grad()
        fn(torch.randn(2, 4)).backward()
        yield net


@footgun("correct")
def mode_left_switched(compiled):
    @compiled
    def fn(x, on):
        torch.set_grad_enabled(on)
        return x * 2

    x = ramp().requires_grad_()
    try:
        for on in (False, True, False):
            yield fn(x, on), torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)


@footgun("correct")
def autocast_around_and_inside(compiled):
    net = nn.Linear(4, 3)

    @compiled
    def fn(x, inside):
        if inside:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return net(x)
        return net(x)

    x = torch.randn(2, 4)
    yield fn(x, False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield fn(x, False)
        with torch.autocast("cpu", enabled=False):
            yield fn(x, False)
    yield fn(x, True)
    with torch.autocast("cpu", dtype=torch.float16):
        yield fn(x, False)


@footgun("correct")
def default_type_changed(compiled):
    @compiled
    def fn(n):
        return torch.ones(n) / 3, torch.tensor(1.5)

    yield fn(3)
    try:
        torch.set_default_dtype(torch.float64)
        yield fn(3)
    finally:
        torch.set_default_dtype(torch.float32)
    yield fn(3)


@footgun("correct")
def default_type_changed_inside(compiled):
    @compiled
    def fn(x):
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            return torch.ones(3) + x
        finally:
            torch.set_default_dtype(before)

    for i in range(3):
        yield fn(i), torch.get_default_dtype()


@footgun("correct")
def number_of_threads_changed(compiled):
    @compiled
    def fn(x):
        return (x @ x.t()).sum(), x.mean(), torch.get_num_threads()

    before = torch.get_num_threads()
    x = torch.randn(20, 30)
    try:
        for n in (1, 2, 1):
            torch.set_num_threads(n)
            yield fn(x)
    finally:
        torch.set_num_threads(before)


# --- random numbers ---------------------------------------------------------------------------


@footgun("compiled")
def dropout_draws_the_same_stream(compiled):
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 4), nn.Dropout(0.1))
    fn = compiled(net)
    for _ in range(4):
        yield fn(torch.randn(3, 4)), torch.rand(2)


@footgun("compiled")
def noise_of_many_kinds(compiled):
    @compiled
    def fn(x):
        return (x + torch.randn_like(x), torch.rand(3), torch.randint(0, 9, (4,)),
                torch.randperm(5), torch.bernoulli(torch.full((4,), 0.5)), torch.normal(x, 1.0),
                torch.empty(3).uniform_(-1, 1), torch.multinomial(torch.ones(4), 2))

    for _ in range(3):
        yield fn(ramp())


@footgun("correct")
def seeded_inside(compiled):
    @compiled
    def fn(x, seed):
        torch.manual_seed(seed)
        return x + torch.rand(4)

    for seed in (1, 2, 1):
        yield fn(ramp(), seed), torch.rand(1)


@footgun("compiled")
def seeded_outside(compiled):
    @compiled
    def fn(x):
        return F.dropout(x, 0.5)

    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        yield fn(ramp()), fn(ramp())
    state = torch.get_rng_state()
    yield fn(ramp())
    torch.set_rng_state(state)
    yield fn(ramp())


@footgun("correct")
def own_generator(compiled):
    gen = torch.Generator().manual_seed(5)

    @compiled
    def fn(x):
        return x + torch.rand(4, generator=gen), torch.rand(2)

    for i in range(4):
        if i == 2:
            gen.manual_seed(5)
        yield fn(ramp()), gen.get_state()


@footgun("correct")
def random_state_kept_aside(compiled):
    @compiled
    def fn(x):
        with torch.random.fork_rng():
            noise = torch.rand(4)
        return x + noise, torch.rand(1)

    for _ in range(3):
        yield fn(ramp())


@footgun("compiled")
def as_many_draws_as_a_size(compiled):
    @compiled
    def fn(x):
        return F.dropout(x, 0.5) + torch.rand(len(x))

    for n in (4, 7, 4, 20):
        yield fn(torch.ones(n)), torch.rand(1)


@footgun("compiled")
def draws_whose_result_is_dropped(compiled):
    @compiled
    def fn(x):
        torch.rand(10)
        y = F.dropout(x, 0.5)
        torch.randn_like(y)
        return torch.rand(2)

    for _ in range(3):
        yield fn(ramp())


# --- several callers --------------------------------------------------------------------------


@footgun("compiled")
def called_from_threads(compiled):
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))

    @compiled
    def fn(x):
        with torch.no_grad():
            return net(x)

    inputs = [torch.randn(n, 4) for n in (3, 5, 3, 8)]
    fn(inputs[0])
    results = [[] for _ in inputs]

    def work(i):
        for _ in range(10):
            results[i].append(fn(inputs[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    yield results


@footgun("correct")
def two_compiled_functions_of_one_model(compiled):
    net = nn.Linear(4, 2)
    opt = torch.optim.SGD(net.parameters(), lr=0.1)

    @compiled
    def loss_of(x):
        return net(x).pow(2).mean()

    @compiled
    def step(x):
        opt.zero_grad()
        loss = loss_of(x)
        loss.backward()
        opt.step()
        return loss

    for _ in range(3):
        x = torch.randn(3, 4)
        yield step(x), loss_of(x), net


@footgun("correct")
def models_compiled_from_one_function(compiled):
    def forward(net, x):
        return net(x).sum()

    nets = [nn.Linear(4, 2), nn.Linear(4, 2)]
    nets.append(copy.deepcopy(nets[0]))
    fns = [compiled(lambda x, net=net: forward(net, x)) for net in nets]
    for i in range(3):
        x = torch.randn(3, 4)
        yield [fn(x) for fn in fns]
        nets[i].weight.data.mul_(2)


@footgun("correct")
def library_asked_whether_it_compiles(compiled):
    @compiled
    def fn(x):
        return x * 2 if torch.is_grad_enabled() else x, torch.is_tensor(x), isinstance(x, nn.Module)

    x = ramp()
    yield fn(x)
    with torch.no_grad():
        yield fn(x)


@footgun("correct")
def function_kept_out_of_programs(compiled):
    calls = []

    @torch.compiler.disable
    def outside(x):
        calls.append(1)
        return x + len(calls)

    @compiled
    def fn(x):
        return outside(x * 2) * 3

    for _ in range(3):
        yield fn(ramp()), len(calls)
