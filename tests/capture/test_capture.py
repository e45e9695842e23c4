"""Captured programs: printed, interpreted as eager runs, differentiated; and what is refused."""

from __future__ import annotations

import pytest

import lampion as torch
import lampion.nn.functional as F
from lampion import nn, optim
from lampion.capture import CaptureError, capture


def r(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def assert_same(a, b):
    if isinstance(a, (tuple, list)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
        return
    assert a.dtype == b.dtype and a.shape == b.shape
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6, equal_nan=True)


def _writes(a):
    b = a.clone()
    b[0].mul_(2)
    b.t()[1].add_(1)
    b.view(-1)[3:5].zero_()
    b[:, 2] = a[:, 0]
    b[torch.tensor([0, 2])] = 7.0
    return b


def _fresh_buffer(a):
    total = torch.zeros(3)
    for row in a:
        total += row
    return total


FORWARD = {
    "add": (lambda a, b: a + b * 2, r(3, 4), r(4)),
    "mul": (lambda a, b: a * b, r(3, 4), r(3, 1)),
    "exp and sum": (lambda a: a.exp().sum(1), r(3, 4)),
    "softmax": (lambda a: F.softmax(a, -1), r(3, 4)),
    "layer_norm": (lambda a, w, b: F.layer_norm(a, (4,), w, b), r(3, 4), r(4), r(4, seed=1)),
    "matmul": (lambda a, b: a @ b, r(2, 3, 4), r(4, 5)),
    "conv2d": (lambda a, w, b: F.conv2d(a, w, b, padding=1), r(2, 3, 6, 6), r(4, 3, 3, 3), r(4)),
    "gelu": (F.gelu, r(5)),
    "gelu with tanh": (lambda a: F.gelu(a, approximate="tanh"), r(5)),
    "cross_entropy": (F.cross_entropy, r(5, 3), torch.tensor([0, 1, 2, 1, 0])),
    "cross_entropy with options": (
        lambda a, t: F.cross_entropy(a, t, ignore_index=1, label_smoothing=0.1), r(5, 3),
        torch.tensor([0, 1, 2, 1, 0])),
    "indexing": (lambda a, i: (a[0], a[:, 1:], a[i], a[..., None], a[i, i], a[-1, ::2]), r(4, 4),
                 torch.tensor([0, 2])),
    "writes through views": (_writes, r(3, 3)),
    "a buffer of its own": (_fresh_buffer, r(4, 3)),
    "named results": (lambda a: a.topk(2), r(3, 4)),
    "where": (lambda a: torch.where(a > 0, a, a * 0.1), r(3, 4)),
    "max_pool2d": (lambda a: F.max_pool2d(a, 2), r(1, 1, 4, 4)),
    "embedding": (lambda w, i: F.embedding(i, w), r(4, 3), torch.tensor([1, 2])),
    "cat and chunk": (lambda a, b: torch.cat([a, b]).chunk(2), r(4, 3), r(4, 3, seed=1)),
    "attention": (lambda a: F.scaled_dot_product_attention(a, a, a, is_causal=True), r(1, 2, 4, 3)),
    "casts": (lambda a: a.half().float().to(torch.int64), r(4, 3)),
    "fresh constants": (lambda a: a + torch.arange(3) + torch.zeros_like(a), r(4, 3)),
}


@pytest.mark.parametrize("name", FORWARD)
def test_program_equals_eager(name):
    fn, *args = FORWARD[name]
    program = capture(fn, *args)
    expected = fn(*args)
    for _ in range(2):
        assert_same(program(*args), expected)
    others = [a.flip(0) for a in args]
    assert_same(program(*others), fn(*others))
    assert str(program).startswith("graph ")


def _grad_of(fn):
    def gradient(*args):
        floats = [a for a in args if a.is_floating_point()]
        out = fn(*args)
        total = sum((o * o).sum() for o in (out if isinstance(out, tuple) else (out,))
                    if o.is_floating_point())
        return torch.autograd.grad(total, floats)
    return gradient


@pytest.mark.parametrize("name", [n for n in FORWARD if n not in ("casts", "fresh constants")])
def test_backward_inside_a_program_equals_eager(name):
    fn, *args = FORWARD[name]
    args = [a.clone().requires_grad_() if a.is_floating_point() else a for a in args]
    program = capture(_grad_of(fn), *args)
    assert_same(program(*args), _grad_of(fn)(*args))


def test_second_derivative_inside_a_program():
    def second(x):
        g, = torch.autograd.grad((x.sin() * x).sum(), x, create_graph=True)
        return torch.autograd.grad((g ** 2).sum(), x)[0]

    x = r(4).requires_grad_()
    assert_same(capture(second, x)(x), second(x))


def training(capture_it: bool, make_optimizer):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3))
    optimizer = make_optimizer(net.parameters())

    def step(x, t):
        loss = F.cross_entropy(net(x), t)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    data = [(r(6, 4, seed=i), torch.tensor([0, 1, 2, 0, 1, 2])) for i in range(4)]
    run = capture(step, *data[0], state=net) if capture_it else step
    losses = [run(x, t).item() for x, t in data]
    return losses, [p.detach() for p in net.parameters()], run


def test_sgd_update_is_captured():
    make = lambda params: optim.SGD(params, lr=0.1, foreach=False)
    losses, weights, program = training(True, make)
    expected, expected_weights, _ = training(False, make)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert_same(weights, expected_weights)
    text = str(program)
    assert "write %0.weight <- " in text and "write %3.bias <- " in text


def test_update_written_by_hand():
    w = torch.ones(3, requires_grad=True)

    def step(x):
        loss = ((w * x).sum() - 1) ** 2
        g, = torch.autograd.grad(loss, w)
        with torch.no_grad():
            w.sub_(0.1 * g)
        return loss

    program = capture(step, r(3))
    assert w.tolist() == [1.0, 1.0, 1.0]
    twin = w.detach().clone().requires_grad_()
    for i in range(3):
        program(r(3, seed=i))
    for i in range(3):
        x = r(3, seed=i)
        g, = torch.autograd.grad(((twin * x).sum() - 1) ** 2, twin)
        with torch.no_grad():
            twin.sub_(0.1 * g)
    assert_same(w.detach(), twin.detach())


def test_backward_accumulates_into_grad():
    w = torch.ones(2, requires_grad=True)
    program = capture(lambda x: (w * x).sum().backward(), r(2))
    assert w.grad is None
    x = torch.tensor([3.0, 4.0])
    program(x)
    assert w.grad.tolist() == [3.0, 4.0]
    again = capture(lambda x: (w * x).sum().backward(), r(2))
    assert w.grad.tolist() == [3.0, 4.0]
    again(x)
    assert w.grad.tolist() == [6.0, 8.0]


def test_running_statistics_are_state():
    net, twin = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    program = capture(net, r(5, 3), state=net)
    assert net.running_mean.tolist() == [0.0, 0.0, 0.0]
    for i in range(2):
        assert_same(program(r(5, 3, seed=i)).detach(), twin(r(5, 3, seed=i)).detach())
    assert_same(net.running_mean, twin.running_mean)
    assert net.num_batches_tracked.item() == 2


def test_write_through_a_view_made_outside():
    base = torch.zeros(2, 3)
    row, column = base[0], base[:, 1]

    def run(x):
        row.add_(x)
        column.mul_(10)
        return base.sum()

    program = capture(run, torch.ones(3))
    assert base.tolist() == [[0.0] * 3] * 2
    assert program(torch.ones(3)).item() == 12.0
    assert base.tolist() == [[1.0, 10.0, 1.0], [0.0] * 3]
    assert row.tolist() == [1.0, 10.0, 1.0]


def test_nested_arguments_and_results():
    def run(batch, scale):
        return {"out": [batch["x"] * scale, (batch["y"],)], "n": 3}

    batch = {"x": r(2), "y": r(3)}
    program = capture(run, batch, 2.0)
    out = program(batch, 2.0)
    assert out["n"] == 3
    assert_same(out["out"][0], batch["x"] * 2)
    assert_same(out["out"][1][0], batch["y"])


def test_arguments_are_checked():
    program = capture(lambda x: x * 2, r(3))
    with pytest.raises(TypeError, match=r"captured as float32\[3\], received float32\[4\]"):
        program(r(4))
    with pytest.raises(TypeError, match="1 tensor arguments, received 2"):
        program(r(3), r(3))


# --- refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [
    lambda x: x.sum().item(), lambda x: float(x[0]), lambda x: bool((x > 0).all()),
    lambda x: x.tolist(), lambda x: x.numpy(), lambda x: 1 if x[0] > 0 else 2,
    lambda x: x.nonzero(), lambda x: x[x > 0],
    lambda x: list(range(x.long()[0]))])
def test_reading_a_value_names_the_users_line(read):
    with pytest.raises(CaptureError) as caught:
        capture(read, torch.ones(3))
    assert __file__ in str(caught.value)


def test_error_names_the_very_line():
    def run(x):
        y = x * 2
        return y.sum().item()  # this line

    with pytest.raises(CaptureError, match=r"return y\.sum\(\)\.item\(\)  # this line"):
        capture(run, torch.ones(2))


@pytest.mark.parametrize("draw", [
    lambda x: x + torch.rand(40), lambda x: F.dropout(x, 0.5), torch.rand_like,
    lambda x: x.clone().normal_(), torch.bernoulli,
    lambda x: torch.arange(40.)[torch.randperm(40)] * x])
def test_programs_draw_anew_and_from_the_same_stream(draw):
    x = torch.full((40,), 0.5)
    program = capture(draw, x)
    torch.manual_seed(7)
    first, second = program(x), program(x)
    assert not torch.equal(first, second)
    torch.manual_seed(7)
    assert_same(first, draw(x))
    assert_same(second, draw(x))


def test_equal_draws_are_not_shared():
    program = capture(lambda x: torch.rand_like(x) - torch.rand_like(x), torch.ones(3))
    assert len(program.graph.draws) == 2
    assert program(torch.ones(3)).abs().sum() > 0


def test_print_of_a_captured_tensor_shows_its_shape(capsys):
    capture(lambda x: print(x + 1), torch.ones(3))
    assert "size=(3,)" in capsys.readouterr().out


def test_write_through_detach_and_data():
    w = torch.ones(2, requires_grad=True)

    def run(x):
        w.detach().add_(x)
        w.data.mul_(2)
        return w.sum()

    assert capture(run, torch.ones(2))(torch.ones(2)).item() == 8.0
    assert w.tolist() == [4.0, 4.0]


def test_alias_made_outside():
    x = torch.zeros(2)
    other = x.detach()

    def run(a):
        x.add_(a)
        return other * 10

    program = capture(run, torch.ones(2))
    assert program(torch.ones(2)).tolist() == [10.0, 10.0]
    assert x.tolist() == other.tolist() == [1.0, 1.0]


def test_capture_inside_a_capture():
    with pytest.raises(CaptureError, match="inside a capture"):
        capture(lambda x: capture(lambda y: y, x), torch.ones(1))


def test_nothing_is_touched_when_the_function_raises():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x = torch.ones(4, 2)
    loose = torch.zeros(2)
    view = loose[:1]

    def run(x):
        net(x).sum().backward()
        loose.add_(1)
        view.mul_(3)
        with torch.no_grad():
            net[0].weight.zero_()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        capture(run, x, state=net)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert loose.tolist() == [0.0, 0.0] and view.tolist() == [0.0] and x.tolist() == [[1.0] * 2] * 4
    view.add_(5)
    assert loose.tolist() == [5.0, 0.0]
    net(x).sum().backward()
    capture(lambda t: t * 2, x)


def test_capture_leaves_versions_and_history_alone():
    x = torch.ones(2)
    y = torch.ones(2, requires_grad=True)
    capture(lambda a: a.add_(1) * y, x, state=y)
    assert x.tolist() == [1.0, 1.0] and x._version == 0 and y.is_leaf and y._version == 0
    z = torch.ones(2)
    z.add_(y * 2)
    (z * z).sum().backward()
    assert y.grad.tolist() == [12.0, 12.0]
