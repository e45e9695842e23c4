"""Beside PyTorch: number limits, narrow floats, results of the meta device."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import lampion

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

FLOATS = ("float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


@pytest.mark.parametrize("name", FLOATS + ("complex64", "complex128"))
def test_finfo(name):
    ours, theirs = lampion.finfo(getattr(lampion, name)), torch.finfo(getattr(torch, name))
    for field in ("bits", "eps", "max", "min", "tiny", "smallest_normal", "resolution", "dtype"):
        assert getattr(ours, field) == getattr(theirs, field), field
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("name", INTEGERS)
def test_iinfo(name):
    ours, theirs = lampion.iinfo(getattr(lampion, name)), torch.iinfo(getattr(torch, name))
    assert (ours.bits, ours.max, ours.min, ours.dtype) == (
        theirs.bits, theirs.max, theirs.min, theirs.dtype)
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "bfloat16", "float16"])
def test_narrow_casts(name):
    """Every bit pattern back to float32, and awkward float32 values there."""
    narrow = getattr(torch, name)
    values = np.concatenate([
        np.linspace(-500, 500, 4001), 10.0 ** np.arange(-45, 38.5, 0.25),
        -(2.0 ** np.arange(-30, 20)),
        [3.4e38, -3.4e38],
        [0.0, -0.0, np.inf, -np.inf, np.nan, 448, 449, 464, 465, 480, 57344, 61440, 65504, 65520],
    ]).astype(np.float32)
    theirs = torch.from_numpy(values).to(narrow).float().numpy()
    ours = lampion.from_numpy(values).to(getattr(lampion, name)).float().numpy()
    np.testing.assert_array_equal(ours, theirs)
    raw = np.arange(256, dtype=np.uint8) if narrow.itemsize == 1 else np.arange(
        65536, dtype=np.uint16)
    np.testing.assert_array_equal(
        lampion.from_numpy(raw).view(getattr(lampion, name)).float().numpy(),
        torch.from_numpy(raw).view(narrow).float().numpy())


def r(lib, *shape, dtype="float32"):
    return lib.empty(shape, device="meta", dtype=getattr(lib, dtype))


def i(lib, *shape):
    return lib.empty(shape, device="meta", dtype=lib.int64)


META = {
    "add": lambda t: r(t, 3, 1) + r(t, 4), "mixed": lambda t: r(t, 3) * i(t, 3),
    "div of integers": lambda t: i(t, 3) / i(t, 3), "compare": lambda t: r(t, 3) > 0,
    "matmul": lambda t: r(t, 2, 3, 4) @ r(t, 4, 5), "bmm": lambda t: t.bmm(r(t, 2, 3, 4), r(
        t, 2, 4, 1)), "sum": lambda t: r(t, 2, 3).sum(1), "sum of ints": lambda t: t.empty(
        2, device="meta", dtype=t.int32).sum(), "mean": lambda t: r(t, 2, 3).mean(0, keepdim=True),
    "max": lambda t: r(t, 2, 3).max(1), "argmax": lambda t: r(t, 2, 3).argmax(0), "var": lambda t:
    r(t, 4, 3).var(0), "softmax": lambda t: r(t, 2, 3).softmax(1), "cat": lambda t: t.cat(
        [r(t, 2, 3), r(t, 4, 3)]), "stack": lambda t: t.stack([r(t, 2), r(t, 2)], 1),
    "permute": lambda t: r(t, 2, 3, 4).permute(2, 0, 1), "view": lambda t: r(t, 2, 6).view(3, -1),
    "expand": lambda t: r(t, 1, 3).expand(4, 3), "index": lambda t: r(t, 4, 5)[1:, 2],
    "index tensor": lambda t: r(t, 4, 5)[i(t, 7)], "gather": lambda t: r(t, 4, 5).gather(
        1, i(t, 4, 2)), "where": lambda t: t.where(r(t, 3) > 0, r(t, 3), 1.0), "sort": lambda t:
    r(t, 3, 4).sort(0), "topk": lambda t: r(t, 3, 4).topk(2), "cumsum": lambda t: i(t, 3).cumsum(0),
    "embedding": lambda t: t.nn.functional.embedding(i(t, 2, 3), r(t, 9, 4)),
    "linear": lambda t: t.nn.functional.linear(r(t, 2, 3), r(t, 5, 3), r(t, 5)),
    "conv2d": lambda t: t.nn.functional.conv2d(r(t, 2, 3, 9, 9), r(t, 4, 3, 3, 3), stride=2,
                                               padding=1),
    "conv_transpose2d": lambda t: t.nn.functional.conv_transpose2d(
        r(t, 2, 3, 5, 5), r(t, 3, 4, 3, 3), stride=2),
    "max_pool2d": lambda t: t.nn.functional.max_pool2d(r(t, 2, 3, 9, 9), 2),
    "avg_pool2d": lambda t: t.nn.functional.avg_pool2d(r(t, 2, 3, 9, 9), 3, 2),
    "adaptive": lambda t: t.nn.functional.adaptive_avg_pool2d(r(t, 2, 3, 9, 9), (1, 2)),
    "layer_norm": lambda t: t.nn.functional.layer_norm(r(t, 2, 3), (3,)),
    "batch_norm": lambda t: t.nn.functional.batch_norm(r(t, 2, 3, 4, 4), None, None,
                                                       training=True),
    "group_norm": lambda t: t.nn.functional.group_norm(r(t, 2, 4, 3), 2), "gelu": lambda t:
    t.nn.functional.gelu(r(t, 3)), "dropout": lambda t: t.nn.functional.dropout(r(t, 3)),
    "cross_entropy": lambda t: t.nn.functional.cross_entropy(r(t, 4, 3), i(t, 4)),
    "attention": lambda t: t.nn.functional.scaled_dot_product_attention(
        r(t, 2, 4, 5), r(t, 2, 6, 5), r(t, 2, 6, 7)),
    "interpolate": lambda t: t.nn.functional.interpolate(r(t, 1, 2, 4, 4), scale_factor=2.0),
    "pad": lambda t: t.nn.functional.pad(r(t, 2, 3), (1, 2)), "einsum": lambda t: t.einsum(
        "ij,kj->ik", r(t, 2, 3), r(t, 4, 3)), "repeat": lambda t: r(t, 2, 3).repeat(2, 1, 1),
    "tril": lambda t: r(t, 3, 3).tril(), "flip": lambda t: r(t, 3, 3).flip(0), "norm": lambda t:
    r(t, 3, 3).norm(dim=0), "casts": lambda t: r(t, 3).half().to(t.int8), "abs of complex": lambda
    t: r(t, 3, dtype="complex64").abs(), "exp of half": lambda t: r(t, 3, dtype="float16").exp(),
    "in place": lambda t: r(t, 2, 3).add_(1).t().mul_(r(t, 2)), "zeros_like": lambda t:
    t.zeros_like(r(t, 2, 3).t()), "unfold": lambda t: r(t, 8).unfold(0, 3, 2), "lstm": lambda t:
    t.nn.LSTM(3, 4, device="meta")(r(t, 5, 2, 3))[0], "one_hot": lambda t: r(t, 3, 4).argmax(
        1).unsqueeze(1).expand(3, 2), "scatter": lambda t: r(t, 3, 4).scatter(1, i(t, 3, 2), 1.0),
    "diff": lambda t: r(t, 5).diff(), "prod": lambda t: r(t, 2, 3).prod(0), "any": lambda t: (r(
        t, 2, 3) > 0).any(1), "clamp": lambda t: r(t, 3).clamp(0, 1), "pow": lambda t: i(t, 3) ** 2,
    "chunk": lambda t: r(t, 7).chunk(3), "meshgrid": lambda t: t.meshgrid(r(t, 2), r(t, 3),
                                                                         indexing="ij"),
    "outer": lambda t: t.outer(r(t, 2), r(t, 3)), "kthvalue": lambda t: r(t, 5).kthvalue(2),
    "logsumexp": lambda t: r(t, 2, 3).logsumexp(1), "std_mean": lambda t: t.std_mean(r(t, 2, 3)),
    "roll": lambda t: r(t, 4).roll(1), "bucketize": lambda t: t.bucketize(r(t, 4), r(t, 3)),
    "arange": lambda t: t.arange(5, device="meta"), "linspace": lambda t: t.linspace(
        0, 1, 4, device="meta"), "eye": lambda t: t.eye(3, device="meta"),
    "rand": lambda t: t.rand(2, 3, device="meta"),
}


def _facts(result):
    many = result if isinstance(result, (tuple, list)) else (result,)
    return [(tuple(t.shape), str(t.dtype), str(t.device)) for t in many]


@pytest.mark.parametrize("name", META)
def test_meta_results(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert _facts(META[name](lampion)) == _facts(META[name](torch))
