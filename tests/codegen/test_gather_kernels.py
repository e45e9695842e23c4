"""Kernels with indices against NumPy: shapes, layouts, dtypes, repeated and wrong indices."""

import numpy as np
import pytest

from lampion.codegen import gather
from lampion.codegen.gather import (
    add_along,
    add_rows,
    put_rows,
    sum_along,
    sum_rows,
    take,
    take_along,
)
from lampion.codegen.interpret import interpret
from lampion.codegen.target import TARGETS
from lampion.codegen.types import F32, I32, I64
from lampion.runtime.threads import get_num_threads, set_num_threads

pytestmark = pytest.mark.usefixtures("kernels_at_once")
# shape, axis, how many indices
CASES = [((7,), 0, 20), ((5, 1), 0, 3), ((1, 5), 1, 9), ((13, 70), 0, 6), ((13, 70), 1, 200),
         ((3, 11, 5), 1, 17), ((2, 4, 3, 33), 2, 4), ((40, 1000), 0, 25), ((6, 7), 1, 0),
         ((600, 7), 0, 600), ((3, 5000), 1, 40)]


def replaced(shape, axis, n):
    return (*shape[:axis], n, *shape[axis + 1:])


def numbers(rng, shape, dtype):
    return (rng.standard_normal(shape) * 50).astype(dtype)


@pytest.mark.parametrize(("dtype", "index"), [("f4", "i8"), ("f8", "i4"), ("i2", "i8"),
                                              ("u1", "i4"), ("c8", "i8")])
def test_take(dtype, index, instructions):
    rng = np.random.default_rng(0)
    for shape, axis, n in CASES:
        x = numbers(rng, shape, dtype)
        at = rng.integers(0, shape[axis], n).astype(index)
        np.testing.assert_array_equal(take(x, at, axis), np.take(x, at, axis))
        grid = at[:n - n % 2].reshape(2, -1)
        np.testing.assert_array_equal(take(x, grid, axis), np.take(x, grid, axis))


@pytest.mark.parametrize(("dtype", "index"), [("f4", "i8"), ("f8", "i4"), ("i2", "i8")])
def test_take_along(dtype, index, instructions):
    rng = np.random.default_rng(1)
    for shape, axis, n in CASES:
        x = numbers(rng, shape, dtype)
        at = rng.integers(0, shape[axis], replaced(shape, axis, n)).astype(index)
        np.testing.assert_array_equal(take_along(x, at, axis), np.take_along_axis(x, at, axis))


@pytest.mark.parametrize(("dtype", "index"), [("f4", "i8"), ("f8", "i4"), ("i8", "i8"),
                                              ("i4", "i8")])
def test_add_rows(dtype, index, instructions):
    """Repeated indices are added in their order: the same bits as NumPy's loop."""
    rng = np.random.default_rng(2)
    for shape, axis, n in CASES:
        out = numbers(rng, shape, dtype)
        at = rng.integers(0, shape[axis], n).astype(index)
        source = numbers(rng, replaced(shape, axis, n), dtype)
        expected = out.copy()
        np.add.at(expected, (slice(None),) * axis + (at,), source)
        assert add_rows(out, at, source, axis)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(("dtype", "index"), [("f4", "i8"), ("f8", "i4"), ("i8", "i8")])
def test_add_along(dtype, index, instructions):
    rng = np.random.default_rng(3)
    for shape, axis, n in CASES:
        out = numbers(rng, shape, dtype)
        at = rng.integers(0, shape[axis], replaced(shape, axis, n)).astype(index)
        source = numbers(rng, at.shape, dtype)
        expected = out.copy()
        key = list(np.indices(at.shape, sparse=True))
        key[axis] = at
        np.add.at(expected, tuple(key), source)
        assert add_along(out, at, source, axis)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(("dtype", "index"), [("f4", "i8"), ("f8", "i4"), ("i8", "i8")])
def test_sums_forget_what_was_there(dtype, index, instructions):
    """One launch that clears and adds: as adding to zeros, bit by bit."""
    rng = np.random.default_rng(4)
    for shape, axis, n in CASES:
        rows, places = numbers(rng, shape, dtype), numbers(rng, shape, dtype)
        at = rng.integers(0, shape[axis], n).astype(index)
        along = rng.integers(0, shape[axis], replaced(shape, axis, n)).astype(index)
        source = numbers(rng, along.shape, dtype)
        expected_rows, expected_places = np.zeros_like(rows), np.zeros_like(places)
        assert add_rows(expected_rows, at, source, axis)
        assert add_along(expected_places, along, source, axis)
        assert sum_rows(rows, at, source, axis) and sum_along(places, along, source, axis)
        np.testing.assert_array_equal(rows, expected_rows)
        np.testing.assert_array_equal(places, expected_places)
        start = numbers(rng, shape, dtype)
        expected_rows[:], expected_places[:] = start, start
        assert add_rows(expected_rows, at, source, axis)
        assert add_along(expected_places, along, source, axis)
        assert sum_rows(rows, at, source, axis, False, start)
        assert sum_along(places, along, source, axis, start)
        np.testing.assert_array_equal(rows, expected_rows)
        np.testing.assert_array_equal(places, expected_places)


def test_sums_of_long_rows_in_large_arrays():
    rng = np.random.default_rng(15)
    start, source = numbers(rng, (700, 500), "f"), numbers(rng, (9, 500), "f")
    at, along = rng.integers(0, 700, 9), rng.integers(0, 700, (9, 500))
    rows, places = np.empty_like(start), np.empty_like(start)
    for before in (None, start):
        expected = np.zeros_like(start) if before is None else start.copy()
        assert sum_rows(rows, at, source, 0, False, before)
        assert sum_along(places, along, source, 0, before)
        other = expected.copy()
        np.add.at(expected, at, source)
        np.testing.assert_array_equal(rows, expected)
        np.add.at(other, (along, np.arange(500)), source)
        np.testing.assert_array_equal(places, other)


@pytest.mark.parametrize("start", [np.ones((4, 2), "f"), np.ones((3, 3), "f"), np.ones((4, 3)),
                                   np.ones((3, 4), "f").T])
def test_what_is_added_to_must_fit(start):
    out, at, source = np.ones((4, 3), "f"), np.zeros(2, np.int64), np.ones((2, 3), "f")
    with pytest.raises(ValueError, match="do not fit"):
        sum_rows(out, at, source, 0, False, start)
    with pytest.raises(ValueError, match="do not fit"):
        sum_along(out, np.zeros((2, 3), np.int64), source, 0, start)
    turned = np.ones((3, 4), "f").T
    assert not sum_rows(turned, at, source, 0)
    assert not sum_along(turned, np.zeros((2, 3), np.int64), source, 0)


def test_more_indices_than_places_on_an_axis_of_one():
    out, index = np.full((5, 1), 7.0), np.zeros((5, 9), np.int64)
    odd = np.lib.stride_tricks.as_strided(out, (5, 1), (8, 40))
    assert sum_along(odd, index, np.ones((5, 9)), 1)
    np.testing.assert_array_equal(out, np.full((5, 1), 9.0))


@pytest.mark.parametrize("index", ["i8", "i4"])
def test_negative_indices_wrap(index, instructions):
    rng = np.random.default_rng(14)
    for shape, axis, n in CASES:
        x, size = numbers(rng, shape, "f"), shape[axis]
        at = rng.integers(-size, size, n).astype(index)
        out, total = take(x, at, axis, True), numbers(rng, shape, "f")
        assert sum_rows(total, at, out, axis, True)
        np.testing.assert_array_equal(out, np.take(x, at, axis))
        expected = np.zeros(shape, "f")
        np.add.at(expected, (slice(None),) * axis + (at,), out)
        np.testing.assert_array_equal(total, expected)


@pytest.mark.parametrize("bad", [-11, 10, 2**63 - 1, -2**63])
def test_what_wraps_is_bounded_too(bad):
    x, at = np.ones((10, 3), "f"), np.full(700, -10)
    at[657] = bad
    for run in (lambda: take(x, at, 0, True),
                lambda: take(x[:, 0], at, 0, True),
                lambda: sum_rows(x, at, np.ones((700, 3), "f"), 0, True)):
        with pytest.raises(IndexError, match=rf"index {bad} at \(657,\) is out of bounds"):
            run()


def test_views_with_steps_are_read_in_place():
    rng = np.random.default_rng(5)
    base = numbers(rng, (9, 12, 20), "f")
    at = np.array([3, 0, 3, 8])
    np.testing.assert_array_equal(take(base[::-1], at, 0), base[::-1][at])
    at = np.array([3, 0, 3, 11])
    np.testing.assert_array_equal(take(base[:, :, 4], at, 1), base[:, at, 4])
    table = np.zeros((12, 40), "f")
    assert add_rows(table[:, ::2][:, :0], at[:0], table[:0, :0], 0)
    assert not add_rows(table[:, ::2], at, np.ones((4, 20), "f"), 0)
    assert take(base[:, 0, :9].T, at, 0) is None


def test_any_number_of_threads_gives_the_same_bits():
    rng = np.random.default_rng(6)
    source, at = numbers(rng, (5000, 300), "f"), rng.integers(0, 50, 5000)
    along = rng.integers(0, 50, (5000, 300))
    before, found = get_num_threads(), []
    try:
        for n in (1, 2, 3):
            set_num_threads(n)
            rows, places = np.zeros((50, 300), "f"), np.zeros((50, 300), "f")
            assert add_rows(rows, at, source, 0) and add_along(places, along, source, 0)
            found.append((rows, places))
    finally:
        set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bad", [-1, 10, 2**40, -2**63])
def test_wrong_indices_are_found_before_memory_is_touched(bad):
    x = np.ones((10, 3), "f")
    at = np.zeros((700, 3), np.int64)
    at[657, 1] = bad
    for call in (lambda out: take(out, at[:, 1].copy(), 0),
                 lambda out: add_rows(out, at[:, 1].copy(), np.ones((700, 3), "f"), 0),
                 lambda out: put_rows(out, at[:, 1].copy(), np.ones((700, 3), "f"), 0),
                 lambda out: take(out.T[:1], at[:, 1].copy(), 1)):
        out = x.copy()
        with pytest.raises(IndexError, match=rf"index {bad} at \(657,\) is out of bounds.*10"):
            call(out)
        np.testing.assert_array_equal(out, x)
    for call in (lambda: take_along(x, at, 0),
                 lambda: add_along(x.copy(), at, np.ones(at.shape, "f"), 0),
                 lambda: sum_along(x.copy(), at, np.ones(at.shape, "f"), 0),
                 lambda: take_along(x.T, at.T.copy(), 1)):
        with pytest.raises(IndexError, match=rf"index {bad} at .* is out of bounds"):
            call()


def test_nothing_to_take_from():
    empty, none = np.empty((0, 3), "f"), np.empty(0, np.int64)
    assert take(empty, none, 0).shape == (0, 3)
    assert add_rows(empty.copy(), none, empty, 0)
    with pytest.raises(IndexError):
        take(empty, np.zeros(1, np.int64), 0)


def test_the_interpreter_checks_every_access():
    rng = np.random.default_rng(8)
    target = TARGETS["avx512"]
    x, at, found = numbers(rng, (2, 5, 19), "f"), np.array([4, 0, 4]), np.zeros(1, np.int64)
    out, sizes, steps = np.zeros((2, 3, 19), "f"), (5, 3, 2, 19), (57, 19, 95, 19)
    interpret(gather.build_take(target, I32, I64), out.view("i4"), x.view("i4"), at, found, *sizes,
              *steps, 2)
    np.testing.assert_array_equal(out, x[:, at])
    total = x.copy()
    interpret(gather.build_add_rows(target, F32, I64), out, total, at, found, *sizes, *steps, 16)
    expected = x.copy()
    np.add.at(expected, (slice(None), at), out)
    np.testing.assert_array_equal(total, expected)
    interpret(gather.build_put_rows(target, I32, I64), out.view("i4"), total.view("i4"), at, found,
              *sizes, *steps)
    expected[:, at] = out
    np.testing.assert_array_equal(total, expected)
    single = np.zeros((5, 3, 1), "i4")
    columns = np.arange(35, dtype="i4").reshape(5, 7, 1)
    for together in (1, 4):
        kernel = gather.build_take_single(target, I32, I64, False, together)
        interpret(kernel, single, columns, np.array([6, 0, 2]), found, 7, 5, 3, 7, 1, 2)
        np.testing.assert_array_equal(single[..., 0], columns[:, [6, 0, 2], 0])
    assert not found[0]


@pytest.mark.parametrize("wrong", [None, 5, -1])
def test_the_interpreter_checks_elements(wrong):
    rng = np.random.default_rng(9)
    x, index = numbers(rng, (2, 5, 3), "f"), rng.integers(0, 5, (2, 6, 3))
    if wrong is not None:
        index[1, 4, 2] = wrong
    found, out = np.zeros(1, np.int64), np.zeros((2, 6, 3), "i4")
    kernel = gather.build_take_along(TARGETS["avx2"], I32, I64)
    interpret(kernel, out, x.view("i4"), index, found, 5, *index.shape, 18, 15, 3, 1, 1, 4, 3)
    assert found[0] == (wrong is not None)
    if wrong is None:
        np.testing.assert_array_equal(out.view("f"), np.take_along_axis(x, index, 1))


def test_shapes_that_do_not_fit_are_refused():
    x, at = np.ones((4, 3), "f"), np.zeros(2, np.int64)
    with pytest.raises(ValueError, match="do not fit"):
        add_rows(x, at, np.ones((2, 3), "d"), 0)
    with pytest.raises(ValueError, match="do not fit"):
        take_along(x, np.zeros((2, 2), np.int64), 0)
    assert take(x, at.astype(np.int16), 0) is None
    assert not add_rows(np.ones((4, 3), np.float16), at, np.ones((2, 3), np.float16), 0)
