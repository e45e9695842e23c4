"""Operators whose kernels are templates, beside their references through the public API."""

import pytest
from references import both

import lampion as torch
from lampion.debug.knobs import override

F = torch.nn.functional


def close(expected, got, tolerance):
    for a, b in zip(expected, got, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert torch.allclose(a.float(), b.float(), rtol=tolerance, atol=tolerance * float(
            a.float().abs().max()))


CASES = {
    "linear": lambda d: F.linear(torch.randn(33, 65).to(d), torch.randn(40, 65).to(d),
                                 torch.randn(40).to(d)),
    "linear of many axes": lambda d: F.linear(torch.randn(2, 3, 17, 65).to(d),
                                              torch.randn(40, 65).to(d)),
    "mm": lambda d: torch.randn(65, 33).to(d).t() @ torch.randn(65, 47).to(d),
    "bmm": lambda d: torch.randn(5, 33, 17).to(d) @ torch.randn(5, 17, 40).to(d),
    "addmm": lambda d: torch.addmm(torch.randn(33, 40).to(d), torch.randn(33, 65).to(d),
                                   torch.randn(65, 40).to(d), beta=0.5, alpha=2),
    "baddbmm": lambda d: torch.baddbmm(torch.randn(5, 33, 40).to(d), torch.randn(5, 33, 17).to(d),
                                       torch.randn(5, 17, 40).to(d), beta=0),
    "conv2d": lambda d: F.conv2d(torch.randn(2, 6, 17, 19).to(d), torch.randn(8, 3, 3, 3).to(d),
                                 torch.randn(8).to(d), 2, 1, 1, 2),
    "conv_transpose1d": lambda d: F.conv_transpose1d(
        torch.randn(2, 6, 91).to(d), torch.randn(6, 4, 3).to(d), None, 2, 1),
    "attention": lambda d: F.scaled_dot_product_attention(
        *(torch.randn(2, 3, 37, 16).to(d) for _ in range(3)), is_causal=True),
}


@pytest.mark.parametrize("dtype, tolerance", [
    ("float32", 1e-5), ("float64", 1e-12), ("bfloat16", 2e-2), ("float16", 4e-3)])
@pytest.mark.parametrize("name", CASES)
def test_products(name, dtype, tolerance):
    expected, got = both(lambda: CASES[name](getattr(torch, dtype)))
    close([expected], [got], tolerance)


def gradients(layer, *shape):
    x = torch.randn(*shape, requires_grad=True)
    out = layer(x)
    out = out[0] if isinstance(out, tuple) else out
    (out * torch.randn(out.shape)).sum().backward()
    return [out.detach(), x.grad, *(p.grad for p in layer.parameters())]


LAYERS = {
    "Linear": (lambda: torch.nn.Linear(65, 33), (40, 65)),
    "Conv1d": (lambda: torch.nn.Conv1d(5, 8, 5, padding=2), (3, 5, 101)),
    "Conv2d": (lambda: torch.nn.Conv2d(6, 12, 3, padding=1), (3, 6, 17, 15)),
    "Conv2d depthwise": (lambda: torch.nn.Conv2d(8, 8, 3, 2, 1, groups=8), (3, 8, 17, 15)),
    "Conv3d": (lambda: torch.nn.Conv3d(3, 4, 3, dilation=2), (2, 3, 9, 10, 11)),
    "ConvTranspose2d": (lambda: torch.nn.ConvTranspose2d(6, 4, 3, 2, 1, 1), (2, 6, 13, 11)),
    "MaxPool2d": (lambda: torch.nn.MaxPool2d(3, 2, 1), (3, 4, 17, 19)),
    "AvgPool2d": (lambda: torch.nn.AvgPool2d(3, 2, 1, count_include_pad=False), (3, 4, 17, 19)),
    "MaxPool1d": (lambda: torch.nn.MaxPool1d(3, 2, 1), (3, 4, 171)),
    "MaxPool3d": (lambda: torch.nn.MaxPool3d((2, 3, 2), 2, 1), (3, 4, 7, 9, 19)),
    "AdaptiveMaxPool2d": (lambda: torch.nn.AdaptiveMaxPool2d((3, 5)), (3, 4, 17, 19)),
    "ReflectionPad2d": (lambda: torch.nn.ReflectionPad2d((3, 1, -2, 4)), (3, 4, 17, 19)),
    "ReplicationPad3d": (lambda: torch.nn.ReplicationPad3d(2), (2, 4, 7, 9, 19)),
    "CircularPad1d": (lambda: torch.nn.CircularPad1d((3, 1)), (3, 4, 171)),
    "LSTM": (lambda: torch.nn.LSTM(33, 40, 2), (9, 5, 33)),
    "GRU": (lambda: torch.nn.GRU(33, 40, bidirectional=True), (9, 5, 33)),
    "RNN": (lambda: torch.nn.RNN(33, 40, nonlinearity="relu"), (9, 5, 33)),
    "BatchNorm2d": (lambda: torch.nn.BatchNorm2d(6), (5, 6, 17, 15)),
    "GroupNorm": (lambda: torch.nn.GroupNorm(3, 6), (5, 6, 17, 15)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_and_their_gradients(name):
    make, shape = LAYERS[name]
    expected, got = both(lambda: gradients(make(), *shape))
    close(expected, got, 2e-5)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_indices(dim):
    def run():
        x = torch.randn(17, 19, 23, requires_grad=True)
        i = torch.randint(0, 11, (40,))
        along = torch.randint(0, x.shape[dim], x.shape)
        parts = [x.index_select(dim, i), x.gather(dim, along),
                 torch.zeros(17, 19, 23).scatter_add(dim, along, x),
                 torch.zeros(17, 19, 23).index_copy(dim, i[:9], x.narrow(dim, 3, 9)),
                 x.cumsum(dim), x.topk(5, dim)[0], x * x.argmax(dim, keepdim=True)]
        sum((p * p).sum() for p in parts).backward()
        return [*(p.detach() for p in parts), x.grad]
    close(*both(run), 1e-5)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_cross_entropy(reduction):
    def run():
        x = torch.randn(130, 17, 3, requires_grad=True)
        loss = F.cross_entropy(x, torch.randint(0, 17, (130, 3)), torch.rand(17),
                               reduction=reduction)
        loss.sum().backward()
        return [loss.detach(), x.grad]
    close(*both(run), 1e-5)


def test_embedding():
    def run():
        w = torch.randn(50, 33, requires_grad=True)
        out = F.embedding(torch.randint(0, 50, (40, 7)), w)
        (out * torch.randn(out.shape)).sum().backward()
        return [out.detach(), w.grad]
    close(*both(run), 1e-5)


@pytest.mark.parametrize("call, error", [
    (lambda: F.embedding(torch.tensor([2000]), torch.zeros(2000, 2)), IndexError),
    (lambda: torch.zeros(2000, 2).index_select(0, torch.tensor([-1])), IndexError),
    (lambda: torch.zeros(2000, 2).gather(0, torch.full((2000, 2), 2000)), RuntimeError),
    (lambda: F.cross_entropy(torch.zeros(2000, 2), torch.full((2000,), 2)), IndexError),
    (lambda: torch.zeros(2000, 2) @ torch.zeros(3, 2000), RuntimeError),
])
def test_bad_input_gives_the_errors_of_the_references(call, error):
    messages = []
    for mode in ("off", "sync"):
        with override(kernels=mode), pytest.raises((IndexError, RuntimeError)) as info:
            call()
        messages.append((type(info.value), str(info.value)))
    assert messages[0] == messages[1]
    assert issubclass(messages[0][0], error)


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "complex64"])
def test_moved_elements(dtype):
    def run():
        x = torch.randn(9, 17, 23).to(getattr(torch, dtype))
        t = x.transpose(0, 1)
        found = [x.flip(0), t.flip((0, 1)), x.flip(2), x.repeat(2, 3, 1), t.repeat(2, 1, 2, 3)]
        return [*found, x.tril(2), x.triu(-3), t.tril(), t.transpose(1, 2).triu(4)]
    for a, b in zip(*both(run), strict=True):
        assert torch.equal(a, b) and a.stride() == b.stride()


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64"])
def test_products_of_integers_are_exact(dtype):
    d = getattr(torch, dtype)
    a, b = torch.randint(-100, 100, (70, 90)).to(d), torch.randint(-100, 100, (90, 80)).to(d)
    assert torch.equal(a @ b, (a[:, :, None] * b).sum(1).to(d))
    large = a * (torch.iinfo(d).max // 100)  # sums wrap around
    assert torch.equal(large @ b, (large[:, :, None] * b).sum(1).to(d))
