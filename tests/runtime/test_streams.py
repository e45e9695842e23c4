"""The streams against figures recorded from PyTorch 2.13, so no PyTorch is needed here."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from lampion.runtime import random as rs
from lampion.runtime import rejection

RECORDED = json.loads(Path(__file__).with_name("recorded_streams.json").read_text())
F32, F64, I64 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64)


def np_dtype(name):
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def digest(array):
    return hashlib.sha256(array.tobytes()).hexdigest()[:16]


def draw(stream, kind, n, parameters, dtype):
    if kind == "random":
        if not parameters:
            return rs.random_any(stream, n, dtype)
        return rs.randint(stream, n, *parameters, dtype)
    return getattr(rs, kind)(stream, n, *parameters, dtype)


@pytest.mark.parametrize("case", RECORDED["exact"], ids=lambda c: f"{c[0]}-{c[4]}-{c[3]}-{c[2]}")
def test_values_and_state_are_bit_equal(case):
    kind, seed, n, parameters, dtype, values, state = case
    stream = rs.Stream(seed)
    assert digest(draw(stream, kind, n, parameters, np_dtype(dtype))) == values
    assert digest(stream.get_state()) == state


@pytest.mark.parametrize("case", RECORDED["close"], ids=lambda c: f"{c[0]}-{c[4]}-{c[2]}")
def test_transcendental_values(case):
    kind, seed, n, parameters, dtype, values = case
    mine = draw(rs.Stream(seed), kind, n, parameters, np_dtype(dtype))
    np.testing.assert_allclose(mine, values, rtol=4 * np.finfo(mine.dtype).eps)


def test_rejection_samplers():
    stream = rs.Stream(6)
    for kind, arguments, values in RECORDED["rejection"]:
        arrays = [np.array(argument, np.float32) for argument in arguments]
        mine = getattr(rejection, kind)(stream, *arrays)
        np.testing.assert_allclose(mine, values, rtol=1e-6)


def test_the_dropout_mask():
    kept = rs.bernoulli(rs.Stream(0), 64, 0.5, F32)
    np.testing.assert_array_equal(kept * 2, RECORDED["dropout"])


def test_drawing_in_parts_equals_drawing_at_once():
    whole, parts = rs.Stream(5), rs.Stream(5)
    expected = rs.uniform(whole, 100_000, -1, 1, F32)
    pieces = [rs.uniform(parts, n, -1, 1, F32) for n in (1, 2047, 32768, 65184)]
    np.testing.assert_array_equal(np.concatenate(pieces), expected)


def test_an_odd_normal_is_kept_for_the_next_call():
    together, apart = rs.Stream(3), rs.Stream(3)
    expected = rs.normal(together, 6, 0, 1, F64)
    mine = [rs.normal(apart, n, 0, 1, F64) for n in (1, 3, 2)]
    np.testing.assert_array_equal(np.concatenate(mine), expected)
    assert apart.normal is None


@pytest.mark.parametrize("words", [0, 1, 5, 623, 624, 625, 2000])
def test_state_round_trip(words):
    stream = rs.Stream(17)
    stream.words(words)
    rs.normal(stream, 1, 0, 1, F32)
    state = stream.get_state()
    other = rs.Stream(1)
    other.set_state(state)
    np.testing.assert_array_equal(other.get_state(), state)
    np.testing.assert_array_equal(other.words(3000), stream.words(3000))
    assert (other.normal, other.initial_seed()) == (stream.normal, 17)


def test_clones_go_their_own_ways():
    stream = rs.Stream(4)
    twin = stream.clone()
    first = stream.words(10)
    np.testing.assert_array_equal(twin.words(10), first)
    stream.manual_seed(4)
    assert (twin.words(10) != first).any()


def test_seed_is_fresh_each_time():
    stream = rs.Stream()
    assert stream.initial_seed() == rs.DEFAULT_SEED
    assert stream.seed() != stream.seed()
    assert 0 <= stream.initial_seed() < 2**64


@pytest.mark.parametrize("seed,unsigned", [(-1, 2**64 - 1), (-(2**63), 2**63), (2**64 - 1,) * 2])
def test_negative_seeds_wrap(seed, unsigned):
    assert rs.Stream(seed).initial_seed() == unsigned
    np.testing.assert_array_equal(rs.Stream(seed).words(5), rs.Stream(unsigned).words(5))


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_seeds_out_of_range(seed):
    with pytest.raises(ValueError, match="Overflow when unpacking long long"):
        rs.Stream(0).manual_seed(seed)


def test_bad_states_leave_the_stream_alone():
    stream = rs.Stream(2)
    before = stream.get_state()
    with pytest.raises(TypeError, match=r"must be a torch\.ByteTensor"):
        stream.set_state(np.zeros(rs.STATE_BYTES, np.float32))
    with pytest.raises(RuntimeError, match="of size 5056 but found the input RNG state size"):
        stream.set_state(np.zeros(10, np.uint8))
    with pytest.raises(RuntimeError, match="Invalid mt19937 state"):
        stream.set_state(np.zeros(rs.STATE_BYTES, np.uint8))
    huge = before.copy()
    huge[16:24] = 255
    with pytest.raises(RuntimeError, match="Invalid mt19937 state"):
        stream.set_state(huge)
    np.testing.assert_array_equal(stream.get_state(), before)


def test_negative_poisson_rate():
    with pytest.raises(RuntimeError, match="invalid Poisson rate"):
        rejection.poisson(rs.Stream(0), np.array([1.0, -1.0]))


@pytest.mark.parametrize("n", [0, 1, 4096, 4097, 30_000])
def test_randperm_is_a_permutation(n):
    order = rs.randperm(rs.Stream(1), n, I64)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


def test_long_permutation_is_a_permutation():
    order = rs._long_permutation(rs.Stream(1), 40_000, I64)
    np.testing.assert_array_equal(np.sort(order), np.arange(40_000))


def test_fma64_rounds_once():
    from fractions import Fraction

    generator = np.random.default_rng(0)
    a, (b, c) = generator.normal(size=200), generator.normal(size=2)
    exact = [float(Fraction(x) * Fraction(b) + Fraction(c)) for x in a.tolist()]
    np.testing.assert_array_equal(rs.fma64(a, float(b), float(c)), exact)
