"""Scans and the k largest against NumPy: axes, tails, special values, ties, threads."""

import numpy as np
import pytest

from lampion.codegen.interpret import interpret
from lampion.codegen.scan import MOST, SCANS, build_scan, build_topk, scan, topk
from lampion.codegen.target import TARGETS
from lampion.codegen.types import F32
from lampion.runtime.threads import get_num_threads, set_num_threads

pytestmark = pytest.mark.usefixtures("kernels_at_once")
CASES = [((1,), 0), ((37,), 0), ((5, 16), 1), ((5, 17), 1), ((3, 100), 0), ((4, 5, 33), 1),
         ((2, 1, 7), 1), ((3, 4, 65), 2), ((7, 1), 0), ((0, 4), 1), ((4, 0), 1), ((3, 5, 1), 1)]


def extremes(x, axis, larger):
    """Values and places as PyTorch defines them: the later of equals, the last NaN."""
    values, places = np.empty_like(x), np.empty(x.shape, np.int64)
    x, v, p = (np.moveaxis(a, axis, 0) for a in (x, values, places))
    for at in np.ndindex(x.shape[1:]):
        best, place = None, 0
        for i in range(x.shape[0]):
            new = x[(i, *at)]
            if best is None or np.isnan(new) or (not np.isnan(best) and (
                    new >= best if larger else new <= best)):
                best, place = new, i
            v[(i, *at)], p[(i, *at)] = best, place
    return values, places


def run(name, x, axis, reverse=False):
    out = np.full_like(x, 7)
    places = np.full(x.shape, 7) if name in ("cummax", "cummin") else None
    assert scan(name, out, x, axis, places, reverse)
    return out, places


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8"])
@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
def test_sums_and_products(name, dtype, instructions):
    rng = np.random.default_rng(0)
    for shape, axis in CASES:
        x = (rng.standard_normal(shape) * 2).astype(dtype)
        out, _ = run(name, x, axis)
        exact = getattr(np, name)(x.astype(np.int64 if dtype == "i8" else np.longdouble), axis)
        if dtype == "i8":
            np.testing.assert_array_equal(out, exact)
        else:
            scale = np.abs(exact).max(initial=1)
            bound = np.finfo(dtype).eps * (1 if dtype == "f4" else 20)
            np.testing.assert_allclose(out, exact, rtol=20 * bound, atol=bound * scale)


@pytest.mark.parametrize("name", ["cummax", "cummin"])
def test_extremes(name, instructions):
    rng = np.random.default_rng(1)
    for dtype in ("f4", "f8"):
        for shape, axis in CASES:
            x = rng.integers(-4, 4, shape).astype(dtype)
            x[rng.random(shape) < 0.02] = np.nan
            x[rng.random(shape) < 0.3] = -np.inf if name == "cummax" else np.inf
            out, places = run(name, x, axis)
            values, found = extremes(x, axis, name == "cummax")
            np.testing.assert_array_equal(out, values)
            np.testing.assert_array_equal(places, found)


def test_logarithms_of_sums(instructions):
    rng = np.random.default_rng(2)
    for dtype, bound in (("f4", 3e-6), ("f8", 1e-14)):
        for shape, axis in CASES:
            x = (rng.standard_normal(shape) * 30).astype(dtype)
            out, _ = run("logcumsumexp", x, axis)
            exact = np.logaddexp.accumulate(x.astype(np.longdouble), axis)
            np.testing.assert_allclose(out, exact, rtol=bound, atol=bound)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", [n for n in SCANS if n not in ("cummax", "cummin")])
def test_special_values(name, axis):
    x = np.ones((40, 40), "f")
    line = [-np.inf, 1, -np.inf, 2, np.inf, 3, 1e30, 1e30, np.nan, 5]
    x[:10, 3], x[3, :10] = line, line
    for start in (x, np.full_like(x, -np.inf)):
        out, _ = run(name, start, axis)
        with np.errstate(all="ignore"):
            expected = {"cumsum": np.cumsum, "cumprod": np.cumprod,
                        "logcumsumexp": np.logaddexp.accumulate}[name](start.astype("d"), axis)
            np.testing.assert_allclose(out, expected.astype("f"), rtol=1e-5)


@pytest.mark.parametrize("name", SCANS)
def test_backwards_is_the_scan_of_what_is_turned_around(name, instructions):
    """Where the order of sums matters to rounding, their bound is that of the forward scan."""
    rng = np.random.default_rng(7)
    for dtype in ("f4", "f8"):
        for shape, axis in CASES:
            x = (rng.standard_normal(shape) * 2).astype(dtype)
            x[rng.random(shape) < 0.01] = np.nan
            out, places = run(name, x, axis, True)
            turned = np.flip(x, axis).copy()
            expected, found = run(name, turned, axis)
            np.testing.assert_allclose(out, np.flip(expected, axis), rtol=1e-5, atol=1e-5)
            if places is not None and x.size:
                last = shape[axis] - 1
                np.testing.assert_array_equal(places, last - np.flip(found, axis))


@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
def test_backwards_of_integers(name, instructions):
    rng = np.random.default_rng(8)
    for shape, axis in CASES:
        x = rng.integers(-3, 4, shape)
        expected = np.flip(getattr(np, name)(np.flip(x, axis), axis), axis)
        np.testing.assert_array_equal(run(name, x, axis, True)[0], expected)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8"])
@pytest.mark.parametrize("largest", [True, False])
def test_topk(dtype, largest, instructions):
    rng = np.random.default_rng(3)
    for shape, axis, k in (((1,), 0, 1), ((50,), 0, 50), ((3, 200), 1, 7), ((5, 130), 1, MOST),
                           ((4, 90), 1, 17),
                           ((40, 6), 0, 3), ((3, 17, 4), 1, 16), ((0, 5), 1, 2)):
        x = rng.integers(-20, 20, shape).astype(dtype)
        if x.dtype.kind == "f":
            x[rng.random(shape) < 0.03] = np.nan
            x[rng.random(shape) < 0.1] = -np.inf
        sizes = (*shape[:axis], k, *shape[axis + 1:])
        out, places = np.zeros(sizes, dtype), np.zeros(sizes, np.int64)
        assert topk(out, places, x, axis, largest)
        key = np.where(x == x, x, np.inf).astype("d")
        nan_last = (x != x) * 1
        order = np.lexsort((-key, -nan_last) if largest else (key, nan_last), axis)
        order = np.take(order, np.arange(k), axis)
        np.testing.assert_array_equal(places, order)
        np.testing.assert_array_equal(out, np.take_along_axis(x, order, axis))


def test_any_number_of_threads_gives_the_same_bits():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((300, 500)).astype("f")
    before, found = get_num_threads(), []
    try:
        for n in (1, 2, 3):
            set_num_threads(n)
            found.append([run(name, x, axis, reverse)[0] for name in SCANS for axis in (0, 1)
                          for reverse in (False, True)])
    finally:
        set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", SCANS)
def test_the_interpreter_checks_every_access(name):
    rng = np.random.default_rng(5)
    for shape, across in (((2, 3, 9), True), ((3, 11, 1), False)):
        x, out = rng.standard_normal(shape).astype("f"), np.zeros(shape, "f")
        places = [np.zeros(shape, np.int64)] * (name in ("cummax", "cummin"))
        interpret(build_scan(TARGETS["avx2"], name, F32, across), out, x, *places, 2)
        expected, _ = run(name, x, 1)
        np.testing.assert_allclose(out, expected, rtol=1e-6)
        kernel = build_scan(TARGETS["avx2"], name, F32, across, True)
        interpret(kernel, out, x, *places, 2)
        expected, _ = run(name, x, 1, True)
        np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_the_interpreter_checks_topk():
    x = np.random.default_rng(6).standard_normal((2, 21)).astype("f")
    for few in (0, 3):
        out, places = np.zeros((2, 3), "f"), np.zeros((2, 3), np.int64)
        interpret(build_topk(TARGETS["avx2"], F32, True, few), out, places, x, 1)
        np.testing.assert_array_equal(places, np.argsort(-x, 1)[:, :3])
        np.testing.assert_array_equal(out, -np.sort(-x, 1)[:, :3])


def test_what_has_no_kernel_or_does_not_fit():
    x = np.ones((4, 6), "f")
    assert not scan("cumsum", x.T.copy().T, x, 0)
    assert not scan("cumsum", x.astype("i4"), x.astype("i4"), 0)
    assert not scan("logcumsumexp", x.astype("i8"), x.astype("i8"), 0)
    with pytest.raises(ValueError, match="does not fit x"):
        scan("cumsum", x[:2].copy(), x, 0)
    with pytest.raises(ValueError, match="places are missing"):
        scan("cummax", x.copy(), x, 0)
    with pytest.raises(ValueError, match="do not fit x"):
        topk(np.empty((4, 7), "f"), np.empty((4, 7), np.int64), x, 1)
    assert not topk(np.empty((4, 0), "f"), np.empty((4, 0), np.int64), x, 1)
