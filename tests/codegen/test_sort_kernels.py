"""Sorting with places beside NumPy's stable sort: order, ties, zeros, NaN, any axis."""

import numpy as np
import pytest

import lampion as torch
from lampion.codegen.interpret import interpret
from lampion.codegen.sort import _sort_rows, build_keys, build_sorted
from lampion.codegen.sort import sort as sort_rows
from lampion.codegen.target import TARGETS
from lampion.codegen.types import F32, I32
from lampion.debug.knobs import override
from lampion.ops.record import LEAVES


def sample(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == "int32":
        x = rng.integers(-5, 5, shape).astype(np.int32)
        x.reshape(-1)[:2] = (-(1 << 31), (1 << 31) - 1)
        return x
    x = (rng.standard_normal(shape) * 2).round(1).astype(np.float32)
    special = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, -1e-42, 3e38]
    x.reshape(-1)[::7][:len(special)] = special[:len(x.reshape(-1)[::7])]
    return x


@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("shape, dim", [((40, 257), 1), ((257, 40), 0), ((9, 31, 37), 1),
                                        ((10_007,), 0), ((3, 70_001), -1), ((5000, 2), 1)])
def test_beside_the_reference(shape, dim, descending, dtype):
    x = sample(shape, dtype)
    values, places = LEAVES["sort"].kernel(x, dim, descending)
    with override(kernels="sync", check=True):
        got = torch.sort(torch.from_numpy(x), dim, descending)
    np.testing.assert_array_equal(got.indices.numpy(), places)
    np.testing.assert_array_equal(got.values.numpy(), values)
    assert np.array_equal(np.signbit(got.values.numpy()), np.signbit(values))  # -0 stays -0
    assert got.values.is_contiguous() and got.indices.is_contiguous()


@pytest.mark.parametrize("target", ["avx512", "sse"])
@pytest.mark.parametrize("n", [1, 7, 8, 19])
def test_the_interpreter_stays_in_bounds(n, target):
    x = sample((3, n), "float32")
    keys, out, places = np.empty((3, n), np.uint64), np.empty_like(x), np.empty((3, n), np.int64)
    interpret(build_keys(TARGETS[target], F32, False), keys, x)
    _sort_rows(keys)
    interpret(build_sorted(TARGETS[target], F32), out, places, keys, x)
    np.testing.assert_array_equal(out, np.sort(x, 1))
    np.testing.assert_array_equal(places, np.argsort(x, 1, kind="stable"))
    assert build_keys(TARGETS[target], I32, True).name == "sort_keys"


def test_the_same_on_any_number_of_threads():
    x = torch.from_numpy(sample((600, 1000), "float32"))
    before, found = torch.get_num_threads(), []
    try:
        with override(kernels="sync"):
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                found.append(torch.sort(x))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert (other.indices == found[0].indices).all()


def test_other_types_are_refused():
    x = np.zeros((2, 3))
    with pytest.raises(ValueError, match="float32 or int32, got float64"):
        sort_rows(x, np.zeros((2, 3), np.int64), x, False)
