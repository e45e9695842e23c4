"""Resampling kernels against the NumPy reference: all kinds, both directions, one to three axes."""

import numpy as np
import pytest

from lampion.codegen.interpret import interpret
from lampion.codegen.resample import build_resample, resample, taps, turned_taps
from lampion.codegen.target import TARGETS
from lampion.codegen.types import F32
from lampion.ops.reference import resample as reference
from lampion.runtime.threads import get_num_threads, set_num_threads

pytestmark = pytest.mark.usefixtures("kernels_at_once")
CASES = [("nearest", (7,), (15,)), ("linear", (9,), (4,)), ("nearest", (5, 6), (10, 12)),
         ("linear", (6, 70), (11, 100)), ("cubic", (5, 7), (9, 3)), ("linear-aa", (20, 33), (7, 9)),
         ("mean", (7, 11), (3, 4)), ("linear", (3, 4, 5), (6, 7, 8)), ("nearest", (1, 1), (1, 40)),
         ("linear", (2, 200), (2, 1))]


def tables_of(kind, spatial, size, dtype):
    return reference.tables(kind, spatial, size, False, [None] * len(size), dtype)


@pytest.mark.parametrize(("kind", "spatial", "size"), CASES)
def test_both_directions(kind, spatial, size, instructions):
    rng = np.random.default_rng(0)
    for dtype, bound in ((np.dtype("f4"), 1e-5), (np.dtype("f8"), 1e-13)):
        tables = tables_of(kind, spatial, size, dtype)
        x = rng.standard_normal((2, 3, *spatial)).astype(dtype)
        out = np.full((2, 3, *size), 7, dtype)
        forward = [taps(*t, n, dtype) for t, n in zip(tables, spatial, strict=True)]
        assert resample(out, x, forward)
        np.testing.assert_allclose(out, reference.resample(x, tables), rtol=bound, atol=bound)
        dx = np.full_like(x, 7)
        backward = [turned_taps(*t, n, dtype) for t, n in zip(tables, spatial, strict=True)]
        assert resample(dx, out, backward)
        expected = reference.resample_transpose(out, tables, spatial)
        np.testing.assert_allclose(dx, expected, rtol=bound, atol=10 * bound)


def test_nearest_copies_every_value():
    x = np.array([[[1.5, np.nan, -np.inf, 1e-42]]], "f")
    out = np.empty((1, 1, 8), "f")
    tables = tables_of("nearest", (4,), (8,), x.dtype)
    assert resample(out, x, [taps(*tables[0], 4, x.dtype)])
    np.testing.assert_array_equal(out, np.repeat(x, 2, 2))


def test_any_number_of_threads_gives_the_same_bits():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((4, 8, 40, 50)).astype("f")
    tables = tables_of("cubic", (40, 50), (77, 90), x.dtype)
    before, found = get_num_threads(), []
    try:
        for n in (1, 2, 3):
            set_num_threads(n)
            out, dx = np.empty((4, 8, 77, 90), "f"), np.empty_like(x)
            assert resample(out, x, [taps(*t, s, x.dtype) for t, s in zip(
                tables, (40, 50), strict=True)])
            assert resample(dx, out, [turned_taps(*t, s, x.dtype) for t, s in zip(
                tables, (40, 50), strict=True)])
            found.append((out, dx))
    finally:
        set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("fixed", [0, 2])
def test_the_interpreter_checks_every_access(fixed):
    rng = np.random.default_rng(2)
    index, weight = rng.integers(0, 5, (7, 2)), rng.standard_normal((7, 2))
    t = taps(index, weight, 5, np.dtype("f4"))
    for across, shape in ((True, (2, 5, 11)), (False, (6, 5, 1))):
        x = rng.standard_normal(shape).astype("f")
        out = np.zeros((shape[0], 7, shape[2]), "f")
        kernel = build_resample(TARGETS["avx2"], F32, across, fixed)
        interpret(kernel, out, x, t.starts, t.places, t.weights, 4)
        expected = np.einsum("ojc,ij->oic", x, np.eye(5)[index[:, 0]] * weight[:, :1]
                             + np.eye(5)[index[:, 1]] * weight[:, 1:])
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_what_does_not_fit_is_refused():
    x = np.ones((1, 1, 4), "f")
    good = taps(np.zeros((3, 1), int), np.ones((3, 1)), 4, x.dtype)
    with pytest.raises(ValueError, match="places within an axis of 4"):
        taps(np.full((3, 1), 4), np.ones((3, 1)), 4, x.dtype)
    with pytest.raises(ValueError, match="do not fit"):
        resample(np.empty((1, 1, 4), "f"), x, [good])
    with pytest.raises(ValueError, match="do not fit"):
        resample(np.empty((1, 1, 3)), x.astype("d"), [good])
    assert not resample(np.empty((1, 1, 6), "f")[..., ::2], x, [good])
    assert resample(np.empty((0, 1, 3), "f"), x[:0], [good])
