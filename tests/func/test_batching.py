"""vmap runs every operator once for the whole batch: same results as a loop, and no loop inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import lampion as torch
import lampion.nn.functional as F
from lampion import nn
from lampion.func import functional_call, grad, jacrev, stack_module_state, vmap
from lampion.func._batch import Batcher
from lampion.testing import assert_close

torch.manual_seed(0)
B = 3
V, W = torch.randn(B, 5), torch.randn(B, 5)
M, N = torch.randn(B, 4, 5), torch.randn(B, 5, 6)
C = torch.randn(B, 2, 4, 8, 8)  # batches of images
K, KB = torch.randn(B, 6, 4, 3, 3), torch.randn(B, 6)
I3 = torch.randint(0, 4, (B, 3))
T3 = torch.randint(0, 5, (B, 4))
Q = torch.randn(B, 2, 4, 6)
SPD = M @ M.mT + 4 * torch.eye(4)


@pytest.fixture
def looped(monkeypatch) -> list[str]:
    """The operators that ran in a loop."""
    names: list[str] = []
    by_loop = Batcher.by_loop

    def note(self: Batcher, op: Any, *args: Any) -> Any:
        names.append(op.name)
        return by_loop(self, op, *args)
    monkeypatch.setattr(Batcher, "by_loop", note)
    return names


def by_hand(fn: Callable[..., Any], in_dims: Any, args: Any) -> Any:
    """One call for each element, stacked."""
    rows = [fn(*(a if d is None else a.select(d, i) for a, d in zip(args, in_dims, strict=True)))
            for i in range(B)]
    if isinstance(rows[0], tuple):
        return tuple(torch.stack(column) for column in zip(*rows, strict=True))
    return torch.stack(rows)


def compared(fn: Callable[..., Any], args: Any, in_dims: Any, tolerance: float = 1e-5) -> None:
    got, want = vmap(fn, in_dims)(*args), by_hand(fn, in_dims, args)
    assert_close(got if not isinstance(got, tuple) else tuple(got), want, rtol=tolerance,
                 atol=tolerance)


ONE = {
    "pointwise": (lambda x: (x.exp() + 1).log().clamp(0.1, 2.0) * x.sigmoid(), V),
    "promotion": (lambda x: x.sum() * torch.ones(2, dtype=torch.float64) + x.sum().double(), V),
    "where": (lambda x: torch.where(x > 0, x, -x * 2), V),
    "in place": (lambda x: x.clone().add_(1).mul_(x).relu_(), V),
    "write through a view": (lambda x: _written(x.clone()), M),
    "masked": (lambda x: x.masked_fill(x > 0, 7.0), M),
    "reductions": (lambda x: (x.sum(), x.mean(0), x.prod(1), x.amax(-1), x.var(), x.std(0),
                              x.norm(), x.logsumexp(1), x.max(), x.argmax(), x.argmin(1)), M),
    "scalars": (lambda x: x.sum(0, keepdim=True) + x.mean() + x.max(0)[0].sum() ** 2, M),
    "zero-d": (lambda x: x.sum().softmax(0) + x.sum().cumsum(0) + x.sum().unsqueeze(0)[0], V),
    "prod of all": (lambda x: x.prod(), M),
    "softmax": (lambda x: x.softmax(-1) + x.log_softmax(0), M),
    "scans": (lambda x: x.cumsum(0) + x.cumprod(1) + x.flip(0) + x.roll(1, 1), M),
    "views": (lambda x: (x.t(), x.permute(1, 0), x.transpose(0, 1).reshape(-1), x.view(2, -1),
                         x[1], x[:, 2:4], x[..., None].squeeze(-1), x.expand(2, 4, 5),
                         x.diagonal(), x.unfold(1, 3, 1)), M),
    "pieces": (lambda x: (*x.split(2), *x.unbind(1), *x.chunk(2, 1)), M),
    "joined": (lambda x: torch.cat([x, torch.ones(1, 5), x.flip(0)]).sum(0) + torch.stack(
        [x, x * 2], 1).mean((0, 1)), M),
    "repeat": (lambda x: x.repeat(2, 1, 2), M),
    "sort": (lambda x: (*x.sort(1), *x.topk(2, 0), *x.max(1), *x.median(0)), M),
    "triangles": (lambda x: x.tril() + x.triu(1) + F.pad(x, (1, -1)), M),
    "index": (lambda x: (x[torch.tensor([0, 2])], x[:, torch.tensor([[0, 1]])],
                         x[torch.tensor([0, 1]), torch.tensor([2, 3])], x[None, 1, [0, 2]]), M),
    "layer norm": (lambda x: F.layer_norm(x, (5,)) + F.rms_norm(x, (5,)), M),
    "pools": (lambda x: (F.max_pool2d(x, 2), F.avg_pool2d(x, 2), F.adaptive_avg_pool2d(x, 2),
                         F.interpolate(x, scale_factor=2.0), F.pad(x, (1,) * 4, "reflect")), C),
    "norms of images": (lambda x: F.group_norm(x, 2) + F.batch_norm(
        x, None, None, training=True) + F.instance_norm(x), C),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), Q),
    "linalg": (lambda x: (torch.linalg.inv(x), torch.linalg.det(x), torch.linalg.cholesky(x),
                          torch.linalg.eigvalsh(x), x.tril().tril()), SPD),
    "complex": (lambda x: torch.fft.rfft(x).abs() + torch.fft.fft(x, dim=0).real[:, :3], M),
    "creation": (lambda x: torch.ones_like(x) + torch.zeros(4, 5) + x.new_full((5,), 2.0)
                 + torch.arange(5), M),
}


def _written(x: Any) -> Any:
    x[1:3, 0] = x[0, :2]
    x.view(-1)[3:5].mul_(2)
    return x


@pytest.mark.parametrize("name", ONE)
def test_functions_of_one_tensor(name: str, looped: list[str]) -> None:
    fn, x = ONE[name]
    compared(fn, (x,), (0,))
    assert set(looped) <= {"softmax", "cumsum"} if name == "zero-d" else not looped
    moved = x.movedim(0, -1)
    assert_close(vmap(fn, in_dims=-1)(moved), vmap(fn)(x), rtol=1e-5, atol=1e-5)


TWO = {
    "mm": (torch.mm, M, N), "matmul": (torch.matmul, M, N),
    "mv": (torch.mv, M, V), "dot": (torch.dot, V, W), "outer": (torch.outer, V, W),
    "bmm": (lambda x, y: torch.bmm(x[None].expand(2, 4, 5), y[None].expand(2, 5, 6)), M, N),
    "addmm": (lambda x, y: torch.addmm(x.sum() + torch.ones(6), x, y, beta=2, alpha=3), M, N),
    "baddbmm": (lambda x, y: torch.baddbmm(x.sum(), x[None], y[None], beta=0.5), M, N),
    "linear": (lambda x, w: F.linear(x, w.t(), w[0]), M, N),
    "of a vector": (lambda x, w: F.linear(x[0], w.t()) + x[0] @ w, M, N),
    "einsum": (lambda x, y: torch.einsum("ij,jk->ki", x, y), M, N),
    "conv": (lambda x, w: F.conv2d(x, w, padding=1, stride=2), C, K),
    "conv groups": (lambda x, w: F.conv2d(x, w[:4, :2], w[:4, 0, 0, 0], groups=2), C, K),
    "conv transposed": (lambda x, w: F.conv_transpose2d(x, w[:4], stride=2), C, K),
    "broadcast": (lambda x, y: x + y[0, :5] * y.sum(), M, N),
    "loss": (lambda x, y: F.mse_loss(x, y[:, :4].t()) + F.smooth_l1_loss(
        x, y[:, :4].t(), reduction="sum") + F.l1_loss(x, y[:, :4].t())
        + F.binary_cross_entropy_with_logits(x, y[:, :4].t().sigmoid()), M, N),
    "cross entropy": (F.cross_entropy, M, T3),
    "nll": (lambda x, t: F.nll_loss(x, t, torch.arange(5.0), reduction="sum", ignore_index=1)
            + F.nll_loss(x, t, torch.arange(5.0) + 1, ignore_index=1)
            + F.nll_loss(x, t, reduction="none"), M, T3),
    "one row": (lambda x, t: F.cross_entropy(x[0], t[0]), M, T3),
    "gather": (lambda x, i: x.gather(0, i[None]) + x.take_along_dim(i[:, None], 0).sum(), M, I3),
    "index by": (lambda x, i: (x[i], x[:, i], x[i, i + 1], x[i, None, :2]), M, I3),
    "index_put": (lambda x, i: x.index_put((i, i), x[0, :3], accumulate=True), M, I3),
    "scatter": (lambda x, i: x.scatter_add(0, i[None], torch.ones(1, 3)) + x.scatter(
        1, i[:, None], 2.0), M, I3),
    "embedding": (lambda w, i: F.embedding(i, w), M, I3),
    "one_hot": (lambda x, i: F.one_hot(i, 4).to(x.dtype) @ x, M, I3),
    "norm weights": (lambda x, w: F.layer_norm(x, (5,), w[:, 0], w[:, 1]) + F.rms_norm(
        x, (5,), w[:, 0]), M, N),
    "group norm weights": (lambda x, w: F.group_norm(x, 2, w[0, :4], w[1, :4]), C, N),
    "batch norm": (lambda x, w: F.batch_norm(x, w[0, :4], w[1, :4].exp(), w[2, :4], w[3, :4]),
                   C, N),
    "solve": (lambda a, b: torch.linalg.solve(a, b[:4]), SPD, N),
}
_IN_A_LOOP = {"solve": {"linalg_solve_ex"}, "index by": set()}


@pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0)], ids=str)
@pytest.mark.parametrize("name", TWO)
def test_functions_of_two_tensors(name: str, dims: Any, looped: list[str]) -> None:
    fn, *args = TWO[name]
    args = [a if d == 0 else a[1] for a, d in zip(args, dims, strict=True)]
    compared(fn, args, dims, 1e-4)
    assert set(looped) <= _IN_A_LOOP.get(name, set())


@pytest.mark.parametrize("name", TWO)
def test_gradients_per_element(name: str) -> None:
    fn, x, y = TWO[name]

    def total(x: Any, y: Any) -> Any:
        out = fn(x, y)
        return sum((o.sin().sum() for o in (out if isinstance(out, tuple) else (out,))),
                   start=x.sum() * 0)
    slope = grad(total)
    compared(slope, (x, y), (0, 0), 1e-3)
    compared(slope, (x[0], y), (None, 0), 1e-3)
    compared(slope, (x, y[0]), (0, None), 1e-3)


@pytest.mark.parametrize("name", sorted(set(ONE) - {"promotion", "index", "complex", "linalg"}))
def test_gradients_of_maps(name: str) -> None:
    """Backward through a map, and the gradients of its elements."""
    fn, x = ONE[name]

    def total(run: Any, x: Any) -> Any:
        found = run(x)
        found = found if isinstance(found, tuple) else (found,)
        return sum((o.cos().sum() for o in found if o.is_floating_point()), start=x.sum() * 0)
    mapped = grad(lambda x: total(vmap(fn), x))(x)
    assert_close(mapped, grad(lambda x: total(lambda x: by_hand(fn, (0,), (x,)), x))(x),
                 rtol=1e-3, atol=1e-3)
    assert_close(vmap(grad(lambda x: total(fn, x)))(x), mapped, rtol=1e-3, atol=1e-3)


def test_maps_inside_maps() -> None:
    fn = lambda x, y: (x @ y).softmax(0) * x.sum()
    got = vmap(vmap(fn, in_dims=(None, 1)), in_dims=(0, None))(M, N[0])
    want = torch.stack([torch.stack([fn(m, c) for c in N[0].t()]) for m in M])
    assert_close(got, want)
    inner = vmap(lambda x: vmap(lambda y: x * y + x.sum())(x))(M)
    assert_close(inner, torch.stack([torch.stack([x * y + x.sum() for y in x]) for x in M]))
    hessians = vmap(jacrev(jacrev(lambda v: (v ** 3).sum())))(V)
    assert_close(hessians, torch.diag_embed(6 * V))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(),
                                  nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5))

    def forward(self, x: Any) -> Any:
        return self.body(x)


def test_per_sample_gradients(looped: list[str]) -> None:
    model, x, y = Net(), torch.randn(6, 1, 8, 8), torch.randint(0, 5, (6,))
    params = {n: p.detach() for n, p in model.named_parameters()}

    def loss(params: Any, x: Any, y: Any) -> Any:
        return F.cross_entropy(functional_call(model, params, (x[None],)), y[None])
    got = vmap(grad(loss), in_dims=(None, 0, 0))(params, x, y)
    for i in range(6):
        want = grad(loss)(params, x[i], y[i])
        for n in want:
            assert_close(got[n][i], want[n], rtol=1e-4, atol=1e-5)
    assert not looped


def test_ensembles(looped: list[str]) -> None:
    models = [Net().eval() for _ in range(3)]
    params, buffers = stack_module_state(models)
    x = torch.randn(2, 1, 8, 8)
    call = lambda p, b, x: functional_call(models[0], (p, b), (x,))
    got = vmap(call, in_dims=(0, 0, None))(params, buffers, x)
    assert_close(got, torch.stack([m(x) for m in models]), rtol=1e-4, atol=1e-5)
    got.sum().backward()
    models[1](x).sum().backward()
    assert_close(params["body.0.weight"].grad[1], models[1].body[0].weight.grad, rtol=1e-4,
                 atol=1e-5)
    assert not looped


def test_values_of_elements_are_seen_one_by_one() -> None:
    calls: list[float] = []

    def fn(x: Any) -> Any:
        calls.append(0.0)
        return x[x > 0].sum() if x.sum() > 0 else x.sum()
    assert_close(vmap(fn)(V), by_hand(fn, (0,), (V,)))
    assert len(calls) >= 2 * B
    assert_close(vmap(lambda x: _into(torch.zeros(5), x))(V), V)


def _into(target: Any, x: Any) -> Any:
    target.copy_(x)
    return target


def test_a_write_reaches_what_was_mapped() -> None:
    x = V.clone()
    vmap(lambda x: x.mul_(2))(x)
    assert_close(x, 2 * V)


def test_results_that_do_not_vary_are_repeated() -> None:
    assert_close(vmap(lambda x: torch.ones(2))(V), torch.ones(B, 2))
    assert vmap(lambda x: (x, 3), out_dims=(0, None))(V)[1] == 3
    with pytest.raises(ValueError, match="can not return a BatchedTensor when out_dim is None"):
        vmap(lambda x: x, out_dims=None)(V)


def test_chunks() -> None:
    assert_close(vmap(lambda x: (x * 2, x.sum()), out_dims=(1, 0), chunk_size=2)(V),
                 ((V * 2).t(), V.sum(1)))
    draw = vmap(lambda x: torch.rand(2), randomness="different", chunk_size=2)
    assert draw(V).shape == (3, 2)


def test_random_numbers_are_drawn_for_the_batch() -> None:
    fn = lambda x: x + torch.rand(5) * F.dropout(x, 0.5) + torch.normal(x, 1.0)
    torch.manual_seed(3)
    got = vmap(fn, randomness="different")(V)
    torch.manual_seed(3)
    assert_close(got, V + torch.rand(B, 5) * F.dropout(V, 0.5) + torch.normal(V, 1.0))
    same = vmap(lambda x: F.dropout(torch.ones(5) + 0 * x), randomness="same")(V)
    assert_close(same, same[:1].expand(B, 5))
    orders = vmap(lambda x: torch.randperm(4), randomness="different")(V)
    assert_close(orders.sort(1)[0], torch.arange(4).expand(B, 4))
