"""Recorded launches, replayed with other values, give what launches on those values give.

A launcher that computes with values when it is called, by NumPy, fails here.
"""

import numpy as np
import pytest
from replaying import replayed
from test_kernels_beside_references import ATTRIBUTES, NAMES, SHAPES, arguments
from test_launchers import CASES, LAYERS, gradients

import lampion as torch
from lampion.codegen.gemm import gemm
from lampion.codegen.stream import Recording
from lampion.debug.knobs import override
from lampion.ops import native, record
from lampion.ops.record import LEAVES
from lampion.runtime import memory

F = torch.nn.functional
IN_PYTHON = {"sort"}  # NumPy sorts between two kernels


@pytest.fixture(autouse=True)
def unchecked():
    """Values in another order fit no forward pass, so references have nothing to say of them."""
    with override(check=False):
        yield


def check(run, *names):
    """Replays the launches of `run`; all of them, and these operators and rules among them."""
    torch.manual_seed(0)
    with override(kernels="sync"), replayed() as report:
        run()
    assert set(report.in_python) <= IN_PYTHON
    assert report.replayed and set(names) <= set(report.replayed)


@pytest.mark.parametrize("name", NAMES)
def test_traced_operators(name):
    leaf, attrs = LEAVES[name], ATTRIBUTES.get(name, ())
    with replayed() as report, override(kernels="sync"), np.errstate(all="ignore"):
        for pick, shape in enumerate(SHAPES):
            record.launch(leaf, arguments(leaf, shape, pick), attrs)
    assert report.replayed[name] >= 3 and not report.in_python


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("name", CASES)
def test_products(name, dtype):
    check(lambda: CASES[name](getattr(torch, dtype)))


@pytest.mark.parametrize("name", LAYERS)
def test_layers_and_their_gradients(name):
    make, shape = LAYERS[name]
    check(lambda: gradients(make(), *shape))


def test_a_projected_recurrent_layer():
    check(lambda: gradients(torch.nn.LSTM(33, 40, 2, proj_size=20), 9, 5, 33), "lstm_backward")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("name, call", [
    ("index_select", lambda x, i, along, dim: x.index_select(dim, i)),
    ("gather", lambda x, i, along, dim: x.gather(dim, along)),
    ("index", lambda x, i, along, dim: x[(*[slice(None)] * dim, i - 9)]),
    ("index", lambda x, i, along, dim: x[(*[slice(None)] * dim, i.reshape(5, 8))]),
])
def test_gradients_of_places(name, call, dim, dtype):
    x = torch.randn(17, 19, 23, dtype=dtype, requires_grad=True)
    i, along = torch.randint(0, 11, (40,)), torch.randint(0, 17, x.shape)
    check(lambda: call(x, i, along, dim).pow(2).sum().backward(), name, name + "_backward")


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("name, call", [
    ("index_select", lambda x, i, along, dim: x.index_select(dim, i)),
    ("gather", lambda x, i, along, dim: x.gather(dim, along)),
    ("scatter_add", lambda x, i, along, dim: torch.zeros(17, 19, 23).scatter_add(dim, along, x)),
    ("index_add", lambda x, i, along, dim: torch.zeros(17, 19, 23).index_add(
        dim, torch.arange(x.shape[dim]), x)),
    ("index_copy", lambda x, i, along, dim: torch.zeros(17, 19, 23).index_copy(
        dim, i[:9], x.narrow(dim, 3, 9))),
    ("index_put", lambda x, i, along, dim: torch.zeros(17, 19, 23).index_put(
        (*[None] * dim, i[:9]), x.narrow(dim, 3, 9)) if dim else x.index_put((i,), x[:1])),
    ("argmax", lambda x, i, along, dim: x * x.argmax(dim, keepdim=True)),
    ("cumsum", lambda x, i, along, dim: x.cumsum(dim)),
    ("topk", lambda x, i, along, dim: x.topk(5, dim)[0]),
    ("sort", lambda x, i, along, dim: x.sort(dim)[0]),
    ("cummax", lambda x, i, along, dim: x.cummax(dim)[0]),
])
def test_indices(name, call, dim):
    x = torch.randn(17, 19, 23, requires_grad=True)
    i, along = torch.randint(0, 11, (40,)), torch.randint(0, 17, x.shape)
    check(lambda: call(x, i, along, dim).pow(2).sum().backward(), *{name} - IN_PYTHON)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_cross_entropy(reduction):
    def run():
        x, y = torch.randn(130, 17, 3, requires_grad=True), torch.randn(1300, 17).requires_grad_()
        F.cross_entropy(x, torch.randint(0, 17, (130, 3)), torch.rand(17),
                        reduction=reduction).sum().backward()
        F.cross_entropy(y, torch.randint(0, 17, (1300,)), reduction=reduction).sum().backward()
    check(run, "nll_loss", "nll_loss2d", "nll_backward")


def test_embedding():
    def run():
        w = torch.randn(50, 33, requires_grad=True)
        F.embedding(torch.randint(0, 50, (40, 7)), w).pow(2).sum().backward()
    check(run, "embedding", "embedding_dense_backward")


FUNCTIONS = {
    "linear upsampling": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "nearest upsampling": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "cubic resampling": lambda x: F.interpolate(x, size=(9, 31), mode="bicubic"),
    "gated": lambda x: F.glu(x, 1),
    "distances": lambda x: torch.cdist(x.flatten(1, 2), x.flatten(1, 2) * 2),
    "sampled": lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1).tanh(),
                                       align_corners=False),
    "sampled volumes": lambda x: F.grid_sample(x[:, None], x[:, :3, None].permute(
        0, 2, 3, 4, 1).tanh(), "nearest", "border", True),
    "sampled by cubics": lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1).tanh(),
                                                 "bicubic", align_corners=True),
    "adaptive maxima": lambda x: F.adaptive_max_pool2d(x, (5, 7)),
    "maxima of lines": lambda x: F.max_pool1d(x.flatten(2), 3, 2, 1),
    "maxima of volumes": lambda x: F.max_pool3d(x, 3, 2, 1),
    "padded by reflection": lambda x: F.pad(x, (3, 2, 1, 4), "reflect"),
    "padded by its border": lambda x: F.pad(x, (3, 2, -1, 4), "replicate"),
    "added by lines": lambda x: torch.zeros(9, 4, 24, 24).scatter_add(
        0, torch.tensor([3, 8, 3]).view(3, 1, 1, 1).expand(3, 4, 24, 24), x),
    "gathered by lines": lambda x: x.gather(
        2, torch.arange(0, 24, 3).view(8, 1).expand(3, 4, 8, 24)),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x),
    "attention with a mask": lambda x: F.scaled_dot_product_attention(
        x, x, x, attn_mask=torch.ones(24, 24).tril().bool()),
    "attention with a bias": lambda x: F.scaled_dot_product_attention(
        x, x, x, attn_mask=torch.randn(24, 24)),
    "joined": lambda x: torch.cat([x, torch.stack([x, x * 2], 1).flatten(1, 2)], 1),
    "copied": lambda x: x.permute(0, 2, 3, 1).contiguous(),
    "reduced": lambda x: x.sum((0, 2)) + x.var((1, 2, 3))[:, None].sum() + x.logsumexp(0).sum(1),
    "extremes": lambda x: x.amax(1) + x.max(1)[0],
    "repeated": lambda x: x.repeat(2, 1, 1, 2).masked_fill(x[:1, :1, :1, :1] > 0, 1.5),
    "products of all": lambda x: x.prod(1) + x.cumprod(1)[:, 0],
    "norms": lambda x: x.norm() + F.group_norm(x, 2) + F.layer_norm(x, (24,)),
    "losses": lambda x: F.smooth_l1_loss(x, x.detach() * 2) + F.binary_cross_entropy_with_logits(
        x, x.sigmoid().detach()),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_and_their_gradients(name):
    x = torch.randn(3, 4, 24, 24, requires_grad=True)
    check(lambda: FUNCTIONS[name](x).pow(2).sum().backward())


@pytest.mark.parametrize("name", [
    "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "RAdam", "Adamax", "ASGD", "Rprop",
    "Adadelta"])
def test_updates_of_optimizers(name):
    weight = torch.nn.Parameter(torch.randn(65, 65))
    optimizer = getattr(torch.optim, name)([weight], lr=1e-2)

    def run():
        for _ in range(2):
            weight.grad = torch.randn(65, 65)
            optimizer.step()
    check(run, name.lower().replace("adamw", "adam"))


def careless(x):
    """A launcher that computes by NumPy on the way."""
    out = memory.empty(x.shape, x.dtype)
    gemm(out, np.maximum(x, 0), x)
    return out


def forgetful(x):
    """A launcher whose kernel adds to memory that is cleared only once."""
    out = np.zeros(x.shape, x.dtype)
    gemm(out, x, x, accumulate=True)
    return out


@pytest.mark.parametrize("launcher", [careless, forgetful])
def test_launchers_that_compute_with_values_are_found(launcher, monkeypatch):
    monkeypatch.setitem(native.TEMPLATES, "relu", launcher)
    with pytest.raises(AssertionError, match="relu"):
        check(lambda: record.launch(LEAVES["relu"], [torch.randn(70, 70).numpy()], ()))


@pytest.mark.parametrize("name, arrays, attrs", [
    ("embedding", [np.zeros((50, 8), np.float32), np.full(2000, 3)], (-1, False)),
    ("nll_loss", [np.zeros((500, 5), np.float32), np.full(500, 3), None], ("mean", -100)),
])
def test_bad_indices_raise_what_the_reference_raises(name, arrays, attrs):
    leaf = LEAVES[name]
    with override(kernels="sync"), Recording() as r:
        planned = [None if a is None else r.input(a) for a in arrays]
        stream = r.finish([native.launch(leaf, planned, attrs)])
    given = [a for a in arrays if a is not None]
    stream(given)
    for bad in (-1, 50):
        wrong = given[1].copy()
        wrong[1234 % wrong.size] = bad
        with pytest.raises(IndexError) as expected:
            leaf.kernel(arrays[0], wrong, *arrays[2:], *attrs)
        with pytest.raises(IndexError) as info:
            stream([given[0], wrong])
        assert str(info.value) == str(expected.value)
    stream(given)


def test_numbers_of_updates_are_given_at_each_run():
    from lampion.ops.optimize import UPDATES, Scalars

    p, g = (np.full(2000, v, np.float32) for v in (1.0, 0.5))
    with override(kernels="sync"), Recording() as r:
        arrays = [r.input(p), r.input(g)]
        scalars = Scalars([r.number(1.0), None], p.dtype)
        assert native.launch_update(UPDATES["sgd"], arrays, scalars, False)
        stream = r.finish([])
    stream([p, g], [0.5])
    stream([p, g], [0.25])
    assert (p == 1 - 0.25 - 0.125).all()
