"""Negative log likelihood kernels beside NumPy, and in bounds."""

import numpy as np
import pytest

from lampion.codegen.interpret import interpret
from lampion.codegen.pick import build_nll, build_nll_backward, nll, nll_backward
from lampion.codegen.target import TARGETS
from lampion.codegen.types import F32
from lampion.debug.knobs import override

SHAPES = [(1, 1, 1), (3, 5, 1), (7, 2, 4), (64, 33, 1), (2, 17, 9)]


def problem(shape, weighted, seed=0):
    rng = np.random.default_rng(seed)
    n, c, length = shape
    target = rng.integers(0, c, (n, length))
    target[rng.random((n, length)) < 0.2] = -100
    weight = rng.random(c).astype("f") if weighted else None
    return rng.standard_normal(shape).astype("f"), target, weight


def reference(x, target, weight, reduction):
    w = np.ones(x.shape[1], "f") if weight is None else weight
    counts = target != -100
    safe = np.where(counts, target, 0)
    shares = np.where(counts, w[safe], 0).astype("d")
    loss = -np.take_along_axis(x, safe[:, None], 1)[:, 0] * shares
    onehot = -np.eye(x.shape[1])[safe].transpose(0, 2, 1) * shares[:, None]
    if reduction == "none":
        return loss, onehot
    with np.errstate(all="ignore"):
        over = shares.sum() if reduction == "mean" else 1.0
        return loss.sum() / over, onehot / over


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradient(shape, weighted, reduction):
    x, target, weight = problem(shape, weighted)
    target[0, 0] = 0  # at least one counts
    expected, slope = reference(x, target, weight, reduction)
    out = np.empty(target.shape if reduction == "none" else (1, 1), "f")
    dx = np.full(shape, np.nan, "f")
    with override(kernels="sync"):
        assert nll(out, x, target, weight, reduction, -100)
        assert nll_backward(dx, np.full_like(out, 2.0), target, weight, reduction, -100)
    np.testing.assert_allclose(out.reshape(np.shape(expected)), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dx, 2 * slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target", ["avx512", "sse"])
def test_in_bounds(target):
    x, classes, weight = problem((3, 19, 2), True)
    found = np.zeros(1, np.int64)
    interpret(build_nll(TARGETS[target], F32, "mean", True), np.empty((1, 1), "f"), x, classes,
              weight, found, 19, -100)
    interpret(build_nll_backward(TARGETS[target], F32, "sum", True), np.empty_like(x),
              np.ones((1, 1), "f"), classes, weight, found, 19, -100, 2)
    assert found[0] == 0


@pytest.mark.parametrize("bad", [5, -1, 1 << 40])
def test_bad_classes_are_found_and_nothing_is_read(bad):
    x, target, _ = problem((4, 5, 1), False)
    target[2, 0] = bad
    out = np.empty((1, 1), "f")
    with override(kernels="sync"):
        assert not nll(out, x, target, None, "sum", -100)
        assert not nll_backward(np.empty_like(x), out, target, None, "sum", -100)
    found = np.zeros(1, np.int64)
    interpret(build_nll(TARGETS["avx512"], F32, "sum", False), out, x, target, None, found, 5,
              -100)
    assert found[0] != 0
