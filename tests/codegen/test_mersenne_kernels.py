"""Random values by kernels are the reference's to the bit, and leave its state."""

import ctypes

import numpy as np
import pytest

from lampion.codegen import mersenne
from lampion.codegen.interpret import interpret
from lampion.codegen.target import TARGETS
from lampion.runtime import random as reference
from lampion.runtime.threads import get_num_threads, set_num_threads

pytestmark = pytest.mark.usefixtures("kernels_at_once")
SIZES = [0, 1, 7, 16, 100, 623, 624, 625, 2047, 2049, 5000]


class Twin:
    """Two streams in one state, and the memory of the second."""

    def __init__(self, seed):
        self.slow, self.fast = reference.Stream(seed), reference.Stream(seed)
        address = self.fast._bits.ctypes.state_address
        self.memory = np.frombuffer((ctypes.c_uint32 * 625).from_address(address), np.uint32)

    def check(self, draw, expected, *numbers):
        out = np.full_like(expected, 7)
        assert draw(self.memory, out, *numbers)
        np.testing.assert_array_equal(out, expected)

    def end(self):
        np.testing.assert_array_equal(self.slow.get_state(), self.fast.get_state())


@pytest.fixture
def numpy_only(monkeypatch):
    """The reference itself draws without kernels."""
    monkeypatch.setattr(reference, "_by_kernel", lambda *_: False)


@pytest.mark.usefixtures("numpy_only")
@pytest.mark.parametrize("n", SIZES)
def test_values_and_state(n, instructions):
    twin = Twin(n + 1)
    for _ in range(2):
        twin.check(mersenne.words, twin.slow.words(n))
        for low, high in ((0.0, 1.0), (-1.5, 3.0), (2.0, 2.0)):
            expected = reference.uniform(twin.slow, n, low, high, np.dtype("f4"))
            twin.check(mersenne.uniform, expected, low, high)
        for p in (0.0, 0.3, 1.0):
            expected = reference.bernoulli(twin.slow, n, p, np.dtype("f4"))
            twin.check(mersenne.bernoulli, expected, p)
        for low, span in ((0, 1), (-5, 1000), (3, (1 << 28) - 1)):
            expected = reference.randint(twin.slow, n, low, low + span, np.dtype("i8"))
            twin.check(mersenne.integers, expected, low, span)
        twin.check(mersenne.permutation, reference.randperm(twin.slow, n, np.dtype("i8")))
    twin.end()


@pytest.mark.usefixtures("numpy_only")
@pytest.mark.parametrize("n", [16, 48, 624, 70_000])
def test_normal_values(n, instructions):
    twin = Twin(n)
    for mean, std in ((0.0, 1.0), (0.5, 0.02), (-3.0, 7.5)):
        expected = reference.normal(twin.slow, n, mean, std, np.dtype("f4"))
        twin.check(mersenne.normals, expected, mean, std)
    twin.end()


@pytest.mark.usefixtures("numpy_only")
@pytest.mark.parametrize("n", SIZES)
def test_float64(n, instructions):
    twin = Twin(n)
    if not TARGETS[instructions].has_fma:
        assert not mersenne.uniform(twin.memory, np.empty(n), 0.0, 1.0)
        twin.end()
        return
    for low, high in ((0.0, 1.0), (-1.5, 3.0)):
        expected = reference.uniform(twin.slow, n, low, high, np.dtype("f8"))
        twin.check(mersenne.uniform, expected, low, high)
    twin.end()


@pytest.mark.usefixtures("numpy_only")
def test_spans_up_to_a_word():
    twin = Twin(3)
    for span in (2**31, 2**32 - 1, 2**31 + 1, 3):
        expected = twin.slow.words(3000).astype(np.int64) % span - 10
        twin.check(mersenne.integers, expected, -10, span)
    twin.end()


def test_any_number_of_threads_gives_the_same_bits():
    before, found = get_num_threads(), []
    try:
        for n in (1, 2, 3):
            set_num_threads(n)
            out = np.empty(100_000, "f")
            assert mersenne.normals(Twin(5).memory, out, 0.0, 1.0)
            found.append(out)
    finally:
        set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.usefixtures("numpy_only")
@pytest.mark.parametrize("kind", ["uniform32", "bernoulli"])
def test_the_interpreter_checks_every_access(kind):
    twin = Twin(9)
    twin.slow.words(620), mersenne.words(twin.memory, np.empty(620, "u4"))
    out = np.zeros(13, "f")
    numbers = (0.0, 1.0) if kind == "uniform32" else (1 << 52,)
    interpret(mersenne.build_draws(TARGETS["avx2"], kind), twin.memory, out, *numbers)
    expected = (reference.uniform(twin.slow, 13, 0.0, 1.0, np.dtype("f4"))
                if kind == "uniform32" else reference.bernoulli(twin.slow, 13, 0.5, out.dtype))
    np.testing.assert_array_equal(out, expected)
    twin.end()


def test_what_does_not_fit_is_refused():
    state = Twin(0).memory
    with pytest.raises(ValueError, match="624 words"):
        mersenne.words(state[:-1], np.empty(3, "u4"))
    damaged = state.copy()
    damaged[624] = 625
    with pytest.raises(ValueError, match="position"):
        mersenne.words(damaged, np.empty(3, "u4"))
    with pytest.raises(ValueError, match="one-dimensional contiguous"):
        mersenne.words(state, np.empty((3, 2), "u4"))
    with pytest.raises(ValueError, match="float32 or float64"):
        mersenne.uniform(state, np.empty(3, "i4"), 0, 1)
    with pytest.raises(ValueError, match="groups of 16"):
        mersenne.normals(state, np.empty(17, "f"), 0, 1)
    with pytest.raises(ValueError, match="a span of one word"):
        mersenne.integers(state, np.empty(3, "i8"), 0, 1 << 32)


@pytest.mark.parametrize("n", [16, 31, 300, 1000, 70_001])
def test_a_stream_gives_the_same_with_and_without_kernels(n, monkeypatch):
    """Through the functions that operators call; mixed with draws that have no kernel."""
    def draw():
        stream = reference.Stream(n)
        f4, f8, i8 = (np.dtype(d) for d in ("f4", "f8", "i8"))
        return [reference.normal(stream, n, 0.5, 2.0, f4), reference.uniform(stream, n, 0, 2, f8),
                reference.normal(stream, 17, 0.0, 1.0, f8), reference.randperm(stream, n, i8),
                reference.bernoulli(stream, n, 0.2, f8), reference.normal(stream, n, 0, 1, f4),
                reference.randint(stream, n, -2, 9, np.dtype("i4")), reference.randperm(
                    stream, n, np.dtype("i4")), reference.uniform(stream, n, 0, 1, np.dtype("f2")),
                stream.get_state()]
    with_kernels = draw()
    monkeypatch.setattr(reference, "_by_kernel", lambda *_: False)
    for fast, slow in zip(with_kernels, draw(), strict=True):
        np.testing.assert_array_equal(fast, slow)


def test_kernels_leave_an_unknown_state_alone(monkeypatch):
    stream, same = reference.Stream(1), reference.Stream(1)
    monkeypatch.setattr(stream, "_memory", np.empty(0, np.uint32))
    np.testing.assert_array_equal(stream.floats(1000), same.floats(1000))
