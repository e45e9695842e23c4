"""The NumPy meanings of heavy operators against plain loops."""

import itertools
import math

import numpy as np
import pytest

import lampion as torch
from lampion.ops.reference import conv, ctc, pool, resample
from lampion.ops.reference.erf import erf


def _conv2d_loops(x, w, stride, padding, dilation, groups):
    x = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    n, _, h, v = x.shape
    o, cin, kh, kw = w.shape
    oh = (h - dilation * (kh - 1) - 1) // stride + 1
    ow = (v - dilation * (kw - 1) - 1) // stride + 1
    out = np.zeros((n, o, oh, ow))
    for i, j, a, b in itertools.product(range(oh), range(ow), range(kh), range(kw)):
        pixel = x[:, :, i * stride + a * dilation, j * stride + b * dilation]
        for g in range(groups):
            rows = slice(g * o // groups, (g + 1) * o // groups)
            out[:, rows, i, j] += pixel[:, g * cin : (g + 1) * cin] @ w[rows, :, a, b].T
    return out


SETTINGS = list(itertools.product((1, 2), (0, 1), (1, 2), (1, 2, 4)))


@pytest.mark.parametrize("stride,padding,dilation,groups", SETTINGS)
def test_convolution_and_its_gradients(stride, padding, dilation, groups):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 4, 7, 6)), rng.standard_normal((8, 4 // groups, 3, 3))
    pairs = [stride] * 2, [padding] * 2, [dilation] * 2
    y = conv.convolve(x, w, *pairs, groups)
    np.testing.assert_allclose(y, _conv2d_loops(x, w, stride, padding, dilation, groups), 1e-10)
    # The gradients are the transposes: <g, conv(dx, w)> = <gx, dx> and likewise for the weight.
    g, dx, dw = (rng.standard_normal(t.shape) for t in (y, x, w))
    gx = conv.input_gradient(g, w, x.shape[2:], *pairs, groups)
    gw = conv.weight_gradient(g, x, w.shape[2:], *pairs, groups)
    assert np.vdot(g, conv.convolve(dx, w, *pairs, groups)) == pytest.approx(np.vdot(gx, dx))
    assert np.vdot(g, conv.convolve(x, dw, *pairs, groups)) == pytest.approx(np.vdot(gw, dw))


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(
    "kernel,stride,padding,dilation", [(2, 2, 0, 1), (3, 2, 1, 1), (3, 1, 1, 2)]
)
def test_max_pool_places_and_values(kernel, stride, padding, dilation, ceil_mode):
    x = np.random.default_rng(1).standard_normal((2, 3, 9, 8))
    pairs = [[v] * 2 for v in (kernel, stride, padding, dilation)]
    best, index = pool.max_pool(x, *pairs, ceil_mode)
    np.testing.assert_array_equal(pool.gather_planes(x, index), best)
    for i, j in np.ndindex(*best.shape[2:]):
        rows = [i * stride - padding + k * dilation for k in range(kernel)]
        cols = [j * stride - padding + k * dilation for k in range(kernel)]
        rows, cols = [r for r in rows if 0 <= r < 9], [c for c in cols if 0 <= c < 8]
        window = x[:, :, rows][:, :, :, cols]
        np.testing.assert_array_equal(best[:, :, i, j], window.max((2, 3)))


def test_max_pool_keeps_nan():
    x = np.array([[[1.0, np.nan, 3.0, 4.0]]])
    best, index = pool.max_pool(x, [2], [2], [0], [1], False)
    assert math.isnan(best[0, 0, 0]) and best[0, 0, 1] == 4
    assert index.tolist() == [[[1, 3]]]


def test_window_sums_transpose():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, 2, 7, 5))
    y = pool.window_sums(x, [3, 2], [2, 1], [1, 0], True)
    g = rng.standard_normal(y.shape)
    gx = pool.window_sums_transpose(g, [7, 5], [3, 2], [2, 1], [1, 0])
    assert np.vdot(g, y) == pytest.approx(np.vdot(gx, x))


@pytest.mark.parametrize(
    "kind", ["nearest", "nearest-exact", "linear", "cubic", "linear-aa", "mean"]
)
def test_resampling_keeps_constants(kind):
    tables = resample.tables(kind, [7, 9], [4, 13], False, [None, None], np.float64)
    out = resample.resample(np.full((1, 1, 7, 9), 2.5), tables)
    assert out.shape == (1, 1, 4, 13)
    np.testing.assert_allclose(out, 2.5)


@pytest.mark.parametrize("kind", ["nearest", "linear", "cubic", "mean"])
def test_resampling_transpose(kind):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 1, 6))
    tables = resample.tables(kind, [6], [10], False, [None], np.float64)
    y = resample.resample(x, tables)
    g = rng.standard_normal(y.shape)
    assert np.vdot(g, y) == pytest.approx(np.vdot(resample.resample_transpose(g, tables, [6]), x))


def test_fold_is_the_transpose_of_unfold():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 3, 7, 6))
    window = [3, 2], [2, 1], [1, 0], [1, 2]
    blocks = conv.unfold(x, *window)
    g = rng.standard_normal(blocks.shape)
    assert np.vdot(g, blocks) == pytest.approx(np.vdot(conv.fold(g, [7, 6], *window), x))


def test_ctc_sums_over_all_paths():
    rng = np.random.default_rng(5)
    logp = rng.standard_normal((4, 1, 3))
    logp -= np.log(np.exp(logp).sum(2, keepdims=True))
    target = [1, 2]

    def collapse(path):
        kept = [p for i, p in enumerate(path) if i == 0 or p != path[i - 1]]
        return [p for p in kept if p != 0]

    total = sum(
        math.exp(sum(logp[t, 0, p] for t, p in enumerate(path)))
        for path in itertools.product(range(3), repeat=4)
        if collapse(path) == target
    )
    states, skip = ctc.extend_targets(np.array([target]), [2], 0)
    loss, _ = ctc.forward(logp, states, skip, np.array([4]), np.array([2]))
    assert loss[0] == pytest.approx(-math.log(total))


@pytest.mark.parametrize("dtype,tolerance", [(np.float64, 1e-15), (np.float32, 5e-7)])
def test_erf(dtype, tolerance):
    x = np.linspace(-6, 6, 1001).astype(dtype)
    expected = [math.erf(v) for v in x.tolist()]
    np.testing.assert_allclose(erf(x), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bfloat16"])
def test_kth_values_are_those_of_a_stable_sort(dtype):
    rng = np.random.default_rng(3)
    for _ in range(60):
        shape = tuple(rng.integers(1, 7, rng.integers(1, 4)))
        a = rng.integers(-3, 4, shape).astype("float32")
        if dtype.startswith("float"):
            a[rng.random(shape) < 0.2] = np.nan
        d = int(rng.integers(0, a.ndim))
        k = int(rng.integers(1, shape[d] + 1))
        index = torch.from_numpy(a).to(getattr(torch, dtype)).kthvalue(k, d, keepdim=True)[1]
        assert (index.numpy() == np.take(np.argsort(a, d, kind="stable"), [k - 1], d)).all()


@pytest.mark.parametrize("size", [3, 5000])
def test_narrow_floats_overflow_in_silence(size):
    x = torch.full((size,), 60000.0, dtype=torch.float16)
    found = [x + x, x * 2, torch.cat([x, x]) * x.repeat(2)]
    assert all(torch.isinf(f).all().item() for f in found)
