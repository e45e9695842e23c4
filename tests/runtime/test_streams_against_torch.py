"""The streams beside PyTorch's own, over sizes, dtypes and mixed calls."""

import zlib

import numpy as np
import pytest

from lampion.runtime import random as rs
from lampion.runtime import rejection

torch = pytest.importorskip("torch")

SIZES = [0, 1, 2, 7, 15, 16, 17, 31, 32, 33, 63, 100, 1000, 1025, 4097, 32768, 40001]
SEEDS = [0, 1, 42, 2**31, 2**32 + 7, 2**64 - 1]
FLOATS = ["float32", "float64", "float16", "bfloat16"]
INTS = ["int8", "uint8", "int16", "int32", "int64"]
EXACT_ON_ANY_X86 = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def np_dtype(name):
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def numbers(tensor):
    """A PyTorch tensor's values as an array of the same bits."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np_dtype("bfloat16"))
    return tensor.numpy()


def both(seed):
    torch.manual_seed(seed)
    return rs.Stream(seed)


def assert_same(actual, tensor, ulps=0):
    expected = numbers(tensor).reshape(-1)
    assert actual.dtype == expected.dtype
    if ulps == 0:
        np.testing.assert_array_equal(actual.view(np.uint8), expected.view(np.uint8))
    else:
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(actual[~finite], expected[~finite])
        actual, expected = actual[finite], expected[finite]
        gap = np.spacing(np.abs(expected)).astype(np.float64)
        error = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
        assert (error <= ulps * gap).all()


def assert_in_step(stream):
    assert_same(stream.get_state(), torch.get_rng_state())


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("n", SIZES)
def test_uniform(name, n):
    for seed in SEEDS:
        stream = both(seed)
        dtype = getattr(torch, name)
        assert_same(rs.uniform(stream, n, 0, 1, np_dtype(name)), torch.rand(n, dtype=dtype))
        for low, high in [(-0.3, 0.7), (2, 3), (-1 / 3, 1 / 3), (0, 0.1), (5, 5)]:
            mine = rs.uniform(stream, n, low, high, np_dtype(name))
            assert_same(mine, torch.empty(n, dtype=dtype).uniform_(low, high))
        assert_in_step(stream)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("n", SIZES)
def test_normal(name, n):
    dtype = getattr(torch, name)
    ulps = 0 if EXACT_ON_ANY_X86 else 3
    for seed in SEEDS:
        stream = both(seed)
        for mean, std in [(0, 1), (0.3, 2.5), (0, 0.02), (1, 0)]:
            mine = rs.normal(stream, n, mean, std, np_dtype(name))
            assert_same(mine, torch.empty(n, dtype=dtype).normal_(mean, std), ulps)
            assert (stream.normal is None) == (torch.get_rng_state()[5040] == 0)
        assert_in_step(stream)


@pytest.mark.parametrize("name", FLOATS)
def test_normal_of_a_tensor_that_is_not_contiguous(name):
    for n in [5, 16, 33, 255, 256, 4000]:
        stream = both(n)
        mine = rs.normal(stream, n, 0.5, 2, np_dtype(name), contiguous=False)
        theirs = torch.empty(2 * n, dtype=getattr(torch, name))[::2].normal_(0.5, 2)
        assert_same(mine, theirs.contiguous(), ulps=1)


RANGES = [
    (0, 2), (-5, 90), (0, 127), (0, 2**28 - 1), (0, 2**28), (-7, 2**31 - 1), (-(2**31), 2**31 - 1),
    (0, 2**32), (-(2**62), 2**62), (-(2**63) + 1, 2**63 - 1),
]  # fmt: skip


@pytest.mark.parametrize("low,high", RANGES)
@pytest.mark.parametrize("name", INTS + FLOATS)
def test_randint(name, low, high):
    dtype = getattr(torch, name)
    if dtype.is_floating_point and high > 2**8:
        pytest.skip("PyTorch narrows the bounds first; the op does that")
    for n in SIZES[:13]:
        stream = both(n)
        theirs = torch.empty(n, dtype=dtype)
        try:
            theirs.random_(low, high)
        except RuntimeError:
            pytest.skip("the range does not fit the dtype")
        assert_same(rs.randint(stream, n, low, high, np_dtype(name)), theirs)
        assert_in_step(stream)


@pytest.mark.parametrize("name", [*INTS, *FLOATS, "bool"])
def test_random_without_bounds(name):
    for n in SIZES:
        stream = both(3)
        theirs = torch.empty(n, dtype=getattr(torch, name)).random_()
        assert_same(rs.random_any(stream, n, np_dtype(name)), theirs)
        assert_in_step(stream)


@pytest.mark.parametrize("name", ["int64", "float32", "float64", "bfloat16"])
def test_random_over_all_of_int64(name):
    stream = both(3)
    theirs = torch.empty(500, dtype=getattr(torch, name)).random_(-(2**63), None)
    assert_same(rs.random_64(stream, 500, np_dtype(name)), theirs)


@pytest.mark.parametrize("name", ["int64", "int32", "float32"])
@pytest.mark.parametrize("n", SIZES)
def test_randperm(n, name):
    for seed in SEEDS:
        stream = both(seed)
        theirs = torch.randperm(n, dtype=getattr(torch, name))
        assert_same(rs.randperm(stream, n, np_dtype(name)), theirs)
        assert_in_step(stream)


@pytest.mark.parametrize("name", [*INTS, *FLOATS, "bool"])
@pytest.mark.parametrize("p", [0.0, 1e-9, 0.1, 0.5, 0.9, 1 - 1e-12, 1.0])
def test_bernoulli(name, p):
    for n in SIZES:
        stream = both(11)
        theirs = torch.empty(n, dtype=getattr(torch, name)).bernoulli_(p)
        assert_same(rs.bernoulli(stream, n, p, np_dtype(name)), theirs)
        assert_in_step(stream)


@pytest.mark.parametrize("name", FLOATS)
def test_bernoulli_each(name):
    for n in SIZES:
        stream = both(11)
        p = torch.rand(n, dtype=getattr(torch, name))
        mine = rs.uniform(stream, n, 0, 1, np_dtype(name))
        assert_same(rs.bernoulli_each(stream, mine, mine.dtype), torch.bernoulli(p))
        assert_in_step(stream)


CONTINUOUS = {
    "exponential": [(1.0,), (0.37,), (25.0,)],
    "cauchy": [(0.0, 1.0), (0.5, 3.3)],
    "log_normal": [(0.0, 1.0), (1.2, 0.4)],
    "geometric": [(0.5,), (0.01,), (0.97,)],
}


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("kind", CONTINUOUS)
def test_continuous(kind, name):
    for n in SIZES:
        for parameters in CONTINUOUS[kind]:
            stream = both(zlib.crc32(repr(parameters).encode()))
            theirs = getattr(torch.empty(n, dtype=getattr(torch, name)), kind + "_")(*parameters)
            assert_same(getattr(rs, kind)(stream, n, *parameters, np_dtype(name)), theirs, 1)
            assert_in_step(stream)


@pytest.mark.parametrize("name", INTS)
def test_geometric_integers(name):
    stream = both(5)
    theirs = torch.empty(300, dtype=getattr(torch, name)).geometric_(0.3)
    assert_same(rs.geometric(stream, 300, 0.3, np_dtype(name)), theirs)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("rows,classes", [(1, 5), (3, 17), (2, 1000)])
def test_multinomial(name, rows, classes):
    stream = both(8)
    weights = torch.rand(rows, classes, dtype=getattr(torch, name))
    mine = rs.uniform(stream, rows * classes, 0, 1, np_dtype(name)).reshape(rows, classes)
    assert_same(rs.multinomial(stream, mine, 40).reshape(-1), torch.multinomial(weights, 40, True))
    assert_in_step(stream)
    if name == "float16":
        return
    for samples in [1, 2, 5]:
        theirs = torch.multinomial(weights, samples)
        assert_same(rs.multinomial_distinct(stream, mine, samples).reshape(-1), theirs)
        assert_in_step(stream)


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_poisson_binomial_gamma(name):
    dtype = getattr(torch, name)
    for seed in range(5):
        stream = both(seed)
        rates = torch.rand(500, dtype=dtype) * 30
        mine = rs.uniform(stream, 500, 0, 1, np_dtype(name)) * 30
        assert_same(rejection.poisson(stream, mine), torch.poisson(rates))
        assert_in_step(stream)
        assert_same(rejection.standard_gamma(stream, mine), torch._standard_gamma(rates), 1)
        assert_in_step(stream)
        assert_same(
            rejection.standard_gamma(stream, mine / 30), torch._standard_gamma(rates / 30), 1
        )
        assert_in_step(stream)
        counts, probs = torch.floor(rates * 10), torch.linspace(0, 1, 500, dtype=dtype)
        mine_counts = np.floor(mine * 10)
        values = rejection.binomial(stream, mine_counts, probs.numpy())
        assert_same(values, torch.binomial(counts, probs))
        assert_in_step(stream)
        points = rejection.dirichlet(stream, mine.reshape(50, 10))
        assert_same(points.reshape(-1), torch._sample_dirichlet(rates.reshape(50, 10)), 4)
        assert_in_step(stream)


def test_mixed_calls_stay_in_step():
    stream = both(2024)
    for n in [1, 3, 15, 16, 17, 2, 5, 700, 1]:
        assert_same(rs.normal(stream, n, 0, 1, np_dtype("float32")), torch.randn(n))
        assert_same(rs.randint(stream, n, 0, 10, np_dtype("int64")), torch.randint(0, 10, (n,)))
        theirs = torch.rand(n, dtype=torch.float64)
        assert_same(rs.uniform(stream, n, 0, 1, np_dtype("float64")), theirs)
        assert_same(rs.randperm(stream, n, np_dtype("int64")), torch.randperm(n))
        theirs = torch.empty(n).log_normal_(0, 1)
        assert_same(rs.log_normal(stream, n, 0, 1, np_dtype("float32")), theirs, 1)
        assert_in_step(stream)


def test_states_are_exchanged_both_ways():
    stream = both(9)
    torch.randn(3)
    torch.rand(700)
    stream.set_state(torch.get_rng_state().numpy())
    assert_same(
        rs.normal(stream, 5, 0, 1, np_dtype("float64")), torch.randn(5, dtype=torch.float64)
    )
    rs.normal(stream, 7, 0, 1, np_dtype("float32"))
    torch.set_rng_state(torch.from_numpy(stream.get_state()))
    assert_same(rs.normal(stream, 20, 0, 1, np_dtype("float32")), torch.randn(20))
    assert_in_step(stream)


@pytest.mark.parametrize("draws", [0, 1, 623, 624, 625, 1248])
def test_the_state_has_pytorchs_bytes(draws):
    stream = both(77)
    torch.rand(draws)
    stream.words(draws)
    assert_in_step(stream)
