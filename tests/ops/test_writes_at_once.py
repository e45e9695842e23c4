"""In-place operators on large tensors: their kernels write where the result belongs."""

import pytest

import lampion as torch
from lampion.debug.knobs import override

F = torch.nn.functional
N = 9001  # enough for a kernel, and no multiple of a vector

CALLS = {
    "add": lambda x, y: x.add_(y), "add a number": lambda x, y: x.add_(1.5),
    "add scaled": lambda x, y: x.add_(y, alpha=-0.3), "sub": lambda x, y: x.sub_(y),
    "sub scaled": lambda x, y: x.sub_(y, alpha=2), "mul": lambda x, y: x.mul_(y),
    "div": lambda x, y: x.div_(y), "floor": lambda x, y: x.div_(y, rounding_mode="floor"),
    "pow": lambda x, y: x.pow_(2), "lerp": lambda x, y: x.lerp_(y, 0.1),
    "addcmul": lambda x, y: x.addcmul_(y, y, value=0.5),
    "addcdiv": lambda x, y: x.addcdiv_(y, y + 2, value=0.5),
    "clamp": lambda x, y: x.clamp_(-0.5, 0.5), "clamp_min": lambda x, y: x.clamp_min_(0),
    "clamp by a tensor": lambda x, y: x.clamp_(max=y), "relu": lambda x, y: x.relu_(),
    "exp": lambda x, y: x.exp_(), "abs": lambda x, y: x.abs_(),
    "sigmoid": lambda x, y: x.sigmoid_(),
    "masked_fill": lambda x, y: x.masked_fill_(y > 0, 3.0), "square": lambda x, y: x.square_(),
    "with itself": lambda x, y: x.mul_(x), "nan_to_num": lambda x, y: x.nan_to_num_(),
    "an overlapping window": lambda x, y: x[1:].add_(x[:-1]),
    "a turned view": lambda x, y: x[:9000].view(90, 100).t().add_(y[:9000].view(100, 90)),
    "itself turned": lambda x, y: x[:8100].view(90, 90).add_(x[:8100].view(90, 90).t()),
    "steps": lambda x, y: x[::2].mul_(y[::2]), "a row": lambda x, y: x[:9000].view(
        90, 100).add_(y[:100]), "reversed": lambda x, y: x.add_(y.flip(0)),
    "elu": lambda x, y: F.elu_(x), "silu": lambda x, y: F.silu(x, inplace=True),
    "hardtanh": lambda x, y: F.hardtanh_(x), "leaky_relu": lambda x, y: F.leaky_relu_(x),
    "another dtype": lambda x, y: x.add_(y.double()),
}


def outcome(call, kernels, dtype=torch.float32, grad=False):
    torch.manual_seed(0)
    x, y = torch.randn(N).to(dtype), torch.rand(N).to(dtype) + 0.1
    with override(kernels=kernels):
        if not grad:
            call(x, y)
            return [x]
        x.requires_grad_(), y.requires_grad_()
        z = x * 1
        call(z, y)
        weights = torch.linspace(-1, 1, N)
        return [z.detach(), *torch.autograd.grad(z, (x, y), weights, allow_unused=True)]


def assert_alike(found, expected, near):
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=near, atol=near)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_what_numpy_writes(name, dtype):
    near = 2e-2 if dtype == torch.bfloat16 else 2e-6
    assert_alike(outcome(CALLS[name], "sync", dtype), outcome(CALLS[name], "off", dtype), near)


@pytest.mark.parametrize("name", CALLS)
def test_histories_keep_what_gradients_need(name):
    found, expected = (outcome(CALLS[name], kernels, grad=True) for kernels in ("sync", "off"))
    assert_alike(found, expected, 2e-6)


@pytest.mark.parametrize("name", ["add", "mul", "relu", "clamp", "lerp"])
def test_nothing_is_allocated(name):
    x, y = torch.randn(1 << 20), torch.randn(1 << 20)
    with override(kernels="sync", check=False):  # checks need the old values
        CALLS[name](x, y)
        place, held = x.data_ptr(), torch.cpu.memory_allocated()
        torch.cpu.reset_peak_memory_stats()
        CALLS[name](x, y)
        assert x.data_ptr() == place
        assert torch.cpu.max_memory_allocated() < held + (1 << 20)


def test_results_that_do_not_fit_leave_the_tensor_alone():
    x = torch.ones(N)
    with override(kernels="sync"):
        with pytest.raises(RuntimeError, match="doesn't match the broadcast shape"):
            x.add_(torch.ones(2, N))
        counts = torch.arange(N)
        with pytest.raises(RuntimeError, match="can't be cast"):
            counts.mul_(0.5)
        with pytest.raises(RuntimeError, match="expanded tensor"):
            torch.ones(1).expand(N).mul_(2.0)
        frozen = torch.ones(N, requires_grad=True)
        with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
            frozen.mul_(2.0)
    assert x.eq(1).all() and torch.equal(counts, torch.arange(N)) and frozen.eq(1).all()


def test_versions_count():
    x = torch.ones(N)
    with override(kernels="sync"):
        x.add_(1).mul_(2)
    assert x._version == 2 and x.eq(4).all()


HOOKED = {
    "exp": (lambda z, y: z.exp_(), lambda t: t.exp(), lambda t: t.log()),
    "sigmoid": (lambda z, y: z.sigmoid_(), lambda t: t.sigmoid(), lambda t: (t / (1 - t)).log()),
    "div": (lambda z, y: z.div_(y), lambda t: t.div(3), lambda t: t * 3),
    "addcmul": (lambda z, y: z.addcmul_(y, y), lambda t: t.addcmul(t, t), lambda t: t),
}


@pytest.mark.parametrize("name", HOOKED)
def test_hooks_of_saved_tensors_may_call_the_same_operator(name):
    call, pack, unpack = HOOKED[name]

    def hooked(z, y):
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            call(z, y)
    found, expected = (outcome(hooked, kernels, grad=True) for kernels in ("sync", "off"))
    assert_alike(found, expected, 1e-5)


def test_what_a_checkpoint_keeps_is_not_overwritten():
    def steps(x):
        return (x * 1).sigmoid_().mul_(2).exp_()

    def run(kernels):
        x = torch.linspace(-1, 1, N).requires_grad_()
        with override(kernels=kernels):
            out = torch.utils.checkpoint.checkpoint(steps, x, use_reentrant=False)
            return [out.detach(), *torch.autograd.grad(out.sum(), x)]
    assert_alike(run("sync"), run("off"), 1e-5)


@pytest.mark.parametrize("call", [
    lambda x, y: x.mul_(other=y), lambda x, y: x.clamp_(min=y), lambda x, y: x.lerp_(y, weight=y),
    lambda x, y: x.mul_(y)], ids=["mul", "clamp", "lerp", "by place"])
def test_gradients_of_named_arguments_see_the_old_value(call):
    def run(kernels):
        x, y = torch.linspace(-2, 2, N), torch.linspace(0.1, 1, N).requires_grad_()
        with override(kernels=kernels):
            call(x, y)
        return torch.autograd.grad((x * x.detach()).sum(), y)
    assert_alike(run("sync"), run("off"), 1e-5)


@pytest.mark.parametrize("call", [
    lambda z, y: z.addcmul_(z, y), lambda z, y: z.addcdiv_(y, z + 3), lambda z, y: z.div_(z),
    lambda z, y: z.addcmul_(z, z)], ids=["addcmul", "addcdiv", "div", "twice"])
def test_operands_that_are_the_tensor_itself_keep_their_old_value(call):
    found, expected = (outcome(call, kernels, grad=True) for kernels in ("sync", "off"))
    assert_alike(found, expected, 1e-5)
