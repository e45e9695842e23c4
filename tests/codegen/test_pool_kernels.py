"""Pooling kernels against the NumPy reference: windows, padding, ties, NaN, gradients."""

import numpy as np
import pytest

from lampion.codegen.gather import sum_along
from lampion.codegen.interpret import interpret
from lampion.codegen.pooling import (
    Window,
    avg_pool2d,
    avg_pool2d_backward,
    build_avg,
    build_avg_backward,
    build_max,
    max_pool2d,
    max_pool2d_backward,
)
from lampion.codegen.pooling_ranges import max_of_ranges
from lampion.codegen.target import TARGETS
from lampion.codegen.types import F32
from lampion.ops.reference import pool as reference
from lampion.runtime.threads import get_num_threads, set_num_threads

pytestmark = pytest.mark.usefixtures("kernels_at_once")
# shape, size, stride, padding, dilation, ceil_mode
CASES = [
    ((2, 3, 8, 8), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((1, 2, 17, 35), (3, 3), (2, 2), (1, 1), (1, 1), False),
    ((3, 1, 5, 70), (3, 2), (1, 1), (1, 0), (1, 1), False),
    ((1, 2, 11, 13), (2, 3), (3, 4), (1, 1), (2, 1), False),
    ((2, 2, 9, 21), (3, 3), (2, 3), (1, 1), (2, 2), True),
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0), (1, 1), False),
    ((2, 2, 1, 40), (1, 5), (1, 2), (0, 2), (1, 1), True),
    ((1, 3, 7, 7), (7, 7), (7, 7), (0, 0), (1, 1), False),
]


def pooled(x, size, stride, padding, dilation, ceil_mode):
    """By the kernel, in arrays that held something else."""
    shape = reference.pool_size(x.shape[2:], size, stride, padding, dilation, ceil_mode)
    out = np.full((*x.shape[:2], *shape), 7, x.dtype)
    index = np.full(out.shape, 7)
    assert max_pool2d(out, index, x, size, stride, padding, dilation)
    return out, index


@pytest.mark.parametrize("case", CASES)
def test_largest_and_places(case, instructions):
    rng = np.random.default_rng(0)
    shape, *window = case
    for dtype in ("f4", "f8"):
        x = rng.integers(-3, 3, shape).astype(dtype)  # many equals: the first place counts
        out, index = pooled(x, *window)
        best, places = reference.max_pool(x, *window)
        np.testing.assert_array_equal(out, best)
        np.testing.assert_array_equal(index, places)


@pytest.mark.parametrize("case", CASES)
def test_nan_and_infinity(case):
    rng = np.random.default_rng(1)
    shape, *window = case
    x = rng.choice(np.array([np.nan, -np.inf, np.inf, 0, 1], "f"), shape, p=[.1, .5, .1, .2, .1])
    out, index = pooled(x, *window)
    best, places = reference.max_pool(x, *window)
    np.testing.assert_array_equal(out, best)
    np.testing.assert_array_equal(index, places)


@pytest.mark.parametrize(("shape", "size"), [
    ((2, 3, 17, 35), (5, 4)), ((1, 2, 7, 40), (9, 40)), ((2, 1, 23), (5,)),
    ((1, 2, 5, 6, 19), (2, 4, 7)), ((1, 1, 1, 1), (1, 1)),
])
def test_largest_of_ranges(shape, size, instructions):
    rng = np.random.default_rng(4)
    bounds = [reference.adaptive_bounds(s, n) for s, n in zip(shape[2:], size, strict=True)]
    for values in ([-1, 0, 1], [np.nan, -np.inf, np.inf, 0]):
        for dtype in ("f4", "f8"):
            x = rng.choice(np.array(values, dtype), shape)
            out = np.full((*shape[:2], *size), 7, dtype)
            index = np.full(out.shape, 7)
            assert max_of_ranges(out, index, x, bounds)
            best, places = reference.adaptive_max_pool(x, size)
            np.testing.assert_array_equal(out, best)
            np.testing.assert_array_equal(index, places)


def test_ranges_of_every_plane(instructions):
    rng = np.random.default_rng(5)
    x, samples = rng.standard_normal((2, 3, 11, 21)), rng.random((2, 3, 2))
    starts = reference.fractional_starts(samples, x.shape[2:], (6, 9), (2, 3))
    out, index = np.empty((2, 3, 6, 9)), np.empty((2, 3, 6, 9), np.int64)
    assert max_of_ranges(out, index, x, [(starts[0], starts[0] + 2), (starts[1], starts[1] + 3)])
    best, places = reference.fractional_max_pool(x, samples, (6, 9), (2, 3))
    np.testing.assert_array_equal(out, best)
    np.testing.assert_array_equal(index, places)


@pytest.mark.parametrize("stop", [0, 6])
def test_ranges_outside_are_refused(stop):
    x, start = np.zeros((1, 1, 5, 5), "f"), np.array([0])
    out, index = np.zeros((1, 1, 1, 1), "f"), np.zeros((1, 1, 1, 1), np.int64)
    with pytest.raises(ValueError, match="ranges"):
        max_of_ranges(out, index, x, [(start, np.array([stop])), (start, np.array([5]))])


@pytest.mark.parametrize("case", CASES)
def test_gradient_of_the_largest(case):
    rng = np.random.default_rng(2)
    shape, *window = case
    x = rng.standard_normal(shape).astype("f")
    out, index = pooled(x, *window)
    dout, dx = rng.standard_normal(out.shape).astype("f"), np.full_like(x, 7)
    assert max_pool2d_backward(dx, dout, index)
    expected = reference.scatter_planes(dout.astype("d"), index, shape[2:])
    np.testing.assert_allclose(dx, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [c for c in CASES if c[4] == (1, 1)])
def test_means(case, instructions):
    rng = np.random.default_rng(3)
    shape, size, stride, padding, _, ceil_mode = case
    for dtype, tolerance in (("f4", 1e-5), ("f8", 1e-13)):
        x = rng.standard_normal(shape).astype(dtype)
        sums = reference.window_sums(x, size, stride, padding, ceil_mode)
        counts = reference.window_counts(shape[2:], size, stride, padding, ceil_mode, False)
        divisor = np.broadcast_to(counts, sums.shape[2:]).astype(dtype)
        out = np.full_like(sums, 7)
        assert avg_pool2d(out, x, divisor, size, stride, padding)
        np.testing.assert_allclose(out, sums / divisor, rtol=tolerance, atol=tolerance)
        dout, dx = rng.standard_normal(out.shape).astype(dtype), np.full_like(x, 7)
        assert avg_pool2d_backward(dx, dout, divisor, size, stride, padding)
        expected = reference.window_sums_transpose(dout / divisor, shape[2:], size, stride, padding)
        np.testing.assert_allclose(dx, expected, rtol=tolerance, atol=tolerance)


def test_padding_does_not_leak_infinities_into_means():
    x = np.full((1, 1, 4, 20), np.inf, "f")
    x[..., 1:, :] = 1
    out, ones = np.empty((1, 1, 4, 20), "f"), np.ones((4, 20), "f")
    assert avg_pool2d(out, x, ones, (3, 3), (1, 1), (1, 1))
    assert np.isinf(out[0, 0, :2]).all() and np.isfinite(out[0, 0, 2:]).all()


def test_any_number_of_threads_gives_the_same_bits():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((16, 8, 33, 33)).astype("f")
    before, found = get_num_threads(), []
    try:
        for n in (1, 2, 3):
            set_num_threads(n)
            out, index = pooled(x, *CASES[1][1:])
            dx = np.empty_like(x)
            assert max_pool2d_backward(dx, out, index)
            found.append((out, index, dx))
    finally:
        set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("case", [CASES[1], CASES[3]])
def test_the_interpreter_checks_every_access(case):
    rng = np.random.default_rng(5)
    shape, size, stride, padding, dilation, ceil_mode = case
    shape = (1, 1, shape[2] // 2, shape[3] // 2)
    x = rng.integers(-3, 3, shape).astype("f")
    expected, places = reference.max_pool(x, size, stride, padding, dilation, ceil_mode)
    out, index = np.zeros_like(expected), np.zeros_like(places)
    reach = 150
    interpret(build_max(TARGETS["avx2"], Window(F32, size, stride, dilation)), out[0], x[0],
              index[0], *padding, reach, 1)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(index, places)
    sums = reference.window_sums(x, size, stride, padding, ceil_mode)
    ones, out, dx = np.ones(sums.shape[2:], "f"), np.zeros_like(sums), np.zeros_like(x)
    interpret(build_avg(TARGETS["avx2"], Window(F32, size, stride)), out[0], x[0], ones, *padding,
              reach, 1)
    np.testing.assert_allclose(out, sums, rtol=1e-6)
    interpret(build_avg_backward(TARGETS["avx2"], Window(F32, size, stride)), dx[0], out[0], ones,
              *padding, reach, 1)
    expected = reference.window_sums_transpose(out, shape[2:], size, stride, padding)
    np.testing.assert_allclose(dx, expected, rtol=1e-6)


def test_what_has_no_kernel_is_left_to_the_reference():
    wide = np.ones((1, 1, 1, 5000), "f")
    assert not max_pool2d(wide.copy(), wide.astype(np.int64), wide, (1, 1), (1, 1), (0, 0))
    whole = np.ones((1, 1, 4, 4), np.int64)
    assert not max_pool2d(whole.copy(), whole.copy(), whole, (1, 1), (1, 1), (0, 0))
    square = np.ones((1, 1, 4, 4), "f")
    assert not avg_pool2d(square.copy(), square.swapaxes(2, 3), square[0, 0], (1, 1), (1, 1),
                          (0, 0))


def test_windows_that_do_not_fit_are_refused():
    x = np.ones((1, 1, 4, 4), "f")
    with pytest.raises(ValueError, match="do not fit an input"):
        max_pool2d(np.ones((1, 1, 5, 4), "f"), np.ones((1, 1, 5, 4), np.int64), x, (1, 1), (1, 1),
                   (0, 0))
    with pytest.raises(ValueError, match="do not fit an input"):
        avg_pool2d(np.ones((1, 1, 4, 4), "f"), x, np.ones((4, 4), "f"), (1, 1), (1, 1), (0, 2))
    with pytest.raises(ValueError, match="does not fit"):
        max_pool2d(x.copy(), np.ones((1, 1, 4, 3), np.int64), x, (1, 1), (1, 1), (0, 0))
    with pytest.raises(IndexError, match="out of bounds"):
        max_pool2d_backward(x.copy(), x, np.full(x.shape, 16))


def test_sums_from_zeros():
    rng = np.random.default_rng(6)
    index = rng.integers(0, 37, (5, 60))
    source = rng.standard_normal((5, 60)).astype("f")
    out, expected = np.full((5, 37), 7, "f"), np.zeros((5, 37), "f")
    np.add.at(expected, (np.arange(5)[:, None], index), source)
    assert sum_along(out, index, source, 1)
    np.testing.assert_array_equal(out, expected)
    assert sum_along(out, index[:, :0], source[:, :0], 1) and not out.any()
