"""Scans, what indices pick, and the gradients of both against PyTorch, with their kernels."""

import ml_dtypes
import numpy as np
import pytest

import lampion
from lampion.debug.knobs import override

oracle = pytest.importorskip("torch")
FRAMEWORKS = (lampion, oracle)


@pytest.fixture(autouse=True)
def kernels():
    with override(kernels="sync"):
        yield


def array(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("f")


def both(run):
    """Results of a function of a framework, as arrays."""
    return [[np.asarray(t.detach().to(fw.float64).tolist()) for t in run(fw)] for fw in FRAMEWORKS]


def close(found, bound):
    for ours, theirs in zip(*found, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=bound, atol=bound)


def with_gradients(fw, x, weights, call, dtype="float32"):
    """The result of a call and the gradient of its weighted sum."""
    t = fw.tensor(x.tolist(), dtype=getattr(fw, dtype)).reshape(x.shape).requires_grad_()
    out = call(fw, t)
    factor = fw.tensor(weights(tuple(out.shape)).tolist(), dtype=out.dtype).reshape(out.shape)
    return [out, *fw.autograd.grad((out * factor).sum(), t)]


SCANNED = {
    "sums": lambda fw, x, dim: x.cumsum(dim),
    "products": lambda fw, x, dim: (x.abs() * 0.1 + 0.95).cumprod(dim),
    "logarithms": lambda fw, x, dim: x.logcumsumexp(dim),
    "maxima": lambda fw, x, dim: x.cummax(dim)[0],
    "minima": lambda fw, x, dim: x.cummin(dim).values,
    "sums of what is turned": lambda fw, x, dim: x.transpose(0, 2).cumsum(dim),
    "sums of every second": lambda fw, x, dim: x[:, ::2].cumsum(dim),
    "products of every second": lambda fw, x, dim: (x[:, :, 1::2].abs() * 0.1 + 0.9).cumprod(dim),
}


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("name", SCANNED)
def test_scans(name, dim):
    x = array((18, 21, 35))
    close(both(lambda fw: with_gradients(
        fw, x, array, lambda fw, t: SCANNED[name](fw, t, dim))), 2e-5)


@pytest.mark.parametrize("shape", [(0, 70), (70, 0), (1, 2000), (2000, 1), (3, 1025)])
def test_scans_of_odd_shapes(shape):
    for dim in (0, 1):
        for name in ("sums", "logarithms"):
            close(both(lambda fw, name=name, dim=dim: with_gradients(
                fw, array(shape), array, lambda fw, t: SCANNED[name](fw, t, dim))), 2e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_scans_of_narrow_floats(dtype):
    """As float32 would have them, rounded once."""
    x = array((40, 50), 1).astype(getattr(ml_dtypes, dtype, np.float16)).astype("f")
    for dim in (0, 1):
        t = lampion.tensor(x.tolist(), dtype=getattr(lampion, dtype)).requires_grad_()
        out = t.cumsum(dim)
        found, = lampion.autograd.grad(out, t, out.detach())
        once = lampion.tensor(np.cumsum(x, dim).tolist()).to(out.dtype)
        assert out.tolist() == once.tolist()
        turned = np.flip(np.cumsum(np.flip(np.asarray(once.tolist()), dim), dim), dim)
        expected = lampion.tensor(turned.tolist()).to(out.dtype)
        assert found.dtype is out.dtype and lampion.allclose(found, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_special_values_spread_towards_the_start_of_gradients(special):
    x, g = array((40, 50)), array((40, 50), 1)
    g[7, 19] = special
    for dim in (0, 1):
        found = [fw.autograd.grad(t.cumsum(dim), t, fw.tensor(g.tolist()))[0].tolist()
                 for fw in FRAMEWORKS for t in [fw.tensor(x.tolist()).requires_grad_()]]
        np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-5)


def test_sums_of_integers():
    x = np.arange(4000).reshape(40, 100) * 7919 % 1013
    for dim in (0, 1):
        for dtype in ("int64", "int32"):
            ours, theirs = (fw.tensor(x.tolist(), dtype=getattr(fw, dtype)).cumsum(dim)
                            for fw in FRAMEWORKS)
            assert str(ours.dtype)[-5:] == str(theirs.dtype)[-5:]
            assert ours.tolist() == theirs.tolist()


def test_gradients_of_gradients_of_scans():
    x = array((33, 40))

    def run(fw):
        found = []
        for name in ("sums", "logarithms"):
            t = fw.tensor(x.tolist()).requires_grad_()
            first, = fw.autograd.grad(SCANNED[name](fw, t, 1).pow(2).sum(), t, create_graph=True)
            found += [first, *fw.autograd.grad(first.pow(2).sum(), t)]
        return found
    close(both(run), 2e-3)


def picked(rng, high, shape, low=0):
    return rng.integers(low, high, shape).tolist()


def cases(dim, size):
    """What picks from `size` places of a dimension, by name: calls of framework and tensor."""
    rng, before = np.random.default_rng(dim), (slice(None),) * dim
    line, grid = picked(rng, size, 90), picked(rng, size, (7, 9), -size)
    shape = [18, 21, 35]
    shape[dim] = 50
    along, less = picked(rng, size, shape), picked(rng, size, (9, 8, 30))
    return {
        "lines": lambda fw, t: t.index_select(dim, fw.tensor(line)),
        "lines of what is turned": lambda fw, t: t.transpose(0, 2).index_select(
            2 - dim, fw.tensor(line)),
        "a line, int32": lambda fw, t: t.index_select(dim, fw.tensor(line, dtype=fw.int32)),
        "a grid": lambda fw, t: t[(*before, fw.tensor(grid))],
        "a grid of what is turned": lambda fw, t: t.flip(0)[(*before, fw.tensor(grid))],
        "two axes": lambda fw, t: t[fw.tensor(picked(np.random.default_rng(1), 18, 40, -18)),
                                    fw.tensor(picked(np.random.default_rng(2), 21, 40))],
        "each": lambda fw, t: t.gather(dim, fw.tensor(along)),
        "some": lambda fw, t: t.gather(dim, fw.tensor(less)),
        "lines by gather": lambda fw, t: t.gather(dim, fw.tensor(line).reshape(
            [-1 if d == dim else 1 for d in range(3)]).expand(
                [90 if d == dim else n for d, n in enumerate(t.shape)])),
    }


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("name", cases(0, 18))
def test_picks(name, dim):
    x = array((18, 21, 35))
    call = cases(dim, x.shape[dim])[name]
    close(both(lambda fw: with_gradients(fw, x, array, call)), 1e-5)


def test_gradients_of_gradients_of_picks():
    x = array((33, 40))

    def run(fw):
        found, line = [], fw.tensor([3, 0, -1, 3])
        for call in (lambda t: t[line], lambda t: t.index_select(1, line.abs()),
                     lambda t: t.gather(1, line.abs().expand(33, 4))):
            t = fw.tensor(x.tolist()).requires_grad_()
            first, = fw.autograd.grad(call(t).pow(3).sum(), t, create_graph=True)
            found += [first, *fw.autograd.grad(first.pow(2).sum(), t)]
        return found
    close(both(run), 1e-3)


@pytest.mark.parametrize("bad", [-51, 50, 2**40])
def test_bad_indices_raise_before_and_within_programs(bad):
    x, index = lampion.ones(50, 40), lampion.zeros(100, dtype=lampion.int64)
    wrong = index.clone()
    wrong[99] = bad
    step = lampion.compile(lambda x, i: x[i] * 2, mode="wait")
    assert step(x, index - 50).tolist() == (x[index] * 2).tolist()
    assert step(x, index + 49).tolist() == (x[index] * 2).tolist()
    for call in (lambda: x[wrong], lambda: step(x, wrong)):
        with pytest.raises(IndexError, match="out of bounds for dimension 0 with size 50"):
            call()
